//! Page sizes of the 9-bit radix tables (x86-64, EPT, VT-d first and second stage, nested page tables).

/// The smallest page, in bytes.
pub const PAGE_SIZE: u64 = 4096;

/// The sizes that a leaf of a 9-bit radix table can have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PageSize {
    /// 4 KiB: a leaf at level 1.
    Size4K,
    /// 2 MiB: a leaf at level 2.
    Size2M,
    /// 1 GiB: a leaf at level 3.
    Size1G,
}

impl PageSize {
    /// All sizes, the largest first: the order in which a mapper tries them.
    pub const LARGEST_FIRST: [PageSize; 3] = [PageSize::Size1G, PageSize::Size2M, PageSize::Size4K];

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        1 << self.shift()
    }

    /// The logarithm to base 2 of the size in bytes.
    pub const fn shift(self) -> u32 {
        match self {
            PageSize::Size4K => 12,
            PageSize::Size2M => 21,
            PageSize::Size1G => 30,
        }
    }

    /// The level of a leaf of this size; level 1 is the lowest table.
    pub const fn level(self) -> u8 {
        match self {
            PageSize::Size4K => 1,
            PageSize::Size2M => 2,
            PageSize::Size1G => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_nine_bit_tables() {
        for (size, bytes) in
            [(PageSize::Size4K, 0x1000), (PageSize::Size2M, 0x20_0000), (PageSize::Size1G, 0x4000_0000)]
        {
            assert_eq!(size.bytes(), bytes);
            assert_eq!(size.bytes(), PAGE_SIZE << (9 * (size.level() - 1)));
        }
    }
}
