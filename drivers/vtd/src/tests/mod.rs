//! Tests of the driver against a small unit in software.

extern crate std;

mod bring_up;
mod fake;
mod faults;
mod interrupts;
mod posted;
mod queue;
mod tables;
