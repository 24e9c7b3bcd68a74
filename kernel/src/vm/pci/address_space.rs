//! Where a guest's PCI functions are in its physical addresses and its ports, for whoever describes them to it.
//!
//! | from | to | what |
//! |---|---|---|
//! | 0 | the size of its memory, at most 3 GiB | memory |
//! | [`LOW_WINDOW`] | | ranges of functions |
//! | [`ECAM`] | [`ECAM`] + [`ECAM_BYTES`] | configuration space |
//! | `0xfec0_0000` | 4 GiB | interrupt controllers, interrupt messages, a PC's firmware |
//! | [`HIGH_WINDOW`] | | ranges of functions that are too large for the low window |
//!
//! None of it depends on where the machine has its own functions: a guest's addresses are translated. The windows are
//! where ranges are placed at the start; the guest may move them to any place that is free.

use addr::GuestPhys;
use core::fmt;
use core::ops::Range;

/// Configuration space of bus 0 in memory: what the guest's MCFG names, for segment 0 and buses 0 to 0.
/// PCI Express Base section 7.2.2.
pub const ECAM: GuestPhys = GuestPhys::new(0xe000_0000);
/// Its size in bytes: 4 KiB for each of 256 functions.
pub const ECAM_BYTES: u64 = 1 << 20;
/// Where ranges below 4 GiB are placed, in guest-physical addresses.
pub const LOW_WINDOW: Range<u64> = 0xc000_0000..0xe000_0000;
/// Where other ranges are placed, in guest-physical addresses, if the guest's processor has [`HIGH_WINDOW_BITS`].
pub const HIGH_WINDOW: Range<u64> = 0x40_0000_0000..0x80_0000_0000;
/// The bits of a guest-physical address that [`HIGH_WINDOW`] needs.
pub const HIGH_WINDOW_BITS: u8 = 39;
/// Where ranges in I/O space are placed.
pub const PORT_WINDOW: Range<u64> = 0xc000..0x1_0000;

/// I/O APICs, local APICs, interrupt messages, and a PC's firmware.
const PLATFORM: Range<u64> = 0xfec0_0000..0x1_0000_0000;
/// Below are the ports of the platform's own devices.
const FIRST_PORT: u64 = 0x1000;
/// The bits that nested tables translate.
const NESTED_BITS: u8 = 47;

/// What of a guest's physical addresses is not free for its functions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GuestAddressSpace {
    /// Where its memory ends.
    pub memory_end: u64,
    /// The bits of an address that its processor has.
    pub address_bits: u8,
}

/// Why a range cannot be where the guest wants it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Obstacle {
    /// The guest's memory is there.
    Memory,
    /// Configuration space is there.
    ConfigurationSpace,
    /// Interrupt controllers are there, or the ports of the platform's devices.
    Platform,
    /// The guest's processor or its nested tables do not reach that far.
    BeyondAddresses,
    /// Another range is there.
    Range,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "the guest's memory is there",
            Self::ConfigurationSpace => "configuration space is there",
            Self::Platform => "the platform's own devices are there",
            Self::BeyondAddresses => "that is beyond the guest's addresses",
            Self::Range => "another range is there",
        })
    }
}

impl GuestAddressSpace {
    /// Whether a range in memory space may be at `start`, as far as the platform is concerned.
    ///
    /// # Errors
    /// [`Obstacle`].
    pub fn check_memory(&self, start: u64, bytes: u64) -> Result<(), Obstacle> {
        let bits = self.address_bits.min(NESTED_BITS);
        let end = start.checked_add(bytes).filter(|end| *end <= 1 << bits).ok_or(Obstacle::BeyondAddresses)?;
        let range = start..end;
        if start < self.memory_end {
            Err(Obstacle::Memory)
        } else if overlap(&range, &(ECAM.as_u64()..ECAM.as_u64() + ECAM_BYTES)) {
            Err(Obstacle::ConfigurationSpace)
        } else if overlap(&range, &PLATFORM) {
            Err(Obstacle::Platform)
        } else {
            Ok(())
        }
    }

