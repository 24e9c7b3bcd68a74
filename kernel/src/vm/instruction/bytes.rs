//! Reading an instruction byte by byte.

use super::{MAX_LENGTH, Reason, Width};

/// Where decoding stands.
#[derive(Clone, Copy)]
pub(crate) struct Bytes<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Bytes<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// The number of bytes read so far: at most 15.
    pub(crate) fn position(&self) -> u8 {
        self.position as u8
    }

    /// The next byte.
    pub(crate) fn byte(&mut self) -> Result<u8, Reason> {
        if self.position >= MAX_LENGTH {
            return Err(Reason::TooLong);
        }
        let byte = *self.bytes.get(self.position).ok_or(Reason::Truncated)?;
        self.position += 1;
        Ok(byte)
    }

    /// The next value of `width`, the lowest byte first.
    pub(crate) fn unsigned(&mut self, width: Width) -> Result<u64, Reason> {
        let mut value = 0;
        for index in 0..width.bytes() {
            value |= u64::from(self.byte()?) << (8 * index);
        }
        Ok(value)
    }

    /// The next value of `width`, its sign in all bits above.
    pub(crate) fn signed(&mut self, width: Width) -> Result<u64, Reason> {
        self.unsigned(width).map(|value| width.sign_extend(value))
    }
}
