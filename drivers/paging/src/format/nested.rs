//! AMD nested page tables (AMD64 APM volume 2, section 15.25; the entries are those of long mode, section 5.3).

use crate::{
    Entry, Format, Mapping, MemoryType, Permissions,
    entry::{ADDRESS, leaf_size, misaligned},
};
use addr::{GuestPhys, HostPhys, PageSize};
use core::ops::RangeInclusive;

/// Bit 0: present.
const PRESENT: u64 = 1;
/// Bit 1: write.
const WRITE: u64 = 1 << 1;
/// Bit 2: user. The nested walk treats every guest access as a user access (15.25.5): without this bit at every level
/// each access is a nested page fault.
const USER: u64 = 1 << 2;
/// Bits 4:3 of a leaf: the index into the host's PAT, which holds after reset 0 write-back, 1 write-through,
/// 2 uncacheable unless overridden, 3 uncacheable. The guest's own PAT is combined with it (15.25.8).
const PAT_INDEX_SHIFT: u32 = 3;
/// Bit 5: accessed. Set from the start, so that the processor never writes to the tables.
const ACCESSED: u64 = 1 << 5;
/// Bit 6 of a leaf: dirty. Set from the start in pages that can be written, as bit 5.
const DIRTY: u64 = 1 << 6;
/// Bit 7: a leaf, at levels 2 and 3 (1 GiB: CPUID Fn8000_0001_EDX bit 26).
const PAGE: u64 = 1 << 7;
/// Bit 63: no execute. Reserved unless the host has EFER.NXE set.
const NO_EXECUTE: u64 = 1 << 63;

/// Nested page tables: the guest-physical addresses of an SVM guest, in the host's long-mode format.
///
/// The host must run with EFER.NXE set (pages without [`Permissions::execute`] use bit 63), and with the PAT as it is
/// after reset.
#[derive(Clone, Copy, Debug)]
pub struct NestedPaging;

impl Format for NestedPaging {
    type Input = GuestPhys;
    type Attributes = MemoryType;

    const LEVELS: RangeInclusive<u8> = 4..=5;
    const PRESENT: u64 = PRESENT;
    const TABLE: u64 = PRESENT | WRITE | USER | ACCESSED;
    const SET_BY_HARDWARE: u64 = 0;

    #[inline]
    fn supports(permissions: Permissions, memory_type: MemoryType) -> bool {
        permissions.read && pat_index(memory_type).is_some()
    }

    #[inline]
    fn leaf(size: PageSize, mapping: Mapping<MemoryType>) -> u64 {
        // Of a type that the PAT does not hold, uncacheable is the harmless stand-in; `supports` refuses it before.
        let pat_index = pat_index(mapping.attributes).unwrap_or(3);
        mapping.host.as_u64() & ADDRESS
            | PRESENT
            | USER
            | ACCESSED
            | pat_index << PAT_INDEX_SHIFT
            | if mapping.permissions.write { WRITE | DIRTY } else { 0 }
            | if mapping.permissions.execute { 0 } else { NO_EXECUTE }
            | if size == PageSize::Size4K { 0 } else { PAGE }
    }

    fn decode(entry: u64, level: u8) -> Entry<MemoryType> {
        if entry & PRESENT == 0 {
            return Entry::Absent;
        }
        let leaf = level == 1 || entry & PAGE != 0;
        let host = HostPhys::new(entry & ADDRESS);
        if entry & Self::reserved(level, leaf) != 0 || entry & USER == 0 {
            return Entry::Malformed;
        }
        if !leaf {
            return Entry::Table(host);
        }
        Entry::Leaf(Mapping {
            host,
            permissions: Permissions { read: true, write: entry & WRITE != 0, execute: entry & NO_EXECUTE == 0 },
            attributes: match entry >> PAT_INDEX_SHIFT & 3 {
                0 => MemoryType::WriteBack,
                1 => MemoryType::WriteThrough,
                _ => MemoryType::Uncacheable,
            },
        })
    }

    fn reserved(level: u8, leaf: bool) -> u64 {
        match (leaf, leaf_size(level)) {
            // In a 4 KiB leaf bit 7 is the upper bit of the PAT index, which is never used.
            (true, Some(PageSize::Size4K)) => PAGE,
            // In a larger one that is bit 12, among those of the address that are zero.
            (true, Some(size)) => misaligned(size),
            // Bit 7 must be zero where there are no leaves, and tells a table from a leaf where there are.
            _ => PAGE,
        }
    }
}

/// The index of `memory_type` in the PAT as it is after reset, or `None` if it is not there.
fn pat_index(memory_type: MemoryType) -> Option<u64> {
    match memory_type {
        MemoryType::WriteBack => Some(0),
        MemoryType::WriteThrough => Some(1),
        MemoryType::Uncacheable => Some(3),
        MemoryType::WriteCombining | MemoryType::WriteProtected => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Shape;

    #[test]
    fn entries_have_the_bits_of_the_apm() {
        let mapping = Mapping {
            host: HostPhys::new(0x4000_0000),
            permissions: Permissions::READ_WRITE_EXECUTE,
            attributes: MemoryType::WriteBack,
        };
        assert_eq!(NestedPaging::leaf(PageSize::Size1G, mapping), 0x4000_00e7);
        let registers = Mapping {
            host: HostPhys::new(0xfeb0_0000),
            permissions: Permissions::READ_WRITE,
            attributes: MemoryType::Uncacheable,
        };
        assert_eq!(NestedPaging::leaf(PageSize::Size4K, registers), 0x8000_0000_feb0_007f);
        assert_eq!(Shape::of::<NestedPaging>().table_entry(HostPhys::new(0x5000)), 0x5027);
    }

    #[test]
    fn what_the_reset_pat_does_not_hold_is_refused() {
        assert!(!NestedPaging::supports(Permissions::READ, MemoryType::WriteCombining));
        assert!(NestedPaging::supports(Permissions::READ, MemoryType::Uncacheable));
        assert_eq!(NestedPaging::decode(0x1003, 1), Entry::Malformed, "not for user accesses");
    }

    #[test]
    fn constants_are_those_of_the_apm() {
        assert_eq!((NestedPaging::PRESENT, NestedPaging::TABLE, NestedPaging::SET_BY_HARDWARE), (1, 0x27, 0));
        let leaves = [1, 2, 3].map(|level| NestedPaging::reserved(level, true));
        assert_eq!(leaves, [0x80, 0x1f_f000, 0x3fff_f000]);
        for level in 2..=5 {
            assert_eq!(NestedPaging::reserved(level, false), 0x80);
        }
        for level in [4, 5] {
            assert_eq!(NestedPaging::reserved(level, true), 0x80, "there is no such page");
        }
        for (level, size) in [(1, PageSize::Size4K), (2, PageSize::Size2M), (3, PageSize::Size1G)] {
            for bits in 0..8 {
                let permissions = Permissions { read: bits & 1 != 0, write: bits & 2 != 0, execute: bits & 4 != 0 };
                for attributes in [MemoryType::Uncacheable, MemoryType::WriteThrough, MemoryType::WriteBack] {
                    let mapping = Mapping { host: HostPhys::new(0xf_ffff_c000_0000), permissions, attributes };
                    if NestedPaging::supports(permissions, attributes) {
                        assert_eq!(
                            NestedPaging::decode(NestedPaging::leaf(size, mapping), level),
                            Entry::Leaf(mapping)
                        );
                    }
                }
            }
        }
    }
}
