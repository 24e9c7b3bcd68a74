//! The local APIC's timer (SDM section 11.5.4): one-shot and periodic. It counts at the TSC's rate.
//!
//! The registers that the guest sets are in the register store; here is only what runs.

use super::registers::{LVT_TIMER, LVT_TIMER_PERIODIC, TIMER_DIVIDE, TIMER_INITIAL_COUNT};
use super::store::Store;

/// What the registers ask of the timer.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The initial-count register: what a periodic timer starts from again.
    initial_count: u32,
    /// The divide configuration register.
    divide: u32,
    periodic: bool,
}

impl Settings {
    /// As the registers are now.
    pub fn of(store: &Store) -> Self {
        Self {
            initial_count: store.read(TIMER_INITIAL_COUNT),
            divide: store.read(TIMER_DIVIDE),
            periodic: store.read(LVT_TIMER) & LVT_TIMER_PERIODIC != 0,
        }
    }

    /// How many TSC ticks one count takes, as a logarithm to base 2: bits 3, 1 and 0 of the divide configuration are
    /// that number less one, and 0b111 means divide by 1.
    fn shift(self) -> u32 {
        let encoded = (self.divide & 0b1000) >> 1 | self.divide & 0b11;
        (encoded + 1) & 0b111
    }
}

/// What counts down. Whether an interrupt is raised at the end is the Local Vector Table's matter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer {
    /// How much was left at `since`; 0 when the timer stands.
    count: u32,
    /// A TSC value.
    since: u64,
}

impl Timer {
    /// Starts the timer at TSC `now` from `count`; 0 stops it.
    pub fn start(&mut self, count: u32, now: u64) {
        *self = Self { count, since: now };
    }

    /// Before the divide configuration changes: what is left goes on from `now` at whatever rate there is then. An
    /// expiry that is due by `now` would be lost: call [`Self::expire`] first.
    pub fn settle(&mut self, settings: Settings, now: u64) {
        self.start(self.current_count(settings, now), now);
    }

    /// The TSC value at which the count reaches 0; `None` when the timer stands.
    pub fn deadline(&self, settings: Settings) -> Option<u64> {
        (self.count != 0).then(|| self.since.saturating_add(u64::from(self.count) << settings.shift()))
    }

    /// The current-count register at TSC `now`.
    pub fn current_count(&self, settings: Settings, now: u64) -> u32 {
        let mut at_now = *self;
        at_now.expire(settings, now);
        // A TSC that seems to run backwards (another processor's) counts as standing still.
        let counted = now.saturating_sub(at_now.since) >> settings.shift();
        at_now.count.saturating_sub(u32::try_from(counted).unwrap_or(u32::MAX))
    }

    /// Brings the timer to TSC `now`; whether the count has reached 0 since the last call. However many periods have
    /// passed, they are one: a guest that did not run for a while gets one interrupt and not a storm of them.
    pub fn expire(&mut self, settings: Settings, now: u64) -> bool {
        let Some(deadline) = self.deadline(settings).filter(|deadline| *deadline <= now) else {
            return false;
        };
        let period = u64::from(settings.initial_count) << settings.shift();
        if settings.periodic && period != 0 {
            // The phase is kept: the next deadline is a whole number of periods after this one.
            self.start(settings.initial_count, now - (now - deadline) % period);
        } else {
            self.count = 0;
        }
        true
    }
}
