//! One translation for one PASID of a device, or for its requests without PASID.

use super::tables::{pasid_entry, read_context, read_pasid_entry};
use super::translation::Translation;
use crate::error::Error;
use crate::memory::{at, publish, store};
use crate::spec::capability::{Capabilities, Levels};
use crate::spec::context::ContextEntry;
use crate::spec::invalidation::{Descriptor, Drain};
use crate::spec::pasid::{NESTED, Pasid, PasidEntry, SECOND_STAGE, TABLE_ENTRY_BYTES};
use crate::tables::Gap;
use crate::wait::Clock;
use crate::{DmaMemory, Registers, Unit};
use addr::{Bdf, DomainId, HostPhys};

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Lets the requests of `source` with `pasid`, or those without PASID for `None`, reach memory as `translation`
    /// says. Replaces a translation that stands, by one store where that can be done (another first-stage table under
    /// the same domain id always can); otherwise, between the two, the requests reach nothing. When the call returns,
    /// nothing of the old one is cached, and DMA by it is over where the unit can drain.
    ///
    /// Second-stage translations are cached under `domain`, all others under `domain` and the PASID: two tables must
    /// never have the same. A table that is attached under several must be invalidated under each.
    ///
    /// In legacy mode `pasid` is `None`, and there is no first stage.
    ///
    /// ```
    /// # use vtd::*;
    /// # use addr::{Bdf, DomainId, HostPhys};
    /// # fn f<R: Registers, C: Clock, M: DmaMemory>(
    /// #     unit: &mut Unit<R, C>, memory: &mut M, nic: Bdf, host: HostPhys, guests: [HostPhys; 2],
    /// # ) -> Result<(), Error> {
    /// // The device itself stays the host's; each of its interfaces goes to a guest of its own (Scalable IOV).
    /// let levels = Levels::Four;
    /// unit.attach(memory, nic, None, DomainId(1), Translation::FirstStage { table: host, levels })?;
    /// for ((number, domain), table) in [(0x41, 2), (0x42, 3)].into_iter().zip(guests) {
    ///     let pasid = Pasid::new(number);
    ///     unit.attach(memory, nic, pasid, DomainId(domain), Translation::SecondStage { table, levels })?;
    /// }
    /// unit.detach(memory, nic, Pasid::new(0x41))
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::OutOfOrder`] before [`Unit::create_root_table`], [`Error::DomainOutOfRange`],
    /// [`Error::PasidOutOfRange`], [`Error::Unsupported`], [`Error::LevelsUnsupported`], [`Error::BadTable`],
    /// [`Error::BadFirstStageTable`], [`Error::OutOfMemory`]: nothing has changed.
    /// [`Error::Invalidation`], [`Error::Timeout`]: the requests reach nothing as far as the tables say.
    pub fn attach<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        pasid: Option<Pasid>,
        domain: DomainId,
        translation: Translation,
    ) -> Result<(), Error> {
        self.change_attachment(memory, source, pasid, domain, translation, Gap::Allowed)
    }

    /// As [`Self::attach`], but by one store or not at all: what both the old and the new translation map is reached at
    /// every moment. What has nothing attached gets its first translation.
    ///
    /// # Errors
    /// Those of [`Self::attach`]; [`Error::NotAtomic`], and nothing has changed: more of the entry differs than one
    /// store can change, which is 64 bits, or 128 where memory can exchange them ([`DmaMemory::exchange_u128`]).
    pub fn reattach<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        pasid: Option<Pasid>,
        domain: DomainId,
        translation: Translation,
    ) -> Result<(), Error> {
        self.change_attachment(memory, source, pasid, domain, translation, Gap::Forbidden)
    }

    pub(super) fn change_attachment<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        pasid: Option<Pasid>,
        domain: DomainId,
        translation: Translation,
        gap: Gap,
    ) -> Result<(), Error> {
        self.refuse_if_poisoned()?;
        self.check_domain(domain)?;
        let Some(scalable) = self.scalable else {
            return self.attach_in_legacy_mode(memory, source, pasid, domain, translation, gap);
        };
        let pasid = self.effective_pasid(pasid)?;
        let new = translation.entry(self.capabilities, domain)?;
        let context = self.scalable_context_or_create(memory, source, scalable.rid_pasid)?;
        let entry = self.pasid_entry_or_create(memory, source, context, pasid)?;
        let old = read_pasid_entry(memory, entry);
        let changed = if !old.is_present() {
            self.make_present(memory, source, pasid, entry, new)
        } else if exchange(memory, self.capabilities, entry, old, new) {
            self.flush_write_buffer().and_then(|()| self.forget_pasid(memory, source, pasid, old))
        } else if gap == Gap::Forbidden {
            return Err(Error::NotAtomic(source));
        } else {
            self.withdraw_pasid(memory, source, pasid, entry)?;
            self.make_present(memory, source, pasid, entry, new)
        };
        if changed.is_err() {
            // The new entry may be cached by now. Where the unit still works, it forgets it again.
            if self.poisoned {
                store(memory, self.capabilities, entry, 0);
            } else {
                self.withdraw_pasid(memory, source, pasid, entry)?;
            }
        }
        changed
    }

    /// Writes an entry that is not present, and makes it so.
    fn make_present<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        pasid: Pasid,
        entry: HostPhys,
        new: PasidEntry,
    ) -> Result<(), Error> {
        let absent = read_pasid_entry(memory, entry).domain();
        let [present, rest @ ..] = new.words;
        for (word, offset) in rest.into_iter().zip((8..).step_by(8)) {
            memory.write_u64(at(entry, offset), word);
        }
        // The entry is one line of the cache: nobody sees the present bit and not the rest.
        memory.write_u64(entry, present);
        publish(memory, self.capabilities, entry, TABLE_ENTRY_BYTES);
        if !self.capabilities.caching_mode() {
            return self.flush_write_buffer();
        }
        if self.root_table_set {
            // An entry that is not present is cached under domain id 0 (section 6.1); some emulated units look at the
            // domain id that stands in it. That of the new entry follows.
            let tags = [DomainId(0), absent];
            self.submit(memory, &tags.map(|tag| Descriptor::pasid_cache_pasid(tag, pasid)))?;
        }
        self.forget_pasid(memory, source, pasid, new)
    }

    /// Takes away what [`Self::attach`] gave: the requests reach nothing when the call returns, nothing of them is
    /// cached, and their DMA is over where the unit can drain. Does nothing where nothing is attached. Works on a
    /// poisoned unit too.
    ///
    /// # Errors
    /// [`Error::PasidOutOfRange`], [`Error::Unsupported`]: there is no such PASID. [`Error::Invalidation`]: translations
    /// may still be cached. Give neither the pages nor the domain id to anybody.
    pub fn detach<M: DmaMemory>(&mut self, memory: &mut M, source: Bdf, pasid: Option<Pasid>) -> Result<(), Error> {
        if self.scalable.is_none() && pasid.is_none() {
            return self.clear(memory, source);
        }
        let pasid = self.effective_pasid(pasid)?;
        match self.attached_entry(memory, source, pasid) {
            Some(entry) => self.withdraw_pasid(memory, source, pasid, entry),
            None => Ok(()),
        }
    }

    /// What is attached, with the domain id that it is cached under.
    pub fn attachment<M: DmaMemory>(
        &self,
        memory: &M,
        source: Bdf,
        pasid: Option<Pasid>,
    ) -> Option<(DomainId, Translation)> {
        if self.scalable.is_none() && pasid.is_none() {
            return self.legacy_attachment(memory, source);
        }
        let pasid = self.effective_pasid(pasid).ok()?;
        let entry = read_pasid_entry(memory, self.attached_entry(memory, source, pasid)?);
        if !entry.is_present() {
            return None;
        }
        Some((entry.domain(), Translation::of(entry)?))
    }

    /// The PASID under which requests are found: RID_PASID for those without.
    pub(super) fn effective_pasid(&self, pasid: Option<Pasid>) -> Result<Pasid, Error> {
        let Some(scalable) = self.scalable else {
            return Err(Error::Unsupported { capability: "scalable mode (Unit::use_scalable_mode)" });
        };
        match pasid {
            None => Ok(scalable.rid_pasid),
            Some(_) if !self.capabilities.pasid() => {
                Err(Error::Unsupported { capability: "requests with PASID (ECAP.PASID)" })
            }
            // The PASID of requests without PASID is not another's.
            Some(pasid) if pasid.as_u32() >> self.capabilities.pasid_bits() != 0 || pasid == scalable.rid_pasid => {
                Err(Error::PasidOutOfRange(pasid))
            }
            Some(pasid) => Ok(pasid),
        }
    }

    /// Where the PASID table entry is, if the device has one. It and the context entry need not be present.
    fn attached_entry<M: DmaMemory>(&self, memory: &M, source: Bdf, pasid: Pasid) -> Option<HostPhys> {
        pasid_entry(memory, read_context(memory, self.scalable_context(memory, source)?), pasid)
    }

    fn attach_in_legacy_mode<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        pasid: Option<Pasid>,
        domain: DomainId,
        translation: Translation,
        gap: Gap,
    ) -> Result<(), Error> {
        if pasid.is_some() {
            return Err(Error::Unsupported { capability: "scalable mode (Unit::use_scalable_mode)" });
        }
        match translation {
            Translation::SecondStage { table, levels } if gap == Gap::Forbidden => {
                self.replace(memory, source, domain, table, levels)
            }
            Translation::SecondStage { table, levels } => self.assign(memory, source, domain, table, levels),
            Translation::PassThrough if self.capabilities.pass_through() => {
                // AW must be the largest that the unit has (section 9.3).
                let largest = [Levels::Five, Levels::Four, Levels::Three];
                let levels = largest.into_iter().find(|levels| self.capabilities.supports_levels(*levels));
                let levels = levels.ok_or(Error::LevelsUnsupported(0))?;
                self.change_entry(memory, source, ContextEntry::pass_through(levels, domain), gap)
            }
            Translation::PassThrough => Err(Error::Unsupported { capability: "pass-through (ECAP.PT)" }),
            Translation::FirstStage { .. } | Translation::Nested { .. } => {
                Err(Error::Unsupported { capability: "scalable mode (Unit::use_scalable_mode)" })
            }
        }
    }

    /// Makes a PASID table entry not present and forgets it.
    fn withdraw_pasid<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        pasid: Pasid,
        entry: HostPhys,
    ) -> Result<(), Error> {
        let old = read_pasid_entry(memory, entry);
        if !old.is_present() {
            // Not present is not forgotten, if it was an invalidation that failed before.
            return if self.poisoned { self.invalidate_all_translations(memory) } else { Ok(()) };
        }
        store(memory, self.capabilities, entry, 0);
        self.forget_pasid(memory, source, pasid, old)
    }

    /// Makes hardware forget what a PASID table entry said: the entry, then the translations by it, then those that the
    /// device has kept itself, as the guidance of section 6.5.3.3 asks for each translation type. The other way round,
    /// each could be filled again from the one before; hardware keeps the order in which they stand in the queue
    /// (section 6.5.2.11).
    fn forget_pasid<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        pasid: Pasid,
        old: PasidEntry,
    ) -> Result<(), Error> {
        if !self.root_table_set {
            // Hardware has not seen the table yet; setting it invalidates everything.
            return Ok(());
        }
        let drain = Drain { writes: self.capabilities.write_draining(), reads: self.capabilities.read_draining() };
        let pages = match old.translation_type() {
            SECOND_STAGE | NESTED => Descriptor::iotlb_domain(old.domain(), drain),
            _ => Descriptor::pasid_iotlb(old.domain(), pasid),
        };
        let unit = [Descriptor::pasid_cache_pasid(old.domain(), pasid), pages];
        let submitted = self.begin(memory, &mut unit.into_iter().chain(self.device_tlb_of(source, pasid)))?;
        self.complete(memory, submitted)
    }
}

/// Changes a present entry by one store, if that can be done: of one word, or of the 128 bits of two.
fn exchange<M: DmaMemory>(
    memory: &mut M,
    capabilities: Capabilities,
    entry: HostPhys,
    old: PasidEntry,
    new: PasidEntry,
) -> bool {
    let differs = |index: &usize| old.words.get(*index) != new.words.get(*index);
    let mut changed = (0..old.words.len()).filter(differs);
    let (Some(first), second, None) = (changed.next(), changed.next(), changed.next()) else {
        // Nothing to change, or too much.
        return old == new;
    };
    let place = at(entry, 8 * first as u64);
    match second {
        None => memory.write_u64(place, new.words[first]),
        Some(second) => {
            let pair = |of: PasidEntry| [of.words[first], of.words[second]];
            let together = first % 2 == 0 && second == first + 1;
            if !together || !memory.exchange_u128(place, pair(old), pair(new)) {
                return false;
            }
        }
    }
    publish(memory, capabilities, entry, TABLE_ENTRY_BYTES);
    true
}
