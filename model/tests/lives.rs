//! Random lives of a unit: mappings, assignments, moves, interrupts, faults and errors, and at every store what every
//! device and every message gets, compared with what was meant.
//!
//! A life is told by its seed: `LIVES=1000 cargo test -p model --test lives` lives so many more of each kind.

mod support;

use addr::{ApicId, Bdf, HostPhys, Vector};
use model::{Access, Configuration, Eviction, Interrupt, Latency, Machine};
use std::cell::RefCell;
use std::rc::Rc;
use support::*;
use vtd::{Batch, DeviceTlb, Error, HandleBlock, PostedRoute, Route, Trigger};

const SOURCES: [Bdf; 3] = [NIC, OTHER, Bdf::from_u16(0x0128)];
const DOMAINS: usize = 3;
/// Pages that a domain may map: 6 MiB.
const PAGES: usize = 3 * 512;
const DESCRIPTOR: u64 = GUESTS + (40 << 20);
const OPERATIONS: usize = 60;

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 5) as usize % end
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// Where a page of a domain is.
fn host(domain: usize, page: usize) -> u64 {
    GUESTS + ((domain as u64) << 23) + ((page as u64) << 12)
}

/// What a message is to become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Meant {
    source: Bdf,
    posted: bool,
    vector: u8,
    to: u64,
}

/// What is meant at one moment.
#[derive(Clone, PartialEq)]
struct State {
    /// The domain of each device, and whether the device may remember.
    devices: [Option<(usize, bool)>; SOURCES.len()],
    mapped: Vec<Vec<bool>>,
    interrupts: Vec<(HandleBlock, Vec<Option<Meant>>)>,
}

impl State {
    fn reached(&self, device: usize, page: usize) -> Option<u64> {
        let (domain, _) = self.devices[device]?;
        self.mapped[domain][page].then(|| host(domain, page))
    }

    fn arrives(&self, index: u16, source: Bdf) -> Option<Meant> {
        let all = self.interrupts.iter().flat_map(|(block, meant)| block.handles().zip(meant));
        let meant = all.into_iter().find(|(handle, _)| handle.index() == index)?.1;
        meant.filter(|meant| meant.source == source)
    }
}

/// What is meant before and after the operation under way.
struct Moment {
    before: State,
    after: State,
    /// Devices that may reach less meanwhile.
    disturbed: [bool; SOURCES.len()],
    /// Messages may be lost meanwhile.
    lossy: bool,
    /// Hardware errs: whoever may reach less.
    errs: bool,
    random: Random,
    checks: usize,
}

impl Moment {
    /// What one device and one message get right now.
    fn look(&mut self, machine: &Machine, seed: u64) {
        self.checks += 1;
        let (device, page) = (self.random.below(SOURCES.len()), self.random.below(PAGES));
        let source = SOURCES[device];
        let iova = (page as u64) << 12;
        let allowed = [self.before.reached(device, page), self.after.reached(device, page)];
        let mut answers = vec![write(machine, source, iova), write_cold(machine, source, iova)];
        if [&self.before, &self.after].iter().all(|state| state.devices[device].is_some_and(|(_, keeps)| keeps)) {
            let kept = machine.device_access(0, source.as_u16(), iova, Access::Write);
            answers.push(kept.map_err(|fault| fault.reason));
        }
        for answer in answers {
            match answer {
                Ok(host) => {
                    assert!(allowed.contains(&Some(host)), "seed {seed}: {source} reaches {host:#x} at {iova:#x}")
                }
                Err(reason) => {
                    let may_fail = allowed.contains(&None) || self.disturbed[device] || self.errs;
                    assert!(may_fail, "seed {seed}: {source} is refused {iova:#x}: {reason:?}");
                }
            }
        }
        let index = 1 + self.random.below(40) as u16;
        let message = 0xfee0_0010 | u64::from(index) << 5;
        let allowed = [self.before.arrives(index, source), self.after.arrives(index, source)];
        let cold = machine.interrupt_cold(0, source.as_u16(), message, 0);
        for interrupt in [cold, machine.interrupt(0, source.as_u16(), message, 0)] {
            let (posted, vector, to) = match interrupt {
                Interrupt::Delivered(to) => (false, to.vector, u64::from(to.destination)),
                Interrupt::Posted { vector, descriptor, .. } => (true, vector, descriptor),
                Interrupt::Unremapped { .. } => panic!("seed {seed}: a message passes by the table"),
                Interrupt::Blocked(fault) => {
                    let may_fail = allowed.contains(&None) || self.lossy || self.errs;
                    assert!(may_fail, "seed {seed}: message {index} of {source} is lost: {fault:?}");
                    continue;
                }
            };
            let got = Some(Meant { source, posted, vector, to });
            assert!(allowed.contains(&got), "seed {seed}: message {index} becomes {got:?}");
        }
    }
}

