//! PCI configuration space of the real machine: memory-mapped where the firmware says so, else by I/O ports.

use crate::machine::device_memory::DeviceMemory;
use crate::machine::firmware::Ecam;
use crate::machine::ports;
use addr::{HostPhys, PciAddress};
use alloc::vec::Vec;
use pci::{ConfigSpace, Width};

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
/// Bytes of configuration space of one bus.
const BUS_BYTES: u64 = 1 << 20;

struct Window {
    address: HostPhys,
    memory: DeviceMemory,
    segment: u16,
    buses: (u8, u8),
}

impl Window {
    /// Where a register is in the window, if it is.
    fn offset(&self, function: PciAddress, offset: u16) -> Option<u64> {
        let bus = function.bdf.bus();
        let inside = self.segment == function.segment && (self.buses.0..=self.buses.1).contains(&bus);
        let devfn = u64::from(function.bdf.devfn());
        inside.then(|| u64::from(bus - self.buses.0) * BUS_BYTES + devfn * 4096 + u64::from(offset & 0xfff))
    }
}

/// All configuration space that can be reached.
pub struct MachineConfigSpace {
    windows: Vec<Window>,
}

impl MachineConfigSpace {
    /// Maps the windows that the firmware names. One that cannot be mapped is left out, with a word in the log.
    pub fn new(ecam: &[Ecam]) -> Self {
        let mut windows = Vec::new();
        for window in ecam {
            let buses = u64::from(window.buses.1 - window.buses.0) + 1;
            // The address in the table is that of bus 0, whichever bus is the first.
            let first = window.address.checked_add(u64::from(window.buses.0) * BUS_BYTES);
            let Ecam { segment, buses: numbers, .. } = *window;
            match first.map(|address| (address, DeviceMemory::map(address, buses * BUS_BYTES))) {
                Some((address, Ok(memory))) => windows.push(Window { address, memory, segment, buses: numbers }),
                _ => log::warn!("configuration space at {} of segment {} is left out", window.address, window.segment),
            }
        }
        Self { windows }
    }

    /// The segments that can be reached. The ports reach segment 0.
    pub fn segments(&self) -> Vec<u16> {
        let mut segments = Vec::new();
        for segment in self.windows.iter().map(|window| window.segment).chain([0]) {
            if !segments.contains(&segment) {
                segments.push(segment);
            }
        }
        segments
    }

    /// Whether a part of configuration space is in this range of memory.
    pub fn overlap(&self, start: u64, end: u64) -> bool {
        self.windows.iter().any(|window| {
            let first = window.address.as_u64();
            start < first.saturating_add(window.memory.bytes()) && first < end
        })
    }

    /// Selects a register by the ports, if they reach it.
    fn select(function: PciAddress, offset: u16) -> Option<u16> {
        if function.segment != 0 || offset >= 256 {
            return None;
        }
        let address = 1 << 31 | u32::from(function.bdf.as_u16()) << 8 | u32::from(offset & 0xfc);
        ports::write(CONFIG_ADDRESS, 4, address);
        Some(CONFIG_DATA + (offset & 3))
    }
}

impl ConfigSpace for MachineConfigSpace {
    fn read(&self, function: PciAddress, offset: u16, width: Width) -> u32 {
        let offset = offset & !(width.bytes() - 1);
        let window = self.windows.iter().find_map(|window| Some((&window.memory, window.offset(function, offset)?)));
        match (window, width) {
            (Some((memory, at)), Width::Byte) => memory.read8(at).into(),
            (Some((memory, at)), Width::Word) => memory.read16(at).into(),
            (Some((memory, at)), Width::Dword) => memory.read32(at),
            (None, _) => {
                Self::select(function, offset).map_or(width.mask(), |port| ports::read(port, width.bytes() as u8))
            }
        }
    }

    fn write(&mut self, function: PciAddress, offset: u16, width: Width, value: u32) {
        let offset = offset & !(width.bytes() - 1);
        let windows = self.windows.iter_mut();
        let window = windows.into_iter().find_map(|window| {
            let at = window.offset(function, offset)?;
            Some((&mut window.memory, at))
        });
        match (window, width) {
            (Some((memory, at)), Width::Byte) => memory.write8(at, value as u8),
            (Some((memory, at)), Width::Word) => memory.write16(at, value as u16),
            (Some((memory, at)), Width::Dword) => memory.write32(at, value),
            (None, _) => {
                if let Some(port) = Self::select(function, offset) {
                    ports::write(port, width.bytes() as u8, value);
                }
            }
        }
    }
}
