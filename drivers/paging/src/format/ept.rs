//! Extended page tables (SDM volume 3, "The Extended Page Table Mechanism (EPT)", tables of the formats of EPT entries).

use crate::{
    Entry, Format, Mapping, MemoryType, Permissions,
    entry::{ADDRESS, leaf_size, misaligned},
};
use addr::{GuestPhys, HostPhys, PageSize};
use core::ops::RangeInclusive;

/// Bit 0: read access.
const READ: u64 = 1;
/// Bit 1: write access. Set without bit 0 it is an EPT misconfiguration.
const WRITE: u64 = 1 << 1;
/// Bit 2: execute access; for supervisor mode only if mode-based execute control is on, which this format leaves off.
const EXECUTE: u64 = 1 << 2;
/// Bits 2:0: an entry is present if any of them is set.
const PRESENT: u64 = READ | WRITE | EXECUTE;
/// Bits 5:3 of a leaf: the memory type. 2, 3 and 7 are EPT misconfigurations.
const MEMORY_TYPE_SHIFT: u32 = 3;
/// Bit 6 of a leaf: the guest's PAT is ignored, bits 5:3 alone decide.
const IGNORE_PAT: u64 = 1 << 6;
/// Bits 9:8: accessed and dirty, which the processor sets if bit 6 of the EPT pointer is.
const ACCESSED_DIRTY: u64 = 0b11 << 8;
/// Bit 7: a leaf, at levels 2 and 3.
const PAGE: u64 = 1 << 7;

/// Extended page tables: the guest-physical addresses of a VMX guest.
///
/// Execute-only pages are optional (IA32_VMX_EPT_VPID_CAP bit 0) and refused here, and so is everything else that
/// cannot be read.
#[derive(Clone, Copy, Debug)]
pub struct Ept;

/// What an EPT leaf says beside address and permissions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EptAttributes {
    /// Bits 5:3: how the page is cached.
    pub memory_type: MemoryType,
    /// Bit 6: the guest's own memory types (its PAT) do not count.
    pub ignore_pat: bool,
}

impl From<MemoryType> for EptAttributes {
    /// Combined with the guest's PAT.
    fn from(memory_type: MemoryType) -> Self {
        Self { memory_type, ignore_pat: false }
    }
}

impl Format for Ept {
    type Input = GuestPhys;
    type Attributes = EptAttributes;

    const LEVELS: RangeInclusive<u8> = 4..=5;
    const PRESENT: u64 = PRESENT;
    const TABLE: u64 = READ | WRITE | EXECUTE;
    const SET_BY_HARDWARE: u64 = ACCESSED_DIRTY;

    #[inline]
    fn supports(permissions: Permissions, _: EptAttributes) -> bool {
        permissions.read
    }

    #[inline]
    fn leaf(size: PageSize, mapping: Mapping<EptAttributes>) -> u64 {
        let Mapping { host, permissions, attributes } = mapping;
        host.as_u64() & ADDRESS
            | if permissions.read { READ } else { 0 }
            | if permissions.write { WRITE } else { 0 }
            | if permissions.execute { EXECUTE } else { 0 }
            | (attributes.memory_type as u64) << MEMORY_TYPE_SHIFT
            | if attributes.ignore_pat { IGNORE_PAT } else { 0 }
            | if size == PageSize::Size4K { 0 } else { PAGE }
    }

    fn decode(entry: u64, level: u8) -> Entry<EptAttributes> {
        if entry & PRESENT == 0 {
            return Entry::Absent;
        }
        if level > 1 && entry & PAGE == 0 {
            return if entry & Self::reserved(level, false) == 0 {
                Entry::Table(HostPhys::new(entry & ADDRESS))
            } else {
                Entry::Malformed
            };
        }
        let memory_type = MemoryType::from_bits((entry >> MEMORY_TYPE_SHIFT) as u8 & 7);
        match memory_type {
            Some(memory_type) if entry & Self::reserved(level, true) == 0 => Entry::Leaf(Mapping {
                host: HostPhys::new(entry & ADDRESS),
                permissions: Permissions {
                    read: entry & READ != 0,
                    write: entry & WRITE != 0,
                    execute: entry & EXECUTE != 0,
                },
                attributes: EptAttributes { memory_type, ignore_pat: entry & IGNORE_PAT != 0 },
            }),
            _ => Entry::Malformed,
        }
    }

