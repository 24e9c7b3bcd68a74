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
//!
//! # Example
//!
//! A device's second stage in another kernel: memory for tables, a mapping, and its end.
//!
//! ```
//! use addr::{HostPhys, Iova, PageSize};
//! use paging::{
//!     Invalidation, InvalidationComplete, Limits, NeverLoaded, PageTable, Permissions, SecondStage,
//!     SecondStageAttributes, TableMemory,
//! };
//!
//! /// Frames by number, as a kernel has them behind its physical map.
//! #[derive(Default)]
//! struct Frames(Vec<Option<Box<[u64; 512]>>>);
//!
//! fn frame(table: HostPhys) -> usize {
//!     (table.as_u64() >> 12) as usize
//! }
//!
//! impl TableMemory for Frames {
//!     fn allocate_table(&mut self) -> Option<HostPhys> {
//!         self.0.push(Some(Box::new([0; 512])));
//!         Some(HostPhys::new((self.0.len() as u64 - 1) << 12))
//!     }
//!     fn free_table(&mut self, table: HostPhys) {
//!         self.0[frame(table)] = None;
//!     }
//!     fn read_entry(&self, table: HostPhys, index: usize) -> u64 {
//!         self.0[frame(table)].as_ref().unwrap()[index]
//!     }
//!     // In a kernel: an atomic store, and a cache line flush where the unit does not snoop (ECAP.C = 0).
//!     fn write_entry(&mut self, table: HostPhys, index: usize, value: u64) {
//!         self.0[frame(table)].as_mut().unwrap()[index] = value;
//!     }
//! }
//!
//! /// What the driver of the remapping unit makes when the unit has reported completion.
//! struct Invalidated;
//!
//! impl InvalidationComplete<Iova> for Invalidated {
//!     fn covers(&self, _: &Invalidation<Iova>) -> bool {
//!         true // a global invalidation covers everything; one of a range compares it
//!     }
//! }
//!
//! let mut memory = Frames::default();
//! // The unit offers 3 and 4 levels (CAP.SAGAW), 48 bits (CAP.MGAW), 1 GiB pages, a host address width of 46 bits.
//! let levels = SecondStage::levels(0b00110, 48).ok_or("no levels for 48 bits")?;
//! let limits = Limits::new(levels, PageSize::Size1G).with_input_bits(48).with_host_bits(46);
//! let mut table: PageTable<SecondStage> = PageTable::with_limits(limits, &mut memory)?;
//!
//! let snoop = SecondStageAttributes { snoop: true };
//! let (guest, host) = (Iova::new(0), HostPhys::new(5 << 30));
//! let flush = table.map(&mut memory, guest, host, 3 << 30, Permissions::READ_WRITE, snoop)?;
//! // No device has been pointed to the table yet: nothing can be cached of it.
//! flush.complete(&NeverLoaded, &mut memory).expect("it covers everything");
//! assert_eq!(table.translate(&memory, Iova::new(0x1234)).unwrap().host, HostPhys::new((5 << 30) + 0x1234));
//!
//! // Now devices use it. A hole of one page splits two pages of it; the neighbours stay mapped all the time.
//! let flush = table.unmap(&mut memory, Iova::new(0x5000), 0x1000)?;
//! let what = flush.invalidation().expect("a page is gone");
//! assert_eq!((what.start, what.len), (Iova::new(0), 1 << 30)); // the page that was split
//! // ... invalidate `what` in every unit that walks the table, wait, and then:
//! flush.complete(&Invalidated, &mut memory).expect("the proof covers the change");
//!
//! // The page is back, and 2 x 512 small pages become one again; the two tables come back with the proof.
//! let flush = table.map(&mut memory, Iova::new(0x5000), HostPhys::new((5 << 30) + 0x5000), 0x1000,
//!     Permissions::READ_WRITE, snoop)?;
//! assert!(flush.has_detached_tables() && !flush.invalidation().unwrap().only_added);
//! flush.complete(&Invalidated, &mut memory).expect("the proof covers the change");
//! assert_eq!(table.translate(&memory, Iova::new(0x5000)).unwrap().size, PageSize::Size1G);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How
//!
//! One walker, compiled once, serves all formats: of a format it knows a few masks (`shape.rs`). One page mapped or
//! unmapped where its tables are is one walk and one store, compiled into the caller (`one.rs`; with the feature `small`
//! it is a call, for images that must be small). A table that becomes empty stays for what is mapped there
//! next, so that a driver which maps and unmaps single buffers moves no tables and asks for no wide invalidations;
//! [`PageTable::release_empty_tables`] takes such tables back. Pages are merged when the last of 512 comes.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod address;
mod change;
mod entry;
mod error;
mod flush;
mod format;
mod free;
mod geometry;
mod limits;
mod list;
mod map;
mod memory;
mod merge;
mod one;
mod shape;
mod split;
mod table;
mod walk;
mod walker;

#[cfg(test)]
mod tests;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use address::InputAddress;
pub use entry::{Entry, Format, Mapping, MemoryType, Permissions};
pub use error::MapError;
pub use flush::{Flush, Invalidation, InvalidationComplete, NeverLoaded, NotPresentIsNotCached};
pub use format::{Ept, EptAttributes, FirstStage, NestedPaging, SecondStage, SecondStageAttributes};
pub use limits::Limits;
pub use memory::TableMemory;
pub use table::PageTable;
pub use walk::{Leaf, Translation};

/// The number of entries of a table of every format.
pub const ENTRIES: usize = 512;
