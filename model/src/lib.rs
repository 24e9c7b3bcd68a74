//! A VT-d remapping unit in software.
#![forbid(unsafe_code)]
