//! Random work of the driver, and after each step random DMA: what arrives is what is mapped, and nothing else.
//!
//! `QTEST_SEED=number` begins with that seed instead of 1; each setting has the next one.

use crate::case::{Case, NO_QUEUE, SCALABLE, Setting};
use addr::{HostPhys, Iova, PAGE_SIZE};
use paging::Permissions;
use qtest::memory::HIGH_MEMORY;
use qtest::{Bench, Mode, Space};
use std::collections::BTreeMap;
use vtd::{FaultKind, Levels};

const STEPS: u32 = 120;
const DMA_A_STEP: u32 = 4;
const SPACES: usize = 3;
/// Pages of the addresses that are worked in: four times 2 MiB around a border of 1 GiB.
const WINDOW: u64 = 2048;
const START: u64 = 0x8000_0000 - WINDOW / 2 * PAGE_SIZE;
/// Pages of the memory that is worked with; it begins at a border of 2 MiB too.
const MEMORY: u64 = 4096;

pub fn cases() -> Vec<Case> {
    let seed = std::env::var("QTEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let legacy = [Setting::new(39, Levels::Three, true), Setting::new(48, Levels::Four, false), NO_QUEUE];
    let mut cases = Vec::new();
    for (setting, seed) in legacy.into_iter().chain([SCALABLE[1], SCALABLE[3]]).zip(seed..) {
        cases.push(setting.case(&format!("random work, seed {seed}"), move |bench| Work::new(bench, seed).run()));
    }
    cases
}

/// A space, and what should be mapped in it: by page of the window, the page of memory and the permissions.
struct Known {
    space: Space,
    pages: BTreeMap<u64, (u64, Permissions)>,
}

struct Work<'a> {
    bench: &'a mut Bench,
    random: fastrand::Rng,
    spaces: Vec<Known>,
    /// Which space each edu has.
    assigned: [Option<usize>; 2],
    /// Whether there is a context table for each.
    ever_assigned: [bool; 2],
    /// How many DMAs arrived, and how many were refused.
    arrived: u32,
    refused: u32,
}

impl<'a> Work<'a> {
    fn new(bench: &'a mut Bench, seed: u64) -> Self {
        let spaces = (0..SPACES).map(|_| Known { space: bench.preferred_space(), pages: BTreeMap::new() }).collect();
        let random = fastrand::Rng::with_seed(seed);
        Self { bench, random, spaces, assigned: [None; 2], ever_assigned: [false; 2], arrived: 0, refused: 0 }
    }

    fn run(mut self) {
        for _ in 0..STEPS {
            match self.random.u32(0..13) {
                0..4 => self.map(),
                4..7 => self.unmap(),
                7..9 => self.protect(),
                9 => self.release(),
                10..12 => self.assign(),
                _ => self.clear(),
            }
            self.bench.expect_no_fault();
            (0..DMA_A_STEP).for_each(|_| self.dma());
        }
        // Otherwise it was no test.
        assert!(
            self.arrived > STEPS / 2 && self.refused > STEPS / 2,
            "{} arrived, {} refused",
            self.arrived,
            self.refused
        );
    }

    /// A range of the window, as often as not one of large pages.
    fn range(&mut self) -> (u64, u64) {
        if self.random.bool() {
            let start = self.random.u64(0..4) * 512;
            (start, self.random.u64(1..=(WINDOW - start) / 512) * 512)
        } else {
            let start = self.random.u64(0..WINDOW);
            (start, self.random.u64(1..=(WINDOW - start).min(300)))
        }
    }

    fn map(&mut self) {
        let (start, count) = self.range();
        let known = &mut self.spaces[self.random.usize(0..SPACES)];
        // What is mapped already stays: the free pages at the beginning of the range are mapped.
        let Some(first) = (start..start + count).find(|page| !known.pages.contains_key(page)) else { return };
        let free = (first..start + count).take_while(|page| !known.pages.contains_key(page)).count() as u64;
        let mut memory = self.random.u64(0..MEMORY - free);
        if self.random.bool() {
            // Where a large page fits.
            memory = memory / 512 * 512 + first % 512;
        }
        let (mut read, write) = [(true, true), (true, true), (true, false), (false, true)][self.random.usize(0..4)];
        // The first stage has no pages that can only be written.
        read |= known.space.is_first_stage();
        let permissions = Permissions { read, write, execute: false };
        let host = HostPhys::new(HIGH_MEMORY.start + memory * PAGE_SIZE);
        self.bench.map(&mut known.space, START + first * PAGE_SIZE, host, free * PAGE_SIZE, permissions);
        known.pages.extend((0..free).map(|page| (first + page, (memory + page, permissions))));
    }

