//! `page-table-generic`, with an x86-64 entry.

use super::{By, Mapper};
use crate::arena;
use page_table_generic::{
    FrameAllocator, MapConfig, PageTable, PageTableEntry, PhysAddr, TableMeta, UnmapConfig, VirtAddr,
};

#[derive(Clone, Copy)]
struct Frames;

impl FrameAllocator for Frames {
    #[inline(always)]
    fn alloc_frame(&self) -> Option<PhysAddr> {
        arena::take().map(|frame| PhysAddr::from_usize(frame as usize))
    }

    #[inline(always)]
    fn dealloc_frame(&self, frame: PhysAddr) {
        arena::give(frame.as_usize() as u64);
    }

    #[inline(always)]
    fn phys_to_virt(&self, frame: PhysAddr) -> *mut u8 {
        frame.as_usize() as *mut u8
    }
}

#[derive(Clone, Copy)]
struct Entries;

impl TableMeta for Entries {
    type P = Entry;
    const PAGE_SIZE: usize = 4096;
    const LEVEL_BITS: &[usize] = &[9, 9, 9, 9];
    const MAX_BLOCK_LEVEL: usize = 3;

    #[inline(always)]
    fn flush(_: Option<VirtAddr>) {}
}

const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const PAGE: u64 = 0x80;

#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
struct Entry(u64);

impl PageTableEntry for Entry {
    type PteConfig = u64;

    #[inline(always)]
    fn new_page(frame: PhysAddr, bits: u64, is_huge: bool) -> Self {
        Self(frame.as_usize() as u64 | bits | if is_huge { PAGE } else { 0 })
    }

    #[inline(always)]
    fn new_table(frame: PhysAddr) -> Self {
        Self(frame.as_usize() as u64 | PRESENT | WRITE)
    }

    #[inline(always)]
    fn paddr(&self, _: bool) -> PhysAddr {
        PhysAddr::from_usize((self.0 & 0x000f_ffff_ffff_f000) as usize)
    }

    #[inline(always)]
    fn config(&self, _: bool) -> u64 {
        self.0 & 3
    }

    #[inline(always)]
    fn present(&self) -> bool {
        self.0 & PRESENT != 0
    }

    #[inline(always)]
    fn huge(&self, is_dir: bool) -> bool {
        is_dir && self.0 & PAGE != 0
    }

    #[inline(always)]
    fn unused(&self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    fn clear(&mut self) {
        self.0 = 0;
    }
}

pub struct PageTableGeneric(PageTable<Entries, Frames>);

impl Mapper for PageTableGeneric {
    const NAME: &'static str = "page-table-generic";

    fn new() -> Self {
        Self(PageTable::new(Frames).expect("there are frames"))
    }

    #[inline(always)]
    fn map(&mut self, by: By, input: u64, host: u64, len: u64) {
        let config = MapConfig {
            vaddr: VirtAddr::from_usize(input as usize),
            paddr: PhysAddr::from_usize(host as usize),
            size: len as usize,
            pte: PRESENT | WRITE,
            allow_huge: by != By::Pages4K,
            flush: false,
        };
        self.0.map(&config).expect("it fits");
    }

    #[inline(always)]
    fn unmap(&mut self, _: By, input: u64, len: u64) {
        let start_vaddr = VirtAddr::from_usize(input as usize);
        self.0.unmap_with_config(&UnmapConfig { start_vaddr, size: len as usize, flush: false }).expect("mapped");
    }

    #[inline(always)]
    fn map_page(&mut self, input: u64, host: u64) {
        self.map(By::Pages4K, input, host, 4096);
    }

    #[inline(always)]
    fn unmap_page(&mut self, input: u64) {
        self.unmap(By::Pages4K, input, 4096);
    }
}
