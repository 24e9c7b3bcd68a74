//! What is suspicious about a table whose structures are each usable.

use core::fmt;

use addr::HostPhys;

use crate::structure::Drhd;
use crate::table::Dmar;

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
        }
    }
}

impl<'a> Dmar<'a> {
    /// Checks the usable structures against each other. What is wrong with a structure by itself is an error in
    /// [`Dmar::structures`]. The work grows with the square of the number of structures.
    pub fn findings(&self) -> impl Iterator<Item = Finding> + use<'a> {
        let dmar = *self;
        let no_unit = dmar.drhds().next().is_none().then_some(Finding::NoUnit);
        let unit_pairs = dmar.drhds().enumerate().flat_map(move |(index, second)| {
            dmar.drhds().take(index).flat_map(move |first| [overlap(first, second), include_pci_all(first, second)])
        });
        let idle = dmar.drhds().filter(|drhd| !drhd.include_pci_all() && drhd.scopes().is_empty());
        let region_pairs = dmar.rmrrs().enumerate().flat_map(move |(index, second)| {
            let overlapping =
                dmar.rmrrs().take(index).filter(move |first| first.base <= second.limit && second.base <= first.limit);
            overlapping.map(move |first| Finding::OverlappingRegions { first: first.offset, second: second.offset })
        });
        let width = u32::from(dmar.host_address_width());
        let outside = move |last: u64| last.checked_shr(width).unwrap_or(0) != 0;
        let units_outside = dmar
            .drhds()
            .filter(move |drhd| outside(drhd.register_base.as_u64() + (drhd.register_size - 1)))
            .map(|drhd| drhd.offset);
        let regions_outside = dmar.rmrrs().filter(move |rmrr| outside(rmrr.limit.as_u64())).map(|rmrr| rmrr.offset);
        let unknown =
            dmar.rhsas().filter(move |rhsa| dmar.drhds().all(|drhd| drhd.register_base != rhsa.register_base));
        no_unit
            .into_iter()
            .chain(unit_pairs.flatten())
            .chain(idle.map(|drhd| Finding::UnitWithoutDevices { register_base: drhd.register_base }))
            .chain(region_pairs)
            .chain(units_outside.chain(regions_outside).map(|offset| Finding::BeyondHostAddressWidth { offset }))
            .chain(unknown.map(|rhsa| Finding::AffinityOfUnknownUnit { register_base: rhsa.register_base }))
    }
}

fn overlap(first: Drhd<'_>, second: Drhd<'_>) -> Option<Finding> {
    let last = |drhd: Drhd<'_>| drhd.register_base.as_u64() + (drhd.register_size - 1);
    let (first_base, second_base) = (first.register_base, second.register_base);
    if first_base == second_base {
        Some(Finding::DuplicateUnit { register_base: first_base })
    } else if first_base.as_u64() <= last(second) && second_base.as_u64() <= last(first) {
        Some(Finding::OverlappingUnits { first: first_base, second: second_base })
    } else {
        None
    }
}

fn include_pci_all(first: Drhd<'_>, second: Drhd<'_>) -> Option<Finding> {
    let segment = first.segment;
    // A unit described twice is found as such; the second description contradicts nothing.
    let same_unit = first.register_base == second.register_base;
    if segment != second.segment || same_unit || !first.include_pci_all() {
        None
    } else if second.include_pci_all() {
        Some(Finding::SecondIncludePciAll { segment, first: first.register_base, second: second.register_base })
    } else {
        Some(Finding::IncludePciAllNotLast { segment, register_base: first.register_base })
    }
}
