//! Driver of one Intel VT-d remapping unit: legacy and scalable mode, first and second stage, queued invalidation,
//! interrupt remapping and posting, fault recording.
//!
//! The driver knows no kernel. It reaches the unit's registers through [`Registers`], time through [`Clock`] and the
//! memory that it shares with hardware through [`DmaMemory`]; on the host, tests put a unit in software behind them.
//!
//! A [`Unit`] is brought up in steps, each with its own failure, in the order that section 11.4.4 of the
//! specification asks for; a step out of order is an error and touches nothing. A machine with several units takes
//! each step on all of them before the next, for interrupts and devices of one unit may pass through another.
//! [`Unit::bring_up`] takes all steps on one.
//!
//! Whatever ends in [`Error`] has left hardware denying more than it should, never less: an entry whose invalidation
//! failed stays not present, and the unit is [poisoned](Unit::poison) and assigns nothing more.
#![no_std]
#![forbid(unsafe_code)]

mod batch;
mod bring_up;
mod device_tlb;
mod entry_map;
mod error;
mod faults;
mod interface;
mod interrupt_table;
mod interrupts;
mod invalidation;
mod iotlb;
mod memory;
mod page_request_queue;
mod page_requests;
pub mod posted;
mod protected_memory;
mod queue;
mod recovery;
mod register_invalidation;
mod ring;
mod scalable;
mod second_stage;
pub mod spec;
mod tables;
mod takeover;
mod unit;
mod wait;

#[cfg(test)]
mod tests;

pub use batch::{Batch, BatchInvalidated, SubmittedBatch};
pub use bring_up::{Configuration, FaultInterrupt};
pub use device_tlb::DeviceTlb;
pub use error::{Error, QueueError, Step};
pub use faults::FaultDrain;
pub use interrupts::{Handle, HandleBlock, Message, PostedRoute, Route, io_apic_entry};
pub use iotlb::{IotlbInvalidated, IotlbInvalidation};
pub use memory::DmaMemory;
pub use page_requests::PageRequestDrain;
pub use posted::PostedInterruptDescriptor;
pub use protected_memory::ProtectedMemory;
pub use ring::QueueLayout;
pub use scalable::{Translation, TranslationMode};
pub use spec::capability::{Capabilities, Levels};
pub use spec::fault::{FaultKind, FaultReason, FaultRecord};
pub use spec::interrupt::{DestinationMode, Polarity, Trigger};
pub use spec::invalidation::DescriptorWidth;
pub use spec::page_request::{PageRequest, PageResponse};
pub use spec::pasid::Pasid;
pub use spec::registers::Global;
pub use takeover::{Handover, Platform};
pub use unit::Unit;
pub use wait::{Clock, DEFAULT_TIMEOUT_US};

/// A unit's register window. Offsets are bytes from its base, at most 16 KiB plus 4 KiB: the fault recording and
/// IOTLB registers may lie beyond the first page.
///
/// Each call is one access of exactly that width, neither split, merged, nor reordered with another, and a write is
/// not passed by an earlier store to [`DmaMemory`].
pub trait Registers {
    /// Reads 32 bits at an offset that is a multiple of 4.
    fn read32(&self, offset: u16) -> u32;
    /// Reads 64 bits at an offset that is a multiple of 8.
    fn read64(&self, offset: u16) -> u64;
    /// Writes 32 bits at an offset that is a multiple of 4.
    fn write32(&mut self, offset: u16, value: u32);
    /// Writes 64 bits at an offset that is a multiple of 8.
    fn write64(&mut self, offset: u16, value: u64);
}
