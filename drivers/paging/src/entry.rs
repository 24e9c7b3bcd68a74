//! What a format is: how one 64-bit entry says "nothing", "a table" or "a page".

use crate::InputAddress;
use addr::{HostPhys, PageSize};
use core::{fmt, ops::RangeInclusive};

/// Bits 51:12 of an entry: the address of a table or of a page, in every format.
pub(crate) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Bits 56:52, which hardware ignores in entries of every kind and format. (Bits above are not: EPT's bits 57 to 63 of a
/// page have meanings, and the memory protection key of nested tables.) Detached trees are linked through them.
pub(crate) const LINK: u64 = 0x1f << LINK_SHIFT;
pub(crate) const LINK_SHIFT: u32 = 52;

/// Bit 7 of a present entry above level 1: a page, in every format. In a page of 4 KiB the bit is clear; otherwise pages
/// of all sizes that may be used alike have the same bits beside the address.
pub(crate) const PAGE: u64 = 1 << 7;

/// What may be done with a page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Permissions {
    /// The page may be read.
    pub read: bool,
    /// The page may be written.
    pub write: bool,
    /// Instructions may be fetched from the page. Devices do not fetch: VT-d's formats refuse it.
    pub execute: bool,
}

impl Permissions {
    /// Read only.
    pub const READ: Self = Self { read: true, write: false, execute: false };
    /// Read and write: what a device may do with a guest's memory.
    pub const READ_WRITE: Self = Self { read: true, write: true, execute: false };
    /// Read and execute: a guest's ROM.
    pub const READ_EXECUTE: Self = Self { read: true, write: false, execute: true };
    /// Everything: a guest's memory, for its own processors.
    pub const READ_WRITE_EXECUTE: Self = Self { read: true, write: true, execute: true };
}

/// How a processor caches a page. The values are those of the memory type range registers (SDM volume 3, table
/// "Memory Types That Can Be Encoded in MTRRs").
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum MemoryType {
    /// Not cached, strongly ordered: device registers.
    Uncacheable = 0,
    /// Not cached, writes are collected.
    WriteCombining = 1,
    /// Reads are cached, writes go through.
    WriteThrough = 4,
    /// Reads are cached, writes go through and void other processors' copies.
    WriteProtected = 5,
    /// Reads and writes are cached: memory.
    WriteBack = 6,
}

impl MemoryType {
    /// The type with this number, or `None` for a reserved number.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Uncacheable),
            1 => Some(Self::WriteCombining),
            4 => Some(Self::WriteThrough),
            5 => Some(Self::WriteProtected),
            6 => Some(Self::WriteBack),
            _ => None,
        }
    }
}

/// What a leaf says: a page and how it may be used. The page's size comes from the leaf's level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping<A> {
    /// The first byte of the page; aligned to the page's size.
    pub host: HostPhys,
    /// What may be done with the page.
    pub permissions: Permissions,
    /// The format's own attributes.
    pub attributes: A,
}

/// What an entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry<A> {
    /// Nothing: a walk ends here with a fault.
    Absent,
    /// The next table.
    Table(HostPhys),
    /// A page.
    Leaf(Mapping<A>),
    /// Present, but nothing that this crate writes: somebody else has changed the table.
    Malformed,
}

/// The look of an entry. Levels count from 1, the lowest; level 2 has leaves of 2 MiB and level 3 of 1 GiB.
///
/// The walker keeps something of its own in the tables, and relies on every format for it: hardware ignores bits 56:52
/// of every present entry; an entry whose bits 2:0 are zero is absent, whatever its other bits; and a large page differs
/// from a small one in bit 7 alone.
pub trait Format {
    /// The kind of address that the table translates.
    type Input: InputAddress;

    /// What a leaf says beside address and permissions.
    type Attributes: Copy + PartialEq + fmt::Debug;

    /// The numbers of levels that hardware walks in this format.
    const LEVELS: RangeInclusive<u8>;

    /// An entry is present if one of these bits is set; all of them are within bits 2:0.
    const PRESENT: u64;

    /// The bits beside the address of an entry that points to a table. It grants everything: leaves alone restrict.
    const TABLE: u64;

    /// The bits that hardware may set in a present entry by itself: accessed and dirty, where this crate does not set
    /// them from the start.
    const SET_BY_HARDWARE: u64;

    /// The width of an input address in a table of `levels` levels.
    fn input_bits(levels: u8) -> u32 {
        12 + 9 * u32::from(levels)
    }

    /// Whether a leaf can say this. If not, hardware would refuse the entry, or grant more than was asked for.
    fn supports(permissions: Permissions, attributes: Self::Attributes) -> bool;

    /// The entry of a page, at the level of `size`. `mapping` is one that [`Self::supports`] accepts, its address
    /// aligned to `size` and below 2^52. Bit 7 tells pages above level 1 from those of 4 KiB, and nothing else does.
    fn leaf(size: PageSize, mapping: Mapping<Self::Attributes>) -> u64;

    /// What `entry` says at `level`.
    fn decode(entry: u64, level: u8) -> Entry<Self::Attributes>;

    /// The bits that are reserved or must be zero in a present entry at `level` that is a leaf or not.
    fn reserved(level: u8, leaf: bool) -> u64;
}

/// The size of a leaf at `level`, or `None` where a level has no leaves.
pub(crate) const fn leaf_size(level: u8) -> Option<PageSize> {
    match level {
        1 => Some(PageSize::Size4K),
        2 => Some(PageSize::Size2M),
        3 => Some(PageSize::Size1G),
        _ => None,
    }
}

/// The address bits that must be zero in a leaf of `size`: those below its alignment.
pub(crate) const fn misaligned(size: PageSize) -> u64 {
    ADDRESS & (size.bytes() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_types_are_those_of_the_mtrrs() {
        let uncacheable = [(0, MemoryType::Uncacheable), (1, MemoryType::WriteCombining)];
        let cacheable = [(4, MemoryType::WriteThrough), (5, MemoryType::WriteProtected), (6, MemoryType::WriteBack)];
        for (bits, memory_type) in uncacheable.into_iter().chain(cacheable) {
            assert_eq!(MemoryType::from_bits(bits), Some(memory_type));
            assert_eq!(memory_type as u8, bits);
        }
        for reserved in [2, 3, 7, 8, 0x80, u8::MAX] {
            assert_eq!(MemoryType::from_bits(reserved), None);
        }
    }
}
