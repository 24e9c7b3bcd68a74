//! Memory for tables on a host, a reference for what they should say, and random numbers.

use crate::{
    ENTRIES, Ept, EptAttributes, FirstStage, Format, InputAddress, MemoryType, NestedPaging, PageTable, Permissions,
    SecondStage, SecondStageAttributes, TableMemory,
};
use addr::{HostPhys, PageSize};
use core::{cell::Cell, ops::Range};
use std::{boxed::Box, collections::BTreeMap, vec, vec::Vec};

/// What a test must know of a format beside what it translates.
pub trait TestFormat: Format + Sized {
    /// Attributes and permissions that differ from each other and that a leaf can say.
    fn uses() -> Vec<(Permissions, Self::Attributes)>;
}

impl TestFormat for Ept {
    fn uses() -> Vec<(Permissions, EptAttributes)> {
        let registers = EptAttributes { memory_type: MemoryType::Uncacheable, ignore_pat: true };
        vec![
            (Permissions::READ_WRITE_EXECUTE, MemoryType::WriteBack.into()),
            // This looks like an entry that points to a table.
            (Permissions::READ_WRITE_EXECUTE, MemoryType::Uncacheable.into()),
            (Permissions::READ_WRITE, registers),
            (Permissions::READ_EXECUTE, MemoryType::WriteProtected.into()),
        ]
    }
}

impl TestFormat for SecondStage {
    fn uses() -> Vec<(Permissions, SecondStageAttributes)> {
        let snoop = SecondStageAttributes { snoop: true };
        let write = Permissions { read: false, write: true, execute: false };
        // The first looks like an entry that points to a table.
        vec![(Permissions::READ_WRITE, Default::default()), (Permissions::READ, snoop), (write, snoop)]
    }
}

impl TestFormat for FirstStage {
    fn uses() -> Vec<(Permissions, ())> {
        vec![(Permissions::READ_WRITE, ()), (Permissions::READ, ())]
    }
}

impl TestFormat for NestedPaging {
    fn uses() -> Vec<(Permissions, MemoryType)> {
        vec![
            (Permissions::READ_WRITE_EXECUTE, MemoryType::WriteBack),
            (Permissions::READ_WRITE, MemoryType::Uncacheable),
            (Permissions::READ_EXECUTE, MemoryType::WriteThrough),
        ]
    }
}

