use super::fake::{CAP, ECAP, Event, Fake, TestUnit};
use super::std::vec::Vec;
use crate::{Error, Levels};
use addr::{Bdf, DomainId, HostPhys, Iova};
use paging::{Invalidation, InvalidationComplete};

const SOURCE: Bdf = Bdf::from_u16(0x1234);
const OLD: (DomainId, HostPhys) = (DomainId(7), HostPhys::new(0x70_0000));
const NEW: (DomainId, HostPhys) = (DomainId(9), HostPhys::new(0x90_0000));

fn assign(unit: &mut TestUnit, memory: &mut Fake, (domain, table): (DomainId, HostPhys)) -> Result<(), Error> {
    unit.assign(memory, SOURCE, domain, table, Levels::Four)
}

fn entry(fake: &Fake) -> u64 {
    fake.inner(|inner| (inner.memory[&(inner.others[&0x20] + 0x12 * 16)] & !0xfff) + 0x34 * 16)
}

#[test]
fn nothing_is_assigned_by_default() {
    let fake = Fake::new();
    let (unit, memory) = fake.up();
    assert_eq!(unit.assignment(&memory, SOURCE), None);
    fake.inner(|inner| {
        let root = inner.others[&0x20];
        assert!((root..root + 4096).step_by(8).all(|word| inner.memory[&word] == 0));
    });
}

#[test]
fn a_new_entry_gets_its_high_half_first_and_is_present_last() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    assign(&mut unit, &mut memory, OLD).unwrap();
    let log = fake.take_log();
    assert_eq!(Fake::stores(&log, entry(&fake)), [(8, 0x702), (0, 0x70_0001)]);
    assert!(Fake::executed(&log).is_empty(), "absent entries are not cached");
    assert_eq!(unit.assignment(&memory, SOURCE), Some(OLD));
}

#[test]
fn a_present_entry_is_cleared_and_forgotten_under_its_old_domain_before_it_is_written() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    assign(&mut unit, &mut memory, OLD).unwrap();
    fake.take_log();
    assign(&mut unit, &mut memory, NEW).unwrap();
    let log = fake.take_log();
    let entry = entry(&fake);
    let events: Vec<_> = log
        .iter()
        .filter(|event| match event {
            Event::Store(address, _) => address & !15 == entry,
            Event::Executed(low, _) => low & 0xf != 5,
            _ => false,
        })
        .copied()
        .collect();
    assert_eq!(
        events,
        [
            Event::Store(entry, 0),
            Event::Executed(0x1234_0007_0031, 0),
            Event::Executed(0x0007_00e2, 0),
            Event::Store(entry + 8, 0x902),
            Event::Store(entry, 0x90_0001),
        ]
    );
    // Hardware keeps the order of the two in one batch, so one wait does.
    let waits: Vec<_> = log.iter().filter(|e| matches!(e, Event::Executed(low, _) if low & 0xf == 5)).collect();
    assert_eq!(waits.len(), 1);
}

#[test]
fn a_present_entry_changes_by_one_store_where_that_can_be() {
    let same_domain = (OLD.0, NEW.1);
    let same_table = (NEW.0, OLD.1);
    for (exchanges, new, atomic) in [
        (false, same_domain, true),
        (false, same_table, true),
        (false, NEW, false),
        (true, same_domain, true),
        (true, same_table, true),
        (true, NEW, true),
    ] {
        let fake = Fake::new();
        let (mut unit, mut memory) = fake.up();
        fake.inner(|inner| inner.exchanges = exchanges);
        assign(&mut unit, &mut memory, OLD).unwrap();
        fake.take_log();
        let replaced = unit.replace(&mut memory, SOURCE, new.0, new.1, Levels::Four);
        let log = fake.take_log();
        if atomic {
            replaced.unwrap();
            assert_eq!(unit.assignment(&memory, SOURCE), Some(new));
            let stores = Fake::stores(&log, entry(&fake));
            let exchanged = log.contains(&Event::Exchange(entry(&fake)));
            assert_eq!(stores.len() + usize::from(exchanged), 1, "{stores:x?}");
            assert!(stores.iter().all(|&(half, value)| half == 8 || value & 1 != 0), "it stays present");
            // Forgotten under the domain that it had, and after the store.
            let forgotten = log.iter().position(|&event| event == Event::Executed(0x1234_0007_0031, 0)).unwrap();
            assert!(matches!(log[0], Event::Store(..) | Event::Exchange(_)) && forgotten > 0);
            assert_eq!(Fake::executed(&log), [0x1234_0007_0031, 0x0007_00e2]);
        } else {
            assert_eq!(replaced, Err(Error::NotAtomic(SOURCE)));
            assert_eq!(unit.assignment(&memory, SOURCE), Some(OLD), "nothing has changed");
            assert!(log.is_empty());
        }
        // A change that may have a gap has one only where it must.
        fake.take_log();
        assign(&mut unit, &mut memory, OLD).unwrap();
        let gap = Fake::stores(&fake.take_log(), entry(&fake)).contains(&(0, 0));
        assert!(!gap, "nothing differs, or one store does it");
        assign(&mut unit, &mut memory, NEW).unwrap();
        let gap = Fake::stores(&fake.take_log(), entry(&fake)).contains(&(0, 0));
        assert_eq!(gap, !exchanges);
        assert_eq!(unit.assignment(&memory, SOURCE), Some(NEW));
    }
}