    fn reserved(level: u8, leaf: bool) -> u64 {
        match (leaf, leaf_size(level)) {
            (true, Some(size)) => misaligned(size),
            // Bit 7 is reserved where there are no leaves, and tells a table from a leaf where there are.
            _ => 0b1111 << 3 | PAGE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Shape;

    #[test]
    fn entries_have_the_bits_of_the_sdm() {
        let mapping = Mapping {
            host: HostPhys::new(0x8_4000_0000),
            permissions: Permissions::READ_WRITE_EXECUTE,
            attributes: EptAttributes { memory_type: MemoryType::WriteBack, ignore_pat: true },
        };
        assert_eq!(Ept::leaf(PageSize::Size1G, mapping), 0x8_4000_00f7);
        assert_eq!(Ept::leaf(PageSize::Size4K, mapping), 0x8_4000_0077);
        let registers = Mapping {
            host: HostPhys::new(0xfeb0_0000),
            permissions: Permissions::READ_WRITE,
            attributes: MemoryType::Uncacheable.into(),
        };
        assert_eq!(Ept::leaf(PageSize::Size4K, registers), 0xfeb0_0003);
        assert_eq!(Shape::of::<Ept>().table_entry(HostPhys::new(0x5000)), 0x5007);
    }

    #[test]
    fn a_misconfigured_entry_is_no_mapping() {
        assert_eq!(Ept::decode(0x1017, 1), Entry::Malformed, "memory type 2");
        assert_eq!(Ept::decode(0x10_00b7, 2), Entry::Malformed, "a 2 MiB page at 1 MiB");
        assert_eq!(Ept::decode(0x10b7, 4), Entry::Malformed, "a leaf at level 4");
        assert!(!Ept::supports(Permissions { read: false, write: true, execute: false }, MemoryType::WriteBack.into()));
    }

    #[test]
    fn a_page_that_somebody_else_made_reads_as_what_it_is() {
        let execute_only = Permissions { read: false, write: false, execute: true };
        let attributes = MemoryType::WriteBack.into();
        let mapping = Mapping { host: HostPhys::new(0x1000), permissions: execute_only, attributes };
        assert_eq!(Ept::decode(0x1034, 1), Entry::Leaf(mapping));
    }

    #[test]
    fn constants_are_those_of_the_sdm() {
        assert_eq!((Ept::PRESENT, Ept::TABLE, Ept::SET_BY_HARDWARE), (7, 7, 0x300));
        let leaves = [1, 2, 3].map(|level| Ept::reserved(level, true));
        assert_eq!(leaves, [0, 0x1f_f000, 0x3fff_f000]);
        for level in 2..=5 {
            assert_eq!(Ept::reserved(level, false), 0xf8);
        }
        for level in [4, 5] {
            assert_eq!(Ept::reserved(level, true), 0xf8, "there is no such page");
        }
        for (level, size) in [(1, PageSize::Size4K), (2, PageSize::Size2M), (3, PageSize::Size1G)] {
            for bits in 0..8 {
                let permissions = Permissions { read: bits & 1 != 0, write: bits & 2 != 0, execute: bits & 4 != 0 };
                let types = [0, 1, 4, 5, 6].map(|bits| MemoryType::from_bits(bits).unwrap());
                for attributes in types
                    .into_iter()
                    .flat_map(|memory_type| [false, true].map(|ignore_pat| EptAttributes { memory_type, ignore_pat }))
                {
                    let mapping = Mapping { host: HostPhys::new(0xf_ffff_c000_0000), permissions, attributes };
                    if Ept::supports(permissions, attributes) {
                        assert_eq!(Ept::decode(Ept::leaf(size, mapping), level), Entry::Leaf(mapping));
                    }
                }
            }
        }
    }
}
