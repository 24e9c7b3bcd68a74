//! Invalidation queue descriptors that scalable mode adds (section 6.5.2). Their upper 128 bits are reserved and 0.

use super::invalidation::Descriptor;
use super::pasid::Pasid;
use addr::{Bdf, DomainId, Iova};

const TYPE_PASID_IOTLB: u64 = 6;
const TYPE_PASID_CACHE: u64 = 7;
const TYPE_PASID_DEVICE_TLB: u64 = 8;

const CACHE_DOMAIN: u64 = 0;
const CACHE_PASID: u64 = 1 << 4;
const CACHE_GLOBAL: u64 = 3 << 4;

const IOTLB_PASID: u64 = 2 << 4;
const IOTLB_PAGES: u64 = 3 << 4;

/// S (bit 11 of the high half): ADDR says how many pages.
const SIZE: u64 = 1 << 11;

const fn tags(domain: DomainId, pasid: Pasid) -> u64 {
    (domain.0 as u64) << 16 | (pasid.as_u32() as u64) << 32
}

impl Descriptor {
    /// The whole PASID cache (section 6.5.2.2).
    pub const fn pasid_cache_global() -> Self {
        Self { low: TYPE_PASID_CACHE | CACHE_GLOBAL, high: 0 }
    }

    /// All PASID-cache entries of a domain (section 6.5.2.2).
    pub const fn pasid_cache_domain(domain: DomainId) -> Self {
        Self { low: TYPE_PASID_CACHE | CACHE_DOMAIN | (domain.0 as u64) << 16, high: 0 }
    }

    /// The PASID-cache entries of one PASID in a domain, of every device (section 6.5.2.2).
    pub const fn pasid_cache_pasid(domain: DomainId, pasid: Pasid) -> Self {
        Self { low: TYPE_PASID_CACHE | CACHE_PASID | tags(domain, pasid), high: 0 }
    }

    /// All first-stage, nested and pass-through translations of one PASID in a domain (section 6.5.2.4).
    pub const fn pasid_iotlb(domain: DomainId, pasid: Pasid) -> Self {
        Self { low: TYPE_PASID_IOTLB | IOTLB_PASID | tags(domain, pasid), high: 0 }
    }

    /// First-stage and nested translations of 2^`address_mask` pages of 4 KiB at `address`, which must be aligned to so
    /// many. Without the hint IH (`leaves_only`) cached upper levels go too. CAP.PSI and CAP.MAMV say nothing about
    /// it (section 6.5.2.4).
    pub const fn pasid_iotlb_pages(
        domain: DomainId,
        pasid: Pasid,
        address: Iova,
        address_mask: u8,
        leaves_only: bool,
    ) -> Self {
        Self {
            low: TYPE_PASID_IOTLB | IOTLB_PAGES | tags(domain, pasid),
            high: address.as_u64() & !0xfff | (leaves_only as u64) << 6 | (address_mask & 0x3f) as u64,
        }
    }

    /// Translations in the device-TLB of `source` for one PASID, or for all PASIDs with `None` (G): 2^`address_mask` pages
    /// of 4 KiB at `address`, which must be aligned to so many; 52 and more is all of them (S with ADDR all ones but bit
    /// 63). `queue_depth` is the device's Invalidate Queue Depth, 0 to 31, 0 for 32; `physical_function` names who
    /// throttles the invalidations of a virtual function, and is the device itself otherwise (section 6.5.2.6).
    pub const fn pasid_device_tlb(
        source: Bdf,
        physical_function: Bdf,
        queue_depth: u8,
        pasid: Option<Pasid>,
        address: Iova,
        address_mask: u8,
    ) -> Self {
        let function = physical_function.as_u16() as u64;
        let (pasid, global) = match pasid {
            Some(pasid) => (pasid.as_u32() as u64, 0),
            None => (0, 1),
        };
        let low = TYPE_PASID_DEVICE_TLB
            | ((queue_depth & 0x1f) as u64) << 4
            | (function & 0xf) << 12
            | (source.as_u16() as u64) << 16
            | pasid << 32
            | (function >> 4) << 52;
        let pages = match address_mask {
            0 => address.as_u64() & !0xfff,
            // The lowest clear bit of ADDR says how many pages: all bits below it are 1.
            1..52 => {
                let size = 1u64 << (address_mask + 12);
                address.as_u64() & !(size - 1) | (size / 2 - 1) & !0xfff | SIZE
            }
            _ => 0x7fff_ffff_ffff_f000 | SIZE,
        };
        Self { low, high: pages | global }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOMAIN: DomainId = DomainId(0x1234);

    fn pasid() -> Pasid {
        Pasid::new(0xa_bcde).unwrap()
    }

    #[test]
    fn pasid_cache_descriptors_have_their_fields_where_the_specification_has_them() {
        assert_eq!(Descriptor::pasid_cache_global().low, 0x37);
        assert_eq!(Descriptor::pasid_cache_domain(DOMAIN).low, 0x1234_0007);
        let one = Descriptor::pasid_cache_pasid(DOMAIN, pasid());
        assert_eq!((one.low, one.high), (0xa_bcde_1234_0017, 0));
    }

    #[test]
    fn pasid_iotlb_descriptors_have_their_fields_where_the_specification_has_them() {
        let all = Descriptor::pasid_iotlb(DOMAIN, pasid());
        assert_eq!((all.low, all.high), (0xa_bcde_1234_0026, 0));
        let pages = Descriptor::pasid_iotlb_pages(DOMAIN, pasid(), Iova::new(0x8000_0000), 9, false);
        assert_eq!((pages.low, pages.high), (0xa_bcde_1234_0036, 0x8000_0009));
        assert_eq!(
            Descriptor::pasid_iotlb_pages(DOMAIN, pasid(), Iova::new(0x8000_0fff), 0x7f, true).high,
            0x8000_007f
        );
    }

    #[test]
    fn a_device_tlb_descriptor_names_a_device_its_physical_function_and_pages() {
        let (source, function) = (Bdf::from_u16(0xbeef), Bdf::from_u16(0xcaf5));
        let of = |pasid, address, mask| {
            Descriptor::pasid_device_tlb(source, function, 0x35, pasid, Iova::new(address), mask)
        };
        let all = of(Some(pasid()), 0x1234_5678, 64);
        assert_eq!(all.low, 0xcaf << 52 | 0xa_bcde << 32 | 0xbeef << 16 | 5 << 12 | 0x15 << 4 | 8);
        assert_eq!(all.high, 0x7fff_ffff_ffff_f800);
        assert_eq!(of(None, 0, 64).low, 0xcaf << 52 | 0xbeef << 16 | 5 << 12 | 0x15 << 4 | 8);
        assert_eq!(of(None, 0, 64).high, 0x7fff_ffff_ffff_f801, "G");
        assert_eq!(of(None, 0x1234_5678, 0).high, 0x1234_5001);
        assert_eq!(of(Some(pasid()), 0x1234_5678, 0).high, 0x1234_5000);
        assert_eq!(of(Some(pasid()), 0x1234_5678, 1).high, 0x1234_4800, "two pages: bit 12 is clear");
        assert_eq!(
            of(Some(pasid()), 0x1234_5678, 4).high,
            0x1234_7800,
            "16 pages: bits 14:12 are set, bit 15 is clear"
        );
        assert_eq!(of(Some(pasid()), !0, 51).high, 0xbfff_ffff_ffff_f800);
        assert_eq!(of(Some(pasid()), !0, 52).high, 0x7fff_ffff_ffff_f800);
    }
}
