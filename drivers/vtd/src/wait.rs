//! Waiting for hardware, never for ever.

use crate::error::{Error, Step};
use crate::registers::Registers;
use crate::spec::registers::{ReadOnly, Readable, Register, Width, Window};

/// How long hardware may take for a command before it counts as broken, in microseconds. Real units answer within
/// microseconds; an emulated unit on a loaded machine may take milliseconds.
pub const DEFAULT_TIMEOUT_US: u64 = 1_000_000;

/// Time, for bounding waits.
pub trait Clock {
    /// Microseconds from an arbitrary start, monotonic.
    fn now_us(&self) -> u64;
    /// A pause in a polling loop.
    fn relax(&self);
}

impl<T: Clock + ?Sized> Clock for &T {
    fn now_us(&self) -> u64 {
        (**self).now_us()
    }
    fn relax(&self) {
        (**self).relax()
    }
}

/// A moment after which a wait has failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    start_us: u64,
    timeout_us: u64,
}

impl Deadline {
    pub(crate) fn new<C: Clock>(clock: &C, timeout_us: u64) -> Self {
        Self { start_us: clock.now_us(), timeout_us }
    }

    /// Whether the time is over. Ask *before* looking at the hardware, and look once more if so: a processor that
    /// was away between the two would otherwise call hardware late that was not.
    pub(crate) fn passed<C: Clock>(&self, clock: &C) -> bool {
        clock.now_us().saturating_sub(self.start_us) >= self.timeout_us
    }
}

/// Polls a 32-bit register until its bits under `mask` are `expected`; answers its whole value.
pub(crate) fn wait_for<R: Registers, C: Clock, A: Readable>(
    window: &Window<R>,
    clock: &C,
    timeout_us: u64,
    step: Step,
    register: Register<u32, A>,
    mask: u32,
    expected: u32,
) -> Result<u32, Error> {
    let deadline = Deadline::new(clock, timeout_us);
    loop {
        let late = deadline.passed(clock);
        let last = window.read(register);
        // All ones is what a window reads that no hardware answers any more; no register is all ones by itself.
        if last & mask == expected && last != u32::MAX {
            return Ok(last);
        }
        if late {
            return Err(Error::Timeout {
                step,
                register: register.name(),
                mask: mask.into(),
                expected: expected.into(),
                last: last.into(),
            });
        }
        clock.relax();
    }
}

/// Reads a register that must not be all ones.
pub(crate) fn read_present<R: Registers, W: Width + Into<u64> + PartialEq>(
    window: &Window<R>,
    register: Register<W, ReadOnly>,
    all_ones: W,
) -> Result<W, Error> {
    let value = window.read(register);
    if value == all_ones { Err(Error::Absent { register: register.name() }) } else { Ok(value) }
}
