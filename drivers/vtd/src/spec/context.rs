//! Root and context entries in legacy mode (sections 9.1 and 9.3). Each has 128 bits, handled as two halves.

use super::capability::Levels;
use addr::{DomainId, HostPhys};

/// Bytes of a root or context entry.
pub const ENTRY_BYTES: u64 = 16;

/// Bit 0 of the low half of either entry: present.
pub const PRESENT: u64 = 1;

/// Bits 63:12 of the low half of either entry: the table below.
pub const TABLE_MASK: u64 = !0xfff;

/// The low half of a present root entry that names `context_table`; its high half is 0.
pub const fn root_entry_low(context_table: HostPhys) -> u64 {
    context_table.as_u64() & TABLE_MASK | PRESENT
}

/// Bits 3:2 of the low half of a context entry: the translation type.
const TRANSLATION_TYPE: u64 = 3 << 2;
const TRANSLATION_TYPE_DEVICE_TLB: u64 = 1 << 2;
const TRANSLATION_TYPE_PASS_THROUGH: u64 = 2 << 2;

/// A context entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContextEntry {
    /// Bits 63:0: P (0), FPD (1), TT (3:2), SLPTPTR (63:12).
    pub low: u64,
    /// Bits 127:64: AW (66:64), DID (87:72).
    pub high: u64,
}

impl ContextEntry {
    /// A present entry: requests without PASID are translated by the second-stage table at `root`; translated
    /// requests and translation requests are blocked (TT = 00b), faults are recorded (FPD = 0).
    pub const fn new(root: HostPhys, levels: Levels, domain: DomainId) -> Self {
        Self {
            low: root.as_u64() & TABLE_MASK | PRESENT,
            high: levels.address_width_field() as u64 | (domain.0 as u64) << 8,
        }
    }

    /// The same with TT = 01b: translation requests of the device are answered, and its translated requests pass
    /// (sections 9.3 and 4.2).
    pub const fn with_device_tlb(self) -> Self {
        Self { low: self.low | TRANSLATION_TYPE_DEVICE_TLB, ..self }
    }

    /// TT = 01b: the device may have a device-TLB.
    pub const fn has_device_tlb(self) -> bool {
        self.low & TRANSLATION_TYPE == TRANSLATION_TYPE_DEVICE_TLB
    }

    /// A present entry: an address is itself (TT = 10b; only with ECAP.PT). `levels` must be the most that the unit has.
    pub const fn pass_through(levels: Levels, domain: DomainId) -> Self {
        Self {
            low: TRANSLATION_TYPE_PASS_THROUGH | PRESENT,
            high: levels.address_width_field() as u64 | (domain.0 as u64) << 8,
        }
    }

    /// TT = 10b: whether an address is itself, and there is no table.
    pub const fn is_pass_through(self) -> bool {
        self.low & TRANSLATION_TYPE == TRANSLATION_TYPE_PASS_THROUGH
    }

    /// AW, as a number of levels, if it is one.
    pub const fn levels(self) -> Option<Levels> {
        Levels::from_count((self.high & 7) as u8 + 2)
    }

    /// P: whether hardware uses the entry.
    pub const fn is_present(self) -> bool {
        self.low & PRESENT != 0
    }

    /// DID: the domain id under which translations by this entry are cached.
    pub const fn domain(self) -> DomainId {
        DomainId((self.high >> 8) as u16)
    }

    /// SLPTPTR: the root of the second-stage table.
    pub const fn table(self) -> HostPhys {
        HostPhys::new(self.low & TABLE_MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_entry_has_its_fields_where_the_specification_has_them() {
        let entry = ContextEntry::new(HostPhys::new(0x1234_5000), Levels::Four, DomainId(0xabcd));
        assert_eq!(entry.low, 0x1234_5001);
        assert_eq!(entry.high, 0xab_cd02);
        assert_eq!((entry.domain(), entry.table()), (DomainId(0xabcd), HostPhys::new(0x1234_5000)));
        assert_eq!(ContextEntry::new(HostPhys::new(0), Levels::Three, DomainId(1)).high & 7, 1);
        assert_eq!(ContextEntry::new(HostPhys::new(0), Levels::Five, DomainId(1)).high & 7, 3);
    }

    #[test]
    fn device_tlbs_are_a_translation_type() {
        let entry = ContextEntry::new(HostPhys::new(0x1000), Levels::Four, DomainId(1));
        assert_eq!(entry.with_device_tlb(), ContextEntry { low: 0x1005, ..entry });
        assert!(entry.with_device_tlb().has_device_tlb() && !entry.has_device_tlb());
        assert_eq!(entry.with_device_tlb().with_device_tlb(), entry.with_device_tlb());
        assert!(!ContextEntry { low: entry.low | 3 << 2, ..entry }.has_device_tlb());
    }

    #[test]
    fn a_pass_through_entry_says_so_and_has_a_width_and_no_table() {
        let entry = ContextEntry::pass_through(Levels::Five, DomainId(0xabcd));
        assert_eq!((entry.low, entry.high), (0x9, 0xab_cd03));
        assert!(entry.is_pass_through() && entry.is_present());
        assert_eq!((entry.levels(), entry.table()), (Some(Levels::Five), HostPhys::new(0)));
        let other = ContextEntry::new(HostPhys::new(0x1000), Levels::Four, DomainId(1));
        assert!(!other.is_pass_through());
        assert_eq!(ContextEntry { low: 0xd, high: 0 }.levels(), None);
        assert!(!ContextEntry { low: 0xd, high: 0 }.is_pass_through());
    }

    #[test]
    fn faults_of_an_assigned_device_are_recorded() {
        let entry = ContextEntry::new(HostPhys::new(0x1000), Levels::Four, DomainId(1));
        assert_eq!(entry.low >> 1 & 0x7ff, 0, "FPD and TT are 0");
    }
}
