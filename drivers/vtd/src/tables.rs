//! Root and context tables: which device is translated by which second-stage table.
//!
//! A table that is not there denies. A context entry is never changed while present: it is made not present by one
//! store, what was cached of it is invalidated under the domain id that it *had*, and only then the new entry is
//! written, its high half first and the half with the present bit last, each by one store. At no moment can hardware
//! read one half of one entry and one half of another.

use crate::error::{Error, Step};
use crate::memory::{at, store};
use crate::spec::capability::Levels;
use crate::spec::context::{ContextEntry, ENTRY_BYTES, PRESENT, TABLE_MASK, root_entry_low};
use crate::spec::invalidation::{Descriptor, Drain};
use crate::wait::Clock;
use crate::{DmaMemory, Registers, Unit};
use addr::{Bdf, DomainId, HostPhys, PAGE_SIZE};

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Lets `source` reach memory by the second-stage table at `table`, and by nothing else. Replaces an assignment
    /// that stands; between the two the device reaches nothing. When the call returns, no translation by the old one
    /// is cached, and DMA by it is over where the unit can drain.
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
        self.refuse_if_poisoned()?;
        if domain.0 == 0 || u32::from(domain.0) >= self.capabilities.domains() {
            return Err(Error::DomainOutOfRange(domain));
        }
        if !self.capabilities.supports_levels(levels) {
            return Err(Error::LevelsUnsupported(levels.count()));
        }
        if table.as_u64() == 0 || !table.is_aligned(PAGE_SIZE) || table.as_u64() >> 52 != 0 {
            return Err(Error::BadTable(table));
        }
        let entry = self.context_entry_or_create(memory, source)?;
        self.withdraw(memory, source, entry)?;

        let new = ContextEntry::new(table, levels, domain);
        store(memory, self.capabilities, at(entry, 8), new.high);
        store(memory, self.capabilities, entry, new.low);
        if let Err(error) = self.announce(memory, source, domain) {
            store(memory, self.capabilities, entry, 0);
            return Err(error);
        }
        Ok(())
    }

    /// Takes everything from `source`: it reaches nothing when the call returns, nothing of it is cached, and its
    /// DMA is over where the unit can drain. Does nothing where nothing is assigned. Works on a poisoned unit too.
    ///
    /// # Errors
    /// [`Error::Invalidation`]: translations may still be cached. Give neither the pages nor the domain id to anybody.
    pub fn clear<M: DmaMemory>(&mut self, memory: &mut M, source: Bdf) -> Result<(), Error> {
        match self.context_entry(memory, source) {
            Some(entry) => self.withdraw(memory, source, entry),
            None => Ok(()),
        }
    }

    /// The domain and second-stage table that `source` is assigned to, if any.
    pub fn assignment<M: DmaMemory>(&self, memory: &M, source: Bdf) -> Option<(DomainId, HostPhys)> {
        let entry = read(memory, self.context_entry(memory, source)?);
        entry.is_present().then(|| (entry.domain(), entry.table()))
    }

    /// Makes a context entry not present, without telling hardware; answers what invalidates it, or `None` if there was
    /// nothing.
    pub(crate) fn deny<M: DmaMemory>(&mut self, memory: &mut M, source: Bdf) -> Option<[Descriptor; 2]> {
        let entry = self.context_entry(memory, source)?;
        let old = read(memory, entry);
        if !old.is_present() {
            return None;
        }
        store(memory, self.capabilities, entry, 0);
        let drain = Drain { writes: self.capabilities.write_draining(), reads: self.capabilities.read_draining() };
        let domain = old.domain();
        Some([Descriptor::context_cache_device(domain, source), Descriptor::iotlb_domain(domain, drain)])
    }

    /// Makes a context entry not present and forgets it.
    fn withdraw<M: DmaMemory>(&mut self, memory: &mut M, source: Bdf, entry: HostPhys) -> Result<(), Error> {
        let old = read(memory, entry);
        if !old.is_present() {
            // Not present is not forgotten, if it was an invalidation that failed before.
            return if self.poisoned { self.invalidate_all_translations(memory) } else { Ok(()) };
        }
        store(memory, self.capabilities, entry, 0);
        self.invalidate_assignment(memory, source, old.domain(), old.domain())
    }

    /// Invalidates a context-cache entry, and when that is done the translations of a domain: the other way round, the
    /// IOTLB could be filled again from the cached context entry (section 6.2.2.1).
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
        self.submit(memory, &[Descriptor::context_cache_device(tag, source)])?;
        let drain = Drain { writes: self.capabilities.write_draining(), reads: self.capabilities.read_draining() };
        self.submit(memory, &[Descriptor::iotlb_domain(domain, drain)])
    }

    /// Invalidates the whole context cache, and when that is done the whole IOTLB.
    pub(crate) fn invalidate_all_translations<M: DmaMemory>(&mut self, memory: &mut M) -> Result<(), Error> {
        self.submit(memory, &[Descriptor::context_cache_global()])?;
        let drain = Drain { writes: self.capabilities.write_draining(), reads: self.capabilities.read_draining() };
        self.submit(memory, &[Descriptor::iotlb_global(drain)])
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
