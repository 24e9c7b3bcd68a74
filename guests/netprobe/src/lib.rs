//! The part of netprobe that needs no machine: its options, the layout of what it hands to the NIC, and what the
//! bytes of a packet mean when they are written where interrupt messages go.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod command_line;
pub mod descriptor;
pub mod frame;
pub mod interrupt_message;
