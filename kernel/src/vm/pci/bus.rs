//! The guest's configuration space, by ports and by memory, and what stands behind it. PCI Local Bus 3.0 section
//! 3.2.2.3.2; PCI Express Base section 7.2.2.

use super::address_space::{self, GuestAddressSpace, HIGH_WINDOW, HIGH_WINDOW_BITS, LOW_WINDOW, Obstacle, PORT_WINDOW};
use super::bars::{GuestBars, GuestRange, HostRange};
use super::effect::EffectSink;
use super::host_bridge;
use super::lanes::Lanes;
use super::{AssignedFunction, TrappedRead, TrappedWrite};
use ::pci::{ConfigSpace, Width};
use addr::{Bdf, GuestPhys, PciAddress};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

/// How many functions one guest can be handed, virtual ones among them.
pub const MAX_FUNCTIONS: usize = 8 + 128;

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

/// Ranges of this size and below are placed below 4 GiB where there is room: every guest reaches them there.
const SMALL: u64 = 64 << 20;

/// Why a function cannot be put on the bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BusError {
    /// Not a slot that a guest finds: bus 0, devices 1 to 31, function 0, or any function for a virtual one.
    BadSlot(Bdf),
    /// Another function is there.
    SlotTaken(Bdf),
    /// [`MAX_FUNCTIONS`] are there.
    Full,
    /// The guest's address space has no room for a range.
    NoRoom {
        /// The number of its base address register.
        register: u8,
        /// Its size, in bytes or ports.
        size: u64,
    },
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadSlot(slot) => write!(f, "{slot} is no slot for an assigned function (00:01.0 to 00:1f.0 are)"),
            Self::SlotTaken(slot) => write!(f, "{slot} is taken"),
            Self::NoRoom { register, size } => write!(f, "there is no room for BAR {register} of {size:#x} bytes"),
            Self::Full => write!(f, "the bus is full: {MAX_FUNCTIONS} functions"),
        }
    }
}

impl core::error::Error for BusError {}

/// A guest's PCI bus: bus 0 with a host bridge in slot 0, and nothing below.
#[derive(Debug, Default)]
pub struct GuestPciBus {
    space: GuestAddressSpace,
    address: u32,
    functions: Vec<AssignedFunction>,
}

impl GuestPciBus {
    /// A bus with nothing but the host bridge, in a guest with such an address space.
    pub fn new(space: GuestAddressSpace) -> Self {
        Self { space, ..Self::default() }
    }

    /// Puts a function on the bus, at its guest slot, and gives its ranges addresses.
    ///
    /// # Errors
    /// [`BusError`]; the guest's view is dropped then, and the real function is as it was.
    pub fn add(&mut self, mut function: AssignedFunction) -> Result<(), BusError> {
        let slot = function.guest();
        if slot.bus() != 0 || slot.device() == 0 || slot.function() != 0 && function.physical().is_none() {
            return Err(BusError::BadSlot(slot));
        }
        if self.functions().any(|other| other.guest() == slot) {
            return Err(BusError::SlotTaken(slot));
        }
        if self.functions.len() >= MAX_FUNCTIONS {
            return Err(BusError::Full);
        }
        // Where a virtual function's ranges are its physical one says.
        for register in 0..6 {
            if let Some(range) = function.range(register).copied().filter(|_| function.physical().is_none()) {
                let address = self.find_place(&function, &range)?;
                function.set_address(register, address);
            }
        }
        for register in 0..6 {
            let Some((_, sriov)) = function.virtual_functions() else { break };
            if let Some(range) = sriov.ranges().range(register) {
                let all = GuestRange { size: sriov.room(range.size), ..*range };
                let address = self.find_place(&function, &all)?;
                function.virtual_functions_mut().into_iter().for_each(|sriov| sriov.set_address(register, address));
            }
        }
        self.functions.push(function);
        Ok(())
    }

    /// Where a range of a new function can be: a small one below 4 GiB if possible, a large one above.
    fn find_place(&self, function: &AssignedFunction, range: &GuestRange) -> Result<u64, BusError> {
        let memory = range.is_memory();
        let taken = |wanted: &Range<u64>| {
            self.functions().chain([function]).find_map(|function| function.in_the_way(memory, wanted))
        };
        let first = if memory { self.space.memory_end } else { 0 };
        let has_high = range.is_64_bit && self.space.address_bits >= HIGH_WINDOW_BITS;
        let windows = match (memory, has_high) {
            (false, _) => [PORT_WINDOW, 0..0],
            (true, false) => [LOW_WINDOW, 0..0],
            (true, true) if range.size <= SMALL => [LOW_WINDOW, HIGH_WINDOW],
            (true, true) => [HIGH_WINDOW, LOW_WINDOW],
        };
        let found = windows
            .into_iter()
            .find_map(|window| GuestBars::find_place(&(window.start.max(first)..window.end), range.size, taken));
        found.ok_or(BusError::NoRoom { register: range.register, size: range.size })
    }

