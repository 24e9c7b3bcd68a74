//! Which unit serves a device, an I/O APIC, an HPET or an ACPI device, and which reserved regions a device needs.
//!
//! A wrong answer programs a unit that the device does not go through, and the device then reaches all of memory. So
//! every doubt is an error here, and the caller hands the device out to nobody.

use core::fmt;

use addr::{Bdf, HostPhys, PciAddress};

use crate::scope::{DeviceScopes, ScopeError, ScopeType};
use crate::structure::{Drhd, Rmrr, Structure};
use crate::table::Dmar;
use crate::topology::{Relation, Topology};
use crate::unusable::StructureError;

/// Why the table does not say what was asked. It borrows from the table; to keep it longer, keep its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LookupError<'a> {
    /// No unit serves it: its DMA and its interrupts are not remapped.
    NoUnit,
    /// The structure that names it cannot be used.
    Unusable(StructureError<'a>),
    /// Two units serve it, each at the same right.
    Ambiguous {
        /// Register base of the first unit.
        first: HostPhys,
        /// Register base of the second unit.
        second: HostPhys,
    },
    /// No structure is known to name it, but this scope cannot be read and may.
    ScopeUnreadable(ScopeError),
    /// No structure is known to name it, but the table cannot be read beyond this structure.
    TableUnreadable(StructureError<'a>),
    /// A scope names it, but the bridges on the scope's path are not there, so its source-id is not known.
    PathUnresolved {
        /// Where the scope begins, in bytes from the table's start.
        offset: usize,
    },
}

impl fmt::Display for LookupError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUnit => write!(f, "no remapping unit serves it"),
            Self::Unusable(error) => write!(f, "named by an unusable structure: {error}"),
            Self::Ambiguous { first, second } => write!(f, "served by two remapping units, {first} and {second}"),
            Self::ScopeUnreadable(error) => write!(f, "perhaps named by an unreadable scope: {error}"),
            Self::TableUnreadable(error) => write!(f, "perhaps named beyond the table's readable part: {error}"),
            Self::PathUnresolved { offset } => {
                write!(f, "the path of the DMAR device scope at {offset:#x} leads nowhere")
            }
        }
    }
}

impl core::error::Error for LookupError<'_> {}

/// The answer found so far at one rank, such as "named" or "below a named bridge".
type Slot<'a, T> = Option<Result<T, LookupError<'a>>>;

/// Puts one more answer into a slot; a second unit there makes the answer ambiguous.
fn put<'a, T: Copy>(slot: &mut Slot<'a, T>, answer: Result<T, LookupError<'a>>, unit: impl Fn(T) -> HostPhys) {
    *slot = Some(match (*slot, answer) {
        (None, answer) => answer,
        (Some(Ok(first)), Ok(second)) if unit(first) != unit(second) => {
            Err(LookupError::Ambiguous { first: unit(first), second: unit(second) })
        }
        (Some(Ok(_)), Err(error)) => Err(error),
        (Some(earlier), _) => earlier,
    });
}

/// A DRHD, usable or not, as the lookups see it.
struct Candidate<'a> {
    /// `None` where the structure is too short to say.
    segment: Option<u16>,
    include_pci_all: bool,
    scopes: DeviceScopes<'a>,
    unit: Result<Drhd<'a>, StructureError<'a>>,
}

