//! Scalable mode, store by store and descriptor by descriptor.

use super::fake::{CAP, CONFIGURATION, ECAP, Event, Fake, TestUnit};
use super::std::vec::Vec;
use crate::spec::invalidation::Descriptor;
use crate::{DescriptorWidth, DeviceTlb, Error, Levels, Pasid, QueueLayout, Translation, TranslationMode};
use addr::{Bdf, DomainId, GuestPhys, HostPhys, Iova, PAGE_SIZE};
use paging::{Invalidation, InvalidationComplete};

/// DT, SC, NEST, PASID with 20 bits, DIT, SMTS, SSTS, FSTS, RPS; walks do not snoop.
const SCALABLE: u64 =
    ECAP | 1 << 2 | 1 << 7 | 1 << 26 | 19 << 35 | 1 << 40 | 1 << 41 | 1 << 43 | 1 << 46 | 1 << 47 | 1 << 49;
const CACHING: u64 = CAP | 1 << 7;
const SOURCE: Bdf = Bdf::from_u16(0x12b4);
const FUNCTION: Bdf = Bdf::from_u16(0x1280);
const TABLE: HostPhys = HostPhys::new(0x70_0000);
const OTHER: HostPhys = HostPhys::new(0x90_0000);
const DEVICE: DeviceTlb = DeviceTlb { queue_depth: 4, physical_function: FUNCTION };

const GLOBAL: [u64; 3] = [0x11, 0x37, 0xd2];
const CONTEXT: u64 = 0x12b4_0000_0031;

fn second(table: HostPhys) -> Translation {
    Translation::SecondStage { table, levels: Levels::Four }
}

fn first(table: HostPhys) -> Translation {
    Translation::FirstStage { table, levels: Levels::Four }
}

fn nested(first: u64, second: HostPhys) -> Translation {
    let first = GuestPhys::new(first);
    Translation::Nested { first, first_levels: Levels::Four, second, second_levels: Levels::Four }
}

fn up_with(fake: &Fake, rid_pasid: u32) -> (TestUnit, Fake) {
    let mut unit = fake.probe().unwrap();
    let mut memory = fake.clone();
    unit.use_scalable_mode(Pasid::new(rid_pasid).unwrap()).unwrap();
    unit.bring_up(&mut memory, &CONFIGURATION).unwrap();
    fake.take_log();
    (unit, memory)
}

fn up(fake: &Fake) -> (TestUnit, Fake) {
    up_with(fake, 0)
}

fn pasid(number: u32) -> Option<Pasid> {
    Some(Pasid::new(number).unwrap())
}

/// The tags of a PASID-cache or PASID-based IOTLB descriptor.
fn tags(domain: u64, pasid: u64) -> u64 {
    domain << 16 | pasid << 32
}

fn context(fake: &Fake) -> u64 {
    fake.inner(|inner| {
        let root = inner.others[&0x20] & !0xfff;
        (inner.memory[&(root + 0x12 * 16 + 8)] & !0xfff) + 0x34 * 32
    })
}

fn entry(fake: &Fake, pasid: u64) -> u64 {
    let context = context(fake);
    fake.inner(|inner| {
        let directory = inner.memory[&context] & !0xfff;
        (inner.memory[&(directory + pasid / 64 * 8)] & !0xfff) + pasid % 64 * 64
    })
}

fn words<const N: usize>(fake: &Fake, address: u64) -> [u64; N] {
    fake.inner(|inner| core::array::from_fn(|index| inner.memory[&(address + 8 * index as u64)]))
}

/// Stores to so many bytes at an address, and descriptors, in order and without waits.
fn events(log: &[Event], address: u64, bytes: u64) -> Vec<Event> {
    let concerned = |event: &&Event| match event {
        Event::Store(at, _) | Event::Exchange(at) => (address..address + bytes).contains(at),
        Event::Executed(low, _) => low & 0xf != 5,
        _ => false,
    };
    log.iter().filter(concerned).copied().collect()
}

fn attach(unit: &mut TestUnit, memory: &mut Fake, domain: u16, translation: Translation) -> Result<(), Error> {
    unit.attach(memory, SOURCE, None, DomainId(domain), translation)
}

