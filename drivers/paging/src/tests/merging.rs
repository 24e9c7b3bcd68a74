//! Small pages that become a large one, and what hardware noted in them.

use super::support::{Frames, TestFormat, at, for_each_format, look, table};
use crate::{ENTRIES, Flush, NeverLoaded, NotPresentIsNotCached, PageTable, TableMemory};
use addr::{HostPhys, PageSize};
use std::{vec, vec::Vec};

const K4: u64 = 0x1000;
const M2: u64 = 0x20_0000;
const G1: u64 = 0x4000_0000;

for_each_format!(
    a_full_table_becomes_a_large_page,
    a_page_at_a_time_ends_as_a_large_page,
    large_pages_become_a_larger_one,
    what_differs_is_not_merged,
    hardware_without_the_size_gets_no_large_page,
    a_change_of_use_merges_and_splits,
    detached_tables_translate_until_hardware_has_forgotten,
    what_hardware_noted_is_kept,
    an_empty_table_does_not_stand_in_the_way,
    tables_that_lie_in_a_row_are_no_pages,
);

fn map<F: TestFormat>(
    table: &mut PageTable<F>,
    memory: &mut Frames,
    start: u64,
    host: u64,
    len: u64,
) -> Flush<F::Input> {
    let (permissions, attributes) = F::uses()[0];
    table.map(memory, at::<F>(start), HostPhys::new(host), len, permissions, attributes).unwrap()
}

fn size<F: TestFormat>(table: &PageTable<F>, memory: &Frames, input: u64) -> Option<PageSize> {
    table.translate(memory, at::<F>(input)).map(|found| found.size)
}

fn a_full_table_becomes_a_large_page<F: TestFormat>() {
    // The last part at the end, at the start, in the middle; of one page and of several.
    for (start, len) in [(511, 1), (0, 1), (200, 1), (100, 412), (0, 100), (3, 200)] {
        let mut memory = Frames::default();
        let mut table = table::<F>(&mut memory);
        for (from, to) in [(0, start), (start + len, 512)] {
            if from < to {
                let flush = map(&mut table, &mut memory, G1 + from * K4, 7 * G1 + from * K4, (to - from) * K4);
                flush.complete(&NotPresentIsNotCached, &mut memory).expect("only added");
            }
        }
        assert_eq!(
            size(&table, &memory, G1 + 50 * K4).or(size(&table, &memory, G1 + 500 * K4)),
            Some(PageSize::Size4K)
        );
        let tables = memory.allocated();
        let flush = map(&mut table, &mut memory, G1 + start * K4, 7 * G1 + start * K4, len * K4);
        let change = *flush.invalidation().unwrap();
        assert_eq!((change.start, change.len), (at::<F>(G1), M2), "all of the large page has changed");
        assert!(change.tables_changed && !change.only_added);
        assert_eq!(size(&table, &memory, G1), Some(PageSize::Size2M), "{start} {len}");
        assert_eq!(look(&table, &memory, G1 + M2 - 1).unwrap().0, 7 * G1 + M2 - 1);
        assert_eq!(size(&table, &memory, G1 + M2), None);
        assert_eq!((flush.detached_tables(&mut memory), memory.allocated()), (1, tables));
        let flush = flush.complete(&NotPresentIsNotCached, &mut memory).expect_err("a table is still in use");
        flush.complete(&NeverLoaded, &mut memory).unwrap();
        assert_eq!(memory.allocated(), tables - 1);
    }
}

fn a_page_at_a_time_ends_as_a_large_page<F: TestFormat>() {
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    for page in 0..512 {
        let flush = map(&mut table, &mut memory, 5 * G1 + page * K4, 3 * M2 + page * K4, K4);
        assert_eq!(flush.has_detached_tables(), page == 511, "{page}");
        flush.complete(&NeverLoaded, &mut memory).unwrap();
    }
    assert_eq!(size(&table, &memory, 5 * G1), Some(PageSize::Size2M));
    assert_eq!(memory.allocated(), 3);
}

