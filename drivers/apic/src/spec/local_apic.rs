//! The local APIC's registers. SDM 3A, "Local APIC Register Address Map" and "x2APIC Register Address Space".

/// IA32_APIC_BASE, the model-specific register that places and switches the local APIC. SDM 3A "Local APIC Status and
/// Location".
pub mod apic_base {
    /// The number of the model-specific register.
    pub const MSR: u32 = 0x1B;
    /// BSP, bit 8, read-only: the processor started the machine.
    pub const BOOTSTRAP_PROCESSOR: u64 = 1 << 8;
    /// EXTD, bit 10: x2APIC mode. Leaving it needs the global enable cleared first.
    pub const X2APIC_ENABLE: u64 = 1 << 10;
    /// EN, bit 11: global enable.
    pub const GLOBAL_ENABLE: u64 = 1 << 11;
    /// Base, bits 51:12: host-physical address of the xAPIC page.
    pub const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
    /// The address after reset, and the only one in use.
    pub const DEFAULT_ADDRESS: u64 = 0xFEE0_0000;
}

/// The number of the model-specific register that holds xAPIC offset 0 in x2APIC mode.
pub const X2APIC_MSR_BASE: u32 = 0x800;

/// A local APIC register, by its offset in the xAPIC page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct Register(u16);

impl Register {
    /// Local APIC id, read-only here: bits 31:24 in xAPIC mode, all 32 bits in x2APIC mode.
    pub const ID: Self = Self(0x020);
    /// Version: bits 7:0, and the number of the highest local vector table entry in 23:16. Read-only.
    pub const VERSION: Self = Self(0x030);
    /// Task priority: bits 7:0.
    pub const TASK_PRIORITY: Self = Self(0x080);
    /// Processor priority: bits 7:0, read-only.
    pub const PROCESSOR_PRIORITY: Self = Self(0x0A0);
    /// End of interrupt, write-only; a value other than 0 is #GP in x2APIC mode.
    pub const END_OF_INTERRUPT: Self = Self(0x0B0);
    /// Logical destination: read-only in x2APIC mode.
    pub const LOGICAL_DESTINATION: Self = Self(0x0D0);
    /// Destination format: xAPIC mode only; #GP in x2APIC mode.
    pub const DESTINATION_FORMAT: Self = Self(0x0E0);
    /// Spurious interrupt vector, with the software enable.
    pub const SPURIOUS_INTERRUPT_VECTOR: Self = Self(0x0F0);
    /// Error status: latched by a write of 0, then read.
    pub const ERROR_STATUS: Self = Self(0x280);
    /// Local vector table: corrected machine check interrupt.
    pub const LVT_CMCI: Self = Self(0x2F0);
    /// Interrupt command, bits 31:0 in xAPIC mode and all 64 bits in x2APIC mode.
    pub const INTERRUPT_COMMAND: Self = Self(0x300);
    /// Interrupt command, bits 63:32; xAPIC mode only.
    pub const INTERRUPT_COMMAND_HIGH: Self = Self(0x310);
    /// Local vector table: timer.
    pub const LVT_TIMER: Self = Self(0x320);
    /// Local vector table: thermal sensor.
    pub const LVT_THERMAL: Self = Self(0x330);
    /// Local vector table: performance monitoring counters.
    pub const LVT_PERFORMANCE: Self = Self(0x340);
    /// Local vector table: LINT0.
    pub const LVT_LINT0: Self = Self(0x350);
    /// Local vector table: LINT1.
    pub const LVT_LINT1: Self = Self(0x360);
    /// Local vector table: error.
    pub const LVT_ERROR: Self = Self(0x370);
    /// Timer: initial count, in ticks of the divided input.
    pub const TIMER_INITIAL_COUNT: Self = Self(0x380);
    /// Timer: current count, in ticks of the divided input, read-only.
    pub const TIMER_CURRENT_COUNT: Self = Self(0x390);
    /// Timer: divide configuration.
    pub const TIMER_DIVIDE: Self = Self(0x3E0);

    const IN_SERVICE: u16 = 0x100;
    const TRIGGER_MODE: u16 = 0x180;
    const INTERRUPT_REQUEST: u16 = 0x200;

    /// The in-service register with the bit of `vector` (at `vector % 32`). Read-only.
    pub const fn in_service(vector: u8) -> Self {
        Self(Self::IN_SERVICE + (vector as u16 / 32) * 0x10)
    }

    /// The trigger-mode register with the bit of `vector` (at `vector % 32`). Read-only.
    pub const fn trigger_mode(vector: u8) -> Self {
        Self(Self::TRIGGER_MODE + (vector as u16 / 32) * 0x10)
    }

    /// The interrupt-request register with the bit of `vector` (at `vector % 32`). Read-only.
    pub const fn interrupt_request(vector: u8) -> Self {
        Self(Self::INTERRUPT_REQUEST + (vector as u16 / 32) * 0x10)
    }

