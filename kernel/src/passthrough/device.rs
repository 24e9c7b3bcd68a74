//! One assigned function: its messages on their way from the real MSI-X table to the mailbox of its guest.

use crate::cpu::interrupts;
use crate::cpu::local_apic;
use crate::machine::device_memory::DeviceMemory;
use crate::passthrough::messages::{Messages, Routed, Target};
use crate::passthrough::units::RemappingUnit;
use crate::vcpu::notification::InterruptFormat;
use crate::vm::pci::DeviceMessage;
use addr::{DomainId, HostPhys, PAGE_SIZE, PciAddress, Vector};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use pci::{Bar, FunctionDescription, MsixCapability, MsixTableAccess, MsixTableDriver, RequesterIds, Sriov};
use vtd::Trigger;

/// How many new ways of one function are logged: its guest makes as many as it likes.
const LOGGED: u16 = 64;

/// The real MSI-X table.
#[derive(Debug)]
struct Table(DeviceMemory);

impl MsixTableAccess for Table {
    fn read32(&self, offset: u64) -> u32 {
        self.0.read32(offset)
    }

    fn write32(&mut self, offset: u64, value: u32) {
        self.0.write32(offset, value);
    }
}

/// What a physical function has of its virtual ones.
#[derive(Debug)]
pub struct VirtualFunctions {
    /// How they are switched on and off.
    pub sriov: Sriov,
    /// When they were last switched off, in microseconds.
    pub off_since_us: u64,
}

/// A function that belongs to a guest.
#[derive(Debug)]
pub struct AssignedDevice {
    /// The function.
    pub function: FunctionDescription,
    /// The guest's number.
    pub guest: u8,
    /// Its requester ids: its own, and those that bridges put in its place.
    pub requester_ids: RequesterIds,
    /// The unit that serves it, by its registers' address.
    pub unit: HostPhys,
    /// The domain that it is in.
    pub domain: DomainId,
    /// Whether it was taken out of service.
    pub quarantined: bool,
    /// The virtual functions that it has for its guest.
    pub virtual_functions: Option<VirtualFunctions>,
    /// The physical function that it belongs to, if it is a virtual one.
    pub physical: Option<PciAddress>,
    /// It is a virtual function that is switched off: nothing of it is touched.
    pub absent: bool,
    table: Option<MsixTableDriver<Table>>,
    /// What of its registers the guest reaches through the hypervisor only: where it begins, and the memory.
    trapped: Vec<(HostPhys, DeviceMemory)>,
    messages: Messages,
    /// What it is to send when its guest uses MSI.
    msi: Option<DeviceMessage>,
    /// How many new ways were logged.
    logged: u16,
}

impl AssignedDevice {
    /// A function that was assigned, with every message masked.
    pub fn new(
        function: FunctionDescription,
        guest: u8,
        requester_ids: RequesterIds,
        unit: &mut RemappingUnit,
        domain: DomainId,
    ) -> Result<Self, String> {
        let base = unit.base;
        let mut trapped = Vec::new();
        let table = match &function.msix {
            Ok(Some(capability)) => {
                let (table, pages) = Self::table(&function, capability)?;
                trapped.push(pages);
                Some(table)
            }
            Ok(None) => None,
            Err(error) => return Err(format!("its MSI-X capability: {error}")),
        };
        for (_, range) in function.bars.iter() {
            let Bar::Memory { address, size, .. } = range else { continue };
            // What shares its page with something else.
            if size < PAGE_SIZE || !address.is_aligned(PAGE_SIZE) {
                trapped.push((address, DeviceMemory::map(address, size).map_err(|error| error.to_string())?));
            }
        }
        let mut messages = Messages::default();
        let msi = match function.msi.map(|msi| messages.allocate_msi(&mut unit.unit, &mut unit.tables, msi.vectors)) {
            Some(Ok(message)) => Some(DeviceMessage { address: message.address, data: message.data }),
            Some(Err(why)) => {
                log::warn!("device {}: its MSI is not shown: {why}", function.address());
                None
            }
            None => None,
        };
        if msi.is_none() && table.is_none() {
            log::warn!(
                "device {}: without MSI and MSI-X, and INTx is not passed on: no interrupts",
                function.address()
            );
        }
        let (unit, quarantined) = (base, false);
        let (virtual_functions, physical, absent, logged) = (None, None, false, 0);
        Ok(Self {
            function,
            guest,
            requester_ids,
            unit,
            domain,
            quarantined,
            virtual_functions,
            physical,
            absent,
            table,
            trapped,
            messages,
            msi,
            logged,
        })
    }

    /// What it is to send when its guest uses MSI; `None` if it cannot.
    pub fn msi(&self) -> Option<DeviceMessage> {
        self.msi
    }