    /// Lets the guest reach the ranges of its functions where it wants them now: first everything that is not wanted any
    /// more goes, then what is wanted and free comes.
    fn settle<C: ConfigSpace>(&mut self, config: &mut C, effects: &mut EffectSink<'_>) {
        for index in 0..self.functions.len() {
            let shown = self.functions.get(index).and_then(AssignedFunction::virtual_functions);
            let Some((physical, sriov)) = shown else { continue };
            for function in self.functions_mut() {
                function.follow(physical, &sriov, config, effects);
            }
        }
        for function in self.functions_mut() {
            function.take_away(effects);
        }
        let count = self.functions.len();
        for (index, register) in (0..count).flat_map(|index| (0..6).map(move |register| (index, register))) {
            let Some(function) = self.functions.get(index) else { continue };
            let Some(range) = function.range(register).filter(|range| range.decoded.is_none()) else { continue };
            let Some(start) = function.wanted(range) else { continue };
            let verdict = self.check(range, start);
            if let Some(function) = self.functions.get_mut(index) {
                function.give(register, start, verdict, effects);
            }
        }
    }

    /// Whether a range can be at `start`.
    fn check(&self, range: &GuestRange, start: u64) -> Result<(), Obstacle> {
        range.check(start, &self.space)?;
        let wanted = start..start.saturating_add(range.size);
        let mut others = self.functions().flat_map(AssignedFunction::ranges);
        let in_the_way = others.any(|other| {
            other.is_memory() == range.is_memory()
                && other.decoded_range().is_some_and(|taken| address_space::overlap(&taken, &wanted))
        });
        if in_the_way { Err(Obstacle::Range) } else { Ok(()) }
    }

    /// Takes the function of a guest slot off the bus.
    pub fn remove(&mut self, slot: Bdf) -> Option<AssignedFunction> {
        let index = self.functions.iter().position(|function| function.guest() == slot)?;
        Some(self.functions.remove(index))
    }

    /// The functions on the bus.
    pub fn functions(&self) -> impl Iterator<Item = &AssignedFunction> {
        self.functions.iter()
    }

