use super::fake::{CAP, CONFIGURATION, ECAP, Event, Fake};
use super::std::vec::Vec;
use crate::{Batch, Error, Global, Levels, Step, TranslationMode};
use addr::{Bdf, DomainId, HostPhys, Iova};
use paging::Invalidation;

/// Global commands, and descriptors that were executed, in their order; waits left out.
fn steps(log: &[Event]) -> Vec<(char, u64)> {
    log.iter()
        .filter_map(|event| match event {
            Event::Write32(0x18, value) => Some(('c', u64::from(*value))),
            Event::Executed(low, _) if low & 0xf != 5 => Some(('d', *low)),
            _ => None,
        })
        .collect()
}

#[test]
fn what_is_on_goes_off_and_everything_is_forgotten_before_the_queue_goes() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    unit.assign(&mut memory, Bdf::from_u16(8), DomainId(1), HostPhys::new(0x8000), Levels::Four).unwrap();
    fake.take_log();
    unit.shut_down(&mut memory).unwrap();
    let (remapping, queue) = (1 << 25, 1 << 26);
    let expected = [('c', remapping | queue), ('c', queue), ('d', 0x11), ('d', 0xd2), ('d', 0x04), ('c', 0)];
    assert_eq!(steps(&fake.take_log()), expected);
    assert!(!unit.translation_enabled() && !unit.interrupt_remapping_enabled());
    assert_eq!(unit.firmware_state() & (Global::TRANSLATION | Global::QUEUED_INVALIDATION), Global::empty());
    assert!(unit.assignment(&memory, Bdf::from_u16(8)).is_none());

    unit.bring_up(&mut memory, &CONFIGURATION).unwrap();
    assert!(unit.assignment(&memory, Bdf::from_u16(8)).is_none());
    assert!(unit.translation_enabled() && unit.interrupt_remapping_enabled());
}

#[test]
fn a_unit_that_is_not_up_is_shut_down_by_nothing_but_a_mask() {
    let fake = Fake::new();
    let mut unit = fake.probe().unwrap();
    unit.shut_down(&mut fake.clone()).unwrap();
    assert_eq!(fake.take_log(), [Event::Write32(0x38, 1 << 31)]);
}

#[test]
fn what_firmware_has_on_goes_off_by_it_too() {
    let fake = Fake::new();
    fake.inner(|inner| inner.gsts = 1 << 31 | 1 << 26);
    let mut unit = fake.probe().unwrap();
    assert!(unit.firmware_state().contains(Global::TRANSLATION));
    unit.shut_down(&mut fake.clone()).unwrap();
    assert_eq!(steps(&fake.take_log()), [('c', 1 << 26), ('c', 0)]);
    assert!(!unit.firmware_state().contains(Global::TRANSLATION));
}

#[test]
fn a_queue_at_work_is_not_turned_off() {
    let fake = Fake::new();
    fake.inner(|inner| (inner.gsts, inner.iqt) = (1 << 26, 0x20));
    let mut unit = fake.probe().unwrap();
    let outcome = unit.shut_down(&mut fake.clone());
    assert!(matches!(outcome, Err(Error::Timeout { step: Step::DrainQueue, .. })), "{outcome:?}");
    assert!(unit.read_status().contains(Global::QUEUED_INVALIDATION));
}

#[test]
fn a_unit_that_does_not_forget_keeps_its_queue_and_is_asked_again() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.stalled = true);
    assert!(matches!(unit.shut_down(&mut memory), Err(Error::Invalidation(_))));
    assert!(unit.is_poisoned() && unit.read_status().contains(Global::QUEUED_INVALIDATION));
    assert!(!unit.translation_enabled());
    fake.inner(|inner| inner.stalled = false);
    unit.shut_down(&mut memory).unwrap();
    assert!(!unit.is_poisoned() && !unit.read_status().contains(Global::QUEUED_INVALIDATION));
}

#[test]
fn page_requests_end_with_the_unit() {
    // SMTS, SSTS, PRS.
    let fake = Fake::with(CAP, ECAP | 1 << 43 | 1 << 46 | 1 << 29);
    let mut unit = fake.probe().unwrap();
    let mut memory = fake.clone();
    unit.use_scalable_mode(crate::Pasid::ZERO).unwrap();
    unit.bring_up(&mut memory, &CONFIGURATION).unwrap();
    unit.enable_page_requests(&mut memory, 0).unwrap();
    fake.take_log();
    unit.shut_down(&mut memory).unwrap();
    assert!(fake.take_log().contains(&Event::Write32(0xe0, 1 << 31)));
    assert!(matches!(unit.drain_page_requests(&mut memory, |_| None), Err(Error::OutOfOrder { .. })));
    assert_eq!(unit.translation_mode(), TranslationMode::Legacy);
}

#[test]
fn a_batch_is_completed_by_the_unit_that_was_told_of_it() {
    // Two units of one machine, whose queues are in different memory.
    let (one, other) = (Fake::new(), Fake::new());
    other.inner(|inner| inner.next_frame += 0x100_0000);
    let ((mut one, mut memory), (mut other, mut others)) = (one.up(), other.up());
    let (start, len) = (Iova::new(0x1000), 0x1000);
    let change = Invalidation { root: HostPhys::new(0x5000), start, len, tables_changed: true, only_added: false };
    let submit = |unit: &mut super::fake::TestUnit, memory: &mut Fake| {
        let mut batch = Batch::new();
        batch.add(DomainId(5), &change);
        unit.submit_batch(memory, batch).unwrap()
    };
    let submitted = submit(&mut one, &mut memory);
    assert_eq!(other.complete_batch(&mut others, submitted), Err(Error::OtherUnit));
    let submitted = submit(&mut one, &mut memory);
    assert!(one.complete_batch(&mut memory, submitted).is_ok());
    let submitted = submit(&mut one, &mut memory);
    one.shut_down(&mut memory).unwrap();
    assert_eq!(one.complete_batch(&mut memory, submitted), Err(Error::OtherUnit));
}
