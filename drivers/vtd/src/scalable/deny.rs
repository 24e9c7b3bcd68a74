//! Taking everything from a device, without telling hardware.

use super::tables::{directory_entries, read_context, read_pasid_entry, table};
use crate::memory::{DmaMemory, at, store};
use crate::registers::Registers;
use crate::spec::pasid::{TABLE_ENTRIES, TABLE_ENTRY_BYTES};
use crate::spec::scalable_context::PRESENT;
use crate::unit::Unit;
use crate::wait::Clock;
use addr::{Bdf, DomainId, HostPhys};

/// The most domain ids that are invalidated one by one; of more, everything is.
const MAXIMUM_DOMAINS: usize = 8;

/// The domain ids of some entries.
#[derive(Default)]
pub(super) struct Domains {
    list: [Option<DomainId>; MAXIMUM_DOMAINS],
    pub too_many: bool,
}

impl Domains {
    fn add(&mut self, domain: DomainId) {
        let place = self.list.iter_mut().find(|place| place.is_none_or(|known| known == domain));
        match place {
            Some(place) => *place = Some(domain),
            None => self.too_many = true,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = DomainId> + Clone {
        self.list.into_iter().flatten()
    }
}

/// `Unit::deny`: takes everything from a device, without telling hardware.
pub(super) fn deny<R: Registers, C: Clock>(unit: &mut Unit<R, C>, mut memory: &mut dyn DmaMemory, source: Bdf) -> bool {
    unit.deny_all(&mut memory, source).is_some()
}

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Makes the context entry and every PASID table entry of a device not present, each by one store. Answers under
    /// which domain ids something may be cached; `None` if there was nothing.
    pub(super) fn deny_all<M: DmaMemory>(&mut self, memory: &mut M, source: Bdf) -> Option<Domains> {
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
}