#[test]
fn a_first_assignment_may_be_a_replacement() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    unit.replace(&mut memory, SOURCE, OLD.0, OLD.1, Levels::Four).unwrap();
    assert_eq!(Fake::stores(&fake.take_log(), entry(&fake)), [(8, 0x702), (0, 0x70_0001)]);
}

#[test]
fn a_replacement_that_cannot_be_announced_denies() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.exchanges = true);
    assign(&mut unit, &mut memory, OLD).unwrap();
    fake.inner(|inner| inner.stalled = true);
    assert!(matches!(unit.replace(&mut memory, SOURCE, NEW.0, NEW.1, Levels::Four), Err(Error::Invalidation(_))));
    assert_eq!(unit.assignment(&memory, SOURCE), None);
}

#[test]
fn clearing_forgets_and_then_a_second_time_does_nothing() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    unit.clear(&mut memory, SOURCE).unwrap();
    assign(&mut unit, &mut memory, OLD).unwrap();
    fake.take_log();
    unit.clear(&mut memory, SOURCE).unwrap();
    assert_eq!(Fake::executed(&fake.take_log()), [0x1234_0007_0031, 0x0007_00e2]);
    assert_eq!(unit.assignment(&memory, SOURCE), None);
    unit.clear(&mut memory, SOURCE).unwrap();
    assert!(fake.take_log().is_empty());
}

#[test]
fn in_caching_mode_a_new_entry_is_announced_under_domain_zero() {
    let fake = Fake::with(CAP | 1 << 7, ECAP);
    let (mut unit, mut memory) = fake.up();
    assign(&mut unit, &mut memory, OLD).unwrap();
    let log = fake.take_log();
    assert_eq!(Fake::executed(&log), [0x1234_0000_0031, 0x0007_00e2]);
}

#[test]
fn write_buffers_are_flushed_after_a_new_entry_where_the_unit_needs_it() {
    let fake = Fake::with(CAP | 1 << 4, ECAP);
    let (mut unit, mut memory) = fake.up();
    assign(&mut unit, &mut memory, OLD).unwrap();
    let log = fake.take_log();
    let last = log.last().unwrap();
    assert!(matches!(last, Event::Write32(0x18, value) if value & 1 << 27 != 0), "{last:x?}");
}

#[test]
fn reserved_and_impossible_assignments_are_refused_and_change_nothing() {
    let fake = Fake::with(CAP & !7, ECAP);
    let (mut unit, mut memory) = fake.up();
    for domain in [0, 16, 0xffff] {
        let result = assign(&mut unit, &mut memory, (DomainId(domain), OLD.1));
        assert_eq!(result, Err(Error::DomainOutOfRange(DomainId(domain))));
    }
    for table in [0, 0x1800, 1 << 52] {
        let result = assign(&mut unit, &mut memory, (OLD.0, HostPhys::new(table)));
        assert_eq!(result, Err(Error::BadTable(HostPhys::new(table))));
    }
    let result = unit.assign(&mut memory, SOURCE, OLD.0, OLD.1, Levels::Five);
    assert_eq!(result, Err(Error::LevelsUnsupported(5)));
    assert!(fake.take_log().is_empty());
    assign(&mut unit, &mut memory, (DomainId(15), OLD.1)).unwrap();
}

#[test]
fn a_failed_invalidation_leaves_the_device_with_nothing_and_the_unit_poisoned() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    assign(&mut unit, &mut memory, OLD).unwrap();
    fake.inner(|inner| inner.stalled = true);
    assert!(matches!(assign(&mut unit, &mut memory, NEW), Err(Error::Invalidation(_))));
    assert_eq!(unit.assignment(&memory, SOURCE), None);
    fake.inner(|inner| inner.stalled = false);
    assert_eq!(assign(&mut unit, &mut memory, NEW), Err(Error::Poisoned));
    assert_eq!(unit.assignment(&memory, SOURCE), None);
}