struct Life {
    board: Board,
    domains: Vec<Domain>,
    moment: Rc<RefCell<Moment>>,
    random: Random,
    seed: u64,
}

impl Life {
    fn new(configuration: Configuration, seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let configuration =
            Configuration { device_tlb: true, names_silent_devices: !random.once_in(3), ..configuration };
        let mut board = Board::up(configuration);
        board.memory.exchange = random.once_in(2);
        for at in (DESCRIPTOR..DESCRIPTOR + 256).step_by(8) {
            board.machine.store_u64(at, 0);
        }
        let latency = match random.below(3) {
            0 => Latency::Looks(2),
            1 => Latency::Immediate,
            _ => Latency::Disorder { seed, one_in: 3 },
        };
        let eviction = match random.once_in(2) {
            true => Eviction::Never,
            false => Eviction::PseudoRandom { seed, one_in: 4 },
        };
        board.machine.unit(0, |unit, _| {
            unit.set_latency(latency);
            unit.set_eviction(eviction);
        });
        let domains = (1..=DOMAINS as u16).map(|id| board.domain(id)).collect();
        let nothing =
            State { devices: [None; SOURCES.len()], mapped: vec![vec![false; PAGES]; DOMAINS], interrupts: Vec::new() };
        let moment = Rc::new(RefCell::new(Moment {
            before: nothing.clone(),
            after: nothing,
            disturbed: [false; SOURCES.len()],
            lossy: false,
            errs: false,
            random: Random(seed ^ 0x5555_5555),
            checks: 0,
        }));
        let looks = moment.clone();
        board.machine.on_event(move |machine, _| looks.borrow_mut().look(machine, seed));
        Self { board, domains, moment, random, seed }
    }

    /// Something is meant to change; the errors of hardware that go with it, sometimes.
    fn intend(&mut self, change: impl FnOnce(&mut Moment)) {
        let errs = self.random.once_in(6);
        if errs {
            let (refused, source) = (self.random.below(4) as u32, SOURCES[self.random.below(SOURCES.len())]);
            let kind = self.random.below(3);
            self.board.machine.unit(0, |unit, _| match kind {
                0 => unit.refuse_after(refused),
                1 => unit.set_silent(source.as_u16(), true),
                _ => unit.inject_stray_answer(source.as_u16()),
            });
        }
        let mut moment = self.moment.borrow_mut();
        moment.errs = errs;
        change(&mut moment);
    }

    /// What was meant is so now.
    fn settle(&mut self) {
        {
            let mut moment = self.moment.borrow_mut();
            moment.before = moment.after.clone();
            (moment.disturbed, moment.lossy, moment.errs) = ([false; SOURCES.len()], false, false);
        }
        // Errors that nothing met so far are met by this, or never.
        self.board.machine.unit(0, |unit, _| SOURCES.iter().for_each(|source| unit.set_silent(source.as_u16(), false)));
        let pending = self.board.machine.read32(0, model::registers::FSTS) & model::registers::ICE != 0;
        if pending {
            self.moment.borrow_mut().errs = true;
            self.until_done(|life| {
                life.board.unit.invalidate_iotlb(&mut life.board.memory, [vtd::IotlbInvalidation::Global])
            });
            self.assume_settled();
        }
        for _ in 0..6 {
            self.moment.borrow_mut().look(&self.board.machine, self.seed);
        }
    }

    fn assume_settled(&mut self) {
        let mut moment = self.moment.borrow_mut();
        moment.before = moment.after.clone();
        (moment.disturbed, moment.lossy, moment.errs) = ([false; SOURCES.len()], false, false);
    }

    /// Calls until it succeeds, with what an author of a kernel would do in between.
    fn until_done<T>(&mut self, mut call: impl FnMut(&mut Self) -> Result<T, Error>) -> T {
        for _ in 0..8 {
            match call(self) {
                Ok(done) => return done,
                Err(error) => self.survive(error),
            }
        }
        panic!("seed {}: it never succeeds", self.seed);
    }

    fn survive(&mut self, error: Error) {
        self.moment.borrow_mut().errs = true;
        match error {
            Error::DeviceIsolated(source) => {
                let device = SOURCES.iter().position(|known| *known == source);
                let device = device.unwrap_or_else(|| panic!("seed {}: {source} is nobody", self.seed));
                self.moment.borrow_mut().after.devices[device] = None;
            }
            Error::Invalidation(_) | Error::Poisoned => {
                let recovered = self.board.unit.recover(&mut self.board.memory);
                if let Err(error @ Error::DeviceIsolated(_)) = recovered {
                    self.survive(error);
                }
            }
            error => panic!("seed {}: {error}", self.seed),
        }
    }

