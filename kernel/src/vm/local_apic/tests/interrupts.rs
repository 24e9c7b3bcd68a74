//! Acceptance, priority and completion of interrupts.

use super::{acknowledge_all, errors, requests, vector, write, x2apic, xapic};

#[test]
fn the_highest_vector_is_due_first() {
    let mut apic = x2apic();
    assert_eq!(apic.pending(), None);
    apic.accept(requests(&[0x31, 0xfe, 0x80]));
    apic.accept(requests(&[0x7f, 0x80]));
    for expected in [0xfe, 0x80, 0x7f, 0x31] {
        assert_eq!(apic.pending(), vector(expected));
        assert_eq!(apic.acknowledge(), vector(expected));
        assert_eq!(apic.end_of_interrupt(), vector(expected));
    }
    assert_eq!((apic.acknowledge(), apic.end_of_interrupt()), (None, None));
}

#[test]
fn every_vector_from_16_on_goes_through() {
    for number in 16..=255u8 {
        let mut apic = x2apic();
        apic.accept(requests(&[number]));
        let (word, bit) = (u32::from(number / 32), number % 32);
        assert_eq!(apic.read_msr(0x820 + word, 0), Ok(1 << bit));
        assert_eq!(apic.acknowledge(), vector(number));
        assert_eq!((apic.read_msr(0x820 + word, 0), apic.read_msr(0x810 + word, 0)), (Ok(0), Ok(1 << bit)));
        write(&mut apic, 0x80b, 0);
        assert_eq!(apic.read_msr(0x810 + word, 0), Ok(0));
    }
}

#[test]
fn only_a_higher_priority_class_interrupts_a_handler() {
    let mut apic = x2apic();
    apic.accept(requests(&[0x45]));
    assert_eq!(apic.acknowledge(), vector(0x45));
    assert_eq!(apic.ppr(), 0x40);
    apic.accept(requests(&[0x4f, 0x30]));
    assert_eq!(apic.pending(), None);
    apic.accept(requests(&[0x50]));
    assert_eq!(apic.acknowledge(), vector(0x50));
    assert_eq!(apic.ppr(), 0x50);
}

#[test]
fn eoi_ends_the_innermost_handler() {
    let mut apic = x2apic();
    for number in [0x30, 0x40, 0x50] {
        apic.accept(requests(&[number]));
        assert_eq!(apic.acknowledge(), vector(number));
    }
    apic.accept(requests(&[0x41]));
    write(&mut apic, 0x80b, 0);
    assert_eq!((apic.ppr(), apic.pending()), (0x40, None));
    write(&mut apic, 0x80b, 0);
    assert_eq!((apic.ppr(), apic.pending()), (0x30, vector(0x41)));
    assert_eq!(apic.end_of_interrupt(), vector(0x30));
    assert_eq!(apic.ppr(), 0);
}

#[test]
fn a_vector_in_service_can_be_requested_again() {
    let mut apic = x2apic();
    apic.accept(requests(&[0x30]));
    apic.acknowledge();
    apic.accept(requests(&[0x30]));
    assert_eq!(apic.pending(), None);
    apic.end_of_interrupt();
    assert_eq!(apic.acknowledge(), vector(0x30));
}

#[test]
fn the_task_priority_masks_its_class_and_those_below() {
    let mut apic = x2apic();
    apic.accept(requests(&[0x4f]));
    for (tpr, due) in [(0x3f, vector(0x4f)), (0x40, None), (0x4f, None), (0xff, None), (0x00, vector(0x4f))] {
        write(&mut apic, 0x808, tpr);
        assert_eq!((apic.pending(), apic.read_msr(0x80a, 0)), (due, Ok(tpr)), "TPR {tpr:#x}");
    }
}

