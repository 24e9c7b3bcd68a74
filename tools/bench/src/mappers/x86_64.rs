//! The `x86_64` crate's `OffsetPageTable`. It maps page by page, and keeps tables that become empty.
#![expect(unsafe_code, reason = "the crate's functions are unsafe: they could change the address space one runs in")]

use super::{By, Mapper};
use crate::arena;
use x86_64::structures::paging::{
    FrameAllocator, Mapper as _, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags, PhysFrame, Size1GiB,
    Size2MiB, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

#[derive(Debug)]
pub struct X86_64 {
    table: OffsetPageTable<'static>,
    root: u64,
}

struct Frames;

// SAFETY: frames of the stock are used by whoever took them alone.
unsafe impl FrameAllocator<Size4KiB> for Frames {
    #[inline(always)]
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        arena::take().map(|frame| PhysFrame::containing_address(PhysAddr::new(frame)))
    }
}

const FLAGS: PageTableFlags = PageTableFlags::PRESENT.union(PageTableFlags::WRITABLE);

macro_rules! each_page {
    ($size:ty, $from:expr, $len:expr, |$page:ident, $offset:ident| $act:expr) => {{
        let mut $offset = 0;
        while $offset < $len {
            let $page = Page::<$size>::containing_address(VirtAddr::new_truncate($from + $offset));
            $act;
            $offset += <$size as PageSize>::SIZE;
        }
    }};
}

macro_rules! map {
    ($self:ident, $size:ty, $input:ident, $host:ident, $len:ident) => {
        each_page!($size, $input, $len, |page, offset| {
            let frame = PhysFrame::containing_address(PhysAddr::new_truncate($host + offset));
            // SAFETY: no processor uses the table.
            let flush = unsafe { $self.table.map_to(page, frame, FLAGS, &mut Frames) };
            flush.expect("it fits").ignore();
        })
    };
}

impl Mapper for X86_64 {
    const NAME: &'static str = "x86_64";

    fn new() -> Self {
        let root = arena::take_zeroed().expect("there are frames");
        // SAFETY: a zeroed frame of its own, at the address that its number is.
        let table = unsafe { OffsetPageTable::new(&mut *(root as *mut PageTable), VirtAddr::new(0)) };
        Self { table, root }
    }

    #[inline(always)]
    fn map(&mut self, by: By, input: u64, host: u64, len: u64) {
        match by {
            By::Pages4K => map!(self, Size4KiB, input, host, len),
            By::Pages2M => map!(self, Size2MiB, input, host, len),
            By::Pages1G => map!(self, Size1GiB, input, host, len),
        }
    }

    #[inline(always)]
    fn unmap(&mut self, by: By, input: u64, len: u64) {
        match by {
            By::Pages4K => {
                each_page!(Size4KiB, input, len, |page, offset| self.table.unmap(page).expect("mapped").1.ignore())
            }
            By::Pages2M => {
                each_page!(Size2MiB, input, len, |page, offset| self.table.unmap(page).expect("mapped").1.ignore())
            }
            By::Pages1G => {
                each_page!(Size1GiB, input, len, |page, offset| self.table.unmap(page).expect("mapped").1.ignore())
            }
        }
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

impl Drop for X86_64 {
    fn drop(&mut self) {
        fn give(table: u64, level: u8) {
            for index in 0..if level > 1 { 512 } else { 0 } {
                let entry = arena::entry(table, index).load(std::sync::atomic::Ordering::Relaxed);
                if entry & 0x81 == 1 {
                    give(entry & 0x000f_ffff_ffff_f000, level - 1);
                }
            }
            arena::give(table);
        }
        give(self.root, 4);
    }
}
