//! The local APIC: end of interrupt and the one-shot timer, in x2APIC form where there is one, else by its page.

use crate::cpu::{cpuid, read_msr, write_msr};
use crate::memory::DeviceRegisters;
use addr::{ApicId, GuestPhys, Vector};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// The MSR that says how the local APIC is reached.
pub const IA32_APIC_BASE: u32 = 0x1b;
/// IA32_APIC_BASE: x2APIC mode.
pub const EXTD: u64 = 1 << 10;
/// IA32_APIC_BASE: the APIC is globally enabled.
pub const ENABLE: u64 = 1 << 11;
/// CPUID.1:ECX: the processor has x2APIC mode.
const CPUID_X2APIC: u32 = 1 << 21;
/// The MSR of an x2APIC register is this plus its xAPIC offset divided by 16 (SDM volume 3, "x2APIC Register Address Space").
pub const X2APIC_MSR: u32 = 0x800;
/// Where the page of xAPIC mode is.
pub const XAPIC_BASE: GuestPhys = GuestPhys::new(0xfee0_0000);

/// Local APIC id.
pub const ID: usize = 0x20;
/// Task priority.
pub const TASK_PRIORITY: usize = 0x80;
/// End of interrupt; write only.
pub const END_OF_INTERRUPT: usize = 0xb0;
/// Spurious-interrupt vector, and the software enable bit.
pub const SPURIOUS: usize = 0xf0;
/// Local vector table: the timer.
pub const LVT_TIMER: usize = 0x320;
/// Local vector table: pin LINT0.
pub const LVT_LINT0: usize = 0x350;
/// Local vector table: pin LINT1.
pub const LVT_LINT1: usize = 0x360;
/// The timer's initial count.
pub const INITIAL_COUNT: usize = 0x380;
/// The timer's current count.
pub const CURRENT_COUNT: usize = 0x390;
/// The timer's divide configuration.
pub const DIVIDE: usize = 0x3e0;

/// Local vector table: masked.
pub const LVT_MASKED: u32 = 1 << 16;
/// Spurious-interrupt vector register: the APIC is enabled by software.
pub const SOFTWARE_ENABLE: u32 = 1 << 8;
/// Divide configuration 0011b: the timer counts its input divided by [`TIMER_DIVISOR`].
const DIVIDE_BY_16: u32 = 3;
/// The timer's input frequency divided by its counting frequency.
pub const TIMER_DIVISOR: u64 = 16;

static X2APIC: AtomicBool = AtomicBool::new(false);
static TIMER_VECTOR: AtomicU8 = AtomicU8::new(0);

/// Turns the APIC on, in x2APIC mode if there is one, with its timer stopped and the pins of the old interrupt
/// controller masked. Returns its id. Both vectors must be 16 or above.
pub fn initialize(timer: Vector, spurious: Vector) -> ApicId {
    initialize_in(cpuid(1)[2] & CPUID_X2APIC != 0, timer, spurious)
}

/// As [`initialize`], in x2APIC mode or not; the mode must be there, and x2APIC mode is not left in this way.
pub fn initialize_in(x2apic: bool, timer: Vector, spurious: Vector) -> ApicId {
    let base = read_msr(IA32_APIC_BASE) | ENABLE;
    write_msr(IA32_APIC_BASE, if x2apic { base | EXTD } else { base });
    X2APIC.store(x2apic, Ordering::Relaxed);
    TIMER_VECTOR.store(timer.0, Ordering::Relaxed);

    write(LVT_LINT0, LVT_MASKED);
    write(LVT_LINT1, LVT_MASKED);
    write(LVT_TIMER, LVT_MASKED | timer_vector());
    write(DIVIDE, DIVIDE_BY_16);
    write(TASK_PRIORITY, 0);
    write(SPURIOUS, SOFTWARE_ENABLE | u32::from(spurious.0));
    ApicId(if x2apic { read(ID) } else { read(ID) >> 24 })
}

fn timer_vector() -> u32 {
    TIMER_VECTOR.load(Ordering::Relaxed).into()
}

/// The form in which the APIC is used.
pub fn mode() -> &'static str {
    if X2APIC.load(Ordering::Relaxed) { "x2APIC" } else { "xAPIC" }
}

/// Tells the APIC that the handler of the interrupt in service is done.
pub fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}

/// Lets the timer interrupt once, `ticks` of its divided input from now; replaces what was set before.
pub fn start_timer(ticks: u32) {
    write(LVT_TIMER, timer_vector());
    // Writing 0 would stop the timer: what is due at once must still come.
    write(INITIAL_COUNT, ticks.max(1));
}

/// Counts down from the largest value without interrupting, for calibration.
pub fn start_silent_countdown() {
    write(LVT_TIMER, LVT_MASKED | timer_vector());
    write(INITIAL_COUNT, u32::MAX);
}

/// How many ticks have passed since [`start_silent_countdown`].
pub fn ticks_counted_down() -> u32 {
    u32::MAX - read(CURRENT_COUNT)
}

/// The page of xAPIC mode. In x2APIC mode nothing answers there.
pub fn page() -> DeviceRegisters {
    // SAFETY: this page is the local APIC on every PC, no guest moves it, and no memory lies under it.
    let registers = unsafe { DeviceRegisters::new(XAPIC_BASE, 0x1000) };
    registers.expect("the page is below 4 GiB")
}

/// Reads the register at this offset of the xAPIC page, a multiple of 16, in the form in use. It must exist.
pub fn read(register: usize) -> u32 {
    if X2APIC.load(Ordering::Relaxed) {
        read_msr(X2APIC_MSR + (register >> 4) as u32) as u32
    } else {
        page().read(register)
    }
}

/// Writes the register at this offset of the xAPIC page, a multiple of 16, in the form in use. It must exist.
pub fn write(register: usize, value: u32) {
    if X2APIC.load(Ordering::Relaxed) {
        write_msr(X2APIC_MSR + (register >> 4) as u32, u64::from(value));
    } else {
        page().write(register, value);
    }
}