fn large_pages_become_a_larger_one<F: TestFormat>() {
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    // All of 1 GiB but one page, and then that: two tables go at once.
    let _ = map(&mut table, &mut memory, 2 * G1, 4 * G1, M2 + 7 * K4);
    let _ = map(&mut table, &mut memory, 2 * G1 + M2 + 8 * K4, 4 * G1 + M2 + 8 * K4, G1 - M2 - 8 * K4);
    let flush = map(&mut table, &mut memory, 2 * G1 + M2 + 7 * K4, 4 * G1 + M2 + 7 * K4, K4);
    assert_eq!(size(&table, &memory, 2 * G1), Some(PageSize::Size1G));
    assert_eq!(flush.detached_tables(&mut memory), 2);
    let change = *flush.invalidation().unwrap();
    assert_eq!((change.start, change.len), (at::<F>(2 * G1), G1));
    flush.complete(&NeverLoaded, &mut memory).unwrap();
    assert_eq!(memory.allocated(), 2);
    // 512 pages of 1 GiB are as large as it gets.
    let _ = map(&mut table, &mut memory, 0, 2 * G1, 2 * G1);
    let flush = map(&mut table, &mut memory, 3 * G1, 5 * G1, 509 * G1);
    assert!(!flush.has_detached_tables());
    assert_eq!(size(&table, &memory, 511 * G1), Some(PageSize::Size1G));
}

fn what_differs_is_not_merged<F: TestFormat>() {
    let (other, attributes) = F::uses()[1];
    // A hole, another host address, one that is not aligned, another use: of the first, a middle, the last page.
    for place in [0, 77, 511] {
        for kind in 0..4 {
            let mut memory = Frames::default();
            let mut table = table::<F>(&mut memory);
            let base = G1 + if kind == 2 { K4 } else { 0 };
            for page in (0..512).filter(|page| *page != place).chain([place]) {
                let input = at::<F>(page * K4);
                let host = HostPhys::new(base + page * K4);
                let _ = match kind {
                    0 if page == place => Flush::none(table.root()),
                    1 if page == place => map(&mut table, &mut memory, page * K4, 9 * G1, K4),
                    3 if page == place => table.map(&mut memory, input, host, K4, other, attributes).unwrap(),
                    _ => map(&mut table, &mut memory, page * K4, base + page * K4, K4),
                };
            }
            assert_eq!(size(&table, &memory, 33 * K4), Some(PageSize::Size4K), "{kind} at {place}");
            assert_eq!(memory.allocated(), 4, "{kind} at {place}");
        }
    }
}

fn hardware_without_the_size_gets_no_large_page<F: TestFormat>() {
    for (largest, merged) in [(PageSize::Size4K, PageSize::Size4K), (PageSize::Size2M, PageSize::Size2M)] {
        let mut memory = Frames::default();
        let mut table = PageTable::<F>::new(4, largest, &mut memory).unwrap();
        let _ = map(&mut table, &mut memory, 0, 0, G1 - K4);
        let _ = map(&mut table, &mut memory, G1 - K4, G1 - K4, K4);
        assert_eq!(size(&table, &memory, 0), Some(merged));
        assert_eq!(size(&table, &memory, G1 - 1), Some(merged));
        let (permissions, attributes) = F::uses()[1];
        let _ = table.protect(&mut memory, at::<F>(0), G1, permissions, attributes).unwrap();
        assert_eq!(size(&table, &memory, 0), Some(merged));
    }
}

