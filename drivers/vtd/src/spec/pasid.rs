//! PASID directory and table entries (sections 9.5 and 9.6).

use super::capability::Levels;
use addr::{DomainId, HostPhys};
use core::fmt;

/// Bytes of a PASID directory entry.
pub const DIRECTORY_ENTRY_BYTES: u64 = 8;

/// Words of 64 bits in a PASID table entry.
pub const TABLE_ENTRY_WORDS: usize = 8;

/// Bytes of a PASID table entry: a table of one page holds 64.
pub const TABLE_ENTRY_BYTES: u64 = 8 * TABLE_ENTRY_WORDS as u64;

/// Entries of a PASID table.
pub const TABLE_ENTRIES: u64 = 64;

/// Bit 0 of a directory entry and of the first word of a table entry (P): present.
pub const PRESENT: u64 = 1;

/// Bits 63:12 of a directory entry (SMPTBLPTR), and of the first and third word of a table entry (SSPTPTR, FSPTPTR).
pub const TABLE_MASK: u64 = !0xfff;

/// A process address space id: 20 bits that a request carries beside its requester id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pasid(u32);

impl Pasid {
    /// The PASID that requests without PASID have in a unit that does not let software choose (ECAP.RPS = 0).
    pub const ZERO: Self = Self(0);

    /// From a number below 2^20.
    pub const fn new(value: u32) -> Option<Self> {
        if value < 1 << 20 { Some(Self(value)) } else { None }
    }

    /// The number.
    pub const fn as_u32(self) -> u32 {
        self.0
    }

    /// Bytes from the directory's start to the entry for it (PASID 19:6).
    pub const fn directory_offset(self) -> u64 {
        (self.0 >> 6) as u64 * DIRECTORY_ENTRY_BYTES
    }

    /// Bytes from the PASID table's start to the entry for it (PASID 5:0).
    pub const fn table_offset(self) -> u64 {
        (self.0 & 0x3f) as u64 * TABLE_ENTRY_BYTES
    }
}

impl fmt::Display for Pasid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A present directory entry that names `table`: P (0), FPD (1) = 0, SMPTBLPTR (63:12).
pub const fn directory_entry(table: HostPhys) -> u64 {
    table.as_u64() & TABLE_MASK | PRESENT
}

/// PGTT = 001b: first stage only.
pub const FIRST_STAGE: u8 = 1;
/// PGTT = 010b: second stage only.
pub const SECOND_STAGE: u8 = 2;
/// PGTT = 011b: first stage, and the second stage for its tables and its result.
pub const NESTED: u8 = 3;
/// PGTT = 100b: an address is itself.
pub const PASS_THROUGH: u8 = 4;

/// What every present entry says beside its translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Common {
    /// DID (79:64): the domain id under which hardware caches.
    pub domain: DomainId,
    /// PWSNP (87): page walks snoop the processors' caches; reserved without ECAP.SMPWC.
    pub page_walk_snoop: bool,
    /// PGSNP (88): accesses to the pages snoop the processors' caches, whatever the request says; reserved without
    /// ECAP.SC.
    pub page_snoop: bool,
}

impl Common {
    const fn word(self) -> u64 {
        self.domain.0 as u64 | (self.page_walk_snoop as u64) << 23 | (self.page_snoop as u64) << 24
    }
}

/// A PASID table entry.
///
/// Word 0: P (0), FPD (1), AW (4:2), PGTT (8:6), SSADE (9), SSPTPTR (63:12). Word 1: DID (79:64), PWSNP (87), PGSNP
/// (88). Word 2: SRE (128), FSPM (131:130), WPE (132), EAFE (135), FSPTPTR (191:140). The rest is reserved and 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PasidEntry {
    /// The 512 bits, the lowest word first.
    pub words: [u64; TABLE_ENTRY_WORDS],
}

impl PasidEntry {
    /// Nothing: not present.
    pub const ABSENT: Self = Self { words: [0; TABLE_ENTRY_WORDS] };

