//! Changing what is mapped: taking mappings out, and changing what may be done with them.
//!
//! A larger page that is partly in the range is replaced by a table of smaller ones, which is complete before it is
//! attached by one store: what is outside the range stays mapped at every moment.

use crate::{
    ENTRIES, Flush, Invalidation, MapError, TableMemory,
    address::Input,
    geometry::{Part, index, is_slot, level_of, parts, slot_bytes, slot_start},
    list::Tree,
    split::{Edit, Splits},
    walker::Walker,
};
use addr::PageSize;

impl Walker {
    /// Takes out whatever is mapped of the `len` bytes from `start`.
    pub(crate) fn unmap(
        &self,
        memory: &mut impl TableMemory,
        start: u64,
        len: u64,
    ) -> Result<Flush<Input>, MapError<Input>> {
        self.change(memory, start, len, None)
    }

    /// Gives whatever is mapped of the `len` bytes from `start` another use: `bits` says which.
    pub(crate) fn protect(
        &self,
        memory: &mut impl TableMemory,
        start: u64,
        len: u64,
        bits: u64,
    ) -> Result<Flush<Input>, MapError<Input>> {
        let end = self.end(start, len)?;
        // To pass over an entry that says nobody knows what would be to leave a right in place that was to go.
        self.refuse_malformed(memory, self.tree(), start, end)?;
        self.change(memory, start, len, Some(bits))
    }

    /// Makes a change of whatever is mapped in a range.
    #[inline(never)]
    fn change(
        &self,
        memory: &mut impl TableMemory,
        start: u64,
        len: u64,
        to: Option<u64>,
    ) -> Result<Flush<Input>, MapError<Input>> {
        let end = self.end(start, len)?;
        let edit = Edit { range: start..end, to, shape: self.shape };
        let mut flush = self.unchanged();
        // Down to the table in which something is to be stored.
        let target = level_of(start, end);
        let mut tree = self.tree();
        while tree.level > target {
            let entry = memory.read_entry(tree.table, index(start, tree.level));
            if !self.shape.is_table(entry, tree.level) {
                break;
            }
            tree = Tree::child(entry, tree.level);
        }
        let splits = self.split(memory, tree, &edit)?;
        if self.edit(memory, tree, (start, end), &edit, &splits, &mut flush) {
            self.merge_up(memory, tree.level, PageSize::Size1G.level(), start, &mut flush);
        }
        Ok(flush)
    }

    /// Makes the change in a part of its range, given by start and end, which the table at the top of `tree` covers.
    /// Returns whether an entry of that table has changed, other than to absent.
    fn edit(
        &self,
        memory: &mut impl TableMemory,
        tree: Tree,
        (start, end): (u64, u64),
        edit: &Edit,
        splits: &Splits,
        flush: &mut Flush<Input>,
    ) -> bool {
        let Tree { table, level } = tree;
        let mut changed = false;
        for Part { index, start: at, end: next } in parts(start, end, level) {
            let entry = memory.read_entry(table, index);
            let whole = is_slot(at, next, level);
            if self.shape.is_table(entry, level) {
                let child = Tree::child(entry, level);
                if whole && edit.to.is_none() {
                    memory.write_entry(table, index, 0);
                    flush.detach(child, self.shape, memory);
                    self.note_slot(flush, level, at, true);
                } else if self.edit(memory, child, (at, next), edit, splits, flush) {
                    changed |= self.merge(memory, tree, at, flush);
                }
            } else if self.shape.is_present(entry) {
                let new = if slot_start(at, level) < at {
                    splits.first.unwrap_or(entry)
                } else if !whole {
                    splits.last.unwrap_or(entry)
                } else {
                    edit.apply(entry, level)
                };
                if new != entry {
                    memory.write_entry(table, index, new);
                    // Nobody knows what hardware took a malformed entry for.
                    self.note_slot(flush, level, at, !whole || !self.shape.is_page(entry, level));
                    changed |= new != 0;
                }
            }
        }
        changed
    }

    /// Refuses a range in which an entry is malformed.
    fn refuse_malformed(
        &self,
        memory: &impl TableMemory,
        tree: Tree,
        start: u64,
        end: u64,
    ) -> Result<(), MapError<Input>> {
        let Tree { table, level } = tree;
        for Part { index, start: at, end: next } in parts(start, end, level) {
            let value = memory.read_entry(table, index);
            if self.shape.is_table(value, level) {
                self.refuse_malformed(memory, Tree::child(value, level), at, next)?;
            } else if self.shape.is_present(value) && !self.shape.is_page(value, level) {
                return Err(MapError::Malformed { table, index, value });
            }
        }
        Ok(())
    }

    /// Detaches all tables that have become empty, the root apart.
    pub(crate) fn release_empty_tables(&self, memory: &mut impl TableMemory) -> Flush<Input> {
        let mut flush = self.unchanged();
        self.release_below(memory, self.tree(), 0, &mut flush);
        flush
    }

    /// Detaches the empty tables below the one at the top of `tree`, which covers the addresses from `base`. Returns
    /// whether this one is empty then.
    fn release_below(&self, memory: &mut impl TableMemory, tree: Tree, base: u64, flush: &mut Flush<Input>) -> bool {
        let Tree { table, level } = tree;
        let mut empty = true;
        for index in 0..ENTRIES {
            let entry = memory.read_entry(table, index);
            let start = base + index as u64 * slot_bytes(level);
            if self.shape.is_table(entry, level) && self.release_below(memory, Tree::child(entry, level), start, flush)
            {
                memory.write_entry(table, index, 0);
                flush.detach(Tree::child(entry, level), self.shape, memory);
                self.note_slot(flush, level, start, true);
            } else {
                empty &= !self.shape.is_present(entry);
            }
        }
        empty
    }

    /// Takes the whole tree down.
    pub(crate) fn destroy(&self, memory: &mut impl TableMemory) -> Flush<Input> {
        let everything = self.invalidation(Input(0), self.input_end, false);
        let mut flush = Flush::of(Invalidation { tables_changed: true, ..everything });
        flush.detach(self.tree(), self.shape, memory);
        flush
    }
}
