//! Invalidation queue descriptors (section 6.5.2), and what of them the invalidation registers say in their own way
//! (sections 11.4.6.1 and 11.4.6.2).

use super::capability::Capabilities;
use addr::{Bdf, DomainId, HostPhys, Iova};

/// How wide the places of the queue are (IQA.DW).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DescriptorWidth {
    /// 128 bits (DW = 0): legacy mode.
    Narrow,
    /// 256 bits (DW = 1): what scalable mode asks for. Bits 255:128 of every descriptor here are reserved, thus 0.
    Wide,
}

impl DescriptorWidth {
    /// Bytes of a place.
    pub const fn bytes(self) -> u64 {
        1 << self.shift()
    }

    /// Where a place's index stands in IQH and IQT: from bit 4, or from bit 5 with bit 4 reserved (sections 11.4.9.1
    /// and 11.4.9.2).
    pub const fn shift(self) -> u32 {
        match self {
            DescriptorWidth::Narrow => 4,
            DescriptorWidth::Wide => 5,
        }
    }

    /// IQA.DW (bit 11).
    pub const fn address_bit(self) -> u64 {
        (matches!(self, DescriptorWidth::Wide) as u64) << 11
    }
}

/// Bits 127:0 of a descriptor as hardware fetches it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor {
    /// Bits 63:0; the type is in 3:0, and in 11:9 above them.
    pub low: u64,
    /// Bits 127:64.
    pub high: u64,
}

/// What a descriptor is about, by its type (bits 11:9 and 3:0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DescriptorType {
    /// Context cache (1).
    ContextCache,
    /// IOTLB (2).
    Iotlb,
    /// Device-TLB (3).
    DeviceTlb,
    /// Interrupt entry cache (4).
    InterruptEntryCache,
    /// Wait (5).
    Wait,
    /// PASID-based IOTLB (6).
    PasidIotlb,
    /// PASID cache (7).
    PasidCache,
    /// PASID-based device-TLB (8).
    PasidDeviceTlb,
    /// Page group response (9).
    PageGroupResponse,
    /// Any other.
    Unknown(u8),
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
    /// All that a unit can drain (CAP.DWD, CAP.DRD).
    pub const fn of(capabilities: Capabilities) -> Self {
        Self { writes: capabilities.write_draining(), reads: capabilities.read_draining() }
    }

    const fn bits(self) -> u64 {
        (self.writes as u64) << 6 | (self.reads as u64) << 7
    }
}

const TYPE_CONTEXT_CACHE: u64 = 1;
const TYPE_IOTLB: u64 = 2;
const TYPE_DEVICE_TLB: u64 = 3;
const TYPE_INTERRUPT_ENTRY_CACHE: u64 = 4;
const TYPE_WAIT: u64 = 5;

const GRANULARITY_GLOBAL: u64 = 1 << 4;
const GRANULARITY_DOMAIN: u64 = 2 << 4;
const GRANULARITY_FINE: u64 = 3 << 4;

const WAIT_STATUS_WRITE: u64 = 1 << 5;
const WAIT_FENCE: u64 = 1 << 6;

/// Granularity: bits 5:4 of context-cache and IOTLB descriptors.
const GRANULARITY: u64 = 3 << 4;

impl Descriptor {
    /// What it is about.
    pub const fn descriptor_type(self) -> DescriptorType {
        match (self.low & 0xf | self.low >> 5 & 0x70) as u8 {
            1 => DescriptorType::ContextCache,
            2 => DescriptorType::Iotlb,
            3 => DescriptorType::DeviceTlb,
            4 => DescriptorType::InterruptEntryCache,
            5 => DescriptorType::Wait,
            6 => DescriptorType::PasidIotlb,
            7 => DescriptorType::PasidCache,
            8 => DescriptorType::PasidDeviceTlb,
            9 => DescriptorType::PageGroupResponse,
            other => DescriptorType::Unknown(other),
        }
    }

