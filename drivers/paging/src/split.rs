//! The table that takes a large page's place where a change begins or ends within it.

use crate::{
    ENTRIES, MapError, TableMemory,
    address::Input,
    entry::{ADDRESS, PAGE},
    free::free_tree,
    geometry::{index, slot_bytes, slot_start},
    list::Tree,
    shape::Shape,
    walker::Walker,
};
use core::ops::Range;

/// What is to become of the mappings in a range.
pub(crate) struct Edit {
    /// The range.
    pub(crate) range: Range<u64>,
    /// The bits that say their new use, or `None` if they go.
    pub(crate) to: Option<u64>,
    pub(crate) shape: &'static Shape,
}

impl Edit {
    /// What takes the place of `entry`, a leaf at `level` that is wholly in the range. What hardware has noted in it
    /// stays.
    pub(crate) fn apply(&self, entry: u64, level: u8) -> u64 {
        let page = if level > 1 { PAGE } else { 0 };
        self.to.map_or(0, |bits| entry & (ADDRESS | self.shape.set_by_hardware) | bits | page)
    }
}

/// The entries that take the place of the large pages at the two ends of a range.
pub(crate) struct Splits {
    /// Of the page that the range begins within, and perhaps ends within too.
    pub(crate) first: Option<u64>,
    /// Of another page that the range ends within.
    pub(crate) last: Option<u64>,
}

/// A page that is larger than 4 KiB.
struct LargeLeaf {
    /// Its first input address.
    base: u64,
    level: u8,
    entry: u64,
}

impl Walker {
    /// Builds the tables for the large pages below `tree` that are partly in the range of `edit`.
    pub(crate) fn split(
        &self,
        memory: &mut impl TableMemory,
        tree: Tree,
        edit: &Edit,
    ) -> Result<Splits, MapError<Input>> {
        let Range { start, end } = edit.range;
        let first_leaf = self.leaf_across(memory, tree, start)?;
        // A page that the range begins within is split once, whether or not the range ends within it too.
        let last_leaf = self.leaf_across(memory, tree, end)?.filter(|leaf| leaf.base >= start);
        let mut replace = |leaf: &Option<LargeLeaf>| match leaf {
            // What is as it is to become is not split.
            Some(leaf) if edit.apply(leaf.entry, leaf.level) != leaf.entry => {
                build(memory, leaf.level - 1, leaf.base, leaf.entry, edit).map(Some)
            }
            _ => Some(None),
        };
        let first = replace(&first_leaf).ok_or(MapError::OutOfMemory)?;
        match replace(&last_leaf) {
            Some(last) => Ok(Splits { first, last }),
            None => {
                if let (Some(leaf), Some(entry)) = (first_leaf, first) {
                    free_tree(memory, Tree::child(entry, leaf.level), self.shape);
                }
                Err(MapError::OutOfMemory)
            }
        }
    }

    /// The leaf that `input` is in and does not begin.
    fn leaf_across(
        &self,
        memory: &impl TableMemory,
        tree: Tree,
        input: u64,
    ) -> Result<Option<LargeLeaf>, MapError<Input>> {
        let Tree { mut table, mut level } = tree;
        loop {
            if input & (slot_bytes(level) - 1) == 0 {
                return Ok(None);
            }
            let index = index(input, level);
            let entry = memory.read_entry(table, index);
            if !self.shape.is_present(entry) {
                return Ok(None);
            } else if self.shape.is_table(entry, level) {
                Tree { table, level } = Tree::child(entry, level);
            } else if self.shape.is_page(entry, level) {
                return Ok(Some(LargeLeaf { base: slot_start(input, level), level, entry }));
            } else {
                return Err(MapError::Malformed { table, index, value: entry });
            }
        }
    }
}

/// A new table at `level` whose 512 parts from `base` on say together what the page `whole` did, but for the range of
/// `edit`: the entry that points to it. What hardware noted in the page is noted in every part. `None`, and nothing
/// taken, if memory is out.
fn build(memory: &mut impl TableMemory, level: u8, base: u64, whole: u64, edit: &Edit) -> Option<u64> {
    let table = memory.allocate_table()?;
    let bytes = slot_bytes(level);
    // Only 2 MiB and 1 GiB pages are split, so the parts are of 4 KiB or 2 MiB.
    let mut part = if level == 1 { whole & !PAGE } else { whole };
    let mut start = base;
    for index in 0..ENTRIES {
        let end = start + bytes;
        let entry = if end <= edit.range.start || edit.range.end <= start {
            Some(part)
        } else if edit.range.start <= start && end <= edit.range.end {
            Some(edit.apply(part, level))
        } else {
            build(memory, level - 1, start, part, edit)
        };
        let Some(entry) = entry else {
            free_tree(memory, Tree { table, level }, edit.shape);
            return None;
        };
        memory.fill_entry(table, index, entry);
        part += bytes;
        start = end;
    }
    memory.publish(table, 0..ENTRIES);
    Some(edit.shape.table_entry(table))
}
