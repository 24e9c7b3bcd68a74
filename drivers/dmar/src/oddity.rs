//! What a sane firmware does not write, and what harms nobody.

use core::fmt;

use addr::HostPhys;

/// Something that the specification does not allow or that makes no sense, and that leaves no doubt about which unit serves
/// what. For those who look at a table, and for the author of the firmware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Oddity {
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
    /// A unit names the same thing twice.
    DuplicateScope {
        /// Where the first scope begins, in bytes from the table's start.
        first: usize,
        /// Where the second scope begins.
        second: usize,
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

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IncludePciAllNotLast { segment, register_base } => {
                write!(f, "DMAR: unit {register_base} says INCLUDE_PCI_ALL and is not the last of segment {segment}")
            }
            Self::UnitWithoutDevices { register_base } => write!(f, "DMAR: unit {register_base} serves no device"),
            Self::AffinityOfUnknownUnit { register_base } => {
                write!(f, "DMAR: affinity of the unknown unit {register_base}")
            }
            Self::SecondAffinity { register_base } => write!(f, "DMAR: unit {register_base} has two affinities"),
            Self::DuplicateScope { first, second } => {
                write!(f, "DMAR: device scopes at {first:#x} and {second:#x} name the same")
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
