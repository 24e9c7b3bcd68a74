//! What is suspicious about a table whose structures are each usable.

use core::fmt;

use addr::HostPhys;

/// Something that the specification forbids, or that a sane firmware does not write. None of them stops a lookup that
/// is still unambiguous; all of them belong in the log.
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
    /// A unit with INCLUDE_PCI_ALL stands before another of its segment; section 8.3 wants it last. Harmless here.
    IncludePciAllNotLast {
        /// The segment.
        segment: u16,
        /// Register base of the INCLUDE_PCI_ALL unit.
        register_base: HostPhys,
    },
    /// A unit names no device and does not say INCLUDE_PCI_ALL. Harmless; seen on servers.
    UnitWithoutDevices {
        /// Register base of the unit.
        register_base: HostPhys,
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
    /// An RHSA is about a unit that no DRHD describes.
    AffinityOfUnknownUnit {
        /// The register base in the RHSA.
        register_base: HostPhys,
    },
    /// Two RHSAs are about one unit; the first counts.
    SecondAffinity {
        /// The register base in both.
        register_base: HostPhys,
    },
    /// Scopes of two units name the same device, I/O APIC, HPET or ACPI device: nobody knows which unit serves it.
    ContradictoryScopes {
        /// Where the first scope begins, in bytes from the table's start.
        first: usize,
        /// Where the second scope begins.
        second: usize,
    },
    /// A unit names the same thing twice.
    DuplicateScope {
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
    /// A reserved region is for no device. Harmless; seen on real machines.
    RegionWithoutDevices {
        /// Where the RMRR begins, in bytes from the table's start.
        region: usize,
    },
    /// Two ANDDs have the same device number.
    SecondAcpiDevice {
        /// The device number.
        device_number: u8,
    },
    /// A unit names an ACPI device that no ANDD declares.
    UndeclaredAcpiDevice {
        /// Where the scope begins, in bytes from the table's start.
        offset: usize,
        /// The device number.
        device_number: u8,
    },
    /// An ANDD declares a device that no unit names: its DMA is not remapped.
    AcpiDeviceWithoutUnit {
        /// The device number.
        device_number: u8,
    },
    /// A unit names the source of an I/O APIC's or HPET's interrupts, but the table lacks INTR_REMAP. Harmless; seen on
    /// real machines. Only the first such scope is found.
    InterruptSourceWithoutRemapping {
        /// Where the scope begins, in bytes from the table's start.
        offset: usize,
    },
    /// X2APIC_OPT_OUT without INTR_REMAP, which gives it no meaning. Harmless; seen on real machines.
    X2apicOptOutAlone,
    /// A structure stands after one of a higher type; section 8.2 wants them in numerical order. Harmless.
    OutOfOrder {
        /// Where the structure begins, in bytes from the table's start.
        offset: usize,
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
            Self::IncludePciAllNotLast { segment, register_base } => {
                write!(f, "DMAR: unit {register_base} says INCLUDE_PCI_ALL and is not the last of segment {segment}")
            }
            Self::UnitWithoutDevices { register_base } => write!(f, "DMAR: unit {register_base} serves no device"),
            Self::OverlappingRegions { first, second } => {
                write!(f, "DMAR: reserved regions at {first:#x} and {second:#x} overlap")
            }
            Self::BeyondHostAddressWidth { offset } => {
                write!(f, "DMAR: structure at {offset:#x} lies beyond the host address width")
            }
            Self::AffinityOfUnknownUnit { register_base } => {
                write!(f, "DMAR: affinity of the unknown unit {register_base}")
            }
            Self::SecondAffinity { register_base } => write!(f, "DMAR: unit {register_base} has two affinities"),
            Self::ContradictoryScopes { first, second } => {
                write!(f, "DMAR: device scopes at {first:#x} and {second:#x} give one device to two units")
            }
            Self::DuplicateScope { first, second } => {
                write!(f, "DMAR: device scopes at {first:#x} and {second:#x} name the same")
            }
            Self::RegionCoversUnit { region, register_base } => {
                write!(f, "DMAR: reserved region at {region:#x} covers registers of the unit {register_base}")
            }
            Self::RegionInInterruptRange { region } => {
                write!(f, "DMAR: reserved region at {region:#x} overlaps the interrupt addresses")
            }
            Self::RegionWithoutDevices { region } => write!(f, "DMAR: reserved region at {region:#x} is for no device"),
            Self::SecondAcpiDevice { device_number } => {
                write!(f, "DMAR: ACPI device {device_number} is declared twice")
            }
            Self::UndeclaredAcpiDevice { offset, device_number } => {
                write!(f, "DMAR: device scope at {offset:#x} names the undeclared ACPI device {device_number}")
            }
            Self::AcpiDeviceWithoutUnit { device_number } => {
                write!(f, "DMAR: no unit serves ACPI device {device_number}")
            }
            Self::InterruptSourceWithoutRemapping { offset } => {
                write!(
                    f,
                    "DMAR: device scope at {offset:#x} is about interrupts, which INTR_REMAP says are not remapped"
                )
            }
            Self::X2apicOptOutAlone => write!(f, "DMAR: X2APIC_OPT_OUT without INTR_REMAP"),
            Self::OutOfOrder { offset } => write!(f, "DMAR: structure at {offset:#x} stands after a higher type"),
        }
    }
}
