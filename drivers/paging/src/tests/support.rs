//! Memory for tables on a host, a reference for what they should say, and random numbers.

use crate::{
    ENTRIES, Ept, EptAttributes, FirstStage, Format, InputAddress, MemoryType, NestedPaging, PageTable, Permissions,
    SecondStage, SecondStageAttributes, TableMemory,
};
use addr::{HostPhys, PageSize};
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
            (Permissions::READ_WRITE, registers),
            (Permissions::READ_EXECUTE, MemoryType::WriteProtected.into()),
        ]
    }
}

impl TestFormat for SecondStage {
    fn uses() -> Vec<(Permissions, SecondStageAttributes)> {
        let snoop = SecondStageAttributes { snoop: true };
        let write = Permissions { read: false, write: true, execute: false };
        vec![(Permissions::READ_WRITE, snoop), (Permissions::READ, Default::default()), (write, snoop)]
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

/// Frames for tables. Every access to a frame that is not allocated, and every second release, is a panic.
#[derive(Clone, Default)]
pub struct Frames {
    tables: BTreeMap<u64, Box<[u64; ENTRIES]>>,
    next: u64,
    /// How many more frames may be allocated.
    pub left: Option<u64>,
    /// Every store so far: the table and the index.
    pub stores: Vec<(HostPhys, usize)>,
}

impl Frames {
    /// The number of frames that are allocated.
    pub fn allocated(&self) -> u64 {
        self.tables.len() as u64
    }

    /// Everything that the frames hold.
    pub fn contents(&self) -> BTreeMap<u64, Box<[u64; ENTRIES]>> {
        self.tables.clone()
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
        let frame = (self.next & 1) << 51 | (self.next << 12);
        self.next += 1;
        self.tables.insert(frame, Box::new([0; ENTRIES]));
        Some(HostPhys::new(frame))
    }

    fn free_table(&mut self, table: HostPhys) {
        self.tables.remove(&table.as_u64()).expect("freed twice");
    }

    fn read_entry(&self, table: HostPhys, index: usize) -> u64 {
        self.tables[&table.as_u64()][index]
    }

    fn write_entry(&mut self, table: HostPhys, index: usize, value: u64) {
        self.stores.push((table, index));
        self.tables.get_mut(&table.as_u64()).expect("written after it was freed")[index] = value;
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