impl<'a> Dmar<'a> {
    /// The DRHDs; beside them, or instead of one, the doubt that an error casts on everything that no scope names: a
    /// table that ends early, or a DRHD too short to have the scopes that it was meant to have.
    fn candidates(&self) -> impl Iterator<Item = (Option<Candidate<'a>>, Option<LookupError<'a>>)> + use<'a> {
        self.structures().filter_map(|structure| match structure {
            Ok(Structure::Drhd(drhd)) => {
                let (segment, include_pci_all) = (Some(drhd.segment), drhd.include_pci_all());
                Some((Some(Candidate { segment, include_pci_all, scopes: drhd.scopes(), unit: Ok(drhd) }), None))
            }
            Ok(_) => None,
            Err(error) => {
                let candidate = error.is_drhd().then(|| Candidate {
                    segment: error.segment(),
                    include_pci_all: error.include_pci_all() == Some(true),
                    scopes: error.scopes(),
                    unit: Err(error),
                });
                let doubt = if error.ends_table() {
                    Some(LookupError::TableUnreadable(error))
                } else {
                    (error.is_drhd() && error.scopes_lost()).then_some(LookupError::Unusable(error))
                };
                Some((candidate, doubt))
            }
        })
    }

    /// The unit that serves a PCI function (section 8.3): the one that names it, else the one that names a bridge above
    /// it, else the INCLUDE_PCI_ALL unit of its segment. For a virtual function, ask with its physical function.
    pub fn unit_for(&self, device: PciAddress, topology: &impl Topology) -> Result<Drhd<'a>, LookupError<'a>> {
        let (mut named, mut below, mut rest, mut doubt) = (None, None, None, None);
        for (candidate, table_doubt) in self.candidates() {
            doubt = doubt.or(table_doubt);
            let Some(candidate) = candidate else { continue };
            let answer = candidate.unit.map_err(LookupError::Unusable);
            let base = |drhd: Drhd<'a>| drhd.register_base;
            let Some(segment) = candidate.segment else { continue };
            match candidate.scopes.relation(segment, device, topology) {
                Relation::Named => put(&mut named, answer, base),
                Relation::Below => put(&mut below, answer, base),
                Relation::Doubtful(error) => doubt = doubt.or(Some(LookupError::ScopeUnreadable(error))),
                Relation::Unrelated => {}
            }
            if candidate.include_pci_all && segment == device.segment {
                put(&mut rest, answer, base);
            }
        }
        // INCLUDE_PCI_ALL means "all that no other unit names": worth nothing while a name cannot be read.
        named.or(below).or(doubt.map(Err)).or(rest).unwrap_or(Err(LookupError::NoUnit))
    }

    /// The unit that remaps the interrupts of the I/O APIC with this id (that of the MADT), and the source-id that they
    /// carry (section 8.3.1.1). In a remapping table entry this source-id must be the only one accepted.
    pub fn io_apic(&self, id: u8, topology: &impl Topology) -> Result<(Drhd<'a>, Bdf), LookupError<'a>> {
        self.one_source(ScopeType::IoApic, id, topology)
    }

    /// The unit that serves the ACPI device whose ANDD has this device number, and the device's requester id (section
    /// 8.3.1). Such a device is on no PCI bus, so INCLUDE_PCI_ALL says nothing about it: without a scope it has no unit.
    /// Its reserved regions are those of the requester id.
    pub fn acpi_device(
        &self,
        device_number: u8,
        topology: &impl Topology,
    ) -> Result<(Drhd<'a>, PciAddress), LookupError<'a>> {
        let (unit, bdf) = self.one_source(ScopeType::AcpiNamespaceDevice, device_number, topology)?;
        Ok((unit, PciAddress { segment: unit.segment, bdf }))
    }

    /// The one unit and source-id that scopes of this type and enumeration id give.
    fn one_source(
        &self,
        scope_type: ScopeType,
        enumeration_id: u8,
        topology: &impl Topology,
    ) -> Result<(Drhd<'a>, Bdf), LookupError<'a>> {
        let (mut named, mut doubt) = (None, None);
        for (answer, is_doubt) in self.sources(scope_type, enumeration_id, topology) {
            match answer {
                Err(error) if is_doubt => doubt = doubt.or(Some(error)),
                _ => put(&mut named, answer, |(drhd, _): (Drhd<'a>, Bdf)| drhd.register_base),
            }
        }
        named.or(doubt.map(Err)).unwrap_or(Err(LookupError::NoUnit))
    }

    /// The unit and the source-ids for the MSIs of the HPET with this number. Real chipsets give one HPET several
    /// source-ids, one a comparator: all are items. Errors are items too; nothing at all means that the table does not
    /// name the HPET, which then must not send MSIs.
    pub fn hpet<'t, T: Topology>(
        &self,
        number: u8,
        topology: &'t T,
    ) -> impl Iterator<Item = Result<(Drhd<'a>, Bdf), LookupError<'a>>> + use<'a, 't, T> {
        self.sources(ScopeType::MsiCapableHpet, number, topology).map(|(answer, _)| answer)
    }

    /// Every scope of this type and enumeration id as unit and source-id; beside each, whether it is only a doubt:
    /// something that cannot be read and that may name the same.
    fn sources<'t, T: Topology>(
        &self,
        scope_type: ScopeType,
        enumeration_id: u8,
        topology: &'t T,
    ) -> impl Iterator<Item = (Result<(Drhd<'a>, Bdf), LookupError<'a>>, bool)> + use<'a, 't, T> {
        self.candidates().flat_map(move |(candidate, table_doubt)| {
            let named = candidate.into_iter().flat_map(move |candidate| {
                candidate.scopes.iter().filter_map(move |scope| match scope {
                    Ok(scope) if (scope.scope_type, scope.enumeration_id) == (scope_type, enumeration_id) => {
                        let answer = candidate.unit.map_err(LookupError::Unusable).and_then(|drhd| {
                            let address = scope.address(drhd.segment, topology);
                            let unresolved = LookupError::PathUnresolved { offset: scope.offset };
                            address.map(|address| (drhd, address.bdf)).ok_or(unresolved)
                        });
                        Some((answer, false))
                    }
                    Ok(_) => None,
                    Err(error) => Some((Err(LookupError::ScopeUnreadable(error)), true)),
                })
            });
            named.chain(table_doubt.map(|doubt| (Err(doubt), true)))
        })
    }

    /// The reserved regions that a PCI function needs mapped at every moment (section 8.4). An error is an item: a
    /// region that is unusable and names the function, or something unreadable that may; the function cannot be handed
    /// out then.
    pub fn reserved_regions<'t, T: Topology>(
        &self,
        device: PciAddress,
        topology: &'t T,
    ) -> impl Iterator<Item = Result<Rmrr<'a>, LookupError<'a>>> + use<'a, 't, T> {
        self.structures().filter_map(move |structure| {
            let (segment, scopes, region) = match structure {
                Ok(Structure::Rmrr(rmrr)) => (Some(rmrr.segment), rmrr.scopes(), Ok(rmrr)),
                Ok(_) => return None,
                Err(error) if error.ends_table() => return Some(Err(LookupError::TableUnreadable(error))),
                Err(error) if error.is_rmrr() => (error.segment(), error.scopes(), Err(LookupError::Unusable(error))),
                Err(_) => return None,
            };
            let Some(segment) = segment else { return Some(region) };
            match scopes.relation(segment, device, topology) {
                Relation::Named | Relation::Below => Some(region),
                Relation::Doubtful(error) => Some(Err(LookupError::ScopeUnreadable(error))),
                Relation::Unrelated => {
                    let lost = structure.is_err_and(|error| error.scopes_lost());
                    (lost && segment == device.segment).then_some(region)
                }
            }
        })
    }
}
