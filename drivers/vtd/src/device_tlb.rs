//! Which devices keep translations of their own (ATS), and what makes them forget.
//!
//! A device-TLB is filled by what the unit answers, so the unit forgets first: an IOTLB invalidation stands in the queue
//! before the device-TLB invalidations that go with it, and hardware keeps that order (section 6.5.2.11).

use crate::spec::capability::Capabilities;
use crate::spec::invalidation::Descriptor;
use crate::spec::pasid::Pasid;
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

/// Whose translations a device may keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Holds {
    /// Those of one domain: legacy mode.
    Domain(DomainId),
    /// Those of any, with PASIDs or without: scalable mode.
    Anything { pasids: bool },
}

impl Holds {
    fn holds(self, domain: DomainId) -> bool {
        match self {
            Holds::Domain(known) => known == domain,
            Holds::Anything { .. } => true,
        }
    }

    fn has_pasids(self) -> bool {
        self == Holds::Anything { pasids: true }
    }
}

/// The devices of a unit that have device-TLBs in use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceTlbs {
    list: [Option<(Bdf, Holds, DeviceTlb)>; MAXIMUM],
}

/// The smallest aligned block that covers the pages from `first` to `last`, as address and address mask: device-TLBs know
/// no largest.
fn block(first: u64, last: u64) -> (Iova, u8) {
    let mask = (u64::BITS - (first ^ last).leading_zeros()) as u8;
    match mask {
        0..52 => (Iova::new((first >> mask << mask) * PAGE_SIZE), mask),
        _ => (Iova::new(0), ALL),
    }
}

impl DeviceTlbs {
    pub(crate) const EMPTY: Self = Self { list: [None; MAXIMUM] };

    /// Whether there is room for one more.
    pub(crate) fn has_room(&self, source: Bdf) -> bool {
        self.list.iter().any(|place| place.is_none_or(|(known, ..)| known == source))
    }

    /// Adds a device, or gives a known one something else to keep; false, and nothing changed, without room.
    pub(crate) fn add(&mut self, capabilities: Capabilities, source: Bdf, holds: Holds, mut device: DeviceTlb) -> bool {
        self.remove(source);
        if !capabilities.device_tlb_invalidation_throttle() {
            // PFSID is reserved then, and a descriptor that names one is refused.
            device.physical_function = Bdf::from_u16(0);
        }
        let place = self.list.iter_mut().find(|place| place.is_none());
        place.map(|place| *place = Some((source, holds, device))).is_some()
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

    /// What makes one device forget everything of one PASID, or with `None` of requests without, if it has a device-TLB
    /// in use.
    pub(crate) fn all_of_pasid(&self, source: Bdf, pasid: Option<Pasid>) -> Option<Descriptor> {
        let (_, _, device) = self.list.iter().flatten().find(|(known, ..)| *known == source)?;
        match pasid {
            None => self.all_of(source),
            Some(_) => Some(Descriptor::pasid_device_tlb(
                source,
                device.physical_function,
                device.queue_depth,
                pasid,
                Iova::new(0),
                ALL,
            )),
        }
    }

    /// What makes one device forget everything, with PASIDs and without.
    pub(crate) fn everything_of(self, source: Bdf) -> impl Iterator<Item = Descriptor> {
        self.list
            .into_iter()
            .flatten()
            .filter(move |(known, ..)| *known == source)
            .flat_map(|item| of(item, Iova::new(0), ALL))
    }

    /// What makes all devices that have PASIDs forget the pages from `first` to `last` of one of them; with `None` those
    /// of requests without.
    pub(crate) fn descriptors_of_pasid(
        self,
        pasid: Option<Pasid>,
        first: u64,
        last: u64,
    ) -> impl Iterator<Item = Descriptor> {
        let (address, mask) = block(first, last);
        self.list.into_iter().flatten().map(move |(source, _, device)| {
            let DeviceTlb { queue_depth, physical_function } = device;
            match pasid {
                None => Descriptor::device_tlb_pages(source, physical_function, queue_depth, address, mask),
                Some(_) => Descriptor::pasid_device_tlb(source, physical_function, queue_depth, pasid, address, mask),
            }
        })
    }

    /// What makes the devices of a domain forget the pages from `first` to `last`, and with `None` those of all domains.
    pub(crate) fn descriptors(
        self,
        domain: Option<DomainId>,
        first: u64,
        last: u64,
    ) -> impl Iterator<Item = Descriptor> {
        let (address, mask) = block(first, last);
        let concerned = move |(_, holds, _): &(Bdf, Holds, DeviceTlb)| domain.is_none_or(|domain| holds.holds(domain));
        self.list.into_iter().flatten().filter(concerned).flat_map(move |item| of(item, address, mask))
    }
}

/// What makes a device forget some pages: of requests without PASID, and of all PASIDs if it has any.
fn of((source, holds, device): (Bdf, Holds, DeviceTlb), address: Iova, mask: u8) -> impl Iterator<Item = Descriptor> {
    let DeviceTlb { queue_depth, physical_function } = device;
    let without = Descriptor::device_tlb_pages(source, physical_function, queue_depth, address, mask);
    let with = Descriptor::pasid_device_tlb(source, physical_function, queue_depth, None, address, mask);
    [Some(without), holds.has_pasids().then_some(with)].into_iter().flatten()
}

/// Whether a unit can answer translation requests of devices.
pub(crate) fn supported(capabilities: Capabilities) -> bool {
    capabilities.device_tlb() && capabilities.queued_invalidation()
}
