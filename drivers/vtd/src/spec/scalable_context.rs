//! Root and context entries in scalable mode (sections 9.2 and 9.4).

use addr::{Bdf, HostPhys};

/// Bytes of a root entry: two halves of 64 bits, one for the devices 0 to 15 of a bus and one for 16 to 31.
pub const ROOT_ENTRY_BYTES: u64 = 16;

/// Bytes of a context entry.
pub const CONTEXT_ENTRY_BYTES: u64 = 32;

/// Bit 0 of a root entry's half (LP, UP) and of the first word of a context entry (P): present.
pub const PRESENT: u64 = 1;

/// Bits 63:12 of a root entry's half (LCTP, UCTP) and of a context entry's first word (PASIDDIRPTR): the table below.
pub const TABLE_MASK: u64 = !0xfff;

/// Bytes from the root table's start to the half of a root entry that serves `source`.
pub const fn root_half_offset(source: Bdf) -> u64 {
    source.bus() as u64 * ROOT_ENTRY_BYTES + (source.devfn() >> 7) as u64 * 8
}

/// A present half of a root entry that names `context_table`.
pub const fn root_half(context_table: HostPhys) -> u64 {
    context_table.as_u64() & TABLE_MASK | PRESENT
}

/// Bytes from a context table's start to the entry of `source`: a table serves 128 device functions.
pub const fn context_entry_offset(source: Bdf) -> u64 {
    (source.devfn() & 0x7f) as u64 * CONTEXT_ENTRY_BYTES
}

/// The size of a PASID directory, as PDTS (11:9 of a context entry's first word) says it: 0 to 7.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DirectorySize(u8);

impl DirectorySize {
    /// One page: 512 entries, 32768 PASIDs. Smaller directories exist, and save nothing.
    pub const PAGE: Self = Self(2);

    /// The smallest, from [`Self::PAGE`] on, that has a place for `pasid` (20 bits).
    pub const fn for_pasid(pasid: u32) -> Self {
        let mut size = Self::PAGE;
        while size.0 < 7 && pasid >= size.pasids() {
            size.0 += 1;
        }
        size
    }

    /// How many PASIDs it has places for: 8192 to 1048576.
    pub const fn pasids(self) -> u32 {
        64 << (self.0 + 7)
    }

    /// Its length in bytes.
    pub const fn bytes(self) -> u64 {
        8 << (self.0 + 7)
    }
}

/// A context entry. Its third and fourth words are reserved and 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScalableContextEntry {
    /// Bits 63:0: P (0), FPD (1), DTE (2), PASIDE (3), PRE (4), PDTS (11:9), PASIDDIRPTR (63:12).
    pub low: u64,
    /// Bits 127:64: RID_PASID (83:64), RID_PRIV (84).
    pub high: u64,
}

impl ScalableContextEntry {
    /// DTE (bit 2): translation requests and translated requests are served; only with ECAP.DT.
    pub const DEVICE_TLB_ENABLE: u64 = 1 << 2;

    /// A present entry: requests without PASID are translated as if they had the PASID `rid_pasid`; those with a
    /// PASID only if `pasid_enable`; translation requests and translated requests only if `device_tlb_enable`. Faults
    /// are recorded (FPD = 0), page requests refused (PRE = 0). PASIDE is reserved without ECAP.PASID.
    pub const fn new(
        directory: HostPhys,
        size: DirectorySize,
        rid_pasid: u32,
        pasid_enable: bool,
        device_tlb_enable: bool,
    ) -> Self {
        Self {
            low: directory.as_u64() & TABLE_MASK
                | PRESENT
                | (size.0 as u64) << 9
                | (pasid_enable as u64) << 3
                | (device_tlb_enable as u64) << 2,
            high: (rid_pasid & 0xf_ffff) as u64,
        }
    }

    /// P: whether hardware uses the entry.
    pub const fn is_present(self) -> bool {
        self.low & PRESENT != 0
    }

    /// PASIDDIRPTR: the PASID directory, or 0 in an entry that never had one.
    pub const fn directory(self) -> HostPhys {
        HostPhys::new(self.low & TABLE_MASK)
    }

    /// PDTS: the size of the PASID directory.
    pub const fn directory_size(self) -> DirectorySize {
        DirectorySize((self.low >> 9 & 7) as u8)
    }

    /// RID_PASID: the PASID of requests without PASID.
    pub const fn rid_pasid(self) -> u32 {
        (self.high & 0xf_ffff) as u32
    }

    /// DTE: whether translation requests and translated requests are served.
    pub const fn device_tlb_enabled(self) -> bool {
        self.low & Self::DEVICE_TLB_ENABLE != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_halves_of_a_root_entry_serve_two_halves_of_a_bus() {
        assert_eq!(root_half_offset(Bdf::from_u16(0x0000)), 0);
        assert_eq!(root_half_offset(Bdf::from_u16(0x007f)), 0);
        assert_eq!(root_half_offset(Bdf::from_u16(0x0080)), 8);
        assert_eq!(root_half_offset(Bdf::from_u16(0xffff)), 0xff8);
        assert_eq!(root_half(HostPhys::new(0x1234_5000)), 0x1234_5001);
    }

    #[test]
    fn a_context_table_holds_128_entries_in_one_page() {
        assert_eq!(context_entry_offset(Bdf::from_u16(0x1200)), 0);
        assert_eq!(context_entry_offset(Bdf::from_u16(0x1281)), 0x20);
        assert_eq!(context_entry_offset(Bdf::from_u16(0x12ff)), 0xfe0);
    }

    #[test]
    fn a_context_entry_has_its_fields_where_the_specification_has_them() {
        let entry = ScalableContextEntry::new(HostPhys::new(0x1234_5000), DirectorySize(7), 0xabcde, false, false);
        assert_eq!((entry.low, entry.high), (0x1234_5e01, 0xabcde));
        assert_eq!((entry.directory(), entry.rid_pasid()), (HostPhys::new(0x1234_5000), 0xabcde));
        assert_eq!(entry.directory_size(), DirectorySize(7));
        assert!(entry.is_present() && !entry.device_tlb_enabled());
        let entry = ScalableContextEntry::new(HostPhys::new(0x1000), DirectorySize(0), 0x1f_ffff, true, true);
        assert_eq!((entry.low, entry.high), (0x100d, 0xf_ffff));
        assert!(entry.device_tlb_enabled());
        let absent = ScalableContextEntry { low: 0x1234_5e00, high: 0 };
        assert!(!absent.is_present());
        assert_eq!((absent.directory(), absent.rid_pasid()), (HostPhys::new(0x1234_5000), 0));
    }

    #[test]
    fn a_directory_is_as_large_as_its_last_pasid_needs() {
        assert_eq!((DirectorySize(0).pasids(), DirectorySize(0).bytes()), (8192, 1024));
        assert_eq!((DirectorySize::PAGE.pasids(), DirectorySize::PAGE.bytes()), (32768, 4096));
        assert_eq!((DirectorySize(7).pasids(), DirectorySize(7).bytes()), (1 << 20, 128 << 10));
        for (pasid, size) in [(0, 2), (0x7fff, 2), (0x8000, 3), (0xffff, 3), (0x1_0000, 4), (0xf_ffff, 7)] {
            assert_eq!(DirectorySize::for_pasid(pasid), DirectorySize(size), "{pasid:#x}");
        }
        assert_eq!(DirectorySize::for_pasid(u32::MAX), DirectorySize(7));
    }
}
