//! What is looked up for every line: to search the table each time would take the square of its length.

use std::collections::HashMap;

use addr::HostPhys;
use dmar::{DeviceScope, Dmar, ScopeType};

use crate::text::acpi_name;

/// Names of ACPI devices, and units and their affinities by register base; of several the first.
pub struct Index {
    names: HashMap<u8, String>,
    units: HashMap<u64, usize>,
    domains: HashMap<u64, u32>,
}

impl Index {
    pub fn new(dmar: &Dmar<'_>) -> Self {
        let mut index = Self { names: HashMap::new(), units: HashMap::new(), domains: HashMap::new() };
        for andd in dmar.andds() {
            index.names.entry(andd.device_number).or_insert_with(|| acpi_name(&andd));
        }
        for (unit, drhd) in dmar.drhds().enumerate() {
            index.units.entry(drhd.register_base.as_u64()).or_insert(unit);
        }
        for rhsa in dmar.rhsas() {
            index.domains.entry(rhsa.register_base.as_u64()).or_insert(rhsa.proximity_domain);
        }
        index
    }

    /// The name of the ACPI device with this number.
    pub fn name(&self, device_number: u8) -> Option<&str> {
        self.names.get(&device_number).map(String::as_str)
    }

    /// What a scope names, without its address.
    pub fn kind(&self, scope: &DeviceScope<'_>) -> String {
        let id = scope.enumeration_id;
        match scope.scope_type {
            ScopeType::PciEndpoint => "PCI endpoint".into(),
            ScopeType::PciSubHierarchy => "PCI bridge and all below".into(),
            ScopeType::IoApic => format!("I/O APIC {id}"),
            ScopeType::MsiCapableHpet => format!("HPET {id}"),
            ScopeType::AcpiNamespaceDevice => match self.name(id) {
                Some(name) => format!("ACPI device {id} {name}"),
                None => format!("ACPI device {id}"),
            },
            ScopeType::Unknown(other) => format!("unknown type {other}"),
        }
    }

    /// The number of the unit whose registers are there.
    pub fn unit(&self, register_base: HostPhys) -> Option<usize> {
        self.units.get(&register_base.as_u64()).copied()
    }

    /// The proximity domain that this unit is near.
    pub fn proximity_domain(&self, register_base: HostPhys) -> Option<u32> {
        self.domains.get(&register_base.as_u64()).copied()
    }
}
