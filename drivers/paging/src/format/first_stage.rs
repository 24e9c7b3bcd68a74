//! VT-d first-stage tables (VT-d specification, section 9.7 "First-Stage Paging Entries").

use crate::{
    Entry, Format, Mapping, Permissions,
    entry::{ADDRESS, leaf_size, misaligned},
};
use addr::{HostPhys, Iova, PageSize};
use core::ops::RangeInclusive;

/// Bit 0: present.
const PRESENT: u64 = 1;
/// Bit 1: write.
const WRITE: u64 = 1 << 1;
/// Bit 2: user. Requests without PASID, and those with a PASID that do not ask for supervisor privilege, are user
/// requests: without this bit at every level they fault.
const USER: u64 = 1 << 2;
/// Bit 5: accessed. Set from the start: a unit whose page walks are not coherent could not set it, and software that
/// is the only writer never loses a race.
const ACCESSED: u64 = 1 << 5;
/// Bit 6 of a leaf: dirty. Set from the start in pages that can be written, as bit 5.
const DIRTY: u64 = 1 << 6;
/// Bit 7: a leaf, at levels 2 and 3 (CAP.FS1GP).
const PAGE: u64 = 1 << 7;
/// Bit 63: execute disable. Reserved unless the PASID entry says otherwise, and never set: units do not fetch.
const EXECUTE_DISABLE: u64 = 1 << 63;

/// VT-d first stage: the I/O virtual addresses of a device in scalable mode, in the processors' own format.
///
/// The unit refuses addresses that are not canonical; only the lower half is mapped here.
#[derive(Clone, Copy, Debug)]
pub struct FirstStage;

impl Format for FirstStage {
    type Input = Iova;
    type Attributes = ();

    const LEVELS: RangeInclusive<u8> = 4..=5;
    const PRESENT: u64 = PRESENT;
    const TABLE: u64 = PRESENT | WRITE | USER | ACCESSED;
    const SET_BY_HARDWARE: u64 = 0;

    fn input_bits(levels: u8) -> u32 {
        // An address whose highest translated bit is set is canonical only with all bits above it set too (3.6).
        12 + 9 * u32::from(levels) - 1
    }

    #[inline]
    fn supports(permissions: Permissions, (): ()) -> bool {
        permissions.read && !permissions.execute
    }

    #[inline]
    fn leaf(size: PageSize, mapping: Mapping<()>) -> u64 {
        mapping.host.as_u64() & ADDRESS
            | PRESENT
            | USER
            | ACCESSED
            | if mapping.permissions.write { WRITE | DIRTY } else { 0 }
            | if size == PageSize::Size4K { 0 } else { PAGE }
    }

    fn decode(entry: u64, level: u8) -> Entry<()> {
        if entry & PRESENT == 0 {
            return Entry::Absent;
        }
        let leaf = level == 1 || entry & PAGE != 0;
        let host = HostPhys::new(entry & ADDRESS);
        match leaf {
            _ if entry & Self::reserved(level, leaf) != 0 || entry & USER == 0 => Entry::Malformed,
            false => Entry::Table(host),
            true => Entry::Leaf(Mapping {
                host,
                permissions: Permissions { read: true, write: entry & WRITE != 0, execute: false },
                attributes: (),
            }),
        }
    }

    fn reserved(level: u8, leaf: bool) -> u64 {
        match (leaf, leaf_size(level)) {
            // In a 4 KiB leaf bit 7 is part of the memory type index, which is never used.
            (true, Some(PageSize::Size4K)) => EXECUTE_DISABLE | PAGE,
            // In a larger one that is bit 12, among those of the address that are zero.
            (true, Some(size)) => EXECUTE_DISABLE | misaligned(size),
            // Bit 7 is reserved where there are no leaves, and tells a table from a leaf where there are.
            _ => EXECUTE_DISABLE | PAGE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Shape;

    #[test]
    fn entries_have_the_bits_of_the_specification() {
        let mapping =
            Mapping { host: HostPhys::new(0x1_4020_0000), permissions: Permissions::READ_WRITE, attributes: () };
        assert_eq!(FirstStage::leaf(PageSize::Size2M, mapping), 0x1_4020_00e7);
        let mapping = Mapping { permissions: Permissions::READ, ..mapping };
        assert_eq!(FirstStage::leaf(PageSize::Size4K, mapping), 0x1_4020_0025);
        assert_eq!(Shape::of::<FirstStage>().table_entry(HostPhys::new(0x5000)), 0x5027);
    }

    #[test]
    fn a_page_that_cannot_be_read_cannot_be_expressed() {
        assert!(!FirstStage::supports(Permissions { read: false, write: true, execute: false }, ()));
        assert_eq!(FirstStage::decode(0x1003, 1), Entry::Malformed, "not for user requests");
    }

    #[test]
    fn only_the_lower_canonical_half_is_mapped() {
        assert_eq!((FirstStage::input_bits(4), FirstStage::input_bits(5)), (47, 56));
    }

    #[test]
    fn constants_are_those_of_the_specification() {
        assert_eq!((FirstStage::PRESENT, FirstStage::TABLE, FirstStage::SET_BY_HARDWARE), (1, 0x27, 0));
        let leaves = [1, 2, 3].map(|level| FirstStage::reserved(level, true));
        assert_eq!(leaves, [0x8000_0000_0000_0080, 0x8000_0000_001f_f000, 0x8000_0000_3fff_f000]);
        for level in 2..=5 {
            assert_eq!(FirstStage::reserved(level, false), 0x8000_0000_0000_0080);
        }
        for level in [4, 5] {
            assert_eq!(FirstStage::reserved(level, true), 0x8000_0000_0000_0080, "there is no such page");
        }
        for (level, size) in [(1, PageSize::Size4K), (2, PageSize::Size2M), (3, PageSize::Size1G)] {
            for bits in 0..8 {
                let permissions = Permissions { read: bits & 1 != 0, write: bits & 2 != 0, execute: bits & 4 != 0 };
                let mapping = Mapping { host: HostPhys::new(0xf_ffff_c000_0000), permissions, attributes: () };
                if FirstStage::supports(permissions, ()) {
                    assert_eq!(FirstStage::decode(FirstStage::leaf(size, mapping), level), Entry::Leaf(mapping));
                }
            }
        }
    }
}
