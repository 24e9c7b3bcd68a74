//! `aarch64-paging`, in its stage 2 form: of another architecture, and with the same tree. Its barriers and TLB
//! instructions are compiled for ARM only.
#![expect(unsafe_code, reason = "the crate asks for pointers to its tables")]

use super::{By, Mapper};
use crate::arena;
use aarch64_paging::descriptor::{PhysicalAddress, Stage2Attributes};
use aarch64_paging::paging::{Constraints, MemoryRegion, PageTable, RootTable, Stage2, Translation};
use std::ptr::NonNull;

struct Frames;

impl Translation<Stage2Attributes> for Frames {
    #[inline(always)]
    fn allocate_table(&mut self) -> (NonNull<PageTable<Stage2Attributes>>, PhysicalAddress) {
        let frame = arena::take_zeroed().expect("there are frames") as usize;
        (self.physical_to_virtual(PhysicalAddress(frame)), PhysicalAddress(frame))
    }

    #[inline(always)]
    unsafe fn deallocate_table(&mut self, table: NonNull<PageTable<Stage2Attributes>>) {
        arena::give(table.as_ptr() as u64);
    }

    #[inline(always)]
    fn physical_to_virtual(&self, frame: PhysicalAddress) -> NonNull<PageTable<Stage2Attributes>> {
        NonNull::new(frame.0 as *mut _).expect("no frame is at 0")
    }
}

pub struct Aarch64Paging(RootTable<Stage2, Frames>);

const FLAGS: Stage2Attributes =
    Stage2Attributes::VALID.union(Stage2Attributes::S2AP_ACCESS_RW).union(Stage2Attributes::ACCESS_FLAG);

impl Aarch64Paging {
    #[inline(always)]
    fn change(&mut self, by: By, input: u64, host: u64, len: u64, flags: Stage2Attributes) {
        let constraints = match by {
            By::Pages4K => Constraints::NO_BLOCK_MAPPINGS | Constraints::NO_CONTIGUOUS_HINT,
            By::Pages2M | By::Pages1G => Constraints::NO_CONTIGUOUS_HINT,
        };
        let region = MemoryRegion::new(input as usize, (input + len) as usize);
        self.0.map_range(&region, PhysicalAddress(host as usize), flags, constraints).expect("it fits");
    }
}

impl Mapper for Aarch64Paging {
    const NAME: &'static str = "aarch64-paging";

    fn new() -> Self {
        Self(RootTable::new(Frames, 0, Stage2))
    }

    #[inline(always)]
    fn map(&mut self, by: By, input: u64, host: u64, len: u64) {
        self.change(by, input, host, len, FLAGS);
    }

    #[inline(always)]
    fn unmap(&mut self, by: By, input: u64, len: u64) {
        // By blocks, whatever it was mapped by: with smaller ones it would split what it takes out.
        let _ = by;
        self.change(By::Pages1G, input, 0, len, Stage2Attributes::empty());
    }

    #[inline(always)]
    fn map_page(&mut self, input: u64, host: u64) {
        self.change(By::Pages4K, input, host, 4096, FLAGS);
    }

    #[inline(always)]
    fn unmap_page(&mut self, input: u64) {
        self.change(By::Pages4K, input, 0, 4096, Stage2Attributes::empty());
    }
}
