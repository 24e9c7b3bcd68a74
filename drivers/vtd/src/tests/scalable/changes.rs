//! How an entry changes, and what hardware is told of it.

use super::*;

#[test]
fn what_takes_more_than_one_store_is_taken_away_and_forgotten_first() {
    let fake = Fake::with(CAP, SCALABLE);
    let (mut unit, mut memory) = up(&fake);
    for (old, pages) in [
        (second(TABLE), 0x7_00e2),
        (nested(0x5000, TABLE), 0x7_00e2),
        (first(TABLE), tags(7, 0) | 0x26),
        (Translation::PassThrough, tags(7, 0) | 0x26),
    ] {
        let new = if old == first(TABLE) { second(OTHER) } else { first(OTHER) };
        attach(&mut unit, &mut memory, 7, old).unwrap();
        let entry = entry(&fake, 0);
        fake.take_log();
        attach(&mut unit, &mut memory, 9, new).unwrap();
        let log = events(&fake.take_log(), entry, 64);
        let forgotten = [Event::Store(entry, 0), Event::Executed(tags(7, 0) | 0x17, 0), Event::Executed(pages, 0)];
        assert_eq!(log[..3], forgotten, "{old:?}");
        assert_eq!(log.len(), 11);
        assert!(matches!(log[10], Event::Store(at, value) if at == entry && value & 1 != 0));
        // One wait for all.
        fake.take_log();
        unit.detach(&mut memory, SOURCE, None).unwrap();
        let log = fake.take_log();
        assert_eq!(log.iter().filter(|event| matches!(event, Event::Write64(0x88, _))).count(), 1);
        assert!(matches!(log[0], Event::Store(at, 0) if at == entry));
        assert_eq!(unit.attachment(&memory, SOURCE, None), None);
        unit.detach(&mut memory, SOURCE, None).unwrap();
        assert_eq!(fake.take_log(), [], "there is nothing to take away");
    }
}

#[test]
fn what_one_store_can_change_changes_by_one_store() {
    let fake = Fake::with(CAP, SCALABLE);
    let (mut unit, mut memory) = up(&fake);
    let five = Translation::SecondStage { table: TABLE, levels: Levels::Three };
    for exchanges in [false, true] {
        fake.inner(|inner| inner.exchanges = exchanges);
        for (old, new, domain, change) in [
            (second(TABLE), second(OTHER), 7, Some(0)),
            (second(TABLE), five, 7, Some(0)),
            (second(TABLE), second(TABLE), 9, Some(8)),
            (first(TABLE), first(OTHER), 7, Some(16)),
            (nested(0x5000, TABLE), nested(0x6000, TABLE), 7, Some(16)),
            (second(TABLE), Translation::PassThrough, 9, exchanges.then_some(0)),
            (second(TABLE), second(OTHER), 9, exchanges.then_some(0)),
            (first(TABLE), first(OTHER), 9, None),
            (second(TABLE), first(OTHER), 7, None),
            (nested(0x5000, TABLE), nested(0x6000, OTHER), 7, None),
        ] {
            attach(&mut unit, &mut memory, 7, old).unwrap();
            let entry = entry(&fake, 0);
            fake.take_log();
            let result = unit.reattach(&mut memory, SOURCE, None, DomainId(domain), new);
            let log = fake.take_log();
            let stored = events(&log, entry, 64);
            match change {
                Some(offset) => {
                    assert_eq!(result, Ok(()), "{old:?} {new:?}");
                    let at = entry + offset;
                    assert!(matches!(stored[0], Event::Store(to, _) | Event::Exchange(to) if to == at), "{stored:?}");
                    let pages = if matches!(old, Translation::FirstStage { .. }) { 0x7_0026 } else { 0x7_00e2 };
                    assert_eq!(stored[1..], [Event::Executed(0x7_0017, 0), Event::Executed(pages, 0)]);
                    assert_eq!(unit.attachment(&memory, SOURCE, None), Some((DomainId(domain), new)));
                }
                None => {
                    assert_eq!(result, Err(Error::NotAtomic(SOURCE)), "{old:?} {new:?}");
                    assert_eq!(log, []);
                    assert_eq!(unit.attachment(&memory, SOURCE, None), Some((DomainId(7), old)));
                }
            }
            unit.detach(&mut memory, SOURCE, None).unwrap();
            unit.reattach(&mut memory, SOURCE, None, DomainId(domain), new).unwrap();
            unit.detach(&mut memory, SOURCE, None).unwrap();
        }
        // Nothing to change is nothing to store, but what was cached may be older.
        attach(&mut unit, &mut memory, 7, second(TABLE)).unwrap();
        fake.take_log();
        unit.reattach(&mut memory, SOURCE, None, DomainId(7), second(TABLE)).unwrap();
        assert_eq!(Fake::executed(&fake.take_log()), [0x7_0017, 0x7_00e2]);
        unit.detach(&mut memory, SOURCE, None).unwrap();
    }
}

