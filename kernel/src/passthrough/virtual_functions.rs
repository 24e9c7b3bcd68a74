//! The virtual functions of an assigned device: given room and put into its guest's domain when the device is assigned, and
//! switched on and off as its guest asks. They are the guest's as the device is, and no other guest gets one.

use crate::machine::config_space::MachineConfigSpace;
use crate::passthrough::assignment::{Passthrough, has_memory};
use crate::passthrough::device::{AssignedDevice, VirtualFunctions};
use crate::time;
use addr::{HostPhys, PciAddress};
use alloc::format;
use alloc::string::{String, ToString};
use core::ops::Range;
use pci::{Bar, DISABLING_US, ENABLING_US, FunctionDescription, RequesterIds, Room, Sriov};
use vtd::Levels;

impl Passthrough {
    /// Gives the guest of assigned `physical` the first `count` of its virtual functions, with their DMA translated by the table
    /// at `root`, and leaves them switched on.
    pub(super) fn add_virtual_functions(
        &mut self,
        config: &mut MachineConfigSpace,
        mut sriov: Sriov,
        physical: PciAddress,
        count: u16,
        (root, levels): (HostPhys, Levels),
    ) -> Result<(), String> {
        let above = pci::bridges_above(&self.functions, physical).next();
        let routing = pci::open_routing(config, above, physical);
        sriov.prepare(config, count, routing).map_err(|error| error.to_string())?;
        self.place_ranges(config, &mut sriov, physical, count)?;
        sriov.enable(config, count).map_err(|error| error.to_string())?;
        pause(ENABLING_US);
        for index in 0..count {
            self.add_virtual_function(config, &sriov, physical, index, (root, levels))?;
        }
        let own = self.devices.iter_mut().find(|device| device.address() == physical);
        own.ok_or(NOT_ASSIGNED)?.virtual_functions = Some(VirtualFunctions { sriov, off_since_us: 0 });
        Ok(())
    }

    /// Finds room for ranges that the firmware has not placed.
    fn place_ranges(
        &self,
        config: &MachineConfigSpace,
        sriov: &mut Sriov,
        physical: PciAddress,
        count: u16,
    ) -> Result<(), String> {
        let near = &self.device(physical).ok_or(NOT_ASSIGNED)?.function;
        for (register, range) in sriov.bars(0).iter() {
            let Bar::Memory { address, size, prefetchable, is_64_bit } = range else { continue };
            let bytes = size.saturating_mul(count.into());
            let placed = sriov.bars(0);
            let is_free = |wanted: &Range<u64>| {
                let (start, end) = (wanted.start, wanted.end);
                let mut earlier = placed.iter().take_while(|(earlier, _)| *earlier < register);
                let mut others = self.devices.iter().flat_map(|device| device.function.bars.iter());
                !earlier.any(|(_, range)| overlap(&range, count, wanted))
                    && !others.any(|(_, range)| overlap(&range, 1, wanted))
                    && !self.has_machines_registers(start, end)
                    && !config.overlap(start, end)
                    && !has_memory(start, end)
            };
            let given = address.as_u64()..address.as_u64().saturating_add(bytes);
            let room = Room { bytes, alignment: size, prefetchable, is_64_bit };
            let found = Some(address).filter(|_| given.start != 0 && is_free(&given));
            let found = found.or_else(|| pci::find_room(config, &self.functions, near, &room, &is_free));
            let no_room = || format!("there is no room for {bytes:#x} bytes (BAR {register})");
            sriov.set_address(register, found.ok_or_else(no_room)?);
        }
        Ok(())
    }

