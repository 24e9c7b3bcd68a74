//! The machine's memory: frames for the driver's tables, and pages for devices to reach.

use crate::machine::Machine;
use addr::{HostPhys, PAGE_SIZE};
use std::fmt;

/// Where the driver's tables are: 16 MiB to 64 MiB.
const TABLES: std::ops::Range<u64> = 0x100_0000..0x400_0000;
/// Pages that devices reach: from 64 MiB to the end of low memory.
const PAGES: std::ops::Range<u64> = 0x400_0000..0x4000_0000;
/// Memory above 4 GiB.
pub const HIGH_MEMORY: std::ops::Range<u64> = 0x1_0000_0000..0x1_0400_0000;
/// No memory, and no device.
pub const NOTHING: HostPhys = HostPhys::new(0x2_0000_0000);

/// Changes what the driver stores: a mistake that a test makes on purpose. Shown the address and the value, it answers the
/// value to store.
type Tampering = Box<dyn FnMut(HostPhys, u64) -> u64>;

/// The memory of one machine.
pub struct Memory {
    machine: Machine,
    next_table: u64,
    next_page: u64,
    free: Vec<HostPhys>,
    freed: u64,
    tampering: Option<Tampering>,
    /// Whether an exchange of 128 bits can be done at all; some processors cannot.
    pub can_exchange: bool,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory {{ next_table: {:#x}, next_page: {:#x} }}", self.next_table, self.next_page)
    }
}

impl Memory {
    /// All of it free.
    pub fn new(machine: Machine) -> Self {
        Self {
            machine,
            next_table: TABLES.start,
            next_page: PAGES.start,
            free: Vec::new(),
            freed: 0,
            tampering: None,
            can_exchange: true,
        }
    }

    /// Zeroed contiguous pages for tables, or `None` when memory is out.
    pub fn take_tables(&mut self, pages: usize, alignment: u64) -> Option<HostPhys> {
        let start = self.next_table.next_multiple_of(alignment.max(PAGE_SIZE));
        let end = start + pages as u64 * PAGE_SIZE;
        if end > TABLES.end {
            return None;
        }
        self.next_table = end;
        // Another case may have used it.
        self.machine.zero(start, end - start);
        Some(HostPhys::new(start))
    }

    /// One zeroed frame; the one that was freed last comes first, so that a table that is freed too early is soon
    /// something else.
    pub fn take_table(&mut self) -> Option<HostPhys> {
        match self.free.pop() {
            Some(table) => {
                self.machine.zero(table.as_u64(), PAGE_SIZE);
                Some(table)
            }
            None => self.take_tables(1, PAGE_SIZE),
        }
    }

    /// Takes a frame back.
    pub fn give_back(&mut self, table: HostPhys) {
        self.freed += 1;
        self.free.push(table);
    }

    /// How many frames were given back.
    pub fn freed(&self) -> u64 {
        self.freed
    }

    /// Pages for a device to reach, not given before in this case: `bytes`, aligned to `alignment`.
    pub fn take_pages(&mut self, bytes: u64, alignment: u64) -> HostPhys {
        let start = self.next_page.next_multiple_of(alignment);
        self.next_page = start + bytes;
        assert!(self.next_page <= PAGES.end, "the test needs more memory than there is");
        HostPhys::new(start)
    }

    /// Reads 64 bits.
    pub fn load(&self, address: HostPhys) -> u64 {
        self.machine.read64(address.as_u64())
    }

    /// Stores 64 bits, as they are.
    pub fn store(&mut self, address: HostPhys, value: u64) {
        self.machine.write64(address.as_u64(), value);
    }

    /// Stores 64 bits for the driver.
    pub fn store_for_driver(&mut self, address: HostPhys, value: u64) {
        let value = match &mut self.tampering {
            Some(tampering) => tampering(address, value),
            None => value,
        };
        self.store(address, value);
    }

    /// Stores 128 bits by one access if there stands `old`.
    pub fn exchange(&mut self, address: HostPhys, old: [u64; 2], new: [u64; 2]) -> bool {
        let bytes = |words: [u64; 2]| words.map(u64::to_le_bytes).concat();
        if !self.can_exchange || self.machine.read(address.as_u64(), 16) != bytes(old) {
            return false;
        }
        self.machine.write(address.as_u64(), &bytes(new));
        true
    }

    /// From now on `tampering` is asked about every store of the driver.
    pub fn tamper(&mut self, tampering: impl FnMut(HostPhys, u64) -> u64 + 'static) {
        self.tampering = Some(Box::new(tampering));
    }

    /// The driver's stores are left alone again.
    pub fn stop_tampering(&mut self) {
        self.tampering = None;
    }
}
