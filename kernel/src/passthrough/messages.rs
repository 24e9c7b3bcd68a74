//! The ways of one function's messages: from what the device sends to the mailbox of its guest.
//!
//! Each way is a remapping entry that accepts the device alone and leads to a vector of this processor, whose meaning
//! leads on; where the unit posts, the entry leads to the mailbox itself. What the guest chose never reaches hardware.
//!
//! Vectors of a processor are few, and an MSI-X table may have 2048 entries: an entry gets its way when it is first
//! unmasked. It keeps it while it is masked, so that unmasking costs nothing, unless another entry needs it.

use crate::cpu::interrupts::{self, Source};
use addr::{ApicId, Bdf, HostPhys, Vector};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use vtd::{Clock, DmaMemory, Handle, HandleBlock, Message, PostedRoute, Registers, Route, Trigger, Unit};

/// Most vectors of a processor that one function's MSI-X takes: the others have the rest of the 190.
pub const MAXIMUM_VECTORS: usize = 128;

/// Where the messages of a function go.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The requester id that they carry.
    pub source: Bdf,
    /// The processor that takes them, where the unit does not post.
    pub processor: ApicId,
    /// The guest's virtual processor.
    pub vcpu: u8,
    /// The virtual processor's descriptor, where the unit posts.
    pub descriptor: Option<HostPhys>,
}

/// The way of one MSI-X entry.
#[derive(Debug)]
struct Way {
    entry: u16,
    masked: bool,
    block: HandleBlock,
    handle: Handle,
    /// The vector of this processor; none where the unit posts.
    vector: Option<Vector>,
}

/// What is to be done with the MSI-X table after [`Messages::route`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Routed {
    /// The entry holds its message: it is to be unmasked.
    Known,
    /// The entry is to hold this message, and to be unmasked.
    New {
        /// The message.
        message: Message,
        /// The index of the remapping entry that it names.
        index: u16,
        /// The vector of this processor; none where the unit posts.
        vector: Option<Vector>,
    },
}

/// The ways of one function's messages.
#[derive(Debug, Default)]
pub struct Messages {
    ways: Vec<Way>,
    /// MSI: a block for as many vectors as the function has, and the vectors of this processor.
    msi: Option<(HandleBlock, Vec<Vector>)>,
}

impl Messages {
    /// Takes a block of remapping entries for `vectors` vectors of MSI, and returns what the device is to send. Nothing
    /// comes through yet.
    ///
    /// # Errors
    /// In words.
    pub fn allocate_msi<R: Registers, C: Clock, M: DmaMemory>(
        &mut self,
        unit: &mut Unit<R, C>,
        memory: &mut M,
        vectors: u8,
    ) -> Result<Message, String> {
        let block = unit.allocate_interrupts(memory, vectors.into()).map_err(|error| error.to_string())?;
        self.msi = Some((block, Vec::new()));
        Ok(block.message())
    }

    /// Sends the first `count` vectors of MSI to the guest, as `guest_vector` with its low bits replaced by the number.
    ///
    /// # Errors
    /// In words; what was routed before may be routed anew then.
    pub fn route_msi<R: Registers, C: Clock, M: DmaMemory>(
        &mut self,
        unit: &mut Unit<R, C>,
        memory: &mut M,
        target: &Target,
        count: u8,
        guest_vector: Vector,
    ) -> Result<(), String> {
        let (block, vectors) = self.msi.as_mut().ok_or("it has no MSI")?;
        for (number, handle) in (0..count).zip(block.handles()) {
            let guest_vector = Vector(guest_vector.0 & !count.wrapping_sub(1) | number);
            if let Some(descriptor) = target.descriptor {
                post(unit, memory, handle, target, descriptor, guest_vector)?;
                continue;
            }
            let source = Source::Device { vcpu: target.vcpu, guest_vector };
            if let Some(vector) = vectors.get(usize::from(number)) {
                // A new vector in the guest changes the meaning of ours; hardware need not know.
                interrupts::set(*vector, source);
                continue;
            }
            let vector = interrupts::allocate(source).ok_or("no interrupt vector is left")?;
            if let Err(why) = remap(unit, memory, handle, target, vector) {
                interrupts::free(vector);
                return Err(why);
            }
            vectors.push(vector);
        }
        Ok(())
    }

