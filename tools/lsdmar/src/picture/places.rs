//! What is drawn where: the devices of each unit, by bus and behind their bridges.

use std::collections::{BTreeMap, HashMap};

use dmar::{Ats, DeviceScope, DeviceScopes, Dmar, ScopeType, Structure, StructureError};

/// A hop of a path.
type Hop = (u8, u8);

/// Deeper paths are not drawn bridge by bridge: their last hops share one chip. Real ones have two hops.
const DEEPEST: usize = 4;

/// What something is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A PCI function, or a bridge on the way to one.
    Pci,
    /// An I/O APIC with this id.
    IoApic(u8),
    /// An HPET with this number.
    Hpet(u8),
    /// The ACPI device with this number.
    Acpi(u8),
    /// A scope of this unknown type.
    Unknown(u8),
}

/// How much of a place the unit that serves it names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Naming {
    /// Nothing: it is known from other structures, or as a bridge on the way.
    #[default]
    Nothing,
    /// This function.
    Itself,
    /// This bridge and all below it.
    AllBelow,
}

/// One thing at one place.
#[derive(Default)]
pub struct Place {
    pub naming: Naming,
    /// Numbers of the reserved regions that it has.
    pub regions: Vec<usize>,
    /// Whether a reserved region of it cannot be used.
    pub lacks_region: bool,
    /// Whether an ATSR has it.
    pub root_port: bool,
    /// What the table says about ATS, if it says something.
    pub ats: Option<Ats>,
    /// The flags of a SIDP.
    pub properties: Option<u8>,
    /// What is behind this bridge.
    pub behind: Places,
}

/// The hops that lead to a place from the bus that it is on (one, but for very deep paths), and what is there.
pub type Key = (Vec<Hop>, Kind);

/// What is on a bus.
pub type Places = BTreeMap<Key, Place>;

/// Everything that one unit serves.
#[derive(Default)]
pub struct Served {
    /// By segment and bus.
    pub buses: BTreeMap<(u16, u8), Places>,
}

impl Served {
    fn name(&mut self, segment: u16, scopes: DeviceScopes<'_>) {
        for scope in scopes.iter().flatten() {
            let all_below = scope.scope_type == ScopeType::PciSubHierarchy;
            let naming = if all_below { Naming::AllBelow } else { Naming::Itself };
            let place = self.place(segment, &scope);
            place.naming = place.naming.max(naming);
        }
    }

    fn place(&mut self, segment: u16, scope: &DeviceScope<'_>) -> &mut Place {
        let path: Vec<Hop> = scope.path().collect();
        let mut places = self.buses.entry((segment, scope.start_bus)).or_default();
        let bridges = path.len().saturating_sub(1).min(DEEPEST);
        let (bridges, last) = path.split_at(bridges);
        for bridge in bridges {
            places = &mut places.entry((vec![*bridge], Kind::Pci)).or_default().behind;
        }
        places.entry((last.to_vec(), kind(scope))).or_default()
    }
}

fn kind(scope: &DeviceScope<'_>) -> Kind {
    match scope.scope_type {
        ScopeType::PciEndpoint | ScopeType::PciSubHierarchy => Kind::Pci,
        ScopeType::IoApic => Kind::IoApic(scope.enumeration_id),
        ScopeType::MsiCapableHpet => Kind::Hpet(scope.enumeration_id),
        ScopeType::AcpiNamespaceDevice => Kind::Acpi(scope.enumeration_id),
        ScopeType::Unknown(other) => Kind::Unknown(other),
    }
}

