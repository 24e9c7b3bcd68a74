//! The part of exitprobe that needs no machine: what it is asked to do, and its source of hostile values.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod command_line;
pub mod hostile;
