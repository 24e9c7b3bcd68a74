//! Devices that keep translations themselves.

use super::*;

#[test]
fn a_device_with_a_tlb_of_its_own_forgets_after_the_unit_and_no_more_than_it_must() {
    let fake = Fake::with(CAP, SCALABLE);
    let (mut unit, mut memory) = up(&fake);
    let all = Descriptor::device_tlb_pages(SOURCE, FUNCTION, 4, Iova::new(0), 64);
    let of =
        |number, address, mask| Descriptor::pasid_device_tlb(SOURCE, FUNCTION, 4, number, Iova::new(address), mask);
    let missing = unit.use_device_tlb(&mut memory, SOURCE, Some(DEVICE));
    assert!(matches!(missing, Err(Error::OutOfOrder { .. })), "nothing is attached");
    attach(&mut unit, &mut memory, 7, second(TABLE)).unwrap();
    unit.attach(&mut memory, SOURCE, pasid(5), DomainId(8), first(OTHER)).unwrap();
    let context = context(&fake);
    let before = words::<1>(&fake, context)[0];
    fake.take_log();
    unit.use_device_tlb(&mut memory, SOURCE, Some(DEVICE)).unwrap();
    assert_eq!(words::<1>(&fake, context), [before | 4], "DTE");
    let log = fake.take_log();
    assert_eq!(events(&log, context, 32)[..2], [Event::Store(context, before | 4), Event::Executed(CONTEXT, 0)]);

    // Second stage: all devices, with PASIDs and without. First stage: one PASID.
    let change =
        Invalidation { root: TABLE, start: Iova::new(0x3000), len: 0x1000, tables_changed: true, only_added: false };
    let _ = unit.invalidate(&mut memory, DomainId(7), &change).unwrap();
    let page = Descriptor::device_tlb_pages(SOURCE, FUNCTION, 4, Iova::new(0x3000), 0);
    assert_eq!(device_descriptors(&fake), [page, of(None, 0x3000, 0)]);
    let _ = unit.invalidate_first_stage(&mut memory, DomainId(8), pasid(5), &change).unwrap();
    assert_eq!(device_descriptors(&fake), [of(pasid(5), 0x3000, 0)]);
    let _ = unit.invalidate_first_stage(&mut memory, DomainId(8), None, &change).unwrap();
    assert_eq!(device_descriptors(&fake), [page]);

    // One PASID goes, requests without PASID move, then all goes.
    unit.detach(&mut memory, SOURCE, pasid(5)).unwrap();
    assert_eq!(device_descriptors(&fake), [of(pasid(5), 0, 64)]);
    attach(&mut unit, &mut memory, 7, second(OTHER)).unwrap();
    assert_eq!(device_descriptors(&fake), [all]);
    unit.clear(&mut memory, SOURCE).unwrap();
    assert_eq!(device_descriptors(&fake), [all, of(None, 0, 64)]);
    let _ = unit.invalidate(&mut memory, DomainId(7), &change).unwrap();
    assert_eq!(device_descriptors(&fake), [], "it keeps nothing any more");

    // By the calls of legacy mode; and no more.
    unit.assign_with_device_tlb(&mut memory, SOURCE, DomainId(7), TABLE, Levels::Four, DEVICE).unwrap();
    assert_eq!(words::<1>(&fake, context)[0] & 4, 4);
    fake.take_log();
    unit.assign(&mut memory, SOURCE, DomainId(7), OTHER, Levels::Four).unwrap();
    assert_eq!(words::<1>(&fake, context)[0] & 4, 0);
    fake.take_log();
    let _ = unit.invalidate(&mut memory, DomainId(7), &change).unwrap();
    assert_eq!(device_descriptors(&fake), []);
    unit.use_device_tlb(&mut memory, SOURCE, Some(DEVICE)).unwrap();
    fake.take_log();
    unit.use_device_tlb(&mut memory, SOURCE, None).unwrap();
    assert_eq!(device_descriptors(&fake), [all, of(None, 0, 64)]);
    unit.use_device_tlb(&mut memory, SOURCE, None).unwrap();
    assert_eq!(fake.take_log(), [], "there is nothing to change");

    // A unit without PASIDs has no descriptors for them.
    let fake = Fake::with(CAP, SCALABLE & !(1 << 40));
    let (mut unit, mut memory) = up(&fake);
    unit.assign_with_device_tlb(&mut memory, SOURCE, DomainId(7), TABLE, Levels::Four, DEVICE).unwrap();
    fake.take_log();
    let _ = unit.invalidate(&mut memory, DomainId(7), &change).unwrap();
    assert_eq!(device_descriptors(&fake), [page]);
    unit.clear(&mut memory, SOURCE).unwrap();
    assert_eq!(device_descriptors(&fake), [all]);
}

