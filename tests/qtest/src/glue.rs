//! What the driver asks of a kernel: registers, time and memory. Here they are a QEMU's.

use crate::machine::Machine;
use crate::memory::Memory;
use addr::HostPhys;
use paging::TableMemory;
use std::time::Instant;
use vtd::{Clock, DmaMemory, Registers};

/// Where q35 has its remapping unit.
pub const UNIT: u64 = 0xfed9_0000;

/// CAP_REG and ECAP_REG.
const CAP: u16 = 0x08;
const ECAP: u16 = 0x10;

/// Capabilities that the unit has and the driver is not shown: so it does without them, on a unit that would show if
/// that were not right.
#[derive(Clone, Copy, Default, Debug)]
pub struct Hidden {
    /// Bits of CAP_REG.
    pub cap: u64,
    /// Bits of ECAP_REG.
    pub ecap: u64,
}

/// The register window of the machine's unit.
#[derive(Clone, Debug)]
pub struct Window {
    machine: Machine,
    hidden: Hidden,
}

impl Window {
    /// The window of the machine's unit, less what is hidden.
    pub fn new(machine: &Machine, hidden: Hidden) -> Self {
        Self { machine: machine.clone(), hidden }
    }
}

impl Registers for Window {
    fn read32(&self, offset: u16) -> u32 {
        self.machine.read32(UNIT + u64::from(offset))
    }

    fn read64(&self, offset: u16) -> u64 {
        let hidden = match offset {
            CAP => self.hidden.cap,
            ECAP => self.hidden.ecap,
            _ => 0,
        };
        self.machine.read64(UNIT + u64::from(offset)) & !hidden
    }

    fn write32(&mut self, offset: u16, value: u32) {
        self.machine.write32(UNIT + u64::from(offset), value);
    }

    fn write64(&mut self, offset: u16, value: u64) {
        self.machine.write64(UNIT + u64::from(offset), value);
    }
}

/// The time on the wall. Each poll of the driver is a round trip to QEMU, so there is nothing to do between two.
#[derive(Clone, Copy, Debug)]
pub struct WallClock(Instant);

impl Default for WallClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for WallClock {
    fn now_us(&self) -> u64 {
        self.0.elapsed().as_micros() as u64
    }

    fn relax(&self) {}
}

impl TableMemory for Memory {
    fn allocate_table(&mut self) -> Option<HostPhys> {
        self.take_table()
    }

    fn free_table(&mut self, table: HostPhys) {
        self.give_back(table);
    }

    fn read_entry(&self, table: HostPhys, index: usize) -> u64 {
        self.load(HostPhys::new(table.as_u64() + 8 * index as u64))
    }

    fn write_entry(&mut self, table: HostPhys, index: usize, value: u64) {
        self.store_for_driver(HostPhys::new(table.as_u64() + 8 * index as u64), value);
    }
}

impl DmaMemory for Memory {
    fn allocate_contiguous(&mut self, pages: usize, alignment: u64) -> Option<HostPhys> {
        self.take_tables(pages, alignment)
    }

    fn read_u64(&self, address: HostPhys) -> u64 {
        self.load(address)
    }

    fn write_u64(&mut self, address: HostPhys, value: u64) {
        self.store_for_driver(address, value);
    }

    fn exchange_u128(&mut self, address: HostPhys, old: [u64; 2], new: [u64; 2]) -> bool {
        self.exchange(address, old, new)
    }

    // QEMU's unit says that it is not coherent (ECAP.C = 0) and reads memory as it is: a write-back that is missing
    // cannot show here.
    fn write_back(&mut self, _: HostPhys, _: u64) {}
}
