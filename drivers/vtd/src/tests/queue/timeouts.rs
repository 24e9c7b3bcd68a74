//! Devices that do not answer (ITE), and answers to nothing (ICE).

use super::*;

#[test]
fn a_device_that_does_not_answer_keeps_nothing_else_from_being_done() {
    for named in [true, false] {
        for before in 0..120 {
            let fake = Fake::new();
            let (mut unit, mut memory) = fake.up();
            // The window falls on every place of the ring.
            for _ in 0..before {
                unit.submit(&mut memory, &[Descriptor::context_cache_global()]).unwrap();
            }
            unit.assign(
                &mut memory,
                addr::Bdf::from_u16(0x20),
                DomainId(9),
                addr::HostPhys::new(0x9000),
                crate::Levels::Four,
            )
            .unwrap();
            fake.take_log();
            fake.inner(|inner| (inner.silent, inner.names_silent, inner.fsts) = ([0x20].into(), named, 1));
            let iotlb = Descriptor::iotlb_domain(DomainId(5), Default::default());
            let batch = [device_tlb(0x20), device_tlb(0x30), iotlb, device_tlb(0x20)];
            let batch = if named { &batch[..] } else { &batch[2..] };
            assert_eq!(unit.submit(&mut memory, batch), Err(Error::DeviceIsolated(addr::Bdf::from_u16(0x20))));
            let log = fake.take_log();
            let asked = log.iter().filter(|&&event| event == Event::Silent(0x20)).count();
            assert_eq!(asked, 1, "who does not answer is not asked again");
            let executed = Fake::executed(&log);
            assert!(executed.contains(&iotlb.low), "{executed:x?}");
            assert!(!named || executed.contains(&device_tlb(0x30).low), "{executed:x?}");
            // The device reaches nothing any more, and hardware has forgotten it.
            assert_eq!(unit.assignment(&memory, addr::Bdf::from_u16(0x20)), None);
            assert!(executed.ends_with(&[0x20_0009_0031, 0x9_00e2]), "{executed:x?}");
            assert!(!unit.is_poisoned(), "others are not concerned");
            assert_eq!(fake.inner(|inner| inner.fsts), 1, "ITE alone is cleared");
            unit.submit(&mut memory, &[device_tlb(0x30), iotlb]).unwrap();
        }
    }
}

#[test]
fn several_devices_that_do_not_answer_are_found_one_by_one() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    let silent: Vec<u16> = (1..=6).map(|number| number << 3).collect();
    for (number, source) in silent.iter().enumerate() {
        let (domain, table) = (DomainId(number as u16 + 1), addr::HostPhys::new((number as u64 + 1) << 12));
        unit.assign(&mut memory, addr::Bdf::from_u16(*source), domain, table, crate::Levels::Four).unwrap();
    }
    fake.take_log();
    fake.inner(|inner| inner.silent = silent.clone());
    let batch: Vec<_> = (1..=20).map(|number| device_tlb(number << 3)).collect();
    assert!(matches!(unit.submit(&mut memory, &batch), Err(Error::DeviceIsolated(_))));
    let executed = Fake::executed(&fake.take_log());
    for source in 1..=20 {
        let answered = executed.contains(&device_tlb(source << 3).low);
        assert_eq!(answered, source > 6, "{source}");
        assert!(source > 6 || unit.assignment(&memory, addr::Bdf::from_u16(source << 3)).is_none());
    }
    assert!(!unit.is_poisoned());
}

#[test]
fn hardware_that_times_out_without_end_is_given_up() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| (inner.device_error, inner.more_errors) = (1 << 6, usize::MAX));
    let result = unit.submit(&mut memory, &[Descriptor::context_cache_global()]);
    assert_eq!(result, Err(Error::Invalidation(QueueError::DeviceTimeout { source: None })));
    assert!(unit.is_poisoned());
    let tried = Fake::executed(&fake.take_log());
    assert_eq!(tried, [0x11; 9], "once, and eight times again");
    assert_eq!(fake.inner(|inner| inner.fsts) & 0x40, 0, "the queue does not stand still for it");
}

#[test]
fn a_timeout_for_no_reason_loses_nothing() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| {
        inner.device_error = 1 << 6;
        inner.fsts |= 1;
    });
    unit.invalidate_iotlb(&mut memory, [DOMAIN]).unwrap();
    assert_eq!(Fake::executed(&fake.take_log()), [0x5_00e2; 2]);
    assert_eq!(fake.inner(|inner| inner.fsts), 1, "PFO is not the queue's to clear");
}

