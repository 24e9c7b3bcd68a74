//! Merging: the large page that replaces a table full of small ones which say the same.
//!
//! Hardware that has the old table cached goes on translating by it, rightly, until it is told to forget; the table's
//! frame is freed then and not before. Two caches of one processor may hold the small and the large page for a while,
//! which says the same twice. (Processors with the erratum CVE-2018-12207 stop when that happens to instructions: give
//! them pages of 4 KiB, or none that can be executed; IA32_ARCH_CAPABILITIES bit 6 tells who has it not.)

use crate::{
    ENTRIES, Flush, Invalidation, TableMemory,
    address::Input,
    entry::{ADDRESS, PAGE},
    geometry::{index, slot_bytes, slot_start},
    list::Tree,
    walker::Walker,
};

/// More than the highest level of a table.
const LEVELS: usize = 8;

/// Where the table at `level` is in a list of one for each level.
const fn place(level: u8) -> usize {
    level as usize % LEVELS
}

impl Walker {
    /// Merges what can be after something was stored in the table at `level` that `input` is translated by: that table,
    /// and if it goes, the ones above, to pages up to `merge_level`.
    pub(crate) fn merge_up(
        &self,
        memory: &mut impl TableMemory,
        level: u8,
        merge_level: u8,
        input: u64,
        flush: &mut Flush<Input>,
    ) {
        let highest = merge_level.min(self.limits.levels);
        if level >= highest {
            return;
        }
        let mut path = [self.root; LEVELS];
        for level in (level + 2..=self.limits.levels).rev() {
            let child = memory.read_entry(path[place(level)], index(input, level));
            path[place(level - 1)] = Tree::child(child, level).table;
        }
        for level in level + 1..=highest {
            if !self.merge(memory, Tree { table: path[place(level)], level }, input, flush) {
                return;
            }
        }
    }

    /// Replaces the table that the entry for `input` in the table at the top of `tree` points to by a large page, if one
    /// says the same. Returns whether that is so.
    pub(crate) fn merge(
        &self,
        memory: &mut impl TableMemory,
        tree: Tree,
        input: u64,
        flush: &mut Flush<Input>,
    ) -> bool {
        let Tree { table, level } = tree;
        let index = index(input, level);
        let child = Tree::child(memory.read_entry(table, index), level);
        let Some(large) = self.merged(memory, child) else { return false };
        memory.write_entry(table, index, large);
        flush.detach(child, self.shape, memory);
        self.note_slot(flush, level, input, true);
        true
    }

    /// The leaf that says what all 512 entries of a table together do, if there is one that hardware has.
    fn merged(&self, memory: &impl TableMemory, tree: Tree) -> Option<u64> {
        let Tree { table, level } = tree;
        if level >= self.limits.largest.level() {
            return None;
        }
        let noted_bits = self.shape.set_by_hardware;
        let first = memory.read_entry(table, 0);
        let large = first & !noted_bits | PAGE;
        let is_page = self.shape.is_present(first) && (level == 1 || first & PAGE != 0);
        if !is_page || large & ADDRESS & (slot_bytes(level + 1) - 1) != 0 {
            return None;
        }
        // Mostly a table is filled from one end to the other: whether the last page is there tells whether to look on.
        let expected = |index: usize| (first & !noted_bits) + index as u64 * slot_bytes(level);
        let mut noted = 0;
        for index in [ENTRIES - 1].into_iter().chain(0..ENTRIES) {
            let entry = memory.read_entry(table, index);
            if entry & !noted_bits != expected(index) {
                return None;
            }
            noted |= entry & noted_bits;
        }
        Some(large | noted)
    }

    /// Notes that the entry for `input` in a table at `level` has changed, other than from absent.
    pub(crate) fn note_slot(&self, flush: &mut Flush<Input>, level: u8, input: u64, tables_changed: bool) {
        let changed = self.invalidation(Input(slot_start(input, level)), slot_bytes(level), false);
        flush.note(Invalidation { tables_changed, ..changed });
    }
}
