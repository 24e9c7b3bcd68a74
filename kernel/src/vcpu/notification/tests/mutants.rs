//! Protocols that are wrong in one place each: the exploration must find every one, or it proves nothing.

use addr::Vector;
use vtd::posted::{Control, Notification};

use super::super::protocol::{self, Notify, Processor, Steps, Vectors};
use super::explore;
use super::replay::Replay;
use super::world::{Machine, Protocol};

/// The machines on which `mutant` goes wrong, as (processors post, unit posts), and in what.
fn found(mutant: Protocol, wrong: &str) -> usize {
    let mut found = 0;
    for machine in Machine::ALL {
        if let Err(why) = explore(machine, &mutant) {
            assert!(why.contains(wrong), "expected {wrong:?}, found {why}");
            found += 1;
        }
    }
    found
}

fn directed(vcpu: &Replay<'_>, vector: Vector, here: Processor) -> Control {
    let target = Notification { vector, destination: here.id().0 };
    vcpu.update_control(&|control| Some(control.directed(target).suppressed(false))).unwrap()
}

fn mark_requests(vcpu: &Replay<'_>) {
    if (0..4).any(|index| vcpu.word(index) != 0) {
        let _ = vcpu.update_control(&|control| Some(control.outstanding(true)));
    }
}

#[test]
fn a_poster_that_looks_at_on_before_it_sets_its_bit_is_found() {
    let post = |vcpu: &Replay<'_>, vectors: &Vectors, vector, here: Processor| {
        let claim = vcpu.claim_notification();
        vcpu.set_request(vector);
        match claim {
            None => Notify::Nobody,
            Some(to) if to.destination != here.id().0 => {
                Notify::Processor { processor: addr::ApicId(to.destination), vector: to.vector }
            }
            Some(to) if to.vector == vectors.wakeup => Notify::Here,
            Some(_) => Notify::Nobody,
        }
    };
    assert_eq!(found(Protocol { post, ..Protocol::REAL }, "lost"), 2, "both where software posts");
}

#[test]
fn a_collector_that_takes_pir_before_it_clears_on_is_found() {
    let collect = |vcpu: &Replay<'_>| {
        vcpu.is_outstanding().then(|| {
            let taken = core::array::from_fn(|index| vcpu.take_word(index));
            vcpu.clear_outstanding();
            taken
        })
    };
    assert_eq!(found(Protocol { collect, ..Protocol::REAL }, "lost"), 4);
}

#[test]
fn entering_without_a_look_at_pir_is_found() {
    let enter = |vcpu: &Replay<'_>, vectors: &Vectors, here| {
        vcpu.set_halted(false);
        directed(vcpu, vectors.notification, here);
    };
    assert_eq!(found(Protocol { enter, ..Protocol::REAL }, "lost"), 4);
}

#[test]
fn entering_with_the_look_at_pir_before_suppression_ends_is_found() {
    let enter = |vcpu: &Replay<'_>, vectors: &Vectors, here| {
        vcpu.set_halted(false);
        mark_requests(vcpu);
        directed(vcpu, vectors.notification, here);
    };
    assert_eq!(found(Protocol { enter, ..Protocol::REAL }, "lost"), 4);
}

#[test]
fn entering_without_a_barrier_between_sn_and_pir_is_found() {
    let enter = |vcpu: &Replay<'_>, vectors: &Vectors, here: Processor| {
        vcpu.set_halted(false);
        let target = Notification { vector: vectors.notification, destination: here.id().0 };
        let _ = vcpu.update_control(&|control| Some(control.directed(target)));
        vcpu.unsuppress_without_barrier();
        mark_requests(vcpu);
    };
    assert_eq!(found(Protocol { enter, ..Protocol::REAL }, "lost"), 4);
}

#[test]
fn entering_elsewhere_without_a_new_destination_is_found() {
    let enter = |vcpu: &Replay<'_>, vectors: &Vectors, here: Processor| {
        vcpu.set_halted(false);
        let target = Notification { vector: vectors.notification, destination: here.id().0 };
        // As if a vCPU that is not halted were always where it was.
        let first = |control: Control| control.notification().vector != vectors.notification;
        let _ = vcpu.update_control(&|control| {
            let control = if first(control) { control.directed(target) } else { control };
            Some(control.suppressed(false))
        });
        mark_requests(vcpu);
    };
    assert_eq!(found(Protocol { enter, ..Protocol::REAL }, "processor"), 4);
}

