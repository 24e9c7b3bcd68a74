//! Local APIC and I/O APIC.
//!
//! [`LocalApic`] and [`IoApic`] hold the orders of accesses that matter; how a register is reached (memory in xAPIC
//! mode, model-specific registers in x2APIC mode, an index and a data window for the I/O APIC) is a small trait that
//! the machine layer implements. The layouts stand in [`spec`], after Intel's SDM volume 3A chapter 12 ("Advanced
//! Programmable Interrupt Controller"; chapter 10 before 2023) and the 82093AA I/O APIC data sheet.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod interrupt_command;
mod io_apic;
mod local_apic;
mod redirection_entry;
pub mod spec;

pub use interrupt_command::{Destination, InterruptCommand};
pub use io_apic::{IoApic, IoApicAccess, IoApicError};
pub use local_apic::{ApicMode, LocalApic, LocalApicAccess, LocalApicError};
pub use redirection_entry::{DeliveryMode, LegacyRedirectionEntry, Polarity, TriggerMode};
