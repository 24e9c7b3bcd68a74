//! The guest's configuration ports and what stands behind them. PCI Local Bus 3.0 section 3.2.2.3.2.

use super::effect::EffectSink;
use super::host_bridge;
use super::lanes::Lanes;
use super::{AssignedFunction, TrappedRead, TrappedWrite};
use ::pci::{ConfigSpace, Width};
use addr::{Bdf, GuestPhys};
use core::fmt;

/// How many functions one guest can be handed.
pub const MAX_FUNCTIONS: usize = 8;

/// The slot of the host bridge.
const HOST_BRIDGE: Bdf = Bdf::from_u16(0);

/// The address register, 32 bits.
const ADDRESS_PORT: u16 = 0xCF8;
/// The first of the four data ports.
const DATA_PORT: u16 = 0xCFC;
/// The last of the four data ports.
const LAST_PORT: u16 = 0xCFF;

/// Address register, bit 31: the data ports reach configuration space.
const ENABLE: u32 = 1 << 31;
/// Address register: the bits that are there. 27:24, with which some chipsets reach 4096 bytes, are not.
const ADDRESS_BITS: u32 = 0x80FF_FFFC;

/// Why a function cannot be put on the bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BusError {
    /// Not a slot that a guest finds: bus 0, devices 1 to 31, function 0.
    BadSlot(Bdf),
    /// Another function is there.
    SlotTaken(Bdf),
    /// [`MAX_FUNCTIONS`] are there.
    Full,
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadSlot(slot) => write!(f, "{slot} is no slot for an assigned function (00:01.0 to 00:1f.0 are)"),
            Self::SlotTaken(slot) => write!(f, "{slot} is taken"),
            Self::Full => write!(f, "the bus is full: {MAX_FUNCTIONS} functions"),
        }
    }
}

impl core::error::Error for BusError {}

/// A guest's PCI bus: bus 0 with a host bridge in slot 0, and nothing below.
#[derive(Debug, Default)]
pub struct GuestPciBus {
    address: u32,
    functions: [Option<AssignedFunction>; MAX_FUNCTIONS],
}

impl GuestPciBus {
    /// A bus with nothing but the host bridge.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a function on the bus, at its guest slot.
    ///
    /// # Errors
    /// [`BusError`]; the guest's view is dropped then, and the real function is as it was.
    pub fn add(&mut self, function: AssignedFunction) -> Result<(), BusError> {
        let slot = function.guest();
        if slot.bus() != 0 || slot.device() == 0 || slot.function() != 0 {
            return Err(BusError::BadSlot(slot));
        }
        if self.functions().any(|other| other.guest() == slot) {
            return Err(BusError::SlotTaken(slot));
        }
        match self.functions.iter_mut().find(|place| place.is_none()) {
            Some(place) => {
                *place = Some(function);
                Ok(())
            }
            None => Err(BusError::Full),
        }
    }

    /// Takes the function of a guest slot off the bus.
    pub fn remove(&mut self, slot: Bdf) -> Option<AssignedFunction> {
        self.functions.iter_mut().find(|place| place.as_ref().is_some_and(|f| f.guest() == slot))?.take()
    }

    /// The functions on the bus.
    pub fn functions(&self) -> impl Iterator<Item = &AssignedFunction> {
        self.functions.iter().flatten()
    }

    /// The functions on the bus.
    pub fn functions_mut(&mut self) -> impl Iterator<Item = &mut AssignedFunction> {
        self.functions.iter_mut().flatten()
    }

    /// Whether `port` is one of 0xCF8 to 0xCFF.
    pub fn claims_port(port: u16) -> bool {
        (ADDRESS_PORT..=LAST_PORT).contains(&port)
    }

    /// A guest's read of a port. All ones where there is nothing, as on a bus, and from ports that are not claimed.
    pub fn read_port<C: ConfigSpace>(&self, config: &C, port: u16, width: Width) -> u32 {
        if port == ADDRESS_PORT && width == Width::Dword {
            return self.address;
        }
        match self.selected(port, width) {
            Some((HOST_BRIDGE, lanes)) => lanes.extract(host_bridge::read_dword(lanes.dword)),
            Some((slot, lanes)) => match self.functions().find(|function| function.guest() == slot) {
                Some(function) => function.read(config, lanes.offset(), width),
                None => width.mask(),
            },
            None => width.mask(),
        }
    }

    /// A guest's write of a port. Does nothing where there is nothing.
    pub fn write_port<C: ConfigSpace>(
        &mut self,
        config: &mut C,
        port: u16,
        width: Width,
        value: u32,
        effects: &mut EffectSink<'_>,
    ) {
        if port == ADDRESS_PORT && width == Width::Dword {
            self.address = value & ADDRESS_BITS;
            return;
        }
        let Some((slot, lanes)) = self.selected(port, width) else { return };
        if let Some(function) = self.functions_mut().find(|function| function.guest() == slot) {
            function.write(config, lanes.offset(), width, value, effects);
        }
    }

    /// A guest's read of memory in the pages of an MSI-X table, or `None` where there is none.
    pub fn read_memory(&self, address: GuestPhys, bytes: usize, effects: &mut EffectSink<'_>) -> Option<TrappedRead> {
        self.functions().find_map(|function| function.read_trapped(address, bytes, effects))
    }

    /// A guest's write of memory in the pages of an MSI-X table, or `None` where there is none.
    pub fn write_memory(
        &mut self,
        address: GuestPhys,
        bytes: usize,
        value: u64,
        effects: &mut EffectSink<'_>,
    ) -> Option<TrappedWrite> {
        self.functions_mut().find_map(|function| function.write_trapped(address, bytes, value, effects))
    }

    /// The slot and the lanes that an access of a data port reaches.
    fn selected(&self, port: u16, width: Width) -> Option<(Bdf, Lanes)> {
        if !(DATA_PORT..=LAST_PORT).contains(&port) || self.address & ENABLE == 0 {
            return None;
        }
        let lanes = Lanes::new(self.address as u8 & !3 | (port - DATA_PORT) as u8, width)?;
        Some((Bdf::from_u16((self.address >> 8) as u16), lanes))
    }
}

#[cfg(test)]
mod tests;
