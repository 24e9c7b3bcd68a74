//! Random lives in scalable mode: devices and PASIDs come, go and move between tables of both stages that change at the
//! same time. At every store, flush and register write of the driver some device writes somewhere; what it reaches, by
//! what the unit remembers and by what the tables say, must be what was meant before or after the call under way, and
//! after each call exactly what is meant.

mod support;

use addr::{Bdf, DomainId, Iova, PageSize};
use model::{Configuration, Eviction};
use paging::{FirstStage, Invalidation, PageTable, TableMemory};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;
use support::random::Random;
use support::scalable::*;
use support::{Board, Domain, GUESTS};
use vtd::{Levels, Pasid, Translation};

/// Tables of each stage.
const TABLES: usize = 3;
/// Pages that may be mapped: some small ones, and a large one.
const SMALL: u64 = 12;
const LARGE: Range<u64> = 512..1024;
/// Guest-physical memory of a guest's first-stage tables: pages from here.
const GUEST_TABLES: u64 = 0x800;
const GUEST_TABLE_PAGES: u64 = 64;
/// The devices: two on one half of a bus, one on the other.
const SOURCES: [u16; 3] = [0x18, 0x20, 0xf8];
/// `None`, two in one table, and one that needs a larger directory.
const PASIDS: [Option<u32>; 4] = [None, Some(0x41), Some(0x42), Some(0x9000)];

/// Where page `page` of second-stage table `table` is: every table has host memory of its own.
fn second_host(table: usize, page: u64) -> u64 {
    GUESTS + ((table as u64) << 22) + (page << 12)
}

fn first_host(table: usize, page: u64) -> u64 {
    GUESTS + ((TABLES + table) as u64) * (4 << 20) + (page << 12)
}

/// Where a guest's tables are: the upper part of the memory of its second-stage table.
fn guest_tables_host(table: usize) -> u64 {
    second_host(table, 0) + (2 << 20)
}

/// Where guest table `table`, of a guest in second-stage table `table`, leads: to pages in another order.
fn guest_page(page: u64) -> u64 {
    if LARGE.contains(&page) { page } else { (page * 5 + 3) % SMALL }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Second(usize),
    First(usize),
    Nested(usize),
    Through,
}

/// What is meant.
#[derive(Clone, Default)]
struct Meant {
    ways: BTreeMap<(u16, Option<u32>), Way>,
    second: [BTreeSet<u64>; TABLES],
    first: [BTreeSet<u64>; TABLES],
    guest: [BTreeSet<u64>; TABLES],
}

impl Meant {
    fn of(&self, source: u16, pasid: Option<u32>, page: u64) -> Option<u64> {
        let through = |table: usize, page: u64| self.second[table].contains(&page).then(|| second_host(table, page));
        match *self.ways.get(&(source, pasid))? {
            Way::Second(table) => through(table, page),
            Way::First(table) => self.first[table].contains(&page).then(|| first_host(table, page)),
            Way::Nested(table) => self.guest[table].contains(&page).then(|| through(table, guest_page(page)))?,
            Way::Through => Some(page << 12),
        }
    }
}

/// A page: one of those that lie close, or of a large range.
fn page(random: &mut Random) -> u64 {
    match random.below(3) {
        0 => LARGE.start + random.below(4),
        1 if random.below(8) == 0 => LARGE.end - 1,
        _ => random.below(SMALL),
    }
}

struct Rig {
    board: Board,
    pasids: Vec<Option<u32>>,
    second: Vec<Domain>,
    first: Vec<PageTable<FirstStage>>,
    guests: Vec<(PageTable<FirstStage>, GuestMemory)>,
    meant: Rc<RefCell<(Meant, Meant)>>,
}

/// The id of one attachment: shared by all of one second-stage table, else its own.
fn domain_id(way: Way, source: u16, pasid: Option<u32>) -> DomainId {
    let device = SOURCES.iter().position(|known| *known == source).unwrap();
    let place = device * PASIDS.len() + PASIDS.iter().position(|known| *known == pasid).unwrap();
    match way {
        Way::Second(table) => DomainId(1 + table as u16),
        Way::First(_) => DomainId(20 + place as u16),
        Way::Nested(_) => DomainId(40 + place as u16),
        Way::Through => DomainId(60 + place as u16),
    }
}