    fn map_or_unmap(&mut self) {
        let domain = self.random.below(DOMAINS);
        let (start, len) = match self.random.below(3) {
            0 => (self.random.below(3) * 512, 512),
            1 => (self.random.below(PAGES - 64), 1 + self.random.below(64)),
            _ => (self.random.below(PAGES), 1),
        };
        let (iova, bytes) = ((start as u64) << 12, (len as u64) << 12);
        let range = start..start + len;
        let maps = self.moment.borrow().before.mapped[domain][range.clone()].iter().all(|mapped| !mapped);
        self.intend(|moment| moment.after.mapped[domain][range].fill(maps));
        let table = &mut self.domains[domain];
        let flush = match maps {
            true => self.board.map_unflushed(table, iova, host(domain, start), bytes),
            false => self.board.unmap_unflushed(table, iova, bytes),
        };
        self.flush(domain, flush);
    }

    fn flush(&mut self, domain: usize, flush: paging::Flush<addr::Iova>) {
        let id = self.domains[domain].id;
        let Some(change) = flush.invalidation().copied() else {
            return flush.complete(&paging::NeverLoaded, &mut self.board.memory).unwrap();
        };
        let proof = self.until_done(|life| life.board.unit.invalidate(&mut life.board.memory, id, &change));
        flush.complete(&proof, &mut self.board.memory).unwrap();
    }

    /// Scattered pages of all domains, with one flush.
    fn unmap_scattered(&mut self) {
        let pages: Vec<(usize, usize)> =
            (0..1 + self.random.below(12)).map(|_| (self.random.below(DOMAINS), self.random.below(PAGES))).collect();
        self.intend(|moment| pages.iter().for_each(|&(domain, page)| moment.after.mapped[domain][page] = false));
        let mut flushes = Vec::new();
        for (domain, page) in pages {
            let flush = self.board.unmap_unflushed(&mut self.domains[domain], (page as u64) << 12, 0x1000);
            flushes.push((self.domains[domain].id, flush));
        }
        let proof = self.until_done(|life| {
            let mut batch = Batch::new();
            for (id, flush) in &flushes {
                flush.invalidation().into_iter().for_each(|change| batch.add(*id, change));
            }
            let submitted = life.board.unit.submit_batch(&mut life.board.memory, batch)?;
            life.board.unit.complete_batch(&mut life.board.memory, submitted)
        });
        for (_, flush) in flushes {
            flush.complete(&proof, &mut self.board.memory).unwrap();
        }
    }

    fn assign(&mut self) {
        let (device, domain) = (self.random.below(SOURCES.len()), self.random.below(DOMAINS));
        let (keeps, without_gap) = (self.random.once_in(2), self.random.once_in(3));
        let keeps = keeps && !without_gap;
        let exchange = self.board.memory.exchange;
        self.intend(|moment| {
            moment.after.devices[device] = Some((domain, keeps));
            // By one store, pages that are in both are reached all the time.
            moment.disturbed[device] = !exchange;
        });
        let levels = self.board.levels();
        let (source, id, root) = (SOURCES[device], self.domains[domain].id, self.domains[domain].table.root());
        let Board { unit, memory, .. } = &mut self.board;
        let assigned = if without_gap {
            unit.replace(memory, source, id, root, levels)
        } else if keeps {
            let device = DeviceTlb { queue_depth: 1, physical_function: source };
            unit.assign_with_device_tlb(memory, source, id, root, levels, device)
        } else {
            unit.assign(memory, source, id, root, levels)
        };
        match assigned {
            Ok(()) => {}
            Err(Error::NotAtomic(_)) => {
                let mut moment = self.moment.borrow_mut();
                assert!(!exchange);
                moment.after.devices[device] = moment.before.devices[device];
            }
            Err(error) => {
                self.survive(error);
                // It reaches nothing, whatever it reached before; and that is certain once it is asked for.
                self.moment.borrow_mut().after.devices[device] = None;
                self.until_done(|life| life.board.unit.clear(&mut life.board.memory, source));
            }
        }
    }

    fn clear(&mut self) {
        let device = self.random.below(SOURCES.len());
        self.intend(|moment| moment.after.devices[device] = None);
        self.until_done(|life| life.board.unit.clear(&mut life.board.memory, SOURCES[device]));
    }

