//! Moving devices into guests and out again.
//!
//! In: bus mastering off, reset, second stage, context entry, then to the guest. Out: bus mastering off, context entry
//! cleared (which waits until DMA in flight is done), messages released, reset. At no moment does a device reach what
//! belongs to nobody or to somebody else.

use crate::cpu::interrupts::{self, Source};
use crate::cpu::local_apic;
use crate::machine::config_space::MachineConfigSpace;
use crate::machine::device_memory::DeviceMemory;
use crate::machine::firmware::Firmware;
use crate::machine::io_apics::IoApics;
use crate::memory::frames;
use crate::memory::frames::Owner;
use crate::passthrough::device::AssignedDevice;
use crate::passthrough::domain::Domain;
use crate::passthrough::fault_watch::FaultWatch;
use crate::passthrough::reserved_memory;
use crate::passthrough::selection::{self, Bridges};
use crate::passthrough::units::{RemappingUnit, Units};
use crate::time;
use crate::vm::memory::GuestMemory;
use addr::{DomainId, HostPhys, PAGE_SIZE, PciAddress, Vector};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use config::Device;
use dmar::{Dmar, Structure, UnknownStructure};
use pci::{FunctionDescription, FunctionInfo, Functions};
use vtd::{DestinationMode, Platform, Polarity, Route, Trigger};

/// I/O APICs, local APICs and interrupt messages: no device answers here.
const INTERRUPT_CONTROLLERS: core::ops::Range<u64> = 0xfec0_0000..0xfef0_0000;

/// Devices, units, and who has which.
pub struct Passthrough {
    /// The remapping units.
    pub units: Units,
    /// The assigned devices.
    pub devices: Vec<AssignedDevice>,
    pub(super) watch: FaultWatch,
    pub(super) faults: u64,
    pub(super) quarantined: usize,
    dmar: Option<Dmar<'static>>,
    pub(super) functions: Vec<FunctionInfo>,
    domains: Vec<(u8, Domain)>,
    next_domain: u16,
}

impl Passthrough {
    /// Reads the DMAR table, finds the functions of the machine, and probes the units. Nothing is changed yet.
    pub fn new(firmware: &Firmware, config: &MachineConfigSpace, fault_limit: u32) -> Self {
        let functions: Vec<FunctionInfo> =
            config.segments().into_iter().flat_map(|segment| Functions::new(config, segment, 0)).collect();
        log::info!("{} PCI functions", functions.len());
        let dmar = firmware.dmar.as_ref().and_then(|bytes| {
            // The copy of the table lives as long as the machine.
            let bytes: &'static [u8] = Vec::leak(bytes.clone());
            Dmar::parse(bytes).map_err(|error| log::error!("DMAR table: {error}")).ok()
        });
        match &dmar {
            None => log::warn!("no usable DMAR table: no DMA and no interrupt can be remapped on this machine"),
            Some(dmar) => report_table(dmar),
        }
        let units = dmar.as_ref().map(Units::probe).unwrap_or_default();
        Self {
            units,
            devices: Vec::new(),
            watch: FaultWatch::new(fault_limit),
            faults: 0,
            quarantined: 0,
            dmar,
            functions,
            domains: Vec::new(),
            // Domain id 0 is reserved where a unit has caching mode.
            next_domain: 1,
        }
    }

    /// Whether x2APIC mode may be used: firmware does not forbid it, and every unit can name its ids.
    pub fn allows_x2apic(&self) -> bool {
        self.dmar.as_ref().is_none_or(|dmar| !dmar.x2apic_opt_out() && self.units.all_have_extended_interrupt_mode())
    }

    /// Finds the functions that a guest's configuration names, in that order, and checks that they can be handed out. The
    /// error says in words which cannot, and why, with the configuration's line.
    pub fn select(&self, devices: &[Device]) -> Result<Vec<PciAddress>, String> {
        let taken: Vec<PciAddress> = self.devices.iter().map(AssignedDevice::address).collect();
        let chosen = selection::resolve(devices, &self.functions, &taken)?;
        for (device, Device { line, .. }) in chosen.iter().zip(devices) {
            self.check(*device, &chosen)
                .map_err(|why| format!("line {line}: device {device} cannot be assigned: {why}"))?;
        }
        Ok(chosen)
    }

