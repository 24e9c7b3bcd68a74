//! The capability and extended capability registers (sections 11.4.2 and 11.4.3).

use addr::PageSize;
use core::fmt;

/// What a unit can do: CAP_REG and ECAP_REG as read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// CAP_REG.
    pub cap: u64,
    /// ECAP_REG.
    pub ecap: u64,
}

/// Number of levels of a second-stage table, and with it the width of the addresses that it translates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Levels {
    /// Three levels: 39-bit addresses.
    Three,
    /// Four levels: 48-bit addresses.
    Four,
    /// Five levels: 57-bit addresses.
    Five,
}

impl Levels {
    /// The number of levels: 3, 4 or 5.
    pub const fn count(self) -> u8 {
        match self {
            Levels::Three => 3,
            Levels::Four => 4,
            Levels::Five => 5,
        }
    }

    /// The width in bits of the addresses that a table of so many levels translates: 39, 48 or 57.
    pub const fn width(self) -> u32 {
        12 + 9 * self.count() as u32
    }

    /// The levels for a count of 3, 4 or 5.
    pub const fn from_count(count: u8) -> Option<Self> {
        match count {
            3 => Some(Levels::Three),
            4 => Some(Levels::Four),
            5 => Some(Levels::Five),
            _ => None,
        }
    }

    /// The value of a context entry's AW field, which is also the bit of CAP.SAGAW: 1, 2 or 3.
    pub const fn address_width_field(self) -> u8 {
        self.count() - 2
    }
}

impl Capabilities {
    const fn cap_bit(self, bit: u32) -> bool {
        self.cap >> bit & 1 != 0
    }

    const fn ecap_bit(self, bit: u32) -> bool {
        self.ecap >> bit & 1 != 0
    }

    /// CAP.ND (2:0): number of domain ids, 16 to 65536.
    pub const fn domains(self) -> u32 {
        let nd = self.cap & 7;
        // 7 is reserved: believe in no more than a domain id can name.
        if nd >= 6 { 1 << 16 } else { 1 << (4 + 2 * nd) }
    }

    /// CAP.AFL (3): advanced fault logging.
    pub const fn advanced_fault_logging(self) -> bool {
        self.cap_bit(3)
    }

    /// CAP.RWBF (4): write buffers must be flushed before hardware sees what software wrote.
    pub const fn required_write_buffer_flushing(self) -> bool {
        self.cap_bit(4)
    }

    /// CAP.PLMR (5): has a protected low memory region.
    pub const fn protected_low_memory(self) -> bool {
        self.cap_bit(5)
    }

    /// CAP.PHMR (6): has a protected high memory region.
    pub const fn protected_high_memory(self) -> bool {
        self.cap_bit(6)
    }

    /// CAP.CM (7): caching mode; entries that are not present may be cached too.
    pub const fn caching_mode(self) -> bool {
        self.cap_bit(7)
    }

    /// CAP.SAGAW (12:8): whether second-stage tables may have so many levels.
    pub const fn supports_levels(self, levels: Levels) -> bool {
        self.cap_bit(8 + levels.address_width_field() as u32)
    }

    /// CAP.MGAW (21:16): the widest address that a device may use, in bits.
    pub const fn maximum_guest_address_width(self) -> u32 {
        (self.cap >> 16 & 0x3f) as u32 + 1
    }

    /// CAP.ZLR (22): a device may read nothing (a read of no byte, which flushes its writes) where it may only write.
    pub const fn zero_length_read(self) -> bool {
        self.cap_bit(22)
    }

    /// CAP.FRO (33:24): offset of the fault recording registers, in bytes, at most 16368.
    pub const fn fault_record_offset(self) -> u16 {
        (self.cap >> 24 & 0x3ff) as u16 * 16
    }

    /// How far the registers that the driver uses reach, in bytes from their base: 4 KiB, or to the end of the fault recording and
    /// IOTLB registers where these lie beyond (CAP.FRO, CAP.NFR, ECAP.IRO); at most 20464.
    pub const fn register_bytes(self) -> u32 {
        let faults = self.fault_record_offset() as u32 + 16 * self.fault_records() as u32;
        let iotlb = self.iotlb_register_offset() as u32 + 16;
        let further = if faults > iotlb { faults } else { iotlb };
        if further > 4096 { further } else { 4096 }
    }

    /// CAP.SLLPS (37:34) bit 0: 2 MiB pages in the second stage.
    pub const fn pages_2m(self) -> bool {
        self.cap_bit(34)
    }

    /// CAP.SLLPS (37:34) bit 1: 1 GiB pages in the second stage.
    pub const fn pages_1g(self) -> bool {
        self.cap_bit(35)
    }

    /// The page sizes of the second stage, the largest first.
    pub fn page_sizes(self) -> impl Iterator<Item = PageSize> + Clone {
        PageSize::LARGEST_FIRST.into_iter().filter(move |size| match size {
            PageSize::Size4K => true,
            PageSize::Size2M => self.pages_2m(),
            PageSize::Size1G => self.pages_1g(),
        })
    }

