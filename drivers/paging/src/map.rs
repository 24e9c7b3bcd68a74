//! Adding mappings to the tree.
//!
//! Everything that can fail happens before the first store that hardware can take for something: the tables that are
//! missing are built whole, out of hardware's sight, and each waits in the absent entry that will point to it. Then the
//! leaves are stored and the new tables attached, each by one store.

use crate::{
    Flush, Invalidation, MapError, TableMemory,
    address::Input,
    entry::{ADDRESS, PAGE},
    free::free_tree,
    geometry::{Part, index, is_slot, level_of, parts, slot_bytes, slot_end},
    list::Tree,
    shape::Shape,
    walker::Walker,
};

/// A mapping to be made, of any length.
struct Request {
    /// What to add to an input address to get an entry: the host address less the input address, and the bits that say
    /// how the page is used.
    offset: u64,
    /// The highest level at which a leaf can be: input and host addresses differ in no bit below its size.
    leaf_level: u8,
    shape: &'static Shape,
}

impl Request {
    /// The entry of the leaf at `level` and `input`.
    fn leaf(&self, level: u8, input: u64) -> u64 {
        input.wrapping_add(self.offset) | if level > 1 { PAGE } else { 0 }
    }

    /// Whether the part `start` to `end` of the range, which is within a slot at `level`, can be one leaf.
    fn is_leaf(&self, level: u8, start: u64, end: u64) -> bool {
        level <= self.leaf_level && is_slot(start, end, level)
    }
}

impl Walker {
    /// Maps `len` bytes from `start` to the host memory from `host`; `bits` says how they may be used.
    pub(crate) fn map(
        &self,
        memory: &mut impl TableMemory,
        start: u64,
        host: u64,
        len: u64,
        bits: u64,
    ) -> Result<Flush<Input>, MapError<Input>> {
        let end = self.end(start, len)?;
        self.check_host(host, len)?;
        let leaf_level = self.leaf_level(start ^ host);
        let request = Request { offset: host.wrapping_sub(start).wrapping_add(bits), leaf_level, shape: self.shape };
        let added = self.invalidation(Input(start), len, true);
        // Down to the table in which something is to be stored.
        let target = level_of(start, end);
        let mut tree = self.tree();
        while tree.level > target {
            let index = index(start, tree.level);
            let entry = memory.read_entry(tree.table, index);
            if self.shape.is_table(entry, tree.level) {
                tree = Tree::child(entry, tree.level);
            } else if self.shape.is_present(entry) {
                return Err(self.in_the_way(tree, index, entry, start));
            } else {
                // All of it goes into one new tree.
                let built = build(memory, tree.level - 1, start, end, &request).ok_or(MapError::OutOfMemory)?;
                memory.write_entry(tree.table, index, built);
                return Ok(Flush::of(Invalidation { tables_changed: true, ..added }));
            }
        }
        self.prepare(memory, tree, start, end, &request)?;
        let mut flush = Flush::of(added);
        self.commit(memory, tree, start, end, &request, &mut flush);
        self.merge_up(memory, tree.level, leaf_level, start, &mut flush);
        Ok(flush)
    }

    /// The highest level at which leaves can be where input and host addresses differ in the bits `differ`.
    fn leaf_level(&self, differ: u64) -> u8 {
        let largest = self.limits.largest.level();
        let mut level = 1;
        while level < largest && differ & (slot_bytes(level + 1) - 1) == 0 {
            level += 1;
        }
        level
    }

