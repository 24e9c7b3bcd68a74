//! The short ways: one page mapped or unmapped by one store that hardware sees. They do nothing that the long ways would
//! not, and leave to those whatever is not as simple.
//!
//! They are compiled into whoever calls, where the page's size is mostly known; so every size has its own numbers in the
//! machine code, and no loop.

use crate::{
    ENTRIES, TableMemory,
    entry::{ADDRESS, PAGE},
    free::free_tree,
    geometry::{index, slot_bytes},
    list::Tree,
    shape::Shape,
    walker::Walker,
};
use addr::HostPhys;

/// Whether there is to be one way for all sizes.
const SMALL: bool = cfg!(feature = "small");

/// Where a page was mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mapped {
    /// In a table that was there.
    InTable,
    /// In new tables.
    InNewTables,
}

/// What was unmapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unmapped {
    /// A page.
    Page,
    /// Whatever is mapped by a tree, which nothing in the table points to any more.
    Table(Tree),
}

impl Walker {
    /// Does what [`Walker::map`] does for one page if all tables are there, or none below where one is missing, and if no
    /// larger page can replace the table then. `None`, and nothing has changed, if it is not as simple.
    #[inline(always)]
    pub(crate) fn map_one(
        &self,
        shape: &Shape,
        memory: &mut impl TableMemory,
        start: u64,
        host: u64,
        len: u64,
        bits: u64,
    ) -> Option<Mapped> {
        let level = page_level(len)?;
        if SMALL {
            return self.map_slot(shape, memory, start, host, bits, level);
        }
        match level {
            1 => self.map_slot(shape, memory, start, host, bits, 1),
            2 => self.map_slot(shape, memory, start, host, bits, 2),
            _ => self.map_slot(shape, memory, start, host, bits, 3),
        }
    }

    /// Does it for a page at `level`.
    #[inline(always)]
    fn map_slot(
        &self,
        shape: &Shape,
        memory: &mut impl TableMemory,
        start: u64,
        host: u64,
        bits: u64,
        level: u8,
    ) -> Option<Mapped> {
        let within = slot_bytes(level) - 1;
        if (start | host) & within != 0
            || start | within >= self.input_end
            || host | within >= self.host_end
            || level > self.limits.largest.level()
        {
            return None;
        }
        let leaf = host | bits | if level == 1 { 0 } else { PAGE };
        let table = match self.descend(shape, memory, start, level) {
            Ok(table) => table,
            Err(lowest) => return map_below(memory, shape, lowest, start, level, leaf),
        };
        let index = index(start, level);
        if shape.is_present(memory.read_entry(table, index)) {
            return None;
        }
        // Only a full table whose pages lie in a row can be merged, and its two ends tell first that it will not be full.
        let in_a_row = (start ^ host) & (slot_bytes(level + 1) - 1) == 0;
        if in_a_row && [ENTRIES - 1, 0].into_iter().all(|end| end == index || memory.read_entry(table, end) != 0) {
            return None;
        }
        memory.write_entry(table, index, leaf);
        Some(Mapped::InTable)
    }

    /// Does what [`Walker::unmap`] does if that is one store, to the entry of a page or of a table. `None`, and nothing has
    /// changed, if it is not.
    #[inline(always)]
    pub(crate) fn unmap_one(
        &self,
        shape: &Shape,
        memory: &mut impl TableMemory,
        start: u64,
        len: u64,
    ) -> Option<Unmapped> {
        let level = page_level(len)?;
        if SMALL {
            return self.unmap_slot(shape, memory, start, level);
        }
        match level {
            1 => self.unmap_slot(shape, memory, start, 1),
            2 => self.unmap_slot(shape, memory, start, 2),
            _ => self.unmap_slot(shape, memory, start, 3),
        }
    }

    /// Does it for the slot at `level` that begins at `start`, if one does.
    #[inline(always)]
    fn unmap_slot(&self, shape: &Shape, memory: &mut impl TableMemory, start: u64, level: u8) -> Option<Unmapped> {
        let within = slot_bytes(level) - 1;
        if start & within != 0 || start | within >= self.input_end {
            return None;
        }
        let table = self.descend(shape, memory, start, level).ok()?;
        let index = index(start, level);
        let entry = memory.read_entry(table, index);
        let unmapped = if !shape.is_present(entry) {
            return None;
        } else if level == 1 || entry & PAGE != 0 {
            Unmapped::Page
        } else if shape.is_table(entry, level) {
            Unmapped::Table(Tree::child(entry, level))
        } else {
            return None;
        };
        memory.write_entry(table, index, 0);
        Some(unmapped)
    }

    /// The table at `level` that `start` is translated by, or else the lowest that is there above.
    #[inline(always)]
    fn descend(&self, shape: &Shape, memory: &impl TableMemory, start: u64, level: u8) -> Result<HostPhys, Tree> {
        let mut table = self.root;
        for above in [5, 4, 3, 2] {
            if above <= self.limits.levels && above > level {
                let entry = memory.read_entry(table, index(start, above));
                if !shape.is_table(entry, above) {
                    return Err(Tree { table, level: above });
                }
                table = HostPhys::new(entry & ADDRESS);
            }
        }
        Ok(table)
    }
}

/// The level of the entry of a page of `len` bytes, if there is one.
#[inline(always)]
fn page_level(len: u64) -> Option<u8> {
    match len {
        0x1000 => Some(1),
        0x20_0000 => Some(2),
        0x4000_0000 => Some(3),
        _ => None,
    }
}

/// Maps the page `leaf` at `level` in new tables below the one at the top of `lowest`, if nothing is there.
#[cold]
#[inline(never)]
fn map_below(
    memory: &mut impl TableMemory,
    shape: &Shape,
    lowest: Tree,
    start: u64,
    level: u8,
    leaf: u64,
) -> Option<Mapped> {
    let index = index(start, lowest.level);
    if shape.is_present(memory.read_entry(lowest.table, index)) {
        return None;
    }
    let chain = chain(memory, shape, lowest.level - 1, start, level, leaf)?;
    memory.write_entry(lowest.table, index, chain);
    Some(Mapped::InNewTables)
}

/// New tables from `top` down to `level`, with nothing but the page `leaf` at `start`: the entry that points to them. `None`,
/// and nothing taken, if memory is out.
fn chain(memory: &mut impl TableMemory, shape: &Shape, top: u8, start: u64, level: u8, leaf: u64) -> Option<u64> {
    let tree = Tree { table: memory.allocate_table()?, level: top };
    let mut lowest = tree;
    loop {
        let next = if lowest.level == level { None } else { Some(memory.allocate_table()) };
        let entry = match next {
            None => leaf,
            Some(Some(next)) => shape.table_entry(next),
            Some(None) => {
                free_tree(memory, tree, shape);
                return None;
            }
        };
        let index = index(start, lowest.level);
        memory.fill_entry(lowest.table, index, entry);
        memory.publish(lowest.table, index..index + 1);
        match next.flatten() {
            Some(next) => lowest = Tree { table: next, level: lowest.level - 1 },
            None => return Some(shape.table_entry(tree.table)),
        }
    }
}