/// What each unit serves, in the order of the DRHDs, and what no unit serves.
pub fn places(dmar: &Dmar<'_>) -> (Vec<Served>, Served) {
    let index = Index::new(dmar);
    let mut units: Vec<Served> = dmar.drhds().map(|_| Served::default()).collect();
    let mut nobodys = Served::default();
    for (drhd, served) in dmar.drhds().zip(&mut units) {
        served.name(drhd.segment, drhd.scopes());
    }
    for error in dmar.structures().filter_map(Result::err).filter(StructureError::is_drhd) {
        nobodys.name(error.segment().unwrap_or(0), error.scopes());
    }
    // Where the other structures say something about a device, it is drawn at its unit.
    let mut each = |segment: u16, scopes: DeviceScopes<'_>, note: &dyn Fn(&mut Place, &DeviceScope<'_>)| {
        for scope in scopes.iter().flatten() {
            let served = match index.unit(segment, &scope) {
                Some(unit) => units.get_mut(unit).unwrap_or(&mut nobodys),
                None => &mut nobodys,
            };
            note(served.place(segment, &scope), &scope);
        }
    };
    let mut regions = 0;
    for structure in dmar.structures() {
        let structure = match structure {
            Ok(structure) => structure,
            Err(error) if error.is_rmrr() => {
                each(error.segment().unwrap_or(0), error.scopes(), &|place, _| place.lacks_region = true);
                continue;
            }
            Err(_) => continue,
        };
        match structure {
            Structure::Rmrr(rmrr) => {
                let region = regions;
                regions += 1;
                each(rmrr.segment, rmrr.scopes(), &|place, _| {
                    if place.regions.last() != Some(&region) {
                        place.regions.push(region);
                    }
                });
            }
            Structure::Atsr(atsr) if !atsr.all_ports() => {
                each(atsr.segment, atsr.scopes(), &|place, _| {
                    place.root_port = true;
                    place.ats = place.ats.or(Some(Ats::Supported));
                });
            }
            Structure::Satc(satc) => {
                let ats = if satc.atc_required() { Ats::Required } else { Ats::Supported };
                each(satc.segment, satc.scopes(), &|place, _| place.ats = Some(ats));
            }
            Structure::Sidp(sidp) => {
                each(sidp.segment, sidp.scopes(), &|place, scope| {
                    place.properties = Some(place.properties.unwrap_or(0) | scope.flags.0);
                });
            }
            _ => {}
        }
    }
    (units, nobodys)
}

/// Segment, bus and path.
type Address = (u16, u8, Vec<Hop>);

/// Which unit serves a path. Without the machine's bus numbers paths are compared hop by hop. `None` stands for a unit
/// that cannot be used: what it names goes through no other.
struct Index {
    named: HashMap<Address, Option<usize>>,
    acpi: HashMap<u8, Option<usize>>,
    include_pci_all: HashMap<u16, usize>,
}

impl Index {
    fn new(dmar: &Dmar<'_>) -> Self {
        let mut index = Self { named: HashMap::new(), acpi: HashMap::new(), include_pci_all: HashMap::new() };
        for (unit, drhd) in dmar.drhds().enumerate() {
            index.name(Some(unit), drhd.segment, drhd.scopes());
            if drhd.include_pci_all() {
                index.include_pci_all.entry(drhd.segment).or_insert(unit);
            }
        }
        for error in dmar.structures().filter_map(Result::err).filter(StructureError::is_drhd) {
            index.name(None, error.segment().unwrap_or(0), error.scopes());
        }
        index
    }

    fn name(&mut self, unit: Option<usize>, segment: u16, scopes: DeviceScopes<'_>) {
        for scope in scopes.iter().flatten() {
            match scope.scope_type {
                ScopeType::PciEndpoint | ScopeType::PciSubHierarchy => {
                    let address = (segment, scope.start_bus, scope.path().collect());
                    self.named.entry(address).or_insert(unit);
                }
                ScopeType::AcpiNamespaceDevice => {
                    self.acpi.entry(scope.enumeration_id).or_insert(unit);
                }
                _ => {}
            }
        }
    }

    /// The unit that names the device or the nearest bridge above it, or that of the rest of the segment.
    fn unit(&self, segment: u16, scope: &DeviceScope<'_>) -> Option<usize> {
        if scope.scope_type == ScopeType::AcpiNamespaceDevice
            && let Some(unit) = self.acpi.get(&scope.enumeration_id)
        {
            return *unit;
        }
        let path: Vec<Hop> = scope.path().collect();
        let named = (1..=path.len())
            .rev()
            .find_map(|length| self.named.get(&(segment, scope.start_bus, path[..length].to_vec())));
        named.copied().unwrap_or_else(|| self.include_pci_all.get(&segment).copied())
    }
}
