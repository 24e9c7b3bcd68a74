//! The timer.

use super::{vector, write, write_at, x2apic, xapic};

const LVT: u32 = 0x832;
const INITIAL: u32 = 0x838;
const CURRENT: u32 = 0x839;
const DIVIDE: u32 = 0x83e;
const TSC_DEADLINE: u32 = 0x6e0;
const PERIODIC: u64 = 1 << 17;
const MASKED: u64 = 1 << 16;
const DEADLINE_MODE: u64 = 1 << 18;
/// Divide by 1.
const BY_1: u64 = 0b1011;

#[test]
fn a_one_shot_timer_fires_once_at_its_deadline() {
    let mut apic = x2apic();
    write(&mut apic, LVT, 0x50);
    write(&mut apic, DIVIDE, BY_1);
    write_at(&mut apic, INITIAL, 1000, 5000);
    assert_eq!(apic.timer_deadline(), Some(6000));
    apic.expire(5999);
    assert_eq!(apic.pending(), None);
    apic.expire(6000);
    assert_eq!((apic.acknowledge(), apic.timer_deadline()), (vector(0x50), None));
    apic.end_of_interrupt();
    apic.expire(u64::MAX);
    assert_eq!((apic.pending(), apic.read_msr(CURRENT, u64::MAX)), (None, Ok(0)));
    assert_eq!(apic.read_msr(INITIAL, 0), Ok(1000));
}

#[test]
fn the_divide_configuration_sets_the_rate() {
    for (divide, by) in [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)] {
        let mut apic = x2apic();
        write(&mut apic, LVT, 0x50);
        write(&mut apic, DIVIDE, divide);
        write_at(&mut apic, INITIAL, 100, 7);
        assert_eq!(apic.timer_deadline(), Some(7 + 100 * by), "divide {divide:#b}");
        assert_eq!(apic.read_msr(CURRENT, 7 + 10 * by), Ok(90));
        assert_eq!(apic.read_msr(CURRENT, 7 + 10 * by - 1), Ok(91));
    }
}

#[test]
fn the_longest_count_does_not_wrap() {
    let mut apic = x2apic();
    write(&mut apic, LVT, 0x50);
    write(&mut apic, DIVIDE, 10);
    write_at(&mut apic, INITIAL, 0xffff_ffff, 0);
    assert_eq!(apic.timer_deadline(), Some(0xffff_ffff * 128));
    write_at(&mut apic, INITIAL, 0xffff_ffff, u64::MAX - 1);
    assert_eq!(apic.timer_deadline(), None, "beyond the last tick of the counter is never");
}

#[test]
fn the_current_count_runs_down_and_stays_at_zero() {
    let mut apic = x2apic();
    write(&mut apic, DIVIDE, BY_1);
    write_at(&mut apic, INITIAL, 1000, 5000);
    for (now, count) in [(4000, 1000), (5000, 1000), (5001, 999), (5999, 1), (6000, 0), (9000, 0)] {
        assert_eq!(apic.read_msr(CURRENT, now), Ok(count), "at {now}");
    }
}

#[test]
fn a_periodic_timer_keeps_its_phase() {
    let mut apic = x2apic();
    write(&mut apic, LVT, PERIODIC | 0x50);
    write(&mut apic, DIVIDE, BY_1);
    write_at(&mut apic, INITIAL, 1000, 0);
    for (now, next) in [(1000, 2000), (2300, 3000), (3000, 4000), (4999, 5000)] {
        apic.expire(now);
        assert_eq!((apic.acknowledge(), apic.timer_deadline()), (vector(0x50), Some(next)), "at {now}");
        apic.end_of_interrupt();
        apic.expire(now);
        assert_eq!(apic.pending(), None);
    }
    assert_eq!(apic.read_msr(CURRENT, 5000), Ok(1000));
    assert_eq!(apic.read_msr(CURRENT, 5001), Ok(999));
}

#[test]
fn many_missed_periods_are_one_interrupt() {
    let mut apic = x2apic();
    write(&mut apic, LVT, PERIODIC | 0x50);
    write(&mut apic, DIVIDE, BY_1);
    write_at(&mut apic, INITIAL, 3, 0);
    apic.expire(1_000_000_000_000);
    assert_eq!(apic.acknowledge(), vector(0x50));
    apic.end_of_interrupt();
    assert_eq!(apic.pending(), None);
    assert_eq!(apic.timer_deadline(), Some(1_000_000_000_002));
}