impl Rig {
    fn new(configuration: Configuration, seed: u64, eviction: Eviction) -> Self {
        let pasids: Vec<_> = match (configuration.pasid, configuration.pasid_bits) {
            (false, _) => vec![None],
            (true, 20) => PASIDS.to_vec(),
            (true, _) => PASIDS[..3].to_vec(),
        };
        let (has_second, has_first, nested) =
            (configuration.second_stage, configuration.first_stage, configuration.nested);
        let mut board = up(configuration, 0);
        board.memory.exchange = seed.is_multiple_of(2);
        board.machine.unit(0, |unit, _| unit.set_eviction(eviction));
        let mut second: Vec<_> = (0..if has_second { TABLES } else { 0 }).map(|n| board.domain(1 + n as u16)).collect();
        let first = (0..if has_first { TABLES } else { 0 }).map(|_| first_stage(&mut board, 4)).collect();
        let mut guests = Vec::new();
        for (n, domain) in second.iter_mut().enumerate().filter(|_| nested) {
            let bytes = GUEST_TABLE_PAGES << 12;
            let host = guest_tables_host(n);
            board.map(domain, GUEST_TABLES << 12, host, bytes);
            let mut memory = GuestMemory::new(&board.memory, GUEST_TABLES << 12, host, bytes);
            let table = PageTable::new(4, PageSize::Size2M, &mut memory).unwrap();
            guests.push((table, memory));
        }
        let meant = Rc::new(RefCell::new((Meant::default(), Meant::default())));
        Self { board, pasids, second, first, guests, meant }
    }

    /// From now on, every event has a device write somewhere.
    fn watch(&self, seed: u64, configuration: &Configuration) {
        let (meant, pasids) = (self.meant.clone(), self.pasids.clone());
        let torn = configuration.coherent && !configuration.write_buffer && !self.board.memory.exchange;
        let mut random = Random(seed);
        self.board.machine.on_event(move |machine, event| {
            for _ in 0..2 {
                let (source, pasid, page) = (random.of(&SOURCES), random.of(&pasids), page(&mut random));
                let cold = write_cold(machine, source, pasid, page << 12);
                let warm = write(machine, source, pasid, page << 12);
                let (before, after) = &*meant.borrow();
                let allowed = [before.of(source, pasid, page), after.of(source, pasid, page)];
                let torn = if torn && random.below(24) == 0 {
                    write_torn(machine, source, pasid, page << 12)
                } else {
                    Vec::new()
                };
                for reached in [cold, warm].into_iter().flatten().chain(torn) {
                    assert!(
                        allowed.contains(&Some(reached)),
                        "{source:#x} {pasid:x?} page {page:#x} reaches {reached:#x}, meant {allowed:x?} ({event:x?})"
                    );
                }
            }
            if random.below(8) == 0 {
                machine.unit(0, |_, memory| memory.evict(page_choice(random.below(64))));
            }
        });
    }

    /// Everything is as meant now.
    fn check(&self, random: &mut Random) {
        let meant = &self.meant.borrow().1;
        for _ in 0..12 {
            let (source, pasid, page) = (random.of(&SOURCES), random.of(&self.pasids), page(random));
            let reached = write(&self.board.machine, source, pasid, page << 12).ok();
            assert_eq!(reached, meant.of(source, pasid, page), "{source:#x} {pasid:x?} page {page:#x}");
        }
    }

    /// What happens is allowed to be seen from now on, and is all that may be seen once it has happened.
    fn meaning(&mut self, change: impl FnOnce(&mut Meant), act: impl FnOnce(&mut Self)) {
        change(&mut self.meant.borrow_mut().1);
        act(self);
        let mut meant = self.meant.borrow_mut();
        meant.0 = meant.1.clone();
    }

