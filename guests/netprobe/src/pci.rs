//! PCI configuration space by ports 0xCF8 and 0xCFC, and MSI-X.

use crate::cpu::{read_port32, write_port32};
use crate::memory::DeviceRegisters;
use addr::{ApicId, Bdf, GuestPhys, Vector};

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;

const ID: u8 = 0x00;
const COMMAND: u8 = 0x04;
const HEADER_TYPE: u8 = 0x0c;
const BAR0: u8 = 0x10;
const CAPABILITIES: u8 = 0x34;
const MEMORY_SPACE: u32 = 1 << 1;
const BUS_MASTER: u32 = 1 << 2;
const INTX_DISABLE: u32 = 1 << 10;
/// Status register, in the upper half of the word at [`COMMAND`]: there is a list of capabilities.
const CAPABILITIES_LIST: u32 = 1 << 20;
/// In the word at [`HEADER_TYPE`]: the device has more functions than one.
const MULTI_FUNCTION: u32 = 1 << 23;
const CAPABILITY_MSIX: u8 = 0x11;
/// A list of capabilities is at most this long: 192 bytes of 4 each.
const MOST_CAPABILITIES: usize = 48;
/// MSI-X message control, in the upper half of the capability's first word.
const MSIX_ENABLE: u32 = 1 << 31;
const MSIX_FUNCTION_MASK: u32 = 1 << 30;
const MSIX_ENTRY_SIZE: usize = 16;

/// A function on bus 0.
pub struct Function {
    /// Where it is.
    pub address: Bdf,
}

/// The first function on bus 0 with these ids.
pub fn find(vendor: u16, device: u16) -> Option<Function> {
    let wanted = u32::from(device) << 16 | u32::from(vendor);
    for slot in 0..32 {
        let first = Function { address: Bdf::new(0, slot, 0)? };
        if first.read(ID) as u16 == 0xffff {
            continue;
        }
        let functions = if first.read(HEADER_TYPE) & MULTI_FUNCTION != 0 { 8 } else { 1 };
        for number in 0..functions {
            let function = Function { address: Bdf::new(0, slot, number)? };
            if function.read(ID) == wanted {
                return Some(function);
            }
        }
    }
    None
}

impl Function {
    fn select(&self, offset: u8) {
        write_port32(CONFIG_ADDRESS, 1 << 31 | u32::from(self.address.as_u16()) << 8 | u32::from(offset & !3));
    }

    fn read(&self, offset: u8) -> u32 {
        self.select(offset);
        read_port32(CONFIG_DATA)
    }

    fn write(&self, offset: u8, value: u32) {
        self.select(offset);
        write_port32(CONFIG_DATA, value);
    }

    /// Lets the function answer at its BARs and reach memory, with its interrupt pin off.
    pub fn enable(&self) {
        // The upper half is the status register, whose bits are cleared by writing 1: write 0 there.
        let command = self.read(COMMAND) & 0xffff;
        self.write(COMMAND, command | MEMORY_SPACE | BUS_MASTER | INTX_DISABLE);
    }

    /// Where the memory BAR `index` (0 to 5) lies; `None` if there is none, or nobody assigned it.
    pub fn memory_bar(&self, index: u8) -> Option<GuestPhys> {
        if index > 5 {
            return None;
        }
        let low = self.read(BAR0 + 4 * index);
        let is_64_bit = low >> 1 & 3 == 2;
        let high = if is_64_bit && index < 5 { self.read(BAR0 + 4 * (index + 1)) } else { 0 };
        let address = u64::from(high) << 32 | u64::from(low & !0xf);
        (low & 1 == 0 && address != 0).then_some(GuestPhys::new(address))
    }

    /// Moves the 32-bit memory BAR `index` (0 to 5) to `to`, a multiple of its size where nothing is. The function does not
    /// answer meanwhile.
    pub fn move_memory_bar(&self, index: u8, to: GuestPhys) {
        let command = self.read(COMMAND) & 0xffff;
        self.write(COMMAND, command & !MEMORY_SPACE);
        self.write(BAR0 + 4 * index.min(5), to.as_u64() as u32);
        self.write(COMMAND, command);
    }

    fn capability(&self, id: u8) -> Option<u8> {
        if self.read(COMMAND) & CAPABILITIES_LIST == 0 {
            return None;
        }
        let mut at = self.read(CAPABILITIES) as u8 & !3;
        for _ in 0..MOST_CAPABILITIES {
            if at < 0x40 {
                return None;
            }
            let header = self.read(at);
            if header as u8 == id {
                return Some(at);
            }
            at = (header >> 8) as u8 & !3;
        }
        None
    }

    /// Makes MSI-X entry `n` send `vectors[n]` to the processor `destination`, and turns MSI-X on. The error is a
    /// word for the report.
    pub fn enable_msix(&self, vectors: &[Vector], destination: ApicId) -> Result<(), &'static str> {
        let capability = self.capability(CAPABILITY_MSIX).ok_or("no-msix-capability")?;
        let control = self.read(capability);
        let entries = (control >> 16 & 0x7ff) as usize + 1;
        if entries < vectors.len() {
            return Err("too-few-msix-entries");
        }
        let place = self.read(capability + 4);
        let table = self
            .memory_bar(place as u8 & 7)
            .and_then(|bar| bar.checked_add(u64::from(place & !7)))
            .ok_or("no-msix-table")?;
        // SAFETY: the function's own BAR says that the table is there, and BARs do not lie over memory.
        let table = unsafe { DeviceRegisters::new(table, (entries * MSIX_ENTRY_SIZE) as u64) }
            .ok_or("msix-table-not-mapped")?;

        // All entries stay masked by the function mask while they change.
        self.write(capability, control | MSIX_ENABLE | MSIX_FUNCTION_MASK);
        for (index, vector) in vectors.iter().enumerate() {
            let entry = index * MSIX_ENTRY_SIZE;
            // Address: physical destination, no redirection hint. Data: fixed, edge. Then the entry's own mask bit.
            table.write(entry, 0xfee0_0000 | (destination.0 & 0xff) << 12);
            table.write(entry + 4, 0);
            table.write(entry + 8, u32::from(vector.0));
            table.write(entry + 12, 0);
        }
        self.write(capability, (control | MSIX_ENABLE) & !MSIX_FUNCTION_MASK);
        Ok(())
    }
}