    fn table(
        function: &FunctionDescription,
        capability: &MsixCapability,
    ) -> Result<(MsixTableDriver<Table>, (HostPhys, DeviceMemory)), String> {
        let place = capability.table.locate(&function.bars).map_err(|error| format!("its MSI-X table: {error}"))?;
        let memory = DeviceMemory::map(place, capability.table.length.into()).map_err(|error| error.to_string())?;
        let mut table = MsixTableDriver::new(Table(memory), capability);
        table.mask_and_clear_all();
        // The pages of the table, as far as they are the function's.
        let Some(Bar::Memory { address, size, .. }) = function.bars.range(capability.table.bar) else {
            return Err("its MSI-X table is in no range".to_string());
        };
        let first = place.align_down(PAGE_SIZE).max(address).as_u64();
        let end = place.as_u64().saturating_add(capability.table.length.into()).next_multiple_of(PAGE_SIZE);
        let end = end.min(address.as_u64().saturating_add(size));
        let pages = DeviceMemory::map(HostPhys::new(first), end - first).map_err(|error| error.to_string())?;
        Ok((table, (HostPhys::new(first), pages)))
    }

    /// What of the registers the guest reaches through the hypervisor only, if `address` is in it, with its offset.
    pub fn trapped_registers(&mut self, address: HostPhys) -> Option<(&mut DeviceMemory, u64)> {
        self.trapped.iter_mut().find_map(|(start, memory)| {
            let offset = address.as_u64().checked_sub(start.as_u64()).filter(|offset| *offset < memory.bytes())?;
            Some((memory, offset))
        })
    }

    /// The function's address.
    pub fn address(&self) -> PciAddress {
        self.function.address()
    }

    /// Where messages go for the guest's processor `vcpu`.
    fn target(&self, unit: &RemappingUnit, vcpu: u8) -> Result<Target, String> {
        let descriptor = interrupts::posted_processing(vcpu).ok_or("its processor has no mailbox")?.descriptor;
        let posts = InterruptFormat::choose(unit.unit.capabilities().posted_interrupts(), Trigger::Edge);
        Ok(Target {
            source: self.requester_ids.upstream(),
            processor: local_apic::id(),
            vcpu,
            descriptor: (posts == InterruptFormat::Posted).then_some(descriptor),
        })
    }

    /// Sends MSI-X `entry` to the guest's processor `vcpu` as `guest_vector`, and unmasks it.
    pub fn route(
        &mut self,
        unit: &mut RemappingUnit,
        entry: u16,
        vcpu: u8,
        guest_vector: Vector,
    ) -> Result<(), String> {
        let target = self.target(unit, vcpu)?;
        if self.table.is_none() {
            return Err("it has no MSI-X table".to_string());
        }
        let routed = self.messages.route(&mut unit.unit, &mut unit.tables, &target, entry, guest_vector)?;
        if let Routed::New { message, index, vector } = routed {
            if let Some(table) = self.live_table() {
                table.program(entry, message.address, message.data);
            }
            if self.may_log() {
                let way = vector.map_or("the unit's posting".to_string(), |vector| format!("vector {:#x}", vector.0));
                let (address, guest) = (self.function.address(), self.guest);
                log::info!(
                    "{address}: MSI-X {entry} by remapping entry {index} and {way} to guest {guest} as vector {:#x}",
                    guest_vector.0
                );
            }
        }
        if let Some(table) = self.live_table() {
            table.set_masked(entry, false);
        }
        Ok(())
    }

    /// Sends the first `vectors` interrupts of MSI to the guest's processor `vcpu` from `guest_vector` on.
    pub fn route_msi(
        &mut self,
        unit: &mut RemappingUnit,
        vectors: u8,
        vcpu: u8,
        guest_vector: Vector,
    ) -> Result<(), String> {
        let target = self.target(unit, vcpu)?;
        self.messages.route_msi(&mut unit.unit, &mut unit.tables, &target, vectors, guest_vector)?;
        if self.may_log() {
            let (address, guest) = (self.function.address(), self.guest);
            log::info!("{address}: MSI of {vectors} vectors to guest {guest} from vector {:#x}", guest_vector.0);
        }
        Ok(())
    }

    /// Whether one more line about it may be logged.
    pub fn may_log(&mut self) -> bool {
        let may = self.logged < LOGGED;
        self.logged += u16::from(may);
        may
    }

    /// The real MSI-X table, while it is there.
    fn live_table(&mut self) -> Option<&mut MsixTableDriver<Table>> {
        self.table.as_mut().filter(|_| !self.absent)
    }

    /// Whether its MSI-X table, if it has one, answers where it should be, just after it was cleared.
    pub fn answers(&self) -> bool {
        self.table.as_ref().is_none_or(MsixTableDriver::is_clear)
    }

    /// Masks MSI-X `entry`; its way stays for the next time.
    pub fn mask(&mut self, entry: u16) {
        if let Some(table) = self.live_table() {
            table.set_masked(entry, true);
            self.messages.masked(entry);
        }
    }

    /// Masks all entries of the MSI-X table, which a reset has cleared.
    pub fn after_reset(&mut self, unit: &mut RemappingUnit) -> Result<(), String> {
        if let Some(table) = self.live_table() {
            table.mask_and_clear_all();
        }
        self.messages.table_cleared(&mut unit.unit, &mut unit.tables)
    }

    /// Masks all entries and gives all ways back. MSI is off.
    pub fn release_messages(&mut self, unit: &mut RemappingUnit) {
        if let Some(table) = self.live_table() {
            table.mask_and_clear_all();
        }
        if let Err(why) = self.messages.release(&mut unit.unit, &mut unit.tables) {
            log::error!("{}: {why}", self.function.address());
        }
    }
}