#[test]
fn a_masked_timer_counts_and_stays_silent() {
    let mut apic = x2apic();
    write(&mut apic, LVT, MASKED | PERIODIC | 0x50);
    write(&mut apic, DIVIDE, BY_1);
    write_at(&mut apic, INITIAL, 1000, 0);
    assert_eq!((apic.timer_deadline(), apic.read_msr(CURRENT, 1400)), (None, Ok(600)));
    apic.expire(2500);
    assert_eq!(apic.pending(), None);
    // What passed while it was masked does not count afterwards.
    write_at(&mut apic, LVT, PERIODIC | 0x50, 3500);
    apic.expire(3500);
    assert_eq!((apic.pending(), apic.timer_deadline()), (None, Some(4000)));
}

#[test]
fn an_access_after_the_deadline_finds_the_interrupt_requested() {
    let mut apic = x2apic();
    write(&mut apic, LVT, 0x50);
    write_at(&mut apic, INITIAL, 50, 0);
    // Vector 0x50 is bit 16 of the third register.
    assert_eq!(apic.read_msr(0x822, 99), Ok(0));
    assert_eq!(apic.read_msr(0x822, 100), Ok(1 << 16));
    // Masking after the deadline comes too late.
    let mut apic = x2apic();
    write(&mut apic, LVT, 0x50);
    write_at(&mut apic, INITIAL, 50, 0);
    write_at(&mut apic, LVT, MASKED | 0x50, 100);
    assert_eq!(apic.pending(), vector(0x50));
}

#[test]
fn a_write_of_the_initial_count_starts_again_and_zero_stops() {
    let mut apic = x2apic();
    write(&mut apic, LVT, PERIODIC | 0x50);
    write(&mut apic, DIVIDE, BY_1);
    write_at(&mut apic, INITIAL, 1000, 0);
    write_at(&mut apic, INITIAL, 500, 900);
    assert_eq!(apic.timer_deadline(), Some(1400));
    write_at(&mut apic, INITIAL, 0, 1000);
    assert_eq!((apic.timer_deadline(), apic.read_msr(CURRENT, 1100)), (None, Ok(0)));
    apic.expire(u64::MAX);
    assert_eq!(apic.pending(), None);
}

#[test]
fn a_new_divide_value_applies_to_what_is_left() {
    let mut apic = x2apic();
    write(&mut apic, LVT, 0x50);
    write(&mut apic, DIVIDE, BY_1);
    write_at(&mut apic, INITIAL, 1000, 0);
    write_at(&mut apic, DIVIDE, 0, 400);
    assert_eq!(apic.read_msr(CURRENT, 400), Ok(600));
    assert_eq!(apic.timer_deadline(), Some(400 + 1200));
}

#[test]
fn a_running_timer_takes_a_new_mode_at_its_end() {
    let mut apic = x2apic();
    write(&mut apic, LVT, 0x50);
    write(&mut apic, DIVIDE, BY_1);
    write_at(&mut apic, INITIAL, 1000, 0);
    write_at(&mut apic, LVT, PERIODIC | 0x50, 500);
    assert_eq!(apic.timer_deadline(), Some(1000));
    apic.expire(1000);
    assert_eq!(apic.timer_deadline(), Some(2000));
    write_at(&mut apic, LVT, 0x50, 1500);
    apic.expire(2000);
    assert_eq!(apic.timer_deadline(), None);
    // A one-shot timer that has ended does not run again as a periodic one.
    write_at(&mut apic, LVT, PERIODIC | 0x50, 2500);
    assert_eq!(apic.timer_deadline(), None);
}

#[test]
fn a_timer_with_an_illegal_vector_is_an_error() {
    let mut apic = x2apic();
    write(&mut apic, LVT, 0x0f);
    write_at(&mut apic, INITIAL, 10, 0);
    apic.expire(100);
    assert_eq!((apic.pending(), super::errors(&mut apic)), (None, 1 << 6));
}

#[test]
fn a_software_disabled_apic_has_no_timer_interrupt() {
    let mut apic = x2apic();
    write(&mut apic, LVT, 0x50);
    write_at(&mut apic, INITIAL, 10, 0);
    write(&mut apic, 0x80f, 0xff);
    assert_eq!(apic.timer_deadline(), None);
    apic.expire(100);
    assert_eq!((apic.pending(), apic.dropped()), (None, 0));
}

