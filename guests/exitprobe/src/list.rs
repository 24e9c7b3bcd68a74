//! The list of probes: runs each, counts, and reports.

use core::fmt::{self, Write};
use guest_support::report;

/// Longest explanation that is kept, in bytes.
const MAXIMUM_LENGTH: usize = 160;

/// Why a probe failed.
pub struct Complaint {
    text: [u8; MAXIMUM_LENGTH],
    length: usize,
}

impl Complaint {
    /// From a text, cut where it is too long.
    pub fn new(text: fmt::Arguments) -> Self {
        let mut complaint = Self { text: [0; MAXIMUM_LENGTH], length: 0 };
        // What does not fit is left out.
        let _ = complaint.write_fmt(text);
        complaint
    }
}

impl Write for Complaint {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            *self.text.get_mut(self.length).ok_or(fmt::Error)? = byte;
            self.length += 1;
        }
        Ok(())
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text.get(..self.length).unwrap_or_default();
        f.write_str(core::str::from_utf8(text).unwrap_or("(cut within a character)"))
    }
}

/// What a probe found.
pub type Verdict = Result<(), Complaint>;

/// Fails the probe unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::list::Complaint::new(format_args!($($text)+)));
        }
    };
}
pub(crate) use ensure;

/// The probes so far.
#[derive(Default)]
pub struct List {
    passed: u32,
    total: u32,
}

impl List {
    /// Runs one probe and reports it under `name`.
    pub fn probe(&mut self, name: &str, probe: impl FnOnce() -> Verdict) {
        self.total += 1;
        match probe() {
            Ok(()) => {
                self.passed += 1;
                report::entry(name, format_args!("ok"));
            }
            Err(complaint) => {
                report::say(format_args!("{name}: {complaint}"));
                report::entry(name, format_args!("FAIL"));
            }
        }
    }

    /// Ends the list. Returns whether every probe passed.
    pub fn finish(&self) -> bool {
        report::entry("probes", format_args!("{}/{}", self.passed, self.total));
        self.passed == self.total
    }
}

/// Reports what is worth knowing and no failure: what the processor leaves open, or an emulator does wrong.
pub fn note(text: fmt::Arguments) {
    report::say(format_args!("info: {text}"));
}
