use super::fake::{CAP, ECAP, Event, Fake};
use super::std::vec::Vec;
use crate::{Batch, Error};
use addr::{DomainId, HostPhys, Iova};
use paging::{Invalidation, InvalidationComplete};

const DOMAIN: DomainId = DomainId(5);

fn change(start: u64, len: u64) -> Invalidation<Iova> {
    let root = HostPhys::new(0x5000);
    Invalidation { root, start: Iova::new(start), len, tables_changed: false, only_added: false }
}

/// Descriptors, waits and tail writes of a log.
fn figures(log: &[Event]) -> (usize, usize, usize) {
    let waits = log.iter().filter(|event| matches!(event, Event::Executed(low, _) if low & 0xf == 5)).count();
    let tails = log.iter().filter(|event| matches!(event, Event::Write64(0x88, _))).count();
    (Fake::executed(log).len(), waits, tails)
}

fn run(fake: &Fake, changes: impl Iterator<Item = (DomainId, Invalidation<Iova>)>) -> (usize, usize, usize) {
    let (mut unit, mut memory) = fake.up();
    let mut batch = Batch::new();
    let changes: Vec<_> = changes.collect();
    changes.iter().for_each(|(domain, change)| batch.add(*domain, change));
    assert_eq!(batch.is_empty(), changes.is_empty());
    let submitted = unit.submit_batch(&mut memory, batch).unwrap();
    let proof = unit.complete_batch(&mut memory, submitted).unwrap();
    assert!(changes.iter().step_by(changes.len() / 100 + 1).all(|(_, change)| proof.covers(change)));
    figures(&fake.take_log())
}

#[test]
fn pages_unmapped_one_by_one_are_one_wait_and_one_tail_write() {
    for (pages, descriptors) in [(1, 1), (512, 1), (262_144, 1)] {
        let fake = Fake::new();
        let figures = run(&fake, (0..pages).map(|page| (DOMAIN, change((page << 12) + (1 << 30), 0x1000))));
        assert_eq!(figures, (descriptors, 1, 1), "{pages} pages");
    }
    // Backwards, and every second one first.
    assert_eq!(run(&Fake::new(), (0..64).rev().map(|page| (DOMAIN, change(page << 12, 0x1000)))), (1, 1, 1));
    let halves = (0..16).map(|page| page * 2).chain((0..16).map(|page| page * 2 + 1));
    assert_eq!(run(&Fake::new(), halves.map(|page| (DOMAIN, change(page << 12, 0x1000)))), (1, 1, 1));
}

#[test]
fn however_many_changes_there_are_there_is_one_wait_and_one_tail_write() {
    // Scattered in one domain; scattered over more domains than the batch keeps apart.
    let scattered = (0..1000).map(|page| (DOMAIN, change(page << 24, 0x1000)));
    assert_eq!(run(&Fake::new(), scattered), (1, 1, 1), "the domain, once");
    let few = (0..10).map(|page| (DOMAIN, change(page << 24, 0x1000)));
    assert_eq!(run(&Fake::new(), few), (10, 1, 1));
    // Two domains: one whole, one by its pages.
    let two = [(DOMAIN, change(0, 1 << 40)), (DOMAIN, change(1 << 45, 0x1000)), (DomainId(6), change(0, 0x1000))];
    assert_eq!(run(&Fake::new(), two.into_iter()), (2, 1, 1));
    let without_pages = Fake::with(CAP & !(1 << 39), ECAP);
    let three = [(DOMAIN, change(0, 0x1000)), (DomainId(6), change(0, 0x1000)), (DOMAIN, change(1 << 30, 0x1000))];
    assert_eq!(run(&without_pages, three.into_iter()), (2, 1, 1), "each domain once");
    let many = (1..100).map(|domain| {
        let root = HostPhys::new(u64::from(domain) << 12);
        (DomainId(domain), Invalidation { root, ..change(0x1000, 0x1000) })
    });
    let fake = Fake::new();
    assert_eq!(run(&fake, many), (1, 1, 1), "everything");
    assert_eq!(run(&Fake::new(), core::iter::empty()), (0, 0, 0));
}

