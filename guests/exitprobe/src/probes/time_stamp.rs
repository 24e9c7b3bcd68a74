//! The time-stamp counter.

use super::msr;
use crate::list::{List, Verdict, ensure};
use guest_support::cpu::time_stamp;

/// Runs the probes.
pub fn probe(list: &mut List) {
    list.probe("tsc", time_stamp_counter);
    list.probe("tsc-write", time_stamp_counter_written);
}

fn time_stamp_counter() -> Verdict {
    let mut last = time_stamp();
    for _ in 0..10_000 {
        let now = time_stamp();
        ensure!(now >= last, "{now:#x} came after {last:#x}");
        last = now;
    }
    Ok(())
}

/// The counter goes on from what was written, and can be put back.
fn time_stamp_counter_written() -> Verdict {
    const TIME_STAMP_COUNTER: u32 = 0x10;
    const STEP: u64 = 1 << 40;
    // More ticks than any of this takes.
    const SLACK: u64 = 1 << 36;
    let begin = time_stamp();
    // SAFETY: nothing waits for the clock here, and it is put back.
    let caught = unsafe { msr::write(TIME_STAMP_COUNTER, begin + STEP) };
    let (counted, read) = (time_stamp(), msr::read(TIME_STAMP_COUNTER));
    // SAFETY: as it would be.
    let back = unsafe { msr::write(TIME_STAMP_COUNTER, time_stamp().wrapping_sub(STEP)) };
    let end = time_stamp();
    let expected = begin + STEP..begin + STEP + SLACK;
    ensure!(caught.is_none() && back.is_none(), "{caught:x?}, {back:x?}");
    ensure!(expected.contains(&counted), "{begin:#x} and a step on, it counts {counted:#x}");
    ensure!(read.is_ok_and(|read| expected.contains(&read) && read >= counted), "RDMSR reads {read:x?}");
    ensure!((begin..begin + SLACK).contains(&end), "{begin:#x} and back, it counts {end:#x}");
    Ok(())
}
