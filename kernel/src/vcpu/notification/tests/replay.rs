//! Runs the protocol's own functions one atomic operation at a time.
//!
//! A function that is in the middle is represented by the answers that its operations have had so far. To go one
//! operation further it is run from its beginning with those answers, does one new operation on the shared state, and is
//! abandoned at the next. So a state of the world is plain data: it can be copied, compared and put into a set.

extern crate std;

use addr::Vector;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::vec::Vec;
use vtd::posted::{Control, Notification};

use super::super::protocol::Steps;

/// What all share: the descriptor, and the flag beside it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Shared {
    pub requests: [u64; 4],
    pub control: Control,
    pub halted: bool,
    /// A store of SN = 0 that is still in the store buffer of the processor that made it (mutants only).
    pub buffered_unsuppress: bool,
}

/// What an operation said.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    Done,
    Flag(bool),
    Word(u64),
    Control(Result<Control, Control>),
    Claim(Option<Notification>),
}

/// The operations done so far of a function that is in the middle.
pub type Log = Vec<Answer>;

/// The shared state as one function sees it that is run step by step.
pub struct Replay<'a> {
    shared: RefCell<&'a mut Shared>,
    log: RefCell<&'a mut Log>,
    position: Cell<usize>,
    stepped: Cell<bool>,
}

/// Thrown where the function would do a second new operation.
struct Suspended;

/// Takes `function` one operation further; its result if it ended.
pub fn advance<T>(shared: &mut Shared, log: &mut Log, function: impl FnOnce(&Replay<'_>) -> T) -> Option<T> {
    let replay = Replay {
        shared: RefCell::new(shared),
        log: RefCell::new(log),
        position: Cell::new(0),
        stepped: Cell::new(false),
    };
    match catch_unwind(AssertUnwindSafe(|| function(&replay))) {
        Ok(result) => {
            replay.log.borrow_mut().clear();
            Some(result)
        }
        Err(thrown) if thrown.is::<Suspended>() => None,
        Err(thrown) => resume_unwind(thrown),
    }
}

impl Replay<'_> {
    fn step(&self, operation: impl FnOnce(&mut Shared) -> Answer) -> Answer {
        let position = self.position.replace(self.position.get() + 1);
        if let Some(answer) = self.log.borrow().get(position) {
            return *answer;
        }
        if self.stepped.replace(true) {
            resume_unwind(std::boxed::Box::new(Suspended));
        }
        let answer = operation(&mut self.shared.borrow_mut());
        self.log.borrow_mut().push(answer);
        answer
    }

    /// SN = 0 by a plain store, which others see later.
    pub fn unsuppress_without_barrier(&self) {
        self.step(|shared| {
            shared.buffered_unsuppress = true;
            Answer::Done
        });
    }

    /// Whether it was halted, by a plain load; for a mutant that does not change it in the same step.
    pub fn is_halted(&self) -> bool {
        matches!(self.step(|shared| Answer::Flag(shared.halted)), Answer::Flag(true))
    }
}

/// Words that no test vector is in: operations on them commute with everything, so they are no steps of their own.
fn is_unused(index: usize) -> bool {
    !matches!(index, 1 | 2)
}

impl Steps for Replay<'_> {
    fn set_request(&self, vector: Vector) {
        self.step(|shared| {
            shared.requests[usize::from(vector.0 / 64)] |= 1 << (vector.0 % 64);
            Answer::Done
        });
    }

    fn claim_notification(&self) -> Option<Notification> {
        let answer = self.step(|shared| {
            Answer::Claim(shared.control.claimed().map(|claimed| {
                shared.control = claimed;
                claimed.notification()
            }))
        });
        if let Answer::Claim(claim) = answer { claim } else { None }
    }

    fn is_outstanding(&self) -> bool {
        matches!(self.step(|shared| Answer::Flag(shared.control.is_outstanding())), Answer::Flag(true))
    }

    fn clear_outstanding(&self) {
        self.step(|shared| {
            shared.control = shared.control.outstanding(false);
            Answer::Done
        });
    }

    fn take_word(&self, index: usize) -> u64 {
        if is_unused(index) {
            return 0;
        }
        let answer = self.step(|shared| Answer::Word(core::mem::take(&mut shared.requests[index])));
        if let Answer::Word(word) = answer { word } else { 0 }
    }

    fn word(&self, index: usize) -> u64 {
        if is_unused(index) {
            return 0;
        }
        let answer = self.step(|shared| Answer::Word(shared.requests[index]));
        if let Answer::Word(word) = answer { word } else { 0 }
    }

    fn update_control(&self, update: &dyn Fn(Control) -> Option<Control>) -> Result<Control, Control> {
        let answer = self.step(|shared| {
            let before = shared.control;
            Answer::Control(match update(before) {
                Some(after) => {
                    shared.control = after;
                    Ok(before)
                }
                None => Err(before),
            })
        });
        if let Answer::Control(result) = answer { result } else { Err(Control::SUPPRESSED) }
    }

    fn set_halted(&self, halted: bool) {
        self.step(|shared| {
            shared.halted = halted;
            Answer::Done
        });
    }

    fn end_halt(&self) -> bool {
        matches!(self.step(|shared| Answer::Flag(core::mem::take(&mut shared.halted))), Answer::Flag(true))
    }
}
