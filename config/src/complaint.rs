//! What is wrong with a file, and where.

use alloc::format;
use alloc::string::String;
use core::fmt;

/// Most complaints about one file: with more, the first of them are the ones to mend.
pub const MAXIMUM_COMPLAINTS: usize = 16;

/// One thing that is wrong. It prints as `line N: what, and what to do`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// The line, from 1.
    pub line: u32,
    /// What is wrong there, and what to do.
    pub text: String,
}

impl Complaint {
    pub(crate) fn new(line: u32, what: fmt::Arguments<'_>) -> Self {
        Self { line, text: format!("{what}") }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

/// Prints what somebody wrote in quotation marks, cut after the first 48 characters.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(48).and_then(|(end, _)| self.0.get(..end)) {
            Some(beginning) => write!(f, "{beginning:?}..."),
            None => write!(f, "{:?}", self.0),
        }
    }
}