    /// Whether `device` can be handed out together with all of `chosen`.
    fn check(&self, device: PciAddress, chosen: &[PciAddress]) -> Result<(), String> {
        let no_table = "the machine has no usable DMAR table, so nothing could limit its DMA";
        let dmar = self.dmar.as_ref().ok_or(no_table)?;
        selection::check(device, chosen, &self.functions, dmar)?;
        self.units.serving(dmar, device, &Bridges(&self.functions)).map(|_| ())
    }

    /// Moves `address` into guest `guest` with `memory`, and `virtual_functions` virtual functions with it if it can have any. They
    /// are switched on then, to be looked at: [`Self::set_virtual_functions`] is next.
    pub fn assign(
        &mut self,
        config: &mut MachineConfigSpace,
        address: PciAddress,
        guest: u8,
        memory: &GuestMemory,
        virtual_functions: u16,
    ) -> Result<(), String> {
        let done = self.try_assign(config, address, guest, memory, virtual_functions);
        done.map_err(|why| format!("device {address} cannot be assigned: {why}"))
    }

    fn try_assign(
        &mut self,
        config: &mut MachineConfigSpace,
        address: PciAddress,
        guest: u8,
        memory: &GuestMemory,
        virtual_functions: u16,
    ) -> Result<(), String> {
        self.units.recover();
        let bridges = Bridges(&self.functions);
        let dmar = self.dmar.as_ref().ok_or("no usable DMAR table")?;
        let base = self.units.serving(dmar, address, &bridges)?;
        let requester_ids = pci::requester_ids(&self.functions, address).ok_or("the bridges above it make no sense")?;
        if !pci::disable_bus_mastering(config, address) {
            return Err("its bus mastering stays on".to_string());
        }
        let function = FunctionDescription::read(config, address).ok_or("it does not answer")?;
        if let Some(register) = function.bars.invalid() {
            return Err(format!("its base address register {register} makes no sense"));
        }
        self.check_ranges(&function)?;
        let sriov = pci::Sriov::find(config, address).filter(|_| virtual_functions > 0 && function.express.is_some());
        match pci::reset_function(config, &function, &mut || time::ticks_to_us(time::ticks())) {
            Ok(method) => log::info!("device {address}: reset ({method:?})"),
            // The best that it has is that nothing of it runs: bus mastering is off, and the guest's driver resets it.
            Err(pci::ResetError::NoMethod) => log::warn!("device {address}: it has no reset of its own"),
            Err(error) => return Err(error.to_string()),
        }
        pci::enable(config, address);
        let unit = self.units.at(base).ok_or("its unit is gone")?;
        let known = self.domains.iter().find(|(owner, domain)| *owner == guest && domain.unit == base);
        let (id, root, levels) = match known {
            Some((_, domain)) => (domain.id, domain.root(), domain.levels),
            None => {
                let id = DomainId(self.next_domain);
                let domain = Domain::new(unit, id, memory)?;
                let new = (domain.id, domain.root(), domain.levels);
                self.next_domain += 1;
                self.domains.push((guest, domain));
                new
            }
        };
        for source in requester_ids.as_slice() {
            unit.unit.assign(&mut unit.tables, *source, id, root, levels).map_err(|error| error.to_string())?;
        }
        let device = AssignedDevice::new(function, guest, requester_ids, unit, id)?;
        // A bridge carries DMA and messages up only while its own bus mastering is on, and firmware may leave that off.
        for bridge in pci::bridges_above(&self.functions, address) {
            pci::set_command_bits(config, bridge, pci::spec::header::command::BUS_MASTER, 0);
        }
        log::info!("device {address}: to guest {guest}, domain {id} of the unit at {base}, {} levels", levels.count());
        self.devices.push(device);
        match sriov {
            Some(sriov) => self
                .add_virtual_functions(config, sriov, address, virtual_functions, (root, levels))
                .map_err(|why| format!("its virtual functions: {why}")),
            None => Ok(()),
        }
    }

    /// A function's ranges must be its own: whole pages that are nobody's memory.
    fn check_ranges(&self, function: &FunctionDescription) -> Result<(), String> {
        for (register, bar) in function.bars.iter() {
            if let pci::Bar::Memory { address, size, .. } = bar {
                let (start, end) = (address.as_u64(), address.as_u64().saturating_add(size));
                if self.has_machines_registers(start, end) {
                    return Err(format!("its base address register {register} covers the machine's own registers"));
                }
                if start == 0 || has_memory(start, end) {
                    return Err(format!("its base address register {register} has no place of its own ({address})"));
                }
            }
        }
        Ok(())
    }

