//! What the firmware says about the machine, read from the bytes of its tables: bounded, and never with trust.

use crate::machine::firmware_tables::{Dmar, Fadt, Madt, Mcfg, Tables};
use addr::HostPhys;
use alloc::vec::Vec;

/// Bytes of the header that every table begins with.
const HEADER_BYTES: usize = 36;
/// I/O APICs and ECAM windows that are looked at; a table that names more is not of this world.
const MAXIMUM_ENTRIES: usize = 64;

/// An I/O APIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoApic {
    /// Its id: what the DMAR table calls its enumeration id.
    pub id: u8,
    /// Where its registers are.
    pub address: HostPhys,
    /// The global system interrupt of its first pin.
    pub gsi_base: u32,
}

/// A window of memory-mapped configuration space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ecam {
    /// Where bus 0 of the segment would be.
    pub address: HostPhys,
    /// The PCI segment.
    pub segment: u16,
    /// First and last bus.
    pub buses: (u8, u8),
}

/// How an interrupt line signals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line {
    /// Its global system interrupt.
    pub gsi: u32,
    /// Active low instead of high.
    pub active_low: bool,
    /// Level-triggered instead of edge-triggered.
    pub level: bool,
}

/// What the firmware says.
#[derive(Default, Debug)]
pub struct Firmware {
    /// The DMAR table's bytes.
    pub dmar: Option<Vec<u8>>,
    /// The I/O APICs.
    pub io_apics: Vec<IoApic>,
    /// The windows of configuration space.
    pub ecam: Vec<Ecam>,
    /// The power management timer's port.
    pub pm_timer_port: Option<u16>,
    overrides: Vec<(u8, Line)>,
}

impl Firmware {
    /// Reads the tables.
    pub fn read(tables: &Tables) -> Self {
        let mut firmware = Self { dmar: tables.copy::<Dmar>(), ..Self::default() };
        if let Some(madt) = tables.copy::<Madt>() {
            firmware.read_madt(&madt);
        }
        if let Some(mcfg) = tables.copy::<Mcfg>() {
            firmware.read_mcfg(&mcfg);
        }
        firmware.pm_timer_port = tables.copy::<Fadt>().and_then(|fadt| pm_timer_port(&fadt));
        firmware
    }

    /// How ISA interrupt `irq` reaches the I/O APICs: edge-triggered, active high and one to one unless overridden.
    pub fn isa_line(&self, irq: u8) -> Line {
        let usual = Line { gsi: irq.into(), active_low: false, level: false };
        self.overrides.iter().find(|(source, _)| *source == irq).map_or(usual, |(_, line)| *line)
    }

    /// Multiple APIC Description Table (ACPI 5.2.12).
    fn read_madt(&mut self, table: &[u8]) {
        const IO_APIC: u8 = 1;
        const INTERRUPT_SOURCE_OVERRIDE: u8 = 2;
        let mut rest = table.get(HEADER_BYTES + 8..).unwrap_or_default();
        while let Some([kind, length]) = rest.first_chunk::<2>().copied() {
            let Some((entry, next)) = rest.split_at_checked(length.into()) else { break };
            if entry.len() < 2 {
                break;
            }
            match kind {
                IO_APIC if self.io_apics.len() < MAXIMUM_ENTRIES => {
                    if let (Some(id), Some(address), Some(gsi_base)) =
                        (entry.get(2), u32_at(entry, 4), u32_at(entry, 8))
                    {
                        let address = HostPhys::new(address.into());
                        self.io_apics.push(IoApic { id: *id, address, gsi_base });
                    }
                }
                INTERRUPT_SOURCE_OVERRIDE if self.overrides.len() < MAXIMUM_ENTRIES => {
                    if let (Some(irq), Some(gsi), Some(flags)) = (entry.get(3), u32_at(entry, 4), entry.get(8)) {
                        let line = Line { gsi, active_low: flags & 3 == 3, level: flags >> 2 & 3 == 3 };
                        self.overrides.push((*irq, line));
                    }
                }
                _ => {}
            }
            rest = next;
        }
    }

