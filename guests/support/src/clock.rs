//! Time: the time-stamp counter, and the local APIC's timer to be woken by.

use crate::apic;
use crate::cpu::{cpuid, read_port32, time_stamp};
use core::sync::atomic::{AtomicU64, Ordering};

/// CPUID.1:ECX: a hypervisor is present.
const CPUID_HYPERVISOR: u32 = 1 << 31;
/// The hypervisor leaf whose EAX holds the largest hypervisor leaf.
const HYPERVISOR_LEAVES: u32 = 0x4000_0000;
/// The hypervisor leaf with the frequencies: EAX the time-stamp counter's and EBX the APIC timer's input, in kHz.
const FREQUENCY_LEAF: u32 = 0x4000_0010;

/// The ACPI PM timer of the q35 machine: 24 bits at 3.579545 MHz.
const PM_TIMER: u16 = 0x608;
const PM_TIMER_MASK: u32 = 0xff_ffff;
const PM_TIMER_HZ: u64 = 3_579_545;
/// How long calibration takes, in ticks of the PM timer: 20 ms.
const CALIBRATION_TICKS: u32 = (PM_TIMER_HZ / 50) as u32;
/// A PM timer that has not counted so far after this many looks does not run.
const PATIENCE: u32 = 10_000_000;

static TSC_KHZ: AtomicU64 = AtomicU64::new(1);
static APIC_TIMER_KHZ: AtomicU64 = AtomicU64::new(1);

/// How fast the clocks are, and how that is known.
pub struct Frequencies {
    /// The time-stamp counter.
    pub tsc_khz: u64,
    /// The input of the APIC's timer, before its divider.
    pub apic_timer_khz: u64,
    /// Who says so, for people.
    pub source: &'static str,
}

/// Finds out how fast the clocks run: told by a hypervisor, else measured. The error is a word for the report.
pub fn initialize() -> Result<Frequencies, &'static str> {
    let frequencies = match told() {
        Some(frequencies) => frequencies,
        None => measured()?,
    };
    TSC_KHZ.store(frequencies.tsc_khz, Ordering::Relaxed);
    APIC_TIMER_KHZ.store(frequencies.apic_timer_khz, Ordering::Relaxed);
    Ok(frequencies)
}

fn told() -> Option<Frequencies> {
    let hypervisor = cpuid(1)[2] & CPUID_HYPERVISOR != 0;
    if !hypervisor || !(FREQUENCY_LEAF..FREQUENCY_LEAF + 0x1000).contains(&cpuid(HYPERVISOR_LEAVES)[0]) {
        return None;
    }
    let [tsc_khz, apic_timer_khz, ..] = cpuid(FREQUENCY_LEAF).map(u64::from);
    let source = "told by the hypervisor";
    (tsc_khz != 0 && apic_timer_khz != 0).then_some(Frequencies { tsc_khz, apic_timer_khz, source })
}

fn measured() -> Result<Frequencies, &'static str> {
    let start = read_port32(PM_TIMER) & PM_TIMER_MASK;
    let start_tsc = time_stamp();
    apic::start_silent_countdown();
    for _ in 0..PATIENCE {
        let passed = (read_port32(PM_TIMER) & PM_TIMER_MASK).wrapping_sub(start) & PM_TIMER_MASK;
        if passed < CALIBRATION_TICKS {
            continue;
        }
        let per_ms = |ticks: u64| (ticks as u128 * PM_TIMER_HZ as u128 / (passed as u128 * 1000)) as u64;
        let tsc_khz = per_ms(time_stamp().wrapping_sub(start_tsc));
        let apic_timer_khz = per_ms(u64::from(apic::ticks_counted_down()) * apic::TIMER_DIVISOR);
        if tsc_khz == 0 || apic_timer_khz == 0 {
            return Err("clock-stands-still");
        }
        return Ok(Frequencies { tsc_khz, apic_timer_khz, source: "measured by the PM timer" });
    }
    Err("no-clock-to-measure-by")
}

/// Microseconds since an arbitrary start.
pub fn now_us() -> u64 {
    (u128::from(time_stamp()) * 1000 / u128::from(TSC_KHZ.load(Ordering::Relaxed))) as u64
}

/// How many ticks of the time-stamp counter are so many microseconds.
pub fn tsc_ticks(microseconds: u64) -> u64 {
    (u128::from(microseconds) * u128::from(TSC_KHZ.load(Ordering::Relaxed)) / 1000) as u64
}

/// How many ticks of the APIC's timer, as [`apic::start_timer`] takes them, are so many microseconds.
pub fn timer_ticks(microseconds: u64) -> u32 {
    let ticks_per_ms = APIC_TIMER_KHZ.load(Ordering::Relaxed) / apic::TIMER_DIVISOR;
    // Waking too early is harmless, callers look again; a counter that wrapped would be late.
    u32::try_from(microseconds.saturating_mul(ticks_per_ms) / 1000).unwrap_or(u32::MAX)
}

/// Sleeps until `is_pending` holds or until the time is `deadline_us`; wakes at every interrupt to look.
///
/// The check and the halt are one step: interrupts are off from before the check until the instruction after STI,
/// which is HLT, so an interrupt cannot fall between them and leave the processor asleep.
pub fn halt_until(deadline_us: u64, is_pending: impl Fn() -> bool) {
    x86_64::instructions::interrupts::disable();
    let now = now_us();
    if now < deadline_us && !is_pending() {
        apic::start_timer(timer_ticks(deadline_us - now));
        x86_64::instructions::interrupts::enable_and_hlt();
    }
    x86_64::instructions::interrupts::enable();
}
