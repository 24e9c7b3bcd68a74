//! [`Unit::attach`] in scalable mode: one translation for one PASID of a device, or for its requests without PASID.

use super::tables::{pasid_entry, read_context, read_pasid_entry};
use crate::error::Error;
use crate::memory::{DmaMemory, at, publish, store};
use crate::mode::Gap;
use crate::registers::Registers;
use crate::spec::capability::Capabilities;
use crate::spec::invalidation::{Descriptor, Drain};
use crate::spec::pasid::{NESTED, Pasid, PasidEntry, SECOND_STAGE, TABLE_ENTRY_BYTES};
use crate::translation::{Attachment, Translation};
use crate::unit::Unit;
use crate::wait::Clock;
use addr::{Bdf, DomainId, HostPhys};

impl<R: Registers, C: Clock> Unit<R, C> {
    /// [`Unit::attach`].
    pub(crate) fn attach_scalable<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        attachment: Attachment,
        gap: Gap,
    ) -> Result<(), Error> {
        let Attachment { source, pasid, domain, translation } = attachment;
        self.refuse_if_poisoned()?;
        self.check_domain(domain)?;
        let rid_pasid = self.effective_pasid(None)?;
        let pasid = self.effective_pasid(pasid)?;
        let new = translation.entry(self.capabilities, domain)?;
        let context = self.scalable_context_or_create(memory, source, rid_pasid)?;
        let entry = self.pasid_entry_or_create(memory, source, context, pasid)?;
        let old = read_pasid_entry(memory, entry);
        let changed = if old.is_present() && exchange(memory, self.capabilities, entry, old, new) {
            self.flush_write_buffer().and_then(|()| self.forget_pasid(memory, source, pasid, old))
        } else if old.is_present() && gap == Gap::Forbidden {
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

    /// [`Unit::detach`].
    pub(crate) fn detach_scalable<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        pasid: Option<Pasid>,
    ) -> Result<(), Error> {
        let pasid = self.effective_pasid(pasid)?;
        match self.attached_entry(memory, source, pasid) {
            Some(entry) => self.withdraw_pasid(memory, source, pasid, entry),
            None => Ok(()),
        }
    }

    /// [`Unit::attachment`].
    pub(crate) fn scalable_attachment<M: DmaMemory>(
        &self,
        memory: &M,
        source: Bdf,
        pasid: Option<Pasid>,
    ) -> Option<(DomainId, Translation)> {
        let pasid = self.effective_pasid(pasid).ok()?;
        let entry = read_pasid_entry(memory, self.attached_entry(memory, source, pasid)?);
        if !entry.is_present() {
            return None;
        }
        Some((entry.domain(), Translation::of(entry)?))
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

    /// Where the PASID table entry is, if the device has one. It and the context entry need not be present.
    fn attached_entry<M: DmaMemory>(&self, memory: &M, source: Bdf, pasid: Pasid) -> Option<HostPhys> {
        pasid_entry(memory, read_context(memory, self.scalable_context(memory, source)?), pasid)
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
        let pages = match old.translation_type() {
            SECOND_STAGE | NESTED => Descriptor::iotlb_domain(old.domain(), Drain::of(self.capabilities)),
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
