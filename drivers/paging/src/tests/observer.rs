//! Hardware that walks the tables after every single store, also from tables that it has cached pointers to.

use super::support::{Frames, Random, Reference, TestFormat, View, at, for_each_format, table};
use crate::{ENTRIES, Entry, Format, InputAddress, PageTable, Permissions, TableMemory, entry::leaf_size};
use addr::HostPhys;
use core::ops::Range;
use std::{cell::Cell, collections::BTreeMap, vec::Vec};

const M2: u64 = 0x20_0000;
const G1: u64 = 0x4000_0000;
const VIEWS: [View; 2] = [View::Coherent, View::NotCoherent];

for_each_format!(
    every_store_leaves_the_old_or_the_new_translation,
    an_order_of_stores_that_is_wrong_is_noticed,
    a_subtree_appears_and_disappears_by_one_store,
);

/// What a walk finds: host address, permissions, attributes.
type Found<F> = Option<(u64, Permissions, <F as Format>::Attributes)>;

/// A walk of its own, from any table at any level.
fn walk<F: Format>(memory: &Frames, view: View, mut table: HostPhys, level: u8, input: u64) -> Found<F> {
    for level in (1..=level).rev() {
        let index = (input >> (12 + 9 * (level - 1))) as usize % ENTRIES;
        match F::decode(memory.seen(view, table, index), level) {
            Entry::Table(child) => table = child,
            Entry::Leaf(mapping) => {
                let offset = input & (leaf_size(level).unwrap().bytes() - 1);
                return Some((mapping.host.as_u64() + offset, mapping.permissions, mapping.attributes));
            }
            Entry::Absent => return None,
            Entry::Malformed => panic!("malformed entry {:#x}", memory.seen(view, table, index)),
        }
    }
    None
}

/// An address that hardware looks up again and again.
struct Probe<F: Format> {
    input: u64,
    old: Found<F>,
    new: Found<F>,
    /// The new translation has been seen from the root, in each view.
    changed: [Cell<bool>; 2],
}

/// Memory that is watched during one change.
struct Watched<F: Format> {
    frames: Frames,
    root: HostPhys,
    probes: Vec<Probe<F>>,
    /// The tables that hardware may have cached, with their level and the first address that they cover.
    cached: BTreeMap<u64, (u8, u64)>,
}

impl<F: Format> Watched<F> {
    fn check(&self) {
        for view in VIEWS {
            for probe in &self.probes {
                let (found, changed) = (walk::<F>(&self.frames, view, self.root, 4, probe.input), &probe.changed);
                let changed = &changed[view as usize];
                if found == probe.new {
                    changed.set(true);
                }
                let expected = if changed.get() { probe.new } else { probe.old };
                assert_eq!(found, expected, "{:#x} of {:?} and {:?}, {view:?}", probe.input, probe.old, probe.new);
            }
            for (table, (level, base)) in &self.cached {
                let end = base + (1 << (12 + 9 * u32::from(*level)));
                for probe in self.probes.iter().filter(|probe| (*base..end).contains(&probe.input)) {
                    let found = walk::<F>(&self.frames, view, HostPhys::new(*table), *level, probe.input);
                    assert!(found == probe.old || found == probe.new, "{:#x} through a cached pointer", probe.input);
                }
            }
        }
    }
}

impl<F: Format> TableMemory for Watched<F> {
    fn allocate_table(&mut self) -> Option<HostPhys> {
        self.frames.allocate_table()
    }

    fn free_table(&mut self, table: HostPhys) {
        self.frames.free_table(table);
    }

    fn read_entry(&self, table: HostPhys, index: usize) -> u64 {
        self.frames.read_entry(table, index)
    }

    fn write_entry(&mut self, table: HostPhys, index: usize, value: u64) {
        self.frames.write_entry(table, index, value);
        self.check();
    }

    fn fill_entry(&mut self, table: HostPhys, index: usize, value: u64) {
        self.frames.fill_entry(table, index, value);
        // Of a table that nothing points to there is much to fill and little to see.
        if index.is_multiple_of(64) {
            self.check();
        }
    }

    fn publish(&mut self, table: HostPhys, entries: Range<usize>) {
        self.frames.publish(table, entries);
        self.check();
    }
}

fn collect<F: Format>(memory: &Frames, table: HostPhys, level: u8, base: u64, found: &mut BTreeMap<u64, (u8, u64)>) {
    found.insert(table.as_u64(), (level, base));
    for index in 0..ENTRIES {
        if let Entry::Table(child) = F::decode(memory.read_entry(table, index), level) {
            let base = base + ((index as u64) << (12 + 9 * (level - 1)));
            collect::<F>(memory, child, level - 1, base, found);
        }
    }
}

/// Watches a change of `table`: `old` and `new` say what is right before and after it, around `edges`.
fn watch<F: TestFormat>(
    frames: Frames,
    table: &PageTable<F>,
    old: &Reference<F::Attributes>,
    new: &Reference<F::Attributes>,
    edges: [u64; 2],
) -> Watched<F> {
    let mut inputs: Vec<u64> = Vec::new();
    for edge in edges {
        for distance in [0x1000, M2, G1] {
            inputs.extend([edge & !(distance - 1), edge.saturating_sub(distance), edge + distance]);
            inputs.push((edge | (distance - 1)) + 1);
        }
        inputs.push(edge);
    }
    inputs.extend(old.0.iter().flat_map(|(first, interval)| [*first, interval.0 - 1]));
    inputs.sort_unstable();
    inputs.dedup();
    let probe = |input| {
        let (old, new) = (old.translate(input), new.translate(input));
        Probe { input, old, new, changed: Default::default() }
    };
    let probes = inputs.into_iter().map(probe).collect();
    let mut cached = BTreeMap::new();
    collect::<F>(&frames, table.root(), 4, 0, &mut cached);
    Watched { frames, root: table.root(), probes, cached }
}

