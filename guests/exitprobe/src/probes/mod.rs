//! The probes, by subject.

mod apic_mode;
mod apic_page;
pub mod control;
mod cpuid;
mod debug;
mod delivery;
mod hole;
mod instructions;
mod msr;
mod non_maskable;
mod paging;
mod pci;
mod ports;
mod priority;
mod rom;
mod space;
mod storm;
mod timer;
mod window;

use crate::list::{List, Verdict, ensure};
use guest_support::clock;

/// Runs all of them. They leave the machine as they found it: interrupts off, the local APIC idle.
pub fn all(list: &mut List) {
    cpuid::probe(list);
    // In this order: x2APIC mode is not left again but through the disabled state.
    apic_page::probe(list);
    apic_mode::probe(list);
    list.probe("tsc", time_stamp_counter);
    list.probe("tsc-write", time_stamp_counter_written);
    instructions::probe(list);
    msr::probe(list);
    ports::probe(list);
    control::probe(list);
    paging::probe(list);
    timer::probe(list);
    priority::probe(list);
    non_maskable::probe(list);
    window::probe(list);
    delivery::probe(list);
    debug::probe(list);
    rom::probe(list);
    hole::probe(list);
    pci::probe(list);
    storm::probe(list);
}

/// Looks at `condition` until it holds, with an eye on the clock and without exits. False if it does not within
/// `microseconds`.
fn wait_for(microseconds: u64, condition: impl Fn() -> bool) -> bool {
    let deadline = clock::now_us() + microseconds;
    while !condition() {
        if clock::now_us() >= deadline {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

/// Lets time pass, without exits.
fn pass(microseconds: u64) {
    wait_for(microseconds, || false);
}

fn time_stamp_counter() -> Verdict {
    let mut last = guest_support::cpu::time_stamp();
    for _ in 0..10_000 {
        let now = guest_support::cpu::time_stamp();
        ensure!(now >= last, "{now:#x} came after {last:#x}");
        last = now;
    }
    Ok(())
}

/// The counter goes on from what was written, and can be put back.
fn time_stamp_counter_written() -> Verdict {
    const TIME_STAMP_COUNTER: u32 = 0x10;
    const STEP: u64 = 1 << 40;
    // More ticks than any of this takes.
    const SLACK: u64 = 1 << 36;
    let begin = guest_support::cpu::time_stamp();
    // SAFETY: nothing waits for the clock here, and it is put back.
    let caught = unsafe { msr::write(TIME_STAMP_COUNTER, begin + STEP) };
    let (counted, read) = (guest_support::cpu::time_stamp(), msr::read(TIME_STAMP_COUNTER));
    // SAFETY: as it would be.
    let back = unsafe { msr::write(TIME_STAMP_COUNTER, guest_support::cpu::time_stamp().wrapping_sub(STEP)) };
    let end = guest_support::cpu::time_stamp();
    let expected = begin + STEP..begin + STEP + SLACK;
    ensure!(caught.is_none() && back.is_none(), "{caught:x?}, {back:x?}");
    ensure!(expected.contains(&counted), "{begin:#x} and a step on, it counts {counted:#x}");
    ensure!(read.is_ok_and(|read| expected.contains(&read) && read >= counted), "RDMSR reads {read:x?}");
    ensure!((begin..begin + SLACK).contains(&end), "{begin:#x} and back, it counts {end:#x}");
    Ok(())
}
