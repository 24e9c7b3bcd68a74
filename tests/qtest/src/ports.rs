//! Configuration space by the ports 0xCF8 and 0xCFC: the first 256 bytes of every function.

use crate::machine::Machine;
use addr::PciAddress;
use pci::{ConfigSpace, Width};

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;

/// The configuration space of a machine.
#[derive(Clone, Debug)]
pub struct Ports(pub Machine);

impl Ports {
    /// Selects a register; `None` where the ports do not reach.
    fn select(&self, function: PciAddress, offset: u16) -> Option<u16> {
        if function.segment != 0 || offset >= 256 {
            return None;
        }
        let value = ENABLE | u32::from(function.bdf.as_u16()) << 8 | u32::from(offset) & 0xfc;
        self.0.port_out(ADDRESS, 4, value);
        Some(DATA + offset % 4)
    }
}

impl ConfigSpace for Ports {
    fn read(&self, function: PciAddress, offset: u16, width: Width) -> u32 {
        match self.select(function, offset) {
            Some(port) => self.0.port_in(port, width.bytes()),
            None => width.mask(),
        }
    }

    fn write(&mut self, function: PciAddress, offset: u16, width: Width, value: u32) {
        if let Some(port) = self.select(function, offset) {
            self.0.port_out(port, width.bytes(), value & width.mask());
        }
    }
}
