//! The MSI capability.

use crate::ConfigSpace;
use crate::spec::msi::{
    MESSAGE_CONTROL, MSI_64_BIT, MSI_ADDRESS, MSI_ADDRESS_HIGH, MSI_DATA_32_BIT, MSI_DATA_64_BIT, MSI_ENABLE,
    MSI_MULTIPLE_CAPABLE_SHIFT, MSI_MULTIPLE_ENABLE, MSI_MULTIPLE_ENABLE_SHIFT, MSI_PER_VECTOR_MASKING,
};
use addr::PciAddress;

/// An MSI capability, as it was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsiCapability {
    /// Where it begins.
    pub offset: u8,
    /// Whether the address has 64 bits.
    pub is_64_bit: bool,
    /// Whether each vector has a mask bit.
    pub per_vector_masking: bool,
    /// How many vectors the function can use: 1, 2, 4, 8, 16 or 32.
    pub vectors: u8,
}

impl MsiCapability {
    /// Reads the capability at `offset`, or `None` where it does not fit before offset 256 or counts more than 32.
    pub fn read(config: &dyn ConfigSpace, function: PciAddress, offset: u8) -> Option<Self> {
        let control = config.read16(function, u16::from(offset) + MESSAGE_CONTROL);
        let exponent = (control >> MSI_MULTIPLE_CAPABLE_SHIFT) & 7;
        let found = Self {
            offset,
            is_64_bit: control & MSI_64_BIT != 0,
            per_vector_masking: control & MSI_PER_VECTOR_MASKING != 0,
            vectors: if exponent <= 5 { 1 << exponent } else { return None },
        };
        (u16::from(offset) + found.length() <= 0x100).then_some(found)
    }

    /// Size of the capability, in bytes.
    pub const fn length(&self) -> u16 {
        match (self.is_64_bit, self.per_vector_masking) {
            (false, false) => 10,
            (true, false) => 14,
            (false, true) => 20,
            (true, true) => 24,
        }
    }

    /// Stops MSI of the function.
    pub fn disable(&self, config: &mut dyn ConfigSpace, function: PciAddress) {
        self.set_control(config, function, false, 1);
    }

    /// Lets the function send `vectors` messages (a power of two, 1 to [`Self::vectors`]; more count as that): `data`,
    /// its low bits replaced by the message's number, written to `address`. MSI is disabled while they change. The
    /// address must lie below 4 GiB unless the capability is a 64-bit one; returns whether it could be written.
    pub fn program(
        &self,
        config: &mut dyn ConfigSpace,
        function: PciAddress,
        address: u64,
        data: u16,
        vectors: u8,
    ) -> bool {
        if !self.is_64_bit && address >> 32 != 0 {
            return false;
        }
        self.disable(config, function);
        let start = u16::from(self.offset);
        config.write32(function, start + MSI_ADDRESS, address as u32);
        if self.is_64_bit {
            config.write32(function, start + MSI_ADDRESS_HIGH, (address >> 32) as u32);
        }
        config.write16(function, start + self.data_register(), data);
        self.set_control(config, function, true, vectors);
        true
    }

    /// Offset of the data register in the capability.
    pub const fn data_register(&self) -> u16 {
        if self.is_64_bit { MSI_DATA_64_BIT } else { MSI_DATA_32_BIT }
    }

    /// Offset of the mask bits in the capability, 32 bits; `None` where there are none.
    pub const fn mask_register(&self) -> Option<u16> {
        if self.per_vector_masking { Some(self.data_register() + 4) } else { None }
    }

    /// Offset of the pending bits in the capability, 32 bits, read-only; `None` where there are none.
    pub const fn pending_register(&self) -> Option<u16> {
        if self.per_vector_masking { Some(self.data_register() + 8) } else { None }
    }

    /// Sets the mask bits, one for each vector. Does nothing where there are none.
    pub fn set_mask(&self, config: &mut dyn ConfigSpace, function: PciAddress, bits: u32) {
        if let Some(register) = self.mask_register() {
            config.write32(function, u16::from(self.offset) + register, bits);
        }
    }

