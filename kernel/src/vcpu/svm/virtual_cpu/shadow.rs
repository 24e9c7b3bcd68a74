//! The interrupt shadow: the one instruction after STI or MOV SS before which no interrupt is taken.
//!
//! Programs rely on it: between the STI and the HLT of an idle loop an interrupt must not be taken, or the processor
//! sleeps on it. QEMU's TCG reports the shadow at an exit but does not look at it at the next entry. An interrupt
//! window then opens too early, and the report of the shadow is gone. Both are put right here; on a processor that
//! honours the shadow nothing of this happens, or it changes nothing.

use super::{DR6_BREAKPOINTS, DR6_SINGLE_STEP, Entry, RFLAGS_TRAP, SvmVirtualCpu, VirtualInterrupt, exit_code::*};
use crate::vcpu::event::DEBUG;
use crate::vcpu::svm::machine::WorldSwitch;
use crate::vcpu::svm::spec::vmcb::{INTERRUPT_SHADOW, Vmcb};
use crate::vcpu::{Exit, VirtualCpu};

/// Restores the shadow after an exit before the instruction that it protects. An instruction that jumps to itself
/// looks like that too; for it the shadow lasts once more, which does no harm.
pub(super) fn restore(vmcb: &mut Vmcb, entry: &Entry) {
    let before_instruction = matches!(vmcb.control.exit_code, INTR | NMI | SMI | INIT | VINTR | NPF);
    if entry.shadow && before_instruction && vmcb.save.rip == entry.rip {
        vmcb.control.interrupt_state |= INTERRUPT_SHADOW;
    }
}

/// Whether an interrupt window opened within the shadow.
pub(super) fn was_ignored(vmcb: &Vmcb, entry: &Entry) -> bool {
    entry.shadow && vmcb.control.exit_code == VINTR && vmcb.save.rip == entry.rip
}

impl<W: WorldSwitch> SvmVirtualCpu<W> {
    /// Executes the one instruction in the shadow by single-stepping. `None` when that is done and the guest still
    /// cannot take an interrupt; the window is still wanted then.
    pub(super) fn step_out_of_shadow(&mut self) -> Option<Exit> {
        let dr6 = self.vmcb.save.dr6;
        let guest_steps = self.vmcb.save.rflags & RFLAGS_TRAP != 0;
        self.vmcb.save.rflags |= RFLAGS_TRAP;
        self.enter(VirtualInterrupt::None, false);
        if guest_steps {
            return Some(self.decode());
        }
        self.vmcb.save.rflags &= !RFLAGS_TRAP;
        let exit = self.decode();
        if !matches!(exit, Exit::Exception { vector: DEBUG, .. }) || self.vmcb.save.dr6 & DR6_SINGLE_STEP == 0 {
            return Some(exit);
        }
        self.vmcb.save.dr6 = self.vmcb.save.dr6 & !DR6_SINGLE_STEP | dr6 & DR6_SINGLE_STEP;
        if self.vmcb.save.dr6 & DR6_BREAKPOINTS & !dr6 != 0 {
            // The instruction met a breakpoint of the guest's as well.
            return Some(exit);
        }
        if self.can_take_interrupt() {
            self.window_wanted = false;
            return Some(Exit::InterruptWindow);
        }
        None
    }
}
