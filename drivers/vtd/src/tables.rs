//! Root and context tables of legacy mode: which device is translated by which second-stage table.
//!
//! A table that is not there denies. At no moment can hardware read one half of one context entry and one half of another.
//! A present entry changes by one store: of all 128 bits where memory can do that, or of one half where the other is
//! the same. What was cached of it is invalidated under the domain id that it *had*. Where one store does not do, the entry
//! is made not present, what was cached is invalidated, and only then the new entry is written, its high half first and
//! the half with the present bit last; in between the device reaches nothing. Reserved memory of firmware that the
//! device uses must not be gone for that long: [`Unit::replace`] changes an entry by one store or not at all.

use crate::device_tlb::{self, DeviceTlb, Holds};
use crate::error::{Error, Step};
use crate::memory::{at, publish, store};
use crate::scalable::Translation;
use crate::spec::capability::{Capabilities, Levels};
use crate::spec::context::{ContextEntry, ENTRY_BYTES, PRESENT, TABLE_MASK, root_entry_low};
use crate::spec::invalidation::{Descriptor, Drain};
use crate::wait::Clock;
use crate::{DmaMemory, Registers, Unit};
use addr::{Bdf, DomainId, HostPhys, PAGE_SIZE};

/// What a device is to reach.
#[derive(Clone, Copy)]
pub(crate) struct Assignment {
    pub domain: DomainId,
    pub table: HostPhys,
    pub levels: Levels,
    pub device_tlb: Option<DeviceTlb>,
}

