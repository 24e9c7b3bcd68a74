//! The local APIC's timer, and sleeping until it comes.

use super::waiting::{pass, wait_for};
use crate::list::{List, Verdict, ensure};
use crate::trap::{self, TIMER};
use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};
use guest_support::{apic, clock};
use x86_64::instructions::interrupts;

const PERIODIC: u32 = 1 << 17;
/// The longest that an interrupt may be late, in microseconds: machines are emulated, and busy.
const PATIENCE_US: u64 = 500_000;

/// Sleeping is tried only where the timer is known to end it.
static WORKS: AtomicBool = AtomicBool::new(false);

pub fn probe(list: &mut List) {
    list.probe("timer-one-shot", || one_shot().inspect(|()| WORKS.store(true, Ordering::Relaxed)));
    list.probe("timer-halt", halt);
    list.probe("timer-periodic", periodic);
    list.probe("timer-masked", masked);
    list.probe("timer-count", count_down);
    stop();
}

/// Whether the timer interrupts, so that it can end a HLT.
pub fn works() -> bool {
    WORKS.load(Ordering::Relaxed)
}

/// Starts the timer, to interrupt once in `microseconds`.
pub fn start(microseconds: u64) {
    apic::start_timer(clock::timer_ticks(microseconds));
}

/// Stops the timer.
pub fn stop() {
    apic::write(apic::INITIAL_COUNT, 0);
}

fn one_shot() -> Verdict {
    interrupts::disable();
    trap::forget_interrupts();
    let begin = clock::now_us();
    start(2000);
    interrupts::enable();
    let came = wait_for(PATIENCE_US, || trap::count(TIMER) != 0);
    let passed = clock::now_us() - begin;
    pass(6000);
    interrupts::disable();
    ensure!(came, "it did not come; the count is {:#x}", apic::read(apic::CURRENT_COUNT));
    ensure!(passed >= 1990, "it came after {passed} us and not 2000");
    ensure!(trap::taken() == 1, "{} interrupts came and not one", trap::taken());
    ensure!(apic::read(apic::CURRENT_COUNT) == 0, "it counts on");
    Ok(())
}

/// STI; HLT, in which no interrupt is lost, with the timer due before, at and after the HLT.
fn halt() -> Verdict {
    ensure!(works(), "not tried, as the timer does not work");
    trap::forget_interrupts();
    let rounds = 200;
    for round in 0..rounds {
        interrupts::disable();
        let before = trap::count(TIMER);
        start(round * 2);
        interrupts::enable_and_hlt();
        interrupts::disable();
        ensure!(
            trap::count(TIMER) == before + 1,
            "HLT number {round} ended after {} timers",
            trap::count(TIMER) - before
        );
    }
    // With the interrupt pending before: it comes after the HLT, which it ends.
    trap::forget_interrupts();
    start(100);
    pass(1000);
    let after: u64;
    // SAFETY: the interrupt is pending, so that HLT ends.
    unsafe { asm!("lea {0}, [rip + 22f]", "sti", "hlt", "22:", "cli", out(reg) after) };
    ensure!(trap::count(TIMER) == 1, "{} timers, one of them pending", trap::count(TIMER));
    ensure!(
        trap::interrupted_at(0) == after,
        "it came at {:#x}, and the HLT ends at {after:#x}",
        trap::interrupted_at(0)
    );
    Ok(())
}

fn periodic() -> Verdict {
    trap::forget_interrupts();
    let period = 3000;
    apic::write(apic::LVT_TIMER, PERIODIC | u32::from(TIMER.0));
    let begin = clock::now_us();
    apic::write(apic::INITIAL_COUNT, clock::timer_ticks(period));
    interrupts::enable();
    let came = wait_for(PATIENCE_US, || trap::count(TIMER) >= 6);
    let passed = clock::now_us() - begin;
    stop();
    let count = trap::count(TIMER);
    pass(3 * period);
    interrupts::disable();
    ensure!(came, "{count} interrupts came and not 6");
    ensure!(passed + 50 >= 6 * period, "6 periods of {period} us were over in {passed} us");
    ensure!(trap::count(TIMER) <= count + 1, "{} more came after it was stopped", trap::count(TIMER) - count);
    Ok(())
}

fn masked() -> Verdict {
    trap::forget_interrupts();
    apic::start_silent_countdown();
    apic::write(apic::INITIAL_COUNT, clock::timer_ticks(500));
    interrupts::enable();
    pass(3000);
    interrupts::disable();
    ensure!(trap::taken() == 0, "{} interrupts came", trap::taken());
    Ok(())
}

fn count_down() -> Verdict {
    apic::start_silent_countdown();
    pass(1000);
    let counted = u64::from(apic::ticks_counted_down());
    let wanted = u64::from(clock::timer_ticks(1000));
    ensure!(counted + 1 >= wanted, "it counted {counted} in 1000 us, and {wanted} is right");
    ensure!(
        apic::read(apic::INITIAL_COUNT) == u32::MAX,
        "the initial count reads {:#x}",
        apic::read(apic::INITIAL_COUNT)
    );
    stop();
    ensure!(apic::read(apic::CURRENT_COUNT) == 0, "stopped, it counts {:#x}", apic::read(apic::CURRENT_COUNT));
    Ok(())
}
