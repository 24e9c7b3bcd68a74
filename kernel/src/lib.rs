//! The hypervisor.
#![cfg_attr(not(test), no_std)]

pub mod vcpu;
pub mod vm;
