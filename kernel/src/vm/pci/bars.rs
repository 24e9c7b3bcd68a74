//! The guest's base address registers: they hold what the guest writes, as hardware's do, and where the real function
//! answers stays the host's secret. What the guest's addresses are translated to is in [`GuestRange`].

use super::address_space::{GuestAddressSpace, Obstacle, overlap};
use ::pci::spec::header::bar;
use ::pci::{Bar, Bars};
use addr::{HostPhys, PAGE_SIZE};
use core::ops::Range;

/// The lowest port of a real function that a guest reaches. Below is what every PC has there.
const FIRST_HOST_PORT: u32 = 0x1000;

/// Where the real function answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HostRange {
    /// In memory space, from this address.
    Memory(HostPhys),
    /// In I/O space, from this port.
    Ports(u16),
}

/// A range of the guest's function: what stands behind one of its registers, or behind two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct GuestRange {
    /// The number of its first register, 0 to 5.
    pub register: u8,
    /// Where the real function answers.
    pub host: HostRange,
    /// Size in bytes or ports, a power of two.
    pub size: u64,
    /// Whether it takes two registers.
    pub is_64_bit: bool,
    /// Where the guest reaches it now.
    pub decoded: Option<u64>,
    /// Where the guest wants it and does not get it.
    pub refused: Option<u64>,
}

impl GuestRange {
    /// The guest's addresses or ports that reach it now.
    pub fn decoded_range(&self) -> Option<Range<u64>> {
        self.decoded.map(|start| start..start.saturating_add(self.size))
    }

    /// Whether the platform lets it be at `start`.
    pub fn check(&self, start: u64, space: &GuestAddressSpace) -> Result<(), Obstacle> {
        match self.host {
            HostRange::Memory(_) => space.check_memory(start, self.size),
            HostRange::Ports(_) => GuestAddressSpace::check_ports(start, self.size),
        }
    }

    /// Where the real function answers in memory space, if the range does not fill pages: what shares its page is not the
    /// guest's, so that the guest reaches it through the hypervisor only.
    pub fn shares_page(&self) -> Option<HostPhys> {
        let HostRange::Memory(host) = self.host else { return None };
        (self.size < PAGE_SIZE || !host.is_aligned(PAGE_SIZE)).then_some(host)
    }

    /// Whether it lies in memory space.
    pub fn is_memory(&self) -> bool {
        matches!(self.host, HostRange::Memory(_))
    }
}

/// One register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Register {
    /// The address and the read-only bits.
    value: u32,
    /// The address bits; 0 for a register that is not there.
    mask: u32,
}

/// The six registers, and the ranges behind them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct GuestBars {
    registers: [Register; 6],
    ranges: [Option<GuestRange>; 6],
}

impl GuestBars {
    /// Registers without addresses, for the ranges of the real function, except those in I/O space that it does not answer
    /// in or that lie where the machine has its own devices.
    pub fn new(bars: &Bars) -> Self {
        let mut registers = [Register::default(); 6];
        let mut ranges = [None; 6];
        for (index, range) in bars.iter() {
            let mut parts = registers.iter_mut().skip(index.into());
            let (host, size, is_64_bit) = match range {
                Bar::Io { port, size } => {
                    let end = port.checked_add(size).filter(|end| *end <= 0x1_0000);
                    let (FIRST_HOST_PORT.., Some(_), Ok(first)) = (port, end, u16::try_from(port)) else { continue };
                    if let Some(register) = parts.next() {
                        *register = Register { value: bar::IO, mask: !size.wrapping_sub(1) & !bar::IO_FLAGS };
                    }
                    (HostRange::Ports(first), size.into(), false)
                }
                Bar::Memory { address, size, prefetchable, is_64_bit } => {
                    let mask = !size.wrapping_sub(1) & !u64::from(bar::MEMORY_FLAGS);
                    let mut flags = if is_64_bit { bar::MEMORY_TYPE_64 } else { bar::MEMORY_TYPE_32 };
                    if prefetchable {
                        flags |= bar::PREFETCHABLE;
                    }
                    if let Some(low) = parts.next() {
                        *low = Register { value: flags, mask: mask as u32 };
                    }
                    if let (true, Some(high)) = (is_64_bit, parts.next()) {
                        *high = Register { value: 0, mask: (mask >> 32) as u32 };
                    }
                    (HostRange::Memory(address), size, is_64_bit)
                }
            };
            if let Some(place) = ranges.get_mut(usize::from(index)) {
                *place = Some(GuestRange { register: index, host, size, is_64_bit, decoded: None, refused: None });
            }
        }
        Self { registers, ranges }
    }

    /// What register `index` reads.
    pub fn read(&self, index: u8) -> u32 {
        self.registers.get(usize::from(index)).map_or(0, |register| register.value)
    }

    /// Writes register `index`; what is no address bit stays. All ones read back as the size, as everywhere.
    pub fn write(&mut self, index: u8, value: u32) {
        if let Some(register) = self.registers.get_mut(usize::from(index)) {
            register.value = register.value & !register.mask | value & register.mask;
        }
    }

    /// The ranges.
    pub fn ranges(&self) -> impl Iterator<Item = &GuestRange> {
        self.ranges.iter().flatten()
    }

    /// The range that begins in register `index`.
    pub fn range_mut(&mut self, index: u8) -> Option<&mut GuestRange> {
        self.ranges.get_mut(usize::from(index))?.as_mut()
    }