#[test]
fn a_deadline_fires_once_and_is_gone() {
    let mut apic = x2apic();
    write(&mut apic, LVT, DEADLINE_MODE | 0x50);
    write_at(&mut apic, TSC_DEADLINE, 6000, 5000);
    assert_eq!((apic.timer_deadline(), apic.read_msr(TSC_DEADLINE, 5999)), (Some(6000), Ok(6000)));
    apic.expire(5999);
    assert_eq!(apic.pending(), None);
    apic.expire(6000);
    assert_eq!((apic.acknowledge(), apic.timer_deadline()), (vector(0x50), None));
    assert_eq!(apic.read_msr(TSC_DEADLINE, 6000), Ok(0));
    apic.end_of_interrupt();
    apic.expire(u64::MAX);
    assert_eq!(apic.pending(), None);
}

#[test]
fn a_deadline_in_the_past_fires_at_once_and_zero_disarms() {
    for past in [1, 4999, 5000] {
        let mut apic = x2apic();
        write(&mut apic, LVT, DEADLINE_MODE | 0x50);
        write_at(&mut apic, TSC_DEADLINE, past, 5000);
        assert_eq!(apic.timer_deadline(), Some(5000));
        apic.expire(5000);
        assert_eq!((apic.pending(), apic.read_msr(TSC_DEADLINE, 5000)), (vector(0x50), Ok(0)), "{past}");
    }
    let mut apic = x2apic();
    write(&mut apic, LVT, DEADLINE_MODE | 0x50);
    write_at(&mut apic, TSC_DEADLINE, 6000, 5000);
    write_at(&mut apic, TSC_DEADLINE, 0, 5500);
    assert_eq!((apic.timer_deadline(), apic.read_msr(TSC_DEADLINE, 5500)), (None, Ok(0)));
    apic.expire(u64::MAX);
    assert_eq!(apic.pending(), None);
}

#[test]
fn a_deadline_replaces_the_one_before() {
    let mut apic = x2apic();
    write(&mut apic, LVT, DEADLINE_MODE | 0x50);
    for deadline in [6000, 9000, 7000] {
        write_at(&mut apic, TSC_DEADLINE, deadline, 5000);
        assert_eq!(apic.timer_deadline(), Some(deadline));
    }
    // The highest that there is, which the counter does not reach.
    write_at(&mut apic, TSC_DEADLINE, u64::MAX, 5000);
    assert_eq!((apic.timer_deadline(), apic.read_msr(TSC_DEADLINE, 5000)), (None, Ok(u64::MAX)));
}

#[test]
fn only_in_its_mode_is_there_a_deadline() {
    for mode in [0, PERIODIC] {
        let mut apic = x2apic();
        write(&mut apic, LVT, mode | 0x50);
        write(&mut apic, DIVIDE, BY_1);
        write_at(&mut apic, INITIAL, 1000, 0);
        write_at(&mut apic, TSC_DEADLINE, 500, 100);
        assert_eq!((apic.read_msr(TSC_DEADLINE, 100), apic.timer_deadline()), (Ok(0), Some(1000)));
        apic.expire(500);
        assert_eq!(apic.pending(), None);
    }
}

#[test]
fn in_deadline_mode_there_is_no_count() {
    let mut apic = x2apic();
    write(&mut apic, LVT, DEADLINE_MODE | 0x50);
    write_at(&mut apic, TSC_DEADLINE, 6000, 5000);
    write_at(&mut apic, INITIAL, 100, 5000);
    write_at(&mut apic, DIVIDE, 1, 5000);
    assert_eq!((apic.read_msr(INITIAL, 5000), apic.read_msr(CURRENT, 5001)), (Ok(0), Ok(0)));
    assert_eq!((apic.timer_deadline(), apic.read_msr(TSC_DEADLINE, 5001)), (Some(6000), Ok(6000)));
}