    /// Assigns one that is switched on.
    fn add_virtual_function(
        &mut self,
        config: &mut MachineConfigSpace,
        sriov: &Sriov,
        physical: PciAddress,
        index: u16,
        (root, levels): (HostPhys, Levels),
    ) -> Result<(), String> {
        let own = self.device(physical).ok_or(NOT_ASSIGNED)?;
        let place = sriov.place(index).ok_or(NOT_ASSIGNED)?;
        let (guest, domain) = (own.guest, own.domain);
        // A bridge that gives all of them one requester id has a conventional bus below: no virtual function is there.
        if own.requester_ids.is_aliased()
            || self.functions.iter().any(|info| info.address == place)
            || self.device(place).is_some()
        {
            return Err(format!("{place} would not be its own"));
        }
        let (info, bars) = (&own.function.info, sriov.bars(index));
        let silent = || format!("{place} does not answer");
        let function = FunctionDescription::read_virtual(config, place, info, sriov.device_id, bars);
        let function = function.ok_or_else(silent)?;
        pci::enable(config, place);
        let unit = self.units.at(own.unit).ok_or(NOT_ASSIGNED)?;
        unit.unit.assign(&mut unit.tables, place.bdf, domain, root, levels).map_err(|error| error.to_string())?;
        let mut device = AssignedDevice::new(function, guest, RequesterIds::own(place.bdf), unit, domain)?;
        device.physical = Some(physical);
        let answers = device.answers();
        self.devices.push(device);
        if answers { Ok(()) } else { Err(silent()) }
    }

    /// The virtual functions of an assigned device, by their numbers.
    pub fn virtual_functions(&self, physical: PciAddress) -> impl Iterator<Item = &AssignedDevice> {
        self.devices.iter().filter(move |device| device.physical == Some(physical))
    }

    /// Switches the first `count` virtual functions of an assigned device on, each as after a reset and with its MSI-X entries
    /// masked, or all off. Takes the time that the specification demands, a second at most: it is the guest's.
    pub fn set_virtual_functions(
        &mut self,
        config: &mut MachineConfigSpace,
        physical: PciAddress,
        count: u16,
    ) -> Result<(), String> {
        let Self { devices, units, .. } = self;
        let its = |device: &&mut AssignedDevice| device.physical == Some(physical);
        let mut were_on = false;
        for device in devices.iter_mut().filter(its).filter(|device| !device.absent) {
            were_on = true;
            if let Some(unit) = units.at(device.unit) {
                device.after_reset(unit)?;
            }
            device.absent = true;
        }
        let device = devices.iter_mut().find(|device| device.address() == physical).ok_or(NOT_ASSIGNED)?;
        let usable = !device.quarantined;
        let may_log = device.may_log();
        let own = device.virtual_functions.as_mut().ok_or(NOT_ASSIGNED)?;
        if were_on {
            own.sriov.disable(config);
            own.off_since_us = now_us();
        }
        if count == 0 || !usable {
            return Ok(());
        }
        pause((own.off_since_us + DISABLING_US).saturating_sub(now_us()));
        own.sriov.enable(config, count).map_err(|error| error.to_string())?;
        pause(ENABLING_US);
        for device in devices.iter_mut().filter(its).take(count.into()) {
            device.absent = false;
            pci::enable(config, device.address());
            if let Some(unit) = units.at(device.unit) {
                device.after_reset(unit)?;
            }
        }
        if may_log {
            log::info!("device {physical}: {count} virtual functions are switched on");
        }
        Ok(())
    }
}

/// What no caller sees, as it asks for what it was told of.
const NOT_ASSIGNED: &str = "it is not assigned";

/// Whether a range, with `count - 1` more behind it, has something in common with `wanted`.
fn overlap(range: &Bar, count: u16, wanted: &Range<u64>) -> bool {
    let Bar::Memory { address, size, .. } = range else { return false };
    let (start, bytes) = (address.as_u64(), size.saturating_mul(count.into()));
    start < wanted.end && wanted.start < start.saturating_add(bytes)
}

fn now_us() -> u64 {
    time::ticks_to_us(time::ticks())
}

fn pause(us: u64) {
    time::wait_until(us, || false);
}
