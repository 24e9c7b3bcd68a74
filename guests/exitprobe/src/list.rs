//! The list of probes: runs each, counts, and reports.

use core::fmt;
use guest_support::report;

/// A probe failed. Why, was said when this was made.
pub struct Complaint;

impl Complaint {
    /// Says why.
    pub fn new(text: fmt::Arguments) -> Self {
        report::say(format_args!("wrong: {text}"));
        Self
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
            Err(Complaint) => report::entry(name, format_args!("FAIL")),
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
