//! The bits of the capability registers that concern scalable mode (sections 11.4.2 and 11.4.3).

use super::capability::{Capabilities, Levels};
use addr::PageSize;

const fn bit(register: u64, number: u32) -> bool {
    register >> number & 1 != 0
}

impl Capabilities {
    /// CAP.FS1GP (56): 1 GiB pages in the first stage. 2 MiB pages are always there.
    pub const fn first_stage_pages_1g(self) -> bool {
        bit(self.cap, 56)
    }

    /// CAP.FS5LP (60): five levels in the first stage. Four are always there.
    pub const fn first_stage_five_levels(self) -> bool {
        bit(self.cap, 60)
    }

    /// ECAP.NEST (26): first stage and second stage one after the other.
    pub const fn nested_translation(self) -> bool {
        bit(self.ecap, 26)
    }

    /// ECAP.PSS (39:35) plus 1: the width of a PASID in bits, 1 to 20; meaningful with [`Self::pasid`] only.
    pub const fn pasid_bits(self) -> u32 {
        let bits = (self.ecap >> 35 & 0x1f) as u32 + 1;
        // A PASID has 20 bits: believe in no more.
        if bits > 20 { 20 } else { bits }
    }

    /// ECAP.PASID (40): requests with PASID.
    pub const fn pasid(self) -> bool {
        bit(self.ecap, 40)
    }

    /// ECAP.SSTS (46; once SLTS): second-stage translation in scalable mode.
    pub const fn scalable_second_stage(self) -> bool {
        bit(self.ecap, 46)
    }

    /// ECAP.FSTS (47; once FLTS): first-stage translation in scalable mode.
    pub const fn first_stage(self) -> bool {
        bit(self.ecap, 47)
    }

    /// ECAP.SMPWC (48): in scalable mode, page walks can snoop the processors' caches (PWSNP in the PASID table entry).
    /// [`Self::coherent`] says nothing about them there: it is about root, context and PASID tables.
    pub const fn scalable_page_walk_coherency(self) -> bool {
        bit(self.ecap, 48)
    }

    /// ECAP.RPS (49): the PASID of requests without PASID can be chosen (RID_PASID); otherwise it is 0.
    pub const fn rid_pasid(self) -> bool {
        bit(self.ecap, 49)
    }

    /// ECAP.ADMS (52): abort-DMA mode.
    pub const fn abort_dma_mode(self) -> bool {
        bit(self.ecap, 52)
    }

    /// Whether first-stage tables may have so many levels.
    pub const fn supports_first_stage_levels(self, levels: Levels) -> bool {
        match levels {
            Levels::Three => false,
            Levels::Four => self.first_stage(),
            Levels::Five => self.first_stage() && self.first_stage_five_levels(),
        }
    }

    /// The largest page size of the first stage.
    pub const fn largest_first_stage_page(self) -> PageSize {
        if self.first_stage_pages_1g() { PageSize::Size1G } else { PageSize::Size2M }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registers_of_an_emulated_unit_decode() {
        // QEMU's intel-iommu with x-scalable-mode=on, then with x-flts=on as well.
        let second = Capabilities { cap: 0x00d2_008c_222f_0606, ecap: 0x4800_80f0_0f4a };
        assert!(second.scalable_mode() && second.scalable_second_stage() && !second.first_stage());
        assert!(!second.pasid() && !second.nested_translation() && !second.rid_pasid());
        assert!(!second.scalable_page_walk_coherency() && !second.abort_dma_mode());
        let first = Capabilities { cap: 0x01d2_008c_222f_0606, ecap: 0x8800_00f0_0f4a };
        assert!(first.first_stage() && !first.scalable_second_stage());
        assert!(first.first_stage_pages_1g() && !first.first_stage_five_levels());
        assert_eq!(first.largest_first_stage_page(), PageSize::Size1G);
        assert_eq!(second.largest_first_stage_page(), PageSize::Size2M);
    }

    #[test]
    fn each_capability_is_its_own_bit() {
        let ecap = |number: u32| Capabilities { cap: 0, ecap: 1 << number };
        let cap = |number: u32| Capabilities { cap: 1 << number, ecap: 0 };
        for number in 0..64 {
            assert_eq!(ecap(number).nested_translation(), number == 26);
            assert_eq!(ecap(number).pasid(), number == 40);
            assert_eq!(ecap(number).scalable_second_stage(), number == 46);
            assert_eq!(ecap(number).first_stage(), number == 47);
            assert_eq!(ecap(number).scalable_page_walk_coherency(), number == 48);
            assert_eq!(ecap(number).rid_pasid(), number == 49);
            assert_eq!(ecap(number).abort_dma_mode(), number == 52);
            assert_eq!(cap(number).first_stage_pages_1g(), number == 56);
            assert_eq!(cap(number).first_stage_five_levels(), number == 60);
        }
    }

    #[test]
    fn a_pasid_has_as_many_bits_as_the_unit_says_and_20_at_most() {
        for (pss, bits) in [(0, 1), (7, 8), (15, 16), (19, 20), (20, 20), (31, 20)] {
            assert_eq!(Capabilities { cap: 0, ecap: pss << 35 }.pasid_bits(), bits);
            assert_eq!(Capabilities { cap: 0, ecap: pss << 35 | 1 << 40 | 1 << 34 }.pasid_bits(), bits);
        }
    }

    #[test]
    fn five_levels_of_the_first_stage_need_a_first_stage() {
        let unit = |cap: u64, ecap: u64| Capabilities { cap, ecap };
        let supported = |unit: Capabilities| {
            [Levels::Three, Levels::Four, Levels::Five].map(|levels| unit.supports_first_stage_levels(levels))
        };
        assert_eq!(supported(unit(0, 0)), [false; 3]);
        assert_eq!(supported(unit(1 << 60, 0)), [false; 3]);
        assert_eq!(supported(unit(0, 1 << 47)), [false, true, false]);
        assert_eq!(supported(unit(1 << 60, 1 << 47)), [false, true, true]);
    }
}
