//! What hardware is made to forget.

use super::*;

#[test]
fn clearing_forgets_contexts_then_pasids_then_pages_each_domain_once() {
    let fake = Fake::with(CAP, SCALABLE);
    let (mut unit, mut memory) = up(&fake);
    unit.clear(&mut memory, SOURCE).unwrap();
    assert_eq!(fake.take_log(), []);
    attach(&mut unit, &mut memory, 7, second(TABLE)).unwrap();
    for (number, domain) in [(1, 7), (2, 9), (130, 9)] {
        unit.attach(&mut memory, SOURCE, pasid(number), DomainId(domain), second(TABLE)).unwrap();
    }
    let context = context(&fake);
    let old = words::<1>(&fake, context)[0];
    let entries = [0, 1, 2, 130].map(|number| entry(&fake, number));
    fake.take_log();
    unit.clear(&mut memory, SOURCE).unwrap();
    let log = fake.take_log();
    let cleared = |event: &Event| matches!(event, Event::Store(at, 0) if entries.contains(at));
    assert_eq!(log[0], Event::Store(context, old & !1), "the directory stays");
    assert_eq!(log.iter().filter(|event| cleared(event)).count(), 4);
    assert_eq!(Fake::executed(&log), [CONTEXT, 0x7_0007, 0x9_0007, 0x7_00e2, 0x9_00e2]);
    let last = log.iter().rposition(cleared).unwrap();
    let first = log.iter().position(|event| matches!(event, Event::Executed(..))).unwrap();
    assert!(last < first);
    unit.clear(&mut memory, SOURCE).unwrap();
    assert_eq!(fake.take_log(), []);
    // It comes back with the same directory and nothing in it.
    let frames = fake.inner(|inner| inner.next_frame);
    attach(&mut unit, &mut memory, 7, second(TABLE)).unwrap();
    assert_eq!(words::<1>(&fake, context)[0], old);
    assert_eq!(fake.inner(|inner| inner.next_frame), frames);
    for number in [1, 2, 130] {
        assert_eq!(unit.attachment(&memory, SOURCE, pasid(number)), None);
    }
}

#[test]
fn many_domains_are_forgotten_with_everything() {
    for (count, everything) in [(8, false), (9, true)] {
        let fake = Fake::with(CAP, SCALABLE);
        let (mut unit, mut memory) = up(&fake);
        for number in 1..=count {
            unit.attach(&mut memory, SOURCE, pasid(number), DomainId(number as u16), second(TABLE)).unwrap();
        }
        fake.take_log();
        unit.clear(&mut memory, SOURCE).unwrap();
        let executed = Fake::executed(&fake.take_log());
        assert_eq!(executed == GLOBAL, everything, "{executed:x?}");
        assert_eq!(executed.len(), if everything { 3 } else { 17 });
    }
}

#[test]
fn first_stage_changes_are_forgotten_by_domain_pasid_and_pages() {
    let change = |start, len, tables_changed, only_added| Invalidation {
        root: TABLE,
        start: Iova::new(start),
        len,
        tables_changed,
        only_added,
    };
    for (cap, added) in [(CAP, 0), (CACHING, 1)] {
        let fake = Fake::with(cap, SCALABLE);
        let (mut unit, mut memory) = up_with(&fake, 3);
        let mut ask = |number, change: &Invalidation<Iova>| {
            let proof = unit.invalidate_first_stage(&mut memory, DomainId(7), number, change).unwrap();
            let executed = fake.take_log().into_iter().filter_map(|event| match event {
                Event::Executed(low, high) if low & 0xf != 5 => Some((low, high)),
                _ => None,
            });
            (proof, executed.collect::<Vec<_>>())
        };
        let leaf = change(0x3000, 0x1000, false, false);
        let (proof, executed) = ask(None, &leaf);
        assert_eq!(executed, [(tags(7, 3) | 0x36, 0x3000 | 1 << 6)]);
        assert!(proof.covers(&leaf) && !proof.covers(&change(0x3000, 0x1000, true, false)));
        let (proof, executed) = ask(pasid(5), &change(0x3000, 0x2000, true, false));
        assert_eq!(executed, [(tags(7, 5) | 0x36, 3)], "pages 3 and 4: block 0 to 7");
        assert!(proof.covers(&change(0x4000, 0x1000, true, true)));
        let (_, executed) = ask(None, &change(0x1b000, 0x2000, true, false));
        assert_eq!(executed, [(tags(7, 3) | 0x36, 0x18003)], "pages 0x1b and 0x1c: block 0x18 to 0x1f");
        assert_eq!(ask(None, &change(0, 1 << 30, false, false)).1, [(tags(7, 3) | 0x36, 18 | 1 << 6)]);
        // Of more than 1 GiB, the whole PASID.
        assert_eq!(ask(None, &change(0, (1 << 30) + 0x1000, false, false)).1, [(tags(7, 3) | 0x26, 0)]);
        assert_eq!(ask(None, &change(0x3000, 0, false, false)).1, []);
        let (proof, executed) = ask(None, &change(0x3000, 0x1000, true, true));
        assert_eq!(executed.len(), added);
        assert!(!proof.covers(&leaf) && proof.covers(&change(0x3000, 0x1000, true, true)));
    }
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    let result = unit.invalidate_first_stage(&mut memory, DomainId(7), None, &change(0, 0x1000, true, false));
    assert!(matches!(result, Err(Error::Unsupported { .. })), "legacy mode");
}

#[test]
fn a_refused_descriptor_gives_way_to_one_that_forgets_more() {
    for (refused, wider) in [(tags(8, 5) | 0x17, 0x37), (tags(8, 5) | 0x26, 0xd2)] {
        let fake = Fake::with(CAP, SCALABLE);
        let (mut unit, mut memory) = up(&fake);
        unit.attach(&mut memory, SOURCE, pasid(5), DomainId(8), first(OTHER)).unwrap();
        fake.inner(|inner| inner.refused = Some((!0, refused)));
        fake.take_log();
        unit.detach(&mut memory, SOURCE, pasid(5)).unwrap();
        let executed = Fake::executed(&fake.take_log());
        assert!(executed.contains(&wider) && executed.len() == 2, "{executed:x?}");
        assert!(!unit.is_poisoned());
    }
}
