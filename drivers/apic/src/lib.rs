//! Local APIC and I/O APIC.
#![no_std]
#![forbid(unsafe_code)]
