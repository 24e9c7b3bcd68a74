//! The machine's I/O APICs: every pin masked at the start, one opened for the console.

use crate::machine::device_memory::DeviceMemory;
use crate::machine::firmware::{self, Line};
use crate::machine::ports;
use alloc::vec::Vec;
use apic::spec::io_apic::{INDEX_OFFSET, WINDOW_OFFSET};
use apic::{IoApic, IoApicAccess};

/// Bytes of registers of one I/O APIC.
const BYTES: u64 = 0x20;

/// The index and data window of one I/O APIC.
#[derive(Debug)]
struct Registers(DeviceMemory);

impl IoApicAccess for Registers {
    fn select(&mut self, index: u8) {
        self.0.write32(INDEX_OFFSET as u64, index.into());
    }

    fn read_window(&mut self) -> u32 {
        self.0.read32(WINDOW_OFFSET as u64)
    }

    fn write_window(&mut self, value: u32) {
        self.0.write32(WINDOW_OFFSET as u64, value);
    }
}

struct Known {
    id: u8,
    gsi_base: u32,
    apic: IoApic<Registers>,
}

/// All I/O APICs that answer.
#[derive(Default)]
pub struct IoApics(Vec<Known>);

impl IoApics {
    /// Maps the I/O APICs that the firmware names and masks all their pins, and those of the older controllers: what
    /// firmware left open would be delivered with a vector that means something else here.
    pub fn start(named: &[firmware::IoApic]) -> Self {
        mask_legacy_controllers();
        let mut known = Vec::new();
        for &firmware::IoApic { id, address, gsi_base } in named {
            let memory = match DeviceMemory::map(address, BYTES) {
                Ok(memory) => memory,
                Err(error) => {
                    log::warn!("I/O APIC {id} at {address}: {error}");
                    continue;
                }
            };
            match IoApic::new(Registers(memory)) {
                Ok(mut apic) => {
                    apic.mask_all();
                    known.push(Known { id, gsi_base, apic });
                }
                Err(error) => log::warn!("I/O APIC {id} at {address}: {error}"),
            }
        }
        Self(known)
    }

    /// The id of the I/O APIC that has the pin of `line`.
    pub fn id_of(&self, line: &Line) -> Option<u8> {
        self.0.iter().find(|known| known.pin(line).is_some()).map(|known| known.id)
    }

    /// Writes the redirection entry of `line`'s pin; says whether there is one.
    pub fn write(&mut self, line: &Line, entry: u64) -> bool {
        let found = self.0.iter_mut().find_map(|known| Some((known.pin(line)?, known)));
        found.is_some_and(|(pin, known)| known.apic.write_entry(pin, entry).is_ok())
    }
}

impl Known {
    fn pin(&self, line: &Line) -> Option<u16> {
        let pin = u16::try_from(line.gsi.checked_sub(self.gsi_base)?).ok()?;
        (pin < self.apic.entry_count()).then_some(pin)
    }
}

/// Masks both 8259 interrupt controllers.
fn mask_legacy_controllers() {
    const FIRST_DATA: u16 = 0x21;
    const SECOND_DATA: u16 = 0xa1;
    ports::write(SECOND_DATA, 1, 0xff);
    ports::write(FIRST_DATA, 1, 0xff);
}
