//! The local APIC: the orders of register accesses that matter, over any way to reach the registers.

use crate::spec::local_apic::{Register, TimerDivide, VERSION_MAX_LVT_SHIFT, XAPIC_ID_SHIFT, icr, lvt, spurious};
use crate::{Destination, InterruptCommand};
use addr::{ApicId, Vector};
use core::fmt;

/// How the registers are reached, which also decides the width of an APIC id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApicMode {
    /// Memory-mapped, 8-bit ids.
    XApic,
    /// Model-specific registers, 32-bit ids.
    X2Apic,
}

/// The registers of the local APIC of the processor that runs the code.
///
/// In xAPIC mode a register is 32 bits of uncached memory at [`Register::xapic_offset`]; in x2APIC mode it is the low
/// half of the model-specific register [`Register::x2apic_msr`].
pub trait LocalApicAccess {
    /// The mode that the implementation speaks.
    fn mode(&self) -> ApicMode;
    /// Reads a register.
    fn read(&self, register: Register) -> u32;
    /// Writes a register.
    fn write(&mut self, register: Register, value: u32);
    /// Writes the interrupt command register. In xAPIC mode: the high half first, because writing the low half sends.
    /// In x2APIC mode: one WRMSR, which is not serializing, so memory written for the receiver needs MFENCE;LFENCE before.
    fn write_icr(&mut self, value: u64);
}

/// Why the local APIC refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LocalApicError {
    /// Vectors 0 to 15 cannot be delivered by an APIC.
    IllegalVector(Vector),
    /// The mode has no way to write this destination.
    UnreachableDestination(Destination),
    /// The version register reads all ones: nothing answers there.
    Absent,
    /// The interrupt command register (its low half is given) still said "send pending" at the end of the wait.
    SendPending(u32),
}

impl fmt::Display for LocalApicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IllegalVector(vector) => write!(f, "vector {vector} cannot be delivered by an APIC"),
            Self::UnreachableDestination(destination) => write!(f, "{destination:?} cannot be named in this mode"),
            Self::Absent => write!(f, "no local APIC answers: the version register reads all ones"),
            Self::SendPending(value) => write!(f, "interrupt command still pending: ICR low half {value:#x}"),
        }
    }
}

impl core::error::Error for LocalApicError {}

/// How many reads of the interrupt command register wait for "idle" before giving up. An uncached read takes about
/// 100 ns or more, so this is at least 10 ms; a send takes microseconds.
const SEND_POLLS: u32 = 100_000;

/// The entries of the local vector table by the number of the version register's "max LVT entry" field from which
/// each exists. Touching one that does not exist is #GP in x2APIC mode.
const LVT_ENTRIES: [(Register, u32); 7] = [
    (Register::LVT_TIMER, 0),
    (Register::LVT_LINT0, 0),
    (Register::LVT_LINT1, 0),
    (Register::LVT_ERROR, 0),
    (Register::LVT_PERFORMANCE, 4),
    (Register::LVT_THERMAL, 5),
    (Register::LVT_CMCI, 6),
];

/// The local APIC of the processor that runs the code.
#[derive(Debug)]
pub struct LocalApic<A> {
    access: A,
}

impl<A: LocalApicAccess> LocalApic<A> {
    /// Around the registers, without touching them.
    pub const fn new(access: A) -> Self {
        Self { access }
    }

    /// The mode in which the registers are reached.
    pub fn mode(&self) -> ApicMode {
        self.access.mode()
    }

    /// The id of this processor's local APIC.
    pub fn read_id(&self) -> ApicId {
        let value = self.access.read(Register::ID);
        match self.access.mode() {
            ApicMode::XApic => ApicId(value >> XAPIC_ID_SHIFT),
            ApicMode::X2Apic => ApicId(value),
        }
    }

    /// Masks the local vector table, blocks priority classes 0 and 1 and only then enables the APIC, with spurious
    /// interrupts at `spurious_vector`. In that order, because firmware may have left a timer or LINT entry armed
    /// with a vector that means something else to the new owner.
    ///
    /// # Errors
    /// [`LocalApicError::IllegalVector`] below 16, [`LocalApicError::Absent`] when nothing answers.
    pub fn enable(&mut self, spurious_vector: Vector) -> Result<(), LocalApicError> {
        deliverable(spurious_vector)?;
        self.mask_local_vector_table()?;
        self.set_task_priority(1);
        self.access
            .write(Register::SPURIOUS_INTERRUPT_VECTOR, spurious::SOFTWARE_ENABLE | u32::from(spurious_vector.0));
        Ok(())
    }

    /// Masks every entry of the local vector table that exists. Vector and delivery mode stay as they are: a fixed
    /// entry written with a vector below 16 raises an illegal-vector error even when masked.
    ///
    /// # Errors
    /// [`LocalApicError::Absent`] when nothing answers.
    pub fn mask_local_vector_table(&mut self) -> Result<(), LocalApicError> {
        let version = self.access.read(Register::VERSION);
        if version == u32::MAX {
            return Err(LocalApicError::Absent);
        }
        let max_entry = (version >> VERSION_MAX_LVT_SHIFT) & 0xFF;
        for (register, since) in LVT_ENTRIES {
            if max_entry >= since {
                let value = self.access.read(register);
                self.access.write(register, (value & !lvt::DELIVERY_STATUS) | lvt::MASKED);
            }
        }
        Ok(())
    }

