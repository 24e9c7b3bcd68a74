//! Where entries are, what they say, and the tables that are made on the way to them.

use super::*;

#[test]
fn tables_are_made_on_the_way_and_present_bits_are_last() {
    let fake = Fake::with(CAP, SCALABLE);
    let (mut unit, mut memory) = up(&fake);
    attach(&mut unit, &mut memory, 7, second(TABLE)).unwrap();
    let log = fake.take_log();
    let (context, entry) = (context(&fake), entry(&fake, 0));
    let directory = words::<1>(&fake, context)[0] & !0xfff;
    let stored = events(&log, context, 32);
    assert_eq!(stored, [Event::Store(context + 8, 0), Event::Store(context, directory | 2 << 9 | 1 << 3 | 1)]);
    let mut expected: Vec<_> = (2..8).map(|word| Event::Store(entry + 8 * word, 0)).collect();
    expected.insert(0, Event::Store(entry + 8, 1 << 24 | 7));
    expected.push(Event::Store(entry, 0x70_0089));
    assert_eq!(events(&log, entry, 64), expected, "what is absent is not cached");
    let tables: Vec<_> =
        log.iter().filter(|event| matches!(event, Event::Store(_, value) if value & 0xfff == 1)).collect();
    let root = fake.inner(|inner| inner.others[&0x20] & !0xfff);
    assert_eq!(
        tables,
        [&Event::Store(root + 0x12 * 16 + 8, context & !0xfff | 1), &Event::Store(directory, entry & !0xfff | 1)]
    );
    // A device in the other half of the bus, and a second PASID: nothing is made twice.
    let frames = fake.inner(|inner| inner.next_frame);
    unit.attach(&mut memory, SOURCE, pasid(63), DomainId(8), second(OTHER)).unwrap();
    assert_eq!(fake.inner(|inner| inner.next_frame), frames);
    unit.attach(&mut memory, SOURCE, pasid(64), DomainId(8), second(OTHER)).unwrap();
    assert_eq!(fake.inner(|inner| inner.next_frame), frames + PAGE_SIZE, "another table");
    let low = Bdf::from_u16(0x1234);
    unit.attach(&mut memory, low, None, DomainId(8), second(OTHER)).unwrap();
    assert_eq!(words::<2>(&fake, root + 0x12 * 16).map(|word| word & 1), [1, 1]);
    assert_eq!(unit.attachment(&memory, low, None), Some((DomainId(8), second(OTHER))));
    assert_eq!(unit.attachment(&memory, low, pasid(63)), None);
}

#[test]
fn entries_say_what_was_asked_and_snoop_what_the_unit_can() {
    for (ecap, snoops) in [(SCALABLE, 1 << 24), (SCALABLE & !(1 << 7), 0), (SCALABLE | 1 << 48, 3 << 23)] {
        let fake = Fake::with(CAP | 1 << 60, ecap);
        let (mut unit, mut memory) = up(&fake);
        let five = Translation::FirstStage { table: TABLE, levels: Levels::Five };
        for (translation, word0, word2) in [
            (second(TABLE), 0x70_0089, 0),
            (first(TABLE), 0x49, 0x70_0000),
            (five, 0x49, 0x70_0004),
            (nested(0x5000, TABLE), 0x70_00c9, 0x5000),
            (nested(0, TABLE), 0x70_00c9, 0),
            (Translation::PassThrough, 0x109, 0),
        ] {
            attach(&mut unit, &mut memory, 7, translation).unwrap();
            let found: [u64; 8] = words(&fake, entry(&fake, 0));
            assert_eq!(found, [word0, snoops | 7, word2, 0, 0, 0, 0, 0]);
            assert_eq!(unit.attachment(&memory, SOURCE, None), Some((DomainId(7), translation)));
        }
    }
    let fake = Fake::with(CAP, SCALABLE & !(1 << 46));
    let (mut unit, mut memory) = up(&fake);
    attach(&mut unit, &mut memory, 7, Translation::PassThrough).unwrap();
    assert_eq!(words::<1>(&fake, entry(&fake, 0)), [0x101], "AW is reserved without a second stage");
    fake.inner(|inner| *inner.memory.get_mut(&entry_of(inner)).unwrap() |= 7 << 6);
    assert_eq!(unit.attachment(&memory, SOURCE, None), None, "somebody else's entry");
}

