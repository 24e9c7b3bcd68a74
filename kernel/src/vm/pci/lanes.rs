//! A part of a dword: configuration space is written in dwords with byte enables, whatever the width of the access.

use ::pci::Width;

/// The bytes of one dword that an access touches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lanes {
    /// Offset of the dword, a multiple of 4.
    pub dword: u16,
    shift: u32,
    width: Width,
}

impl Lanes {
    /// The lanes of an access at `offset`, or `None` where it crosses into the next dword.
    pub fn new(offset: u16, width: Width) -> Option<Self> {
        let within = offset & 3;
        (within + width.bytes() <= 4).then_some(Self { dword: offset & !3, shift: u32::from(within) * 8, width })
    }

    /// Offset of the first byte.
    pub fn offset(self) -> u16 {
        self.dword | (self.shift / 8) as u16
    }

    /// Width of the access.
    pub fn width(self) -> Width {
        self.width
    }

    /// The bits of the dword that the access touches.
    pub fn mask(self) -> u32 {
        self.width.mask() << self.shift
    }

    /// What the access reads of a dword.
    pub fn extract(self, dword: u32) -> u32 {
        (dword >> self.shift) & self.width.mask()
    }

    /// The dword after writing `value` over `before`.
    pub fn merge(self, before: u32, value: u32) -> u32 {
        before & !self.mask() | self.position(value)
    }

    /// The value at its place in a dword of zeros.
    pub fn position(self, value: u32) -> u32 {
        (value & self.width.mask()) << self.shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_within_a_dword_have_lanes_and_others_none() {
        let lanes = Lanes::new(0x07, Width::Byte).unwrap();
        assert_eq!((lanes.dword, lanes.mask(), lanes.offset()), (0x04, 0xFF00_0000, 0x07));
        assert_eq!(lanes.merge(0x1122_3344, 0xFFAA), 0xAA22_3344);
        assert_eq!(Lanes::new(0x05, Width::Word).unwrap().extract(0x1122_3344), 0x2233);
        assert_eq!(Lanes::new(0x07, Width::Word), None);
        assert_eq!(Lanes::new(0x01, Width::Dword), None);
        assert_eq!(Lanes::new(0xFC, Width::Dword).unwrap().mask(), u32::MAX);
    }
}
