//! The I/O APIC: redirection entries behind an index and a data window.

use crate::spec::io_apic::{ID, MAX_REDIRECTION_ENTRIES, REDIRECTION_TABLE, VERSION, redirection};
use core::fmt;

/// The two registers of an I/O APIC: what the window shows depends on the index. Both are 32 bits of uncached memory.
pub trait IoApicAccess {
    /// Writes the index register, at offset 0.
    fn select(&mut self, index: u8);
    /// Reads the data window, at offset 0x10.
    fn read_window(&mut self) -> u32;
    /// Writes the data window, at offset 0x10.
    fn write_window(&mut self, value: u32);
}

/// Why the I/O APIC refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IoApicError {
    /// The version register reads all ones: nothing answers there.
    Absent,
    /// The entry's number, and how many there are.
    NoSuchEntry {
        /// The number asked for.
        entry: u16,
        /// The number of entries.
        count: u16,
    },
}

impl fmt::Display for IoApicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(f, "no I/O APIC answers: the version register reads all ones"),
            Self::NoSuchEntry { entry, count } => write!(f, "redirection entry {entry} of {count}"),
        }
    }
}

impl core::error::Error for IoApicError {}

/// One I/O APIC.
#[derive(Debug)]
pub struct IoApic<A> {
    access: A,
    version: u8,
    entry_count: u16,
}

impl<A: IoApicAccess> IoApic<A> {
    /// Reads the version register, and changes nothing.
    ///
    /// # Errors
    /// [`IoApicError::Absent`] when it reads all ones.
    pub fn new(mut access: A) -> Result<Self, IoApicError> {
        access.select(VERSION);
        let value = access.read_window();
        if value == u32::MAX {
            return Err(IoApicError::Absent);
        }
        let entry_count = (((value >> 16) & 0xFF) as u16 + 1).min(MAX_REDIRECTION_ENTRIES);
        Ok(Self { access, version: value as u8, entry_count })
    }

    /// The version, as read at the start; 0x20 and above have an EOI register.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// The number of redirection entries, 1 to 120.
    pub fn entry_count(&self) -> u16 {
        self.entry_count
    }

    /// The id, 4 bits. It names the chip in the ACPI tables of old; a VT-d unit knows it by its DMAR scope.
    pub fn read_id(&mut self) -> u8 {
        (self.read(ID) >> 24) as u8 & 0xF
    }

    /// Reads redirection entry `entry`.
    ///
    /// # Errors
    /// [`IoApicError::NoSuchEntry`].
    pub fn read_entry(&mut self, entry: u16) -> Result<u64, IoApicError> {
        let low = self.low_index(entry)?;
        Ok(u64::from(self.read(low)) | u64::from(self.read(low + 1)) << 32)
    }

    /// Writes redirection entry `entry`: a legacy one, or a remappable one that the remapping unit's driver made.
    /// Masked, then the high half, then the low half with the mask bit of `value`: at no time is an unmasked entry
    /// half old and half new.
    ///
    /// # Errors
    /// [`IoApicError::NoSuchEntry`].
    pub fn write_entry(&mut self, entry: u16, value: u64) -> Result<(), IoApicError> {
        let low = self.mask(entry)?;
        self.write(low + 1, (value >> 32) as u32);
        self.write(low, value as u32);
        Ok(())
    }

    /// Masks redirection entry `entry` and leaves the rest of it.
    ///
    /// # Errors
    /// [`IoApicError::NoSuchEntry`].
    pub fn mask_entry(&mut self, entry: u16) -> Result<(), IoApicError> {
        self.mask(entry).map(|_| ())
    }

    /// Masks every entry: to be done before interrupt remapping is switched on, because a legacy entry is then blocked
    /// and reported as a fault at every interrupt.
    pub fn mask_all(&mut self) {
        for entry in 0..self.entry_count {
            // Every number below the count is an entry.
            let _ = self.mask(entry);
        }
    }

