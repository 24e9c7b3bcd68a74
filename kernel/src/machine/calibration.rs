//! How fast the time-stamp counter and the local APIC's timer run, measured against a clock of known frequency.

use crate::machine::ports;
use crate::time;

/// The ACPI power management timer, 3.579545 MHz on every machine (ACPI 4.8.3.3).
const PM_TIMER_HZ: u64 = 3_579_545;
/// The programmable interval timer's input clock.
const PIT_HZ: u64 = 1_193_182;
/// How long to measure: 1/100 s gives 0.01 % with the PM timer, and a short start.
const MEASUREMENT_FRACTION: u64 = 100;
/// Polls after which a clock is taken for stopped. Each poll is a port access, at least a few hundred nanoseconds.
const MAXIMUM_POLLS: u64 = 4_000_000;

/// The clock that the measurement used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reference {
    /// The ACPI power management timer at this port.
    PmTimer(u16),
    /// The programmable interval timer.
    Pit,
}

/// Measures the time-stamp counter and sets its frequency. `pm_timer_port` comes from the FADT.
/// `None` if no reference clock runs: time is then only an upper bound.
pub fn calibrate(pm_timer_port: Option<u16>) -> Option<Reference> {
    let (khz, reference) = pm_timer_port
        .and_then(|port| Some((against_pm_timer(port)?, Reference::PmTimer(port))))
        .or_else(|| Some((against_pit()?, Reference::Pit)))?;
    time::set_frequency_khz(khz);
    Some(reference)
}

fn against_pm_timer(port: u16) -> Option<u64> {
    // 24 bits on all machines; some have 32.
    const MASK: u32 = 0xff_ffff;
    let target = PM_TIMER_HZ / MEASUREMENT_FRACTION;
    let first = ports::read(port, 4) & MASK;
    let start = time::ticks();
    for _ in 0..MAXIMUM_POLLS {
        let elapsed = u64::from((ports::read(port, 4) & MASK).wrapping_sub(first) & MASK);
        let now = time::ticks();
        if elapsed >= target {
            return Some(khz(now.wrapping_sub(start), elapsed, PM_TIMER_HZ));
        }
    }
    None
}

fn against_pit() -> Option<u64> {
    const GATE: u16 = 0x61;
    const COMMAND: u16 = 0x43;
    const CHANNEL_2: u16 = 0x42;
    const OUTPUT: u32 = 1 << 5;
    let count = PIT_HZ / MEASUREMENT_FRACTION;
    let gate = ports::read(GATE, 1);
    // Gate open, speaker off; channel 2, both bytes, mode 0: the output rises when the count is over.
    ports::write(GATE, 1, gate & !3 | 1);
    ports::write(COMMAND, 1, 0xb0);
    ports::write(CHANNEL_2, 1, count as u32 & 0xff);
    ports::write(CHANNEL_2, 1, count as u32 >> 8);
    let start = time::ticks();
    for _ in 0..MAXIMUM_POLLS {
        let over = ports::read(GATE, 1) & OUTPUT != 0;
        let now = time::ticks();
        if over {
            ports::write(GATE, 1, gate);
            return Some(khz(now.wrapping_sub(start), count, PIT_HZ));
        }
    }
    None
}

/// The frequency in kHz of a counter that made `ticks` while a clock of `hz` made `elapsed`.
pub fn khz(ticks: u64, elapsed: u64, hz: u64) -> u64 {
    (u128::from(ticks) * u128::from(hz) / u128::from(elapsed.max(1)) / 1000) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frequency_is_ticks_over_time() {
        assert_eq!(khz(25_000_000, PM_TIMER_HZ / 100, PM_TIMER_HZ), 2_500_031);
        assert_eq!(khz(1, 0, PIT_HZ), 1_193);
    }
}