#[test]
fn a_change_into_the_deadline_mode_or_out_of_it_disarms() {
    for mode in [0, PERIODIC] {
        let mut apic = x2apic();
        write(&mut apic, LVT, mode | 0x50);
        write_at(&mut apic, INITIAL, 1000, 0);
        write_at(&mut apic, LVT, DEADLINE_MODE | 0x50, 10);
        assert_eq!((apic.timer_deadline(), apic.read_msr(INITIAL, 10)), (None, Ok(0)));
        assert_eq!(apic.read_msr(TSC_DEADLINE, 10), Ok(0));
        write_at(&mut apic, TSC_DEADLINE, 500, 20);
        // Another vector and the mask are no change of the mode.
        write_at(&mut apic, LVT, DEADLINE_MODE | 0x51, 30);
        assert_eq!(apic.timer_deadline(), Some(500));
        write_at(&mut apic, LVT, MASKED | DEADLINE_MODE | 0x51, 40);
        assert_eq!((apic.timer_deadline(), apic.read_msr(TSC_DEADLINE, 40)), (None, Ok(500)));
        write_at(&mut apic, LVT, mode | 0x50, 50);
        assert_eq!((apic.timer_deadline(), apic.read_msr(TSC_DEADLINE, 50)), (None, Ok(0)));
        write_at(&mut apic, LVT, DEADLINE_MODE | 0x50, 60);
        apic.expire(u64::MAX);
        assert_eq!((apic.timer_deadline(), apic.pending()), (None, None));
    }
}

#[test]
fn a_masked_deadline_passes_in_silence() {
    let mut apic = x2apic();
    write(&mut apic, LVT, MASKED | DEADLINE_MODE | 0x50);
    write_at(&mut apic, TSC_DEADLINE, 500, 0);
    assert_eq!(apic.read_msr(TSC_DEADLINE, 499), Ok(500));
    assert_eq!(apic.read_msr(TSC_DEADLINE, 500), Ok(0));
    write_at(&mut apic, LVT, DEADLINE_MODE | 0x50, 600);
    apic.expire(600);
    assert_eq!((apic.pending(), apic.timer_deadline()), (None, None));
}

#[test]
fn a_deadline_is_of_the_counter_that_the_guest_reads() {
    let mut apic = x2apic();
    write(&mut apic, LVT, DEADLINE_MODE | 0x50);
    apic.set_time_stamp_offset(1 << 40, 100);
    write_at(&mut apic, TSC_DEADLINE, (1 << 40) + 500, 100);
    assert_eq!(apic.timer_deadline(), Some(500));
    // Below what the guest's counter is now, although far above the TSC.
    write_at(&mut apic, TSC_DEADLINE, 1 << 40, 100);
    assert_eq!(apic.timer_deadline(), Some(100));
    // The counter is put forward, back, and below the TSC.
    write_at(&mut apic, TSC_DEADLINE, (1 << 40) + 500, 100);
    for (offset, due) in [((1 << 40) + 300, 200), (1 << 40, 500), (1 << 41, 110)] {
        apic.set_time_stamp_offset(offset, 110);
        assert_eq!(apic.timer_deadline(), Some(due), "{offset:#x}");
        assert_eq!(apic.read_msr(TSC_DEADLINE, 109), Ok((1 << 40) + 500));
    }
    write_at(&mut apic, TSC_DEADLINE, 50, 2000);
    apic.set_time_stamp_offset(2000u64.wrapping_neg(), 2000);
    assert_eq!(apic.timer_deadline(), None, "it was due when the counter was put back");
    assert_eq!(apic.pending(), vector(0x50));
    write_at(&mut apic, TSC_DEADLINE, 50, 2000);
    assert_eq!(apic.timer_deadline(), Some(2050));
}

#[test]
fn init_disarms_a_deadline() {
    let mut apic = x2apic();
    write(&mut apic, LVT, DEADLINE_MODE | 0x50);
    write_at(&mut apic, TSC_DEADLINE, 500, 0);
    apic.init();
    assert_eq!((apic.timer_deadline(), apic.read_msr(TSC_DEADLINE, 10)), (None, Ok(0)));
}

#[test]
fn the_xapic_has_the_deadline_mode_and_does_not_take_the_reserved_one() {
    let mut apic = xapic();
    apic.write_page(0x320, 0x4_0050, 0);
    write_at(&mut apic, TSC_DEADLINE, 500, 0);
    assert_eq!(apic.timer_deadline(), Some(500));
    apic.write_page(0x320, 0x6_0050, 10);
    assert_eq!((apic.read_page(0x320, 10), apic.timer_deadline()), (0x2_0050, None));
}