    /// Whether a range in I/O space may be at `start`, as far as the platform is concerned.
    ///
    /// # Errors
    /// [`Obstacle`].
    pub fn check_ports(start: u64, ports: u64) -> Result<(), Obstacle> {
        if start.saturating_add(ports) > PORT_WINDOW.end {
            Err(Obstacle::BeyondAddresses)
        } else if start < FIRST_PORT {
            Err(Obstacle::Platform)
        } else {
            Ok(())
        }
    }
}

/// Whether two ranges have something in common.
pub(super) fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// The offset in configuration space of an access of `bytes` bytes, if it is all in [`ECAM`].
pub(super) fn ecam_offset(address: GuestPhys, bytes: usize) -> Option<u32> {
    let offset = address.as_u64().checked_sub(ECAM.as_u64())?;
    let inside = offset.checked_add(bytes as u64)? <= ECAM_BYTES;
    if inside { u32::try_from(offset).ok() } else { None }
}

/// Whether an address is in a window, where reads find all ones if no function answers.
pub(super) fn in_window(address: GuestPhys) -> bool {
    LOW_WINDOW.contains(&address.as_u64()) || HIGH_WINDOW.contains(&address.as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: GuestAddressSpace = GuestAddressSpace { memory_end: 0x1000_0000, address_bits: 40 };

    #[test]
    fn the_windows_are_free_and_the_platform_is_not() {
        for window in [LOW_WINDOW, HIGH_WINDOW] {
            assert_eq!(SPACE.check_memory(window.start, window.end - window.start), Ok(()));
        }
        for (start, bytes, obstacle) in [
            (0, 0x1000, Obstacle::Memory),
            (0x0FFF_F000, 0x2000, Obstacle::Memory),
            (0xE000_0000, 0x1000, Obstacle::ConfigurationSpace),
            (0xDFFF_F000, 0x2000, Obstacle::ConfigurationSpace),
            (0xE00F_F000, 0x1000, Obstacle::ConfigurationSpace),
            (0xD000_0000, 0x4000_0000, Obstacle::ConfigurationSpace),
            (0xFEE0_0000, 0x1000, Obstacle::Platform),
            (0xFEBF_F000, 0x2000, Obstacle::Platform),
            (0xFFFF_F000, 0x1000, Obstacle::Platform),
            (0xFF_FFFF_F000, 0x2000, Obstacle::BeyondAddresses),
            (u64::MAX - 0xFFF, 0x1000, Obstacle::BeyondAddresses),
        ] {
            assert_eq!(SPACE.check_memory(start, bytes), Err(obstacle), "{start:#x}");
        }
        assert_eq!(SPACE.check_memory(0x1000_0000, 0x1000), Ok(()));
        assert_eq!(SPACE.check_memory(0xE010_0000, 0x1000), Ok(()));
        assert_eq!(SPACE.check_memory(0x1_0000_0000, 0x1000), Ok(()));
        let wide = GuestAddressSpace { address_bits: 52, ..SPACE };
        assert_eq!(wide.check_memory(1 << 47, 0x1000), Err(Obstacle::BeyondAddresses));
    }

    #[test]
    fn ports_of_the_platform_are_not_free() {
        assert_eq!(GuestAddressSpace::check_ports(0xC000, 0x4000), Ok(()));
        assert_eq!(GuestAddressSpace::check_ports(0x0CF8, 8), Err(Obstacle::Platform));
        assert_eq!(GuestAddressSpace::check_ports(0xFFF0, 0x20), Err(Obstacle::BeyondAddresses));
    }

    #[test]
    fn configuration_space_is_one_bus() {
        assert_eq!(ecam_offset(GuestPhys::new(0xE000_0000), 4), Some(0));
        assert_eq!(ecam_offset(GuestPhys::new(0xE00F_FFFC), 4), Some(0xF_FFFC));
        assert_eq!(ecam_offset(GuestPhys::new(0xE00F_FFFC), 8), None);
        assert_eq!(ecam_offset(GuestPhys::new(0xDFFF_FFFF), 2), None);
    }
}
