//! Scalable mode as devices see it, between any two stores of the driver.

mod support;

use addr::{Bdf, DomainId, GuestPhys, HostPhys, Iova, PageSize};
use model::{Configuration, Machine, Reason};
use paging::{FirstStage, Invalidation, PageTable};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use support::scalable::*;
use support::{Board, Domain, GUESTS, NIC, OTHER, SECRET};
use vtd::{DeviceTlb, Error, Levels, Pasid, Translation, TranslationMode};

const A: u64 = GUESTS;
const B: u64 = GUESTS + (8 << 20);
/// A device in the upper half of its bus.
const UPPER: Bdf = Bdf::from_u16(0x00f8);

fn pasid(number: u32) -> Option<Pasid> {
    Some(Pasid::new(number).unwrap())
}

/// Four levels, which every kind of first stage has.
fn by_first(table: &PageTable<FirstStage>) -> Translation {
    Translation::FirstStage { table: table.root(), levels: Levels::from_count(table.levels()).unwrap() }
}

fn by_second(domain: &Domain) -> Translation {
    let levels = Levels::from_count(domain.table.levels()).unwrap();
    Translation::SecondStage { table: domain.table.root(), levels }
}

/// A translation of either stage that maps 0x1000 to `host`, as the unit has it.
struct Space {
    second: Option<Domain>,
    first: Option<PageTable<FirstStage>>,
    id: DomainId,
}

impl Space {
    fn new(board: &mut Board, id: u16, host: u64) -> Self {
        let id = DomainId(id);
        if board.capabilities().scalable_second_stage() {
            let mut domain = board.domain(id.0);
            board.map(&mut domain, 0x1000, host, 0x1000);
            return Self { second: Some(domain), first: None, id };
        }
        let mut table = first_stage(board, 4);
        let flush = map(&mut table, &mut board.memory, 0x1000, host, 0x1000);
        flush.complete(&paging::NeverLoaded, &mut board.memory).unwrap();
        Self { second: None, first: Some(table), id }
    }

    fn translation(&self) -> Translation {
        match (&self.second, &self.first) {
            (Some(domain), _) => by_second(domain),
            (_, Some(table)) => by_first(table),
            _ => unreachable!(),
        }
    }

    fn attach(&self, board: &mut Board, source: Bdf, pasid: Option<Pasid>) {
        board.unit.attach(&mut board.memory, source, pasid, self.id, self.translation()).unwrap();
    }
}

/// Who reached what: source, PASID, host address.
type Reached = BTreeSet<(u16, Option<u32>, u64)>;

/// Everything that the devices reach at any store, flush or register write from now on, remembered and not.
fn watch(machine: &Machine, who: &'static [(Bdf, Option<u32>)]) -> Rc<RefCell<Reached>> {
    let seen = Rc::new(RefCell::new(BTreeSet::new()));
    let log = seen.clone();
    machine.on_event(move |machine, _| {
        for &(source, pasid) in who {
            let source = source.as_u16();
            let answers = [write_cold(machine, source, pasid, 0x1000), write(machine, source, pasid, 0x1000)];
            log.borrow_mut().extend(answers.into_iter().flatten().map(|host| (source, pasid, host)));
        }
    });
    seen
}

#[test]
fn a_unit_comes_up_in_scalable_mode_and_denies_everything() {
    for (kind, configuration) in kinds() {
        let board = up(configuration, 0);
        assert_eq!(board.unit.translation_mode(), TranslationMode::Scalable);
        for source in [NIC, UPPER] {
            assert_eq!(
                write(&board.machine, source.as_u16(), None, 0x1000),
                Err(Reason::SCALABLE_ROOT_NOT_PRESENT),
                "{kind}"
            );
        }
        board.done();
    }
}

#[test]
fn a_kernel_that_knows_of_no_mode_assigns_and_moves_as_in_legacy_mode() {
    for (kind, configuration) in kinds().into_iter().filter(|(_, unit)| unit.second_stage) {
        let mut board = up(configuration, 0);
        let (mut one, mut two) = (board.domain(1), board.domain(2));
        board.map(&mut one, 0x1000, A, 0x40_0000);
        board.map(&mut two, 0x2000, B, 0x1000);
        assert_eq!(board.unit.assignment(&board.memory, NIC), None);
        board.assign(NIC, &one);
        assert_eq!(board.unit.assignment(&board.memory, NIC), Some((one.id, one.table.root())));
        assert_eq!(
            (board.write(NIC, 0x1ffc), board.write(NIC, 0x40_0ffc)),
            (Ok(A + 0xffc), Ok(A + 0x3f_fffc)),
            "{kind}"
        );
        board.unmap(&mut one, 0x1000, 0x1000);
        assert_eq!(board.write(NIC, 0x1000), Err(Reason::SECOND_STAGE_ABSENT), "{kind}");
        board.assign(NIC, &two);
        assert_eq!((board.write(NIC, 0x2000), board.write(NIC, 0x3000)), (Ok(B), Err(Reason::SECOND_STAGE_ABSENT)));
        board.map(&mut two, 0x3000, B + 0x1000, 0x1000);
        assert_eq!(board.write(NIC, 0x3000), Ok(B + 0x1000), "{kind}");
        board.unit.clear(&mut board.memory, NIC).unwrap();
        assert_eq!(board.write(NIC, 0x2000), Err(Reason::SCALABLE_CONTEXT_NOT_PRESENT), "{kind}");
        assert_eq!(board.unit.assignment(&board.memory, NIC), None);
        assert_eq!(board.unit.attachment(&board.memory, NIC, None), None);
        board.assign(NIC, &two);
        assert_eq!(board.write(NIC, 0x2000), Ok(B), "{kind}");
        board.done();
    }
}