#[test]
fn device_tlbs_are_refused_where_there_are_none_and_beyond_the_list() {
    let fake = Fake::with(CAP, SCALABLE & !(1 << 2));
    let (mut unit, mut memory) = up(&fake);
    attach(&mut unit, &mut memory, 7, second(TABLE)).unwrap();
    let refused = |result: Result<(), Error>| assert!(matches!(result, Err(Error::Unsupported { .. })), "{result:?}");
    refused(unit.use_device_tlb(&mut memory, SOURCE, Some(DEVICE)));
    refused(unit.assign_with_device_tlb(&mut memory, SOURCE, DomainId(9), TABLE, Levels::Four, DEVICE));
    assert_eq!(unit.assignment(&memory, SOURCE), Some((DomainId(7), TABLE)));
    let (mut legacy, mut legacy_memory) = Fake::with(CAP, SCALABLE).up();
    refused(legacy.use_device_tlb(&mut legacy_memory, SOURCE, Some(DEVICE)));
    let fake = Fake::with(CAP, SCALABLE);
    let (mut unit, mut memory) = up(&fake);
    let mut add = |number: u16| {
        let source = Bdf::from_u16(number);
        unit.assign_with_device_tlb(&mut memory, source, DomainId(7), TABLE, Levels::Four, DEVICE)
    };
    for number in 0..32 {
        add(number).unwrap();
    }
    assert_eq!(add(32), Err(Error::TooManyDeviceTlbs(Bdf::from_u16(32))));
    add(31).unwrap();
}

#[test]
fn a_device_that_is_permitted_again_is_asked_once_and_as_was_said_last() {
    let fake = Fake::with(CAP, SCALABLE & !(1 << 40));
    let (mut unit, mut memory) = up(&fake);
    attach(&mut unit, &mut memory, 7, second(TABLE)).unwrap();
    for queue_depth in [4, 9] {
        unit.use_device_tlb(&mut memory, SOURCE, Some(DeviceTlb { queue_depth, ..DEVICE })).unwrap();
        assert_eq!(words::<1>(&fake, context(&fake))[0] & 4, 4, "DTE");
        fake.take_log();
        let change = Invalidation {
            root: TABLE,
            start: Iova::new(0x3000),
            len: 0x1000,
            tables_changed: true,
            only_added: false,
        };
        let _proof = unit.invalidate(&mut memory, DomainId(7), &change).unwrap();
        let page = Descriptor::device_tlb_pages(SOURCE, FUNCTION, queue_depth, Iova::new(0x3000), 0);
        assert_eq!(device_descriptors(&fake), [page]);
    }
}

#[test]
fn devices_with_pasids_are_not_asked_alone_for_less_than_they_were_asked_for() {
    let fake = Fake::with(CAP, SCALABLE);
    let (mut unit, mut memory) = up(&fake);
    let sources = [SOURCE, Bdf::from_u16(0x1200)];
    for source in sources {
        unit.attach(&mut memory, source, None, DomainId(7), second(TABLE)).unwrap();
        unit.use_device_tlb(&mut memory, source, Some(DEVICE)).unwrap();
    }
    fake.inner(|inner| (inner.names_silent, inner.silent) = (false, [SOURCE.as_u16()].into()));
    let change =
        Invalidation { root: TABLE, start: Iova::new(0x3000), len: 0x1000, tables_changed: true, only_added: false };
    let result = unit.invalidate(&mut memory, DomainId(7), &change);
    assert!(matches!(result, Err(Error::DeviceIsolated(_))), "{result:?}");
    // Either may have been the silent one, and what either keeps of a PASID is not known to be forgotten.
    assert_eq!(sources.map(|source| unit.attachment(&memory, source, None)), [None; 2]);
    assert!(!unit.is_poisoned());
}
