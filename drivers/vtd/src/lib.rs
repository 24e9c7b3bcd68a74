//! Driver of one Intel VT-d remapping unit: legacy and scalable mode, first and second stage, queued invalidation,
//! interrupt remapping and posting, device-TLBs and page requests, fault recording, and units found at work.
//!
//! The driver knows no kernel, and allocates nothing by itself. It reaches the unit's registers through [`Registers`], time
//! through [`Clock`] and the memory that it shares with hardware through [`DmaMemory`]; on the host, tests put a unit in
//! software behind them. Which units a machine has, and which devices are whose, says the DMAR table (crate `dmar`); the page tables
//! that devices are given are made with the crate `paging`.
//!
//! # Bring-up
//!
//! A [`Unit`] is brought up in steps, each with its own failure, in the order that section 11.4.4 of the
//! specification asks for; a step out of order is an error and touches nothing. [`Unit::bring_up`] takes all steps on
//! one. A machine with several units takes each step on all of them before the next, for interrupts and devices of one
//! unit may pass through another:
//!
//! 1. [`Unit::probe`] looks, and changes nothing. For scalable mode, [`Unit::use_scalable_mode`].
//! 2. [`Unit::take_over`]: what firmware or another kernel left on is taken over or stopped, as
//!    [`Unit::suggest_handover`] says or otherwise.
//! 3. [`Unit::mask_and_clear_faults`].
//! 4. [`Unit::enable_queue`]: from here on the unit can be told to forget.
//! 5. [`Unit::create_root_table`]: nobody reaches anything. Then [`Unit::assign`] for each device with reserved memory
//!    of firmware (RMRR), which is mapped in its table: from the first moment on it is reached. With
//!    [`Unit::bring_up`], do this before the call.
//! 6. [`Unit::set_root_table`].
//! 7. [`Unit::set_interrupt_table`] and [`Unit::enable_interrupt_remapping`].
//! 8. [`Unit::enable_translation`], then [`Unit::disable_protected_memory`].
//! 9. [`Unit::enable_fault_interrupt`], to a handler that calls [`Unit::drain_faults`].
//!
//! [`Unit::shut_down`] goes the way back.
//!
//! # What a device gets
//!
//! | what | by |
//! |---|---|
//! | one second-stage table for all that it does | [`Unit::assign`], [`Unit::replace`], [`Unit::clear`] |
//! | a table for each PASID, of either stage or nested; no table at all | [`Unit::attach`], [`Unit::reattach`], [`Unit::detach`] |
//! | leave to keep translations itself | [`Unit::assign_with_device_tlb`]; in scalable mode [`Unit::use_device_tlb`] |
//! | interrupts | [`Unit::allocate_interrupts`], [`Unit::route_interrupt`], [`Unit::post_interrupt`], [`Unit::free_interrupts`] |
//!
//! Both modes do all of the first row. Scalable mode is one choice for a unit, made once ([`Unit::use_scalable_mode`]); the
//! program of whoever does not make it has nothing of it in it.
//!
//! A table that devices use changes under their eyes: what [`paging::PageTable`] answers to a change, a [`paging::Flush`], is
//! kept until the unit has forgotten. With one unit and one domain id, [`Unit::finish`] does it; with several,
//! [`Unit::invalidate`] under each, and the last proof completes the flush; with many changes, a [`Batch`]. First-stage tables
//! have [`Unit::invalidate_first_stage`].
//!
//! # Failures
//!
//! Whatever ends in [`Error`] has left hardware denying more than it should, never less: an entry whose invalidation
//! failed stays not present, and the unit is [poisoned](Unit::poison) and assigns nothing more until it has
//! [forgotten everything](Unit::recover). A device that fails an invalidation is [isolated](Error::DeviceIsolated), alone.
//! A unit whose bring-up failed half-way stays as it is; what is on can be [shut down](Unit::shut_down), and the unit
//! brought up again.
//!
//! # Several processors
//!
//! A [`Unit`] can be sent and shared where what it was made of can. All that changes it takes `&mut self`: put it behind a lock
//! whose holder is not interrupted by one who wants it too (the handler of the fault interrupt does). Each wait for
//! hardware is made within the call, bounded by [`Unit::set_timeout_us`]; so that several units work at the same time, give each
//! its [`Batch`] first, and then await each.
//!
//! ```
//! fn to_another_processor<T: Send>() {}
//! fn from_several<T: Sync>() {}
//!
//! fn every_unit<R: vtd::Registers + Send + Sync, C: vtd::Clock + Send + Sync>() {
//!     to_another_processor::<vtd::Unit<R, C>>();
//!     from_several::<vtd::Unit<R, C>>();
//!     to_another_processor::<(vtd::Batch, vtd::SubmittedBatch, vtd::BatchInvalidated)>();
//!     to_another_processor::<(paging::PageTable<paging::SecondStage>, paging::Flush<addr::Iova>)>();
//!     from_several::<vtd::PostedInterruptDescriptor>();
//! }
//! ```
//!
//! # An example
//!
//! A unit from its first step to a device that reaches one page and nothing else. `cargo run -p vtd --example kernel` has
//! more: the DMAR table, interrupts, a move, batches, scalable mode, and the end.
//!
//! ```
#![doc = include_str!("../examples/kernel/glue.rs")]
//!
//! use addr::{ApicId, Bdf, DomainId, Iova, Vector};
//! use paging::{PageTable, Permissions, SecondStage};
//! use vtd::{Configuration, DestinationMode, FaultInterrupt, Handover, Platform, Unit};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // One unit, in the state that firmware left it in.
//! let machine = Machine::with_unit(16 << 20, model::Configuration::default());
//! let mut frames = Frames::new(&machine);
//! let mut unit = Unit::probe(Window::new(&machine), Time::new(&machine))?;
//! let configuration = Configuration {
//!     interrupt_entries: Some(256),
//!     destination_mode: DestinationMode::X2Apic,
//!     fault_interrupt: Some(FaultInterrupt { vector: Vector(0x31), destination: ApicId(0) }),
//!     handover: Handover::TakeOver,
//!     platform: Platform::default(),
//! };
//! unit.bring_up(&mut frames, &configuration)?;
//!
//! // A device gets a page, and nothing else.
//! let capabilities = unit.capabilities();
//! let (device, domain) = (Bdf::from_u16(0x0100), DomainId(1));
//! let levels = capabilities.second_stage_levels().expect("probe has looked");
//! let limits = capabilities.second_stage_limits(levels, 39);
//! let mut table: PageTable<SecondStage> = PageTable::with_limits(limits, &mut frames)?;
//! unit.assign(&mut frames, device, domain, table.root(), levels)?;
//! let (iova, page) = (Iova::new(0x5000), HostPhys::new(0x80_0000));
//! let attributes = capabilities.second_stage_attributes();
//! let flush = table.map(&mut frames, iova, page, 4096, Permissions::READ_WRITE, attributes)?;
//! unit.finish(&mut frames, domain, flush)?;
//!
//! let reaches = |iova| machine.dma(0, device.as_u16(), iova, 4, model::Access::Write);
//! assert_eq!(reaches(0x5000), Ok(vec![(0x80_0000, 4)]));
//! assert!(reaches(0x6000).is_err());
//! let mut faults = 0;
//! let drained = unit.drain_faults(|fault| faults += u32::from(fault.source == device));
//! assert!(faults == 1 && !drained.more);
//! # Ok(())
//! # }
//! ```
#![no_std]
#![forbid(unsafe_code)]