#[test]
fn each_translation_type_reaches_what_it_maps_and_nothing_else() {
    for (kind, configuration) in kinds() {
        let mut board = up(configuration, 0);
        let (source, machine) = (NIC.as_u16(), board.machine.clone());
        let capabilities = board.capabilities();
        let ask = |iova| write(&machine, source, None, iova);
        if capabilities.first_stage() {
            for levels in [4, 5] {
                if !capabilities.supports_first_stage_levels(Levels::from_count(levels).unwrap()) {
                    continue;
                }
                let mut table = first_stage(&mut board, levels);
                let flush = map(&mut table, &mut board.memory, 0x20_0000, A, 0x40_1000);
                flush.complete(&paging::NeverLoaded, &mut board.memory).unwrap();
                board.unit.attach(&mut board.memory, NIC, None, DomainId(7), by_first(&table)).unwrap();
                assert_eq!(
                    board.unit.attachment(&board.memory, NIC, None),
                    Some((DomainId(7), by_first(&table))),
                    "{kind}"
                );
                assert_eq!(board.unit.assignment(&board.memory, NIC), Some((DomainId(7), table.root())));
                assert_eq!((ask(0x20_0000), ask(0x60_0ffc)), (Ok(A), Ok(A + 0x40_0ffc)), "{kind}");
                assert_eq!(
                    (ask(0x60_1000), ask(SECRET)),
                    (Err(Reason::FIRST_STAGE_ABSENT), Err(Reason::FIRST_STAGE_ABSENT))
                );
                assert_eq!(ask(1 << 60), Err(Reason::NOT_CANONICAL));
            }
        }
        if capabilities.scalable_second_stage() {
            let mut domain = board.domain(3);
            board.map(&mut domain, 0x20_0000, B, 0x40_1000);
            board.unit.attach(&mut board.memory, NIC, None, domain.id, by_second(&domain)).unwrap();
            assert_eq!(board.unit.attachment(&board.memory, NIC, None), Some((domain.id, by_second(&domain))));
            assert_eq!((ask(0x20_0000), ask(0x60_1000)), (Ok(B), Err(Reason::SECOND_STAGE_ABSENT)), "{kind}");
            if capabilities.nested_translation() {
                nested(&mut board, &mut domain, kind);
            }
        }
        board.unit.attach(&mut board.memory, NIC, None, DomainId(9), Translation::PassThrough).unwrap();
        assert_eq!(board.unit.attachment(&board.memory, NIC, None), Some((DomainId(9), Translation::PassThrough)));
        assert_eq!(board.unit.assignment(&board.memory, NIC), None, "there is no table");
        assert_eq!((ask(0x20_0000), ask(1 << 46)), (Ok(0x20_0000), Err(Reason::BEYOND_HOST_WIDTH)), "{kind}");
        board.done();
    }
}

