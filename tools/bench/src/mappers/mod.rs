//! The page tables that are compared, each behind one interface.

mod aarch64_paging;
mod multiarch;
mod page_table_generic;
mod postern;
mod x86_64;

pub use aarch64_paging::Aarch64Paging;
pub use multiarch::Multiarch;
pub use page_table_generic::PageTableGeneric;
pub use postern::Postern;
pub use x86_64::X86_64;

/// The size of the pages that a mapping is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    Pages4K,
    Pages2M,
    Pages1G,
}

impl By {
    /// What comes behind `by` in a sentence.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pages4K => "4k",
            Self::Pages2M => "2m",
            Self::Pages1G => "1g",
        }
    }
}

/// An empty page table of four levels, with the root there and nothing else. Dropping it gives all frames back.
pub trait Mapper {
    /// What it is called in the output.
    const NAME: &'static str;

    fn new() -> Self;

    /// Maps a range that begins and ends at a multiple of the page's size, by the crate's function for ranges if it has
    /// one.
    fn map(&mut self, by: By, input: u64, host: u64, len: u64);

    /// Takes such a mapping out, as far as the crate does: tables are given back where it can.
    fn unmap(&mut self, by: By, input: u64, len: u64);

    /// Maps one 4 KiB page.
    fn map_page(&mut self, input: u64, host: u64);

    /// Takes one 4 KiB page out.
    fn unmap_page(&mut self, input: u64);
}