    /// The functions on the bus.
    pub fn functions_mut(&mut self) -> impl Iterator<Item = &mut AssignedFunction> {
        self.functions.iter_mut()
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
        match self.selected(port) {
            Some((slot, offset)) => self.read_config(config, slot, offset, width),
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
        if let Some((slot, offset)) = self.selected(port) {
            self.write_config(config, slot, offset, width, value, effects);
        }
    }

    /// The real port behind a port of the guest's, if all `ports` from there on are in one range of a function.
    pub fn real_port(&self, port: u16, ports: u16) -> Option<u16> {
        let (first, ports) = (u64::from(port), u64::from(ports));
        self.functions().flat_map(AssignedFunction::ranges).find_map(|range| {
            let HostRange::Ports(real) = range.host else { return None };
            let decoded = range.decoded_range()?;
            let offset = first.checked_sub(decoded.start)?;
            (first + ports <= decoded.end).then(|| real.wrapping_add(offset as u16))
        })
    }

    /// A guest's read of memory: of configuration space, or of what of a function it reaches through the hypervisor only. All
    /// ones where a function would be, as on a bus on which none answers: in a window, or at an address that the guest has
    /// given to one; `None` elsewhere.
    pub fn read_memory<C: ConfigSpace>(
        &self,
        config: &C,
        address: GuestPhys,
        bytes: usize,
        effects: &mut EffectSink<'_>,
    ) -> Option<TrappedRead> {
        if let Some(offset) = address_space::ecam_offset(address, bytes) {
            return Some(TrappedRead::Value(self.read_ecam(config, offset, bytes)));
        }
        let read = self.functions().find_map(|function| function.read_trapped(address, bytes, effects));
        read.or_else(|| self.is_a_functions(address).then_some(TrappedRead::Value(u64::MAX)))
    }

    /// A guest's write of memory; see [`Self::read_memory`].
    pub fn write_memory<C: ConfigSpace>(
        &mut self,
        config: &mut C,
        address: GuestPhys,
        bytes: usize,
        value: u64,
        effects: &mut EffectSink<'_>,
    ) -> Option<TrappedWrite> {
        if let Some(offset) = address_space::ecam_offset(address, bytes) {
            self.write_ecam(config, offset, bytes, value, effects);
            return Some(TrappedWrite::Done);
        }
        let written = self.functions_mut().find_map(|function| function.write_trapped(address, bytes, value, effects));
        written.or_else(|| self.is_a_functions(address).then_some(TrappedWrite::Done))
    }

    /// Whether an address is one where functions are, or one would be if it answered.
    fn is_a_functions(&self, address: GuestPhys) -> bool {
        let (start, end) = (address.as_u64(), address.as_u64().saturating_add(1));
        let is_given = |function: &AssignedFunction| function.in_the_way(true, &(start..end)).is_some();
        address_space::in_window(address) || start >= self.space.memory_end && self.functions().any(is_given)
    }

    /// Reads 1, 2, 4 or 8 bytes of the memory-mapped configuration space; 8 are two dwords.
    fn read_ecam<C: ConfigSpace>(&self, config: &C, offset: u32, bytes: usize) -> u64 {
        let (slot, register) = ecam_place(offset);
        match Width::from_bytes(bytes) {
            Some(width) => self.read_config(config, slot, register, width).into(),
            None if bytes == 8 && offset.is_multiple_of(4) => {
                let high = self.read_ecam(config, offset + 4, 4);
                self.read_ecam(config, offset, 4) | high << 32
            }
            None => u64::MAX,
        }
    }

    fn write_ecam<C: ConfigSpace>(
        &mut self,
        config: &mut C,
        offset: u32,
        bytes: usize,
        value: u64,
        effects: &mut EffectSink<'_>,
    ) {
        let (slot, register) = ecam_place(offset);
        if let Some(width) = Width::from_bytes(bytes) {
            self.write_config(config, slot, register, width, value as u32, effects);
        } else if bytes == 8 && offset.is_multiple_of(4) {
            self.write_ecam(config, offset, 4, value & 0xFFFF_FFFF, effects);
            self.write_ecam(config, offset + 4, 4, value >> 32, effects);
        }
    }

    fn read_config<C: ConfigSpace>(&self, config: &C, slot: Bdf, offset: u16, width: Width) -> u32 {
        if slot == HOST_BRIDGE {
            return Lanes::new(offset, width)
                .map_or(width.mask(), |lanes| lanes.extract(host_bridge::read_dword(lanes.dword)));
        }
        match self.functions().find(|function| function.guest() == slot && function.is_present()) {
            Some(function) => function.read(config, offset, width),
            None => width.mask(),
        }
    }

    fn write_config<C: ConfigSpace>(
        &mut self,
        config: &mut C,
        slot: Bdf,
        offset: u16,
        width: Width,
        value: u32,
        effects: &mut EffectSink<'_>,
    ) {
        let function = self.functions_mut().find(|function| function.guest() == slot && function.is_present());
        let Some(function) = function else { return };
        if function.write(config, offset, width, value, effects) {
            self.settle(config, effects);
        }
    }

    /// Takes DMA and interrupts from the real function `host`, for good, and what virtual functions it has.
    pub fn quarantine<C: ConfigSpace>(&mut self, host: PciAddress, config: &mut C, effects: &mut EffectSink<'_>) {
        for function in self.functions.iter_mut().filter(|function| function.host() == host) {
            function.quarantine(config, effects);
        }
        self.settle(config, effects);
    }

    /// The slot and the offset that a data port reaches.
    fn selected(&self, port: u16) -> Option<(Bdf, u16)> {
        if !(DATA_PORT..=LAST_PORT).contains(&port) || self.address & ENABLE == 0 {
            return None;
        }
        let offset = u16::from(self.address as u8 & !3) | (port - DATA_PORT);
        Some((Bdf::from_u16((self.address >> 8) as u16), offset))
    }
}

/// The slot and the offset that an offset in memory-mapped configuration space means.
fn ecam_place(offset: u32) -> (Bdf, u16) {
    (Bdf::from_u16((offset >> 12) as u16), (offset & 0xFFF) as u16)
}

#[cfg(test)]
mod tests;
