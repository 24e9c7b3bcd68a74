//! One radix walker for EPT, VT-d second stage and nested page tables.
#![no_std]
#![forbid(unsafe_code)]