    fn translation(&self, way: Way) -> Translation {
        let levels = |count: u8| Levels::from_count(count).unwrap();
        match way {
            Way::Second(n) => Translation::SecondStage {
                table: self.second[n].table.root(),
                levels: levels(self.second[n].table.levels()),
            },
            Way::First(n) => Translation::FirstStage { table: self.first[n].root(), levels: Levels::Four },
            Way::Nested(n) => Translation::Nested {
                first: guest_root(&self.guests[n].0),
                first_levels: Levels::Four,
                second: self.second[n].table.root(),
                second_levels: levels(self.second[n].table.levels()),
            },
            Way::Through => Translation::PassThrough,
        }
    }

    fn attach(&mut self, random: &mut Random) {
        let mut ways = vec![Way::Through];
        ways.extend((0..self.second.len()).map(Way::Second));
        ways.extend((0..self.first.len()).map(Way::First));
        ways.extend((0..self.guests.len()).map(Way::Nested));
        let (source, pasid, way) = (random.of(&SOURCES), random.of(&self.pasids), random.of(&ways));
        let translation = self.translation(way);
        let number = pasid.map(|pasid| Pasid::new(pasid).unwrap());
        self.meaning(
            |meant| {
                meant.ways.insert((source, pasid), way);
            },
            |rig| {
                let (unit, memory) = (&mut rig.board.unit, &mut rig.board.memory);
                unit.attach(memory, Bdf::from_u16(source), number, domain_id(way, source, pasid), translation).unwrap();
            },
        );
    }

    fn detach(&mut self, random: &mut Random) {
        let (source, pasid) = (random.of(&SOURCES), random.of(&self.pasids));
        let number = pasid.map(|pasid| Pasid::new(pasid).unwrap());
        self.meaning(
            |meant| {
                meant.ways.remove(&(source, pasid));
            },
            |rig| rig.board.unit.detach(&mut rig.board.memory, Bdf::from_u16(source), number).unwrap(),
        );
    }

    fn clear(&mut self, random: &mut Random) {
        let source = random.of(&SOURCES);
        self.meaning(
            |meant| meant.ways.retain(|(known, _), _| *known != source),
            |rig| rig.board.unit.clear(&mut rig.board.memory, Bdf::from_u16(source)).unwrap(),
        );
    }

    /// Under which ids and PASIDs something may be cached of a table.
    fn users(&self, wanted: impl Fn(Way) -> bool) -> Vec<(DomainId, Option<Pasid>)> {
        let meant = &self.meant.borrow().1;
        let users = meant.ways.iter().filter(|(_, way)| wanted(**way));
        users
            .map(|(&(source, pasid), &way)| {
                (domain_id(way, source, pasid), pasid.map(|pasid| Pasid::new(pasid).unwrap()))
            })
            .collect()
    }

    /// Pages to map or to unmap: all of them are mapped or none is.
    fn pages(random: &mut Random, mapped: &BTreeSet<u64>) -> (Range<u64>, bool) {
        let pages = match random.below(4) {
            0 => LARGE,
            1 => {
                let start = LARGE.start + random.below(4);
                start..start + 1
            }
            _ => {
                let start = random.below(SMALL - 2);
                start..start + 1 + random.below(2)
            }
        };
        let map = !pages.clone().any(|page| mapped.contains(&page));
        (pages, map)
    }

    fn change_second(&mut self, random: &mut Random) {
        let n = random.below(self.second.len() as u64) as usize;
        let (pages, map) = Self::pages(random, &self.meant.borrow().1.second[n]);
        self.meaning(
            |meant| set(&mut meant.second[n], &pages, map),
            |rig| {
                let (start, len) = (pages.start << 12, (pages.end - pages.start) << 12);
                let mut domain = rig.second.remove(n);
                let flush = match map {
                    true => rig.board.map_unflushed(&mut domain, start, second_host(n, pages.start), len),
                    false => rig.board.unmap_unflushed(&mut domain, start, len),
                };
                // Nested translations have ids of their own.
                if let Some(change) = flush.invalidation().copied() {
                    for (id, _) in rig.users(|way| way == Way::Nested(n)) {
                        let _ = rig.board.unit.invalidate(&mut rig.board.memory, id, &change).unwrap();
                    }
                }
                rig.board.flush(&domain, flush);
                rig.second.insert(n, domain);
            },
        );
    }

