//! What the test guests share: the thin layer over the machine that each of them runs on alone, with one processor.
//!
//! A guest boots by the `boot` crate, calls [`report::initialize`], [`memory::initialize`], [`interrupts::install`],
//! [`apic::initialize`] and [`clock::initialize`] in this order, and ends with [`cpu::power_off`].
#![cfg_attr(target_os = "none", no_std)]

pub mod apic;
pub mod clock;
pub mod cpu;
pub mod interrupts;
pub mod memory;
pub mod report;
mod serial;
