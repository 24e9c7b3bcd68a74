//! Invalidation of first-stage translations.

use crate::error::Error;
use crate::iotlb::IotlbInvalidated;
use crate::memory::DmaMemory;
use crate::registers::Registers;
use crate::spec::invalidation::Descriptor;
use crate::spec::pasid::Pasid;
use crate::unit::Unit;
use crate::wait::Clock;
use addr::{DomainId, Iova, PAGE_SIZE};
use paging::{InputAddress, Invalidation};

/// The largest block that is invalidated as such, as a power of two pages: 1 GiB. Of more, hardware forgets all of the
/// PASID, which costs it no more.
const LARGEST_BLOCK: u8 = 18;

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Makes the unit notice a change of a first-stage table that is attached under `domain` and `pasid` (`None`:
    /// requests without PASID), alone or nested: invalidates what the change asks for, and where mappings were only
    /// added, only what a unit of this kind needs for that. A table that is attached under several must be invalidated
    /// under each. Second-stage tables are [`Unit::invalidate`]'s, nested ones too.
    ///
    /// # Errors
    /// Those of [`Unit::invalidate`]; [`Error::PasidOutOfRange`], [`Error::Unsupported`].
    pub fn invalidate_first_stage<M: DmaMemory, I: InputAddress>(
        &mut self,
        memory: &mut M,
        domain: DomainId,
        pasid: Option<Pasid>,
        change: &Invalidation<I>,
    ) -> Result<IotlbInvalidated, Error> {
        let effective = self.effective_pasid(pasid)?;
        if change.only_added && !self.capabilities.caching_mode() {
            self.flush_write_buffer()?;
        } else if change.len != 0 {
            let start = change.start.to_u64();
            let first = start / PAGE_SIZE;
            let last = start.saturating_add(change.len - 1) / PAGE_SIZE;
            // The number of low bits in which first and last page differ: the block's size as a power of two. CAP.MAMV
            // does not limit it (section 11.4.2), and QEMU's unit lets it all the same.
            let mask = (u64::BITS - (first ^ last).leading_zeros()) as u8;
            let pages = if mask > LARGEST_BLOCK {
                Descriptor::pasid_iotlb(domain, effective)
            } else {
                let block = Iova::new((first >> mask << mask) * PAGE_SIZE);
                Descriptor::pasid_iotlb_pages(domain, effective, block, mask, !change.tables_changed)
            };
            // The unit forgets first: device-TLBs are filled by what it answers.
            let devices = self.device_tlbs.descriptors_of_pasid(pasid, first, last);
            let submitted = self.begin(memory, &mut core::iter::once(pages).chain(devices))?;
            self.complete(memory, submitted)?;
        }
        Ok(IotlbInvalidated::of(change))
    }
}
