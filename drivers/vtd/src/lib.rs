//! Driver for an Intel VT-d remapping unit.
#![no_std]
#![forbid(unsafe_code)]