fn a_change_of_use_merges_and_splits<F: TestFormat>() {
    let (first, second) = (F::uses()[0], F::uses()[1]);
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    let _ = map(&mut table, &mut memory, 0, 4 * G1, G1);
    let hole = at::<F>(3 * M2 + 5 * K4);
    let flush = table.protect(&mut memory, hole, 2 * K4, second.0, second.1).unwrap();
    let change = *flush.invalidation().unwrap();
    assert_eq!((change.start, change.len), (at::<F>(0), G1), "the whole page was replaced");
    assert!(change.tables_changed && !change.only_added && !flush.has_detached_tables());
    assert_eq!(look(&table, &memory, 3 * M2 + 7 * K4 - 1), Some((4 * G1 + 3 * M2 + 7 * K4 - 1, second.0, second.1)));
    for input in [0, 3 * M2, 3 * M2 + 5 * K4 - 1, 3 * M2 + 7 * K4, 4 * M2, G1 - 1] {
        assert_eq!(look(&table, &memory, input), Some((4 * G1 + input, first.0, first.1)), "{input:#x}");
    }
    assert_eq!(memory.allocated(), 4);
    // What is so already is not touched, not even split.
    memory.stores.clear();
    let flush = table.protect(&mut memory, hole, 2 * K4, second.0, second.1).unwrap();
    assert_eq!(flush.invalidation(), None);
    let flush = table.protect(&mut memory, at::<F>(M2 + K4), K4, first.0, first.1).unwrap();
    assert_eq!((flush.invalidation(), memory.stores.len(), memory.allocated()), (None, 0, 4));
    // One page back: its neighbour still differs.
    let flush = table.protect(&mut memory, hole, K4, first.0, first.1).unwrap();
    let change = *flush.invalidation().unwrap();
    assert_eq!((change.start, change.len, change.tables_changed), (hole, K4, false));
    let flush = table.protect(&mut memory, at::<F>(0), G1, first.0, first.1).unwrap();
    assert_eq!(flush.detached_tables(&mut memory), 2);
    assert!(flush.invalidation().unwrap().tables_changed);
    assert_eq!(size(&table, &memory, 0), Some(PageSize::Size1G));
    assert_eq!(look(&table, &memory, G1 - 1), Some((5 * G1 - 1, first.0, first.1)));
    // What is not mapped stays so.
    let flush = table.protect(&mut memory, at::<F>(0), 4 * G1, second.0, second.1).unwrap();
    assert_eq!(flush.invalidation().unwrap().len, G1);
    assert_eq!(look(&table, &memory, G1), None);
    assert_eq!(look(&table, &memory, G1 - 1), Some((5 * G1 - 1, second.0, second.1)));
}

fn detached_tables_translate_until_hardware_has_forgotten<F: TestFormat>() {
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    let mut pending = Flush::none(table.root());
    let mut detached = vec![];
    let mut late = Flush::none(table.root());
    for region in 0..6 {
        let start = region * 3 * G1;
        let _ = map(&mut table, &mut memory, start, start, M2 - K4);
        let mut leaves = HostPhys::new(0);
        table.for_each_table(&memory, |at, level| leaves = if level == 1 { at } else { leaves });
        let decoded = |memory: &Frames| -> Vec<_> {
            (0..ENTRIES).map(|index| F::decode(memory.read_entry(leaves, index), 1)).collect()
        };
        let mut before = decoded(&memory);
        let flush = map(&mut table, &mut memory, start + M2 - K4, start + M2 - K4, K4);
        before[511] = decoded(&memory)[511];
        assert_eq!(flush.detached_tables(&mut memory), 1);
        detached.push((leaves, before));
        // To the middle, to the end, and a list to a list.
        if region % 2 == 0 { pending.join(flush, &mut memory).unwrap() } else { late.join(flush, &mut memory).unwrap() }
    }
    pending.join(late, &mut memory).unwrap();
    for (leaves, before) in &detached {
        let now: Vec<_> = (0..ENTRIES).map(|index| F::decode(memory.read_entry(*leaves, index), 1)).collect();
        assert!(&now == before, "the table at {leaves} has changed");
    }
    let tables = memory.allocated();
    assert_eq!(pending.detached_tables(&mut memory), 6);
    pending.complete(&NeverLoaded, &mut memory).unwrap();
    assert_eq!(memory.allocated(), tables - 6);
}

