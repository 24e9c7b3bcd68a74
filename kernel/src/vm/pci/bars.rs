//! The guest's base address registers: the addresses are the host's and cannot be moved.

use ::pci::spec::header::bar;
use ::pci::{Bar, Bars};

/// One register as the guest sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct GuestBar {
    /// The address and the read-only bits.
    value: u32,
    /// The address bits; 0 for a register that is not there.
    mask: u32,
    /// The guest wrote all ones and asks for the size.
    sizing: bool,
}

/// The six registers as the guest sees them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct GuestBars([GuestBar; 6]);

impl GuestBars {
    /// Registers that show the ranges of the real function, except I/O ranges that have no address: a guest may not give
    /// them one.
    pub fn new(bars: &Bars) -> Self {
        let mut registers = [GuestBar::default(); 6];
        for (index, range) in bars.iter() {
            let mut parts = registers.iter_mut().skip(index.into());
            match range {
                Bar::Io { port: 0, .. } => {}
                Bar::Io { port, size } => {
                    if let Some(register) = parts.next() {
                        let mask = !size.wrapping_sub(1) & !bar::IO_FLAGS;
                        *register = GuestBar { value: port & mask | bar::IO, mask, sizing: false };
                    }
                }
                Bar::Memory { address, size, prefetchable, is_64_bit } => {
                    let mask = !size.wrapping_sub(1) & !u64::from(bar::MEMORY_FLAGS);
                    let mut flags = if is_64_bit { bar::MEMORY_TYPE_64 } else { bar::MEMORY_TYPE_32 };
                    if prefetchable {
                        flags |= bar::PREFETCHABLE;
                    }
                    let address = address.as_u64() & mask;
                    if let Some(low) = parts.next() {
                        *low = GuestBar { value: address as u32 | flags, mask: mask as u32, sizing: false };
                    }
                    if let (true, Some(high)) = (is_64_bit, parts.next()) {
                        *high = GuestBar { value: (address >> 32) as u32, mask: (mask >> 32) as u32, sizing: false };
                    }
                }
            }
        }
        Self(registers)
    }

    /// What register `index` reads.
    pub fn read(&self, index: u8) -> u32 {
        match self.0.get(usize::from(index)) {
            Some(register) if register.sizing => register.value | register.mask,
            Some(register) => register.value,
            None => 0,
        }
    }

    /// Writes register `index`: all ones ask for the size, the address itself ends that, and anything else is refused:
    /// the register holds its address then, and the answer is false.
    pub fn write(&mut self, index: u8, value: u32) -> bool {
        let Some(register) = self.0.get_mut(usize::from(index)) else { return true };
        let address = value & register.mask;
        let is_address = address == register.value & register.mask;
        register.sizing = !is_address && address == register.mask;
        is_address || register.sizing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::pci::BarSlot;
    use addr::HostPhys;

    fn bars() -> GuestBars {
        let memory = |address, size, prefetchable, is_64_bit| {
            BarSlot::Range(Bar::Memory { address: HostPhys::new(address), size, prefetchable, is_64_bit })
        };
        GuestBars::new(&Bars::new([
            memory(0xFEB8_0000, 0x2_0000, false, false),
            BarSlot::Range(Bar::Io { port: 0xC040, size: 32 }),
            BarSlot::Range(Bar::Io { port: 0, size: 32 }),
            BarSlot::Unimplemented,
            memory(0x48_8000_0000, 0x4000_0000, true, true),
            BarSlot::UpperHalf,
        ]))
    }

    #[test]
    fn sizes_are_answered_and_addresses_come_back() {
        let mut bars = bars();
        let addresses = [0xFEB8_0000, 0xC041, 0, 0, 0x8000_000C, 0x48];
        let sizes = [0xFFFE_0000, 0xFFFF_FFE1, 0, 0, 0xC000_000C, 0xFFFF_FFFF];
        for index in 0..6 {
            let (address, size) = (addresses[usize::from(index)], sizes[usize::from(index)]);
            assert_eq!(bars.read(index), address);
            assert!(bars.write(index, u32::MAX));
            assert_eq!(bars.read(index), size, "register {index}");
            assert!(bars.write(index, address));
            assert_eq!(bars.read(index), address);
        }
    }

    #[test]
    fn an_address_cannot_be_moved() {
        let mut bars = bars();
        for value in [0, 0xFEBA_0000, 0xFEE0_0000] {
            assert!(!bars.write(0, value));
            assert_eq!(bars.read(0), 0xFEB8_0000);
        }
        assert!(!bars.write(5, 0x49));
        assert!(bars.write(0, 0xFEB9_FFFF), "bits below the size are no address");
        assert!(bars.write(3, 0x1234) && bars.write(9, 1), "a register that is not there ignores writes");
        assert_eq!((bars.read(3), bars.read(9)), (0, 0));
    }

    #[test]
    fn a_refused_move_ends_sizing() {
        let mut bars = bars();
        bars.write(0, u32::MAX);
        assert!(!bars.write(0, 0x1000_0000));
        assert_eq!(bars.read(0), 0xFEB8_0000);
    }
}