#[test]
fn a_batch_covers_what_is_in_it_and_nothing_else() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    let mut batch = Batch::new();
    batch.add(DOMAIN, &change(0x1000, 0x1000));
    batch.add(DOMAIN, &change(0x8000, 0x1000));
    let added = Invalidation { only_added: true, ..change(0x20_0000, 0x1000) };
    batch.add(DOMAIN, &added);
    let submitted = unit.submit_batch(&mut memory, batch).unwrap();
    let proof = unit.complete_batch(&mut memory, submitted).unwrap();
    assert_eq!(Fake::executed(&fake.take_log()).len(), 2, "what was only added was not cached");
    assert!(proof.covers(&change(0x1000, 0x1000)) && proof.covers(&change(0x8000, 0x1000)) && proof.covers(&added));
    assert!(!proof.covers(&change(0x1000, 0x2000)), "not what is between");
    assert!(!proof.covers(&change(0, 0x2000)));
    assert!(!proof.covers(&change(0x20_0000, 0x1000)), "what was removed is another thing");
    assert!(!proof.covers(&Invalidation { tables_changed: true, ..change(0x1000, 0x1000) }));
    assert!(!proof.covers(&Invalidation { root: HostPhys::new(0x6000), ..change(0x1000, 0x1000) }));
}

#[test]
fn neighbours_that_become_one_keep_what_each_asks_for() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    let mut batch = Batch::new();
    batch.add(DOMAIN, &Invalidation { only_added: true, ..change(0x1000, 0x1000) });
    batch.add(DOMAIN, &Invalidation { tables_changed: true, ..change(0x2000, 0x1000) });
    // The same addresses under another id, and of another table, are not neighbours.
    batch.add(DomainId(6), &change(0x3000, 0x1000));
    batch.add(DOMAIN, &Invalidation { root: HostPhys::new(0x6000), ..change(0x3000, 0x1000) });
    let submitted = unit.submit_batch(&mut memory, batch).unwrap();
    let proof = unit.complete_batch(&mut memory, submitted).unwrap();
    let log = fake.take_log();
    let ranges: Vec<_> = log
        .iter()
        .filter_map(|event| match event {
            Event::Executed(low, high) if low & 0xf == 2 => Some((low >> 16 & 0xffff, *high)),
            _ => None,
        })
        .collect();
    assert_eq!(ranges, [(5, 2), (6, 0x3040), (5, 0x3040)], "without the hint where tables changed");
    assert!(proof.covers(&Invalidation { tables_changed: true, ..change(0x1000, 0x2000) }));
}

#[test]
fn in_whatever_order_changes_come_the_stricter_is_done() {
    let added = |start| Invalidation { only_added: true, ..change(start, 0x1000) };
    let tables = |start| Invalidation { tables_changed: true, ..change(start, 0x1000) };
    // Neighbours; and of more ranges than a batch keeps apart, the last, which joins one that is far away.
    let scattered = |number: u64| change(number << 16, 0x1000);
    for crowd in [0, 15, 16] {
        for (first, second) in [(0x1000, 0x2000), (0x2000, 0x1000), (0x1000, 0x1000), (0x1000, 0x1f_0000)] {
            for order in [[tables(first), added(second)], [added(first), tables(second)]] {
                let fake = Fake::new();
                let (mut unit, mut memory) = fake.up();
                let mut batch = Batch::new();
                let all = order.iter().take(1).copied().chain((1..=crowd).map(scattered)).chain([order[1]]);
                all.for_each(|change| batch.add(DOMAIN, &change));
                let submitted = unit.submit_batch(&mut memory, batch).unwrap();
                let proof = unit.complete_batch(&mut memory, submitted).unwrap();
                for change in order.into_iter().chain((1..=crowd).map(scattered)) {
                    assert!(proof.covers(&change), "{crowd}: {order:x?}");
                }
                // What has lost a table is forgotten without the hint (IH).
                let lost = order.iter().find(|change| change.tables_changed).map(|change| change.start.as_u64() >> 12);
                let without_hint = fake.take_log().into_iter().any(|event| match event {
                    Event::Executed(low, high) if low & 0x3f == 0x32 => {
                        high & 0x40 == 0 && Some(high >> 12) == lost.map(|page| page >> (high & 0x3f) << (high & 0x3f))
                    }
                    _ => false,
                });
                assert!(without_hint, "{crowd}: {order:x?}");
            }
        }
    }
}

