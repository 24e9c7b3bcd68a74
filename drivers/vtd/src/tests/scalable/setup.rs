//! Which mode a unit is in, and what it must have for it.

use super::*;

#[test]
fn the_mode_the_width_of_descriptors_and_what_is_forgotten_follow_one_choice() {
    let fake = Fake::with(CAP, SCALABLE);
    let mut unit = fake.probe().unwrap();
    let mut memory = fake.clone();
    assert_eq!(unit.translation_mode(), TranslationMode::Legacy);
    unit.use_scalable_mode(Pasid::ZERO).unwrap();
    assert_eq!(unit.translation_mode(), TranslationMode::Scalable);
    assert_eq!(super::super::std::format!("{:?}", unit.scalable), "Some(Scalable(RID_PASID 0x0))");
    unit.bring_up(&mut memory, &CONFIGURATION).unwrap();
    fake.inner(|inner| {
        assert_eq!(inner.others[&0x20] & 0xfff, 1 << 10, "TTM");
        assert_eq!(inner.iqa & 0xfff, 1 << 11 | 1, "DW, two pages");
        assert!((inner.others[&0x20] & !0xfff..).step_by(8).take(512).all(|word| inner.memory[&word] == 0));
    });
    let log = fake.take_log();
    assert_eq!(Fake::executed(&log)[..3], GLOBAL, "contexts, PASIDs, pages");
    assert_eq!((QueueLayout::SCALABLE.places(), QueueLayout::SCALABLE.pages()), (256, 2));

    let fake = Fake::with(CAP, SCALABLE);
    let mut unit = fake.probe().unwrap();
    unit.use_scalable_mode(Pasid::ZERO).unwrap();
    unit.stop_firmware().unwrap();
    unit.mask_and_clear_faults().unwrap();
    let narrow = QueueLayout { size: 0, width: DescriptorWidth::Narrow };
    let result = unit.enable_queue_with(&mut fake.clone(), narrow);
    assert!(matches!(result, Err(Error::Unsupported { .. })), "{result:?}");
    unit.enable_queue_with(&mut fake.clone(), QueueLayout { size: 0, width: DescriptorWidth::Wide }).unwrap();
    let result = unit.use_scalable_mode(Pasid::ZERO);
    assert!(matches!(result, Err(Error::OutOfOrder { .. })), "the queue is on");
}

#[test]
fn what_the_mode_needs_is_asked_for() {
    let refused = |cap, ecap, rid| {
        let mut unit = Fake::with(cap, ecap).probe().unwrap();
        let result = unit.use_scalable_mode(Pasid::new(rid).unwrap());
        assert_eq!(result.is_err(), unit.translation_mode() == TranslationMode::Legacy);
        matches!(result, Err(Error::Unsupported { .. }))
    };
    assert!(!refused(CAP, SCALABLE, 7));
    assert!(refused(CAP, SCALABLE & !(1 << 43), 0));
    assert!(refused(CAP, SCALABLE & !(1 << 1), 0));
    assert!(!refused(CAP, SCALABLE & !(1 << 46), 0));
    assert!(!refused(CAP, SCALABLE & !(1 << 47), 0));
    assert!(refused(CAP, SCALABLE & !(3 << 46), 0));
    assert!(!refused(CAP, SCALABLE & !(1 << 49), 0));
    assert!(refused(CAP, SCALABLE & !(1 << 49), 7));
    let mut unit = Fake::with(CAP, SCALABLE).probe().unwrap();
    unit.create_root_table(&mut Fake::with(CAP, SCALABLE)).unwrap();
    assert!(matches!(unit.use_scalable_mode(Pasid::ZERO), Err(Error::OutOfOrder { .. })));
    for (ecap, coherent) in [(SCALABLE, false), (SCALABLE & !1 | 1 << 48, true)] {
        let fake = Fake::with(CAP, ecap);
        assert_eq!(fake.probe().unwrap().page_walks_are_coherent(), ecap & 1 != 0);
        assert_eq!(up(&fake).0.page_walks_are_coherent(), coherent);
    }
}

#[test]
fn legacy_mode_attaches_by_context_entries() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    attach(&mut unit, &mut memory, 7, second(TABLE)).unwrap();
    assert_eq!(unit.attachment(&memory, SOURCE, None), Some((DomainId(7), second(TABLE))));
    fake.take_log();
    unit.reattach(&mut memory, SOURCE, None, DomainId(7), second(OTHER)).unwrap();
    let result = unit.reattach(&mut memory, SOURCE, None, DomainId(9), second(TABLE));
    assert_eq!(result, Err(Error::NotAtomic(SOURCE)));
    let result = unit.reattach(&mut memory, SOURCE, None, DomainId(9), Translation::PassThrough);
    assert_eq!(result, Err(Error::NotAtomic(SOURCE)));
    attach(&mut unit, &mut memory, 9, second(TABLE)).unwrap();
    assert_eq!(unit.attachment(&memory, SOURCE, None), Some((DomainId(9), second(TABLE))));
    attach(&mut unit, &mut memory, 9, Translation::PassThrough).unwrap();
    let entry = fake.inner(|inner| (inner.memory[&(inner.others[&0x20] + 0x12 * 16)] & !0xfff) + 0xb4 * 16);
    assert_eq!(words::<2>(&fake, entry), [9, 0x902], "four levels are the most that there are");
    assert_eq!(unit.attachment(&memory, SOURCE, None), Some((DomainId(9), Translation::PassThrough)));
    assert_eq!(unit.assignment(&memory, SOURCE), None);
    unit.detach(&mut memory, SOURCE, None).unwrap();
    assert_eq!((unit.attachment(&memory, SOURCE, None), unit.attachment(&memory, SOURCE, pasid(1))), (None, None));
    for result in [
        unit.attach(&mut memory, SOURCE, pasid(1), DomainId(7), second(TABLE)),
        unit.attach(&mut memory, SOURCE, None, DomainId(7), first(TABLE)),
        unit.attach(&mut memory, SOURCE, None, DomainId(7), nested(0, TABLE)),
        unit.detach(&mut memory, SOURCE, pasid(1)),
    ] {
        assert!(matches!(result, Err(Error::Unsupported { .. })), "{result:?}");
    }
    let (mut unit, mut memory) = Fake::with(CAP, ECAP & !(1 << 6)).up();
    let result = attach(&mut unit, &mut memory, 9, Translation::PassThrough);
    assert!(matches!(result, Err(Error::Unsupported { .. })), "{result:?}");
}
