//! Layout of the local APIC's registers (SDM volume 3, chapter 11 of revision 080, the APIC).
//!
//! A register is named by its offset in the xAPIC page; its x2APIC MSR is `0x800 + offset / 16`. No logic.

/// IA32_APIC_BASE (section 11.4.4).
pub const IA32_APIC_BASE: u32 = 0x1b;
/// Bit 8 of IA32_APIC_BASE: this is the bootstrap processor.
pub const APIC_BASE_BSP: u64 = 1 << 8;
/// Bit 10 of IA32_APIC_BASE: x2APIC mode; legal only together with [`APIC_BASE_EN`].
pub const APIC_BASE_EXTD: u64 = 1 << 10;
/// Bit 11 of IA32_APIC_BASE: the local APIC is there.
pub const APIC_BASE_EN: u64 = 1 << 11;
/// Where the xAPIC page is after reset.
pub const APIC_BASE_RESET: u64 = 0xfee0_0000;

/// IA32_TSC_DEADLINE (section 11.5.4.1): the time-stamp counter's value at which the timer interrupts in TSC-deadline mode;
/// 0 when it will not. In the other modes it reads as 0, and a write is ignored.
pub const IA32_TSC_DEADLINE: u32 = 0x6e0;

/// The MSR of the x2APIC register at offset 0; 256 MSRs are reserved for the x2APIC.
pub const X2APIC_FIRST: u32 = 0x800;
/// The last MSR that is reserved for the x2APIC.
pub const X2APIC_LAST: u32 = 0x8ff;

/// Local APIC ID: in bits 31:24 in xAPIC mode, all 32 bits in x2APIC mode. Read only here.
pub const ID: u16 = 0x20;
/// Local APIC version. Read only.
pub const VERSION: u16 = 0x30;
/// Task Priority Register: 8 bits.
pub const TPR: u16 = 0x80;
/// Arbitration Priority Register. Read only, and 0 on processors without a bus to arbitrate for. xAPIC only.
pub const APR: u16 = 0x90;
/// Processor Priority Register: 8 bits. Read only.
pub const PPR: u16 = 0xa0;
/// End Of Interrupt. Write only; 0 is the only value in x2APIC mode.
pub const EOI: u16 = 0xb0;
/// Remote Read Register. Read only, and 0. xAPIC only.
pub const RRD: u16 = 0xc0;
/// Logical Destination Register: bits 31:24 in xAPIC mode; read only, and made from the id, in x2APIC mode.
pub const LDR: u16 = 0xd0;
/// Destination Format Register: bits 31:28, the rest reads as ones. xAPIC only.
pub const DFR: u16 = 0xe0;
/// Spurious-Interrupt Vector Register.
pub const SVR: u16 = 0xf0;
/// In-Service Register: 8 registers of 32 bits, 0x10 apart. Read only.
pub const ISR: u16 = 0x100;
/// Trigger Mode Register: 8 registers of 32 bits, 0x10 apart. Read only.
pub const TMR: u16 = 0x180;
/// Interrupt Request Register: 8 registers of 32 bits, 0x10 apart. Read only.
pub const IRR: u16 = 0x200;
/// Error Status Register. A write of any value (only 0 in x2APIC mode) makes the errors since the last one readable.
pub const ESR: u16 = 0x280;
/// Interrupt Command Register, bits 31:0 (in x2APIC mode: all 64 bits, as one MSR).
pub const ICR_LOW: u16 = 0x300;
/// Interrupt Command Register, bits 63:32. xAPIC only.
pub const ICR_HIGH: u16 = 0x310;
/// The first Local Vector Table register: the timer's.
pub const LVT_TIMER: u16 = 0x320;
/// Local Vector Table: the thermal sensor's.
pub const LVT_THERMAL: u16 = 0x330;
/// Local Vector Table: the performance counters'.
pub const LVT_PERFORMANCE: u16 = 0x340;
/// Local Vector Table: the LINT0 pin's.
pub const LVT_LINT0: u16 = 0x350;
/// Local Vector Table: the LINT1 pin's.
pub const LVT_LINT1: u16 = 0x360;
/// The last Local Vector Table register: the APIC's own errors'.
pub const LVT_ERROR: u16 = 0x370;
/// Timer: initial count. A write starts the timer, 0 stops it.
pub const TIMER_INITIAL_COUNT: u16 = 0x380;
/// Timer: current count. Read only.
pub const TIMER_CURRENT_COUNT: u16 = 0x390;
/// Timer: divide configuration, bits 3, 1 and 0.
pub const TIMER_DIVIDE: u16 = 0x3e0;
/// SELF IPI: a vector in bits 7:0. Write only, x2APIC only.
pub const SELF_IPI: u16 = 0x3f0;