/// A guest's table, in memory of `domain` from 0x80_0000, maps 0x5000 to guest-physical 0x20_3000.
fn nested(board: &mut Board, domain: &mut Domain, kind: &str) {
    board.map(domain, 0x80_0000, B + 0x80_0000, 0x10_0000);
    let mut guest = GuestMemory::new(&board.memory, 0x80_0000, B + 0x80_0000, 0x10_0000);
    let mut table = PageTable::new(4, PageSize::Size2M, &mut guest).unwrap();
    map(&mut table, &mut guest, 0x5000, 0x20_3000, 0x1000).complete(&paging::NeverLoaded, &mut guest).unwrap();
    let Translation::SecondStage { table: second, levels: second_levels } = by_second(domain) else { unreachable!() };
    let translation =
        Translation::Nested { first: guest_root(&table), first_levels: Levels::Four, second, second_levels };
    board.unit.attach(&mut board.memory, NIC, None, domain.id, translation).unwrap();
    assert_eq!(board.unit.attachment(&board.memory, NIC, None), Some((domain.id, translation)), "{kind}");
    assert_eq!(board.unit.assignment(&board.memory, NIC), Some((domain.id, second)));
    assert_eq!(board.write(NIC, 0x5000), Ok(B + 0x3000), "{kind}");
    assert_eq!(board.write(NIC, 0x20_0000), Err(Reason::FIRST_STAGE_ABSENT), "{kind}");
    // The guest changes its table; then the hypervisor takes the page away.
    let change = table.unmap(&mut guest, Iova::new(0x5000), 0x1000).unwrap().invalidation().copied().unwrap();
    assert_eq!(board.write(NIC, 0x5000), Ok(B + 0x3000), "{kind}: remembered");
    let _ = board.unit.invalidate_first_stage(&mut board.memory, domain.id, None, &change).unwrap();
    assert_eq!(board.write(NIC, 0x5000), Err(Reason::FIRST_STAGE_ABSENT), "{kind}");
    let flush = map(&mut table, &mut guest, 0x5000, 0x20_3000, 0x1000);
    let change = flush.invalidation().copied().unwrap();
    let proof = board.unit.invalidate_first_stage(&mut board.memory, domain.id, None, &change).unwrap();
    flush.complete(&proof, &mut guest).unwrap();
    assert_eq!(board.write(NIC, 0x5000), Ok(B + 0x3000), "{kind}");
    board.unmap(domain, 0x20_3000, 0x1000);
    assert_eq!(board.write(NIC, 0x5000), Err(Reason::SECOND_STAGE_ABSENT), "{kind}");
    board.map(domain, 0x20_3000, A, 0x1000);
    assert_eq!(board.write(NIC, 0x5000), Ok(A), "{kind}");
}

#[test]
fn pasids_of_a_device_come_and_go_singly() {
    const WHO: [(Bdf, Option<u32>); 4] = [(NIC, None), (NIC, Some(0x41)), (NIC, Some(0x42)), (UPPER, Some(0x41))];
    let nic = NIC.as_u16();
    for (kind, configuration) in kinds().into_iter().filter(|(_, unit)| unit.pasid) {
        let mut board = up(configuration, 0);
        let spaces: Vec<_> = (0..4).map(|n| Space::new(&mut board, n + 1, A + u64::from(n) * 0x1000)).collect();
        let machine = board.machine.clone();
        let answers = move || WHO.map(|(source, pasid)| write(&machine, source.as_u16(), pasid, 0x1000).ok());
        spaces[0].attach(&mut board, NIC, None);
        assert_eq!(answers(), [Some(A), None, None, None], "{kind}");
        spaces[1].attach(&mut board, NIC, pasid(0x41));
        spaces[2].attach(&mut board, NIC, pasid(0x42));
        // The same PASID of another device.
        spaces[3].attach(&mut board, UPPER, pasid(0x41));
        assert_eq!(answers(), [Some(A), Some(A + 0x1000), Some(A + 0x2000), Some(A + 0x3000)], "{kind}");

        // One goes: the others are there at every moment, and nobody gets anything else.
        let seen = watch(&board.machine, &WHO);
        board.unit.detach(&mut board.memory, NIC, pasid(0x41)).unwrap();
        board.machine.clear_hook();
        let allowed = [(nic, None, A), (nic, Some(0x41), A + 0x1000), (nic, Some(0x42), A + 0x2000)];
        let mut allowed = BTreeSet::from(allowed);
        allowed.insert((UPPER.as_u16(), Some(0x41), A + 0x3000));
        assert_eq!(*seen.borrow(), allowed, "{kind}");
        assert_eq!(answers(), [Some(A), None, Some(A + 0x2000), Some(A + 0x3000)], "{kind}");
        assert_eq!(board.unit.attachment(&board.memory, NIC, pasid(0x41)), None);

        // One moves.
        let seen = watch(&board.machine, &WHO);
        spaces[1].attach(&mut board, NIC, pasid(0x42));
        board.machine.clear_hook();
        let moved = |host| (nic, Some(0x42), host);
        let seen: BTreeSet<_> =
            seen.borrow().iter().filter(|(source, pasid, _)| (*source, *pasid) == (nic, Some(0x42))).copied().collect();
        assert!(seen.is_subset(&BTreeSet::from([moved(A + 0x1000), moved(A + 0x2000)])), "{kind}: {seen:x?}");
        assert_eq!(answers(), [Some(A), None, Some(A + 0x1000), Some(A + 0x3000)], "{kind}");

        // Everything of one device goes, and its PASIDs do not come back with it.
        board.unit.clear(&mut board.memory, NIC).unwrap();
        assert_eq!(answers(), [None, None, None, Some(A + 0x3000)], "{kind}");
        spaces[0].attach(&mut board, NIC, None);
        assert_eq!(answers(), [Some(A), None, None, Some(A + 0x3000)], "{kind}");
        board.unit.detach(&mut board.memory, NIC, None).unwrap();
        board.unit.detach(&mut board.memory, NIC, None).unwrap();
        assert_eq!(answers(), [None, None, None, Some(A + 0x3000)], "{kind}");
        board.done();
    }
}