#[test]
fn in_caching_mode_what_becomes_present_is_announced_under_every_id_that_absence_had() {
    let fake = Fake::with(CACHING, SCALABLE);
    let (mut unit, mut memory) = up(&fake);
    unit.attach(&mut memory, SOURCE, pasid(5), DomainId(7), second(TABLE)).unwrap();
    let zero = tags(0, 5) | 0x17;
    let log = fake.take_log();
    assert_eq!(Fake::executed(&log), [CONTEXT, zero, zero, tags(7, 5) | 0x17, 0x7_00e2]);
    let (context, entry) = (context(&fake), entry(&fake, 5));
    let present = |at| log.iter().rposition(|event| matches!(event, Event::Store(to, _) if *to == at)).unwrap();
    let told = |low| log.iter().position(|&event| event == Event::Executed(low, 0)).unwrap();
    assert!(present(context) < told(CONTEXT) && present(entry) < told(zero), "what is cached is older than the entry");
    unit.detach(&mut memory, SOURCE, pasid(5)).unwrap();
    fake.take_log();
    unit.attach(&mut memory, SOURCE, pasid(5), DomainId(9), first(TABLE)).unwrap();
    let pages = tags(9, 5) | 0x26;
    assert_eq!(Fake::executed(&fake.take_log()), [zero, tags(7, 5) | 0x17, tags(9, 5) | 0x17, pages]);
}

#[test]
fn before_the_root_table_is_set_nothing_needs_to_be_forgotten() {
    let fake = Fake::with(CACHING, SCALABLE);
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    unit.use_scalable_mode(Pasid::ZERO).unwrap();
    let result = attach(&mut unit, &mut memory, 7, second(TABLE));
    assert!(matches!(result, Err(Error::OutOfOrder { .. })), "{result:?}");
    unit.create_root_table(&mut memory).unwrap();
    attach(&mut unit, &mut memory, 7, second(TABLE)).unwrap();
    attach(&mut unit, &mut memory, 9, first(TABLE)).unwrap();
    unit.attach(&mut memory, SOURCE, pasid(0x8000), DomainId(9), first(TABLE)).unwrap();
    unit.use_device_tlb(&mut memory, SOURCE, Some(DEVICE)).unwrap();
    unit.use_device_tlb(&mut memory, SOURCE, None).unwrap();
    unit.use_device_tlb(&mut memory, SOURCE, Some(DEVICE)).unwrap();
    unit.clear(&mut memory, SOURCE).unwrap();
    attach(&mut unit, &mut memory, 9, first(TABLE)).unwrap();
    unit.bring_up(&mut memory, &CONFIGURATION).unwrap();
    fake.take_log();
    let change =
        Invalidation { root: TABLE, start: Iova::new(0), len: 0x1000, tables_changed: true, only_added: false };
    let _ = unit.invalidate(&mut memory, DomainId(9), &change).unwrap();
    assert_eq!(device_descriptors(&fake), [], "it keeps nothing any more");
    assert_eq!(unit.attachment(&memory, SOURCE, None), Some((DomainId(9), first(TABLE))));
}