    /// Gives MSI-X `entry` a way to the guest's `guest_vector`. An entry that has one keeps it, and hardware need not know.
    ///
    /// # Errors
    /// In words; the entry is to stay masked.
    pub fn route<R: Registers, C: Clock, M: DmaMemory>(
        &mut self,
        unit: &mut Unit<R, C>,
        memory: &mut M,
        target: &Target,
        entry: u16,
        guest_vector: Vector,
    ) -> Result<Routed, String> {
        let source = Source::Device { vcpu: target.vcpu, guest_vector };
        let known = self.ways.iter().position(|way| way.entry == entry);
        // Where none is left, a masked entry lends its own: nothing of it can arrive any more.
        let place = match known {
            Some(place) => Some(place),
            None => match self.new_way(unit, memory, target, entry, source) {
                Ok(way) => {
                    self.ways.push(way);
                    None
                }
                Err(why) => Some(self.ways.iter().position(|way| way.masked).ok_or(why)?),
            },
        };
        let index = place.unwrap_or(self.ways.len().wrapping_sub(1));
        let way = self.ways.get_mut(index).ok_or("its way is lost")?;
        way.entry = entry;
        match (way.vector, target.descriptor) {
            (None, Some(descriptor)) => post(unit, memory, way.handle, target, descriptor, guest_vector)?,
            (None, None) => return Err("its processor has no mailbox".to_string()),
            (Some(vector), _) => interrupts::set(vector, source),
        }
        way.masked = false;
        let (message, index, vector) = (way.handle.message(), way.handle.index(), way.vector);
        Ok(if known.is_some() { Routed::Known } else { Routed::New { message, index, vector } })
    }

    fn new_way<R: Registers, C: Clock, M: DmaMemory>(
        &self,
        unit: &mut Unit<R, C>,
        memory: &mut M,
        target: &Target,
        entry: u16,
        source: Source,
    ) -> Result<Way, String> {
        let vector = match target.descriptor {
            Some(_) => None,
            None if self.ways.len() >= MAXIMUM_VECTORS => {
                return Err(format!("{MAXIMUM_VECTORS} of its messages are in use at once"));
            }
            None => Some(interrupts::allocate(source).ok_or("no interrupt vector is left")?),
        };
        let made = unit.allocate_interrupts(memory, 1).map_err(|error| error.to_string()).and_then(|block| {
            let handle = block.get(0).ok_or("no remapping entry is left")?;
            match vector.map(|vector| remap(unit, memory, handle, target, vector)) {
                None | Some(Ok(())) => Ok((block, handle)),
                Some(Err(why)) => free(unit, memory, block, &[]).and(Err(why)),
            }
        });
        if let (Err(_), Some(vector)) = (&made, vector) {
            interrupts::free(vector);
        }
        made.map(|(block, handle)| Way { entry, masked: true, block, handle, vector })
    }

    /// Notes that MSI-X `entry` is masked, and that nothing of it is on its way any more.
    pub fn masked(&mut self, entry: u16) {
        if let Some(way) = self.ways.iter_mut().find(|way| way.entry == entry) {
            way.masked = true;
        }
    }

    /// Forgets what the MSI-X table holds, after it was cleared; entries get their messages anew.
    ///
    /// # Errors
    /// As [`Self::release`].
    pub fn table_cleared<R: Registers, C: Clock, M: DmaMemory>(
        &mut self,
        unit: &mut Unit<R, C>,
        memory: &mut M,
    ) -> Result<(), String> {
        let mut failed = Ok(());
        for way in self.ways.drain(..) {
            failed = failed.and(free(unit, memory, way.block, way.vector.as_slice()));
        }
        failed
    }

    /// Gives all ways back, after every entry was masked and MSI switched off.
    ///
    /// # Errors
    /// What stays in use because hardware does not let go of it, in words.
    pub fn release<R: Registers, C: Clock, M: DmaMemory>(
        &mut self,
        unit: &mut Unit<R, C>,
        memory: &mut M,
    ) -> Result<(), String> {
        let failed = self.table_cleared(unit, memory);
        match self.msi.take() {
            Some((block, vectors)) => failed.and(free(unit, memory, block, &vectors)),
            None => failed,
        }
    }
}

/// The entries first: once they are gone no message can arrive under the vectors that are freed next.
fn free<R: Registers, C: Clock, M: DmaMemory>(
    unit: &mut Unit<R, C>,
    memory: &mut M,
    block: HandleBlock,
    vectors: &[Vector],
) -> Result<(), String> {
    let first = block.get(0).map_or(0, Handle::index);
    unit.free_interrupts(memory, block).map_err(|error| format!("remapping entry {first} stays in use: {error}"))?;
    for vector in vectors {
        interrupts::free(*vector);
    }
    Ok(())
}

fn remap<R: Registers, C: Clock, M: DmaMemory>(
    unit: &mut Unit<R, C>,
    memory: &mut M,
    handle: Handle,
    target: &Target,
    vector: Vector,
) -> Result<(), String> {
    let (destination, source) = (target.processor, target.source);
    let route = Route { vector, destination, trigger: Trigger::Edge, source };
    unit.route_interrupt(memory, handle, &route).map_err(|error| error.to_string())
}

fn post<R: Registers, C: Clock, M: DmaMemory>(
    unit: &mut Unit<R, C>,
    memory: &mut M,
    handle: Handle,
    target: &Target,
    descriptor: HostPhys,
    vector: Vector,
) -> Result<(), String> {
    let route = PostedRoute { vector, descriptor, urgent: false, source: target.source };
    unit.post_interrupt(memory, handle, &route).map_err(|error| error.to_string())
}
