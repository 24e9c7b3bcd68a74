//! The local APIC's timer in TSC-deadline mode.

use super::msr;
use super::waiting::{pass, wait_for};
use crate::list::{List, Verdict, ensure};
use crate::trap::{self, GENERAL_PROTECTION, TIMER};
use guest_support::cpu::{read_msr, time_stamp, write_msr};
use guest_support::{apic, clock};
use x86_64::instructions::interrupts;

const IA32_TSC_DEADLINE: u32 = 0x6e0;
const LVT_TIMER: u32 = apic::X2APIC_MSR + 0x32;
const PERIODIC: u32 = 1 << 17;
/// The mode's bit in the timer's entry.
const DEADLINE: u32 = 1 << 18;
/// The longest that an interrupt may be late, in microseconds: machines are emulated, and busy.
const PATIENCE_US: u64 = 500_000;

pub fn probe(list: &mut List) {
    list.probe("deadline-other-modes", other_modes);
    list.probe("deadline-once", once);
    list.probe("deadline-past", past);
    list.probe("deadline-disarmed", disarmed);
    list.probe("deadline-masked", masked);
    list.probe("deadline-count", no_count);
    list.probe("deadline-halt", halt);
    list.probe("deadline-tsc-write", counter_written);
    list.probe("deadline-reserved-mode", reserved_mode);
    set_mode(0);
}

fn set_mode(mode: u32) {
    apic::write(apic::LVT_TIMER, mode | u32::from(TIMER.0));
}

/// Arms the timer for `microseconds` from now; 0 is now. The time-stamp counter's value then.
fn arm(microseconds: u64) -> u64 {
    let deadline = time_stamp() + clock::tsc_ticks(microseconds);
    write_msr(IA32_TSC_DEADLINE, deadline);
    deadline
}

/// In the other modes the register reads as 0 and takes nothing.
fn other_modes() -> Verdict {
    interrupts::disable();
    trap::forget_interrupts();
    for mode in [0, PERIODIC] {
        set_mode(mode);
        interrupts::enable();
        arm(100);
        let read = read_msr(IA32_TSC_DEADLINE);
        pass(1000);
        interrupts::disable();
        ensure!(read == 0 && trap::taken() == 0, "mode {mode:#x}: it reads {read:#x}, {} interrupts", trap::taken());
    }
    Ok(())
}

/// It comes once, not before its time, and the register is 0 then. Several, so that one follows another.
fn once() -> Verdict {
    trap::forget_interrupts();
    set_mode(DEADLINE);
    for round in 1..=20 {
        interrupts::disable();
        let deadline = arm(1000);
        let read = read_msr(IA32_TSC_DEADLINE);
        let over = time_stamp() >= deadline;
        interrupts::enable();
        let came = wait_for(PATIENCE_US, || trap::count(TIMER) == round);
        let now = time_stamp();
        let after = read_msr(IA32_TSC_DEADLINE);
        interrupts::disable();
        ensure!(came, "round {round}: {} interrupts; the register reads {after:#x}", trap::count(TIMER));
        ensure!(now >= deadline, "round {round}: it came at {now:#x}, before {deadline:#x}");
        let kept = read == deadline || read == 0 && over;
        ensure!(kept && after == 0, "{deadline:#x} reads {read:#x}, and {after:#x} when it is over");
    }
    interrupts::enable();
    pass(5000);
    interrupts::disable();
    ensure!(trap::taken() == 20, "{} interrupts and not 20", trap::taken());
    Ok(())
}

/// A time that is over is now.
fn past() -> Verdict {
    set_mode(DEADLINE);
    for deadline in [1, time_stamp() / 2, time_stamp()] {
        trap::forget_interrupts();
        interrupts::enable();
        write_msr(IA32_TSC_DEADLINE, deadline);
        let came = wait_for(PATIENCE_US, || trap::count(TIMER) != 0);
        let read = read_msr(IA32_TSC_DEADLINE);
        pass(500);
        interrupts::disable();
        ensure!(came && trap::taken() == 1 && read == 0, "{deadline:#x}: {} interrupts; {read:#x}", trap::taken());
    }
    Ok(())
}

/// By 0, by another mode and back, and by a later time.
fn disarmed() -> Verdict {
    set_mode(DEADLINE);
    let zero = || {
        write_msr(IA32_TSC_DEADLINE, 0);
        read_msr(IA32_TSC_DEADLINE)
    };
    let mode = || {
        set_mode(0);
        let other = read_msr(IA32_TSC_DEADLINE);
        set_mode(DEADLINE);
        other | read_msr(IA32_TSC_DEADLINE)
    };
    let later = || {
        arm(10_000_000);
        0
    };
    for (name, disarm) in [("0", &zero as &dyn Fn() -> u64), ("another mode", &mode), ("a later time", &later)] {
        trap::forget_interrupts();
        interrupts::disable();
        let deadline = arm(5000);
        let read = disarm();
        let over = time_stamp() >= deadline;
        interrupts::enable();
        pass(7000);
        write_msr(IA32_TSC_DEADLINE, 0);
        interrupts::disable();
        // A machine that stood still meanwhile says nothing.
        ensure!(over || read == 0 && trap::taken() == 0, "by {name}: {read:#x}, {} interrupts", trap::taken());
    }
    Ok(())
}

