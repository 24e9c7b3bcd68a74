//! What a change asks of hardware, and when the frames of detached tables come back.

use super::support::{Frames, TestFormat, at, for_each_format, table};
use crate::{Flush, Invalidation, InvalidationComplete, NeverLoaded, NotPresentIsNotCached, PageTable};
use addr::HostPhys;

const M2: u64 = 0x20_0000;
const G1: u64 = 0x4000_0000;

for_each_format!(
    a_flush_says_what_has_changed,
    where_nothing_is_mapped_nothing_changes,
    frames_come_back_only_against_a_proof_that_covers_them,
    joined_flushes_free_the_tables_of_both,
    a_flush_of_another_table_is_not_joined,
    taking_a_tree_down_detaches_every_table,
);

/// The proof of an invalidation of one range.
struct Invalidated(u64, u64);

impl<I: crate::InputAddress> InvalidationComplete<I> for Invalidated {
    fn covers(&self, invalidation: &Invalidation<I>) -> bool {
        let start = invalidation.start.to_u64();
        self.0 <= start && start + invalidation.len <= self.1
    }
}

fn mapped<F: TestFormat>(table: &mut PageTable<F>, memory: &mut Frames, start: u64, len: u64) -> Flush<F::Input> {
    let (permissions, attributes) = F::uses()[0];
    table.map(memory, at::<F>(start), HostPhys::new(start), len, permissions, attributes).unwrap()
}

fn a_flush_says_what_has_changed<F: TestFormat>() {
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    let change = |flush: Flush<F::Input>| {
        let i = *flush.invalidation().unwrap();
        (i.start, i.len, i.tables_changed, i.only_added)
    };
    let flush = mapped(&mut table, &mut memory, 0x1000, 0x2000);
    assert_eq!(flush.invalidation().unwrap().root, table.root());
    assert_eq!(change(flush), (at::<F>(0x1000), 0x2000, true, true), "with new tables");
    let flush = mapped(&mut table, &mut memory, 0x5000, 0x1000);
    assert_eq!(change(flush), (at::<F>(0x5000), 0x1000, false, true), "in a table that was there");
    let flush = mapped(&mut table, &mut memory, G1 - 0x1000, 0x2000);
    assert_eq!(change(flush), (at::<F>(G1 - 0x1000), 0x2000, true, true), "with new tables in two places");
    let flush = table.unmap(&mut memory, at::<F>(G1 - 0x1000), 0x2000).unwrap();
    assert_eq!(change(flush), (at::<F>(G1 - 0x1000), 0x2000, false, false));
    let flush = table.unmap(&mut memory, at::<F>(0), 0x2000).unwrap();
    assert_eq!(change(flush), (at::<F>(0x1000), 0x1000, false, false), "only what was mapped");
    let flush = table.unmap(&mut memory, at::<F>(0x2000), 0x4000).unwrap();
    assert_eq!(change(flush), (at::<F>(0x2000), 0x4000, false, false), "the table stays");
    let flush = table.unmap(&mut memory, at::<F>(0), M2).unwrap();
    assert_eq!(flush.detached_tables(&mut memory), 1);
    assert_eq!(change(flush), (at::<F>(0), M2, true, false), "the table goes");
    let flush = table.unmap(&mut memory, at::<F>(0), G1).unwrap();
    assert_eq!(flush.detached_tables(&mut memory), 2);
    let flush = table.unmap(&mut memory, at::<F>(0), G1).unwrap();
    assert_eq!((flush.invalidation(), flush.detached_tables(&mut memory)), (None, 0));
}

fn where_nothing_is_mapped_nothing_changes<F: TestFormat>() {
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    // No tables, then those down to a page of each size beside it.
    for there in [0, 0x1000, M2, G1] {
        if there != 0 {
            let _ = mapped(&mut table, &mut memory, there, there);
        }
        let before = memory.contents();
        memory.stores.clear();
        for len in [0x1000, 0x2000, M2, G1] {
            let start = if len <= there { 0 } else { 8 * G1 };
            let flush = table.unmap(&mut memory, at::<F>(start), len).unwrap();
            assert_eq!((flush.invalidation(), flush.has_detached_tables()), (None, false), "{there:#x} {len:#x}");
            let (permissions, attributes) = F::uses()[1];
            let flush = table.protect(&mut memory, at::<F>(start), len, permissions, attributes).unwrap();
            assert_eq!(flush.invalidation(), None);
        }
        assert!(memory.contents() == before && memory.stores.is_empty());
        let _ = table.unmap(&mut memory, at::<F>(0), 8 * G1).unwrap();
    }
}

