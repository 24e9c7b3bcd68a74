//! Page tables against page tables: the same work, in one run, in turns.

use crate::mappers::{Aarch64Paging, By, Mapper, Multiarch, PageTableGeneric, Postern, X86_64};
use std::hint::black_box;
use std::time::Instant;

const GIB: u64 = 1 << 30;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// 1 GiB by one call, where there is a call for ranges.
    Range(By),
    /// 16 MiB by a call for each page, in an order of host addresses that leaves nothing to merge.
    PageByPage,
}

impl Work {
    pub const ALL: [Self; 4] =
        [Self::Range(By::Pages4K), Self::Range(By::Pages2M), Self::Range(By::Pages1G), Self::PageByPage];

    /// What the rows of the output are called.
    pub fn name(self) -> String {
        match self {
            Self::Range(by) => format!("1g-by-{}", by.name()),
            Self::PageByPage => "16m-page-by-page".to_string(),
        }
    }

    /// How many tables are filled and emptied for one time: what takes nanoseconds is done many times.
    fn batch(self) -> usize {
        match self {
            Self::Range(By::Pages4K) => 4,
            Self::PageByPage => 4,
            Self::Range(By::Pages2M) => 16,
            Self::Range(By::Pages1G) => 128,
        }
    }

    /// How much is mapped. Page by page it is less, so that a time slice of the system's seldom ends within.
    fn bytes(self) -> u64 {
        if self == Self::PageByPage { GIB / 64 } else { GIB }
    }

    /// The work that is called `name`.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|work| work.name() == name)
    }
}

/// Nanoseconds for mapping and for unmapping.
#[derive(Clone, Copy, Debug)]
struct Sample {
    map: f64,
    unmap: f64,
}

fn measure<M: Mapper>(work: Work, bytes: u64) -> Sample {
    let mut tables: Vec<M> = (0..work.batch()).map(|_| M::new()).collect();
    // The host's alignment decides which pages fit.
    let host = 5 * GIB + if work == Work::Range(By::Pages2M) { 1 << 21 } else { 0 };
    let map = time_each(work, &mut tables, |table| match work {
        Work::Range(by) => table.map(black_box(by), black_box(GIB), black_box(host + scattered(by)), black_box(bytes)),
        Work::PageByPage => {
            for at in (0..bytes).step_by(4096) {
                table.map_page(black_box(GIB + at), black_box(host + (bytes - at)));
            }
        }
    });
    let unmap = time_each(work, &mut tables, |table| match work {
        Work::Range(by) => table.unmap(black_box(by), black_box(GIB), black_box(bytes)),
        Work::PageByPage => {
            for at in (0..bytes).step_by(4096) {
                table.unmap_page(black_box(GIB + at));
            }
        }
    });
    Sample { map, unmap }
}

/// The nanoseconds that `act` takes for one table: the median over all of them, or where that is too short to be timed
/// alone, the mean.
fn time_each<M>(work: Work, tables: &mut [M], mut act: impl FnMut(&mut M)) -> f64 {
    if matches!(work, Work::Range(By::Pages2M | By::Pages1G)) {
        let start = Instant::now();
        tables.iter_mut().for_each(act);
        return start.elapsed().as_nanos() as f64 / tables.len() as f64;
    }
    median(tables.iter_mut().map(|table| {
        let start = Instant::now();
        act(table);
        start.elapsed().as_nanos() as f64
    }))
}

/// What makes the host address fit pages of 4 KiB only, for those who would take larger ones.
fn scattered(by: By) -> u64 {
    if by == By::Pages4K { 4096 } else { 0 }
}

/// One crate's figures for one work.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: &'static str,
    /// Nanoseconds a 4 KiB page, medians over the rounds.
    pub map: f64,
    pub unmap: f64,
    /// The time divided by Postern's in the same round, medians over the rounds.
    pub map_ratio: f64,
    pub unmap_ratio: f64,
}

type Measure = fn(Work, u64) -> Sample;

/// Every crate, Postern first.
const MAPPERS: [(&str, Measure); 5] = [
    (Postern::NAME, measure::<Postern>),
    (Multiarch::NAME, measure::<Multiarch>),
    (X86_64::NAME, measure::<X86_64>),
    (PageTableGeneric::NAME, measure::<PageTableGeneric>),
    (Aarch64Paging::NAME, measure::<Aarch64Paging>),
];

/// Runs one work of every crate in `rounds` rounds; in each another one begins.
pub fn compare(work: Work, rounds: usize) -> Vec<Row> {
    let bytes = work.bytes();
    let pages = (bytes / 4096) as f64;
    let mut samples = vec![Vec::new(); MAPPERS.len()];
    for (_, measure) in MAPPERS {
        measure(work, bytes);
    }
    for round in 0..rounds {
        for turn in 0..MAPPERS.len() {
            let which = (round + turn) % MAPPERS.len();
            samples[which].push(MAPPERS[which].1(work, bytes));
        }
    }
    let rows = MAPPERS.iter().zip(&samples).map(|((name, _), own)| {
        let ratio = |of: fn(&Sample) -> f64| {
            median(own.iter().zip(&samples[0]).map(|(theirs, ours)| of(theirs) / of(ours).max(f64::MIN_POSITIVE)))
        };
        Row {
            name,
            map: median(own.iter().map(|sample| sample.map)) / pages,
            unmap: median(own.iter().map(|sample| sample.unmap)) / pages,
            map_ratio: ratio(|sample| sample.map),
            unmap_ratio: ratio(|sample| sample.unmap),
        }
    });
    rows.collect()
}

/// The middle of some numbers, of which there is at least one.
fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// The crates' names.
pub fn names() -> impl Iterator<Item = &'static str> {
    MAPPERS.iter().map(|mapper| mapper.0)
}

/// Does one work of one crate `times` times, for a profiler to count; false if there is no such crate.
pub fn repeat(name: &str, work: Work, times: usize) -> bool {
    let found = MAPPERS.iter().find(|mapper| mapper.0 == name);
    if let Some((_, measure)) = found {
        for _ in 0..times {
            black_box(measure(work, work.bytes()));
        }
    }
    found.is_some()
}
