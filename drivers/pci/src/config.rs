//! Access to configuration space.

use addr::PciAddress;

/// The width of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Word,
    /// 32 bits.
    Dword,
}

impl Width {
    /// The width of an access of `bytes` bytes (1, 2 or 4), or `None`.
    pub const fn from_bytes(bytes: usize) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Dword),
            _ => None,
        }
    }

    /// The width in bytes.
    pub const fn bytes(self) -> u16 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
        }
    }

    /// The bits that a value of this width can have; also what a read gives where nothing answers.
    pub const fn mask(self) -> u32 {
        match self {
            Self::Byte => 0xFF,
            Self::Word => 0xFFFF,
            Self::Dword => 0xFFFF_FFFF,
        }
    }
}

/// The configuration space of all functions that one can reach.
///
/// Offsets are in bytes, 0 to 4095, and multiples of the width. A read where there is no function, or at 256 and
/// above where only the first 256 bytes can be reached (ports 0xCF8/0xCFC, conventional PCI), gives all ones; such a
/// write does nothing. The width of an access reaches the bus as it is: a 16-bit write of the command register done as
/// a 32-bit one would clear the errors in the status register beside it.
pub trait ConfigSpace {
    /// Reads; the value is zero-extended.
    fn read(&self, function: PciAddress, offset: u16, width: Width) -> u32;
    /// Writes the low bits of `value`.
    fn write(&mut self, function: PciAddress, offset: u16, width: Width, value: u32);

    /// Reads 8 bits.
    fn read8(&self, function: PciAddress, offset: u16) -> u8 {
        self.read(function, offset, Width::Byte) as u8
    }
    /// Reads 16 bits.
    fn read16(&self, function: PciAddress, offset: u16) -> u16 {
        self.read(function, offset, Width::Word) as u16
    }
    /// Reads 32 bits.
    fn read32(&self, function: PciAddress, offset: u16) -> u32 {
        self.read(function, offset, Width::Dword)
    }
    /// Writes 8 bits.
    fn write8(&mut self, function: PciAddress, offset: u16, value: u8) {
        self.write(function, offset, Width::Byte, u32::from(value));
    }
    /// Writes 16 bits.
    fn write16(&mut self, function: PciAddress, offset: u16, value: u16) {
        self.write(function, offset, Width::Word, u32::from(value));
    }
    /// Writes 32 bits.
    fn write32(&mut self, function: PciAddress, offset: u16, value: u32) {
        self.write(function, offset, Width::Dword, value);
    }
}
