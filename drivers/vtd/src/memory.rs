//! Memory that hardware reads and writes besides the driver.

use crate::spec::capability::Capabilities;
use addr::HostPhys;
use paging::TableMemory;

/// The memory in which the driver keeps what hardware reads: root and context tables, the interrupt remapping table,
/// the invalidation queue and its status words.
///
/// None of it may be reachable by a guest or by a device: it is the hypervisor's own, for ever.
pub trait DmaMemory: TableMemory {
    /// `pages` contiguous zeroed pages of 4 KiB, the first at a multiple of `alignment` bytes (a power of two, at
    /// least 4096), or `None` when memory is out. Never given back by the driver.
    fn allocate_contiguous(&mut self, pages: usize, alignment: u64) -> Option<HostPhys>;

    /// One atomic 64-bit load at an 8-byte aligned address, not satisfied from an earlier load and not moved before
    /// one (acquire): hardware may have written the word meanwhile.
    fn read_u64(&self, address: HostPhys) -> u64;

    /// One atomic 64-bit store at an 8-byte aligned address, after every earlier store (release): hardware may look
    /// at any moment.
    fn write_u64(&mut self, address: HostPhys, value: u64);

    /// Replaces the 128 bits at a 16-byte aligned address, low half first in the arrays, by one atomic store
    /// (CMPXCHG16B), if they are `old`; false, and nothing changed, if they are not or where this cannot be done. With
    /// it, an interrupt entry changes between any two routes without losing an interrupt.
    fn exchange_u128(&mut self, address: HostPhys, old: [u64; 2], new: [u64; 2]) -> bool {
        let _ = (address, old, new);
        false
    }

    /// Writes every cache line that holds a byte of `bytes` bytes at `address` back to memory and waits for it
    /// (CLFLUSH or CLWB, then a fence). Called only for a unit whose walks are not coherent (ECAP.C = 0), after
    /// stores and before hardware may look.
    fn write_back(&mut self, address: HostPhys, bytes: u64);
}

/// What is borrowed serves as what is owned, a `dyn DmaMemory` too.
impl<M: DmaMemory + ?Sized> DmaMemory for &mut M {
    fn allocate_contiguous(&mut self, pages: usize, alignment: u64) -> Option<HostPhys> {
        (**self).allocate_contiguous(pages, alignment)
    }

    fn read_u64(&self, address: HostPhys) -> u64 {
        (**self).read_u64(address)
    }

    fn write_u64(&mut self, address: HostPhys, value: u64) {
        (**self).write_u64(address, value);
    }

    fn exchange_u128(&mut self, address: HostPhys, old: [u64; 2], new: [u64; 2]) -> bool {
        (**self).exchange_u128(address, old, new)
    }

    fn write_back(&mut self, address: HostPhys, bytes: u64) {
        (**self).write_back(address, bytes);
    }
}

/// Writes a range back where the unit does not look into the processors' caches.
pub(crate) fn publish<M: DmaMemory>(memory: &mut M, capabilities: Capabilities, address: HostPhys, bytes: u64) {
    if !capabilities.coherent() {
        memory.write_back(address, bytes);
    }
}

/// One 64-bit store that hardware sees.
pub(crate) fn store<M: DmaMemory>(memory: &mut M, capabilities: Capabilities, address: HostPhys, value: u64) {
    memory.write_u64(address, value);
    publish(memory, capabilities, address, 8);
}

/// `address + bytes` inside a table that the driver allocated itself; such a sum does not overflow, and if it ever
/// did, the address stays inside the physical address space that `address` was in.
pub(crate) fn at(address: HostPhys, bytes: u64) -> HostPhys {
    HostPhys::new(address.as_u64().saturating_add(bytes) & !7)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    /// Memory that remembers what it was asked to do.
    #[derive(Default)]
    struct Memory {
        words: BTreeMap<u64, u64>,
        calls: Vec<(&'static str, u64, u64)>,
    }

    impl TableMemory for Memory {
        fn allocate_table(&mut self) -> Option<HostPhys> {
            self.calls.push(("allocate_table", 0, 0));
            Some(HostPhys::new(0x5000))
        }
        fn free_table(&mut self, table: HostPhys) {
            self.calls.push(("free_table", table.as_u64(), 0));
        }
        fn read_entry(&self, table: HostPhys, index: usize) -> u64 {
            self.words[&(table.as_u64() + 8 * index as u64)]
        }
        fn write_entry(&mut self, table: HostPhys, index: usize, value: u64) {
            self.words.insert(table.as_u64() + 8 * index as u64, value);
        }
    }

    impl DmaMemory for Memory {
        fn allocate_contiguous(&mut self, pages: usize, alignment: u64) -> Option<HostPhys> {
            self.calls.push(("allocate_contiguous", pages as u64, alignment));
            Some(HostPhys::new(0x8000))
        }
        fn read_u64(&self, address: HostPhys) -> u64 {
            self.words[&address.as_u64()]
        }
        fn write_u64(&mut self, address: HostPhys, value: u64) {
            self.words.insert(address.as_u64(), value);
        }
        fn exchange_u128(&mut self, address: HostPhys, old: [u64; 2], new: [u64; 2]) -> bool {
            self.calls.push(("exchange_u128", address.as_u64(), old[0] ^ new[1]));
            old == [1, 2]
        }
        fn write_back(&mut self, address: HostPhys, bytes: u64) {
            self.calls.push(("write_back", address.as_u64(), bytes));
        }
    }

    fn everything<M: DmaMemory>(memory: &mut M) {
        assert_eq!(memory.allocate_table(), Some(HostPhys::new(0x5000)));
        assert_eq!(memory.allocate_contiguous(3, 0x4000), Some(HostPhys::new(0x8000)));
        memory.write_entry(HostPhys::new(0x5000), 2, 77);
        memory.write_u64(HostPhys::new(0x5018), 78);
        assert_eq!(memory.read_u64(HostPhys::new(0x5010)), 77);
        assert_eq!(memory.read_entry(HostPhys::new(0x5000), 3), 78);
        assert!(memory.exchange_u128(HostPhys::new(0x5020), [1, 2], [3, 4]));
        assert!(!memory.exchange_u128(HostPhys::new(0x5020), [2, 2], [3, 4]));
        memory.write_back(HostPhys::new(0x5020), 16);
        memory.free_table(HostPhys::new(0x5000));
    }

    #[test]
    fn everything_reaches_the_memory_behind() {
        let mut memory = Memory::default();
        let mut borrowed: &mut dyn DmaMemory = &mut memory;
        everything(&mut borrowed);
        let calls = [
            ("allocate_table", 0, 0),
            ("allocate_contiguous", 3, 0x4000),
            ("exchange_u128", 0x5020, 1 ^ 4),
            ("exchange_u128", 0x5020, 2 ^ 4),
            ("write_back", 0x5020, 16),
            ("free_table", 0x5000, 0),
        ];
        assert_eq!(memory.calls, calls);
    }
}
