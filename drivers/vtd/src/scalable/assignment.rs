//! What a unit in scalable mode does for the calls that legacy mode has too: the whole device at once.

use super::tables::{directory_entries, pasid_entry, read_context, read_pasid_entry, table};
use super::through::Through;
use super::translation::Translation;
use crate::error::Error;
use crate::memory::{at, store};
use crate::spec::invalidation::{Descriptor, Drain};
use crate::spec::pasid::{TABLE_ENTRIES, TABLE_ENTRY_BYTES};
use crate::spec::scalable_context::PRESENT;
use crate::tables::{Assignment, Gap};
use crate::wait::Clock;
use crate::{DmaMemory, Registers, Unit};
use addr::{Bdf, DomainId, HostPhys};

/// The most domain ids that are invalidated one by one; of more, everything is.
const MAXIMUM_DOMAINS: usize = 8;

/// The domain ids of some entries.
#[derive(Default)]
struct Domains {
    list: [Option<DomainId>; MAXIMUM_DOMAINS],
    too_many: bool,
}

impl Domains {
    fn add(&mut self, domain: DomainId) {
        let place = self.list.iter_mut().find(|place| place.is_none_or(|known| known == domain));
        match place {
            Some(place) => *place = Some(domain),
            None => self.too_many = true,
        }
    }
}

/// [`Unit::assign`]: requests without PASID by a second-stage table.
pub(super) fn change<R: Registers, C: Clock>(
    unit: &mut Unit<R, C>,
    memory: &mut dyn DmaMemory,
    source: Bdf,
    assignment: Assignment,
    gap: Gap,
) -> Result<(), Error> {
    let memory = &mut Through(memory);
    let Assignment { domain, table, levels, device_tlb } = assignment;
    if device_tlb.is_some() {
        unit.check_device_tlb(source)?;
    }
    unit.change_attachment(memory, source, None, domain, Translation::SecondStage { table, levels }, gap)?;
    unit.set_device_tlb(memory, source, device_tlb)
}

/// [`Unit::assignment`]: the table of requests without PASID, the second-stage table if there are two.
pub(super) fn assignment<R: Registers, C: Clock>(
    unit: &Unit<R, C>,
    memory: &dyn DmaMemory,
    source: Bdf,
) -> Option<(DomainId, HostPhys)> {
    let context = read_context(memory, unit.scalable_context(memory, source)?);
    let entry = pasid_entry(memory, context, unit.scalable?.rid_pasid)?;
    let entry = read_pasid_entry(memory, entry);
    // No entry is present where the context entry is not.
    if !entry.is_present() {
        return None;
    }
    match Translation::of(entry)? {
        Translation::SecondStage { table, .. } | Translation::FirstStage { table, .. } => Some((entry.domain(), table)),
        Translation::Nested { second, .. } => Some((entry.domain(), second)),
        Translation::PassThrough => None,
    }
}

/// [`Unit::clear`]: every PASID of the device.
pub(super) fn clear<R: Registers, C: Clock>(
    unit: &mut Unit<R, C>,
    memory: &mut dyn DmaMemory,
    source: Bdf,
) -> Result<(), Error> {
    let memory = &mut Through(memory);
    match unit.deny_all(memory, source) {
        Some(domains) => unit.forget_all(memory, source, &domains),
        // Not present is not forgotten, if it was an invalidation that failed before.
        None if unit.poisoned && unit.scalable_context(memory, source).is_some() => {
            unit.invalidate_all_translations(memory)
        }
        None => Ok(()),
    }
}

/// `Unit::deny`: takes everything from a device, without telling hardware.
pub(super) fn deny<R: Registers, C: Clock>(unit: &mut Unit<R, C>, memory: &mut dyn DmaMemory, source: Bdf) -> bool {
    let denied = unit.deny_all(&mut Through(memory), source).is_some();
    unit.device_tlbs.remove(source);
    denied
}

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Makes the context entry and every PASID table entry of a device not present, each by one store. Answers under
    /// which domain ids something may be cached; `None` if there was nothing.
    fn deny_all<M: DmaMemory>(&mut self, memory: &mut M, source: Bdf) -> Option<Domains> {
        let context_entry = self.scalable_context(memory, source)?;
        let context = read_context(memory, context_entry);
        if !context.is_present() {
            return None;
        }
        // The directory stays the device's, for the next time.
        store(memory, self.capabilities, context_entry, context.low & !PRESENT);
        let mut domains = Domains::default();
        for entry in directory_entries(context) {
            if let Some(pasids) = table(memory.read_u64(entry)) {
                self.deny_table(memory, pasids, &mut domains);
            }
        }
        Some(domains)
    }

    fn deny_table<M: DmaMemory>(&self, memory: &mut M, pasids: HostPhys, domains: &mut Domains) {
        for offset in (0..TABLE_ENTRIES * TABLE_ENTRY_BYTES).step_by(TABLE_ENTRY_BYTES as usize) {
            let entry = at(pasids, offset);
            let old = read_pasid_entry(memory, entry);
            if old.is_present() {
                store(memory, self.capabilities, entry, 0);
                domains.add(old.domain());
            }
        }
    }

    /// Makes hardware forget a device: its context entry, then the PASID table entries that it had, then their
    /// translations (section 6.5.3.3).
    fn forget_all<M: DmaMemory>(&mut self, memory: &mut M, source: Bdf, domains: &Domains) -> Result<(), Error> {
        if !self.root_table_set {
            // Hardware has not seen the table yet; setting it invalidates everything.
        } else if domains.too_many {
            self.invalidate_all_translations(memory)?;
        } else {
            self.forget_each(memory, source, domains)?;
        }
        self.device_tlbs.remove(source);
        Ok(())
    }

    fn forget_each<M: DmaMemory>(&mut self, memory: &mut M, source: Bdf, domains: &Domains) -> Result<(), Error> {
        let drain = Drain { writes: self.capabilities.write_draining(), reads: self.capabilities.read_draining() };
        let domains = domains.list.into_iter().flatten();
        let pasids = domains.clone().map(Descriptor::pasid_cache_domain);
        let pages = domains.map(|domain| Descriptor::iotlb_domain(domain, drain));
        let unit = core::iter::once(Descriptor::context_cache_device(DomainId(0), source)).chain(pasids).chain(pages);
        let submitted = self.begin(memory, &mut unit.chain(self.device_tlb_of_all(source)))?;
        self.complete(memory, submitted)
    }
}