    /// Blocks interrupts of priority class `class` (0 to 15, more is taken as 15) and below; the class of a vector
    /// is its bits 7:4.
    ///
    /// The hypervisor keeps class 1. Vectors 16 to 31 then stay in the interrupt-request register and are never
    /// delivered, so a device that forges a message with an exception's vector does not reach the exception's
    /// handler, which would read an error code that is not there. It does not block NMI, INIT, SMI and ExtINT: those
    /// have no priority, and only interrupt remapping stops a device from forging them.
    pub fn set_task_priority(&mut self, class: u8) {
        self.access.write(Register::TASK_PRIORITY, u32::from(class.min(15)) << 4);
    }

    /// Ends the interrupt of the highest priority in service. Not for a spurious interrupt: it is not in service, and
    /// the EOI would end another one.
    pub fn end_of_interrupt(&mut self) {
        self.access.write(Register::END_OF_INTERRUPT, 0);
    }

    /// Lets the timer fire once with `vector` after `ticks` ticks of the divided input; 0 stops it.
    ///
    /// # Errors
    /// [`LocalApicError::IllegalVector`] below 16.
    pub fn start_timer_one_shot(
        &mut self,
        vector: Vector,
        divide: TimerDivide,
        ticks: u32,
    ) -> Result<(), LocalApicError> {
        deliverable(vector)?;
        // The count starts with the write of the initial count: all else must stand before.
        self.access.write(Register::TIMER_DIVIDE, divide as u32);
        self.access.write(Register::LVT_TIMER, lvt::TIMER_ONE_SHOT | u32::from(vector.0));
        self.access.write(Register::TIMER_INITIAL_COUNT, ticks);
        Ok(())
    }

    /// Lets the timer interrupt with `vector` whenever the deadline that IA32_TSC_DEADLINE is set to is reached; disarms it
    /// first. The processor must have the mode (CPUID.01H:ECX\[24\]). In xAPIC mode a fence must be between this and the
    /// first write of that register. SDM 3A "TSC-Deadline Mode".
    ///
    /// # Errors
    /// [`LocalApicError::IllegalVector`] below 16.
    pub fn set_timer_deadline_mode(&mut self, vector: Vector) -> Result<(), LocalApicError> {
        deliverable(vector)?;
        self.access.write(Register::LVT_TIMER, lvt::TIMER_TSC_DEADLINE | u32::from(vector.0));
        Ok(())
    }

    /// Counts down from `ticks` without raising an interrupt: to measure the input's frequency.
    pub fn start_timer_masked(&mut self, divide: TimerDivide, ticks: u32) {
        self.access.write(Register::TIMER_DIVIDE, divide as u32);
        self.mask_timer();
        self.access.write(Register::TIMER_INITIAL_COUNT, ticks);
    }

    /// Masks the timer's entry and leaves the count running. An interrupt that is already requested still comes.
    pub fn mask_timer(&mut self) {
        let value = self.access.read(Register::LVT_TIMER);
        self.access.write(Register::LVT_TIMER, (value & lvt::VECTOR) | lvt::TIMER_ONE_SHOT | lvt::MASKED);
    }

    /// The timer's current count, in ticks of the divided input; 0 when it is stopped or has fired.
    pub fn read_timer_count(&self) -> u32 {
        self.access.read(Register::TIMER_CURRENT_COUNT)
    }

    /// Whether `vector` is in service. False in the handler of a spurious interrupt.
    pub fn read_in_service(&self, vector: Vector) -> bool {
        self.access.read(Register::in_service(vector.0)) & bit(vector) != 0
    }

    /// Whether `vector` is requested and not yet delivered.
    pub fn read_interrupt_request(&self, vector: Vector) -> bool {
        self.access.read(Register::interrupt_request(vector.0)) & bit(vector) != 0
    }

    /// The errors since the last call. The register shows what the last write latched, so it is written first; only
    /// 0 may be written in x2APIC mode.
    pub fn take_error_status(&mut self) -> u32 {
        self.access.write(Register::ERROR_STATUS, 0);
        self.access.read(Register::ERROR_STATUS)
    }

    /// Sends an interrupt command, and in xAPIC mode waits, before and after, until none is pending: the register is
    /// overwritten otherwise.
    ///
    /// # Errors
    /// [`LocalApicError::IllegalVector`], [`LocalApicError::UnreachableDestination`], or
    /// [`LocalApicError::SendPending`] when the wait ran out; then it is unknown whether the command was sent.
    pub fn send(&mut self, command: InterruptCommand, to: Destination) -> Result<(), LocalApicError> {
        if let InterruptCommand::Fixed(vector) = command {
            deliverable(vector)?;
        }
        let value = command.encode(to, self.access.mode()).ok_or(LocalApicError::UnreachableDestination(to))?;
        self.wait_until_sent()?;
        self.access.write_icr(value);
        self.wait_until_sent()
    }

    fn wait_until_sent(&self) -> Result<(), LocalApicError> {
        // x2APIC has no delivery status.
        if self.access.mode() == ApicMode::X2Apic {
            return Ok(());
        }
        let mut value = 0;
        for _ in 0..SEND_POLLS {
            value = self.access.read(Register::INTERRUPT_COMMAND);
            if value & icr::DELIVERY_PENDING == 0 {
                return Ok(());
            }
            core::hint::spin_loop();
        }
        Err(LocalApicError::SendPending(value))
    }
}

fn deliverable(vector: Vector) -> Result<(), LocalApicError> {
    if vector.0 < 16 { Err(LocalApicError::IllegalVector(vector)) } else { Ok(()) }
}

fn bit(vector: Vector) -> u32 {
    1 << (vector.0 % 32)
}

#[cfg(test)]
mod tests;
