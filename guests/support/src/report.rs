//! What a guest tells: sentences for people, and `report:` lines that the hypervisor reads.

use crate::cpu;
use crate::serial::{self, Serial};
use core::fmt::{Arguments, Write};
use spin::Once;

static PROGRAM: Once<&'static str> = Once::new();

/// Sets the serial port up. `program` is what sentences begin with.
pub fn initialize(program: &'static str) {
    PROGRAM.call_once(|| program);
    serial::initialize();
}

/// A line for people.
pub fn say(text: Arguments) {
    let program = PROGRAM.get().unwrap_or(&"guest");
    // Writing to the port cannot fail: a port that is not there swallows the bytes.
    let _ = writeln!(Serial, "{program}: {text}");
}

/// A line `report: key=value`. A value may carry further `key=value` pairs after a space.
pub fn entry(key: &str, value: Arguments) {
    let _ = writeln!(Serial, "report: {key}={value}");
}

/// Reports why the guest failed, in one word, and powers off.
pub fn fail(reason: Arguments) -> ! {
    entry("guest", format_args!("failed reason={reason}"));
    cpu::power_off()
}
