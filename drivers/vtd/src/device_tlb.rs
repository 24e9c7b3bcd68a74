//! Which devices keep translations of their own (ATS), and what makes them forget.
//!
//! A device-TLB is filled by what the unit answers, so the unit forgets first: an IOTLB invalidation stands in the queue
//! before the device-TLB invalidations that go with it, and hardware keeps that order (section 6.5.2.11).

use crate::spec::capability::Capabilities;
use crate::spec::invalidation::Descriptor;
use addr::{Bdf, DomainId, Iova, PAGE_SIZE};

/// Devices with device-TLBs that one unit can have.
const MAXIMUM: usize = 32;
/// The address mask that means all of a device-TLB.
const ALL: u8 = 64;

/// A device's translation cache, by what its ATS capability says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceTlb {
    /// Invalidate Queue Depth: how many invalidations the device takes at once, 1 to 31, and 0 for 32.
    pub queue_depth: u8,
    /// The physical function, for a virtual one; else the device itself.
    pub physical_function: Bdf,
}

/// The devices of a unit that have device-TLBs in use, and under which domain id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceTlbs {
    list: [Option<(Bdf, DomainId, DeviceTlb)>; MAXIMUM],
}

impl DeviceTlbs {
    pub(crate) const EMPTY: Self = Self { list: [None; MAXIMUM] };

    /// Whether there is room for one more.
    pub(crate) fn has_room(&self, source: Bdf) -> bool {
        self.list.iter().any(|place| place.is_none_or(|(known, ..)| known == source))
    }

    /// Adds a device, or gives a known one another domain; false, and nothing changed, without room.
    pub(crate) fn add(&mut self, source: Bdf, domain: DomainId, device: DeviceTlb) -> bool {
        self.remove(source);
        let place = self.list.iter_mut().find(|place| place.is_none());
        place.map(|place| *place = Some((source, domain, device))).is_some()
    }

    pub(crate) fn remove(&mut self, source: Bdf) {
        for place in &mut self.list {
            if place.is_some_and(|(known, ..)| known == source) {
                *place = None;
            }
        }
    }

    /// What makes one device forget everything, if it has a device-TLB in use.
    pub(crate) fn all_of(&self, source: Bdf) -> Option<Descriptor> {
        let (_, _, device) = self.list.iter().flatten().find(|(known, ..)| *known == source)?;
        Some(Descriptor::device_tlb_pages(source, device.physical_function, device.queue_depth, Iova::new(0), ALL))
    }

    /// What makes the devices of a domain forget the pages from `first` to `last`, and with `None` those of all domains.
    pub(crate) fn descriptors(
        self,
        domain: Option<DomainId>,
        first: u64,
        last: u64,
    ) -> impl Iterator<Item = Descriptor> {
        // The smallest aligned block that covers the range: device-TLBs know no largest.
        let mask = (u64::BITS - (first ^ last).leading_zeros()) as u8;
        let (address, mask) = match mask {
            0..52 => (Iova::new((first >> mask << mask) * PAGE_SIZE), mask),
            _ => (Iova::new(0), ALL),
        };
        let concerned = move |(_, of, _): &(Bdf, DomainId, DeviceTlb)| domain.is_none_or(|domain| *of == domain);
        self.list.into_iter().flatten().filter(concerned).map(move |(source, _, device)| {
            Descriptor::device_tlb_pages(source, device.physical_function, device.queue_depth, address, mask)
        })
    }
}

/// Whether a unit can answer translation requests of devices.
pub(crate) fn supported(capabilities: Capabilities) -> bool {
    capabilities.device_tlb() && capabilities.queued_invalidation()
}
