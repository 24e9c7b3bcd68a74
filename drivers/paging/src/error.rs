//! Why a change of a table was refused.

use crate::InputAddress;
use addr::HostPhys;
use core::fmt;

/// Why a change of a table was refused. After every one of them the table is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError<I> {
    /// The format has no tables of this many levels.
    UnsupportedLevels(u8),
    /// The length is zero.
    Empty,
    /// An address or the length is no multiple of 4 KiB.
    Misaligned,
    /// The range does not end within the input addresses that the table's levels and the hardware translate.
    InputOutOfRange {
        /// The number of bits that an input address can have.
        bits: u32,
    },
    /// The host range does not end within the hardware's host addresses.
    HostOutOfRange {
        /// The number of bits that a host address can have.
        bits: u32,
    },
    /// The format, or this hardware, cannot express these permissions or attributes.
    Unsupported,
    /// Write without read, for hardware that would block the zero-length reads of such a page (CAP.ZLR = 0).
    WriteOnly,
    /// There is a mapping already, at this address first.
    AlreadyMapped(I),
    /// There was no memory for the tables that the change needs.
    OutOfMemory,
    /// An entry of the table at `table` is nothing that this crate writes.
    Malformed {
        /// The table.
        table: HostPhys,
        /// The index of the entry, 0 to 511.
        index: usize,
        /// What it held.
        value: u64,
    },
}

impl<I: InputAddress> MapError<I> {
    /// The same error, in the table's own kind of address.
    #[inline]
    pub(crate) fn cast<J: InputAddress>(self) -> MapError<J> {
        match self {
            Self::UnsupportedLevels(levels) => MapError::UnsupportedLevels(levels),
            Self::Empty => MapError::Empty,
            Self::Misaligned => MapError::Misaligned,
            Self::InputOutOfRange { bits } => MapError::InputOutOfRange { bits },
            Self::HostOutOfRange { bits } => MapError::HostOutOfRange { bits },
            Self::Unsupported => MapError::Unsupported,
            Self::WriteOnly => MapError::WriteOnly,
            Self::AlreadyMapped(input) => MapError::AlreadyMapped(J::from_u64(input.to_u64())),
            Self::OutOfMemory => MapError::OutOfMemory,
            Self::Malformed { table, index, value } => MapError::Malformed { table, index, value },
        }
    }
}

impl<I: fmt::Display> fmt::Display for MapError<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnsupportedLevels(levels) => write!(f, "the format has no tables of {levels} levels"),
            Self::Empty => f.write_str("the range is empty"),
            Self::Misaligned => f.write_str("an address or the length is no multiple of 4 KiB"),
            Self::InputOutOfRange { bits } => write!(f, "the range ends beyond input addresses of {bits} bits"),
            Self::HostOutOfRange { bits } => write!(f, "the host range ends beyond host addresses of {bits} bits"),
            Self::Unsupported => f.write_str("these permissions or attributes cannot be expressed: choose others"),
            Self::WriteOnly => f.write_str("a page that is written must be readable too (CAP.ZLR = 0)"),
            Self::AlreadyMapped(input) => write!(f, "there is a mapping already at {input}: unmap it first"),
            Self::OutOfMemory => f.write_str("no memory for tables: nothing has changed, try again with more"),
            Self::Malformed { table, index, value } => {
                write!(f, "entry {index} of the table at {table} holds {value:#x}: somebody else wrote to the table")
            }
        }
    }
}

impl<I: fmt::Debug + fmt::Display> core::error::Error for MapError<I> {}