/// What [`VERSION`] reads: version 0x14, six Local Vector Table registers (their number less one in bits 23:16), no
/// suppression of EOI broadcasts.
pub const VERSION_VALUE: u32 = 5 << 16 | 0x14;

/// Bits of [`SVR`]: vector, APIC software enable, focus processor checking.
pub const SVR_BITS: u32 = 0xff | SVR_ENABLE | 1 << 9;
/// Bit 8 of [`SVR`]: APIC software enable.
pub const SVR_ENABLE: u32 = 1 << 8;
/// [`SVR`] after reset.
pub const SVR_RESET: u32 = 0xff;

/// Bits of [`DFR`] that can be written: the model, 15 flat, 0 cluster.
pub const DFR_MODEL: u32 = 0xf << 28;

/// Bit 5 of [`ESR`]: an IPI was sent with a vector below 16.
pub const ESR_SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
/// Bit 6 of [`ESR`]: an interrupt came in with a vector below 16, from outside or from a Local Vector Table register.
pub const ESR_RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
/// Bit 7 of [`ESR`]: a register that does not exist was accessed in the xAPIC page.
pub const ESR_ILLEGAL_REGISTER_ADDRESS: u32 = 1 << 7;

/// Bits 7:0 of a Local Vector Table register: the vector.
pub const LVT_VECTOR: u32 = 0xff;
/// Bit 16 of a Local Vector Table register: the interrupt is masked.
pub const LVT_MASKED: u32 = 1 << 16;
/// Bits 18:17 of the timer's register: the mode. Both clear is one-shot, and both set is reserved.
pub const LVT_TIMER_MODE: u32 = LVT_TIMER_PERIODIC | LVT_TIMER_TSC_DEADLINE;
/// Bit 17 of the timer's register, alone: periodic.
pub const LVT_TIMER_PERIODIC: u32 = 1 << 17;
/// Bit 18 of the timer's register, alone: TSC-deadline.
pub const LVT_TIMER_TSC_DEADLINE: u32 = 1 << 18;
/// Bits 10:8 of a Local Vector Table register: the delivery mode.
pub const LVT_DELIVERY_MODE: u32 = 7 << 8;
/// Bits 13 (polarity) and 15 (trigger mode) of the pins' registers.
pub const LVT_PIN: u32 = 1 << 13 | 1 << 15;
/// Read-only bits of a Local Vector Table register: delivery status, and the pins' Remote IRR. A write of them is
/// ignored in both modes.
pub const LVT_READ_ONLY: u32 = 1 << 12 | 1 << 14;

/// Bits 3, 1 and 0 of [`TIMER_DIVIDE`].
pub const TIMER_DIVIDE_BITS: u32 = 0b1011;

/// Bits 31:0 of the ICR that can be written: vector, delivery mode, destination mode, level, trigger mode, shorthand.
pub const ICR_BITS: u32 = 0xff | 7 << 8 | 1 << 11 | 1 << 14 | 1 << 15 | 3 << 18;
/// Bit 12 of the ICR: delivery status. Read only, and ignored when it is written.
pub const ICR_DELIVERY_STATUS: u32 = 1 << 12;
