//! The kinds of address that a table can translate.

use addr::{GuestPhys, Iova};
use core::fmt;

/// An address that a table translates: guest-physical for a processor's tables, I/O virtual for a remapping unit's.
pub trait InputAddress: Copy + Ord + fmt::Debug + fmt::Display {
    /// The address with this numeric value, in bytes.
    fn from_u64(value: u64) -> Self;

    /// The numeric value, in bytes.
    fn to_u64(self) -> u64;
}

impl InputAddress for GuestPhys {
    fn from_u64(value: u64) -> Self {
        GuestPhys::new(value)
    }

    fn to_u64(self) -> u64 {
        self.as_u64()
    }
}

impl InputAddress for Iova {
    fn from_u64(value: u64) -> Self {
        Iova::new(value)
    }

    fn to_u64(self) -> u64 {
        self.as_u64()
    }
}