    /// The offset in the xAPIC page, in bytes: 0x20 to 0x3F0, a multiple of 16. Accessed as 32 bits.
    pub const fn xapic_offset(self) -> usize {
        self.0 as usize
    }

    /// The number of the model-specific register in x2APIC mode: 0x802 to 0x83F.
    pub const fn x2apic_msr(self) -> u32 {
        X2APIC_MSR_BASE + self.0 as u32 / 16
    }
}

/// IA32_TSC_DEADLINE: the time-stamp counter's value at which the timer interrupts in TSC-deadline mode; 0 for none, and once
/// it has. SDM 3A "TSC-Deadline Mode".
pub const IA32_TSC_DEADLINE: u32 = 0x6E0;

/// Local APIC id field in xAPIC mode: bits 31:24.
pub const XAPIC_ID_SHIFT: u32 = 24;

/// Version register: the number of the highest entry of the local vector table, bits 23:16.
pub const VERSION_MAX_LVT_SHIFT: u32 = 16;

/// Fields of the spurious interrupt vector register.
pub mod spurious {
    /// Bit 8: the local APIC is enabled by software.
    pub const SOFTWARE_ENABLE: u32 = 1 << 8;
    /// Bit 12: an EOI is not broadcast to the I/O APICs.
    pub const SUPPRESS_EOI_BROADCAST: u32 = 1 << 12;
}

/// Fields of a local vector table entry. SDM 3A "Local Vector Table".
pub mod lvt {
    /// Bits 7:0: vector.
    pub const VECTOR: u32 = 0xFF;
    /// Bits 10:8: delivery mode (not in the timer's and the error's entry).
    pub const DELIVERY_MODE: u32 = 7 << 8;
    /// Bit 12: delivery status, read-only.
    pub const DELIVERY_STATUS: u32 = 1 << 12;
    /// Bit 16: masked.
    pub const MASKED: u32 = 1 << 16;
    /// Bits 18:17 of the timer's entry: its mode.
    pub const TIMER_MODE: u32 = 3 << 17;
    /// Timer mode: one shot.
    pub const TIMER_ONE_SHOT: u32 = 0 << 17;
    /// Timer mode: periodic.
    pub const TIMER_PERIODIC: u32 = 1 << 17;
    /// Timer mode: TSC deadline.
    pub const TIMER_TSC_DEADLINE: u32 = 2 << 17;
}

/// The timer's divisors, as the divide configuration register encodes them (bits 3, 1 and 0). SDM 3A "APIC Timer".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum TimerDivide {
    /// Input divided by 2.
    By2 = 0b0000,
    /// Input divided by 4.
    By4 = 0b0001,
    /// Input divided by 8.
    By8 = 0b0010,
    /// Input divided by 16.
    By16 = 0b0011,
    /// Input divided by 32.
    By32 = 0b1000,
    /// Input divided by 64.
    By64 = 0b1001,
    /// Input divided by 128.
    By128 = 0b1010,
    /// Input as it is.
    By1 = 0b1011,
}

/// Fields of the interrupt command register. SDM 3A "Interrupt Command Register (ICR)".
pub mod icr {
    /// Bits 10:8: delivery mode fixed.
    pub const FIXED: u64 = 0b000 << 8;
    /// Bits 10:8: delivery mode NMI.
    pub const NMI: u64 = 0b100 << 8;
    /// Bits 10:8: delivery mode INIT.
    pub const INIT: u64 = 0b101 << 8;
    /// Bits 10:8: delivery mode start-up.
    pub const START_UP: u64 = 0b110 << 8;
    /// Bit 12: delivery status, read-only; xAPIC mode only.
    pub const DELIVERY_PENDING: u32 = 1 << 12;
    /// Bit 14: level assert; 1 for everything but the INIT level de-assert.
    pub const ASSERT: u64 = 1 << 14;
    /// Bits 19:18: to this processor only.
    pub const SELF: u64 = 0b01 << 18;
    /// Bits 19:18: to all processors but this one.
    pub const ALL_BUT_SELF: u64 = 0b11 << 18;
    /// Destination in xAPIC mode: bits 63:56.
    pub const XAPIC_DESTINATION_SHIFT: u32 = 56;
    /// Destination in x2APIC mode: bits 63:32.
    pub const X2APIC_DESTINATION_SHIFT: u32 = 32;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_where_the_manual_says() {
        assert_eq!(Register::ID.x2apic_msr(), 0x802);
        assert_eq!(Register::END_OF_INTERRUPT.x2apic_msr(), 0x80B);
        assert_eq!(Register::INTERRUPT_COMMAND.x2apic_msr(), 0x830);
        assert_eq!(Register::TIMER_DIVIDE.x2apic_msr(), 0x83E);
        assert_eq!(Register::in_service(0xFF).xapic_offset(), 0x170);
        assert_eq!(Register::interrupt_request(31).xapic_offset(), 0x200);
        assert_eq!(Register::interrupt_request(32).x2apic_msr(), 0x821);
    }
}