    fn change_first(&mut self, random: &mut Random) {
        let n = random.below(self.first.len() as u64) as usize;
        let (pages, map) = Self::pages(random, &self.meant.borrow().1.first[n]);
        self.meaning(
            |meant| set(&mut meant.first[n], &pages, map),
            |rig| {
                let mut memory = rig.board.memory.clone();
                let users = rig.users(|way| way == Way::First(n));
                let table = &mut rig.first[n];
                change_table(&mut rig.board, &mut memory, table, &pages, map, users, |page| first_host(n, page));
            },
        );
    }

    fn change_guest(&mut self, random: &mut Random) {
        let n = random.below(self.guests.len() as u64) as usize;
        let (mut pages, map) = Self::pages(random, &self.meant.borrow().1.guest[n]);
        if pages.end <= SMALL {
            // The guest's pages are in another order: one at a time.
            pages.end = pages.start + 1;
        }
        self.meaning(
            |meant| set(&mut meant.guest[n], &pages, map),
            |rig| {
                let users = rig.users(|way| way == Way::Nested(n));
                let (table, memory) = &mut rig.guests[n];
                change_table(&mut rig.board, memory, table, &pages, map, users, |page| guest_page(page) << 12);
            },
        );
    }
}

fn page_choice(choice: u64) -> u64 {
    choice * 7
}

fn set(pages: &mut BTreeSet<u64>, range: &Range<u64>, present: bool) {
    for page in range.clone() {
        match present {
            true => pages.insert(page),
            false => pages.remove(&page),
        };
    }
}

/// Maps or unmaps in a first-stage table, and makes the unit forget it under everything that it is attached under.
fn change_table(
    board: &mut Board,
    memory: &mut impl TableMemory,
    table: &mut PageTable<FirstStage>,
    pages: &Range<u64>,
    present: bool,
    users: Vec<(DomainId, Option<Pasid>)>,
    host: impl Fn(u64) -> u64,
) {
    let (start, len) = (pages.start << 12, (pages.end - pages.start) << 12);
    let flush = match present {
        true => map(table, memory, start, host(pages.start), len),
        false => table.unmap(memory, Iova::new(start), len).unwrap(),
    };
    let change: Option<Invalidation<Iova>> = flush.invalidation().copied();
    let mut proof = None;
    for (domain, pasid) in users {
        if let Some(change) = &change {
            proof = Some(board.unit.invalidate_first_stage(&mut board.memory, domain, pasid, change).unwrap());
        }
    }
    match proof {
        Some(proof) => flush.complete(&proof, memory).unwrap(),
        None => flush.complete(&paging::NeverLoaded, memory).unwrap(),
    }
}

fn live(configuration: Configuration, seed: u64, eviction: Eviction, steps: usize) {
    let mut rig = Rig::new(configuration.clone(), seed, eviction);
    let mut random = Random(seed | 1);
    rig.watch(seed ^ 0x5555_5555, &configuration);
    for _ in 0..steps {
        match random.below(12) {
            0..4 => rig.attach(&mut random),
            4 => rig.detach(&mut random),
            5 if random.below(2) == 0 => rig.clear(&mut random),
            5..8 if !rig.second.is_empty() => rig.change_second(&mut random),
            8..10 if !rig.first.is_empty() => rig.change_first(&mut random),
            10.. if !rig.guests.is_empty() => rig.change_guest(&mut random),
            _ => rig.attach(&mut random),
        }
        rig.check(&mut random);
    }
    rig.board.machine.clear_hook();
    rig.board.done();
}

/// Longer lives by `SCALABLE_STEPS=1000 cargo test -p model --release --test scalable_random`, others by `SCALABLE_SEED`.
fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn random_lives_reach_what_was_meant_at_every_store() {
    let steps = from_environment("SCALABLE_STEPS", 40) as usize;
    let first = from_environment("SCALABLE_SEED", 0xdead_bee0);
    for (kind, configuration) in kinds() {
        for seed in [first, first + 1] {
            println!("{kind}, seed {seed}");
            live(configuration.clone(), seed, Eviction::Never, steps);
            live(configuration.clone(), seed, Eviction::PseudoRandom { seed, one_in: 3 }, steps / 2);
        }
    }
}
