//! Which functions of the machine a configuration means, and whether they may be handed out at all.

use addr::PciAddress;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use config::{Device, DeviceName};
use core::fmt;
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

/// Finds the functions that `devices` mean among `functions`, in the same order. The error says in words which means
/// nothing, and what there is.
pub fn resolve(
    devices: &[Device],
    functions: &[FunctionInfo],
    taken: &[PciAddress],
) -> Result<Vec<PciAddress>, String> {
    let mut chosen: Vec<Option<PciAddress>> = devices.iter().map(|_| None).collect();
    // Addresses first: an id means a function that nobody named by its address.
    for by_address in [true, false] {
        for (number, Device { name, line }) in devices.iter().enumerate() {
            if matches!(name, DeviceName::Address(_)) != by_address {
                continue;
            }
            let fits = |info: &&FunctionInfo| match name {
                DeviceName::Address(address) => info.address == *address,
                DeviceName::Id { vendor, device } => info.vendor_id == *vendor && info.device_id == *device,
            };
            let is_free =
                |info: &&FunctionInfo| !taken.contains(&info.address) && !chosen.contains(&Some(info.address));
            let found = functions.iter().filter(fits).find(is_free).map(|info| info.address);
            if found.is_none() {
                let why = match functions.iter().filter(fits).count() {
                    0 => format!("this machine has no device {name}{}", Others { name: *name, functions }),
                    count => format!("device {name} is given out already; this machine has {count}"),
                };
                return Err(format!("line {line}: {why}"));
            }
            if let Some(slot) = chosen.get_mut(number) {
                *slot = found;
            }
        }
    }
    Ok(chosen.into_iter().flatten().collect())
}

/// Most functions that are listed where one is wrong.
const MAXIMUM_LISTED: usize = 16;

/// Prints what there is in place of `name`.
struct Others<'a> {
    name: DeviceName,
    functions: &'a [FunctionInfo],
}

impl fmt::Display for Others<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints = || self.functions.iter().filter(|info| info.header_type == HeaderType::Endpoint);
        let words: Vec<String> = endpoints()
            .map(|info| match self.name {
                DeviceName::Address(_) => info.address.to_string(),
                DeviceName::Id { .. } => id(info).to_string(),
            })
            .collect();
        let meant = config::nearest(&self.name.to_string(), &mut words.iter().map(String::as_str));
        write!(f, "{}; it has", config::DidYouMean(meant))?;
        for info in endpoints().take(MAXIMUM_LISTED) {
            write!(f, " {} ({})", info.address, id(info))?;
        }
        f.write_str(match endpoints().count() {
            0 => " none",
            1..=MAXIMUM_LISTED => "",
            _ => " ...",
        })
    }
}

fn id(info: &FunctionInfo) -> DeviceName {
    DeviceName::Id { vendor: info.vendor_id, device: info.device_id }
}

/// The length in bytes from which a list of functions is not made longer.
const MAXIMUM_STRANGERS: usize = 200;

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
    let mut strangers = String::new();
    for other in &segment {
        let stranger = other.header_type == HeaderType::Endpoint
            && !chosen.contains(&other.address)
            && pci::isolation_group(&segment, other.address) == Some(leader);
        if stranger && strangers.len() < MAXIMUM_STRANGERS {
            strangers = format!("{strangers}{}{}", if strangers.is_empty() { "" } else { " and " }, other.address);
        }
    }
    if !strangers.is_empty() {
        return Err(format!(
            "it cannot be told apart from {strangers}, which the guest does not get: give it all of them or none"
        ));
    }
    match dmar.reserved_regions(device, &Bridges(functions)).next() {
        None => Ok(()),
        Some(Ok(region)) => {
            Err(format!("firmware uses it through reserved memory at {} to {}", region.base, region.limit))
        }
        Some(Err(error)) => Err(format!("firmware may use it through reserved memory: {error}")),
    }
}
