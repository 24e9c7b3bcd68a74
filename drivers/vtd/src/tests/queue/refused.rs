//! Descriptors that hardware refuses (IQE).

use super::*;

#[test]
fn a_refused_descriptor_is_done_by_one_that_says_more() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| {
        // Page-selective IOTLB invalidations.
        inner.refused = Some((0x3f, 0x32));
        inner.fsts = 1;
    });
    unit.invalidate_iotlb(&mut memory, [DOMAIN, range(0x1000, 0x1000), DOMAIN]).unwrap();
    assert!(!unit.is_poisoned(), "all that was asked is done");
    let log = fake.take_log();
    assert_eq!(Fake::executed(&log), [0x5_00e2, 0xd2, 0x5_00e2], "in its place, and so in its order");
    let clear = log.iter().position(|&event| event == Event::Write32(0x34, 0x10)).expect("IQE alone is cleared");
    let replace = log.iter().rposition(|event| matches!(event, Event::Store(..))).unwrap();
    assert!(replace < clear, "clearing IQE makes hardware fetch again");
    assert_eq!(fake.inner(|inner| inner.fsts), 1, "PFO is not the queue's to clear");
}

#[test]
fn a_unit_that_goes_on_only_when_told_of_the_tail_is_told() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| {
        inner.refused = Some((0x3f, 0x32));
        inner.wants_tail = true;
    });
    unit.invalidate_iotlb(&mut memory, [DOMAIN, range(0x1000, 0x1000), DOMAIN]).unwrap();
    assert_eq!(Fake::executed(&fake.take_log()), [0x5_00e2, 0xd2, 0x5_00e2]);
    fake.inner(|inner| (inner.refused, inner.device_error) = (None, 1 << 6));
    unit.invalidate_iotlb(&mut memory, [DOMAIN]).unwrap();
    assert_eq!(Fake::executed(&fake.take_log()), [0x5_00e2; 2], "after a timeout too");
}

#[test]
fn every_type_of_descriptor_has_one_that_says_more() {
    let source = addr::Bdf::from_u16(0x1234);
    let (pages, drain) = (Iova::new(0x5000), crate::spec::invalidation::Drain { writes: true, reads: true });
    for (part, whole) in [
        (Descriptor::context_cache_device(DomainId(7), source), Descriptor::context_cache_global()),
        (Descriptor::context_cache_domain(DomainId(7)), Descriptor::context_cache_global()),
        (Descriptor::iotlb_pages(DomainId(7), pages, 0, true, drain), Descriptor::iotlb_global(drain)),
        (Descriptor::interrupt_entry_cache_index(5, 0), Descriptor::interrupt_entry_cache_global()),
        (
            Descriptor::device_tlb_pages(source, source, 1, pages, 0),
            Descriptor::device_tlb_pages(source, source, 1, pages, 64),
        ),
    ] {
        let fake = Fake::new();
        let (mut unit, mut memory) = fake.up();
        // What is refused is the part, by what tells it from the whole.
        let told_apart = part.low ^ whole.low;
        fake.inner(|inner| inner.refused = Some((0xf | told_apart, part.low & (0xf | told_apart))));
        if told_apart == 0 {
            // Device-TLB descriptors differ in their high halves, which the fake does not look at: both are refused.
            assert!(matches!(unit.submit(&mut memory, &[part]), Err(Error::Invalidation(QueueError::Refused { .. }))));
            let log = fake.take_log();
            assert!(
                log.contains(&Event::Refused(part.low, part.high))
                    && log.contains(&Event::Refused(whole.low, whole.high))
            );
            continue;
        }
        unit.submit(&mut memory, &[part]).unwrap();
        let log = fake.take_log();
        assert!(log.contains(&Event::Refused(part.low, part.high)));
        assert!(log.contains(&Event::Executed(whole.low, whole.high)), "{part:x?}");
    }
}