    fn unmap(&mut self) {
        let (start, count) = self.range();
        let known = &mut self.spaces[self.random.usize(0..SPACES)];
        self.bench.unmap(&mut known.space, START + start * PAGE_SIZE, count * PAGE_SIZE);
        known.pages.retain(|page, _| !(start..start + count).contains(page));
    }

    fn protect(&mut self) {
        let (start, count) = self.range();
        let known = &mut self.spaces[self.random.usize(0..SPACES)];
        let permissions = Permissions { read: true, write: self.random.bool(), execute: false };
        let (iova, bytes) = (Iova::new(START + start * PAGE_SIZE), count * PAGE_SIZE);
        let flush = known.space.protect(&mut self.bench.memory, iova, bytes, permissions).expect("it can be said");
        self.bench.flush(&known.space, flush);
        known.pages.range_mut(start..start + count).for_each(|(_, page)| page.1 = permissions);
    }

    fn release(&mut self) {
        let known = &mut self.spaces[self.random.usize(0..SPACES)];
        let flush = known.space.release_empty_tables(&mut self.bench.memory);
        self.bench.flush(&known.space, flush);
    }

    fn assign(&mut self) {
        let (edu, number) = (self.random.usize(0..2), self.random.usize(0..SPACES));
        self.bench.assign(self.bench.edus[edu].bdf(), &self.spaces[number].space);
        self.assigned[edu] = Some(number);
        // In legacy mode both have one.
        let both = self.bench.mode == Mode::Legacy;
        self.ever_assigned = [0, 1].map(|other| self.ever_assigned[other] || both || other == edu);
    }

    fn clear(&mut self) {
        let edu = self.random.usize(0..2);
        self.bench.clear(self.bench.edus[edu].bdf());
        self.assigned[edu] = None;
    }

    fn dma(&mut self) {
        let edu = self.random.usize(0..2);
        let known = self.assigned[edu].map(|number| &self.spaces[number].pages);
        // Something mapped, the edge of something mapped, anything.
        let of_interest = match (known, self.random.u32(0..3)) {
            (Some(pages), 0) => self.random.choice(pages.keys().copied()),
            (Some(pages), 1) => {
                let edges = pages.keys().filter(|page| !pages.contains_key(&(*page + 1))).copied();
                self.random.choice(edges.collect::<Vec<_>>()).map(|page| page + self.random.u64(0..2))
            }
            _ => None,
        };
        let page = of_interest.unwrap_or(self.random.u64(0..WINDOW));
        let mapped = known.and_then(|pages| pages.get(&page).copied());
        let offset = self.random.u64(0..512) * 8;
        let iova = START + page * PAGE_SIZE + offset;
        let host = mapped.map(|(memory, _)| HIGH_MEMORY.start + memory * PAGE_SIZE + offset);
        let write = self.random.bool();
        let permitted = mapped.is_some_and(|(_, permissions)| if write { permissions.write } else { permissions.read });
        let device = self.bench.edus[edu].clone();
        let before = host.map(|host| self.bench.machine.read64(host));

        if write {
            let value = device.write(Iova::new(iova));
            let expected = if permitted { Some(value) } else { before };
            assert_eq!(host.map(|host| self.bench.machine.read64(host)), expected, "a write at {iova:#x}");
        } else {
            device.read(Iova::new(iova));
        }
        if permitted {
            self.arrived += 1;
            self.bench.expect_no_fault();
            return;
        }
        self.refused += 1;
        let outcome = self.bench.outcome();
        if mapped.is_some() && outcome.faults.is_empty() {
            // QEMU does not report what an entry in its cache refuses.
            return;
        }
        let reasons = self.bench.reasons();
        let reason = match (self.assigned[edu], write) {
            (None, _) if !self.ever_assigned[edu] => reasons.no_root,
            (None, _) => reasons.no_context,
            (Some(_), true) if mapped.is_some() => reasons.read_only,
            (Some(_), true) => reasons.no_write,
            (Some(_), false) => reasons.no_read,
        };
        let kind = if write { FaultKind::Write } else { FaultKind::Read };
        let found: Vec<_> = outcome.faults.iter().map(|f| (f.source, f.kind, f.address, f.reason.0)).collect();
        assert_eq!(found, [(device.bdf(), kind, iova & !0xfff, reason)]);
    }
}
