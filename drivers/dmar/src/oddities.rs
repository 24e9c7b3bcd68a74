//! The search for oddities.

use crate::checks::{pairs, same_path_or_id};
use crate::oddity::Oddity;
use crate::scope::{DeviceScope, ScopeType};
use crate::spec::{structure, table};
use crate::structure::Drhd;
use crate::table::Dmar;

impl<'a> Dmar<'a> {
    /// What is strange about the usable structures and leaves no doubt about which unit serves what; the rest is in
    /// [`Dmar::findings`]. The work grows with the square of the number of structures and scopes.
    pub fn oddities(&self) -> impl Iterator<Item = Oddity> + use<'a> {
        let dmar = *self;
        dmar.unit_oddities()
            .chain(dmar.affinity_oddities())
            .chain(dmar.acpi_device_oddities())
            .chain(dmar.interrupt_oddities())
            .chain(dmar.order_oddities())
    }

    fn unit_oddities(self) -> impl Iterator<Item = Oddity> + use<'a> {
        let not_last = pairs(self.drhds()).filter_map(|(first, second)| include_pci_all_not_last(first, second));
        let idle = self.drhds().filter(|drhd| !drhd.include_pci_all() && drhd.scopes().is_empty());
        let idle = idle.map(|drhd| Oddity::UnitWithoutDevices { register_base: drhd.register_base });
        // Of a unit described twice every scope comes twice; that says nothing new.
        let twice = pairs(self.unit_scopes())
            .filter(|(first, second)| first.0.offset == second.0.offset && same_path_or_id(*first, *second));
        let twice =
            twice.map(|(first, second)| Oddity::DuplicateScope { first: first.1.offset, second: second.1.offset });
        let for_nobody = self.rmrrs().filter(|rmrr| rmrr.scopes().is_empty());
        let for_nobody = for_nobody.map(|rmrr| Oddity::RegionWithoutDevices { region: rmrr.offset });
        not_last.chain(idle).chain(twice).chain(for_nobody)
    }

    fn affinity_oddities(self) -> impl Iterator<Item = Oddity> + use<'a> {
        let unknown =
            self.rhsas().filter(move |rhsa| self.drhds().all(|drhd| drhd.register_base != rhsa.register_base));
        let second = pairs(self.rhsas()).filter(|(first, second)| first.register_base == second.register_base);
        unknown
            .map(|rhsa| Oddity::AffinityOfUnknownUnit { register_base: rhsa.register_base })
            .chain(second.map(|(_, rhsa)| Oddity::SecondAffinity { register_base: rhsa.register_base }))
    }

    fn acpi_device_oddities(self) -> impl Iterator<Item = Oddity> + use<'a> {
        let scopes = self.unit_scopes().map(|(_, scope)| scope);
        let scopes = scopes.filter(|scope| scope.scope_type == ScopeType::AcpiNamespaceDevice);
        let second = pairs(self.andds()).filter(|(first, second)| first.device_number == second.device_number);
        let undeclared = scopes
            .clone()
            .filter(move |scope| self.andds().all(|andd| andd.device_number != scope.enumeration_id))
            .map(|DeviceScope { offset, enumeration_id: device_number, .. }| Oddity::UndeclaredAcpiDevice {
                offset,
                device_number,
            });
        let unserved = self
            .andds()
            .filter(move |andd| scopes.clone().all(|scope| scope.enumeration_id != andd.device_number))
            .map(|andd| Oddity::AcpiDeviceWithoutUnit { device_number: andd.device_number });
        second
            .map(|(_, andd)| Oddity::SecondAcpiDevice { device_number: andd.device_number })
            .chain(undeclared)
            .chain(unserved)
    }

    fn interrupt_oddities(self) -> impl Iterator<Item = Oddity> + use<'a> {
        let opt_out = self.flags() & table::FLAG_X2APIC_OPT_OUT != 0;
        let is_source =
            |scope: &DeviceScope<'_>| matches!(scope.scope_type, ScopeType::IoApic | ScopeType::MsiCapableHpet);
        let source = self.unit_scopes().map(|(_, scope)| scope).find(is_source);
        let source = source.map(|scope| Oddity::InterruptSourceWithoutRemapping { offset: scope.offset });
        let opt_out = opt_out.then_some(Oddity::X2apicOptOutAlone);
        [opt_out, source].into_iter().flatten().filter(move |_| !self.interrupt_remapping())
    }

    fn order_oddities(self) -> impl Iterator<Item = Oddity> + use<'a> {
        let known = self.structures().flatten().filter(|known| known.structure_type() <= structure::TYPE_SIDP);
        known
            .scan(0, |highest, structure| {
                let behind = structure.structure_type() < *highest;
                *highest = structure.structure_type().max(*highest);
                Some(behind.then_some(Oddity::OutOfOrder { offset: structure.offset() }))
            })
            .flatten()
    }
}

fn include_pci_all_not_last(first: Drhd<'_>, second: Drhd<'_>) -> Option<Oddity> {
    let other_unit = first.segment == second.segment && first.register_base != second.register_base;
    let behind = other_unit && first.include_pci_all() && !second.include_pci_all();
    behind.then_some(Oddity::IncludePciAllNotLast { segment: first.segment, register_base: first.register_base })
}
