//! Page sizes and the number of tables.

use super::support::{Frames, TestFormat, at, for_each_format, look, table};
use crate::{PageTable, Permissions};
use addr::{HostPhys, PageSize};
use std::{vec, vec::Vec};

const K4: u64 = 0x1000;
const M2: u64 = 0x20_0000;
const G1: u64 = 0x4000_0000;

for_each_format!(
    a_page_where_its_table_is_takes_one_walk_and_one_store,
    a_few_pages_take_one_walk_down_to_their_table,
    a_mixed_range_has_the_fewest_leaves_and_tables,
    the_host_alignment_limits_the_page_size,
    the_hardware_limits_the_page_size,
    a_hole_in_a_page_leaves_its_rest_mapped,
    unmapping_all_leaves_only_the_root,
    addresses_within_a_page_keep_their_offset,
    leaves_are_visited_in_order_with_their_sizes,
);

fn count<F: TestFormat>(table: &PageTable<F>, memory: &Frames) -> (usize, u64) {
    let (mut leaves, mut tables) = (0, 0);
    table.for_each_leaf(memory, |_| leaves += 1);
    table.for_each_table(memory, |_, _| tables += 1);
    assert_eq!(tables, memory.allocated());
    (leaves, tables)
}

fn a_mixed_range_has_the_fewest_leaves_and_tables<F: TestFormat>() {
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    let (permissions, attributes) = F::uses()[0];
    let start = G1 - 14 * M2;
    let len = 14 * M2 + 3 * G1 + 3 * M2;
    let flush = table.map(&mut memory, at::<F>(start), HostPhys::new(8 * G1 + start), len, permissions, attributes);
    assert!(flush.unwrap().invalidation().unwrap().only_added);
    // The root, one table of 1 GiB pages, and one of 2 MiB pages at either end.
    assert_eq!(count(&table, &memory), (20, 4));
}

fn the_host_alignment_limits_the_page_size<F: TestFormat>() {
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    let (permissions, attributes) = F::uses()[0];
    let flush = table.map(&mut memory, at::<F>(G1), HostPhys::new(M2), G1, permissions, attributes);
    assert!(flush.unwrap().invalidation().unwrap().tables_changed);
    assert_eq!(table.translate(&memory, at::<F>(G1)).unwrap().size, PageSize::Size2M);
    let _ = table.map(&mut memory, at::<F>(4 * G1), HostPhys::new(K4), M2, permissions, attributes).unwrap();
    assert_eq!(table.translate(&memory, at::<F>(4 * G1)).unwrap().size, PageSize::Size4K);
    assert_eq!(count(&table, &memory).0, 512 + 512);
}

fn the_hardware_limits_the_page_size<F: TestFormat>() {
    for (largest, leaves, tables) in
        [(PageSize::Size1G, 1, 2), (PageSize::Size2M, 512, 3), (PageSize::Size4K, 512 * 512, 515)]
    {
        let mut memory = Frames::default();
        let mut table = PageTable::<F>::new(4, largest, &mut memory).unwrap();
        let (permissions, attributes) = F::uses()[0];
        let _ = table.map(&mut memory, at::<F>(G1), HostPhys::new(G1), G1, permissions, attributes).unwrap();
        assert_eq!(count(&table, &memory), (leaves, tables), "{largest:?}");
    }
}

