//! Non-maskable interrupts: they block each other from delivery to IRET, and that is software's to see to. The
//! processor does not block them for a guest whose physical ones are intercepted (APM vol. 2, 15.21.6), so the IRET that
//! ends the handler exits, and where another waits it is delivered right behind that IRET: before it, the second handler
//! would destroy the first one's frame, if they have a stack of their own.

use super::{DR6_SINGLE_STEP, RFLAGS_TRAP, SvmVirtualCpu, VirtualInterrupt, initial};
use crate::vcpu::event::{DEBUG, Event, PAGE_FAULT};
use crate::vcpu::svm::machine::WorldSwitch;
use crate::vcpu::{Exit, VirtualCpu};

impl<W: WorldSwitch> SvmVirtualCpu<W> {
    /// Lets the next entry deliver the one that waits, if the guest takes it. Returns whether the next entry delivers
    /// one. Behind another event it waits for the IRET of that one's handler.
    pub(super) fn offer_nmi(&mut self) -> bool {
        if self.nmi_waiting && !self.nmi_blocked && self.pending.is_none() && !self.in_shadow() {
            self.pending = Some(Event::Nmi);
            self.nmi_waiting = false;
        }
        self.pending == Some(Event::Nmi)
    }

    /// Whether one waits.
    #[cfg(test)]
    pub(crate) fn nmi_waits(&self) -> bool {
        self.nmi_waiting
    }

    /// The guest is at the IRET that ended their blocking: executes it by single-stepping, if one waits. `None` when
    /// that is done, or not needed.
    pub(super) fn step_to_next_nmi(&mut self) -> Option<Exit> {
        if !self.nmi_waiting {
            return None;
        }
        // A fault must not show the guest the flag, so every exception exits.
        let (rip, dr6) = (self.rip(), self.vmcb.save.dr6);
        let guest_steps = self.vmcb.save.rflags & RFLAGS_TRAP != 0;
        self.vmcb.save.rflags |= RFLAGS_TRAP;
        self.vmcb.control.intercept_exceptions = !(1 << 2);
        self.enter(VirtualInterrupt::None, false);
        self.vmcb.control.intercept_exceptions = initial::INTERCEPTED_EXCEPTIONS;
        let exit = self.decode();
        let stepped =
            matches!(exit, Exit::Exception { vector: DEBUG, .. }) && self.vmcb.save.dr6 & DR6_SINGLE_STEP != 0;
        if !stepped {
            if self.rip() == rip && !guest_steps {
                self.vmcb.save.rflags &= !RFLAGS_TRAP;
            }
            if let Exit::Exception { vector, error_code } = exit {
                if vector == PAGE_FAULT {
                    self.vmcb.save.cr2 = self.vmcb.control.exit_info_2;
                }
                self.raise(vector, error_code);
                return None;
            }
            return Some(exit);
        }
        if guest_steps {
            return Some(exit);
        }
        self.vmcb.save.dr6 = self.vmcb.save.dr6 & !DR6_SINGLE_STEP | dr6 & DR6_SINGLE_STEP;
        None
    }
}
