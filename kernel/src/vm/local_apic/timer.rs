//! The local APIC's timer (SDM section 11.5.4): one-shot and periodic, in which it counts at the TSC's rate, and
//! TSC-deadline.
//!
//! The registers that the guest sets are in the register store; here is only what runs.

use super::registers::{LVT_TIMER, LVT_TIMER_PERIODIC, LVT_TIMER_TSC_DEADLINE, TIMER_DIVIDE, TIMER_INITIAL_COUNT};
use super::store::Store;

/// What the registers ask of the timer.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The initial-count register: what a periodic timer starts from again.
    initial_count: u32,
    /// The divide configuration register.
    divide: u32,
    /// The timer's register in the Local Vector Table, for the mode.
    entry: u32,
}

impl Settings {
    /// As the registers are now.
    pub fn of(store: &Store) -> Self {
        Self {
            initial_count: store.read(TIMER_INITIAL_COUNT),
            divide: store.read(TIMER_DIVIDE),
            entry: store.read(LVT_TIMER),
        }
    }

    /// How many TSC ticks one count takes, as a logarithm to base 2: bits 3, 1 and 0 of the divide configuration are
    /// that number less one, and 0b111 means divide by 1.
    fn shift(self) -> u32 {
        let encoded = (self.divide & 0b1000) >> 1 | self.divide & 0b11;
        (encoded + 1) & 0b111
    }

    fn is_periodic(self) -> bool {
        self.entry & LVT_TIMER_PERIODIC != 0
    }

    /// Whether the mode is TSC-deadline.
    pub fn has_deadline(self) -> bool {
        self.entry & LVT_TIMER_TSC_DEADLINE != 0
    }
}

/// What counts down. Whether an interrupt is raised at the end is the Local Vector Table's matter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer {
    /// How much was left at `since`; 0 when the timer stands, and always in TSC-deadline mode.
    count: u32,
    /// A TSC value: since when it counts; in TSC-deadline mode, when the deadline is reached.
    since: u64,
    /// IA32_TSC_DEADLINE, as the guest counts: 0 when the timer stands, and always in the other modes.
    deadline: u64,
}

impl Timer {
    /// Starts the timer at TSC `now` from `count`; 0 stops it. Not in TSC-deadline mode.
    pub fn start(&mut self, count: u32, now: u64) {
        *self = Self { count, since: now, deadline: 0 };
    }

    /// In TSC-deadline mode: starts the timer at TSC `now` for `deadline`, with which the guest compares that TSC plus
    /// `offset`; 0 stops it.
    pub fn start_until(&mut self, deadline: u64, now: u64, offset: u64) {
        let remaining = deadline.saturating_sub(now.wrapping_add(offset));
        *self = Self { count: 0, since: now.saturating_add(remaining), deadline };
    }

    /// IA32_TSC_DEADLINE.
    pub fn tsc_deadline(&self) -> u64 {
        self.deadline
    }

    /// Before the divide configuration changes: what is left goes on from `now` at whatever rate there is then. An
    /// expiry that is due by `now` would be lost: call [`Self::expire`] first.
    pub fn settle(&mut self, settings: Settings, now: u64) {
        if !settings.has_deadline() {
            self.start(self.current_count(settings, now), now);
        }
    }

    /// Whether it does not stand.
    #[inline(always)]
    pub fn runs(&self) -> bool {
        self.count != 0 || self.deadline != 0
    }

    /// The TSC value at which the timer ends; `None` when it stands.
    #[inline(always)]
    pub fn deadline(&self, settings: Settings) -> Option<u64> {
        // In TSC-deadline mode there is no count.
        self.runs().then(|| self.since.saturating_add(u64::from(self.count) << settings.shift()))
    }

    /// The current-count register at TSC `now`; 0 in TSC-deadline mode.
    pub fn current_count(&self, settings: Settings, now: u64) -> u32 {
        let mut at_now = *self;
        at_now.expire(settings, now);
        // A TSC that seems to run backwards (another processor's) counts as standing still.
        let counted = now.saturating_sub(at_now.since) >> settings.shift();
        at_now.count.saturating_sub(u32::try_from(counted).unwrap_or(u32::MAX))
    }

    /// Brings the timer to TSC `now`; whether it has ended since the last call. However many periods have passed, they
    /// are one: a guest that did not run for a while gets one interrupt and not a storm of them.
    pub fn expire(&mut self, settings: Settings, now: u64) -> bool {
        let Some(deadline) = self.deadline(settings).filter(|deadline| *deadline <= now) else {
            return false;
        };
        let period = u64::from(settings.initial_count) << settings.shift();
        if settings.is_periodic() && period != 0 {
            // The phase is kept: the next deadline is a whole number of periods after this one.
            self.start(settings.initial_count, now - (now - deadline) % period);
        } else {
            *self = Self::default();
        }
        true
    }
}
