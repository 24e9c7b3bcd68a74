//! What the walker must know of a format: a few masks, so that one walker in the machine code serves all formats.

use crate::{
    Entry, Format,
    entry::{ADDRESS, LINK},
};
use addr::HostPhys;

/// A format as the walker sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// One of these bits is set in an entry that is present.
    present: u64,
    /// What an entry that points to a table holds in the bits of `table_mask`.
    table: u64,
    table_mask: u64,
    /// Bits that hardware sets by itself.
    pub(crate) set_by_hardware: u64,
    /// Whether an entry that is present and points to no table is a page at a level.
    is_page: fn(u64, u8) -> bool,
}

impl Shape {
    /// The shape of a format.
    pub(crate) const fn of<F: Format>() -> Self {
        Self {
            present: F::PRESENT,
            table: F::TABLE,
            table_mask: !(ADDRESS | LINK | F::SET_BY_HARDWARE),
            set_by_hardware: F::SET_BY_HARDWARE,
            is_page: |entry, level| matches!(F::decode(entry, level), Entry::Leaf(_)),
        }
    }

    /// Whether an entry is present.
    #[inline]
    pub(crate) const fn is_present(&self, entry: u64) -> bool {
        entry & self.present != 0
    }

    /// Whether an entry at `level` points to a table.
    #[inline]
    pub(crate) const fn is_table(&self, entry: u64, level: u8) -> bool {
        level > 1 && entry & self.table_mask == self.table
    }

    /// Whether an entry that is present and points to no table is a page at `level`; if not, it is malformed.
    pub(crate) fn is_page(&self, entry: u64, level: u8) -> bool {
        (self.is_page)(entry, level)
    }

    /// The entry that points to `table`.
    #[inline]
    pub(crate) const fn table_entry(&self, table: HostPhys) -> u64 {
        table.as_u64() & ADDRESS | self.table
    }
}