fn frames_come_back_only_against_a_proof_that_covers_them<F: TestFormat>() {
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    let flush = mapped(&mut table, &mut memory, G1 + M2, 0x1000);
    flush.complete(&NotPresentIsNotCached, &mut memory).unwrap();
    let flush = table.unmap(&mut memory, at::<F>(0), 512 * G1).unwrap();
    assert_eq!(memory.allocated(), 4);
    let flush = flush.complete(&NotPresentIsNotCached, &mut memory).unwrap_err();
    let flush = flush.complete(&Invalidated(0, G1), &mut memory).unwrap_err();
    assert_eq!(memory.allocated(), 4);
    flush.complete(&Invalidated(0, 1 << 48), &mut memory).unwrap();
    assert_eq!(memory.allocated(), 1);
}

fn joined_flushes_free_the_tables_of_both<F: TestFormat>() {
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    let mut all = Flush::none(table.root());
    for start in [M2, 600 * G1, 5 * G1] {
        let _ = mapped(&mut table, &mut memory, start, 0x1000);
        let _ = mapped(&mut table, &mut memory, start + 0x1000, 0x1000);
    }
    for start in [M2, 600 * G1, 5 * G1] {
        let flush = table.unmap(&mut memory, at::<F>(start & !(M2 - 1)), M2).unwrap();
        all.join(flush, &mut memory).unwrap();
    }
    let invalidation = *all.invalidation().unwrap();
    assert_eq!((invalidation.start, invalidation.len), (at::<F>(M2), 600 * G1));
    assert!(invalidation.tables_changed && !invalidation.only_added);
    assert_eq!(all.detached_tables(&mut memory), 3);
    all.join(table.release_empty_tables(&mut memory), &mut memory).unwrap();
    assert_eq!(all.detached_tables(&mut memory), memory.allocated() - 1);
    all.complete(&NeverLoaded, &mut memory).unwrap();
    assert_eq!(memory.allocated(), 1);

    let mut both = mapped(&mut table, &mut memory, 700 * G1, 0x1000);
    both.join(table.unmap(&mut memory, at::<F>(700 * G1), 0x1000).unwrap(), &mut memory).unwrap();
    assert!(!both.invalidation().unwrap().only_added, "one removal among the changes");

    let mut added = mapped(&mut table, &mut memory, 0, 0x1000);
    added.join(mapped(&mut table, &mut memory, 0x8000, 0x1000), &mut memory).unwrap();
    let invalidation = *added.invalidation().unwrap();
    assert_eq!((invalidation.start, invalidation.len), (at::<F>(0), 0x9000));
    assert!(invalidation.tables_changed && invalidation.only_added);
}

fn a_flush_of_another_table_is_not_joined<F: TestFormat>() {
    let mut memory = Frames::default();
    let mut one = table::<F>(&mut memory);
    let mut other = table::<F>(&mut memory);
    let mut flush = mapped(&mut one, &mut memory, 0, 0x1000);
    let _ = mapped(&mut other, &mut memory, G1, 0x1000);
    let gone = other.unmap(&mut memory, at::<F>(0), 512 * G1).unwrap();
    let gone = flush.join(gone, &mut memory).unwrap_err();
    assert_eq!((flush.detached_tables(&mut memory), gone.detached_tables(&mut memory)), (0, 3));
    assert_eq!(flush.invalidation().unwrap().len, 0x1000);
}

fn taking_a_tree_down_detaches_every_table<F: TestFormat>() {
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    for start in [0, M2, G1, 5 * G1 + M2 - 0x1000, 700 * G1] {
        let _ = mapped(&mut table, &mut memory, start, 0x2000);
    }
    let tables = memory.allocated();
    let (table_end, root) = (table.input_end(), table.root());
    let flush = table.destroy(&mut memory);
    assert_eq!((flush.detached_tables(&mut memory), memory.allocated()), (tables, tables));
    let change = *flush.invalidation().unwrap();
    assert!(change.tables_changed && !change.only_added);
    assert_eq!((change.start, change.len, change.root), (at::<F>(0), table_end, root));
    flush.complete(&NeverLoaded, &mut memory).unwrap();
    assert_eq!(memory.allocated(), 0);
}