    /// Makes sure that nothing in the way of `start` to `end` is mapped in a tree, and parks the tables that are missing.
    /// After an error nothing is parked.
    fn prepare(
        &self,
        memory: &mut impl TableMemory,
        tree: Tree,
        start: u64,
        end: u64,
        request: &Request,
    ) -> Result<(), MapError<Input>> {
        let Tree { table, level } = tree;
        for Part { index, start: at, end: next } in parts(start, end, level) {
            let entry = memory.read_entry(table, index);
            let prepared = if self.shape.is_table(entry, level) {
                self.prepare(memory, Tree::child(entry, level), at, next, request)
            } else if self.shape.is_present(entry) {
                Err(self.in_the_way(tree, index, entry, at))
            } else if request.is_leaf(level, at, next) {
                Ok(())
            } else if let Some(built) = build(memory, level - 1, at, next, request) {
                // Absent as yet. Whatever is neither a table nor to be a page is such an entry from now on.
                memory.fill_entry(table, index, built & ADDRESS);
                Ok(())
            } else {
                Err(MapError::OutOfMemory)
            };
            if prepared.is_err() {
                unpark(memory, tree, start, at, request);
                return prepared;
            }
        }
        Ok(())
    }

    /// The error for an entry that is present and points to no table, where `input` was to be mapped.
    #[cold]
    fn in_the_way(&self, tree: Tree, index: usize, value: u64, input: u64) -> MapError<Input> {
        match self.shape.is_page(value, tree.level) {
            true => MapError::AlreadyMapped(Input(input)),
            false => MapError::Malformed { table: tree.table, index, value },
        }
    }

    /// Stores what was prepared.
    fn commit(
        &self,
        memory: &mut impl TableMemory,
        tree: Tree,
        start: u64,
        end: u64,
        request: &Request,
        flush: &mut Flush<Input>,
    ) {
        let Tree { table, level } = tree;
        for Part { index, start: at, end: next } in parts(start, end, level) {
            let entry = memory.read_entry(table, index);
            if self.shape.is_table(entry, level) {
                self.commit(memory, Tree::child(entry, level), at, next, request, flush);
                if level <= request.leaf_level {
                    self.merge(memory, tree, at, flush);
                }
            } else if request.is_leaf(level, at, next) {
                memory.write_entry(table, index, request.leaf(level, at));
            } else {
                memory.write_entry(table, index, self.shape.table_entry(Tree::child(entry, level).table));
                flush.note_tables_changed();
            }
        }
    }
}

/// A new tree at `level` with the part `start` to `end` of a request: the entry that points to it. `None`, and nothing
/// taken, if memory is out.
fn build(memory: &mut impl TableMemory, level: u8, start: u64, end: u64, request: &Request) -> Option<u64> {
    let table = memory.allocate_table()?;
    let first = index(start, level);
    let mut filled = first;
    let mut at = start;
    while at < end {
        let next = slot_end(at, end, level);
        if request.is_leaf(level, at, next) {
            // As many leaves as there are in a row.
            let count = ((end - at) / slot_bytes(level)) as usize;
            let mut entry = request.leaf(level, at);
            for index in filled..filled + count {
                memory.fill_entry(table, index, entry);
                entry += slot_bytes(level);
            }
            filled += count;
            at += count as u64 * slot_bytes(level);
            continue;
        }
        let Some(entry) = build(memory, level - 1, at, next, request) else {
            free_tree(memory, Tree { table, level }, request.shape);
            return None;
        };
        memory.fill_entry(table, filled, entry);
        filled += 1;
        at = next;
    }
    memory.publish(table, first..filled);
    Some(request.shape.table_entry(table))
}

/// Takes back what was parked in `start` to `end` of a tree, all of which was prepared.
fn unpark(memory: &mut impl TableMemory, tree: Tree, start: u64, end: u64, request: &Request) {
    let Tree { table, level } = tree;
    for Part { index, start: at, end: next } in parts(start, end, level) {
        let entry = memory.read_entry(table, index);
        if request.shape.is_table(entry, level) {
            unpark(memory, Tree::child(entry, level), at, next, request);
        } else if !request.is_leaf(level, at, next) {
            memory.fill_entry(table, index, 0);
            free_tree(memory, Tree::child(entry, level), request.shape);
        }
    }
}