    /// Whether remapping units or interrupt controllers have registers in a range.
    pub(super) fn has_machines_registers(&self, start: u64, end: u64) -> bool {
        self.units.overlap(start, end) || INTERRUPT_CONTROLLERS.start < end && start < INTERRUPT_CONTROLLERS.end
    }

    /// Brings the units up to interrupt remapping, and firmware's devices to their reserved memory.
    pub fn start_remapping(&mut self, mode: DestinationMode) {
        let Some(dmar) = self.dmar else { return };
        let (bridges, next_domain) = (Bridges(&self.functions), &mut self.next_domain);
        let platform =
            Platform { dma_control_opt_in: dmar.dma_control_opt_in(), x2apic_opt_out: dmar.x2apic_opt_out() };
        self.units.start_remapping(mode, platform, |unit| {
            let is_firmwares = |frame| frames().table().owner(frame) == Owner::Reserved;
            let RemappingUnit { unit: driver, tables, base, .. } = unit;
            reserved_memory::map_all(driver, tables, *base, &dmar, &bridges, is_firmwares, next_domain);
        });
    }

    /// An assigned device.
    pub fn device(&self, address: PciAddress) -> Option<&AssignedDevice> {
        self.devices.iter().find(|device| device.address() == address)
    }

    /// An assigned device that is in service, with its unit.
    fn in_service(&mut self, address: PciAddress) -> Result<(&mut AssignedDevice, &mut RemappingUnit), String> {
        let device = self.devices.iter_mut().find(|device| device.address() == address);
        let device = device.ok_or("it is not assigned")?;
        if device.quarantined {
            return Err("it is quarantined".to_string());
        }
        if device.absent {
            return Err("it is switched off".to_string());
        }
        let unit = self.units.at(device.unit).ok_or("its unit is out of use")?;
        Ok((device, unit))
    }

    /// Sends MSI-X `entry` of an assigned device to its guest's processor `vcpu` as `guest_vector`, and unmasks it.
    pub fn route(&mut self, address: PciAddress, entry: u16, vcpu: u8, guest_vector: Vector) -> Result<(), String> {
        let (device, unit) = self.in_service(address)?;
        device.route(unit, entry, vcpu, guest_vector)
    }

    /// Sends the first `vectors` interrupts of MSI of an assigned device to its guest's processor `vcpu`.
    pub fn route_msi(
        &mut self,
        address: PciAddress,
        vectors: u8,
        vcpu: u8,
        guest_vector: Vector,
    ) -> Result<(), String> {
        let (device, unit) = self.in_service(address)?;
        device.route_msi(unit, vectors, vcpu, guest_vector)
    }

