//! Batches: how they are cut, told of and awaited.

use super::*;

#[test]
fn the_ring_wraps_at_every_phase() {
    // 1, 2 and 33 descriptors and a wait each: the wrap falls on descriptors and on waits.
    for batch in [1, 2, 33] {
        let fake = Fake::new();
        let (mut unit, mut memory) = fake.up();
        for _ in 0..1000 {
            unit.invalidate_iotlb(&mut memory, (0..batch).map(|_| DOMAIN)).unwrap();
        }
        assert_eq!(Fake::executed(&fake.take_log()).len(), 1000 * batch);
    }
}

#[test]
fn a_batch_has_one_wait_and_one_tail_write() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    unit.invalidate_iotlb(&mut memory, [DOMAIN; 20]).unwrap();
    let log = fake.take_log();
    assert_eq!(log.iter().filter(|event| matches!(event, Event::Write64(0x88, _))).count(), 1);
    assert_eq!(log.iter().filter(|event| matches!(event, Event::Executed(low, _) if low & 0xf == 5)).count(), 1);
    unit.invalidate_iotlb(&mut memory, []).unwrap();
    unit.invalidate_iotlb(&mut memory, [range(0x1000, 0)]).unwrap();
    assert!(fake.take_log().is_empty(), "nothing to do is nothing done");
}

/// A unit whose queue is laid out so, and that is otherwise not set up.
fn queue_of(fake: &Fake, layout: QueueLayout) -> (TestUnit, Fake) {
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    unit.stop_firmware().unwrap();
    unit.mask_and_clear_faults().unwrap();
    fake.inner(|inner| inner.next_frame += PAGE_SIZE);
    unit.enable_queue_with(&mut memory, layout).unwrap();
    fake.take_log();
    (unit, memory)
}

#[test]
fn queues_of_every_size_and_width_work_through_batches_of_any_length() {
    for (size, width) in [
        (0, DescriptorWidth::Narrow),
        (0, DescriptorWidth::Wide),
        (3, DescriptorWidth::Wide),
        (7, DescriptorWidth::Narrow),
    ] {
        let layout = QueueLayout { size, width };
        let fake = Fake::with(CAP, ECAP | 1 << 43);
        let (mut unit, mut memory) = queue_of(&fake, layout);
        assert_eq!(
            fake.inner(|inner| inner.iqa & 0xfff),
            u64::from(size) | u64::from(width == DescriptorWidth::Wide) << 11
        );
        assert_eq!(
            fake.inner(|inner| inner.iqa) & !0xfff & (4096 * layout.pages() as u64 - 1),
            0,
            "aligned to its size"
        );
        assert_eq!(u64::from(layout.places()), (4096 << size) / width.bytes());
        let half = usize::from(layout.places()) / 2;
        for length in [1, half - 3, half - 2, half - 1, half, 3 * half + 7] {
            for _ in 0..if size == 7 { 1 } else { 5 } {
                unit.invalidate_iotlb(&mut memory, (0..length).map(|_| DOMAIN)).unwrap();
                let log = fake.take_log();
                assert_eq!(Fake::executed(&log).len(), length, "{layout:?}");
                let tails = log.iter().filter(|event| matches!(event, Event::Write64(0x88, _))).count();
                assert_eq!(tails, length.div_ceil(half - 2), "{layout:?}: {length}");
            }
        }
        fake.inner(|inner| assert!(inner.max_in_flight < u64::from(layout.places())));
    }
}

#[test]
fn wide_descriptors_need_scalable_mode() {
    let fake = Fake::new();
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    unit.stop_firmware().unwrap();
    unit.mask_and_clear_faults().unwrap();
    let layout = QueueLayout { size: 0, width: DescriptorWidth::Wide };
    assert!(matches!(unit.enable_queue_with(&mut memory, layout), Err(Error::Unsupported { .. })));
}

#[test]
fn a_completion_that_comes_late_completes_no_later_wait() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.late = Some(Default::default()));
    assert!(unit.invalidate_iotlb(&mut memory, [DOMAIN]).is_err());
    assert!(unit.invalidate_iotlb(&mut memory, [DOMAIN]).is_err());
    let late = fake.inner(|inner| inner.late.replace(Default::default())).unwrap();
    assert_ne!(late[0].0, late[1].0, "each generation has its own word");
    // All completions of the past arrive now; the next wait, whose own is held back, must still time out.
    fake.inner(|inner| late.iter().for_each(|&(address, data)| inner.status_write(address, data)));
    assert!(unit.invalidate_iotlb(&mut memory, [DOMAIN]).is_err());
    fake.inner(|inner| inner.late = None);
    unit.invalidate_iotlb(&mut memory, [DOMAIN]).unwrap();
}

#[test]
fn waits_without_end_that_time_out_end_when_hardware_answers_again() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.late = Some(Default::default()));
    let mut words = Vec::new();
    for _ in 0..1100 {
        let result = unit.invalidate_iotlb(&mut memory, [DOMAIN]);
        assert!(matches!(result, Err(Error::Invalidation(QueueError::Timeout { .. }))), "{result:?}");
        let (word, data) = fake.inner(|inner| inner.late.replace(Default::default())).unwrap()[0];
        assert!(!words.contains(&(word, data)), "a number is never used twice");
        assert!(word & 0xfff < 4088, "the last word is of waits that nobody awaits");
        assert!(!words.iter().rev().take(500).any(|&(earlier, _)| earlier == word), "words take turns");
        words.push((word, data));
    }
    // All completions of the past arrive, the last ones first.
    fake.inner(|inner| words.iter().rev().for_each(|&(address, data)| inner.status_write(address, data)));
    assert!(unit.invalidate_iotlb(&mut memory, [DOMAIN]).is_err());
    fake.inner(|inner| inner.late = None);
    unit.invalidate_iotlb(&mut memory, [DOMAIN]).unwrap();
}

#[test]
fn hardware_that_executes_nothing_is_a_timeout_and_poisons() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.stalled = true);
    let result = unit.invalidate_iotlb(&mut memory, [DOMAIN]);
    let Err(Error::Invalidation(QueueError::Timeout { expected, last, .. })) = result else { panic!("{result:?}") };
    assert_eq!(expected, last + 1);
    assert!(unit.is_poisoned());
}

#[test]
fn a_unit_that_disappears_during_a_wait_is_an_error_at_once() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| (inner.stalled, inner.fsts) = (true, u32::MAX));
    assert!(unit.invalidate_iotlb(&mut memory, [DOMAIN]).is_err());
}

#[test]
fn a_head_outside_the_queue_is_an_error() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| {
        inner.stalled = true;
        inner.iqh = 0x7_fff0;
        inner.fsts = 1 << 4;
    });
    let result = unit.invalidate_iotlb(&mut memory, [DOMAIN]);
    assert_eq!(result, Err(Error::Invalidation(QueueError::BadHead { head: 0x7_fff0 })));
}
