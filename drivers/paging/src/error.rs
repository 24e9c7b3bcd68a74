//! Why a change of a table was refused.

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
    /// The range does not end within the input addresses that the table's levels translate.
    InputOutOfRange,
    /// The host range does not end below 2^52.
    HostOutOfRange,
    /// The format cannot express these permissions or attributes.
    Unsupported,
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

impl<I: fmt::Display> fmt::Display for MapError<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnsupportedLevels(levels) => write!(f, "the format has no tables of {levels} levels"),
            Self::Empty => f.write_str("the range is empty"),
            Self::Misaligned => f.write_str("an address or the length is no multiple of 4 KiB"),
            Self::InputOutOfRange => f.write_str("the range ends beyond the input addresses of the table"),
            Self::HostOutOfRange => f.write_str("the host range ends beyond 52 bits"),
            Self::Unsupported => f.write_str("the format cannot express the permissions or attributes"),
            Self::AlreadyMapped(input) => write!(f, "there is a mapping already at {input}"),
            Self::OutOfMemory => f.write_str("no memory for tables"),
            Self::Malformed { table, index, value } => {
                write!(f, "entry {index} of the table at {table} holds {value:#x}")
            }
        }
    }
}

impl<I: fmt::Debug + fmt::Display> core::error::Error for MapError<I> {}
