//! Maskable interrupts: what V_IRQ stands for during one entry (APM vol. 2, 15.21.4).
//!
//! They are delivered as virtual interrupts and not by EVENTINJ. QEMU's TCG leaves an interrupt that EVENTINJ has
//! delivered as the processor's current exception, and may deliver it again at any later instruction, with RFLAGS.IF
//! clear or not, if nothing else exits before. A virtual interrupt is taken once, like a physical one, and one that
//! was not taken before an exit simply stays.

use super::{SvmVirtualCpu, interrupt_control::*};
use crate::vcpu::svm::machine::WorldSwitch;
use crate::vcpu::svm::spec::intercept;
use crate::vcpu::svm::spec::vmcb::ControlArea;
use addr::Vector;

/// What V_IRQ stands for during one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VirtualInterrupt {
    /// Nothing.
    None,
    /// An exit as soon as the guest could take an interrupt: the intercept comes before the delivery.
    Window,
    /// An interrupt to be taken.
    Deliver {
        /// Its vector.
        vector: Vector,
        /// A window is wanted as well, which V_IRQ cannot stand for at the same time: exit at the end of the handler.
        exit_at_iret: bool,
    },
    /// An interrupt to be taken if the guest comes to it before the exit.
    Offer(Vector),
}

/// Taken whatever CR8 is: the virtual APIC has compared priorities already, and the guest was not run since.
const ANY_PRIORITY: u64 = IRQ | IGNORE_TASK_PRIORITY | PRIORITY;

impl VirtualInterrupt {
    /// Puts it into the control block.
    pub(super) fn arm(self, control: &mut ControlArea) {
        Self::disarm(control);
        match self {
            VirtualInterrupt::None => {}
            VirtualInterrupt::Window => {
                control.interrupt_control |= ANY_PRIORITY;
                control.intercept_instructions |= intercept::VINTR;
            }
            VirtualInterrupt::Deliver { vector, exit_at_iret } => {
                control.interrupt_control |= ANY_PRIORITY | u64::from(vector.0) << VECTOR_SHIFT;
                if exit_at_iret {
                    control.intercept_instructions |= intercept::IRET;
                }
            }
            // The guest may have written CR8 when it comes to it: the processor compares.
            VirtualInterrupt::Offer(vector) => {
                let priority = u64::from(vector.0 >> 4);
                control.interrupt_control |= IRQ | priority << PRIORITY_SHIFT | u64::from(vector.0) << VECTOR_SHIFT;
            }
        }
    }

    /// Takes whatever it is out of the control block.
    pub(super) fn disarm(control: &mut ControlArea) {
        control.interrupt_control &= !(ANY_PRIORITY | VECTOR);
        control.intercept_instructions &= !(intercept::VINTR | intercept::IRET);
    }

    /// Whether the guest took the interrupt.
    pub(super) fn was_taken(self, control: &ControlArea) -> bool {
        matches!(self, VirtualInterrupt::Deliver { .. } | VirtualInterrupt::Offer(_))
            && control.interrupt_control & IRQ == 0
    }
}

impl<W: WorldSwitch> SvmVirtualCpu<W> {
    /// For the next entry. `at_iret`: the guest is at an IRET that has exited, and must get past it.
    pub(super) fn virtual_interrupt(&self, at_iret: bool) -> VirtualInterrupt {
        // An event that is delivered first ends the shadow.
        let shadow = self.in_shadow() && self.pending.is_none();
        match (self.interrupt, self.offer) {
            (Some(vector), _) if !shadow => {
                VirtualInterrupt::Deliver { vector, exit_at_iret: self.window_wanted && !at_iret }
            }
            (None, Some(vector)) if !shadow => VirtualInterrupt::Offer(vector),
            (None, None) if !self.window_wanted => VirtualInterrupt::None,
            _ => VirtualInterrupt::Window,
        }
    }
}
