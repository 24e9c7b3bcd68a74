//! The hypervisor's log: seconds since entry, severity, the room that speaks, and what it has to say.

use super::serial;
use crate::time;
use core::fmt::Write;
use log::{LevelFilter, Log, Metadata, Record};

struct SerialLog;

impl Log for SerialLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let target = record.target();
        let room = target.strip_prefix("postern::").unwrap_or(target);
        let microseconds = time::since_entry_us();
        // The serial line never reports an error.
        let _ = writeln!(
            serial::line(),
            "[{:3}.{:03}] {:5} {room}: {}",
            microseconds / 1_000_000,
            microseconds / 1_000 % 1_000,
            record.level(),
            record.args()
        );
    }

    fn flush(&self) {}
}

/// Opens the serial line and sends the log there.
pub fn start() {
    static LOG: SerialLog = SerialLog;
    serial::open();
    // Fails only when a logger is set already, which then is this one.
    let _ = log::set_logger(&LOG);
    log::set_max_level(LevelFilter::Info);
}
