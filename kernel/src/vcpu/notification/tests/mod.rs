//! Every interleaving of the protocol, and of protocols that are wrong in one place.

extern crate std;

mod mutants;
mod replay;
mod world;

use addr::{ApicId, Vector};
use std::collections::HashSet;
use std::string::String;
use std::vec::Vec;
use std::{format, vec};
use vtd::DestinationMode;

use super::{Mailbox, Notify, Processor};
use world::{Machine, Protocol, Step, VECTORS, World, processor};

/// How often the guest exits, halts or is preempted: enough for every pair of them in any order, around each interrupt.
const WHIMS: u8 = 2;

/// Visits every state that can be reached. The number of states, or what is wrong in one and how it came to that.
fn explore(machine: Machine, protocol: &Protocol) -> Result<usize, String> {
    let start = World::new(WHIMS);
    let mut seen = HashSet::from([start.clone()]);
    // Depth first: each state on the way, with the steps out of it that are still to be tried.
    let steps = start.steps();
    let mut way: Vec<(World, Vec<Step>, Option<Step>)> = vec![(start, steps, None)];
    while let Some((world, untried, _)) = way.last_mut() {
        let Some(step) = untried.pop() else {
            way.pop();
            continue;
        };
        let mut next = world.clone();
        let done = next.step(step, machine, protocol);
        let steps = next.steps();
        if let Err(wrong) = done.and_then(|()| next.check(&steps)) {
            let taken: Vec<Step> = way.iter().filter_map(|(.., step)| *step).chain([step]).collect();
            return Err(format!("{wrong} ({machine:?}): {taken:?}"));
        }
        if !seen.contains(&next) {
            seen.insert(next.clone());
            way.push((next, steps, Some(step)));
        }
    }
    Ok(seen.len())
}

#[test]
fn no_interleaving_loses_an_interrupt_or_a_wake_up_or_notifies_the_wrong_processor() {
    for machine in Machine::ALL {
        let states = explore(machine, &Protocol::REAL).unwrap_or_else(|wrong| panic!("{wrong}"));
        std::println!("{machine:?}: {states} states");
        assert!(states > 10_000, "{machine:?}: {states} states are too few to have tried everything");
    }
}

fn running_on(number: usize) -> Mailbox {
    let mailbox = Mailbox::new();
    mailbox.enter(&VECTORS, processor(number));
    mailbox
}

#[test]
fn a_post_notifies_the_processor_that_runs_the_vcpu_and_nobody_if_it_is_the_poster() {
    let mailbox = running_on(1);
    let notified = Notify::Processor { processor: ApicId(1), vector: VECTORS.notification };
    assert_eq!(mailbox.post(&VECTORS, Vector(0x41), processor(0)), notified);
    assert_eq!(mailbox.post(&VECTORS, Vector(0x42), processor(0)), Notify::Nobody);
    assert_eq!(mailbox.collect(), Some([0, 6, 0, 0]));
    assert_eq!(mailbox.post(&VECTORS, Vector(0x41), processor(1)), Notify::Nobody);
    assert_eq!((mailbox.collect(), mailbox.collect()), (Some([0, 2, 0, 0]), None));
}

#[test]
fn xapic_destinations_are_told_apart_from_their_field() {
    let [here, there] = [5, 0x7f].map(|id| Processor::new(ApicId(id), DestinationMode::XApic).unwrap());
    let mailbox = Mailbox::new();
    mailbox.enter(&VECTORS, there);
    assert_eq!(mailbox.descriptor().notification().destination, 0x7f00);
    let notified = Notify::Processor { processor: ApicId(0x7f), vector: VECTORS.notification };
    assert_eq!(mailbox.post(&VECTORS, Vector(0x41), here), notified);
    assert_eq!(Processor::new(ApicId(0x100), DestinationMode::XApic), None);
}

#[test]
fn a_halted_vcpu_is_woken_once() {
    let mailbox = running_on(1);
    assert!(mailbox.halt(&VECTORS, processor(1)));
    assert!(!mailbox.wake_if_notified(), "nothing was posted");
    let notified = Notify::Processor { processor: ApicId(1), vector: VECTORS.wakeup };
    assert_eq!(mailbox.post(&VECTORS, Vector(0x41), processor(0)), notified);
    assert!(mailbox.wake_if_notified() && !mailbox.wake_if_notified() && !mailbox.wake());
    mailbox.enter(&VECTORS, processor(0));
    assert_eq!(mailbox.collect(), Some([0, 2, 0, 0]));
    assert!(mailbox.halt(&VECTORS, processor(0)));
    assert_eq!(mailbox.post(&VECTORS, Vector(0x41), processor(0)), Notify::Here);
    assert!(mailbox.wake());
}

#[test]
fn a_vcpu_does_not_halt_over_what_was_posted_since_it_collected() {
    let mailbox = running_on(0);
    let _ = mailbox.post(&VECTORS, Vector(0x41), processor(0));
    assert!(!mailbox.halt(&VECTORS, processor(0)));
    mailbox.enter(&VECTORS, processor(0));
    assert_eq!(mailbox.collect(), Some([0, 2, 0, 0]));
    assert!(mailbox.halt(&VECTORS, processor(0)));
}

#[test]
fn what_is_posted_to_a_preempted_vcpu_is_found_when_it_runs_again() {
    let mailbox = running_on(0);
    mailbox.preempt();
    assert_eq!(mailbox.post(&VECTORS, Vector(0xff), processor(1)), Notify::Nobody);
    mailbox.enter(&VECTORS, processor(1));
    assert_eq!(mailbox.collect(), Some([0, 0, 0, 1 << 63]));
    let notified = Notify::Processor { processor: ApicId(1), vector: VECTORS.notification };
    assert_eq!(mailbox.post(&VECTORS, Vector(0xff), processor(0)), notified);
}

#[test]
fn a_halted_vcpu_is_woken_where_it_migrated_to() {
    let mailbox = running_on(0);
    assert!(!mailbox.migrate(&VECTORS, processor(1)), "it runs");
    assert_eq!(mailbox.descriptor().notification().destination, 0);
    assert!(mailbox.halt(&VECTORS, processor(0)));
    assert!(!mailbox.migrate(&VECTORS, processor(1)));
    let notified = Notify::Processor { processor: ApicId(1), vector: VECTORS.wakeup };
    assert_eq!(mailbox.post(&VECTORS, Vector(0x41), processor(0)), notified);
    assert!(mailbox.migrate(&VECTORS, processor(0)), "the notification went to the processor before");
    assert!(!mailbox.wake_if_notified());
}
