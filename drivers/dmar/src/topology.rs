//! Which PCI function a device scope names, given what the bridges of the machine say.

use addr::{Bdf, PciAddress};

use crate::scope::{DeviceScope, DeviceScopes, ScopeError, ScopeType};

/// What must be known of the PCI bus to follow a path of more than one hop and to know what is below a bridge.
pub trait Topology {
    /// The secondary and subordinate bus number (configuration registers 0x19 and 0x1a) of the PCI-PCI bridge at
    /// `bridge`, or `None` if no bridge is there.
    fn bridge_buses(&self, bridge: PciAddress) -> Option<(u8, u8)>;
}

/// A topology for callers that have read the numbers already.
impl<F: Fn(PciAddress) -> Option<(u8, u8)>> Topology for F {
    fn bridge_buses(&self, bridge: PciAddress) -> Option<(u8, u8)> {
        self(bridge)
    }
}

/// How a device stands to the device scopes of a structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// A scope names exactly this function.
    Named,
    /// A scope names a bridge that this function is below.
    Below,
    /// No scope names it, but this one cannot be read and may.
    Doubtful(ScopeError),
    /// No scope names it, and all of them can be read.
    Unrelated,
}

impl DeviceScope<'_> {
    /// The function that the path leads to, in `segment`. For an I/O APIC or an HPET this is the source-id of its
    /// interrupts. `None` if a hop of the path is no bridge or an unconfigured one (secondary bus 0): firmware names
    /// sockets that are empty, and behind a bridge that is not there is no device.
    pub fn address(&self, segment: u16, topology: &impl Topology) -> Option<PciAddress> {
        let mut bus = self.start_bus;
        let mut path = self.path();
        let (device, function) = path.next()?;
        let mut address = PciAddress { segment, bdf: Bdf::new(bus, device, function)? };
        for (device, function) in path {
            bus = topology.bridge_buses(address).map(|(secondary, _)| secondary).filter(|bus| *bus != 0)?;
            address = PciAddress { segment, bdf: Bdf::new(bus, device, function)? };
        }
        Some(address)
    }

    /// Whether this scope of a structure for `segment` names exactly `device`, as a PCI function or as the requester
    /// that an ACPI device is.
    pub fn names(&self, segment: u16, device: PciAddress, topology: &impl Topology) -> bool {
        self.relation(segment, device, topology) == Relation::Named
    }

    /// How `device` stands to this scope of a structure for `segment`; never [`Relation::Doubtful`].
    fn relation(&self, segment: u16, device: PciAddress, topology: &impl Topology) -> Relation {
        let bridge = match self.scope_type {
            // An endpoint scope that names a bridge is a mistake that real firmware makes. What is below that bridge
            // reaches memory through the same unit, whatever the scope's type says.
            ScopeType::PciEndpoint | ScopeType::PciSubHierarchy => true,
            // Only its requester id is known, and a PCI function with the same one is the same to the unit.
            ScopeType::AcpiNamespaceDevice => false,
            // The source-id of their interrupts is not that of a device that does DMA: often it is the bridge to LPC's.
            ScopeType::IoApic | ScopeType::MsiCapableHpet | ScopeType::Unknown(_) => return Relation::Unrelated,
        };
        let Some(address) = (segment == device.segment).then(|| self.address(segment, topology)).flatten() else {
            return Relation::Unrelated;
        };
        if address == device {
            return Relation::Named;
        }
        match topology.bridge_buses(address).filter(|(secondary, _)| bridge && *secondary != 0) {
            Some((secondary, subordinate)) if (secondary..=subordinate).contains(&device.bdf.bus()) => Relation::Below,
            _ => Relation::Unrelated,
        }
    }
}

impl DeviceScopes<'_> {
    /// How `device` stands to the scopes of a structure for `segment`. A virtual function stands as its physical
    /// function does (VT-d section 8.3.1 names none): ask for that one.
    pub fn relation(&self, segment: u16, device: PciAddress, topology: &impl Topology) -> Relation {
        let mut best = Relation::Unrelated;
        for scope in self.iter() {
            let relation = match scope {
                Ok(scope) => scope.relation(segment, device, topology),
                Err(error) if segment == device.segment => Relation::Doubtful(error),
                Err(_) => Relation::Unrelated,
            };
            best = match (relation, best) {
                (Relation::Named, _) => return Relation::Named,
                (Relation::Below, _) => Relation::Below,
                (Relation::Doubtful(error), Relation::Unrelated) => Relation::Doubtful(error),
                _ => best,
            };
        }
        best
    }
}