    /// PCI Express memory-mapped configuration space (PCI Firmware Specification 4.1.2).
    fn read_mcfg(&mut self, table: &[u8]) {
        let entries = table.get(HEADER_BYTES + 8..).unwrap_or_default();
        for entry in entries.chunks_exact(16).take(MAXIMUM_ENTRIES) {
            let address = u64::from(u32_at(entry, 4).unwrap_or(0)) << 32 | u64::from(u32_at(entry, 0).unwrap_or(0));
            let (segment, buses) = (u16::from_le_bytes([entry[8], entry[9]]), (entry[10], entry[11]));
            if address != 0 && buses.0 <= buses.1 {
                self.ecam.push(Ecam { address: HostPhys::new(address), segment, buses });
            }
        }
    }
}

/// The PM timer's I/O port (ACPI 5.2.9): from the extended block if there is one, else from the older field.
fn pm_timer_port(fadt: &[u8]) -> Option<u16> {
    const PM_TMR_BLK: usize = 76;
    const PM_TMR_LEN: usize = 91;
    const X_PM_TMR_BLK: usize = 208;
    const SYSTEM_IO: u8 = 1;
    if fadt.get(PM_TMR_LEN) != Some(&4) {
        return None;
    }
    let extended = fadt.get(X_PM_TMR_BLK..X_PM_TMR_BLK + 12).filter(|block| block[0] == SYSTEM_IO);
    let extended = extended.and_then(|block| u32_at(block, 4)).filter(|port| *port != 0);
    let port = extended.or_else(|| u32_at(fadt, PM_TMR_BLK))?;
    u16::try_from(port).ok().filter(|port| *port != 0)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn madt(entries: &[&[u8]]) -> Vec<u8> {
        [vec![0; HEADER_BYTES + 8], entries.concat()].concat()
    }

    const IO_APIC: [u8; 12] = [1, 12, 7, 0, 0, 0, 0xc0, 0xfe, 24, 0, 0, 0];
    const OVERRIDE: [u8; 10] = [2, 10, 0, 9, 20, 0, 0, 0, 0xf, 0];

    #[test]
    fn io_apics_and_overrides_are_read() {
        let mut firmware = Firmware::default();
        firmware.read_madt(&madt(&[&[0, 8, 0, 0, 1, 0, 0, 0], &IO_APIC, &[0x7f, 3, 0], &OVERRIDE]));
        let expected = IoApic { id: 7, address: HostPhys::new(0xfec0_0000), gsi_base: 24 };
        assert_eq!(firmware.io_apics, [expected]);
        assert_eq!(firmware.isa_line(9), Line { gsi: 20, active_low: true, level: true });
        assert_eq!(firmware.isa_line(4), Line { gsi: 4, active_low: false, level: false });
    }

    #[test]
    fn entries_that_lie_about_their_length_end_the_table() {
        for length in [0, 1, 13, 255] {
            let mut bad = IO_APIC;
            bad[1] = length;
            let mut firmware = Firmware::default();
            firmware.read_madt(&madt(&[&IO_APIC, &bad, &IO_APIC]));
            assert!(firmware.io_apics.len() <= 2, "length {length}");
        }
        let mut firmware = Firmware::default();
        for length in 0..HEADER_BYTES + 60 {
            let table = madt(&[&IO_APIC, &OVERRIDE, &IO_APIC]);
            firmware.read_madt(&table[..length.min(table.len())]);
            firmware.read_mcfg(&vec![0xff; length]);
            let _ = pm_timer_port(&vec![4; length]);
        }
    }

    #[test]
    fn configuration_windows_are_read() {
        let mut table = vec![0; HEADER_BYTES + 8];
        table.extend_from_slice(&[0, 0, 0, 0xb0, 0, 0, 0, 0, 2, 0, 1, 0xff, 0, 0, 0, 0]);
        table.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0, 0, 0, 0]);
        table.extend_from_slice(&[1, 2, 3]);
        let mut firmware = Firmware::default();
        firmware.read_mcfg(&table);
        assert_eq!(firmware.ecam, [Ecam { address: HostPhys::new(0xb000_0000), segment: 2, buses: (1, 0xff) }]);
    }

    #[test]
    fn the_pm_timer_is_found_in_either_place() {
        let mut fadt = vec![0; 244];
        assert_eq!(pm_timer_port(&fadt), None);
        fadt[91] = 4;
        fadt[76..78].copy_from_slice(&[0x08, 0x06]);
        assert_eq!(pm_timer_port(&fadt), Some(0x608));
        fadt[208] = 1;
        fadt[212..214].copy_from_slice(&[0x08, 0x04]);
        assert_eq!(pm_timer_port(&fadt), Some(0x408));
        assert_eq!(pm_timer_port(&fadt[..116]), Some(0x608), "an old table is shorter");
    }
}