#[test]
fn requests_without_pasid_have_the_pasid_that_was_chosen() {
    for rid_pasid in [0, 5, 0x9_0000] {
        let mut board = up(Configuration::scalable(), rid_pasid);
        let space = Space::new(&mut board, 1, A);
        space.attach(&mut board, NIC, None);
        assert_eq!(write(&board.machine, NIC.as_u16(), None, 0x1000), Ok(A));
        // It is nobody else's.
        let taken = Pasid::new(rid_pasid).unwrap();
        let result = board.unit.attach(&mut board.memory, OTHER, Some(taken), space.id, space.translation());
        assert_eq!(result, Err(Error::PasidOutOfRange(taken)));
        assert!(write(&board.machine, OTHER.as_u16(), None, 0x1000).is_err());
        board.done();
    }
}

#[test]
fn a_directory_grows_under_a_device_that_does_not_notice() {
    for (kind, configuration) in kinds().into_iter().filter(|(_, unit)| unit.pasid_bits == 20) {
        let mut board = up(configuration, 0);
        let spaces: Vec<_> = (0..6).map(|n| Space::new(&mut board, n + 1, A + u64::from(n) * 0x1000)).collect();
        let nic = NIC.as_u16();
        spaces[0].attach(&mut board, NIC, None);
        spaces[1].attach(&mut board, NIC, pasid(0x7fff));
        assert_eq!(write(&board.machine, nic, Some(0x8000), 0x1000), Err(Reason::PASID_BEYOND_DIRECTORY), "{kind}");
        let lost = Rc::new(Cell::new(0));
        let counter = lost.clone();
        board.machine.on_event(move |machine, _| {
            for (pasid, host) in [(None, A), (Some(0x7fff), A + 0x1000)] {
                for answer in [write_cold(machine, nic, pasid, 0x1000), write(machine, nic, pasid, 0x1000)] {
                    counter.set(counter.get() + u32::from(answer != Ok(host)));
                }
            }
        });
        let grown = [(2, 0x8000), (3, 0xffff), (4, 0xf_ffff), (5, 0x7000)];
        for (space, number) in grown {
            spaces[space].attach(&mut board, NIC, pasid(number));
            assert_eq!(write(&board.machine, nic, Some(number), 0x1000), Ok(A + 0x1000 * space as u64), "{kind}");
        }
        board.machine.clear_hook();
        assert_eq!(lost.get(), 0, "{kind}");
        for (space, number) in grown {
            assert_eq!(write(&board.machine, nic, Some(number), 0x1000), Ok(A + 0x1000 * space as u64), "{kind}");
        }
        board.unit.clear(&mut board.memory, NIC).unwrap();
        spaces[0].attach(&mut board, NIC, None);
        assert_eq!(write(&board.machine, nic, Some(0xf_ffff), 0x1000), Err(Reason::PASID_NOT_PRESENT), "{kind}");
        board.done();
    }
}

