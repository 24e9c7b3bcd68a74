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
    #[inline]
    fn from_u64(value: u64) -> Self {
        GuestPhys::new(value)
    }

    #[inline]
    fn to_u64(self) -> u64 {
        self.as_u64()
    }
}

impl InputAddress for Iova {
    #[inline]
    fn from_u64(value: u64) -> Self {
        Iova::new(value)
    }

    #[inline]
    fn to_u64(self) -> u64 {
        self.as_u64()
    }
}

/// An input address within the walker, where its kind does not matter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Input(pub(crate) u64);

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl InputAddress for Input {
    #[inline]
    fn from_u64(value: u64) -> Self {
        Self(value)
    }

    #[inline]
    fn to_u64(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn every_kind_of_address_reads_as_its_number() {
        assert_eq!(Input(0x12_3000).to_string(), "0x123000");
        assert_eq!(Input(0x12_3000).to_string(), Iova::from_u64(0x12_3000).to_string());
        assert_eq!(Input::from_u64(GuestPhys::from_u64(0x5000).to_u64()), Input(0x5000));
    }
}