fn every_store_leaves_the_old_or_the_new_translation<F: TestFormat>() {
    let uses = F::uses();
    let mut random = Random(42);
    let mut frames = Frames::default();
    let mut table = table::<F>(&mut frames);
    let mut now = Reference(BTreeMap::new());
    let lengths = [0x1000, 0x3000, M2 / 2, M2, 3 * M2, M2 + 0x1000, G1 / 2, G1, G1 + M2 + 0x1000];
    let (mut maps, mut unmaps, mut changes, mut splits, mut merges) = (0, 0, 0, 0, 0);
    for _ in 0..250 {
        let start = [0, G1, 511 * G1][random.below(3) as usize]
            + [0, M2, G1 / 2, G1 - M2][random.below(4) as usize]
            + [0, 0, M2 / 2, 0x1000, 0x2000][random.below(5) as usize];
        let len = lengths[random.below(lengths.len() as u64) as usize];
        // Mostly the same use, so that there is something to merge.
        let (permissions, attributes) = uses[[0, 0, 0, 1][random.below(4) as usize]];
        let mut new = now.clone();
        let end = start + len;
        let result;
        let mut watched;
        let before = frames.allocated();
        if now.overlaps(start, end) && random.below(2) == 0 {
            changes += 1;
            new.protect(start, end, permissions, attributes);
            watched = watch(frames, &table, &now, &new, [start, end]);
            result = table.protect(&mut watched, at::<F>(start), len, permissions, attributes);
            splits += u64::from(watched.frames.allocated() > before);
            merges += u64::from(result.as_ref().unwrap().has_detached_tables());
        } else if now.overlaps(start, end) {
            unmaps += 1;
            new.remove(start, end);
            watched = watch(frames, &table, &now, &new, [start, end]);
            result = table.unmap(&mut watched, at::<F>(start), len);
            splits += u64::from(watched.frames.allocated() > before);
        } else {
            maps += 1;
            // The same offset in a 1 GiB page: the largest pages are used.
            let host = 64 * G1 + start;
            new.0.insert(start, (end, host, permissions, attributes));
            watched = watch(frames, &table, &now, &new, [start, end]);
            result = table.map(&mut watched, at::<F>(start), HostPhys::new(host), len, permissions, attributes);
            merges += u64::from(result.as_ref().unwrap().has_detached_tables());
        }
        let flush = result.unwrap();
        let changed = |probe: &Probe<F>| probe.changed.iter().all(|changed| changed.get()) || probe.old == probe.new;
        assert!(watched.probes.iter().all(changed));
        let mut asked = flush.invalidation().copied();
        for probe in watched.probes.iter().filter(|probe| probe.old != probe.new) {
            let change = asked.get_or_insert_with(|| panic!("{:#x} has changed", probe.input));
            let from = change.start.to_u64();
            assert!((from..from + change.len).contains(&probe.input), "{:#x} is not invalidated", probe.input);
            assert!(!change.only_added || probe.old.is_none(), "{:#x} was not added", probe.input);
        }
        // Hardware has forgotten: the rest happens unseen.
        watched.cached.clear();
        flush.complete(&crate::NeverLoaded, &mut watched).unwrap();
        frames = watched.frames;
        now = new;
    }
    let counts = [maps, unmaps, changes, splits, merges];
    assert!(counts.into_iter().all(|count| count > 5), "{counts:?}");
}

fn an_order_of_stores_that_is_wrong_is_noticed<F: TestFormat>() {
    let (permissions, attributes) = F::uses()[0];
    let mut frames = Frames::default();
    let mut table = table::<F>(&mut frames);
    let _ = table.map(&mut frames, at::<F>(0), HostPhys::new(0), M2, permissions, attributes).unwrap();
    let mut now = Reference(BTreeMap::new());
    now.0.insert(0, (M2, 0, permissions, attributes));
    let mut leaf_table = HostPhys::new(0);
    table.for_each_table(&frames, |at, level| {
        if level == 2 {
            leaf_table = at
        }
    });
    // A split that attaches the new table before it is filled: what must stay mapped is gone for a moment.
    let mut new = now.clone();
    new.remove(0, 0x1000);
    let mut watched = watch::<F>(frames, &table, &now, &new, [0, 0x1000]);
    let child = watched.allocate_table().unwrap();
    let store = std::panic::AssertUnwindSafe(|| watched.write_entry(leaf_table, 0, F::TABLE | child.as_u64()));
    assert!(std::panic::catch_unwind(store).is_err());
}

fn a_subtree_appears_and_disappears_by_one_store<F: TestFormat>() {
    let (permissions, attributes) = F::uses()[0];
    let mut frames = Frames::default();
    let mut table = table::<F>(&mut frames);
    frames.stores.clear();
    let flush = table.map(&mut frames, at::<F>(G1), HostPhys::new(0), 0x3000, permissions, attributes);
    assert_eq!(frames.stores.last(), Some(&(table.root(), 0)), "attached when it is complete");
    assert_eq!(frames.stores.iter().filter(|store| store.0 == table.root()).count(), 1);
    flush.unwrap().complete(&crate::NotPresentIsNotCached, &mut frames).unwrap();
    frames.stores.clear();
    let flush = table.unmap(&mut frames, at::<F>(0), 512 * G1).unwrap();
    assert_eq!(frames.stores.first(), Some(&(table.root(), 0)), "detached before its tables are chained");
    assert_eq!(flush.detached_tables(&mut frames), 3);
}
