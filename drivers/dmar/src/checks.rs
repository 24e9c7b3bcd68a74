//! The usable structures of a table against each other.

use core::ops::RangeInclusive;

use crate::finding::Finding;
use crate::scope::{DeviceScope, ScopeType};
use crate::structure::{Drhd, Rmrr};
use crate::table::Dmar;

/// Where a write is an interrupt and never reaches memory (section 3.14).
const INTERRUPT_ADDRESSES: RangeInclusive<u64> = 0xfee0_0000..=0xfeef_ffff;

/// A scope, and the unit that has it.
pub(crate) type UnitScope<'a> = (Drhd<'a>, DeviceScope<'a>);

impl<'a> Dmar<'a> {
    /// Checks the usable structures against each other. What is wrong with a structure by itself is an error in
    /// [`Dmar::structures`]; what is strange and harmless is in [`Dmar::oddities`]. The work grows with the square of the
    /// number of structures.
    pub fn findings(&self) -> impl Iterator<Item = Finding> + use<'a> {
        let dmar = *self;
        let no_unit = dmar.drhds().next().is_none().then_some(Finding::NoUnit);
        let units = pairs(dmar.drhds())
            .flat_map(|(first, second)| [overlap(first, second), include_pci_all(first, second)].into_iter().flatten());
        no_unit.into_iter().chain(units).chain(dmar.region_findings()).chain(dmar.width_findings())
    }

    /// Every two scopes that give one device to two units. To ask for the unit of such a device is
    /// [`crate::LookupError::Ambiguous`]; this finds them all without a device to ask for. The work grows with the square
    /// of the number of scopes.
    pub fn contradictory_scopes(&self) -> impl Iterator<Item = Finding> + use<'a> {
        pairs(self.unit_scopes()).filter_map(|(first, second)| contradiction(first, second))
    }

    fn region_findings(self) -> impl Iterator<Item = Finding> + use<'a> {
        let overlapping = pairs(self.rmrrs())
            .filter(|(first, second)| overlaps(&region(first), &region(second)))
            .map(|(first, second)| Finding::OverlappingRegions { first: first.offset, second: second.offset });
        let on_units = self.rmrrs().flat_map(move |rmrr| {
            let covered = self.drhds().filter(move |drhd| overlaps(&window(drhd), &region(&rmrr)));
            covered
                .map(move |Drhd { register_base, .. }| Finding::RegionCoversUnit { region: rmrr.offset, register_base })
        });
        let on_interrupts = self.rmrrs().filter(|rmrr| overlaps(&region(rmrr), &INTERRUPT_ADDRESSES));
        let on_interrupts = on_interrupts.map(|rmrr| Finding::RegionInInterruptRange { region: rmrr.offset });
        overlapping.chain(on_units).chain(on_interrupts)
    }

    fn width_findings(self) -> impl Iterator<Item = Finding> + use<'a> {
        let width = u32::from(self.host_address_width());
        let outside = move |range: RangeInclusive<u64>| range.end().checked_shr(width).unwrap_or(0) != 0;
        let units = self.drhds().filter(move |drhd| outside(window(drhd))).map(|drhd| drhd.offset);
        let regions = self.rmrrs().filter(move |rmrr| outside(region(rmrr))).map(|rmrr| rmrr.offset);
        units.chain(regions).map(|offset| Finding::BeyondHostAddressWidth { offset })
    }

    /// Every readable scope of every unit.
    pub(crate) fn unit_scopes(self) -> impl Iterator<Item = UnitScope<'a>> + Clone + use<'a> {
        self.drhds().flat_map(|drhd| drhd.scopes().iter().flatten().map(move |scope| (drhd, scope)))
    }
}

/// Every item with every earlier one, as (earlier, later).
pub(crate) fn pairs<T: Copy>(items: impl Iterator<Item = T> + Clone) -> impl Iterator<Item = (T, T)> {
    items
        .clone()
        .enumerate()
        .flat_map(move |(index, second)| items.clone().take(index).map(move |first| (first, second)))
}

/// A unit's registers.
fn window(drhd: &Drhd<'_>) -> RangeInclusive<u64> {
    let base = drhd.register_base.as_u64();
    base..=base + (drhd.register_size - 1)
}

fn region(rmrr: &Rmrr<'_>) -> RangeInclusive<u64> {
    rmrr.base.as_u64()..=rmrr.limit.as_u64()
}

fn overlaps(first: &RangeInclusive<u64>, second: &RangeInclusive<u64>) -> bool {
    first.start() <= second.end() && second.start() <= first.end()
}

fn overlap(first: Drhd<'_>, second: Drhd<'_>) -> Option<Finding> {
    let (first_base, second_base) = (first.register_base, second.register_base);
    if first_base == second_base {
        Some(Finding::DuplicateUnit { register_base: first_base })
    } else {
        let overlapping = overlaps(&window(&first), &window(&second));
        overlapping.then_some(Finding::OverlappingUnits { first: first_base, second: second_base })
    }
}

fn include_pci_all(first: Drhd<'_>, second: Drhd<'_>) -> Option<Finding> {
    // A unit described twice is found as such; the second description contradicts nothing.
    let same_unit = first.register_base == second.register_base;
    let both = first.segment == second.segment && first.include_pci_all() && second.include_pci_all();
    (both && !same_unit).then_some(Finding::SecondIncludePciAll {
        segment: first.segment,
        first: first.register_base,
        second: second.register_base,
    })
}

fn contradiction(first: UnitScope<'_>, second: UnitScope<'_>) -> Option<Finding> {
    // What has a number is known by it, wherever its requests come from.
    let two_units = first.0.register_base != second.0.register_base;
    let same = same_path_or_id(first, second) || same_hpet(first.1, second.1);
    (two_units && same).then_some(Finding::ContradictoryScopes { first: first.1.offset, second: second.1.offset })
}

/// Whether both name the same PCI function, I/O APIC or ACPI device, or the same source-id of an HPET.
pub(crate) fn same_path_or_id((first_unit, first): UnitScope<'_>, (second_unit, second): UnitScope<'_>) -> bool {
    use ScopeType::{AcpiNamespaceDevice, IoApic, MsiCapableHpet, PciEndpoint, PciSubHierarchy};
    let same_path = first_unit.segment == second_unit.segment
        && first.start_bus == second.start_bus
        && first.path() == second.path();
    match (first.scope_type, second.scope_type) {
        (PciEndpoint | PciSubHierarchy, PciEndpoint | PciSubHierarchy) => same_path,
        (IoApic, IoApic) | (AcpiNamespaceDevice, AcpiNamespaceDevice) => first.enumeration_id == second.enumeration_id,
        (MsiCapableHpet, MsiCapableHpet) => first.enumeration_id == second.enumeration_id && same_path,
        _ => false,
    }
}

/// Whether both name the same HPET, which may have several source-ids, but one unit.
fn same_hpet(first: DeviceScope<'_>, second: DeviceScope<'_>) -> bool {
    first.scope_type == ScopeType::MsiCapableHpet
        && second.scope_type == ScopeType::MsiCapableHpet
        && first.enumeration_id == second.enumeration_id
}
