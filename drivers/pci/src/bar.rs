//! Base address registers: where a function answers, and how much it takes there.

use crate::command::set_command_bits;
use crate::spec::header::{BAR0, COMMAND, bar, command};
use crate::{ConfigSpace, HeaderType};
use addr::{HostPhys, PciAddress};

/// A range in which a function answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bar {
    /// In memory space.
    Memory {
        /// The first byte; 0 when the firmware gave it no place.
        address: HostPhys,
        /// Size in bytes, a power of two from 16.
        size: u64,
        /// Whether reads have no side effects.
        prefetchable: bool,
        /// Whether it takes two registers, this one and the next.
        is_64_bit: bool,
    },
    /// In I/O space.
    Io {
        /// The first port; 0 when the firmware gave it no place.
        port: u32,
        /// Size in ports, a power of two from 4.
        size: u32,
    },
}

/// What stands in one of the six registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BarSlot {
    /// The function has none here.
    #[default]
    Unimplemented,
    /// A range begins here.
    Range(Bar),
    /// The upper half of the 64-bit range of the register before.
    UpperHalf,
    /// The answers make no sense (reserved type, a 64-bit range in the last register, a size that is no power of two):
    /// the function must not be handed to anyone, as it is unknown where it answers.
    Invalid {
        /// What the register held.
        value: u32,
        /// What it answered when all ones had been written.
        sizing: u32,
    },
}

/// The base address registers of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bars([BarSlot; 6]);

impl Bars {
    /// From what each register is.
    pub const fn new(slots: [BarSlot; 6]) -> Self {
        Self(slots)
    }

    /// What stands in register `index`; unimplemented for 6 and above.
    pub fn slot(&self, index: u8) -> BarSlot {
        self.0.get(usize::from(index)).copied().unwrap_or_default()
    }

    /// The range that begins in register `index`.
    pub fn range(&self, index: u8) -> Option<Bar> {
        match self.slot(index) {
            BarSlot::Range(range) => Some(range),
            _ => None,
        }
    }

    /// The ranges, each with the number of its (first) register.
    pub fn iter(&self) -> impl Iterator<Item = (u8, Bar)> + '_ {
        (0..6).filter_map(|index| Some((index, self.range(index)?)))
    }

    /// The first register whose answers make no sense.
    pub fn invalid(&self) -> Option<u8> {
        (0..6).find(|index| matches!(self.slot(*index), BarSlot::Invalid { .. }))
    }
}

/// Reads and sizes the base address registers. Meanwhile the function answers neither in memory nor in I/O space: with all
/// ones in a register it would answer over other devices. So nothing may use the function now, not even to log, if it
/// is the console. Every register gets back what it held, then the command register. PCI Local Bus 3.0 section 6.2.5.1.
pub fn read_bars(config: &mut dyn ConfigSpace, function: PciAddress, header_type: HeaderType) -> Bars {
    let count: u8 = match header_type {
        HeaderType::Endpoint => 6,
        HeaderType::Bridge { .. } => 2,
        HeaderType::Other(_) => 0,
    };
    let before = set_command_bits(config, function, 0, command::IO_SPACE | command::MEMORY_SPACE);
    let bars = read_registers(config, function, BAR0, count);
    if config.read16(function, COMMAND) != before {
        config.write16(function, COMMAND, before);
    }
    bars
}

/// Reads and sizes the `count` base address registers, at most 6, from `offset` on, with their decoding off.
pub(crate) fn read_registers(config: &mut dyn ConfigSpace, function: PciAddress, offset: u16, count: u8) -> Bars {
    let mut slots = [BarSlot::Unimplemented; 6];
    let mut answers = [(0, 0); 6];
    for (answer, index) in answers.iter_mut().zip(0..count) {
        *answer = size_register(config, function, offset + 4 * u16::from(index));
    }

    let mut rest = answers.get(..usize::from(count)).unwrap_or_default();
    let mut places = slots.iter_mut();
    while let Some((&(value, sizing), after)) = rest.split_first() {
        let Some(place) = places.next() else { break };
        rest = after;
        *place = decode(value, sizing, rest.first().copied());
        if let BarSlot::Range(Bar::Memory { is_64_bit: true, .. }) = place {
            rest = rest.get(1..).unwrap_or_default();
            if let Some(upper) = places.next() {
                *upper = BarSlot::UpperHalf;
            }
        }
    }
    Bars(slots)
}

/// What a register holds, and what it answers to all ones.
fn size_register(config: &mut dyn ConfigSpace, function: PciAddress, offset: u16) -> (u32, u32) {
    let value = config.read32(function, offset);
    config.write32(function, offset, u32::MAX);
    let sizing = config.read32(function, offset);
    config.write32(function, offset, value);
    (value, sizing)
}

fn decode(value: u32, sizing: u32, next: Option<(u32, u32)>) -> BarSlot {
    // The read-only bits of an implemented register are not all there is: some address bit can be written.
    if sizing == 0 {
        return BarSlot::Unimplemented;
    }
    let slot = if sizing & bar::IO != 0 { decode_io(value, sizing) } else { decode_memory(value, sizing, next) };
    slot.map_or(BarSlot::Invalid { value, sizing }, BarSlot::Range)
}

fn decode_io(value: u32, sizing: u32) -> Option<Bar> {
    if sizing & bar::IO_RESERVED != 0 {
        return None;
    }
    let mut mask = sizing & !bar::IO_FLAGS;
    // A function may decode 16 bits of a port only.
    if mask & 0xFFFF_0000 == 0 && mask != 0 {
        mask |= 0xFFFF_0000;
    }
    let size = size_of(u64::from(mask) | 0xFFFF_FFFF_0000_0000)?;
    Some(Bar::Io { port: value & mask, size: u32::try_from(size).ok()? })
}

fn decode_memory(value: u32, sizing: u32, next: Option<(u32, u32)>) -> Option<Bar> {
    let (is_64_bit, (value_high, sizing_high)) = match sizing & bar::MEMORY_TYPE {
        bar::MEMORY_TYPE_32 => (false, (0, u32::MAX)),
        bar::MEMORY_TYPE_64 => (true, next?),
        _ => return None,
    };
    let mask = u64::from(sizing & !bar::MEMORY_FLAGS) | u64::from(sizing_high) << 32;
    let size = size_of(mask)?;
    let address = (u64::from(value) | u64::from(value_high) << 32) & mask;
    Some(Bar::Memory {
        address: HostPhys::new(address),
        size,
        prefetchable: sizing & bar::PREFETCHABLE != 0,
        is_64_bit,
    })
}

/// The size of a range by the mask of its address bits, or `None` where the ones are not together at the top. A 32-bit
/// range of 4 GiB, with no address bit at all, is none either.
fn size_of(mask: u64) -> Option<u64> {
    let size = mask & mask.wrapping_neg();
    (size != 0 && mask.wrapping_add(size) == 0 && size < 1 << 63).then_some(size)
}

#[cfg(test)]
mod tests;
