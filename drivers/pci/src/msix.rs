//! The MSI-X capability: how many messages, and where their table is.

use crate::spec::msi::{
    ENTRY_SIZE, MESSAGE_CONTROL, MSIX_BAR_INDICATOR, MSIX_ENABLE, MSIX_FUNCTION_MASK, MSIX_LENGTH, MSIX_PENDING_BITS,
    MSIX_TABLE, MSIX_TABLE_SIZE,
};
use crate::{Bar, Bars, ConfigSpace};
use addr::{HostPhys, PciAddress};
use core::fmt;

/// A place in a range of the function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsixRegion {
    /// The number of the range's base address register, 0 to 5.
    pub bar: u8,
    /// Offset in the range, in bytes, a multiple of 8.
    pub offset: u32,
    /// Length, in bytes.
    pub length: u32,
}

/// Why an MSI-X capability cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MsixError {
    /// It does not fit before offset 256.
    Truncated {
        /// Where it begins.
        offset: u8,
    },
    /// A table or pending bit array in a base address register that does not exist (6 and 7).
    ReservedBar(u8),
    /// A place that is not in a memory range of the function, or whose range has no address.
    OutsideRange(MsixRegion),
}

impl fmt::Display for MsixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { offset } => write!(f, "MSI-X capability at {offset:#x} does not fit"),
            Self::ReservedBar(bar) => write!(f, "MSI-X names base address register {bar}"),
            Self::OutsideRange(region) => write!(
                f,
                "MSI-X: {:#x} bytes at {:#x} are not in the memory range of BAR {}",
                region.length, region.offset, region.bar
            ),
        }
    }
}

impl core::error::Error for MsixError {}

impl MsixRegion {
    fn parse(value: u32, length: u32) -> Result<Self, MsixError> {
        let bar = (value & MSIX_BAR_INDICATOR) as u8;
        if bar > 5 {
            return Err(MsixError::ReservedBar(bar));
        }
        Ok(Self { bar, offset: value & !MSIX_BAR_INDICATOR, length })
    }

    /// Where it is in memory.
    ///
    /// # Errors
    /// [`MsixError::OutsideRange`].
    pub fn locate(&self, bars: &Bars) -> Result<HostPhys, MsixError> {
        let outside = MsixError::OutsideRange(*self);
        let Some(Bar::Memory { address, size, .. }) = bars.range(self.bar) else { return Err(outside) };
        let end = u64::from(self.offset) + u64::from(self.length);
        if end > size || address.as_u64() == 0 || address.checked_add(end).is_none() {
            return Err(outside);
        }
        address.checked_add(u64::from(self.offset)).ok_or(outside)
    }
}

/// An MSI-X capability, as it was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsixCapability {
    /// Where it begins.
    pub offset: u8,
    /// The number of table entries, 1 to 2048.
    pub entries: u16,
    /// Where the table is: 16 bytes an entry.
    pub table: MsixRegion,
    /// Where the pending bit array is: one bit an entry, in units of 8 bytes.
    pub pending_bits: MsixRegion,
}

impl MsixCapability {
    /// Reads the capability at `offset`.
    ///
    /// # Errors
    /// [`MsixError::Truncated`] or [`MsixError::ReservedBar`].
    pub fn read(config: &dyn ConfigSpace, function: PciAddress, offset: u8) -> Result<Self, MsixError> {
        let start = u16::from(offset);
        if start + u16::from(MSIX_LENGTH) > 0x100 {
            return Err(MsixError::Truncated { offset });
        }
        let entries = (config.read16(function, start + MESSAGE_CONTROL) & MSIX_TABLE_SIZE) + 1;
        let table = config.read32(function, start + MSIX_TABLE);
        let pending_bits = config.read32(function, start + MSIX_PENDING_BITS);
        Ok(Self {
            offset,
            entries,
            table: MsixRegion::parse(table, u32::from(entries) * ENTRY_SIZE as u32)?,
            pending_bits: MsixRegion::parse(pending_bits, u32::from(entries).div_ceil(64) * 8)?,
        })
    }

