//! Memory of any kind as one type: what stands behind a pointer to a function cannot be generic.

use crate::memory::DmaMemory;
use addr::HostPhys;
use paging::TableMemory;

/// Passes everything on.
pub(super) struct Through<'a>(pub &'a mut dyn DmaMemory);

impl TableMemory for Through<'_> {
    fn allocate_table(&mut self) -> Option<HostPhys> {
        self.0.allocate_table()
    }

    fn free_table(&mut self, table: HostPhys) {
        self.0.free_table(table);
    }

    fn read_entry(&self, table: HostPhys, index: usize) -> u64 {
        self.0.read_entry(table, index)
    }

    fn write_entry(&mut self, table: HostPhys, index: usize, value: u64) {
        self.0.write_entry(table, index, value);
    }
}

impl DmaMemory for Through<'_> {
    fn allocate_contiguous(&mut self, pages: usize, alignment: u64) -> Option<HostPhys> {
        self.0.allocate_contiguous(pages, alignment)
    }

    fn read_u64(&self, address: HostPhys) -> u64 {
        self.0.read_u64(address)
    }

    fn write_u64(&mut self, address: HostPhys, value: u64) {
        self.0.write_u64(address, value);
    }

    fn exchange_u128(&mut self, address: HostPhys, old: [u64; 2], new: [u64; 2]) -> bool {
        self.0.exchange_u128(address, old, new)
    }

    fn write_back(&mut self, address: HostPhys, bytes: u64) {
        self.0.write_back(address, bytes);
    }
}
