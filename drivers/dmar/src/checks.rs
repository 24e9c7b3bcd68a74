//! The usable structures of a table against each other.

use core::ops::RangeInclusive;

use crate::finding::Finding;
use crate::scope::{DeviceScope, ScopeType};
use crate::spec::{structure, table};
use crate::structure::{Drhd, Rmrr};
use crate::table::Dmar;

/// Where a write is an interrupt and never reaches memory (section 3.14).
const INTERRUPT_ADDRESSES: RangeInclusive<u64> = 0xfee0_0000..=0xfeef_ffff;

impl<'a> Dmar<'a> {
    /// Checks the usable structures against each other. What is wrong with a structure by itself is an error in
    /// [`Dmar::structures`]. The work grows with the square of the number of structures and scopes.
    pub fn findings(&self) -> impl Iterator<Item = Finding> + use<'a> {
        let dmar = *self;
        dmar.unit_findings()
            .chain(dmar.region_findings())
            .chain(dmar.address_findings())
            .chain(dmar.affinity_findings())
            .chain(dmar.scope_findings())
            .chain(dmar.acpi_device_findings())
            .chain(dmar.interrupt_findings())
            .chain(dmar.order_findings())
    }

    fn unit_findings(self) -> impl Iterator<Item = Finding> + use<'a> {
        let no_unit = self.drhds().next().is_none().then_some(Finding::NoUnit);
        let pairs = pairs(self.drhds())
            .flat_map(|(first, second)| [overlap(first, second), include_pci_all(first, second)].into_iter().flatten());
        let idle = self.drhds().filter(|drhd| !drhd.include_pci_all() && drhd.scopes().is_empty());
        let idle = idle.map(|drhd| Finding::UnitWithoutDevices { register_base: drhd.register_base });
        no_unit.into_iter().chain(pairs).chain(idle)
    }

    fn region_findings(self) -> impl Iterator<Item = Finding> + use<'a> {
        let overlapping = pairs(self.rmrrs())
            .filter(|(first, second)| overlaps(&region(first), &region(second)))
            .map(|(first, second)| Finding::OverlappingRegions { first: first.offset, second: second.offset });
        let on_units = self.rmrrs().flat_map(move |rmrr| {
            let covered = self.drhds().filter(move |drhd| overlaps(&window(drhd), &region(&rmrr)));
            covered
                .map(move |drhd| Finding::RegionCoversUnit { region: rmrr.offset, register_base: drhd.register_base })
        });
        let on_interrupts = self.rmrrs().filter(|rmrr| overlaps(&region(rmrr), &INTERRUPT_ADDRESSES));
        let for_nobody = self.rmrrs().filter(|rmrr| rmrr.scopes().is_empty());
        overlapping
            .chain(on_units)
            .chain(on_interrupts.map(|rmrr| Finding::RegionInInterruptRange { region: rmrr.offset }))
            .chain(for_nobody.map(|rmrr| Finding::RegionWithoutDevices { region: rmrr.offset }))
    }

    fn address_findings(self) -> impl Iterator<Item = Finding> + use<'a> {
        let width = u32::from(self.host_address_width());
        let outside = move |range: RangeInclusive<u64>| range.end().checked_shr(width).unwrap_or(0) != 0;
        let units = self.drhds().filter(move |drhd| outside(window(drhd))).map(|drhd| drhd.offset);
        let regions = self.rmrrs().filter(move |rmrr| outside(region(rmrr))).map(|rmrr| rmrr.offset);
        units.chain(regions).map(|offset| Finding::BeyondHostAddressWidth { offset })
    }

    fn affinity_findings(self) -> impl Iterator<Item = Finding> + use<'a> {
        let unknown =
            self.rhsas().filter(move |rhsa| self.drhds().all(|drhd| drhd.register_base != rhsa.register_base));
        let second = pairs(self.rhsas()).filter(|(first, second)| first.register_base == second.register_base);
        unknown
            .map(|rhsa| Finding::AffinityOfUnknownUnit { register_base: rhsa.register_base })
            .chain(second.map(|(_, rhsa)| Finding::SecondAffinity { register_base: rhsa.register_base }))
    }

    /// Every readable scope of every unit.
    fn unit_scopes(self) -> impl Iterator<Item = (Drhd<'a>, DeviceScope<'a>)> + Clone + use<'a> {
        self.drhds().flat_map(|drhd| drhd.scopes().iter().flatten().map(move |scope| (drhd, scope)))
    }

    fn scope_findings(self) -> impl Iterator<Item = Finding> + use<'a> {
        pairs(self.unit_scopes()).filter_map(|(first, second)| {
            let (first_unit, second_unit) = (first.0, second.0);
            let one_unit = first_unit.register_base == second_unit.register_base;
            let (first, second) = (first.1.offset, match_scopes(first, second, one_unit)?.offset);
            // A unit described twice is found as such; that its scopes come twice too says nothing new.
            let one_structure = first_unit.offset == second_unit.offset;
            match (one_unit, one_structure) {
                (false, _) => Some(Finding::ContradictoryScopes { first, second }),
                (true, true) => Some(Finding::DuplicateScope { first, second }),
                (true, false) => None,
            }
        })
    }

    fn acpi_device_findings(self) -> impl Iterator<Item = Finding> + use<'a> {
        let scopes = self.unit_scopes().map(|(_, scope)| scope);
        let scopes = scopes.filter(|scope| scope.scope_type == ScopeType::AcpiNamespaceDevice);
        let second = pairs(self.andds()).filter(|(first, second)| first.device_number == second.device_number);
        let undeclared = scopes
            .clone()
            .filter(move |scope| self.andds().all(|andd| andd.device_number != scope.enumeration_id))
            .map(|DeviceScope { offset, enumeration_id: device_number, .. }| Finding::UndeclaredAcpiDevice {
                offset,
                device_number,
            });
        let unserved = self
            .andds()
            .filter(move |andd| scopes.clone().all(|scope| scope.enumeration_id != andd.device_number))
            .map(|andd| Finding::AcpiDeviceWithoutUnit { device_number: andd.device_number });
        second
            .map(|(_, andd)| Finding::SecondAcpiDevice { device_number: andd.device_number })
            .chain(undeclared)
            .chain(unserved)
    }

    fn interrupt_findings(self) -> impl Iterator<Item = Finding> + use<'a> {
        let opt_out = self.flags() & table::FLAG_X2APIC_OPT_OUT != 0;
        let is_source =
            |scope: &DeviceScope<'_>| matches!(scope.scope_type, ScopeType::IoApic | ScopeType::MsiCapableHpet);
        let source = self.unit_scopes().map(|(_, scope)| scope).find(is_source);
        let source = source.map(|scope| Finding::InterruptSourceWithoutRemapping { offset: scope.offset });
        let opt_out = opt_out.then_some(Finding::X2apicOptOutAlone);
        [opt_out, source].into_iter().flatten().filter(move |_| !self.interrupt_remapping())
    }

    fn order_findings(self) -> impl Iterator<Item = Finding> + use<'a> {
        let known = self.structures().flatten().filter(|known| known.structure_type() <= structure::TYPE_SIDP);
        known
            .scan(0, |highest, structure| {
                let behind = structure.structure_type() < *highest;
                *highest = structure.structure_type().max(*highest);
                Some(behind.then_some(Finding::OutOfOrder { offset: structure.offset() }))
            })
            .flatten()
    }
}

