//! SVM as one of the engines.

use super::{Svm, SvmError, SvmVirtualCpu};
use crate::vcpu::{Engine, FrameSource};
use addr::{HostPhys, PageSize};
use paging::NestedPaging;

/// CPUID Fn8000_0001_ECX: secure virtual machine.
const CPUID_SVM: u32 = 1 << 2;
/// CPUID Fn8000_0001_EDX: 1 GiB pages.
const CPUID_1G_PAGES: u32 = 1 << 26;

impl Engine for Svm {
    const NAME: &'static str = "svm";
    type Cpu = SvmVirtualCpu;
    type Nested = NestedPaging;
    type Error = SvmError;

    fn is_present() -> bool {
        core::arch::x86_64::__cpuid(0x8000_0001).ecx & CPUID_SVM != 0
    }

    fn enable(frames: &mut impl FrameSource) -> Result<Self, SvmError> {
        Svm::enable(frames)
    }

    fn largest_nested_page(&self) -> PageSize {
        // Nested tables have the host's own format, and its page sizes.
        let has_1g = core::arch::x86_64::__cpuid(0x8000_0001).edx & CPUID_1G_PAGES != 0;
        if has_1g { PageSize::Size1G } else { PageSize::Size2M }
    }

    fn new_virtual_cpu(
        &mut self,
        frames: &mut impl FrameSource,
        nested_root: HostPhys,
    ) -> Result<SvmVirtualCpu, SvmError> {
        Svm::new_virtual_cpu(self, frames, nested_root)
    }
}
