//! The engine for AMD's secure virtual machine extension, with nested paging (APM vol. 2, chapter 15).
//!
//! It asks nothing of the extension that QEMU's TCG lacks: no next-RIP, decode assists, clean bits, or flushing by
//! address space.

mod capability;
mod consistency;
mod decode;
mod engine;
#[cfg(test)]
pub(crate) mod fake;
mod initial;
mod injection;
mod machine;
mod permission_map;
mod region;
mod spec;
mod virtual_cpu;

pub use capability::{Capabilities, SvmError};
pub use virtual_cpu::SvmVirtualCpu;

use crate::vcpu::FrameSource;
use addr::HostPhys;
use machine::Machine;
use region::{HostStateArea, Region};

/// The extension, switched on on one physical processor.
#[derive(Debug)]
pub struct Svm {
    capabilities: Capabilities,
    next_address_space: u32,
    /// Kept because the processor uses it at every entry.
    _host_save_area: Region<HostStateArea>,
}

impl Svm {
    /// Switches the extension on, on the processor that this runs on. One frame.
    pub fn enable(frames: &mut impl FrameSource) -> Result<Self, SvmError> {
        let capabilities = Capabilities::detect(machine::cpuid, machine::read_msr)?;
        let host_save_area = Region::allocate(frames, "host save area")?;
        machine::enable(&host_save_area);
        Ok(Self { capabilities, next_address_space: 1, _host_save_area: host_save_area })
    }

    /// What the processor's extension can do.
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// A virtual CPU for this processor, whose guest-physical addresses the tables at `nested_root` translate (in the
    /// format of the hypervisor's own page tables). They must map nothing but what is the guest's. Seven frames, and
    /// one of the processor's address space ids; neither is ever given back. [`start`](crate::vcpu::VirtualCpu::start)
    /// it before it runs.
    pub fn new_virtual_cpu(
        &mut self,
        frames: &mut impl FrameSource,
        nested_root: HostPhys,
    ) -> Result<SvmVirtualCpu, SvmError> {
        let address_space = self.next_address_space;
        if address_space >= self.capabilities.address_spaces {
            return Err(SvmError::OutOfAddressSpaces { total: self.capabilities.address_spaces });
        }
        let machine = Machine { host_state: Region::allocate(frames, "host state area")? };
        let cpu = SvmVirtualCpu::new(machine, frames, self.capabilities, address_space, nested_root)?;
        self.next_address_space += 1;
        Ok(cpu)
    }
}