#[test]
fn everything_that_hardware_reads_is_written_back() {
    let fake = Fake::with(CAP, SCALABLE & !1);
    let (mut unit, mut memory) = up(&fake);
    // What is older is the queue's, and the driver's own.
    let root = fake.inner(|inner| inner.others[&0x20] & !0xfff);
    let start = fake.inner(|inner| inner.next_frame);
    let check = |what: &str| {
        fake.inner(|inner| {
            let tables = inner.memory.range(root..root + 4096).chain(inner.memory.range(start..));
            let late: Vec<_> = tables.filter(|(at, value)| inner.written_back.get(at) != Some(value)).collect();
            assert!(late.is_empty(), "{what}: {late:x?}");
        });
    };
    attach(&mut unit, &mut memory, 7, second(TABLE)).unwrap();
    check("a first entry");
    attach(&mut unit, &mut memory, 7, second(OTHER)).unwrap();
    check("one store");
    attach(&mut unit, &mut memory, 8, first(OTHER)).unwrap();
    check("a replaced entry");
    // At the other end of the directory, in another line of the cache.
    unit.attach(&mut memory, SOURCE, pasid(0x7fff), DomainId(9), second(TABLE)).unwrap();
    check("another PASID table");
    unit.attach(&mut memory, SOURCE, pasid(0x8000), DomainId(8), second(TABLE)).unwrap();
    check("a larger directory");
    unit.use_device_tlb(&mut memory, SOURCE, Some(DEVICE)).unwrap();
    check("DTE");
    unit.detach(&mut memory, SOURCE, pasid(0x8000)).unwrap();
    check("a detached PASID");
    unit.clear(&mut memory, SOURCE).unwrap();
    check("a cleared device");
}

#[test]
fn write_buffers_are_flushed_after_every_change_where_the_unit_needs_it() {
    let fake = Fake::with(CAP | 1 << 4, SCALABLE);
    let (mut unit, mut memory) = up(&fake);
    let flushed = |after: u64| {
        let log = fake.take_log();
        let flush = log.iter().rposition(|event| matches!(event, Event::Write32(0x18, value) if value & 1 << 27 != 0));
        let store = log.iter().rposition(|event| matches!(event, Event::Store(at, _) if *at == after));
        assert!(flush.is_some() && flush > store, "{log:x?}");
    };
    attach(&mut unit, &mut memory, 7, second(TABLE)).unwrap();
    let entry = entry(&fake, 0);
    flushed(entry);
    attach(&mut unit, &mut memory, 7, second(OTHER)).unwrap();
    flushed(entry);
    let change = Invalidation { root: TABLE, start: Iova::new(0), len: 0x1000, tables_changed: true, only_added: true };
    let _ = unit.invalidate_first_stage(&mut memory, DomainId(7), None, &change).unwrap();
    flushed(0);
}

#[test]
fn two_words_that_do_not_lie_together_are_not_exchanged_whatever_lies_between() {
    // Without snooping, word 1 is the domain id alone, and here it is what word 2 is: the first-stage table.
    let fake = Fake::with(CAP, SCALABLE & !(1 << 7));
    let (mut unit, mut memory) = up(&fake);
    fake.inner(|inner| inner.exchanges = true);
    attach(&mut unit, &mut memory, 0x5000, nested(0x5000, TABLE)).unwrap();
    let found: [u64; 3] = words(&fake, entry(&fake, 0));
    assert_eq!(found[1], found[2]);
    let new = nested(0x6000, OTHER);
    let result = unit.reattach(&mut memory, SOURCE, None, DomainId(0x5000), new);
    assert_eq!(result, Err(Error::NotAtomic(SOURCE)));
    attach(&mut unit, &mut memory, 0x5000, new).unwrap();
    assert_eq!(unit.attachment(&memory, SOURCE, None), Some((DomainId(0x5000), new)));
}
