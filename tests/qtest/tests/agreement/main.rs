//! The driver and QEMU's unit agree: one trial for each case and each QEMU that `QTEST_QEMU` lists.
//!
//! A case that a QEMU cannot judge is ignored, with a line `SKIPPED: name: why` on standard output.

mod bridges;
mod bring_up;
mod case;
mod faults;
mod interrupts;
mod queue;
mod random;
mod scalable;
mod second_stage;
mod stale;

use case::Case;
use libtest_mimic::{Arguments, Trial};
use qtest::Program;

fn main() {
    let arguments = Arguments::from_args();
    let cases = || {
        let groups = [
            bring_up::cases(),
            second_stage::cases(),
            faults::cases(),
            stale::cases(),
            queue::cases(),
            interrupts::cases(),
            bridges::cases(),
            random::cases(),
            scalable::cases(),
        ];
        groups.into_iter().flatten()
    };
    let mut trials = Vec::new();
    for program in Program::from_environment() {
        match program {
            Ok(program) => trials.extend(cases().map(|case| trial(case, &program))),
            Err(why) => println!("SKIPPED: qtest: {why}"),
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn trial(case: Case, program: &Program) -> Trial {
    let name = format!("qemu {}: {}", program.version, case.name);
    let program = program.clone();
    match case.obstacle(&program) {
        Some(why) => {
            println!("SKIPPED: {name}: {why}");
            Trial::test(name, || Ok(())).with_ignored_flag(true)
        }
        None => Trial::test(name, move || case.run(&program)),
    }
}
