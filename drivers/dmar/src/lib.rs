//! The ACPI DMAR table: bytes in, typed description out.
#![no_std]
#![forbid(unsafe_code)]
