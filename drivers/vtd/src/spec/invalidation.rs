//! Invalidation queue descriptors, 128-bit legacy form (section 6.5.2).

use addr::{Bdf, DomainId, HostPhys, Iova};

/// Bytes of a descriptor.
pub const DESCRIPTOR_BYTES: u64 = 16;

/// A descriptor as hardware fetches it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor {
    /// Bits 63:0; the type is in 3:0.
    pub low: u64,
    /// Bits 127:64.
    pub high: u64,
}

/// Which in-flight requests an IOTLB invalidation waits for; only where CAP.DWD and CAP.DRD allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drain {
    /// DW (bit 6): writes.
    pub writes: bool,
    /// DR (bit 7): reads.
    pub reads: bool,
}

impl Drain {
    const fn bits(self) -> u64 {
        (self.writes as u64) << 6 | (self.reads as u64) << 7
    }
}

const TYPE_CONTEXT_CACHE: u64 = 1;
const TYPE_IOTLB: u64 = 2;
const TYPE_INTERRUPT_ENTRY_CACHE: u64 = 4;
const TYPE_WAIT: u64 = 5;

const GRANULARITY_GLOBAL: u64 = 1 << 4;
const GRANULARITY_DOMAIN: u64 = 2 << 4;
const GRANULARITY_FINE: u64 = 3 << 4;

const WAIT_STATUS_WRITE: u64 = 1 << 5;
const WAIT_FENCE: u64 = 1 << 6;

impl Descriptor {
    /// The whole context cache (section 6.5.2.1).
    pub const fn context_cache_global() -> Self {
        Self { low: TYPE_CONTEXT_CACHE | GRANULARITY_GLOBAL, high: 0 }
    }

    /// All context-cache entries with this domain id (section 6.5.2.1).
    pub const fn context_cache_domain(domain: DomainId) -> Self {
        Self { low: TYPE_CONTEXT_CACHE | GRANULARITY_DOMAIN | (domain.0 as u64) << 16, high: 0 }
    }

    /// The context-cache entry of one source-id (FM = 0). `domain` is the id that the entry *had*: hardware may keep
    /// the entry under that tag, and 0 where the entry was not present (section 6.5.2.1).
    pub const fn context_cache_device(domain: DomainId, source: Bdf) -> Self {
        Self {
            low: TYPE_CONTEXT_CACHE | GRANULARITY_FINE | (domain.0 as u64) << 16 | (source.as_u16() as u64) << 32,
            high: 0,
        }
    }

    /// The whole IOTLB (section 6.5.2.3).
    pub const fn iotlb_global(drain: Drain) -> Self {
        Self { low: TYPE_IOTLB | GRANULARITY_GLOBAL | drain.bits(), high: 0 }
    }

    /// All translations of a domain (section 6.5.2.3).
    pub const fn iotlb_domain(domain: DomainId, drain: Drain) -> Self {
        Self { low: TYPE_IOTLB | GRANULARITY_DOMAIN | drain.bits() | (domain.0 as u64) << 16, high: 0 }
    }

    /// Translations of 2^`address_mask` pages of 4 KiB at `address`, which must be aligned to so many. Without the
    /// hint IH (`leaves_only`) cached upper levels go too (section 6.5.2.3).
    pub const fn iotlb_pages(
        domain: DomainId,
        address: Iova,
        address_mask: u8,
        leaves_only: bool,
        drain: Drain,
    ) -> Self {
        Self {
            low: TYPE_IOTLB | GRANULARITY_FINE | drain.bits() | (domain.0 as u64) << 16,
            high: address.as_u64() & !0xfff | (leaves_only as u64) << 6 | (address_mask & 0x3f) as u64,
        }
    }

    /// The whole interrupt entry cache (section 6.5.2.7).
    pub const fn interrupt_entry_cache_global() -> Self {
        Self { low: TYPE_INTERRUPT_ENTRY_CACHE, high: 0 }
    }

    /// 2^`index_mask` interrupt entries at `index`, which must be aligned to so many (section 6.5.2.7).
    pub const fn interrupt_entry_cache_index(index: u16, index_mask: u8) -> Self {
        Self {
            low: TYPE_INTERRUPT_ENTRY_CACHE | 1 << 4 | ((index_mask & 0x1f) as u64) << 27 | (index as u64) << 32,
            high: 0,
        }
    }

    /// Writes `data` to the 4-byte aligned `address` once everything before it is done (SW), and keeps what follows
    /// back until then (FN). Never with an interrupt (IF): some emulated units abort on SW and IF together
    /// (section 6.5.2.8).
    pub const fn wait(address: HostPhys, data: u32) -> Self {
        Self { low: TYPE_WAIT | WAIT_STATUS_WRITE | WAIT_FENCE | (data as u64) << 32, high: address.as_u64() & !3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_have_their_fields_where_the_specification_has_them() {
        let source = Bdf::from_u16(0xbeef);
        let drain = Drain { writes: true, reads: true };
        assert_eq!(Descriptor::context_cache_global().low, 0x11);
        assert_eq!(Descriptor::context_cache_domain(DomainId(0x1234)).low, 0x1234_0021);
        assert_eq!(Descriptor::context_cache_device(DomainId(0x1234), source).low, 0xbeef_1234_0031);
        assert_eq!(Descriptor::iotlb_global(drain).low, 0xd2);
        assert_eq!(Descriptor::iotlb_domain(DomainId(7), Drain::default()).low, 0x7_0022);
        let pages = Descriptor::iotlb_pages(DomainId(7), Iova::new(0x8000_0000), 9, false, drain);
        assert_eq!((pages.low, pages.high), (0x7_00f2, 0x8000_0009));
        assert_eq!(Descriptor::interrupt_entry_cache_global().low, 0x4);
        assert_eq!(Descriptor::interrupt_entry_cache_index(0x20, 5).low, 0x20_2800_0014);
    }

    #[test]
    fn a_wait_writes_status_and_never_interrupts() {
        let wait = Descriptor::wait(HostPhys::new(0x1_0000_0008), 0xdead_beef);
        assert_eq!((wait.low, wait.high), (0xdead_beef_0000_0065, 0x1_0000_0008));
        assert_eq!(wait.low & 1 << 4, 0, "IF");
    }
}