#[test]
fn a_batch_of_one_domain_too_many_is_everything_and_covers_all() {
    let of = |number: u16| {
        let root = HostPhys::new(u64::from(number) << 12);
        (DomainId(number), Invalidation { root, ..change(0x1000, 0x1000) })
    };
    for (count, descriptors) in [(15, 15), (16, 16), (17, 1), (18, 1)] {
        let fake = Fake::new();
        let (mut unit, mut memory) = fake.up();
        let mut batch = Batch::new();
        (1..=count).map(of).for_each(|(domain, change)| batch.add(domain, &change));
        assert!(!batch.is_empty());
        let submitted = unit.submit_batch(&mut memory, batch).unwrap();
        let proof = unit.complete_batch(&mut memory, submitted).unwrap();
        let executed = Fake::executed(&fake.take_log());
        assert_eq!((executed.len(), executed.contains(&0xd2)), (descriptors, count > 16));
        assert!((1..=count).map(of).all(|(_, change)| proof.covers(&change)));
        assert_eq!(proof.covers(&of(99).1), count > 16);
    }
}

#[test]
fn what_was_only_added_needs_a_write_buffer_flush_or_an_invalidation_or_nothing() {
    let added = || core::iter::once((DOMAIN, Invalidation { only_added: true, ..change(0x1000, 0x1000) }));
    assert_eq!(run(&Fake::new(), added()), (0, 0, 0));
    assert_eq!(run(&Fake::with(CAP | 1 << 7, ECAP), added()), (1, 1, 1));
    let fake = Fake::with(CAP | 1 << 4, ECAP);
    let (mut unit, mut memory) = fake.up();
    let mut batch = Batch::new();
    added().for_each(|(domain, change)| batch.add(domain, &change));
    let submitted = unit.submit_batch(&mut memory, batch).unwrap();
    assert!(matches!(fake.take_log()[..], [Event::Write32(0x18, value)] if value & 1 << 27 != 0));
    unit.complete_batch(&mut memory, submitted).unwrap();
}

#[test]
fn several_units_work_while_none_is_awaited() {
    let fakes = [Fake::new(), Fake::new(), Fake::new()];
    let mut units: Vec<_> = fakes.iter().map(Fake::up).collect();
    fakes.iter().for_each(|fake| fake.inner(|inner| inner.stalled = true));
    let submitted: Vec<_> = units
        .iter_mut()
        .map(|(unit, memory)| {
            let mut batch = Batch::new();
            batch.add(DOMAIN, &change(0x1000, 0x1000));
            unit.submit_batch(memory, batch).unwrap()
        })
        .collect();
    // All have been told, none is done.
    for fake in &fakes {
        fake.inner(|inner| {
            assert_eq!((inner.iqh, inner.iqt), (inner.iqh, inner.iqh + 32));
            inner.stalled = false;
            inner.run_queue();
        });
    }
    for ((unit, memory), submitted) in units.iter_mut().zip(submitted) {
        assert!(unit.complete_batch(memory, submitted).unwrap().covers(&change(0x1000, 0x1000)));
    }
}

