//! VT-d second-stage tables (VT-d specification, section 9.8 "Second-Stage Paging Entries").

use crate::{
    Entry, Format, Mapping, Permissions,
    entry::{ADDRESS, leaf_size, misaligned},
};
use addr::{HostPhys, Iova, PageSize};
use core::ops::RangeInclusive;

/// Bit 0: read. An entry is present if bit 0 or bit 1 is set.
const READ: u64 = 1;
/// Bit 1: write.
const WRITE: u64 = 1 << 1;
/// Bit 2: execute in older revisions, for units with ECAP.ERS; reserved for all others, and never set here.
const EXECUTE: u64 = 1 << 2;
/// Bits 9:8: accessed and dirty, which hardware sets if the PASID entry says so (SSADE).
const ACCESSED_DIRTY: u64 = 0b11 << 8;
/// Bit 7: a leaf, at levels 2 (CAP.SSLPS bit 0) and 3 (CAP.SSLPS bit 1).
const PAGE: u64 = 1 << 7;
/// Bit 11 of a leaf: the access snoops the processors' caches even if the device says no-snoop. Reserved in units
/// without ECAP.SC, and in entries that point to tables.
const SNOOP: u64 = 1 << 11;
/// Bit 62 of a leaf: transient mapping, for device TLBs; reserved without ECAP.DT.
const TRANSIENT: u64 = 1 << 62;

/// VT-d second stage: the I/O virtual addresses of a device, in legacy mode and in scalable mode.
///
/// 3, 4 or 5 levels, as CAP.SAGAW says ([`SecondStage::levels`]). What the unit lacks is said with [`Limits`]: address
/// bits beyond CAP.MGAW and the host address width, the snoop bit, pages that are only written. Accessed and dirty bits
/// (8 and 9) are left to hardware.
///
/// [`Limits`]: crate::Limits
#[derive(Clone, Copy, Debug)]
pub struct SecondStage;

impl SecondStage {
    /// The snoop bit of a leaf, which units without ECAP.SC reserve: for [`Limits::without`](crate::Limits::without).
    pub const SNOOP: u64 = SNOOP;

    /// The fewest levels among those that CAP.SAGAW (bits 12:8 of the capability register) offers which translate
    /// addresses of `bits` bits, or `None` if none do. Each level costs a device a memory access where nothing is cached.
    pub const fn levels(sagaw: u8, bits: u8) -> Option<u8> {
        // Bit 1 stands for three levels, bit 2 for four, bit 3 for five; the others are reserved.
        let mut levels = 3;
        while levels <= 5 {
            if sagaw & 1 << (levels - 2) != 0 && bits <= 12 + 9 * levels {
                return Some(levels);
            }
            levels += 1;
        }
        None
    }
}

/// What a second-stage leaf says beside address and permissions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SecondStageAttributes {
    /// Bit 11: accesses snoop the caches, whatever the device says. Only for units with ECAP.SC: the others fault.
    pub snoop: bool,
}

impl Format for SecondStage {
    type Input = Iova;
    type Attributes = SecondStageAttributes;

    const LEVELS: RangeInclusive<u8> = 3..=5;
    const PRESENT: u64 = READ | WRITE;
    const TABLE: u64 = READ | WRITE;
    const SET_BY_HARDWARE: u64 = ACCESSED_DIRTY;

    #[inline]
    fn supports(permissions: Permissions, _: SecondStageAttributes) -> bool {
        (permissions.read || permissions.write) && !permissions.execute
    }

    #[inline]
    fn leaf(size: PageSize, mapping: Mapping<SecondStageAttributes>) -> u64 {
        mapping.host.as_u64() & ADDRESS
            | if mapping.permissions.read { READ } else { 0 }
            | if mapping.permissions.write { WRITE } else { 0 }
            | if mapping.attributes.snoop { SNOOP } else { 0 }
            | if size == PageSize::Size4K { 0 } else { PAGE }
    }

    fn decode(entry: u64, level: u8) -> Entry<SecondStageAttributes> {
        if entry & (READ | WRITE) == 0 {
            return Entry::Absent;
        }
        let leaf = level == 1 || entry & PAGE != 0;
        let host = HostPhys::new(entry & ADDRESS);
        match leaf {
            _ if entry & Self::reserved(level, leaf) != 0 => Entry::Malformed,
            false => Entry::Table(host),
            true => Entry::Leaf(Mapping {
                host,
                permissions: Permissions { read: entry & READ != 0, write: entry & WRITE != 0, execute: false },
                attributes: SecondStageAttributes { snoop: entry & SNOOP != 0 },
            }),
        }
    }

