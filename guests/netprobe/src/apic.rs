//! The local APIC: end of interrupt and the one-shot timer, in x2APIC form where there is one, else by its page.

use crate::cpu::{cpuid, read_msr, write_msr};
use crate::interrupts;
use crate::memory::DeviceRegisters;
use addr::{ApicId, GuestPhys};
use core::sync::atomic::{AtomicBool, Ordering};

const IA32_APIC_BASE: u32 = 0x1b;
/// IA32_APIC_BASE: x2APIC mode.
const EXTD: u64 = 1 << 10;
/// IA32_APIC_BASE: the APIC is globally enabled.
const ENABLE: u64 = 1 << 11;
/// CPUID.1:ECX: the processor has x2APIC mode.
const CPUID_X2APIC: u32 = 1 << 21;
/// The MSR of an x2APIC register is this plus its xAPIC offset divided by 16 (SDM volume 3, "x2APIC Register Address Space").
const X2APIC_MSR: u32 = 0x800;
const XAPIC_BASE: GuestPhys = GuestPhys::new(0xfee0_0000);

const ID: usize = 0x20;
const TASK_PRIORITY: usize = 0x80;
const END_OF_INTERRUPT: usize = 0xb0;
const SPURIOUS: usize = 0xf0;
const LVT_TIMER: usize = 0x320;
const LVT_LINT0: usize = 0x350;
const LVT_LINT1: usize = 0x360;
const INITIAL_COUNT: usize = 0x380;
const CURRENT_COUNT: usize = 0x390;
const DIVIDE: usize = 0x3e0;

const LVT_MASKED: u32 = 1 << 16;
/// Spurious-interrupt vector register: the APIC is enabled by software.
const SOFTWARE_ENABLE: u32 = 1 << 8;
/// Divide configuration 0011b: the timer counts its input divided by [`TIMER_DIVISOR`].
const DIVIDE_BY_16: u32 = 3;
/// The timer's input frequency divided by its counting frequency.
pub const TIMER_DIVISOR: u64 = 16;

static X2APIC: AtomicBool = AtomicBool::new(false);

/// Turns the APIC on, with its timer stopped and the pins of the old interrupt controller masked. Returns its id.
pub fn initialize() -> ApicId {
    let base = read_msr(IA32_APIC_BASE) | ENABLE;
    let x2apic = cpuid(1)[2] & CPUID_X2APIC != 0;
    write_msr(IA32_APIC_BASE, if x2apic { base | EXTD } else { base });
    X2APIC.store(x2apic, Ordering::Relaxed);

    write(LVT_LINT0, LVT_MASKED);
    write(LVT_LINT1, LVT_MASKED);
    write(LVT_TIMER, LVT_MASKED | u32::from(interrupts::TIMER.0));
    write(DIVIDE, DIVIDE_BY_16);
    write(TASK_PRIORITY, 0);
    write(SPURIOUS, SOFTWARE_ENABLE | u32::from(interrupts::SPURIOUS.0));
    ApicId(if x2apic { read(ID) } else { read(ID) >> 24 })
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
    write(LVT_TIMER, u32::from(interrupts::TIMER.0));
    // Writing 0 would stop the timer: what is due at once must still come.
    write(INITIAL_COUNT, ticks.max(1));
}

/// Counts down from the largest value without interrupting, for calibration.
pub fn start_silent_countdown() {
    write(LVT_TIMER, LVT_MASKED | u32::from(interrupts::TIMER.0));
    write(INITIAL_COUNT, u32::MAX);
}

/// How many ticks have passed since [`start_silent_countdown`].
pub fn ticks_counted_down() -> u32 {
    u32::MAX - read(CURRENT_COUNT)
}

fn page() -> DeviceRegisters {
    // SAFETY: this page is the local APIC on every PC, netprobe does not move it, and no memory lies under it.
    let registers = unsafe { DeviceRegisters::new(XAPIC_BASE, 0x1000) };
    registers.expect("the page is below 4 GiB")
}

fn read(register: usize) -> u32 {
    if X2APIC.load(Ordering::Relaxed) {
        read_msr(X2APIC_MSR + (register >> 4) as u32) as u32
    } else {
        page().read(register)
    }
}

fn write(register: usize, value: u32) {
    if X2APIC.load(Ordering::Relaxed) {
        write_msr(X2APIC_MSR + (register >> 4) as u32, u64::from(value));
    } else {
        page().write(register, value);
    }
}
