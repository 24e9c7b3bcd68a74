//! A guest's physical addresses: what is where beside its memory and its [PCI functions](crate::vm::pci).

use crate::vm::rom;
use addr::GuestPhys;
use core::ops::Range;

/// Where memory goes on above the holes of the first MiB.
pub const HIGH_MEMORY: u64 = 0x10_0000;
/// The ACPI tables, in the guest's ROM behind what the loader puts there. The root pointer is first.
pub const ACPI_TABLES: Range<GuestPhys> = GuestPhys::new(0xf_8000)..GuestPhys::new(0xf_f000);
/// The I/O APIC's registers: where every PC has them.
pub const IO_APIC: GuestPhys = GuestPhys::new(0xfec0_0000);
/// The local APIC's registers after reset.
pub const LOCAL_APIC: GuestPhys = GuestPhys::new(0xfee0_0000);

/// The addresses that are neither memory nor a device's to use: interrupt controllers, and what devices' interrupt
/// messages are written to.
pub const fn reserved() -> Range<GuestPhys> {
    IO_APIC..GuestPhys::new(0xff00_0000)
}

const _: () = assert!(rom::START.as_u64() < ACPI_TABLES.start.as_u64() && ACPI_TABLES.end.as_u64() < rom::END.as_u64());
