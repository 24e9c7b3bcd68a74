//! Time: the time-stamp counter, and how fast it runs.

use core::sync::atomic::{AtomicU64, Ordering};

/// The counter at the hypervisor's entry.
static ENTRY: AtomicU64 = AtomicU64::new(0);
/// Ticks of the counter in a millisecond; 0 until measured.
static TICKS_PER_MS: AtomicU64 = AtomicU64::new(0);
/// Assumed until the measurement: no x86-64 processor is faster, so waits come out longer and never shorter.
const ASSUMED_TICKS_PER_MS: u64 = 6_000_000;

/// The time-stamp counter, in ticks.
#[expect(unsafe_code, reason = "reads the time-stamp counter")]
pub fn ticks() -> u64 {
    // SAFETY: RDTSC only reads a counter; every x86-64 processor has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Remembers that this is the moment of entry.
pub fn start() {
    ENTRY.store(ticks(), Ordering::Relaxed);
}

/// Sets the counter's measured frequency, in ticks a millisecond (which is kHz). 0 is ignored.
pub fn set_frequency_khz(khz: u64) {
    if khz != 0 {
        TICKS_PER_MS.store(khz, Ordering::Relaxed);
    }
}

/// The counter's frequency in kHz.
pub fn frequency_khz() -> u64 {
    match TICKS_PER_MS.load(Ordering::Relaxed) {
        0 => ASSUMED_TICKS_PER_MS,
        measured => measured,
    }
}

/// Microseconds for a number of ticks.
pub fn ticks_to_us(ticks: u64) -> u64 {
    (u128::from(ticks) * 1000 / u128::from(frequency_khz())) as u64
}

/// Ticks for a number of microseconds.
pub fn us_to_ticks(microseconds: u64) -> u64 {
    (u128::from(microseconds) * u128::from(frequency_khz()) / 1000) as u64
}

/// Microseconds since the hypervisor's entry.
pub fn since_entry_us() -> u64 {
    ticks_to_us(ticks().saturating_sub(ENTRY.load(Ordering::Relaxed)))
}

/// Runs `ready` until it is true or `limit_us` microseconds have passed; says whether it became true.
pub fn wait_until(limit_us: u64, mut ready: impl FnMut() -> bool) -> bool {
    let start = ticks();
    let limit = us_to_ticks(limit_us);
    loop {
        if ready() {
            return true;
        }
        if ticks().wrapping_sub(start) > limit {
            return ready();
        }
        core::hint::spin_loop();
    }
}