    /// The device whose device-TLB it is about, if it is about one: SID is bits 47:32 of a device-TLB descriptor and
    /// bits 31:16 of a PASID-based one (sections 6.5.2.5 and 6.5.2.6).
    pub const fn device_tlb_source(self) -> Option<Bdf> {
        match self.descriptor_type() {
            DescriptorType::DeviceTlb => Some(Bdf::from_u16((self.low >> 32) as u16)),
            DescriptorType::PasidDeviceTlb => Some(Bdf::from_u16((self.low >> 16) as u16)),
            _ => None,
        }
    }

    /// SW: a wait that writes its status.
    pub const fn status_data(self) -> u32 {
        (self.low >> 32) as u32
    }

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

    /// Translations in the device-TLB of `source`: 2^`address_mask` pages of 4 KiB at `address`, which must be aligned to
    /// so many; 52 and more is all of it (S with ADDR all ones but bit 63). `queue_depth` is the device's Invalidate
    /// Queue Depth, 0 to 31, 0 for 32; `physical_function` names who throttles the invalidations of a virtual function,
    /// and is the device itself otherwise (section 6.5.2.5).
    pub const fn device_tlb_pages(
        source: Bdf,
        physical_function: Bdf,
        queue_depth: u8,
        address: Iova,
        address_mask: u8,
    ) -> Self {
        let pfsid = physical_function.as_u16() as u64;
        let low = TYPE_DEVICE_TLB
            | (pfsid & 0xf) << 12
            | ((queue_depth & 0x1f) as u64) << 16
            | (source.as_u16() as u64) << 32
            | (pfsid >> 4) << 52;
        let high = match address_mask {
            0 => address.as_u64() & !0xfff,
            // The lowest clear bit of ADDR says how many pages: all bits below it are 1.
            1..52 => {
                let size = 1u64 << (address_mask + 12);
                address.as_u64() & !(size - 1) | (size / 2 - 1) & !0xfff | 1
            }
            _ => 0x7fff_ffff_ffff_f001,
        };
        Self { low, high }
    }

    /// All of the device-TLB that this descriptor is about a part of; `None` for any other type.
    pub const fn whole_device_tlb(self) -> Option<Self> {
        match self.descriptor_type() {
            DescriptorType::DeviceTlb => Some(Self { low: self.low, high: 0x7fff_ffff_ffff_f001 }),
            _ => None,
        }
    }

    /// G of a context-cache or IOTLB descriptor: whether it is about the whole cache.
    pub const fn is_global(self) -> bool {
        self.low & GRANULARITY == GRANULARITY_GLOBAL
    }

    /// The value for CCMD_REG that does as a context-cache descriptor says: ICC (63), CIRG (62:61), FM (33:32), SID
    /// (31:16), DID (15:0).
    pub const fn context_command(self) -> u64 {
        1 << 63
            | (self.low >> 4 & 3) << 61
            | (self.low >> 48 & 3) << 32
            | (self.low >> 32 & 0xffff) << 16
            | self.low >> 16 & 0xffff
    }