#[test]
fn what_one_store_can_change_is_reached_at_every_moment() {
    for (kind, configuration) in kinds() {
        for exchange in [false, true] {
            let mut board = up(configuration.clone(), 0);
            board.memory.exchange = exchange;
            let nic = NIC.as_u16();
            let first = |board: &mut Board, host| {
                let mut table = first_stage(board, 4);
                let flush = map(&mut table, &mut board.memory, 0x1000, host, 0x1000);
                flush.complete(&paging::NeverLoaded, &mut board.memory).unwrap();
                by_first(&table)
            };
            let spaces = [Space::new(&mut board, 1, A), Space::new(&mut board, 2, B)];
            // From and to what, and whether one store of 64 or of 128 bits does it.
            let mut cases = Vec::new();
            let both = [spaces[0].translation(), spaces[1].translation()];
            let second = configuration.second_stage;
            cases.push(((1, both[0]), (1, both[1]), true));
            cases.push(((1, both[0]), (2, both[0]), true));
            cases.push(((1, both[0]), (2, both[1]), second && exchange));
            cases.push(((1, both[0]), (1, both[0]), true));
            if configuration.first_stage {
                let tables = [first(&mut board, A), first(&mut board, B)];
                cases.push(((1, tables[0]), (1, tables[1]), true));
                cases.push(((1, tables[0]), (2, tables[1]), false));
                if second {
                    cases.push(((1, tables[0]), (1, both[1]), false));
                }
            }
            for ((old_id, old), (new_id, new), atomic) in cases {
                board.unit.attach(&mut board.memory, NIC, None, DomainId(old_id), old).unwrap();
                assert_eq!(write(&board.machine, nic, None, 0x1000), Ok(A), "{kind}");
                let lost = Rc::new(Cell::new(0));
                let counter = lost.clone();
                board.machine.on_event(move |machine, _| {
                    for answer in [write_cold(machine, nic, None, 0x1000), write(machine, nic, None, 0x1000)] {
                        counter.set(counter.get() + u32::from(!matches!(answer, Ok(A | B))));
                    }
                });
                let result = board.unit.reattach(&mut board.memory, NIC, None, DomainId(new_id), new);
                board.machine.clear_hook();
                assert_eq!(lost.get(), 0, "{kind}");
                let expected = if atomic { Ok(()) } else { Err(Error::NotAtomic(NIC)) };
                assert_eq!(result, expected, "{kind}, {exchange}: {old:?} {new:?}");
                let now = if atomic { (DomainId(new_id), new) } else { (DomainId(old_id), old) };
                assert_eq!(board.unit.attachment(&board.memory, NIC, None), Some(now), "{kind}");
                board.unit.attach(&mut board.memory, NIC, None, DomainId(new_id), new).unwrap();
                assert_eq!(board.unit.attachment(&board.memory, NIC, None), Some((DomainId(new_id), new)), "{kind}");
                let host = if new == old { A } else { write_cold(&board.machine, nic, None, 0x1000).unwrap() };
                assert_eq!(write(&board.machine, nic, None, 0x1000), Ok(host), "{kind}: nothing old is remembered");
                board.unit.detach(&mut board.memory, NIC, None).unwrap();
                assert!(write(&board.machine, nic, None, 0x1000).is_err());
            }
            // What has nothing attached is given its first translation.
            board.unit.reattach(&mut board.memory, NIC, None, DomainId(1), both[0]).unwrap();
            assert_eq!(write(&board.machine, nic, None, 0x1000), Ok(A), "{kind}");
            if second {
                let (one, levels) = (DomainId(1), board.levels());
                let root = spaces[1].second.as_ref().unwrap().table.root();
                board.unit.replace(&mut board.memory, NIC, one, root, levels).unwrap();
                assert_eq!(write(&board.machine, nic, None, 0x1000), Ok(B), "{kind}: as in legacy mode");
            }
            board.done();
        }
    }
}

#[test]
fn a_cleared_device_with_many_domains_leaves_nothing() {
    for (kind, configuration) in kinds().into_iter().filter(|(_, unit)| unit.pasid) {
        for count in [3, 8, 9, 20] {
            let mut board = up(configuration.clone(), 0);
            let spaces: Vec<_> = (1..=count).map(|n| Space::new(&mut board, n, A + u64::from(n) * 0x1000)).collect();
            for (n, space) in (1..).zip(&spaces) {
                space.attach(&mut board, NIC, pasid(n));
                assert!(write(&board.machine, NIC.as_u16(), Some(n), 0x1000).is_ok());
            }
            // What is invalidated too early is remembered again.
            board.machine.on_event(move |machine, _| {
                for n in 1..=u32::from(count) {
                    let _ = write(machine, NIC.as_u16(), Some(n), 0x1000);
                }
            });
            board.unit.clear(&mut board.memory, NIC).unwrap();
            board.machine.clear_hook();
            // Another table under each id: what was remembered would show.
            let others: Vec<_> = (1..=count).map(|n| Space::new(&mut board, n, B + u64::from(n) * 0x1000)).collect();
            for (n, space) in (1..).zip(&others) {
                assert!(write(&board.machine, NIC.as_u16(), Some(n), 0x1000).is_err(), "{kind}: {n} of {count}");
                space.attach(&mut board, NIC, pasid(n));
                assert_eq!(
                    write(&board.machine, NIC.as_u16(), Some(n), 0x1000),
                    Ok(B + u64::from(n) * 0x1000),
                    "{kind}"
                );
            }
            board.done();
        }
    }
}

#[test]
fn an_attachment_before_the_root_table_is_set_stands_from_the_first_moment() {
    for (kind, configuration) in kinds() {
        let mut board = probe(configuration, 0);
        board.unit.stop_firmware().unwrap();
        board.unit.mask_and_clear_faults().unwrap();
        board.unit.enable_queue(&mut board.memory).unwrap();
        board.unit.create_root_table(&mut board.memory).unwrap();
        let space = Space::new(&mut board, 1, A);
        space.attach(&mut board, NIC, None);
        space.attach(&mut board, NIC, None);
        board.unit.set_root_table(&mut board.memory).unwrap();
        board.unit.enable_translation().unwrap();
        assert_eq!(write_cold(&board.machine, NIC.as_u16(), None, 0x1000), Ok(A), "{kind}");
        assert_eq!(write(&board.machine, NIC.as_u16(), None, 0x1000), Ok(A), "{kind}");
        board.done();
    }
}