#[test]
fn clearing_again_after_a_failure_is_not_done_before_hardware_has_forgotten() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    assign(&mut unit, &mut memory, OLD).unwrap();
    fake.inner(|inner| inner.stalled = true);
    assert!(unit.clear(&mut memory, SOURCE).is_err());
    assert!(unit.clear(&mut memory, SOURCE).is_err(), "the entry is clear, the cache is not");
    fake.inner(|inner| inner.stalled = false);
    fake.take_log();
    unit.clear(&mut memory, SOURCE).unwrap();
    assert!(Fake::executed(&fake.take_log()).ends_with(&[0x11, 0xd2]));
}

#[test]
fn in_caching_mode_an_entry_that_cannot_be_announced_is_taken_back() {
    let fake = Fake::with(CAP | 1 << 7, ECAP);
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.stalled = true);
    assert!(assign(&mut unit, &mut memory, OLD).is_err());
    assert_eq!(unit.assignment(&memory, SOURCE), None);
}

#[test]
fn assignments_before_the_root_table_is_set_need_no_invalidation() {
    let fake = Fake::with(CAP | 1 << 7, ECAP);
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    unit.create_root_table(&mut memory).unwrap();
    assign(&mut unit, &mut memory, OLD).unwrap();
    assign(&mut unit, &mut memory, NEW).unwrap();
    unit.bring_up(&mut memory, &super::fake::CONFIGURATION).unwrap();
    assert_eq!(unit.assignment(&memory, SOURCE), Some(NEW));
}

#[test]
fn memory_out_for_a_context_table_changes_nothing() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.frames_left = 0);
    assert!(matches!(assign(&mut unit, &mut memory, OLD), Err(Error::OutOfMemory(_))));
    assert_eq!(unit.assignment(&memory, SOURCE), None);
}

#[test]
fn mappings_that_were_only_added_are_invalidated_in_caching_mode_alone() {
    let change = |only_added| Invalidation {
        root: OLD.1,
        start: Iova::new(0x20_0000),
        len: 0x20_0000,
        tables_changed: true,
        only_added,
    };
    for (cap, added, removed) in [(CAP, 0, 1), (CAP | 1 << 7, 1, 1)] {
        let fake = Fake::with(cap, ECAP);
        let (mut unit, mut memory) = fake.up();
        let proof = unit.invalidate(&mut memory, OLD.0, &change(true)).unwrap();
        assert_eq!(Fake::executed(&fake.take_log()).len(), added);
        assert!(proof.covers(&change(true)));
        assert!(!proof.covers(&change(false)), "what was removed has not been invalidated");
        let proof = unit.invalidate(&mut memory, OLD.0, &change(false)).unwrap();
        assert_eq!(Fake::executed(&fake.take_log()).len(), removed);
        assert!(proof.covers(&change(false)) && proof.covers(&change(true)));
    }
}

#[test]
fn a_proof_covers_its_own_table_and_range_only() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    let change = Invalidation {
        root: OLD.1,
        start: Iova::new(0x20_0000),
        len: 0x20_0000,
        tables_changed: false,
        only_added: false,
    };
    let proof = unit.invalidate(&mut memory, OLD.0, &change).unwrap();
    assert!(matches!(fake.take_log()[..], [.., Event::Executed(..)]));
    assert!(proof.covers(&change));
    assert!(proof.covers(&Invalidation { start: Iova::new(0x30_0000), len: 0x1000, ..change }));
    assert!(!proof.covers(&Invalidation { root: NEW.1, ..change }));
    assert!(!proof.covers(&Invalidation { len: 0x20_1000, ..change }));
    assert!(!proof.covers(&Invalidation { start: Iova::new(0x1f_f000), ..change }));
}

#[test]
fn write_buffers_are_flushed_for_a_mapping_that_was_only_added() {
    let fake = Fake::with(CAP | 1 << 4, ECAP);
    let (mut unit, mut memory) = fake.up();
    let root = OLD.1;
    let change = Invalidation { root, start: Iova::new(0), len: 0x1000, tables_changed: true, only_added: true };
    let _proof = unit.invalidate(&mut memory, OLD.0, &change).unwrap();
    let log = fake.take_log();
    assert!(matches!(log[..], [Event::Write32(0x18, value)] if value & 1 << 27 != 0), "{log:x?}");
}

#[test]
fn pointers_to_tables_are_forgotten_where_tables_changed_and_kept_where_only_leaves_did() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    for (tables_changed, high) in [(true, 0x20_0009), (false, 0x20_0049)] {
        let (start, len) = (Iova::new(0x20_0000), 0x20_0000);
        let change = Invalidation { root: OLD.1, start, len, tables_changed, only_added: false };
        let _proof = unit.invalidate(&mut memory, OLD.0, &change).unwrap();
        assert!(fake.take_log().contains(&Event::Executed(0x0007_00f2, high)), "IH is bit 6");
    }
}
