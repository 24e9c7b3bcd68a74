//! The probes, by subject.

mod apic_mode;
mod apic_page;
mod control;
mod cpuid;
mod debug;
mod delivery;
mod instructions;
mod msr;
mod paging;
mod pci;
mod ports;
mod priority;
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
    instructions::probe(list);
    msr::probe(list);
    ports::probe(list);
    control::probe(list);
    paging::probe(list);
    timer::probe(list);
    priority::probe(list);
    window::probe(list);
    delivery::probe(list);
    debug::probe(list);
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