#[test]
fn what_a_unit_has_not_is_refused_in_words_and_changes_nothing() {
    let all = Configuration::scalable;
    let page = HostPhys::new(0x20_0000);
    let second = Translation::SecondStage { table: page, levels: Levels::Four };
    let first = Translation::FirstStage { table: page, levels: Levels::Four };
    let five = Translation::FirstStage { table: page, levels: Levels::Five };
    let nested = Translation::Nested {
        first: GuestPhys::new(0x1000),
        first_levels: Levels::Four,
        second: page,
        second_levels: Levels::Four,
    };
    let one = Pasid::new(1);
    for (configuration, pasid, translation, word) in [
        (Configuration { second_stage: false, ..all() }, None, second, "ECAP.SSTS"),
        (Configuration { first_stage: false, ..all() }, None, first, "ECAP.FSTS"),
        (Configuration { first_stage_five_levels: false, ..all() }, None, five, "5 levels"),
        (Configuration { nested: false, ..all() }, None, nested, "ECAP.NEST"),
        (Configuration { pass_through: false, ..all() }, None, Translation::PassThrough, "ECAP.PT"),
        (Configuration { pasid: false, ..all() }, one, second, "ECAP.PASID"),
        (Configuration { pasid_bits: 4, ..all() }, Pasid::new(16), second, "0x10"),
        (Configuration { sagaw: 0b0010, ..all() }, None, second, "4 levels"),
    ] {
        let mut board = up(configuration, 0);
        let error = board.unit.attach(&mut board.memory, NIC, pasid, DomainId(1), translation).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!(write(&board.machine, NIC.as_u16(), None, 0x1000), Err(Reason::SCALABLE_ROOT_NOT_PRESENT));
        board.done();
    }
    for (configuration, rid_pasid, word) in [
        (Configuration::default(), 0, "ECAP.SMTS"),
        (Configuration { first_stage: false, second_stage: false, ..all() }, 0, "ECAP.SSTS, ECAP.FSTS"),
        (Configuration { rid_pasid: false, ..all() }, 1, "ECAP.RPS"),
    ] {
        let mut board = Board::probe(configuration);
        let error = board.unit.use_scalable_mode(Pasid::new(rid_pasid).unwrap()).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!(board.unit.translation_mode(), TranslationMode::Legacy);
    }
    let mut board = Board::up(all());
    assert!(matches!(board.unit.use_scalable_mode(Pasid::ZERO), Err(Error::OutOfOrder { .. })), "it is up already");
}

#[test]
fn bad_tables_domains_and_pasids_are_refused() {
    let mut board = up(Configuration { domains: 2, ..Configuration::scalable() }, 0);
    let (levels, good) = (Levels::Four, HostPhys::new(0x20_0000));
    let nested = |first, second| Translation::Nested {
        first: GuestPhys::new(first),
        first_levels: levels,
        second,
        second_levels: Levels::Three,
    };
    for table in [0, 0x1800, 1 << 52].map(HostPhys::new) {
        for translation in [
            Translation::SecondStage { table, levels },
            Translation::FirstStage { table, levels },
            nested(0x1000, table),
        ] {
            let result = board.unit.attach(&mut board.memory, NIC, None, DomainId(1), translation);
            assert_eq!(result, Err(Error::BadTable(table)));
        }
    }
    for first in [0x1800, 1 << 39] {
        let result = board.unit.attach(&mut board.memory, NIC, None, DomainId(1), nested(first, good));
        assert_eq!(result, Err(Error::BadFirstStageTable(GuestPhys::new(first))));
    }
    for domain in [0, 256].map(DomainId) {
        let result = board.unit.attach(&mut board.memory, NIC, None, domain, Translation::PassThrough);
        assert_eq!(result, Err(Error::DomainOutOfRange(domain)));
    }
    let third = Translation::FirstStage { table: good, levels: Levels::Three };
    let result = board.unit.attach(&mut board.memory, NIC, None, DomainId(1), third);
    assert_eq!(result, Err(Error::LevelsUnsupported(3)));
    assert_eq!(write(&board.machine, NIC.as_u16(), None, 0x1000), Err(Reason::SCALABLE_ROOT_NOT_PRESENT));
    board.unit.attach(&mut board.memory, NIC, None, DomainId(255), nested((1 << 39) - 0x1000, good)).unwrap();
    board.done();
}

