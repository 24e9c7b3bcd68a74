//! The timer of this processor's local APIC: the hypervisor's own, or lent to a guest.

#![expect(unsafe_code, reason = "the deadline's register")]

use crate::cpu::interrupts;
use crate::cpu::local_apic::{self, Access, StartError};
use crate::time;
use addr::Vector;
use apic::LocalApic;
use apic::spec::local_apic::{IA32_TSC_DEADLINE, TimerDivide};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use x86_64::registers::model_specific::Msr;

const CPUID_TSC_DEADLINE: u32 = 1 << 24;
/// How long the timer's rate is measured, in microseconds.
const MEASUREMENT_US: u64 = 5_000;

static TIMER_VECTOR: AtomicU32 = AtomicU32::new(0);
/// The deadline that the timer runs for, or 0.
static STARTED_FOR: AtomicU64 = AtomicU64::new(0);
/// The timer is in TSC-deadline mode, and stays in it.
static HAS_DEADLINE: AtomicBool = AtomicBool::new(false);
/// Timer ticks in 2^20 ticks of the time-stamp counter. Not measured where there is TSC-deadline mode.
static TIMER_RATE: AtomicU64 = AtomicU64::new(0);

/// Gives the timer a vector, once the local APIC is there, and finds out how fast it is.
pub fn start() -> Result<(), StartError> {
    let Some(apic) = local_apic::APIC.get() else { return Ok(()) };
    let vector = interrupts::allocate(interrupts::Source::Timer).ok_or(StartError::NoVector)?;
    TIMER_VECTOR.store(vector.0.into(), Ordering::Relaxed);
    let mut apic = apic.lock();
    if core::arch::x86_64::__cpuid(1).ecx & CPUID_TSC_DEADLINE != 0 {
        apic.set_timer_deadline_mode(vector).map_err(StartError::Apic)?;
        // The write of the entry may be one to memory, and WRMSR would not wait for it.
        // SAFETY: a fence changes nothing.
        unsafe { core::arch::asm!("mfence", options(nostack, preserves_flags)) };
        HAS_DEADLINE.store(true, Ordering::Relaxed);
    } else {
        measure(&mut apic);
    }
    Ok(())
}

fn measure(apic: &mut LocalApic<Access>) {
    apic.start_timer_masked(TimerDivide::By1, u32::MAX);
    let start = time::ticks();
    time::wait_until(MEASUREMENT_US, || false);
    let elapsed = time::ticks().wrapping_sub(start).max(1);
    let counted = u64::from(u32::MAX - apic.read_timer_count());
    let rate = (u128::from(counted) << 20) / u128::from(elapsed);
    TIMER_RATE.store((rate as u64).max(1), Ordering::Relaxed);
}

/// Lets the timer interrupt once when the time-stamp counter has reached about `deadline`. A deadline further away
/// than the timer can count makes it interrupt earlier; the caller looks at the time anyway. Called at every exit with
/// a deadline that is usually the same: the timer that runs for it already is left alone, for each of its registers
/// costs as much as the rest of an exit, and under another hypervisor an exit of its own.
pub fn run_until(deadline: u64) {
    if interrupts::take_timer() {
        STARTED_FOR.store(0, Ordering::Relaxed);
    }
    if STARTED_FOR.swap(deadline, Ordering::Relaxed) == deadline {
        return;
    }
    if has_deadline() {
        return write_deadline(deadline);
    }
    let remaining = deadline.saturating_sub(time::ticks());
    let ticks = (u128::from(remaining) * u128::from(TIMER_RATE.load(Ordering::Relaxed))) >> 20;
    // Zero would stop the timer instead of letting it fire at once.
    let ticks = ticks.clamp(1, u32::MAX.into()) as u32;
    let vector = Vector(TIMER_VECTOR.load(Ordering::Relaxed) as u8);
    if let Some(apic) = local_apic::APIC.get() {
        // Fails for an illegal vector only, and this one was allocated.
        let _ = apic.lock().start_timer_one_shot(vector, TimerDivide::By1, ticks);
    }
}

/// Whether the timer is in TSC-deadline mode, in which it can be lent to a guest.
pub fn has_deadline() -> bool {
    HAS_DEADLINE.load(Ordering::Relaxed)
}

/// Lends the timer to a guest, which sets its deadline by writing IA32_TSC_DEADLINE itself; it begins with `deadline`, 0 for
/// none. Until [`take_back`] nobody may call [`run_until`].
pub fn lend(deadline: u64) {
    stop_deadline();
    write_deadline(deadline);
}

/// Whether the deadline of the guest that has the timer is reached, or none is set; asked after an interrupt, for which the
/// guest may have set another since, or which somebody forged. The guest is to be told then: the deadline is no more.
pub fn take_deadline_reached() -> bool {
    let deadline = read_deadline();
    if deadline > time::ticks() {
        return false;
    }
    if deadline != 0 {
        // Not every processor clears the register when the deadline is reached.
        write_deadline(0);
    }
    true
}

/// Takes the timer back. The deadline that the guest has set last and was not told of, 0 for none, which may be over; and
/// whether one before was reached of which it was not told.
pub fn take_back() -> (u64, bool) {
    let deadline = read_deadline();
    let interrupted = stop_deadline();
    // An interrupt of this deadline's says no more than that it is over, and one that has nothing to do with it nothing.
    (deadline, interrupted && deadline == 0)
}

/// Stops the timer. Whether it had interrupted, or was about to.
fn stop_deadline() -> bool {
    write_deadline(0);
    interrupts::take_pending();
    STARTED_FOR.store(0, Ordering::Relaxed);
    interrupts::take_timer()
}

fn read_deadline() -> u64 {
    // SAFETY: the processor has the register: `has_deadline`. Reading it has no effect.
    unsafe { Msr::new(IA32_TSC_DEADLINE).read() }
}

fn write_deadline(deadline: u64) {
    // SAFETY: as above; the timer's interrupt has a handler.
    unsafe { Msr::new(IA32_TSC_DEADLINE).write(deadline) }
}