/// Whether a device may reach nothing while its assignment changes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gap {
    Allowed,
    Forbidden,
}

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Lets `source` reach memory by the second-stage table at `table`, and by nothing else. Replaces an assignment
    /// that stands, by one store where that can be done; otherwise, between the two, the device reaches nothing. When the
    /// call returns, no translation by the old one is cached, and DMA by it is over where the unit can drain.
    ///
    /// Translations are cached under `domain`: two tables must never have the same one. What `table` leads to stays the
    /// caller's, and must live until the assignment is replaced or cleared.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::OutOfOrder`] before [`Unit::create_root_table`], [`Error::DomainOutOfRange`],
    /// [`Error::LevelsUnsupported`], [`Error::BadTable`], [`Error::OutOfMemory`]: nothing has changed.
    /// [`Error::Invalidation`], [`Error::Timeout`]: the device reaches nothing as far as the tables say.
    pub fn assign<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        domain: DomainId,
        table: HostPhys,
        levels: Levels,
    ) -> Result<(), Error> {
        self.change(memory, source, Assignment { domain, table, levels, device_tlb: None }, Gap::Allowed)
    }

    /// As [`Self::assign`], and lets the device keep translations itself. Turn its ATS on after the call, and off after
    /// [`Self::clear`]: until then it answers invalidations. The device is then trusted with the addresses that it claims to
    /// have been told.
    ///
    /// # Errors
    /// Those of [`Self::assign`]; [`Error::Unsupported`] without ECAP.DT; [`Error::TooManyDeviceTlbs`].
    pub fn assign_with_device_tlb<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        domain: DomainId,
        table: HostPhys,
        levels: Levels,
        device_tlb: DeviceTlb,
    ) -> Result<(), Error> {
        self.change(memory, source, Assignment { domain, table, levels, device_tlb: Some(device_tlb) }, Gap::Allowed)
    }

    /// As [`Self::assign`], but by one store or not at all: what both the old and the new table map is reached at every
    /// moment. It is how a device with reserved memory of firmware (RMRR) moves: that memory is mapped in both. A
    /// device without an assignment gets its first one.
    ///
    /// # Errors
    /// Those of [`Self::assign`]; [`Error::NotAtomic`], and nothing has changed: memory cannot exchange 128 bits
    /// ([`DmaMemory::exchange_u128`]) and domain or levels differ as well as the table.
    pub fn replace<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        domain: DomainId,
        table: HostPhys,
        levels: Levels,
    ) -> Result<(), Error> {
        self.change(memory, source, Assignment { domain, table, levels, device_tlb: None }, Gap::Forbidden)
    }

    fn change<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        assignment: Assignment,
        gap: Gap,
    ) -> Result<(), Error> {
        if let Some(scalable) = self.scalable {
            return (scalable.change)(self, memory, source, assignment, gap);
        }
        let Assignment { domain, table, levels, device_tlb } = assignment;
        self.refuse_if_poisoned()?;
        self.check_domain(domain)?;
        if !self.capabilities.supports_levels(levels) {
            return Err(Error::LevelsUnsupported(levels.count()));
        }
        if table.as_u64() == 0 || !table.is_aligned(PAGE_SIZE) || table.as_u64() >> 52 != 0 {
            return Err(Error::BadTable(table));
        }
        if device_tlb.is_some() && !device_tlb::supported(self.capabilities) {
            return Err(Error::Unsupported { capability: "device-TLBs (ECAP.DT)" });
        }
        if device_tlb.is_some() && !self.device_tlbs.has_room(source) {
            return Err(Error::TooManyDeviceTlbs(source));
        }
        let mut new = ContextEntry::new(table, levels, domain);
        if device_tlb.is_some() {
            new = new.with_device_tlb();
        }
        self.change_entry(memory, source, new, gap)?;
        if let Some(device_tlb) = device_tlb {
            self.device_tlbs.add(self.capabilities, source, Holds::Domain(domain), device_tlb);
        }
        Ok(())
    }

    /// Refuses domain id 0, which caching mode reserves, and those that the unit has not.
    pub(crate) fn check_domain(&self, domain: DomainId) -> Result<(), Error> {
        match domain.0 == 0 || u32::from(domain.0) >= self.capabilities.domains() {
            true => Err(Error::DomainOutOfRange(domain)),
            false => Ok(()),
        }
    }

    /// Gives a device a context entry, in the place of the one that it may have.
    pub(crate) fn change_entry<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        new: ContextEntry,
        gap: Gap,
    ) -> Result<(), Error> {
        let entry = self.context_entry_or_create(memory, source)?;
        let old = read(memory, entry);
        let changed = if !old.is_present() {
            self.withdraw(memory, source, entry)?;
            store(memory, self.capabilities, at(entry, 8), new.high);
            store(memory, self.capabilities, entry, new.low);
            self.announce(memory, source, new.domain())
        } else if exchange(memory, self.capabilities, entry, old, new) {
            self.invalidate_assignment(memory, source, old.domain(), old.domain())
        } else if gap == Gap::Forbidden {
            return Err(Error::NotAtomic(source));
        } else {
            self.withdraw(memory, source, entry)?;
            store(memory, self.capabilities, at(entry, 8), new.high);
            store(memory, self.capabilities, entry, new.low);
            self.announce(memory, source, new.domain())
        };
        if let Err(error) = changed {
            // The new entry may be cached by now. Where the unit still works, it forgets it again; where it does not, it
            // is poisoned, and forgets everything before it is used again.
            if self.poisoned {
                store(memory, self.capabilities, entry, 0);
            } else {
                self.isolate(memory, source)?;
            }
            return Err(error);
        }
        self.device_tlbs.remove(source);
        Ok(())
    }

    /// Takes everything from `source`: it reaches nothing when the call returns, nothing of it is cached, and its
    /// DMA is over where the unit can drain. Does nothing where nothing is assigned. Works on a poisoned unit too.
    ///
    /// # Errors
    /// [`Error::Invalidation`]: translations may still be cached. Give neither the pages nor the domain id to anybody.
    pub fn clear<M: DmaMemory>(&mut self, memory: &mut M, source: Bdf) -> Result<(), Error> {
        if let Some(scalable) = self.scalable {
            return (scalable.clear)(self, memory, source);
        }
        match self.context_entry(memory, source) {
            Some(entry) => self.withdraw(memory, source, entry),
            None => Ok(()),
        }
    }

    /// The domain and second-stage table that `source` is assigned to, if any.
    pub fn assignment<M: DmaMemory>(&self, memory: &M, source: Bdf) -> Option<(DomainId, HostPhys)> {
        if let Some(scalable) = self.scalable {
            return (scalable.assignment)(self, memory, source);
        }
        let entry = self.present_entry(memory, source)?;
        (!entry.is_pass_through()).then(|| (entry.domain(), entry.table()))
    }

    /// The context entry of `source`, if it is present.
    fn present_entry<M: DmaMemory>(&self, memory: &M, source: Bdf) -> Option<ContextEntry> {
        Some(read(memory, self.context_entry(memory, source)?)).filter(|entry| entry.is_present())
    }

    /// What legacy mode knows of [`Unit::attachment`].
    pub(crate) fn legacy_attachment<M: DmaMemory>(&self, memory: &M, source: Bdf) -> Option<(DomainId, Translation)> {
        let entry = self.present_entry(memory, source)?;
        let translation = match entry.is_pass_through() {
            true => Translation::PassThrough,
            false => Translation::SecondStage { table: entry.table(), levels: entry.levels()? },
        };
        Some((entry.domain(), translation))
    }

    /// Takes everything from a device, without telling hardware; answers what invalidates it, in order, or `None` if there was
    /// nothing.
    pub(crate) fn deny<M: DmaMemory>(&mut self, memory: &mut M, source: Bdf) -> Option<[Option<Descriptor>; 3]> {
        let drain = Drain { writes: self.capabilities.write_draining(), reads: self.capabilities.read_draining() };
        if let Some(scalable) = self.scalable {
            return (scalable.deny)(self, memory, source).then_some([
                Some(Descriptor::context_cache_global()),
                Some(Descriptor::pasid_cache_global()),
                Some(Descriptor::iotlb_global(drain)),
            ]);
        }
        let entry = self.context_entry(memory, source)?;
        let old = read(memory, entry);
        if !old.is_present() {
            return None;
        }
        store(memory, self.capabilities, entry, 0);
        self.device_tlbs.remove(source);
        let domain = old.domain();
        let context = Descriptor::context_cache_device(domain, source);
        Some([Some(context), Some(Descriptor::iotlb_domain(domain, drain)), None])
    }

    /// Makes a context entry not present and forgets it.
    fn withdraw<M: DmaMemory>(&mut self, memory: &mut M, source: Bdf, entry: HostPhys) -> Result<(), Error> {
        let old = read(memory, entry);
        if !old.is_present() {
            // Not present is not forgotten, if it was an invalidation that failed before.
            return if self.poisoned { self.invalidate_all_translations(memory) } else { Ok(()) };
        }
        store(memory, self.capabilities, entry, 0);
        self.invalidate_assignment(memory, source, old.domain(), old.domain())?;
        self.device_tlbs.remove(source);
        Ok(())
    }

    /// Invalidates a context-cache entry, then the translations of a domain, then those that the device has kept itself.
    /// The other way round, each could be filled again from the one before; hardware keeps the order in which they
    /// stand in the queue (section 6.5.2.11).
    fn invalidate_assignment<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        tag: DomainId,
        domain: DomainId,
    ) -> Result<(), Error> {
        if !self.root_table_set {
            // Hardware has not seen the table yet; setting it invalidates everything.
            return Ok(());
        }
        let drain = Drain { writes: self.capabilities.write_draining(), reads: self.capabilities.read_draining() };
        let unit = [Descriptor::context_cache_device(tag, source), Descriptor::iotlb_domain(domain, drain)];
        let submitted = self.begin(memory, &mut unit.into_iter().chain(self.device_tlbs.all_of(source)))?;
        self.complete(memory, submitted)
    }

    /// Invalidates the whole context cache, the whole PASID cache if there is one, the whole IOTLB, all device-TLBs.
    pub(crate) fn invalidate_all_translations<M: DmaMemory>(&mut self, memory: &mut M) -> Result<(), Error> {
        let drain = Drain { writes: self.capabilities.write_draining(), reads: self.capabilities.read_draining() };
        let pasids = self.scalable.map(|_| Descriptor::pasid_cache_global());
        let unit = [Some(Descriptor::context_cache_global()), pasids, Some(Descriptor::iotlb_global(drain))];
        let devices = self.device_tlbs.descriptors(None, 0, u64::MAX / PAGE_SIZE);
        let submitted = self.begin(memory, &mut unit.into_iter().flatten().chain(devices))?;
        self.complete(memory, submitted)
    }

    /// What a unit needs to notice an entry that has become present.
    fn announce<M: DmaMemory>(&mut self, memory: &mut M, source: Bdf, domain: DomainId) -> Result<(), Error> {
        if self.capabilities.caching_mode() {
            // Not-present entries are cached under domain id 0 (section 6.1).
            self.invalidate_assignment(memory, source, DomainId(0), domain)
        } else {
            self.flush_write_buffer()
        }
    }

    /// Where the context entry of `source` is, if it has a context table.
    fn context_entry<M: DmaMemory>(&self, memory: &M, source: Bdf) -> Option<HostPhys> {
        let root = memory.read_u64(at(self.root_table?, u64::from(source.bus()) * ENTRY_BYTES));
        let table = HostPhys::new(root & TABLE_MASK);
        (root & PRESENT != 0).then(|| at(table, u64::from(source.devfn()) * ENTRY_BYTES))
    }

    fn context_entry_or_create<M: DmaMemory>(&mut self, memory: &mut M, source: Bdf) -> Result<HostPhys, Error> {
        if let Some(entry) = self.context_entry(memory, source) {
            return Ok(entry);
        }
        let needs = "the root table";
        let root = self.root_table.ok_or(Error::OutOfOrder { step: Step::Assign, needs })?;
        let table = self.allocate(memory, Step::Assign, 1, PAGE_SIZE)?;
        // The table that becomes reachable denies for every device of the bus, as its absence did.
        let entry = at(root, u64::from(source.bus()) * ENTRY_BYTES);
        store(memory, self.capabilities, entry, root_entry_low(table));
        Ok(at(table, u64::from(source.devfn()) * ENTRY_BYTES))
    }
}

fn read<M: DmaMemory>(memory: &M, entry: HostPhys) -> ContextEntry {
    ContextEntry { low: memory.read_u64(entry), high: memory.read_u64(at(entry, 8)) }
}

/// Changes a present entry by one store, if that can be done.
fn exchange<M: DmaMemory>(
    memory: &mut M,
    capabilities: Capabilities,
    entry: HostPhys,
    old: ContextEntry,
    new: ContextEntry,
) -> bool {
    if old.high == new.high {
        store(memory, capabilities, entry, new.low);
        return true;
    }
    if old.low == new.low {
        store(memory, capabilities, at(entry, 8), new.high);
        return true;
    }
    let exchanged = memory.exchange_u128(entry, [old.low, old.high], [new.low, new.high]);
    if exchanged {
        publish(memory, capabilities, entry, ENTRY_BYTES);
    }
    exchanged
}
