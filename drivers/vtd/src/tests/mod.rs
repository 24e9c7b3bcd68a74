//! Tests of the driver against a small unit in software.

extern crate std;

mod batch;
mod bring_up;
mod coherency;
mod completion;
mod device_tlb;
mod errors;
pub(crate) mod fake;
mod faults;
mod interrupt_entries;
mod interrupts;
mod page_requests;
mod posted;
mod queue;
mod registers;
mod scalable;
mod spec;
mod tables;
mod takeover;
mod unit;
