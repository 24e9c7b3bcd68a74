//! Postern, the hypervisor: it composes the drivers, and holds no hardware layout of its own.
//!
//! `start` tells the story of a start; `run` that of a guest's life. The library is everything but the image's entry,
//! so that all that does not touch the machine is tested on the host.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

pub mod console;
pub mod cpu;
pub mod fatal;
pub mod life;
pub mod machine;
pub mod memory;
pub mod passthrough;
pub mod run;
pub mod start;
pub mod time;
pub mod vcpu;
pub mod vm;