#[test]
fn halting_without_a_look_at_on_is_found() {
    let halt = |vcpu: &Replay<'_>, vectors: &Vectors, here| {
        vcpu.set_halted(true);
        directed(vcpu, vectors.wakeup, here);
        true
    };
    assert_eq!(found(Protocol { halt, ..Protocol::REAL }, "a wake-up is lost"), 4);
}

#[test]
fn halting_with_the_look_at_on_before_the_change_of_vector_is_found() {
    let halt = |vcpu: &Replay<'_>, vectors: &Vectors, here| {
        vcpu.set_halted(true);
        let outstanding = vcpu.is_outstanding();
        directed(vcpu, vectors.wakeup, here);
        !(outstanding && vcpu.end_halt())
    };
    assert_eq!(found(Protocol { halt, ..Protocol::REAL }, "a wake-up is lost"), 4);
}

#[test]
fn halting_that_is_announced_after_the_change_of_vector_is_found() {
    let halt = |vcpu: &Replay<'_>, vectors: &Vectors, here| {
        let before = directed(vcpu, vectors.wakeup, here);
        vcpu.set_halted(true);
        !(before.is_outstanding() && vcpu.end_halt())
    };
    assert_eq!(found(Protocol { halt, ..Protocol::REAL }, "a wake-up is lost"), 4);
}

#[test]
fn halting_that_is_taken_back_without_asking_who_was_first_is_found() {
    let halt = |vcpu: &Replay<'_>, vectors: &Vectors, here| {
        vcpu.set_halted(true);
        let before = directed(vcpu, vectors.wakeup, here);
        if before.is_outstanding() {
            vcpu.set_halted(false);
        }
        !before.is_outstanding()
    };
    assert!(found(Protocol { halt, ..Protocol::REAL }, "a vCPU") > 0);
}

#[test]
fn waking_in_two_steps_is_found() {
    let wake = |vcpu: &Replay<'_>| {
        let halted = vcpu.is_outstanding() && vcpu.is_halted();
        if halted {
            vcpu.set_halted(false);
        }
        halted
    };
    assert!(found(Protocol { wake, ..Protocol::REAL }, "a vCPU") > 0);
}

#[test]
fn a_poster_that_thinks_a_vcpu_halted_here_needs_no_wake_up_is_found() {
    let post = |vcpu: &Replay<'_>, vectors: &Vectors, vector, here: Processor| match protocol::post(
        vcpu, vectors, vector, here,
    ) {
        Notify::Here => Notify::Nobody,
        notify => notify,
    };
    assert_eq!(found(Protocol { post, ..Protocol::REAL }, "a wake-up is lost"), 2, "both where software posts");
}

#[test]
fn a_poster_that_asks_for_the_destination_after_the_claim_is_found() {
    let post = |vcpu: &Replay<'_>, vectors: &Vectors, vector, here: Processor| {
        vcpu.set_request(vector);
        let claimed = vcpu.claim_notification().is_some();
        let to = vcpu.update_control(&|_| None).unwrap_err().notification();
        if !claimed || to.destination == here.id().0 && to.vector != vectors.wakeup {
            Notify::Nobody
        } else if to.destination == here.id().0 {
            Notify::Here
        } else {
            Notify::Processor { processor: addr::ApicId(to.destination), vector: to.vector }
        }
    };
    assert_eq!(found(Protocol { post, ..Protocol::REAL }, "wrong processor"), 2, "both where software posts");
}

#[test]
fn a_migration_that_does_not_look_whether_the_vcpu_runs_is_found() {
    let migrate = |vcpu: &Replay<'_>, vectors: &Vectors, to: Processor| {
        let before = directed(vcpu, vectors.wakeup, to);
        before.is_outstanding() && vcpu.end_halt()
    };
    assert!(found(Protocol { migrate, ..Protocol::REAL }, "lost") > 0);
}

#[test]
fn a_migration_without_a_look_at_on_is_found() {
    let migrate = |vcpu: &Replay<'_>, vectors: &Vectors, to| {
        let _ = protocol::migrate(vcpu, vectors, to);
        false
    };
    assert!(found(Protocol { migrate, ..Protocol::REAL }, "a wake-up is lost") > 0);
}

#[test]
fn a_migration_that_does_not_change_the_destination_is_found() {
    let migrate = |_: &Replay<'_>, _: &Vectors, _| false;
    assert!(found(Protocol { migrate, ..Protocol::REAL }, "") > 0);
}

#[test]
fn preemption_without_suppression_is_found() {
    assert_eq!(found(Protocol { preempt: |_| (), ..Protocol::REAL }, "processor"), 4);
}
