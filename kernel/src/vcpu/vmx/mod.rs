//! The engine for Intel's virtual-machine extensions, with extended page tables and unrestricted guests (SDM vol. 3,
//! chapters 24 to 31).
//!
//! All state of a guest but its general-purpose registers and CR2 is in its control structure. `processor::Processor`
//! is what the engine needs of the machine; everything else is logic on it.

mod bitmap;
mod capability;
mod consistency;
mod control_registers;
mod controls;
mod decode;
mod engine;
#[cfg(test)]
mod fake;
mod host_state;
mod initial;
mod injection;
mod machine;
mod processor;
mod spec;
mod virtual_cpu;

pub use capability::{Allowed, Capabilities, FixedBits, VmxError};
pub use controls::Controls;
pub use host_state::HostState;
pub use virtual_cpu::VmxVirtualCpu;

use crate::vcpu::ApicCapability;
use crate::vcpu::FrameSource;
use crate::vcpu::region::Region;
use addr::HostPhys;
use alloc::sync::Arc;
use core::sync::atomic::AtomicU64;
use machine::{Machine, NO_STRUCTURE, RevisionFrame};
use spec::control::Secondary;
use spec::msr::EptVpid;
use spec::{ept, msr};
use virtual_cpu::Plan;

/// The extension, switched on on one physical processor. Virtual CPUs made by it run on that processor.
#[derive(Debug)]
pub struct Vmx {
    capabilities: Capabilities,
    controls: Controls,
    /// Which control structure is current, for all virtual CPUs of this processor.
    current: Arc<AtomicU64>,
    next_identifier: u16,
    /// Kept because the processor uses it until VMXOFF.
    _vmxon_region: Region<RevisionFrame>,
}

impl Vmx {
    /// Switches the extension on, on the processor that this runs on. One frame. Descriptor tables, the task register
    /// and CR3 must be final, because exits restore what virtual CPUs find when they are made.
    pub fn enable(frames: &mut impl FrameSource) -> Result<Self, VmxError> {
        let capabilities = Capabilities::detect(machine::cpuid, machine::read_msr)?;
        let (controls, left_out) = Controls::choose(&capabilities)?;
        if !left_out.is_empty() {
            log::info!("VMX: this processor lacks {}", left_out.join(", "));
        }
        let mut region = Region::allocate(frames, "VMXON region")?;
        if let Some(value) = capability::unlock(machine::read_msr(msr::FEATURE_CONTROL))? {
            machine::write_feature_control(value);
        }
        let (cr0, cr4) = machine::control_registers();
        let cr0 = fix("CR0", cr0, capabilities.cr0)?;
        let cr4 = fix("CR4", cr4 | control_registers::cr4::VMXE, capabilities.cr4)?;
        machine::set_control_registers(cr0, cr4);
        if !machine::enter_vmx_operation(&mut region, capabilities.revision) {
            return Err(VmxError::InstructionFailed { instruction: "VMXON" });
        }
        // What an earlier hypervisor left, such as this one before a restart of the machine.
        let all_pages = capabilities.ept_vpid.contains(EptVpid::INVEPT_ALL_CONTEXTS);
        let all_identifiers = controls.secondary.contains(Secondary::ENABLE_VPID)
            && capabilities.ept_vpid.contains(EptVpid::INVVPID_ALL_CONTEXTS);
        if all_pages && !machine::invalidate_ept(ept::ALL_CONTEXTS, 0) {
            return Err(VmxError::InstructionFailed { instruction: "INVEPT" });
        }
        if all_identifiers && !machine::invalidate_virtual_processor(ept::ALL_CONTEXTS, 0) {
            return Err(VmxError::InstructionFailed { instruction: "INVVPID" });
        }
        let current = Arc::new(AtomicU64::new(NO_STRUCTURE));
        Ok(Self { capabilities, controls, current, next_identifier: 1, _vmxon_region: region })
    }

    /// What the processor's extension can do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// What it can do of virtualizing the local APIC.
    pub fn apic_capability(&self) -> ApicCapability {
        controls::apic_capability(&self.capabilities)
    }

    /// A virtual CPU for this processor, whose guest-physical addresses the extended page tables at `nested_root`
    /// translate. They must map nothing but what is the guest's. Six frames, and one of the processor's virtual-processor
    /// identifiers; neither is ever given back. [`start`](crate::vcpu::VirtualCpu::start) it before it runs.
    pub fn new_virtual_cpu(
        &mut self,
        frames: &mut impl FrameSource,
        nested_root: HostPhys,
    ) -> Result<VmxVirtualCpu, VmxError> {
        let virtual_processor = if self.controls.secondary.contains(Secondary::ENABLE_VPID) {
            let identifier = self.next_identifier;
            self.next_identifier = identifier.checked_add(1).ok_or(VmxError::OutOfIdentifiers)?;
            Some(identifier)
        } else {
            None
        };
        let Capabilities { revision, ept_vpid, .. } = self.capabilities;
        let structure = Region::allocate(frames, "virtual-machine control structure")?;
        let machine = Machine::new(structure, revision, self.current.clone(), ept_vpid)
            .map_err(|instruction| VmxError::InstructionFailed { instruction })?;
        let plan = Plan {
            capabilities: self.capabilities,
            controls: self.controls,
            host: machine::host_state(),
            virtual_processor,
            nested_root,
        };
        VmxVirtualCpu::new(machine, frames, plan)
    }

    /// Switches the extension off: VMXOFF. No virtual CPU that it made can run any more.
    pub fn disable(self) -> Result<(), VmxError> {
        if machine::leave_vmx_operation() { Ok(()) } else { Err(VmxError::InstructionFailed { instruction: "VMXOFF" }) }
    }
}

/// `value` with the bits that VMX operation wants, or an error if it has one that it does not permit.
fn fix(register: &'static str, value: u64, fixed: FixedBits) -> Result<u64, VmxError> {
    match value & !fixed.may {
        0 => Ok(value | fixed.must),
        bits => Err(VmxError::ForbiddenControlBits { register, bits }),
    }
}
