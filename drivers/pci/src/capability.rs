//! The two capability lists, read without trust: pointers may be odd, point into the header, or loop.

use crate::ConfigSpace;
use crate::spec::capability::{FIRST_EXTENDED_OFFSET, FIRST_OFFSET};
use crate::spec::header::{CAPABILITIES_POINTER, HEADER_LAYOUT, HEADER_TYPE, STATUS, status};
use addr::PciAddress;

/// A capability in the first 256 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capability {
    /// What it is; [`crate::spec::capability::id`].
    pub id: u8,
    /// Where it begins: 0x40 to 0xFC, a multiple of 4.
    pub offset: u8,
}

/// A capability from offset 0x100.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExtendedCapability {
    /// What it is; [`crate::spec::capability::extended_id`].
    pub id: u16,
    /// The version of its layout.
    pub version: u8,
    /// Where it begins: 0x100 to 0xFFC, a multiple of 4.
    pub offset: u16,
}

/// The capabilities of a function in the order of the list. Ends after at most 48, and where the list comes back
/// to one that was there before.
pub struct Capabilities<'a> {
    config: &'a dyn ConfigSpace,
    function: PciAddress,
    next: u8,
    /// One bit for each dword of the first 256 bytes.
    seen: u64,
}

impl<'a> Capabilities<'a> {
    /// The list of `function`; empty where there is none.
    pub fn new(config: &'a dyn ConfigSpace, function: PciAddress) -> Self {
        let status = config.read16(function, STATUS);
        let layout = config.read8(function, HEADER_TYPE) & HEADER_LAYOUT;
        // A function that is gone answers all ones, with a layout that does not exist.
        let next = if status & status::CAPABILITIES_LIST != 0 && layout <= 1 {
            config.read8(function, CAPABILITIES_POINTER)
        } else {
            0
        };
        Self { config, function, next, seen: 0 }
    }
}

impl Iterator for Capabilities<'_> {
    type Item = Capability;

    fn next(&mut self) -> Option<Capability> {
        let offset = self.next & !3;
        let bit = 1u64 << (offset / 4);
        if offset < FIRST_OFFSET || self.seen & bit != 0 {
            return None;
        }
        self.seen |= bit;
        let header = self.config.read16(self.function, offset.into());
        let id = header as u8;
        // All ones is a function that is gone: the list is over, not 48 capabilities long.
        if id == 0xFF {
            self.next = 0;
            return None;
        }
        self.next = (header >> 8) as u8;
        Some(Capability { id, offset })
    }
}

/// The first capability with this id.
pub fn find_capability(config: &dyn ConfigSpace, function: PciAddress, id: u8) -> Option<Capability> {
    Capabilities::new(config, function).find(|capability| capability.id == id)
}

/// The extended capabilities of a PCI Express function in the order of the list. Empty where configuration space ends at
/// 256; ends after at most 960, and where the list comes back to one that was there before.
pub struct ExtendedCapabilities<'a> {
    config: &'a dyn ConfigSpace,
    function: PciAddress,
    next: u16,
    /// One bit for each dword of the 4096 bytes.
    seen: [u64; 16],
}

impl<'a> ExtendedCapabilities<'a> {
    /// The list of `function`, which must be a PCI Express one.
    pub fn new(config: &'a dyn ConfigSpace, function: PciAddress) -> Self {
        Self { config, function, next: FIRST_EXTENDED_OFFSET, seen: [0; 16] }
    }
}

impl Iterator for ExtendedCapabilities<'_> {
    type Item = ExtendedCapability;

    fn next(&mut self) -> Option<ExtendedCapability> {
        let offset = self.next & 0xFFC;
        if offset < FIRST_EXTENDED_OFFSET {
            return None;
        }
        let dword = usize::from(offset / 4);
        let seen = self.seen.get_mut(dword / 64)?;
        if *seen & 1 << (dword % 64) != 0 {
            return None;
        }
        *seen |= 1 << (dword % 64);
        let header = self.config.read32(self.function, offset);
        if header == 0 || header == u32::MAX {
            self.next = 0;
            return None;
        }
        self.next = (header >> 20) as u16;
        Some(ExtendedCapability { id: header as u16, version: (header >> 16) as u8 & 0xF, offset })
    }
}

/// The first extended capability with this id.
pub fn find_extended_capability(config: &dyn ConfigSpace, function: PciAddress, id: u16) -> Option<ExtendedCapability> {
    ExtendedCapabilities::new(config, function).find(|capability| capability.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, at};
    use std::vec::Vec;

    fn list(config: &Fake) -> Vec<(u8, u8)> {
        Capabilities::new(config, at(0, 3, 0)).map(|capability| (capability.id, capability.offset)).collect()
    }

    #[test]
    fn capabilities_come_in_list_order_with_reserved_pointer_bits_ignored() {
        let mut config = Fake::new();
        let function = config.add(at(0, 3, 0)).header(0x8086, 0x10D3, 0x02_0000, 0);
        function.capability(0xA0, 0x11).capability(0xE0, 0x10).capability(0xC8, 0x01).byte(0x34, 0xCB);
        assert_eq!(list(&config), [(0x01, 0xC8), (0x10, 0xE0), (0x11, 0xA0)]);
        assert_eq!(find_capability(&config, at(0, 3, 0), 0x05), None);
    }

    #[test]
    fn loops_and_pointers_into_the_header_end_the_list() {
        let mut config = Fake::new();
        config.add(at(0, 3, 0)).header(0x8086, 1, 0, 0).capability(0x50, 9).capability(0x60, 9).byte(0x51, 0x60);
        assert_eq!(list(&config), [(9, 0x60), (9, 0x50)]);
        config.add(at(0, 3, 0)).byte(0x51, 0x3C);
        assert_eq!(list(&config), [(9, 0x60), (9, 0x50)]);
        config.add(at(0, 3, 0)).byte(0x61, 0x61);
        assert_eq!(list(&config), [(9, 0x60)]);
    }

    #[test]
    fn no_list_bit_or_no_function_is_an_empty_list() {
        let mut config = Fake::new();
        assert_eq!(list(&config), []);
        config.add(at(0, 3, 0)).header(0x8086, 1, 0, 0).capability(0x50, 9).byte(6, 0);
        assert_eq!(list(&config), []);
    }

    #[test]
    fn extended_capabilities_are_bounded_too() {
        let mut config = Fake::new();
        let nic = at(0, 3, 0);
        assert_eq!(ExtendedCapabilities::new(&config, nic).count(), 0);
        config.add(nic).dword(0x100, 0x1401_0001).dword(0x140, 0x1002_000D);
        let found: Vec<_> = ExtendedCapabilities::new(&config, nic).collect();
        assert_eq!(
            found,
            [
                ExtendedCapability { id: 1, version: 1, offset: 0x100 },
                ExtendedCapability { id: 0xD, version: 2, offset: 0x140 }
            ]
        );
        config.add(nic).dword(0x140, 0xFFF2_000D).dword(0xFFC, 0x0FF1_0003);
        assert_eq!(find_extended_capability(&config, nic, 3).unwrap().offset, 0xFFC);
        assert_eq!(find_extended_capability(&config, nic, 4), None);
    }
}
