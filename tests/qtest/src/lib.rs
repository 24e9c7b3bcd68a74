//! The VT-d driver, built for the host, at work on QEMU's intel-iommu: a unit that others wrote, in a process of its own.
//!
//! A [`Qemu`] runs with no firmware, a processor that halts at once, and a qtest socket. Each register access and each
//! store of the driver is a line of text on that socket ([`protocol`]), so the driver's order is the order in which the
//! unit sees things. The `edu` device ([`Edu`]) is told what to read and write, and to send its MSI; what comes of it is
//! seen in the machine's memory, in the faults that the driver drains, and in QEMU's own [`Trace`], which knows nothing
//! of what the driver believes.
//!
//! [`Bench`] puts it together. All that depends on the driver's interface is in it and in [`glue`].
#![forbid(unsafe_code)]

pub mod bench;
pub mod edu;
pub mod firmware;
pub mod glue;
pub mod machine;
pub mod memory;
pub mod ports;
pub mod program;
pub mod protocol;
pub mod qemu;
pub mod space;
pub mod tables;
pub mod trace;

pub use bench::Bench;
pub use edu::Edu;
pub use machine::Machine;
pub use memory::Memory;
pub use program::{Program, Version};
pub use qemu::{Options, Qemu};
pub use space::{Mode, Space};
pub use trace::Trace;
