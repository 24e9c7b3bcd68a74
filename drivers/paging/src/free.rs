//! Giving the frames of tables back.

use crate::{ENTRIES, TableMemory, entry::PAGE, list::Tree, shape::Shape};

/// Entries that are passed over together.
const GROUP: usize = 8;

/// Gives back the frames of a tree that no hardware can reach. A table at level 1 is not read.
#[inline]
pub(crate) fn free_tree(memory: &mut impl TableMemory, tree: Tree, shape: &Shape) {
    if tree.level > 1 {
        free_below(memory, tree, shape);
    }
    memory.free_table(tree.table);
}

/// Gives back the frames of whatever a table points to.
fn free_below(memory: &mut impl TableMemory, tree: Tree, shape: &Shape) {
    // A copy, which no store can change.
    let shape = *shape;
    let Tree { table, level } = tree;
    let mut index = 0;
    while index < ENTRIES {
        let entry = memory.read_entry(table, index);
        index += if shape.is_table(entry, level) {
            free_tree(memory, Tree::child(entry, level), &shape);
            1
        } else if index.is_multiple_of(GROUP)
            && (index..index + GROUP).fold(entry, |all, index| all & memory.read_entry(table, index)) & PAGE != 0
        {
            // Where one entry is a page its neighbours mostly are.
            GROUP
        } else {
            1
        };
    }
}
