//! A remapping unit's registers and the hypervisor's time, as the VT-d driver uses them.

use crate::machine::device_memory::DeviceMemory;
use crate::time;
use vtd::{Clock, Registers};

/// The register window of one unit.
#[derive(Debug)]
pub struct UnitRegisters(pub DeviceMemory);

impl Registers for UnitRegisters {
    fn read32(&self, offset: u16) -> u32 {
        self.0.read32(offset.into())
    }

    fn read64(&self, offset: u16) -> u64 {
        self.0.read64(offset.into())
    }

    fn write32(&mut self, offset: u16, value: u32) {
        self.0.write32(offset.into(), value);
    }

    fn write64(&mut self, offset: u16, value: u64) {
        self.0.write64(offset.into(), value);
    }
}

/// The hypervisor's time, for the driver's waits.
#[derive(Clone, Copy, Debug)]
pub struct HypervisorClock;

impl Clock for HypervisorClock {
    fn now_us(&self) -> u64 {
        time::ticks_to_us(time::ticks())
    }

    fn relax(&self) {
        core::hint::spin_loop();
    }
}
