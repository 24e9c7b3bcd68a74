//! Names of PCI functions.

use core::fmt;

/// Bus, device and function within one segment: 16 bits, bus in 15:8, device in 7:3, function in 2:0. The same
/// number is a PCI Express requester id, and a VT-d source-id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf(u16);

impl Bdf {
    /// From a bus, a device (0 to 31) and a function (0 to 7), or `None` if one is out of range.
    pub const fn new(bus: u8, device: u8, function: u8) -> Option<Self> {
        if device < 32 && function < 8 {
            Some(Self((bus as u16) << 8 | (device as u16) << 3 | function as u16))
        } else {
            None
        }
    }

    /// From the 16 bits of a requester id or source-id: every value is one.
    pub const fn from_u16(value: u16) -> Self {
        Self(value)
    }

    /// The 16 bits of the requester id or source-id.
    pub const fn as_u16(self) -> u16 {
        self.0
    }

    /// The bus, 0 to 255.
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// The device, 0 to 31.
    pub const fn device(self) -> u8 {
        (self.0 >> 3) as u8 & 31
    }

    /// The function, 0 to 7.
    pub const fn function(self) -> u8 {
        self.0 as u8 & 7
    }

    /// Device and function in one byte: the index into a VT-d context table.
    pub const fn devfn(self) -> u8 {
        self.0 as u8
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus(), self.device(), self.function())
    }
}

impl fmt::Debug for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bdf({self})")
    }
}

/// A PCI function in a machine that may have several segments.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// The PCI segment group.
    pub segment: u16,
    /// Bus, device and function within the segment.
    pub bdf: Bdf,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{}", self.segment, self.bdf)
    }
}

impl fmt::Debug for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PciAddress({self})")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::format;

    #[test]
    fn a_requester_id_has_bus_device_function() {
        let bdf = Bdf::new(0x3a, 0x1f, 6).unwrap();
        assert_eq!(bdf.as_u16(), 0x3afe);
        assert_eq!((bdf.bus(), bdf.device(), bdf.function(), bdf.devfn()), (0x3a, 0x1f, 6, 0xfe));
        assert_eq!(format!("{}", PciAddress { segment: 1, bdf }), "0001:3a:1f.6");
        assert_eq!(Bdf::new(0, 32, 0), None);
        assert_eq!(Bdf::new(0, 0, 8), None);
    }
}