/// Masked, it passes in silence; unmasked before its time, it comes.
fn masked() -> Verdict {
    trap::forget_interrupts();
    set_mode(DEADLINE | apic::LVT_MASKED);
    interrupts::enable();
    arm(500);
    pass(2000);
    let after = read_msr(IA32_TSC_DEADLINE);
    set_mode(DEADLINE);
    pass(2000);
    let silent = trap::taken();
    set_mode(DEADLINE | apic::LVT_MASKED);
    let deadline = arm(20_000);
    set_mode(DEADLINE);
    let kept = read_msr(IA32_TSC_DEADLINE);
    let over = time_stamp() >= deadline;
    let came = wait_for(PATIENCE_US, || trap::count(TIMER) == 1);
    set_mode(DEADLINE | apic::LVT_MASKED);
    set_mode(DEADLINE);
    pass(1000);
    interrupts::disable();
    ensure!((after, silent) == (0, 0), "masked: {silent} interrupts; the register reads {after:#x}");
    ensure!(
        over || kept == deadline && came && trap::taken() == 1,
        "unmasked: {kept:#x}, {} interrupts",
        trap::taken()
    );
    Ok(())
}

/// The counts are of the other modes.
fn no_count() -> Verdict {
    trap::forget_interrupts();
    set_mode(DEADLINE);
    interrupts::enable();
    apic::write(apic::INITIAL_COUNT, clock::timer_ticks(300));
    let counts = (apic::read(apic::INITIAL_COUNT), apic::read(apic::CURRENT_COUNT));
    pass(2000);
    interrupts::disable();
    ensure!(counts == (0, 0) && trap::taken() == 0, "{counts:x?}, {} interrupts", trap::taken());
    Ok(())
}

/// STI; HLT, in which no interrupt is lost, with the time over before, at and after the HLT.
fn halt() -> Verdict {
    ensure!(super::timer::works(), "not tried, as the timer does not work");
    trap::forget_interrupts();
    set_mode(DEADLINE);
    for round in 0..200u32 {
        interrupts::disable();
        let deadline = arm(u64::from(round) * 2);
        interrupts::enable_and_hlt();
        interrupts::disable();
        let (now, count) = (time_stamp(), trap::count(TIMER));
        ensure!(count == round + 1 && now >= deadline, "HLT number {round} ended after {count} timers");
    }
    Ok(())
}

/// The time is of the counter that the guest reads: one that is put forward has reached it.
fn counter_written() -> Verdict {
    const STEP: u64 = 1 << 40;
    trap::forget_interrupts();
    set_mode(DEADLINE);
    interrupts::enable();
    let deadline = arm(20_000_000);
    // SAFETY: nothing waits for the clock here, and it is put back.
    let caught = unsafe { msr::write(msr::IA32_TIME_STAMP_COUNTER, time_stamp() + STEP) };
    let mut looks = 0;
    while trap::count(TIMER) == 0 && looks < 1_000_000 {
        looks += 1;
        core::hint::spin_loop();
    }
    let (forward, after) = (trap::taken(), read_msr(IA32_TSC_DEADLINE));
    // It works on with that counter, and is armed when that is put back: then it is far away.
    let later = arm(1000);
    let came = wait_for(PATIENCE_US, || trap::count(TIMER) == 2);
    let came_at = time_stamp();
    let far = arm(1000);
    // SAFETY: as it would be.
    let back = unsafe { msr::write(msr::IA32_TIME_STAMP_COUNTER, time_stamp().wrapping_sub(STEP)) };
    let kept = read_msr(IA32_TSC_DEADLINE);
    pass(3000);
    write_msr(IA32_TSC_DEADLINE, 0);
    interrupts::disable();
    let taken = trap::taken();
    ensure!(caught.is_none() && back.is_none(), "{caught:x?}, {back:x?}");
    ensure!((forward, after) == (1, 0), "put forward beyond {deadline:#x}: {forward} interrupts, {after:#x}");
    ensure!(came && came_at >= later, "with that counter: {came_at:#x} for {later:#x}");
    // It may have been over just before, or a machine stands still.
    ensure!(taken == 2 && kept == far || taken == 3, "put back: {taken} interrupts, {kept:#x}");
    Ok(())
}

fn reserved_mode() -> Verdict {
    set_mode(DEADLINE);
    // SAFETY: the APIC cannot change memory.
    let caught = unsafe { msr::write(LVT_TIMER, u64::from(DEADLINE | PERIODIC | u32::from(TIMER.0))) };
    let kept = apic::read(apic::LVT_TIMER);
    let refused = trap::is_fault(caught, GENERAL_PROTECTION) || apic::mode() != "x2APIC";
    ensure!(refused && kept == DEADLINE | u32::from(TIMER.0), "{caught:x?}, and {kept:#x}");
    Ok(())
}
