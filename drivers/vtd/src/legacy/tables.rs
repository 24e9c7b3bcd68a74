//! Where a device's context entry is, and its changes by one store.

use crate::error::{Error, Step};
use crate::memory::{DmaMemory, at, publish, store};
use crate::registers::Registers;
use crate::spec::capability::Capabilities;
use crate::spec::context::{ContextEntry, ENTRY_BYTES, PRESENT, TABLE_MASK, root_entry_low};
use crate::unit::Unit;
use crate::wait::Clock;
use addr::{Bdf, DomainId, HostPhys, PAGE_SIZE};

/// The context entry at an address.
pub(super) fn read<M: DmaMemory>(memory: &M, entry: HostPhys) -> ContextEntry {
    ContextEntry { low: memory.read_u64(entry), high: memory.read_u64(at(entry, 8)) }
}

/// Makes an entry present that is not.
pub(super) fn make_present<M: DmaMemory>(
    memory: &mut M,
    capabilities: Capabilities,
    entry: HostPhys,
    new: ContextEntry,
) {
    store(memory, capabilities, at(entry, 8), new.high);
    store(memory, capabilities, entry, new.low);
}

/// Changes a present entry by one store, if that can be done.
pub(super) fn exchange<M: DmaMemory>(
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

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Where the context entry of `source` is, if it has a context table.
    pub(super) fn context_entry<M: DmaMemory>(&self, memory: &M, source: Bdf) -> Option<HostPhys> {
        let root = memory.read_u64(at(self.root_table?, u64::from(source.bus()) * ENTRY_BYTES));
        let table = HostPhys::new(root & TABLE_MASK);
        (root & PRESENT != 0).then(|| at(table, u64::from(source.devfn()) * ENTRY_BYTES))
    }

    /// The context entry of `source`, if it is present.
    pub(super) fn present_entry<M: DmaMemory>(&self, memory: &M, source: Bdf) -> Option<ContextEntry> {
        Some(read(memory, self.context_entry(memory, source)?)).filter(|entry| entry.is_present())
    }

    pub(super) fn context_entry_or_create<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
    ) -> Result<HostPhys, Error> {
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

    /// Takes everything from a device, without telling hardware; answers under which domain id something of it may be
    /// cached, or `None` if there was nothing.
    pub(crate) fn deny_legacy<M: DmaMemory>(&mut self, memory: &mut M, source: Bdf) -> Option<DomainId> {
        let entry = self.context_entry(memory, source)?;
        let old = read(memory, entry);
        if !old.is_present() {
            return None;
        }
        store(memory, self.capabilities, entry, 0);
        Some(old.domain())
    }
}
