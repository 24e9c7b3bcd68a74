//! A guest's platform: memory map, virtual APIC, PCI bus, serial port, loader.

pub mod instruction;
pub mod local_apic;
pub mod pci;
