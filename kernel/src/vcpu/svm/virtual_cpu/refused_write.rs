//! A guest's write of reserved bits to CR3 or CR4, on QEMU's TCG.
//!
//! A processor answers it with a general-protection exception. TCG ends the guest with the code of a failed entry
//! instead, at the instruction that wrote. So there, and only there, a failed entry with a state that breaks no rule is
//! such a write; on other processors it is reported as what it is.

use super::{Entry, SvmVirtualCpu};
use crate::vcpu::svm::decode::is_entry_failure;
use crate::vcpu::svm::injection;
use crate::vcpu::svm::machine::WorldSwitch;
use crate::vcpu::svm::spec::event::VALID;
use crate::vcpu::svm::spec::vmcb::Vmcb;

const GENERAL_PROTECTION: u8 = 13;

/// Whether the guest ended by such a write.
pub(super) fn is_one(vmcb: &Vmcb, entry: &Entry, is_tcg: bool) -> bool {
    is_tcg
        && is_entry_failure(&vmcb.control)
        && entry.broken_rule.is_none()
        && vmcb.control.exit_interrupt_info & VALID == 0
}

impl<W: WorldSwitch> SvmVirtualCpu<W> {
    /// Answers it as a processor does.
    pub(super) fn answer_refused_write(&mut self, entry: &Entry) {
        self.pending = injection::interrupted(self.vmcb.control.exit_interrupt_info, entry.injected);
        self.flush = true;
        self.raise(GENERAL_PROTECTION, Some(0));
    }
}
