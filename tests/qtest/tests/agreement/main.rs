//! The driver and QEMU's unit agree: one trial for each case and each QEMU that `QTEST_QEMU` lists.
//!
//! A case that a QEMU cannot judge is ignored; what the QEMU lacks is said by a line `SKIPPED: ...` on standard output.

mod bridges;
mod bring_up;
mod case;
mod faults;
mod interrupts;
mod pages;
mod queue;
mod random;
mod scalable;
mod stale;

use case::Case;
use libtest_mimic::{Arguments, Trial};
use qtest::Program;
use std::collections::BTreeMap;

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for program in Program::from_environment() {
        match program {
            Ok(program) => trials.extend(trials_on(&program)),
            Err(why) => println!("SKIPPED: qtest: {why}"),
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    case::end_machine();
    qtest::qemu::wait_for_all_to_end();
    conclusion.exit();
}

fn cases() -> impl Iterator<Item = Case> {
    let groups = [
        bring_up::cases(),
        pages::cases(),
        faults::cases(),
        stale::cases(),
        queue::cases(),
        interrupts::cases(),
        bridges::cases(),
        random::cases(),
        scalable::cases(),
    ];
    groups.into_iter().flatten()
}

fn trials_on(program: &Program) -> Vec<Trial> {
    let mut obstacles: BTreeMap<String, u32> = BTreeMap::new();
    let mut trials = Vec::new();
    for case in cases() {
        let name = format!("qemu {}: {}", program.version, case.name);
        let program = program.clone();
        trials.push(match case.obstacle(&program) {
            Some(why) => {
                *obstacles.entry(why).or_default() += 1;
                Trial::test(name, || Ok(())).with_ignored_flag(true)
            }
            None => Trial::test(name, move || case.run(&program)),
        });
    }
    for (why, count) in obstacles {
        println!("SKIPPED: qemu {}: {why}: {count} cases of the driver on its remapping unit", program.version);
    }
    trials
}