    fn mask(&mut self, entry: u16) -> Result<u8, IoApicError> {
        let low = self.low_index(entry)?;
        let value = self.read(low);
        self.write(low, value | redirection::MASKED as u32);
        Ok(low)
    }

    fn low_index(&self, entry: u16) -> Result<u8, IoApicError> {
        if entry < self.entry_count {
            Ok(REDIRECTION_TABLE + 2 * entry as u8)
        } else {
            Err(IoApicError::NoSuchEntry { entry, count: self.entry_count })
        }
    }

    fn read(&mut self, index: u8) -> u32 {
        self.access.select(index);
        self.access.read_window()
    }

    fn write(&mut self, index: u8, value: u32) {
        self.access.select(index);
        self.access.write_window(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    struct Fake {
        index: u8,
        registers: [u32; 256],
        writes: Vec<(u8, u32)>,
    }

    fn fake(version: u32) -> Fake {
        let mut registers = [0; 256];
        registers[usize::from(VERSION)] = version;
        Fake { index: 0, registers, writes: Vec::new() }
    }

    impl IoApicAccess for Fake {
        fn select(&mut self, index: u8) {
            self.index = index;
        }
        fn read_window(&mut self) -> u32 {
            self.registers[usize::from(self.index)]
        }
        fn write_window(&mut self, value: u32) {
            self.writes.push((self.index, value));
            self.registers[usize::from(self.index)] = value;
        }
    }

    #[test]
    fn an_entry_is_masked_before_its_halves_change() {
        let mut io_apic = IoApic::new(fake(0x0017_0020)).unwrap();
        io_apic.access.registers[0x14] = 0x0000_0031;
        io_apic.access.registers[0x15] = 0x0F00_0000;
        io_apic.write_entry(2, 0x0005_0000_0000_8040).unwrap();
        assert_eq!(io_apic.access.writes, [(0x14, 0x1_0031), (0x15, 0x0005_0000), (0x14, 0x8040)]);
        assert_eq!(io_apic.read_entry(2), Ok(0x0005_0000_0000_8040));
    }

    #[test]
    fn every_entry_is_masked_and_no_other_register_is_written() {
        let mut io_apic = IoApic::new(fake(0x0017_0020)).unwrap();
        assert_eq!((io_apic.version(), io_apic.entry_count()), (0x20, 24));
        io_apic.mask_all();
        let written: Vec<u8> = io_apic.access.writes.iter().map(|(index, _)| *index).collect();
        assert_eq!(written, (0..24).map(|entry| 0x10 + 2 * entry).collect::<Vec<u8>>());
        assert!(io_apic.access.writes.iter().all(|(_, value)| *value == 0x1_0000));
    }

    #[test]
    fn entries_beyond_the_last_are_refused() {
        let mut io_apic = IoApic::new(fake(0x0017_0020)).unwrap();
        assert_eq!(io_apic.write_entry(24, 0), Err(IoApicError::NoSuchEntry { entry: 24, count: 24 }));
        assert!(io_apic.read_entry(u16::MAX).is_err());
        assert!(io_apic.access.writes.is_empty());
    }

    #[test]
    fn an_impossible_count_does_not_wrap_the_index() {
        let mut io_apic = IoApic::new(fake(0x00FF_0020)).unwrap();
        assert_eq!(io_apic.entry_count(), 120);
        io_apic.mask_all();
        assert!(io_apic.access.writes.iter().all(|(index, _)| *index >= 0x10));
    }

    #[test]
    fn nothing_there_is_said_so() {
        assert_eq!(IoApic::new(fake(u32::MAX)).err(), Some(IoApicError::Absent));
    }

    #[test]
    fn the_id_is_four_bits() {
        let mut io_apic = IoApic::new(fake(0x0017_0020)).unwrap();
        io_apic.access.registers[0] = 0xFA12_3456;
        assert_eq!(io_apic.read_id(), 0xA);
    }
}