    /// The value for IOTLB_REG that does as an IOTLB descriptor says: IVT (63), IIRG (61:60), DR (49), DW (48), DID
    /// (47:32). What stands in `high` goes to IVA_REG as it is: AM (5:0), IH (6), ADDR (63:12).
    pub const fn iotlb_command(self) -> u64 {
        1 << 63
            | (self.low >> 4 & 3) << 60
            | (self.low >> 7 & 1) << 49
            | (self.low >> 6 & 1) << 48
            | (self.low >> 16 & 0xffff) << 32
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
    fn a_descriptor_knows_its_type_by_both_fields() {
        let of = |low| Descriptor { low, high: 0 }.descriptor_type();
        let types = [
            DescriptorType::ContextCache,
            DescriptorType::Iotlb,
            DescriptorType::DeviceTlb,
            DescriptorType::InterruptEntryCache,
            DescriptorType::Wait,
            DescriptorType::PasidIotlb,
            DescriptorType::PasidCache,
            DescriptorType::PasidDeviceTlb,
            DescriptorType::PageGroupResponse,
        ];
        for (number, known) in (1..).zip(types) {
            assert_eq!(of(number), known);
            assert_eq!(of(number | 0xffff_ffff_ffff_f1f0), known, "other bits are not the type");
        }
        assert_eq!(of(0), DescriptorType::Unknown(0));
        assert_eq!(of(0x202), DescriptorType::Unknown(0x12));
    }

    #[test]
    fn places_are_as_wide_as_their_index_says() {
        assert_eq!((DescriptorWidth::Narrow.bytes(), DescriptorWidth::Wide.bytes()), (16, 32));
        assert_eq!((DescriptorWidth::Narrow.address_bit(), DescriptorWidth::Wide.address_bit()), (0, 0x800));
    }

    #[test]
    fn a_device_tlb_descriptor_says_its_size_by_the_lowest_clear_bit() {
        let (source, function) = (Bdf::from_u16(0x1234), Bdf::from_u16(0xabcd));
        let of = |address, mask| Descriptor::device_tlb_pages(source, function, 0x25, Iova::new(address), mask);
        assert_eq!(of(0, 0).low, 0xabc0_1234_0005_d003);
        assert_eq!(of(0x1234_5678, 0).high, 0x1234_5000);
        assert_eq!(of(0x1234_5678, 1).high, 0x1234_4001, "two pages: bit 12 is clear");
        assert_eq!(of(0x1234_5678, 4).high, 0x1234_7001, "16 pages: bits 14:12 are set, bit 15 is clear");
        assert_eq!(of(0xffff_ffff_ffff_f000, 51).high, 0xbfff_ffff_ffff_f001);
        assert_eq!(of(0x1234_5678, 52).high, 0x7fff_ffff_ffff_f001);
        assert_eq!(of(0x1234_5678, 4).whole_device_tlb(), Some(of(0, 64)));
        assert_eq!(of(0, 0).device_tlb_source(), Some(source));
        assert_eq!(Descriptor { low: 0x1_abcd_0008, high: 0 }.device_tlb_source(), Some(function));
        let other = Descriptor::iotlb_global(Drain::default());
        assert_eq!((other.device_tlb_source(), other.whole_device_tlb()), (None, None));
    }

    #[test]
    fn registers_say_the_same_in_their_own_places() {
        let source = Bdf::from_u16(0xbeef);
        assert_eq!(Descriptor::context_cache_global().context_command(), 0xa000_0000_0000_0000);
        assert_eq!(Descriptor::context_cache_domain(DomainId(0x1234)).context_command(), 0xc000_0000_0000_1234);
        let device = Descriptor::context_cache_device(DomainId(0x1234), source);
        assert_eq!(device.context_command(), 0xe000_0000_beef_1234);
        assert_eq!(Descriptor { low: device.low | 3 << 48, ..device }.context_command(), 0xe000_0003_beef_1234);
        let drain = Drain { writes: true, reads: false };
        assert_eq!(
            Descriptor::iotlb_global(Drain { reads: true, writes: false }).iotlb_command(),
            0x9002_0000_0000_0000
        );
        assert_eq!(Descriptor::iotlb_domain(DomainId(7), drain).iotlb_command(), 0xa001_0007_0000_0000);
        let pages = Descriptor::iotlb_pages(DomainId(7), Iova::new(0), 9, true, Drain::default());
        assert_eq!(pages.iotlb_command(), 0xb000_0007_0000_0000);
        assert!(!pages.is_global() && Descriptor::iotlb_global(drain).is_global());
    }

    #[test]
    fn a_wait_writes_status_and_never_interrupts() {
        let wait = Descriptor::wait(HostPhys::new(0x1_0000_0008), 0xdead_beef);
        assert_eq!((wait.low, wait.high), (0xdead_beef_0000_0065, 0x1_0000_0008));
        assert_eq!(wait.low & 1 << 4, 0, "IF");
        assert_eq!(wait.status_data(), 0xdead_beef);
    }
}