#[test]
fn the_processor_priority_is_the_higher_of_task_and_handler() {
    let mut apic = x2apic();
    apic.accept(requests(&[0x55]));
    apic.acknowledge();
    for (tpr, ppr) in [(0x00, 0x50), (0x4f, 0x50), (0x53, 0x53), (0x60, 0x60), (0x6a, 0x6a)] {
        apic.set_tpr(tpr);
        assert_eq!(apic.ppr(), ppr, "TPR {tpr:#x}");
    }
}

#[test]
fn cr8_is_the_class_of_the_task_priority() {
    let mut apic = x2apic();
    write(&mut apic, 0x808, 0x5a);
    assert_eq!(apic.cr8(), 5);
    apic.set_cr8(0xf).unwrap();
    assert_eq!((apic.tpr(), apic.read_msr(0x808, 0)), (0xf0, Ok(0xf0)));
    for value in [0x10, 1 << 32, u64::MAX] {
        assert!(apic.set_cr8(value).is_err());
    }
    assert_eq!(apic.cr8(), 0xf);
}

#[test]
fn vectors_below_16_are_dropped_counted_and_an_error() {
    let mut apic = x2apic();
    apic.accept([0xffff, 0, 0, 0]);
    assert_eq!((apic.pending(), apic.dropped(), apic.read_msr(0x820, 0)), (None, 16, Ok(0)));
    assert_eq!(errors(&mut apic), 1 << 6);
    apic.accept(requests(&[15, 16]));
    assert_eq!((acknowledge_all(&mut apic), apic.dropped()), (vec![16], 17));
}

#[test]
fn a_software_disabled_apic_accepts_nothing_and_keeps_what_it_has() {
    let mut apic = x2apic();
    apic.accept(requests(&[0x30]));
    write(&mut apic, 0x80f, 0xff);
    apic.accept(requests(&[0x40, 0x50]));
    assert_eq!((apic.dropped(), apic.is_software_enabled()), (2, false));
    assert_eq!(acknowledge_all(&mut apic), [0x30]);
}

#[test]
fn a_new_apic_accepts_nothing() {
    let mut apic = super::LocalApic::new(addr::ApicId(0), true, 40);
    apic.accept(requests(&[0x30]));
    assert_eq!((apic.pending(), apic.dropped()), (None, 1));
    apic.write_page(0xf0, 0x1ff, 0);
    apic.accept(requests(&[0x30]));
    assert_eq!(apic.pending(), vector(0x30));
}

#[test]
fn an_error_raises_the_error_interrupt() {
    let mut apic = x2apic();
    write(&mut apic, 0x837, 0x41);
    apic.accept(requests(&[3]));
    assert_eq!(apic.acknowledge(), vector(0x41));
    assert_eq!(errors(&mut apic), 1 << 6);
    assert_eq!(errors(&mut apic), 0);
    write(&mut apic, 0x837, 0x1_0041);
    apic.accept(requests(&[3]));
    assert_eq!((apic.pending(), errors(&mut apic)), (None, 1 << 6));
}

#[test]
fn an_error_interrupt_with_an_illegal_vector_ends() {
    let mut apic = x2apic();
    write(&mut apic, 0x837, 0x0f);
    apic.accept(requests(&[3]));
    assert_eq!((apic.pending(), errors(&mut apic)), (None, 1 << 6));
}

#[test]
fn init_forgets_interrupts_and_keeps_id_and_mode() {
    let mut apic = x2apic();
    apic.accept(requests(&[0x30, 0x40]));
    apic.acknowledge();
    write(&mut apic, 0x838, 1000);
    apic.init();
    assert_eq!((apic.read_msr(0x838, 0), apic.read_msr(0x839, 0)), (Ok(0), Ok(0)));
    assert_eq!((apic.pending(), apic.end_of_interrupt(), apic.ppr()), (None, None, 0));
    assert_eq!((apic.read_msr(0x802, 0), apic.read_msr(0x80f, 0)), (Ok(3), Ok(0xff)));
    let mut apic = xapic();
    apic.init();
    assert_eq!((apic.read_page(0x20, 0), apic.read_page(0xf0, 0)), (3 << 24, 0xff));
}