#[test]
fn what_is_not_present_is_not_attached_whatever_else_it_says() {
    let fake = Fake::with(CAP, SCALABLE);
    let (mut unit, mut memory) = up(&fake);
    attach(&mut unit, &mut memory, 7, second(TABLE)).unwrap();
    assert_eq!(unit.assignment(&memory, SOURCE), Some((DomainId(7), TABLE)));
    fake.inner(|inner| *inner.memory.get_mut(&entry_of(inner)).unwrap() &= !1);
    assert_eq!(unit.attachment(&memory, SOURCE, None), None);
    assert_eq!(unit.assignment(&memory, SOURCE), None);
}

#[test]
fn a_directory_grows_by_one_store_after_its_copy() {
    let fake = Fake::with(CAP, SCALABLE);
    let (mut unit, mut memory) = up_with(&fake, 3);
    attach(&mut unit, &mut memory, 7, second(TABLE)).unwrap();
    unit.use_device_tlb(&mut memory, SOURCE, Some(DEVICE)).unwrap();
    unit.attach(&mut memory, SOURCE, pasid(0x7fff), DomainId(8), second(OTHER)).unwrap();
    let context = context(&fake);
    let old = words::<2>(&fake, context);
    assert_eq!((old[0] & 0xfff, old[1]), (2 << 9 | 0xd, 3));
    fake.take_log();
    unit.attach(&mut memory, SOURCE, pasid(0x1_0000), DomainId(9), second(OTHER)).unwrap();
    let log = fake.take_log();
    let [low, high] = words::<2>(&fake, context);
    assert_eq!((low & 0xfff, high), (4 << 9 | 0xd, 3), "131072 PASIDs, the rest as before");
    let stores: Vec<_> =
        log.iter().filter(|event| matches!(event, Event::Store(at, _) if at & !31 == context)).collect();
    assert_eq!(stores, [&Event::Store(context, low)]);
    let (new, old) = (low & !0xfff, old[0] & !0xfff);
    assert_eq!(words::<512>(&fake, new), words::<512>(&fake, old));
    let switched = log.iter().position(|event| *event == Event::Store(context, low)).unwrap();
    let copied = log.iter().rposition(|event| matches!(event, Event::Store(at, _) if (new..new + 4096).contains(at)));
    assert!(copied.unwrap() < switched);
    let forgotten = log.iter().position(|event| *event == Event::Executed(CONTEXT, 0)).unwrap();
    let added = log.iter().position(|event| matches!(event, Event::Store(at, _) if *at == new + 0x400 * 8)).unwrap();
    assert!(switched < forgotten && forgotten < added, "what is added is in the new one alone");
    for (number, domain, table) in [(None, 7, TABLE), (pasid(0x7fff), 8, OTHER), (pasid(0x1_0000), 9, OTHER)] {
        assert_eq!(unit.attachment(&memory, SOURCE, number), Some((DomainId(domain), second(table))));
    }
    assert_eq!(unit.attachment(&memory, SOURCE, pasid(0x1_ffff)), None);
    assert_eq!(unit.attachment(&memory, SOURCE, pasid(0xf_ffff)), None, "beyond the directory");
    // A directory for a RID_PASID that is not in the first page of one.
    let fake = Fake::with(CAP, SCALABLE);
    let (mut unit, mut memory) = up_with(&fake, 0x4_0000);
    attach(&mut unit, &mut memory, 7, second(TABLE)).unwrap();
    assert_eq!(words::<2>(&fake, super::context(&fake)).map(|word| word & 0xf_ffff & !0xf000), [6 << 9 | 9, 0x4_0000]);
}

#[test]
fn memory_that_is_out_changes_nothing_that_is_reached() {
    // The context table, the directory and the PASID table, one by one.
    for frames in 0..3 {
        let fake = Fake::with(CAP, SCALABLE);
        let (mut unit, mut memory) = up(&fake);
        fake.inner(|inner| inner.frames_left = frames);
        assert!(matches!(attach(&mut unit, &mut memory, 7, second(TABLE)), Err(Error::OutOfMemory(_))), "{frames}");
        assert_eq!(unit.attachment(&memory, SOURCE, None), None);
        fake.inner(|inner| inner.frames_left = 3 - frames);
        attach(&mut unit, &mut memory, 7, second(TABLE)).unwrap();
        let result = unit.attach(&mut memory, SOURCE, pasid(0x8000), DomainId(8), second(TABLE));
        assert!(matches!(result, Err(Error::OutOfMemory(_))));
        assert_eq!(unit.attachment(&memory, SOURCE, None), Some((DomainId(7), second(TABLE))));
    }
}