    /// The largest page size of the second stage.
    pub fn largest_page(self) -> PageSize {
        self.page_sizes().next().unwrap_or(PageSize::Size4K)
    }

    /// CAP.PSI (39): page-selective IOTLB invalidation.
    pub const fn page_selective_invalidation(self) -> bool {
        self.cap_bit(39)
    }

    /// CAP.NFR (47:40): number of fault recording registers, 1 to 256.
    pub const fn fault_records(self) -> u16 {
        (self.cap >> 40 & 0xff) as u16 + 1
    }

    /// CAP.MAMV (53:48): the largest address mask of a page-selective invalidation: 2 to the power of it pages.
    pub const fn maximum_address_mask(self) -> u8 {
        (self.cap >> 48 & 0x3f) as u8
    }

    /// CAP.DWD (54): an IOTLB invalidation can drain writes.
    pub const fn write_draining(self) -> bool {
        self.cap_bit(54)
    }

    /// CAP.DRD (55): an IOTLB invalidation can drain reads.
    pub const fn read_draining(self) -> bool {
        self.cap_bit(55)
    }

    /// CAP.PI (59): posted interrupts.
    pub const fn posted_interrupts(self) -> bool {
        self.cap_bit(59)
    }

    /// CAP.ESIRTPS (62): setting the interrupt table pointer invalidates the interrupt entry cache. In CAP, not ECAP.
    pub const fn enhanced_set_interrupt_table_pointer(self) -> bool {
        self.cap_bit(62)
    }

    /// CAP.ESRTPS (63): setting the root table pointer invalidates all translation caches. In CAP, not ECAP.
    pub const fn enhanced_set_root_table_pointer(self) -> bool {
        self.cap_bit(63)
    }

    /// ECAP.C (0): hardware's page walks are coherent with the processors' caches.
    pub const fn coherent(self) -> bool {
        self.ecap_bit(0)
    }

    /// ECAP.QI (1): queued invalidation.
    pub const fn queued_invalidation(self) -> bool {
        self.ecap_bit(1)
    }

    /// ECAP.DT (2): device-TLBs.
    pub const fn device_tlb(self) -> bool {
        self.ecap_bit(2)
    }

    /// ECAP.DIT (41): invalidations of device-TLBs name the physical function (PFSID), which throttles them.
    pub const fn device_tlb_invalidation_throttle(self) -> bool {
        self.ecap_bit(41)
    }

    /// ECAP.IR (3): interrupt remapping.
    pub const fn interrupt_remapping(self) -> bool {
        self.ecap_bit(3)
    }

    /// ECAP.EIM (4): extended interrupt mode (32-bit destinations).
    pub const fn extended_interrupt_mode(self) -> bool {
        self.ecap_bit(4)
    }

    /// ECAP.PT (6): pass-through translation type.
    pub const fn pass_through(self) -> bool {
        self.ecap_bit(6)
    }

    /// ECAP.SC (7): snoop control in second-stage entries.
    pub const fn snoop_control(self) -> bool {
        self.ecap_bit(7)
    }

    /// ECAP.IRO (17:8): offset of the IOTLB registers, in bytes.
    pub const fn iotlb_register_offset(self) -> u16 {
        (self.ecap >> 8 & 0x3ff) as u16 * 16
    }

    /// ECAP.MHMV (23:20): the largest index mask of an interrupt-entry-cache invalidation.
    pub const fn maximum_handle_mask(self) -> u8 {
        (self.ecap >> 20 & 0xf) as u8
    }

    /// ECAP.PRS (29): page requests.
    pub const fn page_requests(self) -> bool {
        self.ecap_bit(29)
    }

    /// ECAP.SMTS (43): scalable mode.
    pub const fn scalable_mode(self) -> bool {
        self.ecap_bit(43)
    }

    /// How many levels the second stage's tables should have: 4 where the unit can (the form that a guest's own
    /// tables have), else 3, else 5; `None` when it can none of these.
    pub const fn second_stage_levels(self) -> Option<Levels> {
        if self.supports_levels(Levels::Four) {
            Some(Levels::Four)
        } else if self.supports_levels(Levels::Three) {
            Some(Levels::Three)
        } else if self.supports_levels(Levels::Five) {
            Some(Levels::Five)
        } else {
            None
        }
    }

