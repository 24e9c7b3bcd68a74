//! When a guest has the processor's own timer in place of the virtual one.
//!
//! In TSC-deadline mode a timer is one register that names a moment, and the processor has the same: a guest that writes that
//! register itself arms its timer without an exit, and the processor's interrupt leaves the guest when its time has come. That
//! is right as long as the timer's interrupt is not masked and the guest reads the counter as it is; in all else the virtual
//! timer does what is needed, so the guest has it again as soon as one of that changes.

/// Who has which timer. What changes here is done at the processor before the guest runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loan {
    /// The processor's timer can be had.
    pub offered: bool,
    /// The guest has it.
    pub borrowed: bool,
    /// The guest reads the register, and not every processor clears it when its time has come: it is to be returned for that.
    pub recalled: bool,
    /// It is to be borrowed, or returned.
    pub moves: bool,
}

impl Loan {
    /// After a change: whether the processor's timer would do the `same` as the virtual one.
    pub fn update(&mut self, same: bool) {
        self.moves = self.borrowed != (self.offered && same && !self.recalled);
    }
}
