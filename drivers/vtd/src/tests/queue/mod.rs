//! The invalidation queue.

mod batches;
mod full;
mod ranges;
mod refused;
mod timeouts;

use super::fake::{CAP, ECAP, Event, Fake, TestUnit};
use super::std::vec::Vec;
use crate::spec::invalidation::Descriptor;
use crate::{DescriptorWidth, Error, IotlbInvalidation, QueueError, QueueLayout};
use addr::{DomainId, Iova, PAGE_SIZE};

const DOMAIN: IotlbInvalidation = IotlbInvalidation::Domain(DomainId(5));

fn range(start: u64, bytes: u64) -> IotlbInvalidation {
    IotlbInvalidation::Range { domain: DomainId(5), start: Iova::new(start), bytes, leaves_only: false }
}

/// A device-TLB invalidation of a device.
fn device_tlb(source: u16) -> Descriptor {
    let source = addr::Bdf::from_u16(source);
    Descriptor::device_tlb_pages(source, source, 0, Iova::new(0x1000), 0)
}