    /// As [`Self::second_stage_levels`], but only what translates addresses of `width` bits: an address beyond the
    /// table or beyond MGAW faults however it is mapped.
    pub const fn second_stage_levels_for(self, width: u32) -> Option<Levels> {
        if width > self.maximum_guest_address_width() {
            return None;
        }
        let preference = [Levels::Four, Levels::Three, Levels::Five];
        let mut i = 0;
        while i < preference.len() {
            if self.supports_levels(preference[i]) && width <= preference[i].width() {
                return Some(preference[i]);
            }
            i += 1;
        }
        None
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Capabilities {{ cap: {:#018x}, ecap: {:#x} }}", self.cap, self.ecap)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    /// What QEMU's intel-iommu says by default.
    const QEMU: Capabilities = Capabilities { cap: 0x00d2_008c_222f_0606, ecap: 0xf0_0f4a };

    #[test]
    fn the_registers_of_an_emulated_unit_decode() {
        assert_eq!(QEMU.domains(), 65536);
        assert_eq!(QEMU.maximum_guest_address_width(), 48);
        assert_eq!(QEMU.second_stage_levels(), Some(Levels::Four));
        assert!(QEMU.supports_levels(Levels::Three) && !QEMU.supports_levels(Levels::Five));
        assert_eq!(QEMU.fault_record_offset(), 0x220);
        assert_eq!(QEMU.fault_records(), 1);
        assert_eq!(QEMU.maximum_address_mask(), 18);
        assert!(QEMU.page_selective_invalidation() && QEMU.read_draining() && QEMU.write_draining());
        assert!(!QEMU.caching_mode() && !QEMU.required_write_buffer_flushing() && !QEMU.posted_interrupts());
        assert!(!QEMU.coherent() && QEMU.queued_invalidation() && QEMU.interrupt_remapping());
        assert!(!QEMU.extended_interrupt_mode() && QEMU.pass_through() && !QEMU.scalable_mode());
        assert_eq!(QEMU.iotlb_register_offset(), 0xf0);
        assert_eq!(QEMU.maximum_handle_mask(), 15);
        let sizes: Vec<_> = QEMU.page_sizes().collect();
        assert_eq!(sizes, PageSize::LARGEST_FIRST);
        assert!(Capabilities { cap: QEMU.cap | 0x80, ..QEMU }.caching_mode());
        assert!(Capabilities { ecap: QEMU.ecap | 0x10, ..QEMU }.extended_interrupt_mode());
    }

    #[test]
    fn the_promises_of_enhanced_pointers_are_in_cap_and_not_in_ecap() {
        let root = Capabilities { cap: 1 << 63, ecap: 0 };
        assert!(root.enhanced_set_root_table_pointer() && !root.enhanced_set_interrupt_table_pointer());
        let interrupt = Capabilities { cap: 1 << 62, ecap: 0 };
        assert!(interrupt.enhanced_set_interrupt_table_pointer() && !interrupt.enhanced_set_root_table_pointer());
        assert!(Capabilities { cap: 0, ecap: 1 << 29 }.page_requests() && !root.page_requests());
        let wrong = Capabilities { cap: 0, ecap: 3 << 62 };
        assert!(!wrong.enhanced_set_interrupt_table_pointer() && !wrong.enhanced_set_root_table_pointer());
    }

    #[test]
    fn registers_reach_to_the_end_of_what_lies_furthest() {
        assert_eq!(QEMU.register_bytes(), 4096);
        let faults = Capabilities { cap: 0x3ff << 24 | 0xff << 40, ecap: 0x3ff << 8 };
        assert_eq!(faults.register_bytes(), 20464);
        let iotlb = Capabilities { cap: 0x22 << 24, ecap: 0x3ff << 8 };
        assert_eq!(iotlb.register_bytes(), 16384);
        let just = Capabilities { cap: 0xff << 24, ecap: 0xff << 8 };
        assert_eq!(just.register_bytes(), 4096);
    }

    #[test]
    fn levels_are_those_that_the_unit_has() {
        let sagaw = |bits: u64, mgaw: u64| Capabilities { cap: bits << 8 | (mgaw - 1) << 16, ecap: 0 };
        assert_eq!(sagaw(0b00010, 39).second_stage_levels(), Some(Levels::Three));
        assert_eq!(sagaw(0b00100, 48).second_stage_levels(), Some(Levels::Four));
        assert_eq!(sagaw(0b01000, 57).second_stage_levels(), Some(Levels::Five));
        assert_eq!(sagaw(0b01110, 57).second_stage_levels(), Some(Levels::Four));
        assert_eq!(sagaw(0b10001, 57).second_stage_levels(), None);
    }

    #[test]
    fn a_width_that_does_not_fit_is_refused() {
        let both = Capabilities { cap: 0b01010 << 8 | 56 << 16, ecap: 0 };
        assert_eq!(both.second_stage_levels_for(39), Some(Levels::Three));
        assert_eq!(both.second_stage_levels_for(40), Some(Levels::Five));
        let narrow = Capabilities { cap: 0b00100 << 8 | 38 << 16, ecap: 0 };
        assert_eq!(narrow.second_stage_levels_for(39), Some(Levels::Four));
        assert_eq!(narrow.second_stage_levels_for(40), None);
    }
}
