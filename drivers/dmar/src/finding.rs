//! What is suspicious about a table whose structures are each usable.

use core::fmt;

use addr::HostPhys;

/// A contradiction, or what endangers isolation. None of them stops a lookup that is still unambiguous; all of them belong
/// in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finding {
    /// The table names no usable unit at all.
    NoUnit,
    /// Two DRHDs have the same register base: one unit, described twice.
    DuplicateUnit {
        /// The register base.
        register_base: HostPhys,
    },
    /// The register windows of two units overlap.
    OverlappingUnits {
        /// Register base of the first.
        first: HostPhys,
        /// Register base of the second.
        second: HostPhys,
    },
    /// Two units of one segment say INCLUDE_PCI_ALL: no unit is known to serve what neither names.
    SecondIncludePciAll {
        /// The segment.
        segment: u16,
        /// Register base of the first.
        first: HostPhys,
        /// Register base of the second.
        second: HostPhys,
    },
    /// Two reserved regions overlap.
    OverlappingRegions {
        /// Where the first structure begins, in bytes from the table's start.
        first: usize,
        /// Where the second structure begins.
        second: usize,
    },
    /// A reserved region or a unit lies beyond the platform's host address width.
    BeyondHostAddressWidth {
        /// Where the structure begins, in bytes from the table's start.
        offset: usize,
    },
    /// Scopes of two units name the same device, I/O APIC, HPET or ACPI device: nobody knows which unit serves it.
    ContradictoryScopes {
        /// Where the first scope begins, in bytes from the table's start.
        first: usize,
        /// Where the second scope begins.
        second: usize,
    },
    /// A reserved region holds registers of a unit: the devices that have the region could switch the unit off.
    RegionCoversUnit {
        /// Where the RMRR begins, in bytes from the table's start.
        region: usize,
        /// Register base of the unit.
        register_base: HostPhys,
    },
    /// A reserved region overlaps the addresses 0xfee00000 to 0xfeefffff, where a write is an interrupt (section 3.14).
    RegionInInterruptRange {
        /// Where the RMRR begins, in bytes from the table's start.
        region: usize,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUnit => write!(f, "DMAR: no usable remapping unit"),
            Self::DuplicateUnit { register_base } => write!(f, "DMAR: unit {register_base} is described twice"),
            Self::OverlappingUnits { first, second } => write!(f, "DMAR: units {first} and {second} overlap"),
            Self::SecondIncludePciAll { segment, first, second } => {
                write!(f, "DMAR: units {first} and {second} both say INCLUDE_PCI_ALL for segment {segment}")
            }
            Self::OverlappingRegions { first, second } => {
                write!(f, "DMAR: reserved regions at {first:#x} and {second:#x} overlap")
            }
            Self::BeyondHostAddressWidth { offset } => {
                write!(f, "DMAR: structure at {offset:#x} lies beyond the host address width")
            }
            Self::ContradictoryScopes { first, second } => {
                write!(f, "DMAR: device scopes at {first:#x} and {second:#x} give one device to two units")
            }
            Self::RegionCoversUnit { region, register_base } => {
                write!(f, "DMAR: reserved region at {region:#x} covers registers of the unit {register_base}")
            }
            Self::RegionInInterruptRange { region } => {
                write!(f, "DMAR: reserved region at {region:#x} overlaps the interrupt addresses")
            }
        }
    }
}
