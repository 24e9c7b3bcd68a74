//! Reading what a loader left in physical memory, with bounds.

use crate::error::Error;

/// Physical memory, as far as it can be read.
pub(crate) trait Physical {
    /// The `length` bytes at the physical address `address`, or `None` when not all of them can be read.
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]>;
}

/// The little-endian 32-bit number at byte `offset`.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Result<u32, Error> {
    let field = offset.checked_add(4).and_then(|end| bytes.get(offset..end)).ok_or(Error::Truncated)?;
    field.try_into().map(u32::from_le_bytes).map_err(|_| Error::Truncated)
}

/// The little-endian 64-bit number at byte `offset`.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Result<u64, Error> {
    let field = offset.checked_add(8).and_then(|end| bytes.get(offset..end)).ok_or(Error::Truncated)?;
    field.try_into().map(u64::from_le_bytes).map_err(|_| Error::Truncated)
}

/// A small physical memory for tests: what is not there cannot be read.
#[cfg(test)]
pub(crate) struct FakeMemory {
    /// (physical address, bytes), in any order.
    pub(crate) pieces: std::vec::Vec<(u64, std::vec::Vec<u8>)>,
}

#[cfg(test)]
impl Physical for FakeMemory {
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        self.pieces.iter().find_map(|(start, piece)| {
            let offset = usize::try_from(address.checked_sub(*start)?).ok()?;
            piece.get(offset..offset.checked_add(length)?)
        })
    }
}
