//! Which devices may use a device-TLB (ATS), and what integrated devices need besides.
//!
//! A device that has a device-TLB on may mark requests as translated, and the unit lets those through unread. Where the
//! table cannot be read the answer is an error and the device-TLB stays off.

use addr::{HostPhys, PciAddress};

use crate::lookup::LookupError;
use crate::scope::SidpFlags;
use crate::structure::Structure;
use crate::table::Dmar;
use crate::topology::{Relation, Topology};
use crate::unusable::StructureError;

/// What the table says about ATS for a device. The unit and the device must be capable of it too, and the device be
/// trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ats {
    /// The platform does not support it: no ATSR has the device's root port.
    Unsupported,
    /// An integrated device that no SATC names: the table is silent. Tables older than the SATC are so about every
    /// integrated device, and Linux allows it then.
    Unlisted,
    /// Supported: an ATSR has the root port, or a SATC the device.
    Supported,
    /// A SATC or SIDP says that the device does not work unless its device-TLB is enabled. In legacy mode hardware does
    /// that by itself.
    Required,
}

impl<'a> Dmar<'a> {
    /// Whether a PCI function may use ATS (sections 8.5, 8.8, 8.9). `root_port` is the PCI Express root port that it is
    /// below, `None` for an integrated device, which is on a root bus. For a virtual function, ask with its physical
    /// function. A device below a bridge to conventional PCI has no ATS, whatever the table says.
    pub fn ats(
        &self,
        device: PciAddress,
        root_port: Option<PciAddress>,
        topology: &impl Topology,
    ) -> Result<Ats, LookupError<'a>> {
        let required = self.integrated_device_property(device, topology)?.is_some_and(SidpFlags::atc_required);
        let mut answer = if root_port.is_some() { Ats::Unsupported } else { Ats::Unlisted };
        let mut doubt = None;
        for structure in self.structures() {
            // What would name what asks, and what it would say then.
            let (named, says, segment, scopes) = match structure {
                Ok(Structure::Satc(satc)) => {
                    let says = if satc.atc_required() { Ats::Required } else { Ats::Supported };
                    (Some(device), says, satc.segment, satc.scopes())
                }
                Ok(Structure::Atsr(atsr)) if atsr.all_ports() => {
                    if root_port.is_some_and(|port| port.segment == atsr.segment) && answer == Ats::Unsupported {
                        answer = Ats::Supported;
                    }
                    continue;
                }
                Ok(Structure::Atsr(atsr)) => (root_port, Ats::Supported, atsr.segment, atsr.scopes()),
                Ok(_) => continue,
                Err(error) => {
                    if error.is_satc() || error.is_atsr() && root_port.is_some() || error.ends_table() {
                        doubt = doubt.or(Some(doubt_of(error)));
                    }
                    continue;
                }
            };
            match named.map(|named| scopes.relation(segment, named, topology)) {
                Some(Relation::Named) if answer != Ats::Required => answer = says,
                Some(Relation::Doubtful(error)) => doubt = doubt.or(Some(LookupError::ScopeUnreadable(error))),
                _ => {}
            }
        }
        match (answer, doubt) {
            _ if required => Ok(Ats::Required),
            (Ats::Unsupported | Ats::Unlisted, Some(doubt)) => Err(doubt),
            _ => Ok(answer),
        }
    }

    /// What an integrated PCI function needs of its PASID table entry and device-TLB (section 8.9); `None` where no SIDP
    /// names it. If several do, all that any of them forbids is forbidden.
    pub fn integrated_device_property(
        &self,
        device: PciAddress,
        topology: &impl Topology,
    ) -> Result<Option<SidpFlags>, LookupError<'a>> {
        let (mut flags, mut doubt) = (None, None);
        for structure in self.structures() {
            match structure {
                Ok(Structure::Sidp(sidp)) if sidp.segment == device.segment => {
                    for scope in sidp.scopes() {
                        match scope {
                            Ok(scope) if scope.names(sidp.segment, device, topology) => {
                                flags = Some(SidpFlags(flags.map_or(0, |SidpFlags(flags)| flags) | scope.flags.0));
                            }
                            Ok(_) => {}
                            Err(error) => doubt = doubt.or(Some(LookupError::ScopeUnreadable(error))),
                        }
                    }
                }
                Ok(_) => {}
                Err(error) if error.is_sidp() || error.ends_table() => doubt = doubt.or(Some(doubt_of(error))),
                Err(_) => {}
            }
        }
        // A property that is lost is a restriction that nobody keeps, even where another is known.
        doubt.map_or(Ok(flags), Err)
    }

    /// The proximity domain, as in the SRAT, that the unit with this register base is near (section 8.6).
    pub fn proximity_domain(&self, register_base: HostPhys) -> Option<u32> {
        self.rhsas().find(|rhsa| rhsa.register_base == register_base).map(|rhsa| rhsa.proximity_domain)
    }
}

/// What it means that a structure cannot be used that may have named the device. An ATSR, SATC or SIDP without an end to
/// the table is too short even for its segment.
fn doubt_of(error: StructureError<'_>) -> LookupError<'_> {
    if error.ends_table() { LookupError::TableUnreadable(error) } else { LookupError::Unusable(error) }
}
