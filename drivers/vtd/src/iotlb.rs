//! Invalidation of translations, and the proof that it is complete.

use crate::error::{Error, Step};
use crate::spec::capability::Capabilities;
use crate::spec::invalidation::{Descriptor, Drain};
use crate::wait::Clock;
use crate::{DmaMemory, Registers, Unit};
use addr::{DomainId, HostPhys, Iova, PAGE_SIZE};
use paging::{InputAddress, Invalidation, InvalidationComplete};

/// What of the IOTLB to invalidate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IotlbInvalidation {
    /// Everything.
    Global,
    /// All translations of a domain.
    Domain(DomainId),
    /// The translations of a domain in a range of addresses; the unit may invalidate more around it.
    Range {
        /// The domain.
        domain: DomainId,
        /// The first address.
        start: Iova,
        /// The length in bytes; 0 is nothing.
        bytes: u64,
        /// Only leaves changed: what hardware has cached of the levels above is still right (IH).
        leaves_only: bool,
    },
}

impl IotlbInvalidation {
    /// The descriptor for it: page-selective where the smallest aligned block that covers the range is within
    /// CAP.MAMV, else the whole domain. `None` when the range is empty.
    pub(crate) fn descriptor(self, capabilities: Capabilities) -> Option<Descriptor> {
        let drain = Drain { writes: capabilities.write_draining(), reads: capabilities.read_draining() };
        match self {
            Self::Global => Some(Descriptor::iotlb_global(drain)),
            Self::Domain(domain) => Some(Descriptor::iotlb_domain(domain, drain)),
            Self::Range { bytes: 0, .. } => None,
            Self::Range { domain, start, bytes, leaves_only } => {
                let first = start.as_u64() / PAGE_SIZE;
                let last = start.as_u64().saturating_add(bytes - 1) / PAGE_SIZE;
                // The number of low bits in which first and last page differ: the block's size as a power of two.
                let mask = (u64::BITS - (first ^ last).leading_zeros()) as u8;
                if capabilities.page_selective_invalidation() && mask <= capabilities.maximum_address_mask() {
                    let block = Iova::new((first >> mask << mask) * PAGE_SIZE);
                    Some(Descriptor::iotlb_pages(domain, block, mask, leaves_only, drain))
                } else {
                    Some(Descriptor::iotlb_domain(domain, drain))
                }
            }
        }
    }
}

/// The proof that *one* unit has forgotten the translations that an [`Invalidation`] names, under one domain id.
///
/// Made by [`Unit::invalidate`] alone, after the unit has reported completion. Where several units walk the same
/// table, each must have completed: keep the [`paging::Flush`] until the last has, and complete it with any of them.
/// It speaks of the changes made before it was made: complete the flush with it at once, and do not keep it.
#[derive(PartialEq, Eq, Debug)]
pub struct IotlbInvalidated {
    root: HostPhys,
    start: u64,
    bytes: u64,
    tables_changed: bool,
    only_added: bool,
}

impl<I: InputAddress> InvalidationComplete<I> for IotlbInvalidated {
    fn covers(&self, invalidation: &Invalidation<I>) -> bool {
        let start = invalidation.start.to_u64();
        self.root == invalidation.root
            && (!self.only_added || invalidation.only_added)
            // With the invalidation hint set, pointers to tables stayed cached: it frees no table.
            && (self.tables_changed || !invalidation.tables_changed)
            && start >= self.start
            && start.saturating_add(invalidation.len) <= self.start.saturating_add(self.bytes)
    }
}

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Submits a batch; a failure poisons the unit.
    pub(crate) fn submit<M: DmaMemory>(&mut self, memory: &mut M, batch: &[Descriptor]) -> Result<(), Error> {
        let Some(queue) = self.queue.as_mut() else {
            return Err(Error::OutOfOrder { step: Step::Invalidate, needs: "the invalidation queue" });
        };
        let outcome = queue.submit(&mut self.registers, &self.clock, self.timeout_us, self.capabilities, memory, batch);
        if outcome.is_err() {
            self.poisoned = true;
        }
        Ok(outcome?)
    }

    /// Makes the unit notice a change of a second-stage table that is cached under `domain`: invalidates what the
    /// change asks for, and where mappings were only added, only what a unit of this kind needs for that.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] before [`Unit::enable_queue`]; [`Error::Timeout`] of a write-buffer flush;
    /// [`Error::Invalidation`]: translations may still be cached, the unit is poisoned, and the pages that were
    /// unmapped must not be given to anybody.
    pub fn invalidate<M: DmaMemory, I: InputAddress>(
        &mut self,
        memory: &mut M,
        domain: DomainId,
        change: &Invalidation<I>,
    ) -> Result<IotlbInvalidated, Error> {
        let (start, bytes) = (change.start.to_u64(), change.len);
        if change.only_added && !self.capabilities.caching_mode() {
            self.flush_write_buffer()?;
        } else {
            let range = IotlbInvalidation::Range {
                domain,
                start: Iova::new(start),
                bytes,
                leaves_only: !change.tables_changed,
            };
            self.invalidate_iotlb(memory, [range])?;
        }
        Ok(IotlbInvalidated {
            root: change.root,
            start,
            bytes,
            tables_changed: change.tables_changed,
            only_added: change.only_added,
        })
    }

    /// Invalidates parts of the IOTLB, in batches of one wait each, and returns when hardware no longer holds or
    /// uses any of the translations and, where the unit can drain, requests in flight are done.
    ///
    /// # Errors
    /// As [`Self::invalidate`].
    pub fn invalidate_iotlb<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        what: impl IntoIterator<Item = IotlbInvalidation>,
    ) -> Result<(), Error> {
        const CHUNK: usize = 32;
        let capabilities = self.capabilities;
        let mut batch = [Descriptor::iotlb_global(Drain::default()); CHUNK];
        let mut count = 0;
        for descriptor in what.into_iter().filter_map(|what| what.descriptor(capabilities)) {
            if count == CHUNK {
                self.submit(memory, &batch)?;
                count = 0;
            }
            if let Some(place) = batch.get_mut(count) {
                *place = descriptor;
                count += 1;
            }
        }
        match batch.get(..count) {
            Some(rest) if !rest.is_empty() => self.submit(memory, rest),
            _ => Ok(()),
        }
    }
}