    const fn new(word0: u64, pgtt: u8, common: Common, word2: u64) -> Self {
        Self { words: [word0 | PRESENT | (pgtt as u64) << 6, common.word(), word2, 0, 0, 0, 0, 0] }
    }

    const fn second_stage_fields(table: HostPhys, levels: Levels) -> u64 {
        table.as_u64() & TABLE_MASK | (levels.address_width_field() as u64) << 2
    }

    /// FSPM is 00b for four levels and 01b for five. SRE = 0: supervisor requests are refused. EAFE = 0.
    const fn first_stage_fields(table: HostPhys, levels: Levels) -> u64 {
        let mode = match levels {
            Levels::Five => 1 << 2,
            _ => 0,
        };
        table.as_u64() & TABLE_MASK | mode
    }

    /// Second stage only, by the table at `table`.
    pub const fn second_stage(table: HostPhys, levels: Levels, common: Common) -> Self {
        Self::new(Self::second_stage_fields(table, levels), SECOND_STAGE, common, 0)
    }

    /// First stage only, by the table at `table` of four or five levels. AW is the second stage's and ignored by hardware;
    /// some emulated units bound the first stage's addresses by it. `width` is what to write there: the unit's own in the
    /// second stage, `None` where it has no second stage at all (CAP.SAGAW = 0).
    pub const fn first_stage(table: HostPhys, levels: Levels, width: Option<Levels>, common: Common) -> Self {
        Self::new(Self::address_width(width), FIRST_STAGE, common, Self::first_stage_fields(table, levels))
    }

    const fn address_width(levels: Option<Levels>) -> u64 {
        match levels {
            Some(levels) => (levels.address_width_field() as u64) << 2,
            None => 0,
        }
    }

    /// First stage by the table at `first`, an address of the second stage, and second stage by the table at `second`.
    pub const fn nested(
        first: u64,
        first_levels: Levels,
        second: HostPhys,
        second_levels: Levels,
        common: Common,
    ) -> Self {
        let first = Self::first_stage_fields(HostPhys::new(first), first_levels);
        Self::new(Self::second_stage_fields(second, second_levels), NESTED, common, first)
    }

    /// Pass-through. `levels` is ignored by hardware that follows the specification and looked at by some emulated
    /// units; `None` where the field is reserved (ECAP.SSTS = 0).
    pub const fn pass_through(levels: Option<Levels>, common: Common) -> Self {
        Self::new(Self::address_width(levels), PASS_THROUGH, common, 0)
    }

    /// P: whether hardware uses the entry.
    pub const fn is_present(self) -> bool {
        self.words[0] & PRESENT != 0
    }

    /// PGTT: the translation type, 0 to 7.
    pub const fn translation_type(self) -> u8 {
        (self.words[0] >> 6 & 7) as u8
    }

    /// DID: the domain id under which hardware caches what the entry leads to.
    pub const fn domain(self) -> DomainId {
        DomainId(self.words[1] as u16)
    }

    /// SSPTPTR: the root of the second-stage table.
    pub const fn second_stage_table(self) -> HostPhys {
        HostPhys::new(self.words[0] & TABLE_MASK)
    }

    /// AW, as a number of levels, if it is one.
    pub const fn second_stage_levels(self) -> Option<Levels> {
        Levels::from_count((self.words[0] >> 2 & 7) as u8 + 2)
    }

    /// FSPTPTR: the root of the first-stage table.
    pub const fn first_stage_table(self) -> u64 {
        self.words[2] & TABLE_MASK
    }

    /// FSPM, as a number of levels, if it is one.
    pub const fn first_stage_levels(self) -> Option<Levels> {
        match self.words[2] >> 2 & 3 {
            0 => Some(Levels::Four),
            1 => Some(Levels::Five),
            _ => None,
        }
    }
}