mod assign;
mod attach;
mod batch;
mod bring_up;
mod checks;
mod device_tlb;
mod entry_map;
mod error;
mod events;
mod faults;
mod interface;
mod interrupt_table;
mod interrupts;
mod invalidation;
mod iotlb;
mod legacy;
mod memory;
mod mode;
mod page_request_queue;
mod page_requests;
mod page_tables;
mod platform;
pub mod posted;
mod protected_memory;
mod queue;
mod recovery;
mod register_invalidation;
mod registers;
mod ring;
mod scalable;
mod shut_down;
pub mod spec;
mod takeover;
mod translation;
mod unit;
mod wait;

#[cfg(test)]
mod tests;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use batch::{Batch, BatchInvalidated, SubmittedBatch};
pub use bring_up::Configuration;
pub use device_tlb::DeviceTlb;
pub use error::{Error, QueueError, Step};
pub use events::FaultInterrupt;
pub use faults::FaultDrain;
pub use interrupts::{Handle, HandleBlock, Message, PostedRoute, Route, io_apic_entry};
pub use iotlb::{IotlbInvalidated, IotlbInvalidation};
pub use memory::DmaMemory;
pub use mode::TranslationMode;
pub use page_requests::PageRequestDrain;
pub use platform::Platform;
pub use posted::PostedInterruptDescriptor;
pub use protected_memory::ProtectedMemory;
pub use registers::Registers;
pub use ring::QueueLayout;
pub use spec::capability::{Capabilities, Levels};
pub use spec::fault::{FaultKind, FaultReason, FaultRecord};
pub use spec::interrupt::{DestinationMode, Polarity, Trigger};
pub use spec::invalidation::DescriptorWidth;
pub use spec::page_request::{PageRequest, PageResponse};
pub use spec::pasid::Pasid;
pub use spec::registers::Global;
pub use takeover::Handover;
pub use translation::Translation;
pub use unit::Unit;
pub use wait::{Clock, DEFAULT_TIMEOUT_US};