    fn allocate(&mut self) {
        let count = 1 << self.random.below(4);
        let block = self.board.unit.allocate_interrupts(&mut self.board.memory, count).unwrap();
        if block.handles().any(|handle| handle.index() > 40) {
            return self.board.unit.free_interrupts(&mut self.board.memory, block).unwrap();
        }
        self.intend(|moment| moment.after.interrupts.push((block, vec![None; count])));
    }

    /// Routes, retargets, posts, disables or frees.
    fn change_interrupts(&mut self) {
        let blocks = self.moment.borrow().before.interrupts.len();
        if blocks == 0 {
            return self.allocate();
        }
        let number = self.random.below(blocks);
        let (block, meant) = self.moment.borrow().before.interrupts[number].clone();
        let entry = self.random.below(block.count());
        let handle = block.get(entry).unwrap();
        let old = meant[entry];
        // Often from the same source, as when a processor's interrupts move.
        let source = match old {
            Some(old) if !self.random.once_in(4) => old.source,
            _ => SOURCES[self.random.below(SOURCES.len())],
        };
        let vector = 0x30 + self.random.below(0x80) as u8;
        let posts = self.board.capabilities().posted_interrupts() && self.random.once_in(3);
        let exchange = self.board.memory.exchange;
        let to = match posts {
            true => DESCRIPTOR + 64 * self.random.below(4) as u64,
            false => self.random.below(16) as u64,
        };
        match self.random.below(8) {
            0 => {
                self.intend(|moment| drop(moment.after.interrupts.remove(number)));
                self.until_done(|life| match life.board.unit.free_interrupts(&mut life.board.memory, block) {
                    Err(Error::BadHandle(_)) => Ok(()),
                    other => other,
                });
            }
            1 => {
                self.intend(|moment| moment.after.interrupts[number].1[entry] = None);
                self.until_done(|life| life.board.unit.disable_interrupt(&mut life.board.memory, handle));
            }
            2 if meant.iter().all(|one| one.is_some_and(|one| !one.posted)) => {
                // All of a block move to another processor.
                let destination = self.random.below(16) as u32;
                self.intend(|moment| {
                    let all = moment.after.interrupts[number].1.iter_mut().flatten();
                    all.for_each(|one| one.to = destination.into());
                });
                let routes: Vec<_> = block
                    .handles()
                    .zip(meant.iter().flatten())
                    .map(|(handle, one)| {
                        let (vector, destination) = (Vector(one.vector), ApicId(destination));
                        (handle, Route { vector, destination, trigger: Trigger::Edge, source: one.source })
                    })
                    .collect();
                self.until_done(|life| {
                    life.board.unit.route_interrupts(&mut life.board.memory, routes.iter().copied())
                });
            }
            _ => {
                let same_high = !posts && old.is_some_and(|old| !old.posted && old.source == source);
                self.intend(|moment| {
                    moment.after.interrupts[number].1[entry] = Some(Meant { source, posted: posts, vector, to });
                    moment.lossy = !exchange && !same_high;
                });
                let vector = Vector(vector);
                self.until_done(|life| {
                    let Board { unit, memory, .. } = &mut life.board;
                    if posts {
                        let descriptor = HostPhys::new(to);
                        unit.post_interrupt(memory, handle, &PostedRoute { vector, descriptor, urgent: false, source })
                    } else {
                        let destination = ApicId(to as u32);
                        let route = Route { vector, destination, trigger: Trigger::Edge, source };
                        unit.route_interrupt(memory, handle, &route)
                    }
                });
            }
        }
    }

    fn live(mut self) -> usize {
        for _ in 0..OPERATIONS {
            match self.random.below(10) {
                0..3 => self.map_or_unmap(),
                3 => self.unmap_scattered(),
                4..6 => self.assign(),
                6 => self.clear(),
                7..10 => self.change_interrupts(),
                _ => {}
            }
            if self.random.once_in(4) {
                // The devices that look at every step fault while faults are drained: it ends all the same.
                let _ = self.board.unit.drain_faults(|_| ());
            }
            self.settle();
        }
        self.board.machine.clear_hook();
        let checks = self.moment.borrow().checks;
        assert_eq!(self.board.machine.violations(0), [], "seed {}", self.seed);
        checks
    }
}

#[test]
fn at_every_store_of_a_random_life_everything_is_as_it_was_or_as_it_is_meant() {
    let lives = std::env::var("LIVES").ok().and_then(|lives| lives.parse().ok()).unwrap_or(3);
    let mut checks = 0;
    for (kind, configuration) in kinds() {
        for seed in 1..=lives {
            let result = std::panic::catch_unwind(|| Life::new(configuration.clone(), seed).live());
            checks += result.unwrap_or_else(|_| panic!("{kind}, seed {seed}"));
        }
    }
    assert!(checks > 1000);
}
