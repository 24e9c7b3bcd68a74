//! A device moves into a guest and out again: remapping units, PCI functions and virtual machines, in one place.

pub mod assignment;
pub mod attacks;
pub mod device;
pub mod domain;
pub mod fault_watch;
pub mod faults;
pub mod messages;
pub mod reserved_memory;
pub mod selection;
pub mod units;
pub mod virtual_functions;
