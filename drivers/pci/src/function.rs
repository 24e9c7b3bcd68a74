//! All that one must know of a function to hand it to somebody.

use crate::spec::capability::id;
use crate::{
    Bars, Capabilities, ConfigSpace, ExpressCapability, FunctionInfo, MsiCapability, MsixCapability, MsixError,
    read_bars,
};
use addr::PciAddress;

/// A function, with its ranges and the capabilities that matter to assignment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FunctionDescription {
    /// What enumeration knows of it.
    pub info: FunctionInfo,
    /// Where it answers.
    pub bars: Bars,
    /// Its PCI Express capability.
    pub express: Option<ExpressCapability>,
    /// Where its Power Management capability begins.
    pub power_management: Option<u8>,
    /// Where its Advanced Features capability begins.
    pub advanced_features: Option<u8>,
    /// Its MSI capability, unless it makes no sense.
    pub msi: Option<MsiCapability>,
    /// Its MSI-X capability, or why it makes no sense.
    pub msix: Result<Option<MsixCapability>, MsixError>,
}

impl FunctionDescription {
    /// Describes the function at `address`, or `None` if there is none. Sizes its ranges: see [`read_bars`] for what must
    /// not happen meanwhile. Of each capability the first in the list counts.
    pub fn read(config: &mut dyn ConfigSpace, address: PciAddress) -> Option<Self> {
        let info = FunctionInfo::read(config, address)?;
        let bars = read_bars(config, address, info.header_type);
        Some(Self::of(config, info, bars))
    }

    /// Describes the virtual function at `address` with the ranges `bars`, which it has of `physical`, whose virtual functions
    /// have `device_id`; `None` if it does not answer. Only reads. PCI Express Base section 9.3.4.
    pub fn read_virtual(
        config: &dyn ConfigSpace,
        address: PciAddress,
        physical: &FunctionInfo,
        device_id: u16,
        bars: Bars,
    ) -> Option<Self> {
        let info = FunctionInfo::read_virtual(config, address, physical, device_id)?;
        Some(Self::of(config, info, bars))
    }

    /// What the capabilities say.
    fn of(config: &dyn ConfigSpace, info: FunctionInfo, bars: Bars) -> Self {
        let address = info.address;
        let mut found = Self {
            info,
            bars,
            express: None,
            power_management: None,
            advanced_features: None,
            msi: None,
            msix: Ok(None),
        };
        for capability in Capabilities::new(config, address) {
            let offset = capability.offset;
            match capability.id {
                id::PCI_EXPRESS if found.express.is_none() => {
                    found.express = Some(ExpressCapability::read(config, address, offset));
                }
                id::POWER_MANAGEMENT if found.power_management.is_none() && offset <= 0xF8 => {
                    found.power_management = Some(offset);
                }
                id::ADVANCED_FEATURES if found.advanced_features.is_none() && offset <= 0xF8 => {
                    found.advanced_features = Some(offset);
                }
                id::MSI if found.msi.is_none() => found.msi = MsiCapability::read(config, address, offset),
                id::MSI_X if found.msix == Ok(None) => {
                    found.msix = MsixCapability::read(config, address, offset).map(Some);
                }
                _ => {}
            }
        }
        found
    }

    /// The function.
    pub fn address(&self) -> PciAddress {
        self.info.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, at};

    #[test]
    fn capabilities_are_described_and_the_first_of_each_counts() {
        let mut config = Fake::new();
        let nic = at(0, 3, 0);
        let function = config.add(nic).header(0x8086, 0x10D3, 0x02_0000, 0);
        function.capability(0x50, 0x11).word(0x52, 0x7FF);
        function.capability(0xA0, 0x11).word(0xA2, 4).dword(0xA4, 3).dword(0xA8, 0x2003);
        function.capability(0xE0, 0x10).word(0xE2, 0x0001).dword(0xE4, 1 << 28);
        function.capability(0xD0, 0x05).word(0xD2, 0x80).capability(0xC8, 0x01).capability(0xFC, 0x13);
        let found = FunctionDescription::read(&mut config, nic).unwrap();
        assert_eq!(found.msix.unwrap().unwrap().entries, 5);
        assert!(found.express.unwrap().function_level_reset_capable());
        assert_eq!((found.power_management, found.advanced_features), (Some(0xC8), None));
        assert!(found.msi.unwrap().is_64_bit);
        assert_eq!(FunctionDescription::read(&mut config, at(0, 4, 0)), None);
    }

    #[test]
    fn a_function_of_random_bytes_is_described_without_a_panic() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..200 {
            let mut config = Fake::new();
            let function = config.add(at(0, 3, 0));
            for index in 0..4096 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                function.bytes[index] = state as u8;
                function.writable[index] = (state >> 8) as u8 & (state >> 16) as u8;
            }
            function.bytes[0xE] &= 1;
            FunctionDescription::read(&mut config, at(0, 3, 0));
        }
    }
}
