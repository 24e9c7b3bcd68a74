//! `page_table_multiarch`, in its x86-64 form. It keeps tables that become empty.

use super::{By, Mapper};
use crate::arena;
use memory_addr::{PhysAddr, VirtAddr};
use page_table_multiarch::x86_64::X64PageTable;
use page_table_multiarch::{MappingFlags, PageSize, PagingHandler};

struct Frames;

impl PagingHandler for Frames {
    #[inline(always)]
    fn alloc_frame() -> Option<PhysAddr> {
        arena::take().map(|frame| PhysAddr::from(frame as usize))
    }

    fn alloc_frames(_: usize, _: usize) -> Option<PhysAddr> {
        None
    }

    #[inline(always)]
    fn dealloc_frame(frame: PhysAddr) {
        arena::give(frame.as_usize() as u64);
    }

    fn dealloc_frames(_: PhysAddr, _: usize) {}

    #[inline(always)]
    fn phys_to_virt(frame: PhysAddr) -> VirtAddr {
        VirtAddr::from(frame.as_usize())
    }
}

pub struct Multiarch(X64PageTable<Frames>);

const FLAGS: MappingFlags = MappingFlags::READ.union(MappingFlags::WRITE);

impl Mapper for Multiarch {
    const NAME: &'static str = "page_table_multiarch";

    fn new() -> Self {
        Self(X64PageTable::try_new().expect("there are frames"))
    }

    #[inline(always)]
    fn map(&mut self, by: By, input: u64, host: u64, len: u64) {
        let to = |at: VirtAddr| PhysAddr::from(at.as_usize() - input as usize + host as usize);
        let from = VirtAddr::from(input as usize);
        self.0.cursor().map_region(from, to, len as usize, FLAGS, by != By::Pages4K).expect("it fits");
    }

    #[inline(always)]
    fn unmap(&mut self, _: By, input: u64, len: u64) {
        self.0.cursor().unmap_region(VirtAddr::from(input as usize), len as usize).expect("mapped");
    }

    #[inline(always)]
    fn map_page(&mut self, input: u64, host: u64) {
        let (from, to) = (VirtAddr::from(input as usize), PhysAddr::from(host as usize));
        self.0.cursor().map(from, to, PageSize::Size4K, FLAGS).expect("it fits");
    }

    #[inline(always)]
    fn unmap_page(&mut self, input: u64) {
        self.0.cursor().unmap(VirtAddr::from(input as usize)).expect("mapped");
    }
}