const _: () = assert!(TABLE_ENTRY_BYTES * TABLE_ENTRIES == addr::PAGE_SIZE);

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    const PLAIN: Common = Common { domain: DomainId(0xabcd), page_walk_snoop: false, page_snoop: false };
    const SNOOPED: Common = Common { domain: DomainId(1), page_walk_snoop: true, page_snoop: true };
    const TABLE: HostPhys = HostPhys::new(0x1234_5000);

    #[test]
    fn a_pasid_has_20_bits_and_names_one_entry() {
        assert_eq!(Pasid::new(1 << 20), None);
        let pasid = Pasid::new(0xf_ffff).unwrap();
        assert_eq!((pasid.as_u32(), pasid.to_string().as_str()), (0xf_ffff, "0xfffff"));
        assert_eq!((pasid.directory_offset(), pasid.table_offset()), (0x1_fff8, 0xfc0));
        let pasid = Pasid::new(0x41).unwrap();
        assert_eq!((pasid.directory_offset(), pasid.table_offset()), (8, 0x40));
        assert_eq!(directory_entry(TABLE), 0x1234_5001);
    }

    #[test]
    fn second_stage_entries_have_their_fields_where_the_specification_has_them() {
        let entry = PasidEntry::second_stage(TABLE, Levels::Four, PLAIN);
        assert_eq!(entry.words, [0x1234_5089, 0xabcd, 0, 0, 0, 0, 0, 0]);
        assert_eq!((entry.domain(), entry.second_stage_table()), (DomainId(0xabcd), TABLE));
        assert_eq!((entry.translation_type(), entry.second_stage_levels()), (2, Some(Levels::Four)));
        assert!(entry.is_present() && !PasidEntry::ABSENT.is_present());
        let entry = PasidEntry::second_stage(TABLE, Levels::Three, SNOOPED);
        assert_eq!(entry.words, [0x1234_5085, 0x180_0001, 0, 0, 0, 0, 0, 0]);
        assert_eq!(PasidEntry::second_stage(TABLE, Levels::Five, PLAIN).words[0], 0x1234_508d);
    }

    #[test]
    fn first_stage_entries_leave_the_second_stage_fields_0() {
        let entry = PasidEntry::first_stage(TABLE, Levels::Four, None, PLAIN);
        assert_eq!(entry.words, [0x41, 0xabcd, 0x1234_5000, 0, 0, 0, 0, 0]);
        assert_eq!((entry.first_stage_table(), entry.first_stage_levels()), (0x1234_5000, Some(Levels::Four)));
        let entry = PasidEntry::first_stage(TABLE, Levels::Five, None, SNOOPED);
        assert_eq!(entry.words, [0x41, 0x180_0001, 0x1234_5004, 0, 0, 0, 0, 0]);
        assert_eq!(entry.first_stage_levels(), Some(Levels::Five));
        assert_eq!(PasidEntry::first_stage(TABLE, Levels::Four, Some(Levels::Four), PLAIN).words[0], 0x49);
        assert_eq!(PasidEntry { words: [1, 0, 8, 0, 0, 0, 0, 0] }.first_stage_levels(), None);
    }

    #[test]
    fn a_nested_entry_has_both() {
        let entry = PasidEntry::nested(0xffff_f000, Levels::Five, TABLE, Levels::Four, PLAIN);
        assert_eq!(entry.words, [0x1234_50c9, 0xabcd, 0xffff_f004, 0, 0, 0, 0, 0]);
        assert_eq!((entry.second_stage_table(), entry.first_stage_table()), (TABLE, 0xffff_f000));
    }

    #[test]
    fn a_pass_through_entry_has_no_table() {
        let entry = PasidEntry::pass_through(None, PLAIN);
        assert_eq!(entry.words, [0x101, 0xabcd, 0, 0, 0, 0, 0, 0]);
        assert_eq!(PasidEntry::pass_through(Some(Levels::Four), PLAIN).words[0], 0x109);
        assert_eq!(entry.translation_type(), PASS_THROUGH);
    }
}
