//! What a person sees and types on the serial line: the log, the guests' own lines, and the closing report.

pub mod log;
pub mod report;
pub mod serial;
