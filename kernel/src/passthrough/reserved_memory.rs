//! Firmware's devices keep their reserved memory: what the DMAR table names in RMRR structures (VT-d specification,
//! 8.4) is mapped one to one for the devices named, from before translation is on. Without it a machine loses what its
//! firmware does behind the scenes: legacy USB, graphics, management engines.
//!
//! The table is firmware's word, and a wrong one could open the hypervisor to a device. So a region is mapped only
//! where the memory map says that it is firmware's own, and where no unit's registers and no interrupts are.

use crate::passthrough::selection::Bridges;
use addr::{DomainId, HostPhys, Iova, PAGE_SIZE, PciAddress};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use dmar::{Dmar, Finding, Rmrr, ScopeType};
use paging::{NeverLoaded, PageTable, Permissions, SecondStage, SecondStageAttributes};
use vtd::{Clock, DmaMemory, Registers, Unit};

/// Largest region that is mapped, in bytes: graphics and management engines reserve up to some hundred MiB.
const MAXIMUM_BYTES: u64 = 1 << 30;

/// Maps the reserved memory of every device behind the unit at `base`, whose root table hardware does not use yet.
/// `is_firmwares` says whether a frame is nobody's but firmware's. Domain ids are taken from `next_domain` up.
/// Returns the devices that got something.
pub fn map_all<R: Registers, C: Clock, M: DmaMemory>(
    unit: &mut Unit<R, C>,
    memory: &mut M,
    base: HostPhys,
    dmar: &Dmar<'_>,
    bridges: &Bridges<'_>,
    mut is_firmwares: impl FnMut(HostPhys) -> bool,
    next_domain: &mut u16,
) -> Vec<PciAddress> {
    let mut mapped = Vec::new();
    for device in devices(dmar, bridges) {
        if !dmar.unit_for(device, bridges).is_ok_and(|drhd| drhd.register_base == base) {
            continue;
        }
        let regions = dmar.reserved_regions(device, bridges).filter_map(|region| match region {
            Ok(region) if is_dangerous(dmar, &region) => {
                let (base, limit) = (region.base, region.limit);
                log::error!("device {device}: {base} to {limit} holds registers of a unit or interrupts; not mapped");
                None
            }
            Ok(region) => Some(region),
            Err(error) => {
                log::error!("device {device}: reserved memory that cannot be read: {error}");
                None
            }
        });
        match map(unit, memory, device, regions, &mut is_firmwares, DomainId(*next_domain)) {
            Ok(0) => {}
            Ok(bytes) => {
                log::info!("device {device}: keeps {} KiB of reserved memory", bytes >> 10);
                *next_domain += 1;
                mapped.push(device);
            }
            Err(why) => log::error!("device {device}: its reserved memory is lost: {why}"),
        }
    }
    mapped
}

/// Whether a device that has the region could switch a unit off or forge interrupts. The memory map does not tell:
/// where the machine's registers are is reserved there too.
fn is_dangerous(dmar: &Dmar<'_>, rmrr: &Rmrr<'_>) -> bool {
    dmar.findings().any(|finding| match finding {
        Finding::RegionCoversUnit { region, .. } | Finding::RegionInInterruptRange { region } => region == rmrr.offset,
        _ => false,
    })
}

/// The functions that RMRR structures name, each once.
fn devices(dmar: &Dmar<'_>, bridges: &Bridges<'_>) -> Vec<PciAddress> {
    let mut devices = Vec::new();
    for region in dmar.rmrrs() {
        let scopes = region.scopes();
        let endpoints = scopes.iter().flatten().filter(|scope| scope.scope_type == ScopeType::PciEndpoint);
        for device in endpoints.filter_map(|scope| scope.address(region.segment, bridges)) {
            if !devices.contains(&device) {
                devices.push(device);
            }
        }
    }
    devices
}

/// Maps the regions of one device; returns how many bytes.
fn map<'a, R: Registers, C: Clock, M: DmaMemory>(
    unit: &mut Unit<R, C>,
    memory: &mut M,
    device: PciAddress,
    regions: impl Iterator<Item = Rmrr<'a>>,
    is_firmwares: &mut impl FnMut(HostPhys) -> bool,
    domain: DomainId,
) -> Result<u64, String> {
    let capabilities = unit.capabilities();
    let levels = capabilities.second_stage_levels().ok_or("its unit has no second stage")?;
    let text = |error: vtd::Error| error.to_string();
    let mut table: PageTable<SecondStage> =
        PageTable::new(levels.count(), capabilities.largest_page(), memory).map_err(|error| format!("{error}"))?;
    let mut bytes = 0;
    for region in regions {
        let length = region.pages().saturating_mul(PAGE_SIZE);
        let pages = (0..region.pages()).map(|page| HostPhys::new(region.base.as_u64() + page * PAGE_SIZE));
        if length > MAXIMUM_BYTES || !pages.into_iter().all(&mut *is_firmwares) {
            log::error!("device {device}: {} to {} is not firmware's own; not mapped", region.base, region.limit);
            continue;
        }
        let attributes = SecondStageAttributes { snoop: capabilities.snoop_control() };
        let start = Iova::new(region.base.as_u64());
        match table.map(memory, start, region.base, length, Permissions::READ_WRITE, attributes) {
            // Hardware has not been pointed to this table yet.
            Ok(flush) => drop(flush.complete(&NeverLoaded, memory)),
            Err(error) => {
                log::error!("device {device}: {} to {}: {error}", region.base, region.limit);
                continue;
            }
        }
        bytes += length;
    }
    if bytes > 0 {
        unit.assign(memory, device.bdf, domain, table.root(), levels).map_err(text)?;
    } else {
        drop(table.destroy(memory).complete(&NeverLoaded, memory));
    }
    Ok(bytes)
}