    /// Resets an assigned device whose guest has asked for it, with its MSI and MSI-X off.
    pub fn reset(&mut self, config: &mut MachineConfigSpace, address: PciAddress) -> Result<(), String> {
        let (device, unit) = self.in_service(address)?;
        let reset = pci::reset_function(config, &device.function, &mut || time::ticks_to_us(time::ticks()));
        device.after_reset(unit)?;
        reset.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Masks MSI-X `entry` of an assigned device.
    pub fn mask(&mut self, address: PciAddress, entry: u16) {
        if let Some(device) = self.devices.iter_mut().find(|device| device.address() == address) {
            device.mask(entry);
        }
    }

    /// The registers of an assigned device that share pages with its MSI-X table and contain `address`, with the offset
    /// of `address` in them.
    pub fn trapped_registers(&mut self, address: HostPhys) -> Option<(&mut DeviceMemory, u64)> {
        self.devices.iter_mut().find_map(|device| device.trapped_registers(address))
    }

    /// Takes all devices from a guest that has ended.
    pub fn release(&mut self, config: &mut MachineConfigSpace, guest: u8) {
        // Virtual functions first: without their physical one they are not there.
        while let Some(last) = self.devices.iter().rposition(|device| device.guest == guest) {
            let mut device = self.devices.remove(last);
            let address = device.address();
            if !device.absent {
                pci::disable_bus_mastering(config, address);
                if let Some(msi) = device.function.msi {
                    msi.disable(config, address);
                }
            }
            if let Some(virtual_functions) = &device.virtual_functions {
                virtual_functions.sriov.disable(config);
            }
            let Some(unit) = self.units.at(device.unit) else { continue };
            for source in device.requester_ids.as_slice() {
                if let Err(error) = unit.unit.clear(&mut unit.tables, *source) {
                    log::error!("device {address}: {error}");
                }
            }
            device.release_messages(unit);
            if device.physical.is_some() {
                continue;
            }
            if let Err(error) = pci::reset_function(config, &device.function, &mut || time::ticks_to_us(time::ticks()))
            {
                log::warn!("device {address}: not reset: {error}");
            }
            log::info!("device {address}: taken from guest {guest}");
        }
        // What the devices reached must not be found again under the guest's number.
        while let Some(last) = self.domains.iter().rposition(|(owner, _)| *owner == guest) {
            let (_, domain) = self.domains.remove(last);
            let id = domain.id;
            let Some(unit) = self.units.at(domain.unit) else { continue };
            if let Err(why) = domain.destroy(unit) {
                log::error!("domain {id}: its tables are not given back: {why}");
            }
        }
    }

    /// Checks, frame by frame, that the devices of `guest` reach its own memory and nothing else.
    pub fn verify(&mut self, guest: u8) -> Result<(), String> {
        for (owner, domain) in self.domains.iter().filter(|(owner, _)| *owner == guest) {
            let Some(unit) = self.units.at(domain.unit) else { continue };
            let mut stranger = None;
            domain.for_each_reachable(unit, |start, bytes| {
                let mut frames = frames();
                let pages = (start.as_u64()..start.as_u64() + bytes).step_by(PAGE_SIZE as usize);
                let mut foreign =
                    pages.map(HostPhys::new).filter(|page| frames.table().owner(*page) != Owner::Guest(*owner));
                stranger = stranger.or(foreign.next());
            });
            if let Some(page) = stranger {
                return Err(format!("the devices of guest {guest} reach {page}, which is not its own"));
            }
        }
        Ok(())
    }

    /// Opens the console's interrupt through the I/O APIC that has its pin, remapped like every other. Says in words
    /// why not, if not.
    pub fn open_console(&mut self, firmware: &Firmware, io_apics: &mut IoApics, irq: u8) -> Result<(), String> {
        let line = firmware.isa_line(irq);
        let id = io_apics.id_of(&line).ok_or("no I/O APIC has its pin")?;
        let dmar = self.dmar.as_ref().ok_or("no usable DMAR table")?;
        let (drhd, source) = dmar.io_apic(id, &Bridges(&self.functions)).map_err(|error| format!("{error}"))?;
        let unit = self.units.at(drhd.register_base).ok_or("its remapping unit is out of use")?;
        if unit.unassignable.is_some() {
            return Err("its remapping unit cannot remap interrupts".to_string());
        }
        let vector = interrupts::allocate(Source::Console).ok_or("no interrupt vector is left")?;
        let trigger = if line.level { Trigger::Level } else { Trigger::Edge };
        let polarity = if line.active_low { Polarity::ActiveLow } else { Polarity::ActiveHigh };
        let entry = unit.unit.allocate_interrupts(&mut unit.tables, 1).and_then(|block| {
            let handle = block.get(0).ok_or(vtd::Error::Poisoned)?;
            let route = Route { vector, destination: local_apic::id(), trigger, source };
            unit.unit.route_interrupt(&mut unit.tables, handle, &route)?;
            Ok(vtd::io_apic_entry(handle, vector, trigger, polarity))
        });
        let entry = entry.map_err(|error| format!("{error}"))?;
        if io_apics.write(&line, entry) { Ok(()) } else { Err("its pin is not there".to_string()) }
    }
}

/// Whether anybody's memory is in a range.
pub(super) fn has_memory(start: u64, end: u64) -> bool {
    !frames().table().is_reserved(HostPhys::new(start), HostPhys::new(end))
}

/// Tells what is odd in the firmware's table.
fn report_table(dmar: &Dmar<'_>) {
    for finding in dmar.findings() {
        log::warn!("{finding}");
    }
    for structure in dmar.structures() {
        match structure {
            Ok(Structure::Unknown(unknown)) => {
                let UnknownStructure { offset, structure_type, .. } = unknown;
                log::warn!("DMAR structure at {offset:#x} of unknown type {structure_type:#x}: skipped");
            }
            Ok(_) => {}
            Err(error) => log::error!("{error}"),
        }
    }
}
