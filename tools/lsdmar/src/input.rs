//! The file, and what can be read of it.

use std::fmt;
use std::io::{self, Read};

use dmar::{Dmar, DmarError};

/// The longest file that is taken for a table, in bytes. The largest machines have some 10 KiB.
pub const MAXIMUM_BYTES: usize = 1 << 20;

/// The bytes of a file that may hold a table.
pub struct Input {
    bytes: Vec<u8>,
}

/// Why there is no table to show.
#[derive(Debug)]
pub enum InputError {
    /// The file cannot be read.
    Io(io::Error),
    /// The file is empty.
    Empty,
    /// The file is longer than [`MAXIMUM_BYTES`].
    TooLong,
    /// The file does not hold a DMAR table.
    Table(DmarError),
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Empty => write!(f, "the file is empty"),
            Self::TooLong => write!(f, "longer than {} KiB: not a DMAR table", MAXIMUM_BYTES >> 10),
            Self::Table(DmarError::Signature(found)) => {
                write!(f, "not a DMAR table: it begins with \"{}\"", found.escape_ascii())
            }
            Self::Table(DmarError::TooShort(length)) => {
                write!(f, "not a DMAR table: {length} bytes cannot hold its 48-byte header")
            }
            Self::Table(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for InputError {}

impl Input {
    /// Reads a file to its end, or as far as a table can be long.
    pub fn read(file: impl Read) -> Result<Self, InputError> {
        let mut bytes = Vec::new();
        // One more than allowed tells that there are too many. A device that never ends is left after that.
        file.take(MAXIMUM_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(InputError::Io)?;
        Self::new(bytes)
    }

    /// Takes these bytes as the file's.
    pub fn new(bytes: Vec<u8>) -> Result<Self, InputError> {
        match bytes.len() {
            0 => Err(InputError::Empty),
            length if length > MAXIMUM_BYTES => Err(InputError::TooLong),
            _ => Ok(Self { bytes }),
        }
    }

    /// The table, and what is wrong with its length or checksum.
    pub fn table(&self) -> Result<(Dmar<'_>, Option<DmarError>), InputError> {
        Dmar::parse_damaged(&self.bytes).map_err(InputError::Table)
    }

    /// How many bytes follow the table in the file.
    pub fn trailing(&self, dmar: &Dmar<'_>) -> usize {
        self.bytes.len() - dmar.bytes().len()
    }
}
