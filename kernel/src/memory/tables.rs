//! The hypervisor's memory as the drivers use it for tables that hardware walks.

use crate::memory::frames::Owner;
use crate::memory::{frames, physical};
use addr::{HostPhys, PAGE_SIZE};
use paging::TableMemory;
use vtd::DmaMemory;

/// Frames of the hypervisor's, for tables.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    /// Whether whoever walks the tables looks into the processors' caches. If not, every store is written back.
    pub coherent: bool,
}

impl TableMemory for Tables {
    fn allocate_table(&mut self) -> Option<HostPhys> {
        self.allocate_contiguous(1, PAGE_SIZE)
    }

    fn free_table(&mut self, table: HostPhys) {
        if !frames().table().free(table, 1, Owner::Hypervisor) {
            log::error!("a table at {table} was given back that is not the hypervisor's");
        }
    }

    fn read_entry(&self, table: HostPhys, index: usize) -> u64 {
        physical::read_u64(entry(table, index))
    }

    fn write_entry(&mut self, table: HostPhys, index: usize, value: u64) {
        physical::write_u64(entry(table, index), value);
        if !self.coherent {
            physical::write_back(entry(table, index), 8);
        }
    }
}

impl DmaMemory for Tables {
    fn allocate_contiguous(&mut self, pages: usize, alignment: u64) -> Option<HostPhys> {
        let start = frames().table().allocate(pages, alignment, Owner::Hypervisor)?;
        physical::zero(start, pages);
        if !self.coherent {
            physical::write_back(start, pages as u64 * PAGE_SIZE);
        }
        Some(start)
    }

    fn read_u64(&self, address: HostPhys) -> u64 {
        physical::read_u64(address)
    }

    fn write_u64(&mut self, address: HostPhys, value: u64) {
        physical::write_u64(address, value);
    }

    fn exchange_u128(&mut self, address: HostPhys, old: [u64; 2], new: [u64; 2]) -> bool {
        physical::exchange_u128(address, old, new)
    }

    fn write_back(&mut self, address: HostPhys, bytes: u64) {
        physical::write_back(address, bytes);
    }
}

fn entry(table: HostPhys, index: usize) -> HostPhys {
    HostPhys::new(table.as_u64() + (index as u64 % 512) * 8)
}
