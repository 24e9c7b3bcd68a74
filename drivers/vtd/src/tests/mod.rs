//! Tests of the driver against a small unit in software.

extern crate std;

mod batch;
mod borrowed;
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
mod shut_down;
mod spec;
mod tables;
mod takeover;
mod unit;
