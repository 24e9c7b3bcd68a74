//! The probes, by subject.

mod apic_mode;
mod apic_page;
pub mod control;
mod cpuid;
mod deadline;
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
mod speculation;
mod storm;
mod time_stamp;
mod timer;
mod waiting;
mod window;
mod xsave;

use crate::list::List;

/// Runs all of them. They leave the machine as they found it: interrupts off, the local APIC idle.
pub fn all(list: &mut List) {
    cpuid::probe(list);
    // In this order: x2APIC mode is not left again but through the disabled state.
    apic_page::probe(list);
    apic_mode::probe(list);
    instructions::probe(list);
    msr::probe(list);
    ports::probe(list);
    control::probe(list);
    paging::probe(list);
    timer::probe(list);
    // Before the counter is written: a guest that reads another than the processor's has not the processor's timer.
    deadline::probe(list);
    time_stamp::probe(list);
    priority::probe(list);
    non_maskable::probe(list);
    window::probe(list);
    delivery::probe(list);
    debug::probe(list);
    rom::probe(list);
    hole::probe(list);
    pci::probe(list);
    xsave::probe(list);
    speculation::probe(list);
    storm::probe(list);
}
