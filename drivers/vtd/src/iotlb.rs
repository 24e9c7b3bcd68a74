//! Invalidation of translations, and the proof that it is complete.

use crate::device_tlb::DeviceTlbs;
use crate::error::Error;
use crate::memory::DmaMemory;
use crate::queue::Submitted;
use crate::registers::Registers;
use crate::spec::capability::Capabilities;
use crate::spec::invalidation::{Descriptor, Drain};
use crate::unit::Unit;
use crate::wait::Clock;
use addr::{DomainId, HostPhys, Iova, PAGE_SIZE};
use paging::{Flush, InputAddress, Invalidation, InvalidationComplete};

/// The most descriptors for one range. More cost hardware more than walking the rest of the domain again.
const MAXIMUM_BLOCKS: u64 = 4;

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
    /// The domain that it is about, unless it is about all.
    pub(crate) fn domain(self) -> Option<DomainId> {
        match self {
            Self::Global => None,
            Self::Domain(domain) | Self::Range { domain, .. } => Some(domain),
        }
    }

    /// Whether the whole domain is invalidated.
    pub(crate) fn is_whole_domain(self, capabilities: Capabilities) -> bool {
        match self {
            Self::Global => false,
            Self::Domain(_) => true,
            Self::Range { bytes: 0, .. } => false,
            Self::Range { start, bytes, .. } => {
                let (_, _, blocks) = blocks(start, bytes, capabilities);
                !capabilities.page_selective_invalidation() || blocks > MAXIMUM_BLOCKS
            }
        }
    }

    /// The fewest descriptors for it: page-selective where the smallest aligned blocks that cover the range, each within
    /// CAP.MAMV, are no more than [`MAXIMUM_BLOCKS`], else the whole domain. None when the range is empty.
    pub(crate) fn descriptors(self, capabilities: Capabilities) -> impl Iterator<Item = Descriptor> {
        let drain = Drain::of(capabilities);
        let (mut next, mut left) = (0, 0);
        let (mut whole, mut pages) = (None, None);
        match self {
            Self::Global => whole = Some(Descriptor::iotlb_global(drain)),
            Self::Domain(domain) => whole = Some(Descriptor::iotlb_domain(domain, drain)),
            Self::Range { bytes: 0, .. } => {}
            Self::Range { domain, .. } if self.is_whole_domain(capabilities) => {
                whole = Some(Descriptor::iotlb_domain(domain, drain));
            }
            Self::Range { domain, start, bytes, leaves_only } => {
                let (first, last, blocks) = blocks(start, bytes, capabilities);
                pages = Some((domain, last, leaves_only));
                (next, left) = (first, blocks);
            }
        }
        let largest = largest_block(capabilities);
        core::iter::from_fn(move || {
            if let Some(whole) = whole.take() {
                return Some(whole);
            }
            let (domain, last, leaves_only) = pages.filter(|_| left != 0)?;
            left -= 1;
            let first = next;
            let end = (first | ((1 << largest) - 1)).min(last);
            // The number of low bits in which first and last page differ: the block's size as a power of two.
            let mask = (u64::BITS - (first ^ end).leading_zeros()) as u8;
            next = end + 1;
            let block = Iova::new((first >> mask << mask) * PAGE_SIZE);
            Some(Descriptor::iotlb_pages(domain, block, mask, leaves_only, drain))
        })
    }
}

/// CAP.MAMV: the largest block of one descriptor, as a power of two pages. A page's number has 52 bits.
fn largest_block(capabilities: Capabilities) -> u8 {
    capabilities.maximum_address_mask().min(52)
}

/// The first and the last page of a range that is not empty, and how many blocks of the largest size it touches.
fn blocks(start: Iova, bytes: u64, capabilities: Capabilities) -> (u64, u64, u64) {
    let first = start.as_u64() / PAGE_SIZE;
    let last = start.as_u64().saturating_add(bytes - 1) / PAGE_SIZE;
    let largest = largest_block(capabilities);
    (first, last, (last >> largest) - (first >> largest) + 1)
}

impl IotlbInvalidation {
    /// The descriptors for the device-TLBs that it concerns.
    fn device_descriptors(self, devices: DeviceTlbs) -> impl Iterator<Item = Descriptor> {
        let (domain, first, last) = match self {
            Self::Global => (None, 0, u64::MAX / PAGE_SIZE),
            Self::Domain(domain) => (Some(domain), 0, u64::MAX / PAGE_SIZE),
            Self::Range { domain, start, bytes, .. } => {
                let last = start.as_u64().saturating_add(bytes.saturating_sub(1)) / PAGE_SIZE;
                (Some(domain), start.as_u64() / PAGE_SIZE, last)
            }
        };
        let none = matches!(self, Self::Range { bytes: 0, .. });
        devices.descriptors(domain, first, last).filter(move |_| !none)
    }
}

/// The proof that *one* unit has forgotten the translations that an [`Invalidation`] names, under one domain id.
///
/// Made by [`Unit::invalidate`] and [`Unit::invalidate_first_stage`] alone, after the unit has reported completion. Where several units walk the same
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

impl IotlbInvalidated {
    /// The proof for a change that the unit has just been made to forget.
    pub(crate) fn of<I: InputAddress>(change: &Invalidation<I>) -> Self {
        Self {
            root: change.root,
            start: change.start.to_u64(),
            bytes: change.len,
            tables_changed: change.tables_changed,
            only_added: change.only_added,
        }
    }
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
        Ok(IotlbInvalidated::of(change))
    }

    /// Ends a change of a second-stage table that this unit alone walks, under `domain` alone: makes the unit notice it, and
    /// gives the tables that it detached back. Does both in one for whoever needs neither apart; with several units or
    /// domain ids, or several changes at once, see [`Self::invalidate`] and [`Batch`](crate::Batch).
    ///
    /// # Errors
    /// Those of [`Self::invalidate`]; the detached tables are lost then, for the unit may still walk them.
    pub fn finish<M: DmaMemory, I: InputAddress>(
        &mut self,
        memory: &mut M,
        domain: DomainId,
        flush: Flush<I>,
    ) -> Result<(), Error> {
        let Some(change) = flush.invalidation() else { return Ok(()) };
        let proof = self.invalidate(memory, domain, change)?;
        // The proof is of this very change, and not refused.
        flush.complete(&proof, memory).or(Ok(()))
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
        let submitted = self.begin_iotlb(memory, what)?;
        self.complete(memory, submitted)
    }

    /// Tells hardware to forget parts of the IOTLB, and of the device-TLBs that were filled from there.
    pub(crate) fn begin_iotlb<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        what: impl IntoIterator<Item = IotlbInvalidation>,
    ) -> Result<Submitted, Error> {
        let (capabilities, devices) = (self.capabilities, self.device_tlbs);
        let mut descriptors = what.into_iter().flat_map(|what| {
            // The unit's own first: a device asks again, and must not be answered from there.
            what.descriptors(capabilities).chain(what.device_descriptors(devices))
        });
        self.begin(memory, &mut descriptors)
    }
}
