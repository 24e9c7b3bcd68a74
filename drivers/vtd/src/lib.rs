//! Driver of one Intel VT-d remapping unit: legacy and scalable mode, first and second stage, queued invalidation,
//! interrupt remapping and posting, device-TLBs and page requests, fault recording, and units found at work.
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
//! failed stays not present, and the unit is [poisoned](Unit::poison) and assigns nothing more until it has
//! [forgotten everything](Unit::recover). A device that fails an invalidation is [isolated](Error::DeviceIsolated), alone.
//!
//! # What a kernel supplies
//!
//! Here for a machine in software; on a real one, the bodies are loads and stores at the mapped addresses.
//!
//! ```
//! use addr::{ApicId, Bdf, DomainId, HostPhys, Iova, Vector};
//! use model::Machine;
//! use paging::{PageTable, Permissions, SecondStage, TableMemory};
//! use vtd::{Clock, Configuration, DestinationMode, DmaMemory, FaultInterrupt, Handover, Platform, Registers, Unit};
//!
//! struct Window(Machine);
//! impl Registers for Window {
//!     fn read32(&self, offset: u16) -> u32 { self.0.read32(0, offset) }
//!     fn read64(&self, offset: u16) -> u64 { self.0.read64(0, offset) }
//!     fn write32(&mut self, offset: u16, value: u32) { self.0.write32(0, offset, value) }
//!     fn write64(&mut self, offset: u16, value: u64) { self.0.write64(0, offset, value) }
//! }
//! struct Time(Machine);
//! impl Clock for Time {
//!     fn now_us(&self) -> u64 { self.0.now_us() }
//!     fn relax(&self) { self.0.pass_time(1) }
//! }
//! struct Frames(Machine, u64);
//! impl TableMemory for Frames {
//!     fn allocate_table(&mut self) -> Option<HostPhys> { self.allocate_contiguous(1, 4096) }
//!     fn free_table(&mut self, _: HostPhys) {}
//!     fn read_entry(&self, table: HostPhys, index: usize) -> u64 { self.0.load(table.as_u64() + index as u64 * 8) }
//!     fn write_entry(&mut self, table: HostPhys, index: usize, value: u64) {
//!         self.0.store_u64(table.as_u64() + index as u64 * 8, value);
//!     }
//! }
//! impl DmaMemory for Frames {
//!     fn allocate_contiguous(&mut self, pages: usize, alignment: u64) -> Option<HostPhys> {
//!         let start = self.1.next_multiple_of(alignment);
//!         self.1 = start + pages as u64 * 4096;
//!         (start..self.1).step_by(8).for_each(|word| self.0.store_u64(word, 0));
//!         Some(HostPhys::new(start))
//!     }
//!     fn read_u64(&self, address: HostPhys) -> u64 { self.0.load(address.as_u64()) }
//!     fn write_u64(&mut self, address: HostPhys, value: u64) { self.0.store_u64(address.as_u64(), value) }
//!     fn write_back(&mut self, address: HostPhys, bytes: u64) { self.0.flush(address.as_u64(), bytes) }
//! }
//!
//! # fn main() -> Result<(), vtd::Error> {
//! // One unit, in the state that firmware left it in.
//! let machine = Machine::with_unit(16 << 20, model::Configuration::default());
//! let mut frames = Frames(machine.clone(), 1 << 20);
//! let mut unit = Unit::probe(Window(machine.clone()), Time(machine.clone()))?;
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
//! let mut table: PageTable<SecondStage> =
//!     PageTable::new(levels.count(), capabilities.largest_page(), &mut frames).expect("memory");
//! let attributes = capabilities.second_stage_attributes();
//! let (iova, page) = (Iova::new(0x5000), HostPhys::new(0x80_0000));
//! let flush = table.map(&mut frames, iova, page, 4096, Permissions::READ_WRITE, attributes).expect("memory");
//! unit.assign(&mut frames, device, domain, table.root(), levels)?;
//! let change = *flush.invalidation().expect("something has changed");
//! let proof = unit.invalidate(&mut frames, domain, &change)?;
//! flush.complete(&proof, &mut frames).expect("the proof is of this change");
//!
//! let reaches = |iova| machine.dma(0, device.as_u16(), iova, 4, model::Access::Write);
//! assert_eq!(reaches(0x5000), Ok(vec![(0x80_0000, 4)]));
//! assert!(reaches(0x6000).is_err());
//! let mut faults = 0;
//! unit.drain_faults(|fault| faults += u32::from(fault.source == device));
//! assert_eq!(faults, 1);
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