#[test]
fn in_legacy_mode_there_is_no_pasid_and_no_first_stage_and_pass_through_is_there() {
    for (kind, configuration) in support::kinds() {
        let mut board = Board::up(configuration);
        let mut domain = board.domain(1);
        board.map(&mut domain, 0x1000, A, 0x1000);
        let translation = by_second(&domain);
        assert_eq!(board.unit.translation_mode(), TranslationMode::Legacy);
        assert_eq!(board.unit.page_walks_are_coherent(), board.capabilities().coherent());
        let refused =
            |result: Result<(), Error>| assert!(matches!(result, Err(Error::Unsupported { .. })), "{kind}: {result:?}");
        refused(board.unit.attach(&mut board.memory, NIC, pasid(1), domain.id, translation));
        let first = Translation::FirstStage { table: domain.table.root(), levels: Levels::Four };
        refused(board.unit.attach(&mut board.memory, NIC, None, domain.id, first));
        refused(board.unit.detach(&mut board.memory, NIC, pasid(1)));
        board.unit.attach(&mut board.memory, NIC, None, domain.id, translation).unwrap();
        assert_eq!(board.write(NIC, 0x1000), Ok(A), "{kind}");
        assert_eq!(board.unit.attachment(&board.memory, NIC, None), Some((domain.id, translation)));
        assert_eq!(board.unit.attachment(&board.memory, NIC, pasid(1)), None);
        let through = board.unit.attach(&mut board.memory, NIC, None, DomainId(2), Translation::PassThrough);
        if board.capabilities().pass_through() {
            through.unwrap();
            assert_eq!(board.write(NIC, 0x20_0000), Ok(0x20_0000), "{kind}");
            assert_eq!(board.unit.attachment(&board.memory, NIC, None), Some((DomainId(2), Translation::PassThrough)));
            assert_eq!(board.unit.assignment(&board.memory, NIC), None);
        } else {
            refused(through);
            assert_eq!(board.write(NIC, 0x1000), Ok(A), "{kind}");
        }
        board.unit.detach(&mut board.memory, NIC, None).unwrap();
        assert_eq!(board.write(NIC, 0x1000), Err(Reason::CONTEXT_NOT_PRESENT), "{kind}");
        board.done();
    }
}

#[test]
fn a_proof_for_a_first_stage_covers_what_was_asked_and_no_more() {
    let mut board = up(Configuration::scalable(), 0);
    let root = HostPhys::new(0x20_0000);
    let change = Invalidation { root, start: Iova::new(0x3000), len: 0x2000, tables_changed: false, only_added: false };
    let proof = board.unit.invalidate_first_stage(&mut board.memory, DomainId(1), None, &change).unwrap();
    let covers = |other: &Invalidation<Iova>| paging::InvalidationComplete::covers(&proof, other);
    assert!(covers(&change) && covers(&Invalidation { len: 0x1000, ..change }));
    assert!(!covers(&Invalidation { len: 0x3000, ..change }));
    assert!(!covers(&Invalidation { tables_changed: true, ..change }));
    assert!(!covers(&Invalidation { root: HostPhys::new(0x30_0000), ..change }));
    let out = board.unit.invalidate_first_stage(&mut board.memory, DomainId(1), pasid(1 << 19), &change);
    assert!(out.is_ok());
    board.done();
}

#[test]
fn device_tlbs_forget_what_goes_with_pasids_and_without() {
    for (kind, mut configuration) in kinds() {
        configuration.device_tlb = true;
        let mut board = up(configuration, 0);
        let pasids: &[Option<u32>] =
            if board.capabilities().pasid() { &[None, Some(0x41), Some(0x42)] } else { &[None] };
        let nic = NIC.as_u16();
        let number = |pasid: Option<u32>| pasid.map(|pasid| Pasid::new(pasid).unwrap());
        let spaces: Vec<_> = (0..3).map(|n| Space::new(&mut board, n + 1, A + u64::from(n) * 0x1000)).collect();
        let host = |index: usize| A + 0x1000 * index as u64;
        spaces[0].attach(&mut board, NIC, None);
        assert_eq!(device_write(&board.machine, nic, None, 0x1000), Err(Reason::TRANSLATION_BLOCKED), "{kind}");
        let device = DeviceTlb { queue_depth: 4, physical_function: NIC };
        board.unit.use_device_tlb(&mut board.memory, NIC, Some(device)).unwrap();
        for (index, pasid) in pasids.iter().enumerate() {
            spaces[index].attach(&mut board, NIC, number(*pasid));
            assert_eq!(device_write(&board.machine, nic, *pasid, 0x1000), Ok(host(index)), "{kind}");
        }
        // Each loses its page, moves, and goes: what the device has kept of the others stays.
        for (index, pasid) in pasids.iter().enumerate() {
            let before = spaces[index].translation();
            board.unit.attach(&mut board.memory, NIC, number(*pasid), DomainId(9), Translation::PassThrough).unwrap();
            assert_eq!(device_write(&board.machine, nic, *pasid, 0x1000), Ok(0x1000), "{kind}");
            board.unit.attach(&mut board.memory, NIC, number(*pasid), spaces[index].id, before).unwrap();
            assert_eq!(device_write(&board.machine, nic, *pasid, 0x1000), Ok(host(index)), "{kind}");
        }
        for (index, asked) in pasids.iter().enumerate() {
            let change = Invalidation {
                root: HostPhys::new(0),
                start: Iova::new(0x1000),
                len: 0x1000,
                tables_changed: true,
                only_added: false,
            };
            let space = &spaces[index];
            let pasid = number(*asked);
            match (&space.second, &space.first) {
                (Some(domain), _) => {
                    let root = domain.table.root();
                    empty_table(&mut board.memory, root);
                    let _ =
                        board.unit.invalidate(&mut board.memory, space.id, &Invalidation { root, ..change }).unwrap();
                }
                (_, Some(table)) => {
                    let (root, memory) = (table.root(), &mut board.memory);
                    empty_table(memory, root);
                    let change = Invalidation { root, ..change };
                    let _ = board.unit.invalidate_first_stage(memory, space.id, pasid, &change).unwrap();
                }
                _ => unreachable!(),
            }
            assert!(device_write(&board.machine, nic, *asked, 0x1000).is_err(), "{kind}: {index}");
        }
        board.unit.detach(&mut board.memory, NIC, None).unwrap();
        board.unit.clear(&mut board.memory, NIC).unwrap();
        for pasid in pasids {
            assert!(device_write(&board.machine, nic, *pasid, 0x1000).is_err(), "{kind}");
        }
        board.done();
    }
}