fn a_hole_in_a_page_leaves_its_rest_mapped<F: TestFormat>() {
    for (permissions, attributes) in F::uses() {
        let mut memory = Frames::default();
        let mut table = table::<F>(&mut memory);
        let _ = table.map(&mut memory, at::<F>(0), HostPhys::new(4 * G1), G1, permissions, attributes).unwrap();
        let (hole, len) = (M2 + 3 * K4, K4);
        let flush = table.unmap(&mut memory, at::<F>(hole), len).unwrap();
        let invalidation = *flush.invalidation().unwrap();
        assert!(invalidation.tables_changed && !invalidation.only_added);
        assert_eq!((invalidation.start, invalidation.len), (at::<F>(0), G1), "the whole page has changed");
        // 511 of 2 MiB and 511 of 4 KiB.
        assert_eq!(count(&table, &memory), (1022, 4));
        for input in [0, M2 - 1, M2, hole - 1, hole + len, 2 * M2 - 1, 2 * M2, G1 - 1] {
            assert_eq!(look(&table, &memory, input), Some((4 * G1 + input, permissions, attributes)), "{input:#x}");
        }
        assert_eq!(look(&table, &memory, hole), None);
        assert_eq!(look(&table, &memory, hole + len - 1), None);
    }
}

fn unmapping_all_leaves_only_the_root<F: TestFormat>() {
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    let (permissions, attributes) = F::uses()[0];
    let parts = [(3 * K4, K4), (M2, 5 * M2), (G1 - K4, 2 * K4), (5 * G1, G1), (512 * G1 - M2, 2 * M2)];
    for (start, len) in parts {
        let _ = table.map(&mut memory, at::<F>(start), HostPhys::new(start), len, permissions, attributes).unwrap();
    }
    let tables = memory.allocated();
    let flush = table.unmap(&mut memory, at::<F>(0), table.input_end()).unwrap();
    assert_eq!(flush.detached_tables(&mut memory), tables - 1);
    flush.complete(&crate::NeverLoaded, &mut memory).unwrap();
    assert_eq!(count(&table, &memory), (0, 1));

    // The same, a piece at a time: tables that are merely empty stay until they are wanted back.
    for (start, len) in parts {
        let _ = table.map(&mut memory, at::<F>(start), HostPhys::new(start), len, permissions, attributes).unwrap();
    }
    for (start, len) in parts {
        table.unmap(&mut memory, at::<F>(start), len).unwrap().complete(&crate::NeverLoaded, &mut memory).unwrap();
    }
    assert_eq!(count(&table, &memory), (0, tables));
    let flush = table.release_empty_tables(&mut memory);
    assert_eq!(flush.detached_tables(&mut memory), tables - 1);
    let change = *flush.invalidation().unwrap();
    assert_eq!((change.start, change.len), (at::<F>(0), 1024 * G1));
    assert!(change.tables_changed && !change.only_added);
    flush.complete(&crate::NeverLoaded, &mut memory).unwrap();
    assert_eq!(count(&table, &memory), (0, 1));
    assert_eq!(table.release_empty_tables(&mut memory).invalidation(), None);
}

fn addresses_within_a_page_keep_their_offset<F: TestFormat>() {
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    let (permissions, attributes) = F::uses()[0];
    let host = HostPhys::new((1 << 52) - G1);
    let _ = table.map(&mut memory, at::<F>(G1), host, G1, permissions, attributes).unwrap();
    assert_eq!(look(&table, &memory, G1 + 0x1234_5678).unwrap().0, host.as_u64() + 0x1234_5678);
    assert_eq!(look(&table, &memory, G1 - 1), None);
    assert_eq!(look(&table, &memory, 2 * G1), None);
}

fn leaves_are_visited_in_order_with_their_sizes<F: TestFormat>() {
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    let uses: Vec<(Permissions, _)> = F::uses();
    for (start, len) in [(G1, G1), (M2, M2), (0, K4)] {
        let (permissions, attributes) = uses[start as usize % uses.len()];
        let _ = table.map(&mut memory, at::<F>(start), HostPhys::new(start), len, permissions, attributes).unwrap();
    }
    let mut found = vec![];
    table.for_each_leaf(&memory, |leaf| found.push((leaf.input, leaf.page.size)));
    let expected = [(at::<F>(0), PageSize::Size4K), (at::<F>(M2), PageSize::Size2M), (at::<F>(G1), PageSize::Size1G)];
    assert_eq!(found, expected);
}