#[test]
fn the_mode_the_width_of_descriptors_and_what_is_forgotten_follow_one_choice() {
    let fake = Fake::with(CAP, SCALABLE);
    let mut unit = fake.probe().unwrap();
    let mut memory = fake.clone();
    assert_eq!(unit.translation_mode(), TranslationMode::Legacy);
    unit.use_scalable_mode(Pasid::ZERO).unwrap();
    assert_eq!(unit.translation_mode(), TranslationMode::Scalable);
    assert_eq!(super::std::format!("{:?}", unit.scalable), "Some(Scalable(RID_PASID 0x0))");
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

fn entry_of(inner: &super::fake::Inner) -> u64 {
    let root = inner.others[&0x20] & !0xfff;
    let contexts = inner.memory[&(root + 0x12 * 16 + 8)] & !0xfff;
    let directory = inner.memory[&(contexts + 0x34 * 32)] & !0xfff;
    inner.memory[&directory] & !0xfff
}

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
    assert_eq!(Fake::executed(&fake.take_log()), [CONTEXT, zero, zero, tags(7, 5) | 0x17, 0x7_00e2]);
    unit.detach(&mut memory, SOURCE, pasid(5)).unwrap();
    fake.take_log();
    unit.attach(&mut memory, SOURCE, pasid(5), DomainId(9), first(TABLE)).unwrap();
    let pages = tags(9, 5) | 0x26;
    assert_eq!(Fake::executed(&fake.take_log()), [zero, tags(7, 5) | 0x17, tags(9, 5) | 0x17, pages]);
}

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
    assert_eq!(
        words::<2>(&fake, super::scalable::context(&fake)).map(|word| word & 0xf_ffff & !0xf000),
        [6 << 9 | 9, 0x4_0000]
    );
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
fn a_pasid_is_one_that_the_unit_has_and_not_that_of_requests_without() {
    let fake = Fake::with(CAP, SCALABLE & !(0x1f << 35) | 7 << 35);
    let (mut unit, mut memory) = up_with(&fake, 3);
    for number in [3, 256, 0xf_ffff] {
        let number = Pasid::new(number).unwrap();
        let result = unit.attach(&mut memory, SOURCE, Some(number), DomainId(7), second(TABLE));
        assert_eq!(result, Err(Error::PasidOutOfRange(number)));
        assert_eq!(unit.detach(&mut memory, SOURCE, Some(number)), Err(Error::PasidOutOfRange(number)));
        assert_eq!(unit.attachment(&memory, SOURCE, Some(number)), None);
    }
    for number in [0, 255] {
        unit.attach(&mut memory, SOURCE, pasid(number), DomainId(7), second(TABLE)).unwrap();
    }
    let fake = Fake::with(CAP, SCALABLE & !(1 << 40));
    let (mut unit, mut memory) = up(&fake);
    let result = unit.attach(&mut memory, SOURCE, pasid(1), DomainId(7), second(TABLE));
    assert!(matches!(result, Err(Error::Unsupported { .. })));
    attach(&mut unit, &mut memory, 7, second(TABLE)).unwrap();
    assert_eq!(words::<1>(&fake, context(&fake))[0] & 8, 0, "PASIDE is reserved");
}

/// The device-TLB descriptors that were executed, each after the last of the unit's own caches.
fn device_descriptors(fake: &Fake) -> Vec<Descriptor> {
    let mut found = Vec::new();
    for event in fake.take_log() {
        if let Event::Executed(low, high) = event {
            match low & 0xf {
                3 | 8 => found.push(Descriptor { low, high }),
                5 => {}
                _ => assert!(found.is_empty(), "the unit forgets first"),
            }
        }
    }
    found
}

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

#[test]
fn bad_tables_are_refused_and_change_nothing() {
    let fake = Fake::with(CAP & !7, SCALABLE);
    let (mut unit, mut memory) = up(&fake);
    for domain in [0, 16, 0xffff] {
        let result = attach(&mut unit, &mut memory, domain, Translation::PassThrough);
        assert_eq!(result, Err(Error::DomainOutOfRange(DomainId(domain))));
    }
    for table in [0, 0x1800, 1 << 52].map(HostPhys::new) {
        for translation in [second(table), first(table), nested(0x1000, table)] {
            assert_eq!(attach(&mut unit, &mut memory, 7, translation), Err(Error::BadTable(table)));
        }
    }
    for table in [0x1800, 1 << 48] {
        let result = attach(&mut unit, &mut memory, 7, nested(table, TABLE));
        assert_eq!(result, Err(Error::BadFirstStageTable(GuestPhys::new(table))));
    }
    for (translation, levels) in [
        (Translation::SecondStage { table: TABLE, levels: Levels::Five }, 5),
        (Translation::FirstStage { table: TABLE, levels: Levels::Five }, 5),
        (Translation::FirstStage { table: TABLE, levels: Levels::Three }, 3),
    ] {
        assert_eq!(attach(&mut unit, &mut memory, 7, translation), Err(Error::LevelsUnsupported(levels)));
    }
    assert_eq!(fake.take_log(), []);
    let fake = Fake::with(CAP, SCALABLE & !(1 << 6));
    let (mut unit, mut memory) = up(&fake);
    let result = attach(&mut unit, &mut memory, 7, Translation::PassThrough);
    assert!(matches!(result, Err(Error::Unsupported { .. })));
    for (missing, translation) in [(26, nested(0, TABLE)), (46, second(TABLE)), (47, first(TABLE))] {
        let (mut unit, mut memory) = up(&Fake::with(CAP, SCALABLE & !(1 << missing)));
        let result = attach(&mut unit, &mut memory, 7, translation);
        assert!(matches!(result, Err(Error::Unsupported { .. })), "{missing}");
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
