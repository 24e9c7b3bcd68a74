//! What netprobe tells: sentences for people, and `report:` lines that the hypervisor reads.

use crate::serial::Serial;
use core::fmt::{Arguments, Write};

/// A line for people.
pub fn say(text: Arguments) {
    // Writing to the port cannot fail: a port that is not there swallows the bytes.
    let _ = writeln!(Serial, "netprobe: {text}");
}

/// A line `report: key=value`. A value may carry further `key=value` pairs after a space.
pub fn entry(key: &str, value: Arguments) {
    let _ = writeln!(Serial, "report: {key}={value}");
}
