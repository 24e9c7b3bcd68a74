//! The interrupt remapping table of one unit: where its entries are, and which are given away.

use crate::entry_map::EntryMap;
use crate::error::Error;
use crate::memory::DmaMemory;
use crate::memory::at;
use crate::spec::interrupt::{DestinationMode, ENTRY_BYTES, Entry};
use crate::spec::registers::IRTA_EIME;
use addr::{HostPhys, PAGE_SIZE};

/// The table of one unit.
#[derive(Debug)]
pub(crate) struct InterruptTable {
    base: HostPhys,
    entries: u32,
    mode: DestinationMode,
    /// Which entries are given away.
    pub map: EntryMap,
}

impl InterruptTable {
    /// Pages of a table of so many entries, or `None` for an impossible number: IRTA.S gives 2 to the power of S + 1,
    /// and the table is whole pages.
    pub(crate) const fn pages(entries: usize) -> Option<usize> {
        if entries.is_power_of_two() && entries >= 256 && entries <= 1 << 16 {
            Some(entries * ENTRY_BYTES as usize / PAGE_SIZE as usize)
        } else {
            None
        }
    }

    /// A table in zeroed memory of [`Self::pages`].
    pub(crate) fn new(base: HostPhys, entries: usize, mode: DestinationMode, map: EntryMap) -> Self {
        Self { base, entries: entries as u32, mode, map }
    }

    pub(crate) fn mode(&self) -> DestinationMode {
        self.mode
    }

    /// The value for IRTA_REG: address, EIME, size.
    pub(crate) fn address_register(&self) -> u64 {
        let extended = if self.mode == DestinationMode::X2Apic { IRTA_EIME } else { 0 };
        self.base.as_u64() | extended | u64::from(self.entries.ilog2() - 1)
    }

    /// Where an entry is, if it is given away.
    pub(crate) fn given<M: DmaMemory>(&self, memory: &M, index: u16) -> Result<HostPhys, Error> {
        if self.map.is_given(memory, index) {
            Ok(at(self.base, u64::from(index) * ENTRY_BYTES))
        } else {
            Err(Error::BadHandle(index))
        }
    }
}

/// The entry at a place.
pub(crate) fn read<M: DmaMemory>(memory: &M, place: HostPhys) -> Entry {
    Entry { low: memory.read_u64(place), high: memory.read_u64(at(place, 8)) }
}
