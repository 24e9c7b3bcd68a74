//! The end of the machine: a result for whoever started it.

use crate::console::serial;
use crate::cpu;
use crate::machine::ports;
use crate::time;
use core::fmt::Write;
use core::sync::atomic::{AtomicU32, Ordering};

/// What is written to QEMU's isa-debug-exit device; QEMU then ends with twice the value plus one.
const PASSED: u32 = 0x10;
const FAILED: u32 = 0x11;
/// QEMU's device sits here in every machine that `run-qemu.sh` starts. It is only tried when the configuration could
/// not be read and the machine must end all the same: on a machine without the device the port is not decoded.
const USUAL_PORT: u32 = 0xf4;
const UNKNOWN: u32 = u32::MAX;

/// How long an emulator may take to end, in microseconds.
const EXIT_US: u64 = 500_000;

static DEBUG_EXIT_PORT: AtomicU32 = AtomicU32::new(UNKNOWN);

/// Sets the port of the debug-exit device as the configuration says, or says that there is none.
pub fn set_debug_exit_port(port: Option<u16>) {
    // Zero, the first port of the legacy DMA controller, stands for "none".
    DEBUG_EXIT_PORT.store(port.unwrap_or(0).into(), Ordering::Relaxed);
}

/// Ends the machine. Where nothing can end it, it halts.
pub fn finish(passed: bool) -> ! {
    let port = match DEBUG_EXIT_PORT.load(Ordering::Relaxed) {
        UNKNOWN => USUAL_PORT,
        configured => configured,
    };
    if port != 0 {
        ports::write(port as u16, 4, if passed { PASSED } else { FAILED });
        // QEMU goes on for a moment before it ends.
        time::wait_until(EXIT_US, || false);
    }
    // The serial line never reports an error.
    let _ = writeln!(serial::line(), "The machine has halted; it can be switched off.");
    cpu::stop()
}