    /// Enables or disables MSI-X of the function, and masks or unmasks all entries together. While MSI-X is disabled the
    /// function may raise INTx instead. A message sent before the write may still be on its way.
    pub fn set_control(
        &self,
        config: &mut dyn ConfigSpace,
        function: PciAddress,
        enabled: bool,
        function_masked: bool,
    ) {
        let offset = u16::from(self.offset) + MESSAGE_CONTROL;
        let mut control = config.read16(function, offset) & !(MSIX_ENABLE | MSIX_FUNCTION_MASK);
        if enabled {
            control |= MSIX_ENABLE;
        }
        if function_masked {
            control |= MSIX_FUNCTION_MASK;
        }
        config.write16(function, offset, control);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BarSlot;
    use crate::fake::{Fake, at};

    fn capability(table: u32, pending: u32) -> (Fake, Result<MsixCapability, MsixError>) {
        let mut config = Fake::new();
        config.add(at(0, 3, 0)).header(0x8086, 0x10D3, 0, 0).capability(0xA0, 0x11);
        config.add(at(0, 3, 0)).word(0xA2, 0x4004).dword(0xA4, table).dword(0xA8, pending).allow(0xA2, 0xC000, 2);
        let found = MsixCapability::read(&config, at(0, 3, 0), 0xA0);
        (config, found)
    }

    fn bars(size: u64) -> Bars {
        let memory = Bar::Memory { address: HostPhys::new(0xFEB0_0000), size, prefetchable: false, is_64_bit: false };
        let io = BarSlot::Range(Bar::Io { port: 0xC000, size: 32 });
        Bars::new([io, BarSlot::UpperHalf, BarSlot::Unimplemented, BarSlot::Range(memory), io, io])
    }

    #[test]
    fn table_and_pending_bits_are_found() {
        let msix = capability(0x0000_0003, 0x0000_2003).1.unwrap();
        assert_eq!((msix.entries, msix.table.length, msix.pending_bits.length), (5, 80, 8));
        assert_eq!(msix.table.locate(&bars(0x4000)), Ok(HostPhys::new(0xFEB0_0000)));
        assert_eq!(msix.pending_bits.locate(&bars(0x4000)), Ok(HostPhys::new(0xFEB0_2000)));
    }

    #[test]
    fn places_outside_a_memory_range_are_refused() {
        let msix = capability(0xFFFF_FFFB, 0x0000_0000).1.unwrap();
        assert!(msix.table.locate(&bars(0x4000)).is_err());
        assert!(msix.pending_bits.locate(&bars(0x4000)).is_err(), "in I/O space");
        assert!(capability(0x40 | 3, 3).1.unwrap().table.locate(&bars(0x80)).is_err(), "table ends behind the range");
        assert!(capability(0x30 | 3, 3).1.unwrap().table.locate(&bars(0x80)).is_ok());
        assert!(capability(1, 3).1.unwrap().table.locate(&bars(0x4000)).is_err(), "upper half");
    }

    #[test]
    fn reserved_registers_and_truncated_capabilities_are_errors() {
        assert_eq!(capability(6, 3).1, Err(MsixError::ReservedBar(6)));
        assert_eq!(capability(3, 7).1, Err(MsixError::ReservedBar(7)));
        assert_eq!(MsixCapability::read(&Fake::new(), at(0, 3, 0), 0xF8), Err(MsixError::Truncated { offset: 0xF8 }));
        assert_eq!(MsixCapability::read(&Fake::new(), at(0, 3, 0), 0xF0), Err(MsixError::ReservedBar(7)));
    }

    #[test]
    fn message_control_is_written_as_16_bits() {
        let (mut config, msix) = capability(3, 3);
        msix.unwrap().set_control(&mut config, at(0, 3, 0), true, false);
        assert_eq!(
            (config.writes[0].offset, config.writes[0].width, config.writes[0].value),
            (0xA2, crate::Width::Word, 0x8004)
        );
    }
}
