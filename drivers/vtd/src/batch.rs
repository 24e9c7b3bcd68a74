//! Changes collected for one unit, to be forgotten together: one wait and one tail write however many there are.

use crate::error::Error;
use crate::interface::Interface;
use crate::iotlb::IotlbInvalidation;
use crate::memory::DmaMemory;
use crate::queue::Submitted;
use crate::registers::Registers;
use crate::unit::Unit;
use crate::wait::Clock;
use addr::{DomainId, HostPhys, Iova};
use paging::{InputAddress, Invalidation, InvalidationComplete};

/// Ranges that a batch keeps apart. Beyond, ranges of one table become one, and at last everything.
const MAXIMUM: usize = 16;

/// One range of one table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Item {
    root: HostPhys,
    domain: DomainId,
    start: u64,
    end: u64,
    tables_changed: bool,
    only_added: bool,
}

impl Item {
    fn same_table(&self, other: &Self) -> bool {
        self.root == other.root && self.domain == other.domain
    }

    fn touches(&self, other: &Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    fn union(&self, other: &Self) -> Self {
        Self {
            start: self.start.min(other.start),
            end: self.end.max(other.end),
            tables_changed: self.tables_changed || other.tables_changed,
            only_added: self.only_added && other.only_added,
            ..*self
        }
    }

    fn invalidation(self) -> IotlbInvalidation {
        IotlbInvalidation::Range {
            domain: self.domain,
            start: Iova::new(self.start),
            bytes: self.end - self.start,
            leaves_only: !self.tables_changed,
        }
    }

    /// Whether an invalidation of this is one of `change` too.
    fn covers<I: InputAddress>(&self, change: &Invalidation<I>) -> bool {
        let start = change.start.to_u64();
        self.root == change.root
            && (!self.only_added || change.only_added)
            // With the invalidation hint set, pointers to tables stayed cached: it frees no table.
            && (self.tables_changed || !change.tables_changed)
            && start >= self.start
            && start.saturating_add(change.len) <= self.end
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Items {
    list: [Option<Item>; MAXIMUM],
    everything: bool,
}

/// What one unit is to forget, collected from as many changes as one likes.
///
/// ```
/// # use paging::{InputAddress, Invalidation};
/// # use vtd::*;
/// # fn f<R: Registers, C: Clock, M: DmaMemory, I: InputAddress>(
/// #     units: &mut [(Unit<R, C>, M)], changes: &[(addr::DomainId, Invalidation<I>)]
/// # ) -> Result<(), Error> {
/// // Several units work at the same time: each is told first, and then each is awaited.
/// let mut under_way = [const { None }; 8];
/// for ((unit, memory), place) in units.iter_mut().zip(&mut under_way) {
///     let mut batch = Batch::new();
///     changes.iter().for_each(|(domain, change)| batch.add(*domain, change));
///     *place = Some(unit.submit_batch(memory, batch)?);
/// }
/// for ((unit, memory), place) in units.iter_mut().zip(under_way) {
///     if let Some(submitted) = place {
///         let _proof: BatchInvalidated = unit.complete_batch(memory, submitted)?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "hardware forgets nothing before the batch is submitted"]
#[derive(PartialEq, Eq, Debug)]
pub struct Batch {
    items: Items,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { items: Items { list: [None; MAXIMUM], everything: false } }
    }

    /// Whether there is nothing to forget.
    pub fn is_empty(&self) -> bool {
        !self.items.everything && self.items.list.iter().all(Option::is_none)
    }

    /// Adds a change of a table that is cached under `domain`.
    pub fn add<I: InputAddress>(&mut self, domain: DomainId, change: &Invalidation<I>) {
        let start = change.start.to_u64();
        let mut new = Item {
            root: change.root,
            domain,
            start,
            end: start.saturating_add(change.len),
            tables_changed: change.tables_changed,
            only_added: change.only_added,
        };
        // Neighbours become one, and the one may have neighbours.
        while let Some(place) = self.place(|item| item.same_table(&new) && item.touches(&new)) {
            new = place.take().map_or(new, |item| new.union(&item));
        }
        if let Some(place) = self.items.list.iter_mut().find(|place| place.is_none()) {
            *place = Some(new);
        } else if let Some(place) = self.place(|item| item.same_table(&new)) {
            *place = place.map(|item| item.union(&new));
        } else {
            self.items.everything = true;
        }
    }

    fn place(&mut self, wanted: impl Fn(&Item) -> bool) -> Option<&mut Option<Item>> {
        self.items.list.iter_mut().find(|place| place.as_ref().is_some_and(&wanted))
    }
}

/// A batch that a unit is at work on.
#[must_use = "the unit may not have forgotten before the batch is complete"]
#[derive(PartialEq, Eq, Debug)]
pub struct SubmittedBatch {
    items: Items,
    submitted: Submitted,
    /// The queue that it went into, if not by registers.
    queue: Option<HostPhys>,
}

/// The proof that *one* unit has forgotten what was in a batch.
///
/// Made by [`Unit::complete_batch`] alone. As with [`crate::IotlbInvalidated`], where several units walk the same table,
/// each must have completed.
#[derive(PartialEq, Eq, Debug)]
pub struct BatchInvalidated {
    items: Items,
}

impl<I: InputAddress> InvalidationComplete<I> for BatchInvalidated {
    fn covers(&self, change: &Invalidation<I>) -> bool {
        self.items.everything || self.items.list.iter().flatten().any(|item| item.covers(change))
    }
}

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Tells hardware to forget what is in a batch, by one wait and one tail write (if the batch fits the ring, as it
    /// does unless many devices have device-TLBs). Work on other units may be given before this is awaited.
    ///
    /// # Errors
    /// As [`Unit::invalidate`]; nothing of the batch may be given to anybody.
    pub fn submit_batch<M: DmaMemory>(&mut self, memory: &mut M, batch: Batch) -> Result<SubmittedBatch, Error> {
        let Batch { items } = batch;
        let caching_mode = self.capabilities.caching_mode();
        let everything = items.everything.then_some(IotlbInvalidation::Global);
        // What was only added was not cached, unless the unit caches what is absent.
        let of =
            move |place: Option<Item>| place.filter(|item| caching_mode || !item.only_added).map(Item::invalidation);
        let capabilities = self.capabilities;
        let list = items.list.into_iter().filter_map(of).enumerate().filter(|_| !items.everything);
        let wanted = list.filter_map(move |(index, wanted)| {
            let domain = wanted.domain();
            let others = || items.list.into_iter().filter_map(of);
            if !others().any(|other| other.domain() == domain && other.is_whole_domain(capabilities)) {
                return Some(wanted);
            }
            // Where the whole domain is forgotten, it is so once, and no part of it besides.
            let first = others().position(|other| other.domain() == domain);
            (first == Some(index)).then_some(domain.map_or(wanted, IotlbInvalidation::Domain))
        });
        let mut wanted = everything.into_iter().chain(wanted).peekable();
        let submitted = if wanted.peek().is_some() {
            self.begin_iotlb(memory, wanted)?
        } else {
            // An invalidation would have flushed the write buffers by itself (section 6.8).
            self.flush_write_buffer()?;
            Submitted::NOTHING
        };
        Ok(SubmittedBatch { items, submitted, queue: self.queue_identity() })
    }

    /// Waits until a batch is done that this unit was told of.
    ///
    /// # Errors
    /// As [`Unit::invalidate`]; [`Error::OtherUnit`].
    pub fn complete_batch<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        batch: SubmittedBatch,
    ) -> Result<BatchInvalidated, Error> {
        let SubmittedBatch { items, submitted, queue } = batch;
        if queue != self.queue_identity() {
            return Err(Error::OtherUnit);
        }
        self.complete(memory, submitted)?;
        Ok(BatchInvalidated { items })
    }

    fn queue_identity(&self) -> Option<HostPhys> {
        match &self.interface {
            Some(Interface::Queue(queue)) => Some(queue.identity()),
            _ => None,
        }
    }
}
