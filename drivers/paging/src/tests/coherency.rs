//! Everything that hardware may walk is written back when a change returns: hardware that does not look into the
//! processor's caches finds the same in every entry.

use super::support::{Frames, TestFormat, View, at, for_each_format, table};
use crate::{ENTRIES, NeverLoaded, PageTable};
use addr::HostPhys;

const K4: u64 = 0x1000;
const M2: u64 = 0x20_0000;
const G1: u64 = 0x4000_0000;

for_each_format!(
    pages_in_new_tables_are_written_back_whatever_line_they_begin_in,
    a_page_is_written_back_when_it_comes_and_goes,
    parts_of_large_pages_are_written_back,
    what_is_merged_changed_and_released_is_written_back,
);

/// Every entry of every table, as either kind of hardware finds it.
#[track_caller]
fn check<F: TestFormat>(table: &PageTable<F>, memory: &Frames) {
    table.for_each_table(memory, |at, level| {
        for index in 0..ENTRIES {
            let [cached, written_back] = [View::Coherent, View::NotCoherent].map(|view| memory.seen(view, at, index));
            assert_eq!(cached, written_back, "entry {index} of the table at {at}, level {level}");
        }
    });
}

fn map<F: TestFormat>(table: &mut PageTable<F>, memory: &mut Frames, start: u64, host: u64, len: u64) {
    let (permissions, attributes) = F::uses()[0];
    let flush = table.map(memory, at::<F>(start), HostPhys::new(host), len, permissions, attributes).unwrap();
    check(table, memory);
    flush.complete(&NeverLoaded, memory).unwrap();
}

fn unmap<F: TestFormat>(table: &mut PageTable<F>, memory: &mut Frames, start: u64, len: u64) {
    let flush = table.unmap(memory, at::<F>(start), len).unwrap();
    check(table, memory);
    flush.complete(&NeverLoaded, memory).unwrap();
}

fn pages_in_new_tables_are_written_back_whatever_line_they_begin_in<F: TestFormat>() {
    for size in [K4, M2] {
        for (first, pages) in (0..17).chain(488..504).flat_map(|first| (1..10).map(move |pages| (first, pages))) {
            let mut memory = Frames::default();
            let mut table = table::<F>(&mut memory);
            map(&mut table, &mut memory, G1 + first * size, size, pages * size);
            unmap(&mut table, &mut memory, G1 + first * size, pages * size);
        }
    }
}

fn a_page_is_written_back_when_it_comes_and_goes<F: TestFormat>() {
    for size in [K4, M2, G1] {
        let mut memory = Frames::default();
        let mut table = table::<F>(&mut memory);
        for page in [3, 2, 9, 511, 500] {
            map(&mut table, &mut memory, page * size, 0, size);
        }
        for page in [9, 511, 2] {
            unmap(&mut table, &mut memory, page * size, size);
        }
        // Whatever is below.
        unmap(&mut table, &mut memory, 0, 512 * size);
    }
}

fn parts_of_large_pages_are_written_back<F: TestFormat>() {
    for size in [M2, G1] {
        for page in [0, 5, 63, 64, 504, 511] {
            let mut memory = Frames::default();
            let mut table = table::<F>(&mut memory);
            map(&mut table, &mut memory, 2 * G1, 0, size);
            unmap(&mut table, &mut memory, 2 * G1 + page * size / 512, K4);
        }
    }
}

fn what_is_merged_changed_and_released_is_written_back<F: TestFormat>() {
    let uses = F::uses();
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    // Into tables that are there, and in new ones between them; then the hole that makes it whole.
    map(&mut table, &mut memory, M2 - 2 * K4, M2 - 2 * K4, K4);
    map(&mut table, &mut memory, G1 + M2, G1 + M2, K4);
    map(&mut table, &mut memory, M2, M2, G1);
    map(&mut table, &mut memory, 0, 0, M2 - 2 * K4);
    map(&mut table, &mut memory, M2 - K4, M2 - K4, K4);
    assert_eq!(table.translate(&memory, at::<F>(0)).unwrap().size.bytes(), G1);
    for (start, len, (permissions, attributes)) in [(7 * K4, K4, uses[1]), (0, G1, uses[1]), (0, M2 + K4, uses[0])] {
        let flush = table.protect(&mut memory, at::<F>(start), len, permissions, attributes).unwrap();
        check(&table, &memory);
        flush.complete(&NeverLoaded, &mut memory).unwrap();
    }
    for page in 0..512 {
        let _ = table.unmap(&mut memory, at::<F>(page * K4), K4).unwrap();
    }
    let flush = table.release_empty_tables(&mut memory);
    assert!(flush.has_detached_tables());
    check(&table, &memory);
}
