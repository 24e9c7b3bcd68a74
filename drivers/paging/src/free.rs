//! Giving the frames of tables back.

use crate::{ENTRIES, TableMemory, entry::PAGE, list::Tree, shape::Shape};

/// Entries that are passed over together.
const GROUP: usize = 8;

/// Gives back the frames of a tree that no hardware can reach.
pub(crate) fn free_tree(memory: &mut impl TableMemory, tree: Tree, shape: &Shape) {
    // A copy, which no store can change.
    let shape = *shape;
    let Tree { table, level } = tree;
    let mut index = 0;
    while level > 1 && index < ENTRIES {
        let entry = memory.read_entry(table, index);
        if shape.is_table(entry, level) {
            let child = Tree::child(entry, level);
            match child.level {
                1 => memory.free_table(child.table),
                _ => free_tree(memory, child, &shape),
            }
        } else if index.is_multiple_of(GROUP)
            && (index..index + GROUP).fold(entry, |all, index| all & memory.read_entry(table, index)) & PAGE != 0
        {
            // Where one entry is a page its neighbours mostly are.
            index += GROUP - 1;
        }
        index += 1;
    }
    memory.free_table(table);
}
