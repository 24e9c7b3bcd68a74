//! Which functions of the machine a configuration means, and whether they may be handed out at all.

use crate::vm::config::DeviceName;
use addr::PciAddress;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use dmar::{Dmar, Topology};
use pci::{FunctionInfo, HeaderType};

/// The bridges of the machine, for the DMAR table's paths.
pub struct Bridges<'a>(pub &'a [FunctionInfo]);

impl Topology for Bridges<'_> {
    fn bridge_buses(&self, bridge: PciAddress) -> Option<(u8, u8)> {
        let info = self.0.iter().find(|info| info.address == bridge)?;
        match info.header_type {
            HeaderType::Bridge { secondary, subordinate } => Some((secondary, subordinate)),
            _ => None,
        }
    }
}

/// Finds the functions that `names` mean among `functions`. The error says in words which name means nothing.
pub fn resolve(
    names: &[DeviceName],
    functions: &[FunctionInfo],
    taken: &[PciAddress],
) -> Result<Vec<PciAddress>, String> {
    let mut chosen: Vec<PciAddress> = Vec::new();
    for name in names {
        let fits = |info: &&FunctionInfo| match name {
            DeviceName::Address(address) => info.address == *address,
            DeviceName::Id { vendor, device } => info.vendor_id == *vendor && info.device_id == *device,
        };
        let is_free = |info: &&FunctionInfo| !taken.contains(&info.address) && !chosen.contains(&info.address);
        let found = functions.iter().filter(fits).find(is_free).map(|info| info.address);
        match found {
            Some(address) => chosen.push(address),
            None if functions.iter().any(|info| fits(&info)) => {
                return Err(format!("device {name} is given out already"));
            }
            None => return Err(format!("this machine has no device {name}")),
        }
    }
    Ok(chosen)
}

/// Checks what the topology and the firmware's tables say against handing out `device` together with `chosen`.
pub fn check(
    device: PciAddress,
    chosen: &[PciAddress],
    functions: &[FunctionInfo],
    dmar: &Dmar<'_>,
) -> Result<(), String> {
    let info = functions.iter().find(|info| info.address == device).ok_or("it is not there")?;
    if info.header_type != HeaderType::Endpoint {
        return Err("it is a bridge, and what is below it would come along".to_string());
    }
    let segment: Vec<FunctionInfo> =
        functions.iter().filter(|info| info.address.segment == device.segment).cloned().collect();
    let leader = pci::isolation_group(&segment, device).ok_or("the bridges above it make no sense")?;
    let stranger = segment.iter().find(|other| {
        other.header_type == HeaderType::Endpoint
            && !chosen.contains(&other.address)
            && pci::isolation_group(&segment, other.address) == Some(leader)
    });
    if let Some(stranger) = stranger {
        return Err(format!("it cannot be told apart from {}, which does not go with it", stranger.address));
    }
    match dmar.reserved_regions(device, &Bridges(functions)).next() {
        None => Ok(()),
        Some(Ok(region)) => {
            Err(format!("firmware uses it through reserved memory at {} to {}", region.base, region.limit))
        }
        Some(Err(error)) => Err(format!("firmware may use it through reserved memory: {error}")),
    }
}