/// Makes a module of tests for each format out of generic functions.
macro_rules! for_each_format {
    ($($test:ident),* $(,)?) => {
        mod ept { $( #[test] fn $test() { super::$test::<crate::Ept>(); } )* }
        mod second_stage { $( #[test] fn $test() { super::$test::<crate::SecondStage>(); } )* }
        mod first_stage { $( #[test] fn $test() { super::$test::<crate::FirstStage>(); } )* }
        mod nested { $( #[test] fn $test() { super::$test::<crate::NestedPaging>(); } )* }
    };
}
pub(crate) use for_each_format;

/// A multiplicative generator (Knuth's constants): the same numbers in every run.
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What frames hold.
pub type Contents = BTreeMap<u64, Box<[u64; ENTRIES]>>;

/// Frames for tables. Every access to a frame that is not allocated, and every second release, is a panic.
#[derive(Clone, Default)]
pub struct Frames {
    /// What the processor has written: what hardware sees that looks into its caches.
    tables: Contents,
    /// What has been flushed: what other hardware sees, if the processor wrote back nothing by itself.
    flushed: Contents,
    next: u64,
    /// Where the frame with a number is, if that matters.
    pub place: Option<fn(u64) -> u64>,
    /// How many more frames may be allocated.
    pub left: Option<u64>,
    /// Every store that hardware is meant to see so far: the table and the index.
    pub stores: Vec<(HostPhys, usize)>,
    /// The number of entries read so far.
    pub reads: Cell<u64>,
}

/// Who looks at the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// Hardware that looks into the processor's caches.
    Coherent,
    /// Hardware that does not.
    NotCoherent,
}

impl Frames {
    /// The number of frames that are allocated.
    pub fn allocated(&self) -> u64 {
        self.tables.len() as u64
    }

    /// Everything that the frames hold.
    pub fn contents(&self) -> Contents {
        self.tables.clone()
    }

    /// An entry as hardware finds it.
    pub fn seen(&self, view: View, table: HostPhys, index: usize) -> u64 {
        let frames = if view == View::Coherent { &self.tables } else { &self.flushed };
        frames[&table.as_u64()][index]
    }

    /// Hardware notes something in an entry.
    pub fn note(&mut self, table: HostPhys, index: usize, bits: u64) {
        for frames in [&mut self.tables, &mut self.flushed] {
            frames.get_mut(&table.as_u64()).unwrap()[index] |= bits;
        }
    }
}

impl TableMemory for Frames {
    fn allocate_table(&mut self) -> Option<HostPhys> {
        match &mut self.left {
            Some(0) => return None,
            Some(left) => *left -= 1,
            None => {}
        }
        // High bits too, so that a truncated address is noticed. The first frame is number zero: a legal address.
        let frame = match self.place {
            Some(place) => place(self.next),
            None => (self.next & 1) << 51 | (self.next << 12),
        };
        self.next += 1;
        self.tables.insert(frame, Box::new([0; ENTRIES]));
        self.flushed.insert(frame, Box::new([0; ENTRIES]));
        Some(HostPhys::new(frame))
    }

    fn free_table(&mut self, table: HostPhys) {
        self.tables.remove(&table.as_u64()).expect("freed twice");
        self.flushed.remove(&table.as_u64()).expect("freed twice");
    }

    fn read_entry(&self, table: HostPhys, index: usize) -> u64 {
        self.reads.set(self.reads.get() + 1);
        self.tables[&table.as_u64()][index]
    }

    fn write_entry(&mut self, table: HostPhys, index: usize, value: u64) {
        self.stores.push((table, index));
        self.fill_entry(table, index, value);
        self.publish(table, index..index + 1);
    }

    fn fill_entry(&mut self, table: HostPhys, index: usize, value: u64) {
        self.tables.get_mut(&table.as_u64()).expect("written after it was freed")[index] = value;
    }

    fn publish(&mut self, table: HostPhys, entries: Range<usize>) {
        // Whole cache lines.
        let line = entries.start / 8 * 8..entries.end.div_ceil(8) * 8;
        let flushed = self.flushed.get_mut(&table.as_u64()).expect("flushed after it was freed");
        flushed[line.clone()].copy_from_slice(&self.tables[&table.as_u64()][line]);
    }
}

/// A mapping as the reference has it.
pub type Interval<A> = (u64, u64, Permissions, A);

/// What a table should say: intervals by first input address, each with its end, its host address and its use.
#[derive(Clone)]
pub struct Reference<A>(pub BTreeMap<u64, Interval<A>>);

impl<A: Copy + PartialEq> Reference<A> {
    /// Whether something in a range is mapped.
    pub fn overlaps(&self, start: u64, end: u64) -> bool {
        self.0.range(..end).next_back().is_some_and(|(_, interval)| interval.0 > start)
    }

    /// Takes a range out.
    pub fn remove(&mut self, start: u64, end: u64) {
        let hit: Vec<_> = self.0.range(..end).filter(|(_, i)| i.0 > start).map(|(k, i)| (*k, *i)).collect();
        for (first, (last, host, permissions, attributes)) in hit {
            self.0.remove(&first);
            if first < start {
                self.0.insert(first, (start, host, permissions, attributes));
            }
            if last > end {
                self.0.insert(end, (last, host + (end - first), permissions, attributes));
            }
        }
    }

    /// Changes how what is mapped in a range may be used.
    pub fn protect(&mut self, start: u64, end: u64, permissions: Permissions, attributes: A) {
        let hit: Vec<_> = self.0.range(..end).filter(|(_, i)| i.0 > start).map(|(k, i)| (*k, *i)).collect();
        self.remove(start, end);
        for (first, (last, host, ..)) in hit {
            let (from, to) = (first.max(start), last.min(end));
            self.0.insert(from, (to, host + (from - first), permissions, attributes));
        }
    }

    /// What an address translates to.
    pub fn translate(&self, input: u64) -> Option<(u64, Permissions, A)> {
        let (first, interval) = self.0.range(..=input).next_back()?;
        (input < interval.0).then(|| (interval.1 + (input - first), interval.2, interval.3))
    }

    /// The number of bytes mapped.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|(first, interval)| interval.0 - first).sum()
    }
}

/// What a table says, in the shape of [`Reference::translate`].
pub fn look<F: Format>(
    table: &PageTable<F>,
    memory: &impl TableMemory,
    input: u64,
) -> Option<(u64, Permissions, F::Attributes)> {
    let found = table.translate(memory, F::Input::from_u64(input))?;
    Some((found.host.as_u64(), found.permissions, found.attributes))
}

/// An empty table with four levels and pages up to 1 GiB.
pub fn table<F: Format>(memory: &mut Frames) -> PageTable<F> {
    PageTable::new(4, PageSize::Size1G, memory).unwrap()
}

/// An input address of the format.
pub fn at<F: Format>(input: u64) -> F::Input {
    F::Input::from_u64(input)
}
