//! One radix walker for the translation tables of processors and remapping units.
//!
//! EPT, VT-d second stage, VT-d first stage and AMD nested page tables are the same tree: 4 KiB tables of 512
//! entries of 64 bits, nine bits of the input address a level, leaves of 4 KiB, 2 MiB and 1 GiB. They differ in what
//! an entry looks like. [`PageTable`] is the tree; a [`Format`] is the look of an entry. The input address of each
//! format is a type of its own, so that a guest-physical address cannot be looked up in a device's table.
//!
//! Hardware walks the tables while they change. Therefore
//!
//! * an entry changes by one 64-bit store, and whatever it points to is complete before it is stored;
//! * a call that fails has stored nothing that hardware can reach: all tables that it needs are allocated first;
//! * a change returns a [`Flush`], which says what to invalidate and holds the tables that were detached until
//!   somebody shows the proof ([`InvalidationComplete`]) that no hardware can still hold a pointer to them.
//!
//! The memory that the tables live in is behind [`TableMemory`], so that everything here runs on a host.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod address;
mod entry;
mod error;
mod flush;
mod format;
mod geometry;
mod list;
mod table;
mod unmap;
mod walk;

#[cfg(test)]
mod tests;

pub use address::InputAddress;
pub use entry::{Entry, Format, Mapping, MemoryType, Permissions};
pub use error::MapError;
pub use flush::{Flush, Invalidation, InvalidationComplete, NeverLoaded, NotPresentIsNotCached};
pub use format::{Ept, EptAttributes, FirstStage, NestedPaging, SecondStage, SecondStageAttributes};
pub use table::PageTable;
pub use walk::{Leaf, Translation};

use addr::HostPhys;

/// The number of entries of a table of every format.
pub const ENTRIES: usize = 512;

/// The memory that tables live in.
pub trait TableMemory {
    /// A zeroed 4 KiB frame (flushed to memory where the reader is not coherent), or `None` when memory is out.
    fn allocate_table(&mut self) -> Option<HostPhys>;

    /// Gives a table's frame back. Called only when no hardware can still hold the entry that pointed to it.
    fn free_table(&mut self, table: HostPhys);

    /// Entry `index` (0 to 511) of the table at `table`.
    fn read_entry(&self, table: HostPhys, index: usize) -> u64;

    /// One atomic 64-bit store that hardware may observe at any moment, then flushed from the cache where the reader
    /// is not coherent. Stores become visible in the order of the calls.
    fn write_entry(&mut self, table: HostPhys, index: usize, value: u64);
}
