//! A VT-d remapping unit in software: the judge of the driver's tests.
//!
//! Written from the Intel Virtualization Technology for Directed I/O specification (revisions 4.x and 5.0) and
//! sharing no layout with the driver, so that a wrong offset or bit in one of them shows. Three things set it apart
//! from the units of emulators:
//!
//! - **Every cache that hardware may have is there, and keeps its entries for ever** ([`Eviction::Never`]): context
//!   cache, IOTLB, paging-structure cache, interrupt entry cache. What software forgets to invalidate stays visible.
//! - **Memory has the processor's cache before it** ([`Memory`]): with ECAP.C=0 a unit sees only flushed lines, with
//!   CAP.RWBF=1 only what the write buffers have let go.
//! - **The test can look at every step**: [`Machine::on_event`] runs a callback after each store, flush and register
//!   write of software, and each piece of work of a unit, and the callback can issue DMA and interrupts as a device would at that very moment.
//!
//! What the specification forbids software to do, and hardware need not survive, is kept as [`Violation`]s: a test
//! ends with an empty list of them. The unit knows legacy mode and scalable mode: first stage, second stage, nested and
//! pass-through, with and without PASID.
#![forbid(unsafe_code)]

mod caches;
mod configuration;
mod descriptor;
mod device_access;
mod device_tlb;
mod fault;
mod faults;
mod first_stage;
mod interrupt;
mod machine;
mod memory;
mod page_requests;
mod pasid_queue;
mod queue;
pub mod registers;
mod request;
mod scalable;
mod second_stage;
#[cfg(test)]
mod tests;
mod unit;
mod violation;
mod walk;
mod work;

pub use caches::Eviction;
pub use configuration::Configuration;
pub use descriptor::{PageResponse, QueueError};
pub use fault::{Access, Fault, Reason};
pub use interrupt::{Delivered, Interrupt, Notification};
pub use machine::{Event, Machine};
pub use memory::{LINE, Memory, View};
pub use page_requests::PageAsked;
pub use request::Request;
pub use unit::{Message, Unit};
pub use violation::Violation;
pub use work::Latency;