    /// The range that begins in register `index`.
    pub fn range(&self, index: u8) -> Option<&GuestRange> {
        self.ranges.get(usize::from(index))?.as_ref()
    }

    /// The address in the registers of a range; `None` while they ask for the size. Address bits that a register does not
    /// have are 0.
    pub fn address(&self, range: &GuestRange) -> Option<u64> {
        let part = |index: u8| self.registers.get(usize::from(index)).copied().unwrap_or_default();
        let low = part(range.register);
        let high = if range.is_64_bit { part(range.register + 1) } else { Register::default() };
        let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let address = join(low.value & low.mask, high.value & high.mask);
        let all_ones = |part: Register| part.mask != 0 && part.value & part.mask == part.mask;
        let sizing = all_ones(low) || all_ones(high);
        (!sizing).then_some(address)
    }

    /// Puts an address in the registers of a range.
    pub fn set_address(&mut self, register: u8, address: u64) {
        let is_64_bit = self.range(register).is_some_and(|range| range.is_64_bit);
        self.write(register, address as u32);
        if is_64_bit {
            self.write(register + 1, (address >> 32) as u32);
        }
    }

    /// The first address of `window` where a range of `size` bytes, a power of two, is free of all of `taken`.
    pub fn find_place(window: &Range<u64>, size: u64, taken: impl Fn(&Range<u64>) -> Option<u64>) -> Option<u64> {
        let mut start = window.start.checked_next_multiple_of(size)?;
        loop {
            let end = start.checked_add(size).filter(|end| *end <= window.end)?;
            match taken(&(start..end)) {
                None => return Some(start),
                // Each step leaves one range behind, so the end of the window is reached.
                Some(end) => start = end.max(start + 1).checked_next_multiple_of(size)?,
            }
        }
    }

    /// The end of a range with an address in the same space that has something in common with `wanted`, if there is one.
    pub fn in_the_way(&self, memory: bool, wanted: &Range<u64>) -> Option<u64> {
        self.ranges().filter(|range| range.is_memory() == memory).find_map(|range| {
            let start = self.address(range).filter(|start| *start != 0)?;
            let taken = start..start.saturating_add(range.size);
            overlap(&taken, wanted).then_some(taken.end)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::pci::BarSlot;

    fn bars() -> GuestBars {
        let memory = |address, size, prefetchable, is_64_bit| {
            BarSlot::Range(Bar::Memory { address: HostPhys::new(address), size, prefetchable, is_64_bit })
        };
        GuestBars::new(&Bars::new([
            memory(0xFEB8_0000, 0x2_0000, false, false),
            BarSlot::Range(Bar::Io { port: 0xC040, size: 32 }),
            BarSlot::Range(Bar::Io { port: 0, size: 32 }),
            BarSlot::Range(Bar::Io { port: 0x60, size: 8 }),
            memory(0x48_8000_0000, 0x4000_0000, true, true),
            BarSlot::UpperHalf,
        ]))
    }

    #[test]
    fn registers_hold_what_is_written_and_answer_sizes() {
        let mut bars = bars();
        let flags = [0, 1, 0, 0, 0xC, 0];
        let sizes = [0xFFFE_0000, 0xFFFF_FFE1, 0, 0, 0xC000_000C, 0xFFFF_FFFF];
        for index in 0..6 {
            assert_eq!(bars.read(index), flags[usize::from(index)], "the host's address is shown");
            bars.write(index, u32::MAX);
            assert_eq!(bars.read(index), sizes[usize::from(index)], "register {index}");
            bars.write(index, 0x8001_2345);
            assert_eq!(
                bars.read(index),
                0x8001_2345 & sizes[usize::from(index)] & !0xF
                    | flags[usize::from(index)]
                    | if index == 5 { 5 } else { 0 }
            );
        }
        bars.write(9, 1);
        assert_eq!(bars.read(9), 0);
    }

    #[test]
    fn addresses_are_those_of_both_registers_and_none_while_sizing() {
        let mut bars = bars();
        bars.set_address(4, 0x48_8000_0000);
        let large = *bars.range(4).unwrap();
        assert_eq!((bars.read(4), bars.read(5), bars.address(&large)), (0x8000_000C, 0x48, Some(0x48_8000_0000)));
        for index in [4, 5] {
            let before = bars.read(index);
            bars.write(index, u32::MAX);
            assert_eq!(bars.address(&large), None);
            bars.write(index, before);
        }
        assert_eq!(bars.ranges().count(), 3, "ports without a place, or the machine's own");
        assert_eq!(bars.range(1).unwrap().host, HostRange::Ports(0xC040));
    }

    #[test]
    fn places_are_aligned_and_free() {
        let mut bars = bars();
        bars.set_address(0, 0xC002_0000);
        let find = |bars: &GuestBars, end, size| {
            GuestBars::find_place(&(0xC000_0000..end), size, |wanted| bars.in_the_way(true, wanted))
        };
        assert_eq!(find(&bars, 0xE000_0000, 0x2_0000), Some(0xC000_0000));
        assert_eq!(find(&bars, 0xE000_0000, 0x4_0000), Some(0xC004_0000));
        assert_eq!(find(&bars, 0xC006_0000, 0x4_0000), None);
        assert_eq!(find(&bars, 0xE000_0000, 1 << 63), None);
    }
}
