//! A guest's platform: memory map, virtual APIC, PCI bus, serial port, loader.

pub mod acpi;
pub mod archive;
pub mod clock;
pub mod cpuid;
pub mod cpuid_leaf;
pub mod exits;
pub mod extended_state;
pub mod guest;
pub mod guest_paging;
pub mod instruction;
pub mod io_apic;
pub mod loader;
pub mod local_apic;
pub mod memory;
pub mod memory_map;
pub mod msr;
pub mod paravirtual_eoi;
pub mod pci;
pub mod platform;
pub mod register_mapping;
pub mod rom;
pub mod serial;
pub mod speculation;
pub mod virtual_apic;
