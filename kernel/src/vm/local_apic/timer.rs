//! The local APIC's timer (SDM section 11.5.4): one-shot and periodic. It counts at the TSC's rate.

use super::registers::{LVT_TIMER_PERIODIC, TIMER_DIVIDE_BITS};

/// What counts down. Whether an interrupt is raised at the end is the Local Vector Table's matter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer {
    /// The initial-count register; also what a periodic timer starts from again.
    initial_count: u32,
    /// The divide configuration register.
    divide: u32,
    periodic: bool,
    /// How much was left at `since`; 0 when the timer stands.
    count: u32,
    /// A TSC value.
    since: u64,
}

impl Timer {
    /// The initial-count register.
    pub fn initial_count(&self) -> u32 {
        self.initial_count
    }

    /// The divide configuration register.
    pub fn divide(&self) -> u32 {
        self.divide
    }

    /// How many TSC ticks one count takes, as a logarithm to base 2: bits 3, 1 and 0 of the divide configuration are
    /// that number less one, and 0b111 means divide by 1.
    fn shift(&self) -> u32 {
        let encoded = (self.divide & 0b1000) >> 1 | self.divide & 0b11;
        (encoded + 1) & 0b111
    }

    /// Starts the timer at TSC `now`; 0 stops it.
    pub fn set_initial_count(&mut self, initial_count: u32, now: u64) {
        self.initial_count = initial_count;
        self.count = initial_count;
        self.since = now;
    }

    /// Sets the divide configuration. A running timer goes on from its current count at the new rate. An expiry that is
    /// due by `now` would be lost: call [`Self::expire`] first.
    pub fn set_divide(&mut self, divide: u32, now: u64) {
        self.count = self.current_count(now);
        self.since = now;
        self.divide = divide & TIMER_DIVIDE_BITS;
    }

    /// Takes the mode from the timer's Local Vector Table register. A running timer goes on; the mode decides what
    /// happens at its end. One that is past its end by now must have been brought up to date with [`Self::expire`].
    pub fn set_mode(&mut self, lvt_timer: u32) {
        self.periodic = lvt_timer & LVT_TIMER_PERIODIC != 0;
    }

    /// The TSC value at which the count reaches 0; `None` when the timer stands.
    pub fn deadline(&self) -> Option<u64> {
        (self.count != 0).then(|| self.since.saturating_add(u64::from(self.count) << self.shift()))
    }

    /// The current-count register at TSC `now`.
    pub fn current_count(&self, now: u64) -> u32 {
        let mut at_now = *self;
        at_now.expire(now);
        // A TSC that seems to run backwards (another processor's) counts as standing still.
        let counted = now.saturating_sub(at_now.since) >> at_now.shift();
        at_now.count.saturating_sub(u32::try_from(counted).unwrap_or(u32::MAX))
    }

    /// Brings the timer to TSC `now`; whether the count has reached 0 since the last call. However many periods have
    /// passed, they are one: a guest that did not run for a while gets one interrupt and not a storm of them.
    pub fn expire(&mut self, now: u64) -> bool {
        let Some(deadline) = self.deadline().filter(|deadline| *deadline <= now) else {
            return false;
        };
        let period = u64::from(self.initial_count) << self.shift();
        if self.periodic && period != 0 {
            // The phase is kept: the next deadline is a whole number of periods after this one.
            self.since = now - (now - deadline) % period;
            self.count = self.initial_count;
        } else {
            self.count = 0;
        }
        true
    }
}