/// Every item with every earlier one, as (earlier, later).
fn pairs<T: Copy>(items: impl Iterator<Item = T> + Clone) -> impl Iterator<Item = (T, T)> {
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

/// The second scope, if it names the same as the first.
fn match_scopes<'a>(
    (first_unit, first): (Drhd<'a>, DeviceScope<'a>),
    (second_unit, second): (Drhd<'a>, DeviceScope<'a>),
    one_unit: bool,
) -> Option<DeviceScope<'a>> {
    use ScopeType::{AcpiNamespaceDevice, IoApic, MsiCapableHpet, PciEndpoint, PciSubHierarchy};
    let same_path = first_unit.segment == second_unit.segment
        && first.start_bus == second.start_bus
        && first.path() == second.path();
    let same_id = first.enumeration_id == second.enumeration_id;
    let same = match (first.scope_type, second.scope_type) {
        (PciEndpoint | PciSubHierarchy, PciEndpoint | PciSubHierarchy) => same_path,
        (IoApic, IoApic) | (AcpiNamespaceDevice, AcpiNamespaceDevice) => same_id,
        // One HPET has several source-ids, but one unit.
        (MsiCapableHpet, MsiCapableHpet) => same_id && (same_path || !one_unit),
        _ => false,
    };
    same.then_some(second)
}