fn a_page_where_its_table_is_takes_one_walk_and_one_store<F: TestFormat>() {
    let (permissions, attributes) = F::uses()[0];
    for levels in F::LEVELS {
        for (len, level) in [(K4, 1), (M2, 2), (G1, 3)] {
            let mut memory = Frames::default();
            let mut table = PageTable::<F>::new(levels, PageSize::Size1G, &mut memory).unwrap();
            let end = table.input_end();
            // Not in a row, and in a row with what is to come.
            for (place, host, reads) in [(0, 0, None), (5, 9, Some(0)), (7, 7, Some(1)), (511, 0, Some(0))] {
                let start = end - 512 * len + place * len;
                let host = HostPhys::new(host * len);
                memory.reads.set(0);
                memory.stores.clear();
                let flush = table.map(&mut memory, at::<F>(start), host, len, permissions, attributes).unwrap();
                let change = *flush.invalidation().unwrap();
                assert_eq!((change.start, change.len, change.only_added), (at::<F>(start), len, true));
                // What makes new tables is told apart.
                assert_eq!(change.tables_changed, place == 0 && level < levels);
                assert_eq!(memory.stores.len(), 1);
                if let Some(ends) = reads {
                    assert_eq!(memory.reads.get(), u64::from(levels - level + 1) + ends, "{len:#x} at {place}");
                }
                assert_eq!(table.translate(&memory, at::<F>(start)).unwrap().size.bytes(), len);
                assert_eq!(look(&table, &memory, start + len), None);
            }
            memory.reads.set(0);
            memory.stores.clear();
            let flush = table.unmap(&mut memory, at::<F>(end - 505 * len), len).unwrap();
            let change = *flush.invalidation().unwrap();
            assert_eq!((change.start, change.len), (at::<F>(end - 505 * len), len));
            assert!(!change.only_added && !change.tables_changed && !flush.has_detached_tables());
            assert_eq!((memory.stores.len(), memory.reads.get()), (1, u64::from(levels - level + 1)));
        }
    }
}

fn a_few_pages_take_one_walk_down_to_their_table<F: TestFormat>() {
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    let (permissions, attributes) = F::uses()[0];
    let (start, host) = (at::<F>(7 * K4), HostPhys::new(G1));
    let _ = table.map(&mut memory, at::<F>(0), HostPhys::new(G1 + M2), K4, permissions, attributes).unwrap();
    let mut reads = |table: &mut PageTable<F>, act: &dyn Fn(&mut PageTable<F>, &mut Frames)| {
        memory.reads.set(0);
        act(table, &mut memory);
        memory.reads.get()
    };
    // Three tables above; each page is looked at and stored, or changed.
    let mapped = reads(&mut table, &|table, memory| {
        let _ = table.map(memory, start, host, 2 * K4, permissions, attributes).unwrap();
    });
    assert_eq!(mapped, 3 + 2 + 2);
    let unmapped = reads(&mut table, &|table, memory| {
        let _ = table.unmap(memory, start, 2 * K4).unwrap();
    });
    assert_eq!(unmapped, 3 + 2);
    // Where larger pages are possible: the way to the table above, the entry there, and the two ends of the table.
    let mapped = reads(&mut table, &|table, memory| {
        let host = HostPhys::new(G1 + 7 * K4);
        let _ = table.map(memory, start, host, 2 * K4, permissions, attributes).unwrap();
    });
    assert_eq!(mapped, 3 + 2 + 2 + 2 + 1 + 2);
}

#[test]
fn a_table_can_be_shown() {
    let mut memory = Frames::default();
    memory.place = Some(|_| 0x12_3000);
    let table = PageTable::<crate::Ept>::new(5, PageSize::Size4K, &mut memory).unwrap();
    assert_eq!(table.root(), HostPhys::new(0x12_3000));
    let shown = std::format!("{table:?}");
    assert!(shown.contains("5 levels") && shown.contains("0x123000"), "{shown}");
}
