//! Exits by accesses to control registers: the engine's own business.

use super::*;
use crate::vcpu::vmx::control_registers::check_caching;

const GENERAL_PROTECTION: u8 = 13;

impl<P: Processor> VmxVirtualCpu<P> {
    /// Answers an access to a control register; an exit if it is one that should not have exited.
    pub(super) fn access_control_register(&mut self, reason: ExitReason) -> Option<Exit> {
        use qualification::*;
        let qualification = self.vmcs.get(EXIT_QUALIFICATION);
        let number = (qualification >> CR_REGISTER_SHIFT) as u8 & 0xf;
        let value = match self.mode() {
            Mode::Long => self.registers.get(number),
            _ => self.registers.get(number) & 0xffff_ffff,
        };
        let done = match (qualification & CR_NUMBER, qualification >> CR_ACCESS_SHIFT & CR_ACCESS) {
            (0, CR_WRITE) => self.write_cr0(value),
            (4, CR_WRITE) => self.write_cr4(value),
            (8, CR_WRITE) => {
                let valid = value <= 0xf;
                if valid {
                    self.set_task_priority(value as u8);
                    self.end_access();
                    if core::mem::take(&mut self.priority_exit_wanted) {
                        return Some(Exit::InterruptWindow);
                    }
                } else {
                    self.raise(GENERAL_PROTECTION, Some(0));
                }
                true
            }
            (8, CR_READ) => {
                self.registers.set(number, self.task_priority().into());
                self.end_access();
                true
            }
            _ => false,
        };
        if done { None } else { Some(decode::unknown(&self.vmcs, reason)) }
    }

    fn end_access(&mut self) {
        if let Some(rip) = self.next_rip {
            self.advance_to(rip);
        }
    }

    /// The guest executes the instruction again with the shadow changed, see
    /// [`control_registers`](crate::vcpu::vmx::control_registers). Says whether there was a reason to exit: otherwise
    /// it would exit for ever.
    fn write_cr0(&mut self, value: u64) -> bool {
        let shadow = self.vmcs.get(CR0_READ_SHADOW);
        if !self.cr0.changes(shadow, value) {
            return false;
        }
        match self.cr0.check(value).and(check_caching(value)) {
            Ok(()) => self.vmcs.set(CR0_READ_SHADOW, value),
            Err(_) => self.raise(GENERAL_PROTECTION, Some(0)),
        }
        true
    }

    fn write_cr4(&mut self, value: u64) -> bool {
        let shadow = self.vmcs.get(CR4_READ_SHADOW);
        if !self.cr4.changes(shadow, value) {
            return false;
        }
        match self.cr4.check(value) {
            Ok(()) => self.vmcs.set(CR4_READ_SHADOW, value),
            Err(_) => self.raise(GENERAL_PROTECTION, Some(0)),
        }
        true
    }
}
