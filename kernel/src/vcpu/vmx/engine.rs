//! VMX as one of the engines.

use super::capability::{FEATURE_VMX, FEATURES};
use super::spec::msr::EptVpid;
use super::{Vmx, VmxError, VmxVirtualCpu};
use crate::vcpu::{Engine, FrameSource};
use addr::{HostPhys, PageSize};
use paging::Ept;

impl Engine for Vmx {
    const NAME: &'static str = "vmx";
    type Cpu = VmxVirtualCpu;
    type Nested = Ept;
    type Error = VmxError;

    fn is_present() -> bool {
        super::machine::cpuid(FEATURES).1 & FEATURE_VMX != 0
    }

    fn enable(frames: &mut impl FrameSource) -> Result<Self, VmxError> {
        Vmx::enable(frames)
    }

    fn largest_nested_page(&self) -> PageSize {
        largest_page(self.capabilities().ept_vpid)
    }

    fn new_virtual_cpu(
        &mut self,
        frames: &mut impl FrameSource,
        nested_root: HostPhys,
    ) -> Result<VmxVirtualCpu, VmxError> {
        Vmx::new_virtual_cpu(self, frames, nested_root)
    }
}

/// The largest page of the extended page tables.
fn largest_page(capability: EptVpid) -> PageSize {
    if capability.contains(EptVpid::PAGES_1G) {
        PageSize::Size1G
    } else if capability.contains(EptVpid::PAGES_2M) {
        PageSize::Size2M
    } else {
        PageSize::Size4K
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_as_large_as_the_processor_takes_them() {
        assert_eq!(largest_page(EptVpid::PAGES_1G | EptVpid::PAGES_2M), PageSize::Size1G);
        assert_eq!(largest_page(EptVpid::PAGES_2M), PageSize::Size2M);
        assert_eq!(largest_page(EptVpid::empty()), PageSize::Size4K);
    }
}