#[test]
fn what_is_refused_in_every_form_is_named_and_the_rest_is_done() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.refused = Some((0xf, 2)));
    let context = Descriptor::context_cache_global();
    let iotlb = Descriptor::iotlb_domain(DomainId(5), Default::default());
    let result = unit.submit(&mut memory, &[iotlb, context]);
    let Err(Error::Invalidation(QueueError::Refused { descriptor, record, .. })) = result else { panic!("{result:?}") };
    assert_eq!((descriptor, record), (Descriptor { low: 0xd2, high: 0 }, 4));
    let log = fake.take_log();
    assert_eq!(Fake::executed(&log), [context.low]);
    let status = log.iter().find_map(|event| match event {
        Event::Executed(low, high) if low & 0xf == 5 && low >> 32 != 0 => Some(high & !0xfff),
        _ => None,
    });
    let harmless = Event::Executed(0x65, status.unwrap() + 4088);
    assert!(log.contains(&harmless), "a wait that writes where nobody looks: {log:x?}");
    assert!(unit.is_poisoned());
    fake.inner(|inner| inner.refused = None);
    unit.invalidate_iotlb(&mut memory, [DOMAIN]).unwrap();
    fake.take_log();
    unit.recover(&mut memory).unwrap();
    assert_eq!(Fake::executed(&fake.take_log()), [0x11, 0xd2, 0x04]);
    assert!(!unit.is_poisoned());
}

#[test]
fn a_unit_that_forgets_nothing_stays_poisoned() {
    for refused in [1, 2, 4] {
        let fake = Fake::new();
        let (mut unit, mut memory) = fake.up();
        unit.poison();
        fake.inner(|inner| inner.refused = Some((0xf, refused)));
        assert!(unit.recover(&mut memory).is_err());
        assert!(unit.is_poisoned());
    }
}

#[test]
fn a_refused_wait_ends_the_wait() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.refused = Some((0xf, 5)));
    let result = unit.invalidate_iotlb(&mut memory, [DOMAIN]);
    assert!(matches!(result, Err(Error::Invalidation(QueueError::Refused { .. }))), "{result:?}");
    let attempts = fake.take_log().iter().filter(|&&event| event == Event::Write32(0x34, 0x10)).count();
    assert_eq!(attempts, 1, "nothing is gained by having it refused again and again");
    // It does not stand in the way for ever.
    for wants_tail in [false, true] {
        fake.inner(|inner| {
            inner.refused = None;
            inner.wants_tail = wants_tail;
        });
        unit.invalidate_iotlb(&mut memory, [DOMAIN]).unwrap();
        fake.inner(|inner| inner.refused = Some((0xf, 5)));
        unit.invalidate_iotlb(&mut memory, [DOMAIN]).unwrap_err();
    }
}

#[test]
fn the_first_of_several_that_are_refused_is_named() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.refused = Some((0xf, 2)));
    let place = fake.inner(|inner| inner.iqt / 16);
    let batch = [5, 6, 7].map(|domain| Descriptor::iotlb_domain(DomainId(domain), Default::default()));
    let result = unit.submit(&mut memory, &batch);
    let Err(Error::Invalidation(QueueError::Refused { index, .. })) = result else { panic!("{result:?}") };
    assert_eq!(u64::from(index), place);
}

#[test]
fn what_is_refused_is_told_of_where_the_ring_was_almost_full_too() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    // 252 places are taken by what was given up; then hardware executes all of it.
    fake.inner(|inner| inner.stalled = true);
    for _ in 0..84 {
        unit.invalidate_iotlb(&mut memory, [DOMAIN; 2]).unwrap_err();
    }
    fake.inner(|inner| {
        inner.stalled = false;
        inner.run_queue();
    });
    // One batch is done and not asked for, and the next needs places that hardware has fetched meanwhile.
    let mut begin = |domain| {
        let batch = [Descriptor::iotlb_domain(DomainId(domain), Default::default())];
        fake.inner(|inner| inner.refused = (domain == 7).then_some((0xf, 2)));
        unit.begin(&mut memory, &mut batch.into_iter()).unwrap()
    };
    let (done, refused) = (begin(6), begin(7));
    let result = unit.complete(&mut memory, refused);
    assert!(matches!(result, Err(Error::Invalidation(QueueError::Refused { .. }))), "{result:?}");
    assert!(unit.is_poisoned());
    assert!(unit.complete(&mut memory, done).is_err(), "with it, for both were awaited at once");
}