#[test]
fn an_answer_to_nothing_isolates_who_gave_it() {
    for (source, known) in [(0x20, true), (0x30, false), (0, false)] {
        let fake = Fake::new();
        let (mut unit, mut memory) = fake.up();
        unit.assign(
            &mut memory,
            addr::Bdf::from_u16(0x20),
            DomainId(9),
            addr::HostPhys::new(0x9000),
            crate::Levels::Four,
        )
        .unwrap();
        fake.inner(|inner| {
            inner.device_error = 1 << 5;
            inner.iqercd = source << 48;
            inner.fsts |= 1;
        });
        let result = unit.invalidate_iotlb(&mut memory, [DOMAIN]);
        let expected = if known { Err(Error::DeviceIsolated(addr::Bdf::from_u16(source as u16))) } else { Ok(()) };
        assert_eq!(result, expected);
        assert_eq!(unit.assignment(&memory, addr::Bdf::from_u16(0x20)).is_none(), known);
        assert_eq!(fake.inner(|inner| inner.fsts), 1, "ICE is cleared, PFO is not the queue's to clear");
        unit.invalidate_iotlb(&mut memory, [DOMAIN]).unwrap();
        assert!(!unit.is_poisoned());
    }
}

#[test]
fn what_is_submitted_again_has_all_of_the_time_once_more() {
    for (rests, in_time) in [([700, 700], true), ([700, 1100], false), ([1100, 1], false)] {
        let fake = Fake::new();
        let (mut unit, mut memory) = fake.up();
        // A look is a millisecond, and a second is all that there is.
        fake.inner(|inner| {
            inner.rests = rests.into_iter().rev().collect();
            inner.device_error = 1 << 6;
        });
        let result = unit.invalidate_iotlb(&mut memory, [DOMAIN]);
        assert_eq!(result.is_ok(), in_time, "{rests:?}: {result:?}");
        assert_eq!(unit.is_poisoned(), !in_time);
    }
}

#[test]
fn a_completion_of_before_does_not_complete_what_is_submitted_again() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    // The wait is dropped with a timeout, and its status is written after all, while the second attempt rests for ever.
    fake.inner(|inner| {
        inner.rests = [5000, 0].into();
        (inner.device_error, inner.writes_dropped) = (1 << 6, true);
    });
    let result = unit.invalidate_iotlb(&mut memory, [DOMAIN]);
    assert!(matches!(result, Err(Error::Invalidation(QueueError::Timeout { .. }))), "{result:?}");
}

#[test]
fn what_hardware_has_not_fetched_for_a_silent_device_is_not_fetched_later() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.silent.push(0x20));
    let iotlb = Descriptor::iotlb_domain(DomainId(5), Default::default());
    let batch = [device_tlb(0x20), device_tlb(0x20), device_tlb(0x30), iotlb];
    let result = unit.submit(&mut memory, &batch);
    assert_eq!(result, Err(Error::DeviceIsolated(addr::Bdf::from_u16(0x20))));
    let log = fake.take_log();
    assert_eq!(log.iter().filter(|&&event| event == Event::Silent(0x20)).count(), 1);
    assert_eq!(Fake::executed(&log), [device_tlb(0x30).low, iotlb.low], "each once");
}

#[test]
fn a_silent_device_hides_nothing_that_was_not_done() {
    // A device that has nothing to take away does not answer. Besides, hardware refuses the rest, or rests for ever.
    let context = Descriptor::context_cache_global();
    for first in [true, false] {
        let fake = Fake::new();
        let (mut unit, mut memory) = fake.up();
        fake.inner(|inner| (inner.silent, inner.refused) = ([0x20].into(), Some((0xf, 1))));
        let batch = if first { [device_tlb(0x20), context] } else { [context, device_tlb(0x20)] };
        let result = unit.submit(&mut memory, &batch);
        assert!(matches!(result, Err(Error::Invalidation(QueueError::Refused { .. }))), "{result:?}");
        assert!(unit.is_poisoned());
        let fake = Fake::new();
        let (mut unit, mut memory) = fake.up();
        fake.inner(|inner| (inner.silent, inner.rests) = ([0x20].into(), [5000, 0].into()));
        let result = unit.submit(&mut memory, &batch);
        assert!(matches!(result, Err(Error::Invalidation(QueueError::Timeout { .. }))), "{result:?}");
        assert!(unit.is_poisoned());
        // Or it is given up, for timeouts have no end.
        let fake = Fake::new();
        let (mut unit, mut memory) = fake.up();
        fake.inner(|inner| {
            (inner.silent, inner.device_error, inner.more_errors) = ([0x20].into(), 1 << 6, usize::MAX);
        });
        let result = unit.submit(&mut memory, &batch);
        assert_eq!(result, Err(Error::Invalidation(QueueError::DeviceTimeout { source: None })));
        assert!(unit.is_poisoned());
    }
}

#[test]
fn a_piece_of_a_batch_that_was_given_up_is_not_forgotten_for_a_later_one() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    // The first piece times out until it is given up. All is well then, but for a device at the end.
    fake.inner(|inner| (inner.device_error, inner.more_errors, inner.silent) = (1 << 6, 8, [0x20].into()));
    let mut batch: Vec<_> = (0..300).map(|_| Descriptor::context_cache_global()).collect();
    batch.push(device_tlb(0x20));
    let result = unit.submit(&mut memory, &batch);
    assert_eq!(result, Err(Error::Invalidation(QueueError::DeviceTimeout { source: None })));
    assert!(unit.is_poisoned());
}
