//! What a unit in legacy mode does for [`Unit::assign`], [`Unit::attach`] and their kin.

use super::tables::{exchange, make_present, read};
use crate::checks::{NOT_SCALABLE, check_table};
use crate::device_tlb::Holds;
use crate::error::Error;
use crate::memory::{DmaMemory, store};
use crate::mode::{Assignment, Gap};
use crate::registers::Registers;
use crate::spec::capability::Levels;
use crate::spec::context::ContextEntry;
use crate::spec::invalidation::{Descriptor, Drain};
use crate::translation::{Attachment, Translation};
use crate::unit::Unit;
use crate::wait::Clock;
use addr::{Bdf, DomainId, HostPhys};

impl<R: Registers, C: Clock> Unit<R, C> {
    /// [`Unit::assign`]: gives a device a second-stage table.
    pub(crate) fn change_legacy<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        assignment: Assignment,
        gap: Gap,
    ) -> Result<(), Error> {
        let Assignment { domain, table, levels, device_tlb } = assignment;
        self.refuse_if_poisoned()?;
        self.check_domain(domain)?;
        if !self.capabilities.supports_levels(levels) {
            return Err(Error::LevelsUnsupported(levels.count()));
        }
        check_table(table)?;
        let mut new = ContextEntry::new(table, levels, domain);
        if device_tlb.is_some() {
            self.check_device_tlb(source)?;
            new = new.with_device_tlb();
        }
        self.change_entry(memory, source, new, gap)?;
        if let Some(device_tlb) = device_tlb {
            self.device_tlbs.add(self.capabilities, source, Holds::Domain(domain), device_tlb);
        }
        Ok(())
    }

    /// [`Unit::attach`]: what of it legacy mode can do.
    pub(crate) fn attach_legacy<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        attachment: Attachment,
        gap: Gap,
    ) -> Result<(), Error> {
        let Attachment { source, pasid, domain, translation } = attachment;
        self.refuse_if_poisoned()?;
        self.check_domain(domain)?;
        match translation {
            _ if pasid.is_some() => Err(NOT_SCALABLE),
            Translation::SecondStage { table, levels } => {
                self.change_legacy(memory, source, Assignment { domain, table, levels, device_tlb: None }, gap)
            }
            Translation::PassThrough if self.capabilities.pass_through() => {
                // AW must be the largest that the unit has (section 9.3).
                let largest = [Levels::Five, Levels::Four, Levels::Three];
                let levels = largest.into_iter().find(|levels| self.capabilities.supports_levels(*levels));
                let levels = levels.ok_or(Error::LevelsUnsupported(0))?;
                self.change_entry(memory, source, ContextEntry::pass_through(levels, domain), gap)
            }
            Translation::PassThrough => Err(Error::Unsupported { capability: "pass-through (ECAP.PT)" }),
            Translation::FirstStage { .. } | Translation::Nested { .. } => Err(NOT_SCALABLE),
        }
    }

    /// [`Unit::clear`].
    pub(crate) fn clear_legacy<M: DmaMemory>(&mut self, memory: &mut M, source: Bdf) -> Result<(), Error> {
        match self.context_entry(memory, source) {
            Some(entry) => self.withdraw(memory, source, entry),
            None => Ok(()),
        }
    }

    /// [`Unit::assignment`].
    pub(crate) fn legacy_assignment<M: DmaMemory>(&self, memory: &M, source: Bdf) -> Option<(DomainId, HostPhys)> {
        let entry = self.present_entry(memory, source)?;
        (!entry.is_pass_through()).then(|| (entry.domain(), entry.table()))
    }

    /// [`Unit::attachment`].
    pub(crate) fn legacy_attachment<M: DmaMemory>(&self, memory: &M, source: Bdf) -> Option<(DomainId, Translation)> {
        let entry = self.present_entry(memory, source)?;
        let translation = match entry.is_pass_through() {
            true => Translation::PassThrough,
            false => Translation::SecondStage { table: entry.table(), levels: entry.levels()? },
        };
        Some((entry.domain(), translation))
    }

    /// Gives a device a context entry, in the place of the one that it may have.
    // Put into its caller, it would make programs larger by a quarter of itself.
    #[inline(never)]
    fn change_entry<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        new: ContextEntry,
        gap: Gap,
    ) -> Result<(), Error> {
        let entry = self.context_entry_or_create(memory, source)?;
        let old = read(memory, entry);
        let changed = if old.is_present() && exchange(memory, self.capabilities, entry, old, new) {
            self.invalidate_assignment(memory, source, old.domain(), old.domain())
        } else if old.is_present() && gap == Gap::Forbidden {
            return Err(Error::NotAtomic(source));
        } else {
            self.withdraw(memory, source, entry)?;
            make_present(memory, self.capabilities, entry, new);
            self.announce(memory, source, new.domain())
        };
        if let Err(error) = changed {
            // The new entry may be cached by now. Where the unit still works, it forgets it again; where it does not, it
            // is poisoned, and forgets everything before it is used again.
            if self.poisoned {
                store(memory, self.capabilities, entry, 0);
            } else {
                self.withdraw(memory, source, entry)?;
            }
            return Err(error);
        }
        self.device_tlbs.remove(source);
        Ok(())
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

    /// What a unit needs to notice an entry that has become present.
    fn announce<M: DmaMemory>(&mut self, memory: &mut M, source: Bdf, domain: DomainId) -> Result<(), Error> {
        if self.capabilities.caching_mode() {
            // Not-present entries are cached under domain id 0 (section 6.1).
            self.invalidate_assignment(memory, source, DomainId(0), domain)
        } else {
            self.flush_write_buffer()
        }
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
        let drain = Drain::of(self.capabilities);
        let unit = [Descriptor::context_cache_device(tag, source), Descriptor::iotlb_domain(domain, drain)];
        let submitted = self.begin(memory, &mut unit.into_iter().chain(self.device_tlbs.all_of(source)))?;
        self.complete(memory, submitted)
    }
}
