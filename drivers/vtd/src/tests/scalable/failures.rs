//! What stands when something fails.

use super::*;

#[test]
fn an_announcement_that_fails_takes_back_what_it_announces() {
    for first_of_device in [true, false] {
        let fake = Fake::with(CACHING, SCALABLE);
        let (mut unit, mut memory) = up(&fake);
        if !first_of_device {
            unit.attach(&mut memory, SOURCE, pasid(5), DomainId(7), second(TABLE)).unwrap();
        }
        fake.inner(|inner| inner.stalled = true);
        assert!(matches!(attach(&mut unit, &mut memory, 8, second(OTHER)), Err(Error::Invalidation(_))));
        let context = words::<1>(&fake, context(&fake))[0];
        assert_eq!(context & 1 == 0, first_of_device, "the context entry");
        assert_eq!(unit.attachment(&memory, SOURCE, None), None);
        assert_eq!(attach(&mut unit, &mut memory, 8, second(OTHER)), Err(Error::Poisoned));
        assert_eq!(unit.reattach(&mut memory, SOURCE, None, DomainId(8), second(OTHER)), Err(Error::Poisoned));
        assert_eq!(unit.use_device_tlb(&mut memory, SOURCE, None), Err(Error::Poisoned));
    }
}

#[test]
fn a_failed_invalidation_leaves_nothing_and_what_failed_is_done_before_it_is_called_done() {
    for by_one_store in [true, false] {
        let fake = Fake::with(CAP, SCALABLE);
        let (mut unit, mut memory) = up(&fake);
        attach(&mut unit, &mut memory, 7, second(TABLE)).unwrap();
        fake.inner(|inner| inner.stalled = true);
        let new = if by_one_store { second(OTHER) } else { first(OTHER) };
        assert!(matches!(attach(&mut unit, &mut memory, 7, new), Err(Error::Invalidation(_))));
        assert_eq!(unit.attachment(&memory, SOURCE, None), None);
        assert!(unit.detach(&mut memory, SOURCE, None).is_err(), "the entry is clear, the cache is not");
        assert!(unit.clear(&mut memory, SOURCE).is_err());
        assert!(unit.clear(&mut memory, SOURCE).is_err());
        fake.inner(|inner| inner.stalled = false);
        fake.take_log();
        unit.detach(&mut memory, SOURCE, None).unwrap();
        assert!(Fake::executed(&fake.take_log()).ends_with(&GLOBAL));
        unit.clear(&mut memory, SOURCE).unwrap();
        assert!(Fake::executed(&fake.take_log()).ends_with(&GLOBAL));
        unit.clear(&mut memory, Bdf::from_u16(0x3456)).unwrap();
        unit.detach(&mut memory, Bdf::from_u16(0x3456), None).unwrap();
        assert_eq!(fake.take_log(), [], "what never had tables has nothing cached");
    }
}

#[test]
fn a_device_that_does_not_answer_loses_every_pasid() {
    let fake = Fake::with(CAP, SCALABLE);
    let (mut unit, mut memory) = up(&fake);
    attach(&mut unit, &mut memory, 7, second(TABLE)).unwrap();
    unit.attach(&mut memory, SOURCE, pasid(5), DomainId(8), first(OTHER)).unwrap();
    unit.use_device_tlb(&mut memory, SOURCE, Some(DEVICE)).unwrap();
    let other = Bdf::from_u16(0x1200);
    unit.attach(&mut memory, other, None, DomainId(9), second(OTHER)).unwrap();
    fake.inner(|inner| inner.silent = [SOURCE.as_u16()].into());
    fake.take_log();
    let change =
        Invalidation { root: TABLE, start: Iova::new(0), len: 0x1000, tables_changed: true, only_added: false };
    let result = unit.invalidate(&mut memory, DomainId(7), &change);
    assert_eq!(result, Err(Error::DeviceIsolated(SOURCE)));
    assert!(Fake::executed(&fake.take_log()).ends_with(&GLOBAL));
    assert_eq!(words::<1>(&fake, context(&fake))[0] & 1, 0);
    for number in [None, pasid(5)] {
        assert_eq!(unit.attachment(&memory, SOURCE, number), None);
    }
    assert_eq!(unit.attachment(&memory, other, None), Some((DomainId(9), second(OTHER))));
    assert!(!unit.is_poisoned());
    let _ = unit.invalidate(&mut memory, DomainId(7), &change).unwrap();
}

#[test]
fn what_fails_for_anothers_sake_is_taken_back_and_forgotten_by_the_device_too() {
    let silent = Bdf::from_u16(0x1200);
    for (new, one_store) in [(second(OTHER), true), (first(OTHER), false)] {
        let fake = Fake::with(CAP, SCALABLE);
        let (mut unit, mut memory) = up(&fake);
        attach(&mut unit, &mut memory, 7, second(TABLE)).unwrap();
        unit.use_device_tlb(&mut memory, SOURCE, Some(DEVICE)).unwrap();
        unit.attach(&mut memory, silent, None, DomainId(9), second(OTHER)).unwrap();
        unit.use_device_tlb(&mut memory, silent, Some(DEVICE)).unwrap();
        // Another device answers what was not asked, while hardware is told of the change.
        fake.inner(|inner| (inner.device_error, inner.iqercd) = (1 << 5, u64::from(silent.as_u16()) << 48));
        fake.take_log();
        let failed = attach(&mut unit, &mut memory, 7, new);
        assert_eq!(failed, Err(Error::DeviceIsolated(silent)), "{new:?}");
        let log = fake.take_log();
        assert_eq!(unit.attachment(&memory, SOURCE, None), None);
        assert_eq!(unit.attachment(&memory, silent, None), None);
        assert!(!unit.is_poisoned());
        if one_store {
            // The new entry stood for a moment. It is withdrawn, and then the PASID, the pages and the device forget.
            let entry = entry(&fake, 0);
            let all = Descriptor::device_tlb_pages(SOURCE, FUNCTION, 4, Iova::new(0), 64);
            let order = [
                Event::Store(entry, 0),
                Event::Executed(tags(7, 0) | 0x17, 0),
                Event::Executed(0x7_00e2, 0),
                Event::Executed(all.low, all.high),
            ];
            let places = order.map(|wanted| log.iter().rposition(|&event| event == wanted).unwrap());
            assert!(places.is_sorted(), "{log:x?}");
        }
        attach(&mut unit, &mut memory, 7, new).unwrap();
        assert_eq!(unit.attachment(&memory, SOURCE, None), Some((DomainId(7), new)));
    }
}