    /// So many vectors in use, and enabled or not.
    fn set_control(&self, config: &mut dyn ConfigSpace, function: PciAddress, enabled: bool, vectors: u8) {
        let offset = u16::from(self.offset) + MESSAGE_CONTROL;
        let exponent = vectors.clamp(1, self.vectors).ilog2() as u16;
        let control = config.read16(function, offset) & !(MSI_ENABLE | MSI_MULTIPLE_ENABLE);
        let control = control | exponent << MSI_MULTIPLE_ENABLE_SHIFT;
        config.write16(function, offset, if enabled { control | MSI_ENABLE } else { control });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, at};
    use std::vec::Vec;

    #[test]
    fn a_message_is_programmed_while_disabled() {
        for (control, data_offset) in [(0x0080, 0xDC), (0x0000, 0xD8)] {
            let mut config = Fake::new();
            let nic = at(0, 3, 0);
            config.add(nic).header(0x8086, 0x10D3, 0, 0).capability(0xD0, 5).word(0xD2, control | 0x31);
            config.add(nic).allow(0xD2, 0x71, 2);
            let msi = MsiCapability::read(&config, nic, 0xD0).unwrap();
            assert_eq!((msi.is_64_bit, msi.vectors), (control != 0, 1));
            assert!(msi.program(&mut config, nic, 0xFEE0_0010, 0x55, 1));
            let offsets: Vec<u16> = config.writes.iter().map(|write| write.offset).collect();
            assert_eq!((offsets[0], *offsets.last().unwrap()), (0xD2, 0xD2));
            assert_eq!(offsets.len(), if control != 0 { 5 } else { 4 });
            assert!(config.writes.iter().any(|write| (write.offset, write.value) == (data_offset, 0x55)));
            assert_eq!(config.writes[0].value & 0x71, 0);
            assert_eq!(config.writes.last().unwrap().value & 0x71, 1);
        }
    }

    #[test]
    fn several_vectors_and_their_masks() {
        let mut config = Fake::new();
        let nic = at(0, 3, 0);
        config.add(nic).header(0x8086, 0x10D3, 0, 0).capability(0xD0, 5).word(0xD2, 0x0188).allow(0xD2, 0x71, 2);
        let msi = MsiCapability::read(&config, nic, 0xD0).unwrap();
        assert_eq!((msi.vectors, msi.length()), (16, 24));
        for (vectors, control) in [(4, 0x01A9), (16, 0x01C9), (32, 0x01C9), (0, 0x0189)] {
            assert!(msi.program(&mut config, nic, 0xFEE0_0018, 0, vectors));
            assert_eq!(config.read16(nic, 0xD2), control, "{vectors}");
        }
        config.writes.clear();
        msi.set_mask(&mut config, nic, 0xF0);
        assert_eq!((config.writes[0].offset, config.writes[0].value), (0xE0, 0xF0));
        assert_eq!(msi.pending_register(), Some(0x14));
        config.add(nic).word(0xD2, 0);
        let msi = MsiCapability::read(&config, nic, 0xD0).unwrap();
        config.writes.clear();
        msi.set_mask(&mut config, nic, 0xF0);
        assert!(config.writes.is_empty() && msi.pending_register().is_none());
    }

    #[test]
    fn capabilities_that_do_not_fit_or_count_too_far_are_none() {
        let mut config = Fake::new();
        let nic = at(0, 3, 0);
        config.add(nic).word(0xFA, 0).word(0x52, 0x0C);
        assert_eq!(MsiCapability::read(&config, nic, 0xF8), None);
        assert_eq!(MsiCapability::read(&config, nic, 0x50), None);
        assert_eq!(MsiCapability::read(&Fake::new(), nic, 0x50), None);
    }

    #[test]
    fn a_high_address_needs_a_64_bit_capability() {
        let mut config = Fake::new();
        let nic = at(0, 3, 0);
        config.add(nic);
        let msi = MsiCapability::read(&config, nic, 0x50).unwrap();
        assert!(!msi.program(&mut config, nic, 1 << 32, 0, 1));
        assert!(config.writes.is_empty());
    }
}