#[test]
fn batches_may_be_awaited_in_any_order_and_each_is_told_of_its_failure() {
    let batch = || {
        let mut batch = Batch::new();
        batch.add(DOMAIN, &change(0x1000, 0x1000));
        batch
    };
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    let first = unit.submit_batch(&mut memory, batch()).unwrap();
    let second = unit.submit_batch(&mut memory, batch()).unwrap();
    unit.complete_batch(&mut memory, second).unwrap();
    unit.complete_batch(&mut memory, first).unwrap();
    fake.inner(|inner| inner.stalled = true);
    let first = unit.submit_batch(&mut memory, batch()).unwrap();
    let second = unit.submit_batch(&mut memory, batch()).unwrap();
    assert!(unit.complete_batch(&mut memory, second).is_err());
    fake.inner(|inner| {
        inner.stalled = false;
        inner.run_queue();
    });
    let third = unit.submit_batch(&mut memory, batch()).unwrap();
    unit.complete_batch(&mut memory, third).unwrap();
    assert!(matches!(unit.complete_batch(&mut memory, first), Err(Error::Invalidation(_))), "it was given up");
}

#[test]
fn a_batch_that_is_forgotten_does_no_harm_to_the_next() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    for _ in 0..1000 {
        let mut batch = Batch::new();
        batch.add(DOMAIN, &change(0x1000, 0x1000));
        let _forgotten = unit.submit_batch(&mut memory, batch).unwrap();
    }
    fake.inner(|inner| assert!(inner.max_in_flight < 256));
    let mut batch = Batch::new();
    batch.add(DOMAIN, &change(0x1000, 0x1000));
    let submitted = unit.submit_batch(&mut memory, batch).unwrap();
    unit.complete_batch(&mut memory, submitted).unwrap();
}

#[test]
fn a_batch_that_is_done_is_not_told_of_one_that_fails_later() {
    let submit = |unit: &mut super::fake::TestUnit, memory: &mut Fake| {
        let mut batch = Batch::new();
        batch.add(DOMAIN, &change(0x1000, 0x1000));
        unit.submit_batch(memory, batch).unwrap()
    };
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    let first = submit(&mut unit, &mut memory);
    let second = submit(&mut unit, &mut memory);
    unit.complete_batch(&mut memory, second).unwrap();
    fake.inner(|inner| inner.stalled = true);
    let third = submit(&mut unit, &mut memory);
    assert!(matches!(unit.complete_batch(&mut memory, third), Err(Error::Invalidation(_))));
    assert!(unit.complete_batch(&mut memory, first).unwrap().covers(&change(0x1000, 0x1000)));
}

#[test]
fn failures_one_after_another_reach_all_that_they_concern_and_no_others() {
    let submit = |unit: &mut super::fake::TestUnit, memory: &mut Fake| {
        let mut batch = Batch::new();
        batch.add(DOMAIN, &change(0x1000, 0x1000));
        unit.submit_batch(memory, batch).unwrap()
    };
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    let stall = |stalled| {
        fake.inner(|inner| {
            inner.stalled = stalled;
            inner.run_queue();
        });
    };
    // Of the first failure, one has not asked when the second comes.
    stall(true);
    let first = submit(&mut unit, &mut memory);
    let second = submit(&mut unit, &mut memory);
    assert!(unit.complete_batch(&mut memory, second).is_err());
    let third = submit(&mut unit, &mut memory);
    assert!(unit.complete_batch(&mut memory, third).is_err());
    assert!(unit.complete_batch(&mut memory, first).is_err(), "it was never done");
    // What is done between two failures has not failed.
    stall(false);
    let fourth = submit(&mut unit, &mut memory);
    let fifth = submit(&mut unit, &mut memory);
    unit.complete_batch(&mut memory, fifth).unwrap();
    stall(true);
    let sixth = submit(&mut unit, &mut memory);
    assert!(unit.complete_batch(&mut memory, sixth).is_err());
    unit.complete_batch(&mut memory, fourth).unwrap();
}
