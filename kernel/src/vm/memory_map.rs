//! A guest's physical addresses: what is where beside its memory and its devices' registers.

use crate::vm::rom;
use addr::GuestPhys;
use core::ops::Range;

/// Where memory goes on above the holes of the first MiB.
pub const HIGH_MEMORY: u64 = 0x10_0000;
/// The ACPI tables, in the guest's ROM behind what the loader puts there. The root pointer is first.
pub const ACPI_TABLES: Range<GuestPhys> = GuestPhys::new(0xf_8000)..GuestPhys::new(0xf_f000);
/// Configuration space of PCI segment 0, bus 0, by memory (ECAM): 4 KiB a function.
pub const ECAM: Range<GuestPhys> = GuestPhys::new(0xe000_0000)..GuestPhys::new(0xe010_0000);
/// Where devices' registers may be below 4 GiB: under and over the configuration space. A guest's memory ends below.
pub const DEVICE_WINDOWS: [Range<GuestPhys>; 2] = [GuestPhys::new(0x8000_0000)..ECAM.start, ECAM.end..IO_APIC];
/// Where they may be above 4 GiB, as far as the processor's addresses reach.
pub const HIGH_DEVICE_WINDOW_START: GuestPhys = GuestPhys::new(1 << 32);
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
