//! What a unit in scalable mode does for the calls that legacy mode has too: the whole device at once.

use super::deny::Domains;
use super::tables::{pasid_entry, read_context, read_pasid_entry};
use crate::error::Error;
use crate::memory::DmaMemory;
use crate::mode::{Assignment, Gap};
use crate::registers::Registers;
use crate::spec::invalidation::{Descriptor, Drain};
use crate::translation::{Attachment, Translation};
use crate::unit::Unit;
use crate::wait::Clock;
use addr::{Bdf, DomainId, HostPhys};

/// [`Unit::assign`]: requests without PASID by a second-stage table.
pub(super) fn change<R: Registers, C: Clock>(
    unit: &mut Unit<R, C>,
    mut memory: &mut dyn DmaMemory,
    source: Bdf,
    assignment: Assignment,
    gap: Gap,
) -> Result<(), Error> {
    let Assignment { domain, table, levels, device_tlb } = assignment;
    if device_tlb.is_some() {
        unit.check_device_tlb(source)?;
    }
    let translation = Translation::SecondStage { table, levels };
    unit.attach_scalable(&mut memory, Attachment { source, pasid: None, domain, translation }, gap)?;
    unit.set_device_tlb(&mut memory, source, device_tlb)
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
    mut memory: &mut dyn DmaMemory,
    source: Bdf,
) -> Result<(), Error> {
    match unit.deny_all(&mut memory, source) {
        Some(domains) => unit.forget_all(&mut memory, source, &domains),
        // Not present is not forgotten, if it was an invalidation that failed before.
        None if unit.poisoned && unit.scalable_context(&memory, source).is_some() => {
            unit.invalidate_all_translations(&mut memory)
        }
        None => Ok(()),
    }
}

impl<R: Registers, C: Clock> Unit<R, C> {
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
        let drain = Drain::of(self.capabilities);
        let domains = domains.iter();
        let pasids = domains.clone().map(Descriptor::pasid_cache_domain);
        let pages = domains.map(|domain| Descriptor::iotlb_domain(domain, drain));
        let unit = core::iter::once(Descriptor::context_cache_device(DomainId(0), source)).chain(pasids).chain(pages);
        let submitted = self.begin(memory, &mut unit.chain(self.device_tlb_of_all(source)))?;
        self.complete(memory, submitted)
    }
}
