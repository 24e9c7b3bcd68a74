//! The MSI-X table in the function's memory.

use crate::MsixCapability;
use crate::spec::msi::{ENTRY_ADDRESS, ENTRY_ADDRESS_HIGH, ENTRY_DATA, ENTRY_MASKED, ENTRY_SIZE, ENTRY_VECTOR_CONTROL};

/// The table's memory: uncached, 32-bit accesses, offsets in bytes from the start of the table.
pub trait MsixTableAccess {
    /// Reads 32 bits.
    fn read32(&self, offset: u64) -> u32;
    /// Writes 32 bits.
    fn write32(&mut self, offset: u64, value: u32);
}

/// Writes the entries of a function's table. The function must answer in memory space meanwhile: with it off, reads
/// give all ones and writes are lost.
#[derive(Debug)]
pub struct MsixTableDriver<A> {
    access: A,
    entries: u16,
}

impl<A: MsixTableAccess> MsixTableDriver<A> {
    /// For the table of `capability`, without touching it.
    pub fn new(access: A, capability: &MsixCapability) -> Self {
        Self { access, entries: capability.entries }
    }

    /// The number of entries.
    pub fn entries(&self) -> u16 {
        self.entries
    }

    /// Masks every entry, and clears the address and data that an earlier owner left. To be done before MSI-X is enabled.
    pub fn mask_and_clear_all(&mut self) {
        for entry in 0..self.entries {
            self.program(entry, 0, 0);
        }
    }

    /// Whether the table answers as after [`Self::mask_and_clear_all`]: nothing at its place reads as all ones.
    pub fn is_clear(&self) -> bool {
        let masked = self.access.read32(ENTRY_VECTOR_CONTROL) & ENTRY_MASKED != 0;
        masked && self.access.read32(ENTRY_ADDRESS) == 0
    }

    /// Masks the entry and then writes where it sends what. It stays masked: [`Self::set_masked`] lets it go. Returns
    /// whether there is such an entry.
    pub fn program(&mut self, entry: u16, address: u64, data: u32) -> bool {
        if !self.set_masked(entry, true) {
            return false;
        }
        let start = u64::from(entry) * ENTRY_SIZE;
        self.access.write32(start + ENTRY_ADDRESS, address as u32);
        self.access.write32(start + ENTRY_ADDRESS_HIGH, (address >> 32) as u32);
        self.access.write32(start + ENTRY_DATA, data);
        true
    }

    /// Masks or unmasks the entry, and reads back, so that the write has arrived when this returns: from then on a masked
    /// entry sends nothing. The other bits of vector control are reserved and kept. Returns whether there is such an entry.
    pub fn set_masked(&mut self, entry: u16, masked: bool) -> bool {
        if entry >= self.entries {
            return false;
        }
        let offset = u64::from(entry) * ENTRY_SIZE + ENTRY_VECTOR_CONTROL;
        let control = self.access.read32(offset) & !ENTRY_MASKED;
        self.access.write32(offset, if masked { control | ENTRY_MASKED } else { control });
        self.access.read32(offset);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MsixRegion;
    use std::vec::Vec;

    struct Fake {
        memory: [u32; 8],
        writes: Vec<(u64, u32)>,
    }

    impl MsixTableAccess for Fake {
        fn read32(&self, offset: u64) -> u32 {
            self.memory[offset as usize / 4]
        }
        fn write32(&mut self, offset: u64, value: u32) {
            self.memory[offset as usize / 4] = value;
            self.writes.push((offset, value));
        }
    }

    fn driver() -> MsixTableDriver<Fake> {
        let region = MsixRegion { bar: 3, offset: 0, length: 32 };
        let capability = MsixCapability { offset: 0xA0, entries: 2, table: region, pending_bits: region };
        MsixTableDriver::new(Fake { memory: [0xABCD_0000; 8], writes: Vec::new() }, &capability)
    }

    #[test]
    fn an_entry_is_masked_before_it_changes_and_stays_masked() {
        let mut table = driver();
        assert!(table.program(1, 0x1_FEE0_0018, 0x7));
        assert_eq!(table.access.writes, [(28, 0xABCD_0001), (16, 0xFEE0_0018), (20, 1), (24, 7)]);
        assert!(table.set_masked(1, false));
        assert_eq!(table.access.memory[7], 0xABCD_0000);
    }

    #[test]
    fn every_entry_is_masked_and_cleared() {
        let mut table = driver();
        table.mask_and_clear_all();
        assert_eq!(table.access.memory, [0, 0, 0, 0xABCD_0001, 0, 0, 0, 0xABCD_0001]);
        assert!(table.is_clear());
        table.set_masked(0, false);
        assert!(!table.is_clear());
        table.access.memory = [u32::MAX; 8];
        assert!(!table.is_clear(), "nothing is there");
    }

    #[test]
    fn entries_that_are_not_there_are_not_written() {
        let mut table = driver();
        assert!(!table.program(2, 0, 0) && !table.set_masked(u16::MAX, true));
        assert!(table.access.writes.is_empty());
    }
}