fn what_hardware_noted_is_kept<F: TestFormat>() {
    let noted = F::SET_BY_HARDWARE;
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    let _ = map(&mut table, &mut memory, 0, 0, G1);
    let find = |memory: &Frames, table: &PageTable<F>, level: u8| {
        let mut found = None;
        table.for_each_table(memory, |at, l| found = if l == level { Some(at) } else { found });
        found.unwrap()
    };
    let entry = |memory: &Frames, table: HostPhys, index: usize| memory.read_entry(table, index) & noted;
    let top = find(&memory, &table, 3);
    memory.note(top, 0, noted);
    memory.note(table.root(), 0, noted & noted.wrapping_neg());
    // Into the parts, those that change and those that do not.
    let (permissions, attributes) = F::uses()[1];
    let _ = table.protect(&mut memory, at::<F>(M2 + K4), K4, permissions, attributes).unwrap();
    let (large, small) = (find(&memory, &table, 2), find(&memory, &table, 1));
    assert_eq!([entry(&memory, large, 0), entry(&memory, small, 0), entry(&memory, small, 1)], [noted; 3]);
    // And back: what any part has, the whole has.
    memory.fill_entry(small, 1, memory.read_entry(small, 1) & !noted);
    let (permissions, attributes) = F::uses()[0];
    let _ = table.protect(&mut memory, at::<F>(M2 + K4), K4, permissions, attributes).unwrap();
    assert_eq!(size(&table, &memory, 0), Some(PageSize::Size1G));
    assert_eq!(entry(&memory, top, 0), noted);
    // A change of a whole page.
    let (permissions, attributes) = F::uses()[1];
    let _ = table.protect(&mut memory, at::<F>(0), G1, permissions, attributes).unwrap();
    assert_eq!(entry(&memory, top, 0), noted);
    // What was unmapped leaves nothing.
    let _ = table.unmap(&mut memory, at::<F>(0), G1).unwrap();
    assert_eq!(memory.read_entry(top, 0), 0);
}

fn an_empty_table_does_not_stand_in_the_way<F: TestFormat>() {
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    let _ = map(&mut table, &mut memory, 5 * M2 + K4, 0, K4);
    let _ = table.unmap(&mut memory, at::<F>(5 * M2 + K4), K4).unwrap();
    assert_eq!(memory.allocated(), 4);
    let flush = map(&mut table, &mut memory, 0, 0, G1);
    assert_eq!(size(&table, &memory, 0), Some(PageSize::Size1G));
    assert_eq!(flush.detached_tables(&mut memory), 2);
    let flush = flush.complete(&NotPresentIsNotCached, &mut memory).expect_err("hardware may know the empty tables");
    flush.complete(&NeverLoaded, &mut memory).unwrap();
    assert_eq!(memory.allocated(), 2);
}

fn tables_that_lie_in_a_row_are_no_pages<F: TestFormat>() {
    let mut memory = Frames::default();
    // The tables of small pages lie as the parts of a page of 1 GiB would.
    memory.place = Some(|number| if number < 3 { number << 12 } else { 8 * G1 + (number - 3) * M2 });
    let mut table = table::<F>(&mut memory);
    let (permissions, attributes) = F::uses()[1];
    for start in (0..G1).step_by(M2 as usize) {
        // One page of another use, so that no table of small pages can go.
        let host = HostPhys::new(64 * G1 + start + K4);
        let _ = table.map(&mut memory, at::<F>(start + K4), host, K4, permissions, attributes).unwrap();
    }
    // Over the boundary of two: it is looked whether the table above can go.
    let _ = map(&mut table, &mut memory, M2 - K4, 64 * G1 + M2 - K4, 2 * K4);
    assert_eq!((memory.allocated(), size(&table, &memory, M2)), (3 + 512, Some(PageSize::Size4K)));
    assert_eq!(look(&table, &memory, 5 * M2), None);
}
