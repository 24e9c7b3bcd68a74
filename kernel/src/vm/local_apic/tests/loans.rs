//! When the guest has the processor's timer in place of the virtual one.

use super::{LocalApic, vector, write, write_at, x2apic};

const LVT: u32 = 0x832;
const TSC_DEADLINE: u32 = 0x6e0;
const PERIODIC: u64 = 1 << 17;
const MASKED: u64 = 1 << 16;
const DEADLINE_MODE: u64 = 1 << 18;

/// In TSC-deadline mode, with the processor's timer offered.
fn offered() -> LocalApic {
    let mut apic = x2apic();
    apic.offer_timer();
    write(&mut apic, LVT, DEADLINE_MODE | 0x50);
    apic
}

fn borrowing() -> LocalApic {
    let mut apic = offered();
    assert_eq!((apic.borrow_timer(), apic.timer_moves()), (0, false));
    apic
}

#[test]
fn it_is_borrowed_where_it_would_do_the_same() {
    let mut apic = x2apic();
    apic.offer_timer();
    assert!(!apic.timer_moves());
    for (lvt, wanted) in [(0, false), (PERIODIC, false), (DEADLINE_MODE | MASKED, false), (DEADLINE_MODE, true)] {
        write(&mut apic, LVT, lvt | 0x50);
        assert_eq!(apic.timer_moves(), wanted, "{lvt:#x}");
    }
    // The guest's counter is another.
    apic.set_time_stamp_offset(1, 0);
    assert!(!apic.timer_moves());
    apic.set_time_stamp_offset(0, 0);
    assert!(apic.timer_moves());
    let mut apic = x2apic();
    write(&mut apic, LVT, DEADLINE_MODE | 0x50);
    assert!(!apic.timer_moves(), "nobody has offered one");
}

#[test]
fn it_is_returned_as_soon_as_it_would_not() {
    let changes: [fn(&mut LocalApic); 7] = [
        |apic| write(apic, LVT, 0x50),
        |apic| write(apic, LVT, PERIODIC | 0x50),
        |apic| write(apic, LVT, DEADLINE_MODE | MASKED | 0x50),
        |apic| write(apic, 0x80f, 0xff),
        |apic| apic.set_time_stamp_offset(1, 0),
        |apic| write(apic, 0x1b, 0xfee0_0100),
        LocalApic::init,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut apic = borrowing();
        change(&mut apic);
        assert!(apic.timer_moves() && apic.has_borrowed_timer(), "{number}");
        apic.return_timer(0, false, 0);
        assert!(!apic.timer_moves() && !apic.has_borrowed_timer(), "{number}");
    }
    // Another vector is no reason.
    let mut apic = borrowing();
    write(&mut apic, LVT, DEADLINE_MODE | 0x51);
    assert!(!apic.timer_moves());
}

#[test]
fn it_begins_and_ends_with_the_deadline_of_before() {
    let mut apic = offered();
    write_at(&mut apic, TSC_DEADLINE, 500, 0);
    assert_eq!((apic.borrow_timer(), apic.timer_deadline()), (500, None));
    apic.expire(u64::MAX);
    assert_eq!(apic.pending(), None);
    apic.deadline_reached();
    assert_eq!(apic.acknowledge(), vector(0x50));
    apic.end_of_interrupt();
    apic.return_timer(900, false, 600);
    assert_eq!((apic.pending(), apic.timer_deadline()), (None, Some(900)));
    // One was reached, and the guest has set another.
    assert_eq!(apic.borrow_timer(), 900);
    apic.return_timer(1000, true, 950);
    assert_eq!((apic.pending(), apic.timer_deadline()), (vector(0x50), Some(1000)));
}

#[test]
fn it_is_returned_to_be_read_and_borrowed_again_afterwards() {
    let mut apic = borrowing();
    assert!(apic.recall_timer() && apic.timer_moves());
    apic.return_timer(900, false, 600);
    assert!(!apic.timer_moves() && !apic.recall_timer());
    assert_eq!(apic.read_msr(TSC_DEADLINE, 700), Ok(900));
    assert!(apic.timer_moves());
    assert_eq!(apic.borrow_timer(), 900);
    assert!(!apic.timer_moves());
    // What was never borrowed need not be returned.
    assert!(!x2apic().recall_timer());
}

#[test]
fn in_another_mode_it_comes_back_disarmed() {
    for mode in [0, PERIODIC] {
        let mut apic = borrowing();
        write(&mut apic, LVT, mode | 0x50);
        apic.return_timer(500, true, 100);
        assert_eq!((apic.pending(), apic.timer_deadline(), apic.read_msr(TSC_DEADLINE, 100)), (None, None, Ok(0)));
    }
}

#[test]
fn masked_meanwhile_its_time_passes_in_silence() {
    let mut apic = borrowing();
    write(&mut apic, LVT, MASKED | DEADLINE_MODE | 0x50);
    apic.return_timer(500, true, 100);
    assert_eq!((apic.pending(), apic.timer_deadline(), apic.read_msr(TSC_DEADLINE, 100)), (None, None, Ok(500)));
}

#[test]
fn a_counter_put_forward_meanwhile_has_reached_it() {
    let mut apic = borrowing();
    apic.set_time_stamp_offset(1000, 100);
    apic.return_timer(500, false, 100);
    assert_eq!(apic.timer_deadline(), Some(100));
}