    fn reserved(level: u8, leaf: bool) -> u64 {
        match (leaf, leaf_size(level)) {
            (true, Some(size)) => EXECUTE | TRANSIENT | misaligned(size),
            // Bit 7 is reserved where there are no leaves, and tells a table from a leaf where there are.
            _ => EXECUTE | TRANSIENT | PAGE | SNOOP,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Shape;

    #[test]
    fn entries_have_the_bits_of_the_specification() {
        let mapping = Mapping {
            host: HostPhys::new(0x1_4020_0000),
            permissions: Permissions::READ_WRITE,
            attributes: SecondStageAttributes { snoop: true },
        };
        assert_eq!(SecondStage::leaf(PageSize::Size2M, mapping), 0x1_4020_0883);
        assert_eq!(SecondStage::leaf(PageSize::Size4K, mapping), 0x1_4020_0803);
        let written_only = Permissions { read: false, write: true, execute: false };
        let unsnooped = SecondStageAttributes::default();
        let mapping = Mapping { permissions: written_only, attributes: unsnooped, ..mapping };
        assert_eq!(SecondStage::leaf(PageSize::Size4K, mapping), 0x1_4020_0002);
        assert_eq!(Shape::of::<SecondStage>().table_entry(HostPhys::new(0x5000)), 0x5003);
    }

    #[test]
    fn a_device_cannot_be_given_execute() {
        assert!(!SecondStage::supports(Permissions::READ_EXECUTE, SecondStageAttributes::default()));
        assert_eq!(SecondStage::decode(0x1007, 1), Entry::Malformed);
        assert_eq!(SecondStage::decode(0x1083, 4), Entry::Malformed, "a leaf at level 4");
    }

    #[test]
    fn the_fewest_levels_that_translate_an_address_width_are_taken() {
        // 3 levels are 39 bits, 4 are 48, 5 are 57; bits 0 and 4 of SAGAW are reserved.
        assert_eq!(SecondStage::levels(0b00010, 39), Some(3));
        assert_eq!(SecondStage::levels(0b00010, 40), None);
        assert_eq!(SecondStage::levels(0b00110, 39), Some(3));
        assert_eq!(SecondStage::levels(0b00110, 48), Some(4));
        assert_eq!(SecondStage::levels(0b01100, 30), Some(4));
        assert_eq!(SecondStage::levels(0b01110, 49), Some(5));
        assert_eq!(SecondStage::levels(0b01110, 57), Some(5));
        assert_eq!(SecondStage::levels(0b01110, 58), None);
        assert_eq!(SecondStage::levels(0b10001, 30), None);
        assert_eq!(SecondStage::levels(0b01000, 48), Some(5));
        assert_eq!(SecondStage::levels(0b00100, 57), None);
    }

    #[test]
    fn constants_are_those_of_the_specification() {
        assert_eq!((SecondStage::PRESENT, SecondStage::TABLE, SecondStage::SET_BY_HARDWARE), (0b11, 0b11, 0x300));
        let leaves = [1, 2, 3].map(|level| SecondStage::reserved(level, true));
        assert_eq!(leaves, [0x4000_0000_0000_0004, 0x4000_0000_001f_f004, 0x4000_0000_3fff_f004]);
        for level in 2..=5 {
            assert_eq!(SecondStage::reserved(level, false), 0x4000_0000_0000_0884);
        }
        for level in [4, 5] {
            assert_eq!(SecondStage::reserved(level, true), 0x4000_0000_0000_0884, "there is no such page");
        }
        for (level, size) in [(1, PageSize::Size4K), (2, PageSize::Size2M), (3, PageSize::Size1G)] {
            for bits in 0..8 {
                let permissions = Permissions { read: bits & 1 != 0, write: bits & 2 != 0, execute: bits & 4 != 0 };
                for attributes in [false, true].map(|snoop| SecondStageAttributes { snoop }) {
                    let mapping = Mapping { host: HostPhys::new(0xf_ffff_c000_0000), permissions, attributes };
                    if SecondStage::supports(permissions, attributes) {
                        assert_eq!(SecondStage::decode(SecondStage::leaf(size, mapping), level), Entry::Leaf(mapping));
                    }
                }
            }
        }
    }
}