/// Takes everything out of a table, as its owner may, before the unit is told.
fn empty_table(memory: &mut support::Memory, root: HostPhys) {
    for index in 0..512 {
        paging::TableMemory::write_entry(memory, root, index, 0);
    }
}

#[test]
fn a_device_that_does_not_answer_loses_all_of_its_pasids_and_no_other_does() {
    let mut board = up(Configuration { device_tlb: true, ..Configuration::scalable() }, 0);
    let (one, two) = (Space::new(&mut board, 1, A), Space::new(&mut board, 2, B));
    let device = DeviceTlb { queue_depth: 4, physical_function: NIC };
    one.attach(&mut board, NIC, None);
    two.attach(&mut board, NIC, pasid(0x41));
    one.attach(&mut board, OTHER, pasid(0x41));
    board.unit.use_device_tlb(&mut board.memory, NIC, Some(device)).unwrap();
    let nic = NIC.as_u16();
    for (number, host) in [(None, A), (Some(0x41), B)] {
        assert_eq!(device_write(&board.machine, nic, number, 0x1000), Ok(host));
    }
    board.machine.unit(0, |unit, _| unit.set_silent(nic, true));
    let result = board.unit.detach(&mut board.memory, NIC, pasid(0x41));
    assert_eq!(result, Err(Error::DeviceIsolated(NIC)));
    for number in [None, Some(0x41)] {
        assert!(write(&board.machine, nic, number, 0x1000).is_err());
        assert!(device_write(&board.machine, nic, number, 0x1000).is_err(), "a translated request is blocked");
    }
    assert_eq!(write(&board.machine, OTHER.as_u16(), Some(0x41), 0x1000), Ok(A));
    assert!(!board.unit.is_poisoned());
    board.done();
}

#[test]
fn a_page_that_one_pasid_loses_is_lost_for_it_and_for_no_other() {
    for (kind, configuration) in kinds().into_iter().filter(|(_, unit)| unit.first_stage && unit.pasid) {
        let mut board = up(configuration, 0);
        let nic = NIC.as_u16();
        let numbers = [None, Some(0x41), Some(0x42)];
        let mut tables = Vec::new();
        for (number, id) in numbers.into_iter().zip(1..) {
            let mut table = first_stage(&mut board, 4);
            let flush = map(&mut table, &mut board.memory, 0x1000, A + 0x10_0000 * id, 0x3000);
            flush.complete(&paging::NeverLoaded, &mut board.memory).unwrap();
            let pasid = number.map(|number| Pasid::new(number).unwrap());
            board.unit.attach(&mut board.memory, NIC, pasid, DomainId(1), by_first(&table)).unwrap();
            tables.push((table, pasid));
        }
        for (index, number) in numbers.into_iter().enumerate() {
            for iova in [0x1000, 0x2000, 0x3000] {
                assert!(write(&board.machine, nic, number, iova).is_ok(), "{kind}");
            }
            let (table, pasid) = &mut tables[index];
            let flush = table.unmap(&mut board.memory, Iova::new(0x2000), 0x1000).unwrap();
            let change = flush.invalidation().copied().unwrap();
            let proof = board.unit.invalidate_first_stage(&mut board.memory, DomainId(1), *pasid, &change).unwrap();
            flush.complete(&proof, &mut board.memory).unwrap();
            assert_eq!(write(&board.machine, nic, number, 0x2000), Err(Reason::FIRST_STAGE_ABSENT), "{kind}");
            for later in &numbers[index + 1..] {
                assert!(write(&board.machine, nic, *later, 0x2000).is_ok(), "{kind}");
            }
        }
        board.done();
    }
}
