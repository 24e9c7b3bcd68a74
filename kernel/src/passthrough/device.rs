//! One assigned function: its messages on their way from the real MSI-X table to the mailbox of its guest.

use crate::cpu::interrupts::{self, Source};
use crate::cpu::local_apic;
use crate::machine::device_memory::DeviceMemory;
use crate::passthrough::units::RemappingUnit;
use crate::vcpu::notification::InterruptFormat;
use addr::{DomainId, HostPhys, PAGE_SIZE, PciAddress, Vector};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use pci::{FunctionDescription, MsixCapability, MsixTableAccess, MsixTableDriver, RequesterIds};
use vtd::{Handle, HandleBlock, PostedRoute, Route, Trigger};

/// Most MSI-X entries of one function that can be in use at once: a guest must not use up all vectors.
const MAXIMUM_MESSAGES: usize = 32;

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

/// One entry's way: the interrupt remapping entry, and the vector of this processor that it leads to; none where the
/// unit posts.
#[derive(Debug)]
struct Message {
    entry: u16,
    block: HandleBlock,
    handle: Handle,
    vector: Option<Vector>,
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
    table: Option<MsixTableDriver<Table>>,
    /// The whole pages that the table is in, and where they begin.
    trapped: Option<(HostPhys, DeviceMemory)>,
    messages: Vec<Message>,
}

impl AssignedDevice {
    /// A function that was assigned, with every message masked.
    pub fn new(
        function: FunctionDescription,
        guest: u8,
        requester_ids: RequesterIds,
        unit: HostPhys,
        domain: DomainId,
    ) -> Result<Self, String> {
        let (table, trapped) = match &function.msix {
            Ok(Some(capability)) => {
                let (table, trapped) = Self::table(&function, capability)?;
                (Some(table), Some(trapped))
            }
            Ok(None) => (None, None),
            Err(error) => return Err(format!("its MSI-X capability: {error}")),
        };
        Ok(Self {
            function,
            guest,
            requester_ids,
            unit,
            domain,
            quarantined: false,
            table,
            trapped,
            messages: Vec::new(),
        })
    }

    fn table(
        function: &FunctionDescription,
        capability: &MsixCapability,
    ) -> Result<(MsixTableDriver<Table>, (HostPhys, DeviceMemory)), String> {
        let place = capability.table.locate(&function.bars).map_err(|error| format!("its MSI-X table: {error}"))?;
        let memory = DeviceMemory::map(place, capability.table.length.into()).map_err(|error| error.to_string())?;
        let mut table = MsixTableDriver::new(Table(memory), capability);
        table.mask_and_clear_all();
        let first = place.align_down(PAGE_SIZE);
        let bytes = (place.as_u64() - first.as_u64() + u64::from(capability.table.length)).next_multiple_of(PAGE_SIZE);
        let pages = DeviceMemory::map(first, bytes).map_err(|error| error.to_string())?;
        Ok((table, (first, pages)))
    }

    /// The registers that share pages with the MSI-X table, if `address` is among them, with its offset.
    pub fn trapped_registers(&mut self, address: HostPhys) -> Option<(&mut DeviceMemory, u64)> {
        let (start, memory) = self.trapped.as_mut()?;
        let offset = address.as_u64().checked_sub(start.as_u64()).filter(|offset| *offset < memory.bytes())?;
        Some((memory, offset))
    }

    /// The function's address.
    pub fn address(&self) -> PciAddress {
        self.function.address()
    }

    /// Sends MSI-X `entry` to the guest's processor `vcpu` as `guest_vector`, and unmasks it.
    ///
    /// The device is given the handle of a remapping entry that accepts it alone and leads to a vector of this
    /// processor; the vector's meaning leads on to the mailbox. What the guest chose never reaches hardware.
    pub fn route(
        &mut self,
        unit: &mut RemappingUnit,
        entry: u16,
        vcpu: u8,
        guest_vector: Vector,
    ) -> Result<(), String> {
        let source = Source::Device { vcpu, guest_vector };
        let Some(table) = &mut self.table else { return Err("it has no MSI-X table".to_string()) };
        let descriptor = interrupts::posted_processing(vcpu).ok_or("its processor has no mailbox")?.descriptor;
        let posted =
            PostedRoute { vector: guest_vector, descriptor, urgent: false, source: self.requester_ids.upstream() };
        if let Some(message) = self.messages.iter().find(|message| message.entry == entry) {
            match message.vector {
                // A new vector in the guest changes the meaning of ours; hardware need not know.
                Some(vector) => interrupts::set(vector, source),
                None => unit
                    .unit
                    .post_interrupt(&mut unit.tables, message.handle, &posted)
                    .map_err(|error| error.to_string())?,
            }
            table.set_masked(entry, false);
            return Ok(());
        }
        if self.messages.len() >= MAXIMUM_MESSAGES {
            return Err(format!("more than {MAXIMUM_MESSAGES} messages in use"));
        }
        let unit_posts = unit.unit.capabilities().posted_interrupts();
        let vector = match InterruptFormat::choose(unit_posts, Trigger::Edge) {
            InterruptFormat::Posted => None,
            InterruptFormat::Remapped => Some(interrupts::allocate(source).ok_or("no interrupt vector is left")?),
        };
        let made = unit.unit.allocate_interrupts(&mut unit.tables, 1).and_then(|block| {
            let handle = block.get(0).ok_or(vtd::Error::Poisoned)?;
            match vector {
                None => unit.unit.post_interrupt(&mut unit.tables, handle, &posted)?,
                Some(vector) => {
                    let route = Route {
                        vector,
                        destination: local_apic::id(),
                        trigger: Trigger::Edge,
                        source: self.requester_ids.upstream(),
                    };
                    unit.unit.route_interrupt(&mut unit.tables, handle, &route)?;
                }
            }
            Ok((block, handle))
        });
        let (block, handle) = match made {
            Ok(made) => made,
            Err(error) => {
                if let Some(vector) = vector {
                    interrupts::free(vector);
                }
                return Err(format!("{error}"));
            }
        };
        let message = handle.message();
        table.program(entry, message.address, message.data);
        table.set_masked(entry, false);
        log::info!(
            "{}: MSI-X {entry} by remapping entry {} and {} to guest {} as vector {:#x}",
            self.function.address(),
            handle.index(),
            vector.map_or("the unit's posting".to_string(), |vector| format!("vector {:#x}", vector.0)),
            self.guest,
            guest_vector.0
        );
        self.messages.push(Message { entry, block, handle, vector });
        Ok(())
    }

    /// Masks MSI-X `entry`; its way stays for the next time.
    pub fn mask(&mut self, entry: u16) {
        if let Some(table) = &mut self.table {
            table.set_masked(entry, true);
        }
    }

    /// Masks all entries and gives their ways back.
    pub fn release_messages(&mut self, unit: &mut RemappingUnit) {
        if let Some(table) = &mut self.table {
            table.mask_and_clear_all();
        }
        for message in self.messages.drain(..) {
            // The entry first: once it is gone no message can arrive under the vector that is freed next.
            match unit.unit.free_interrupts(&mut unit.tables, message.block) {
                Ok(()) => {
                    if let Some(vector) = message.vector {
                        interrupts::free(vector);
                    }
                }
                Err(error) => log::error!(
                    "{}: remapping entry {} stays in use: {error}",
                    self.function.address(),
                    message.handle.index()
                ),
            }
        }
    }
}
