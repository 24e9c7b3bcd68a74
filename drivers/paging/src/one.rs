//! The short ways: one page mapped or unmapped by one store that hardware sees. They do nothing that the long ways would
//! not, and leave to those whatever is not as simple.

use crate::{
    ENTRIES, TableMemory,
    entry::{ADDRESS, PAGE},
    free::free_tree,
    geometry::slot_shift,
    list::Tree,
    shape::Shape,
    walker::Walker,
};
use addr::{HostPhys, PageSize};

/// How a page was mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mapped {
    /// In a table that is not full.
    Alone,
    /// In a table that may now be one which a large page can replace.
    PerhapsLast,
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
    /// Does what [`Walker::map`] does for one page if all tables are there, or none below where one is missing. `None`,
    /// and nothing has changed, if it is not as simple.
    #[inline]
    pub(crate) fn map_one(
        &self,
        shape: &Shape,
        memory: &mut impl TableMemory,
        start: u64,
        host: u64,
        len: u64,
        bits: u64,
    ) -> Option<Mapped> {
        let size = match len {
            0x1000 => PageSize::Size4K,
            0x20_0000 => PageSize::Size2M,
            0x4000_0000 => PageSize::Size1G,
            _ => return None,
        };
        let within = len - 1;
        if (start | host) & within != 0
            || start | within >= self.input_end
            || host | within >= self.host_end
            || size > self.limits.largest
        {
            return None;
        }
        let leaf = host | bits | if size == PageSize::Size4K { 0 } else { PAGE };
        let mut shift = slot_shift(self.limits.levels);
        let mut table = self.root;
        loop {
            let index = (start >> shift) as usize % ENTRIES;
            let entry = memory.read_entry(table, index);
            if shift == size.shift() {
                if shape.is_present(entry) {
                    return None;
                }
                memory.write_entry(table, index, leaf);
                break;
            }
            if !is_table_above_pages(shape, entry) {
                if shape.is_present(entry) {
                    return None;
                }
                let chain = chain(memory, shape, shift, start, size, leaf)?;
                memory.write_entry(table, index, chain);
                return Some(Mapped::InNewTables);
            }
            table = HostPhys::new(entry & ADDRESS);
            shift -= 9;
        }
        // Only a full table whose pages lie in a row can be merged, and its two ends tell first that it is not full.
        let in_a_row = (start ^ host) & (len * ENTRIES as u64 - 1) == 0;
        let is_full = || [ENTRIES - 1, 0].into_iter().all(|end| memory.read_entry(table, end) != 0);
        Some(if in_a_row && is_full() { Mapped::PerhapsLast } else { Mapped::Alone })
    }

    /// Does what [`Walker::unmap`] does if that is one store, to the entry of a page or of a table. `None`, and nothing has
    /// changed, if it is not.
    #[inline]
    pub(crate) fn unmap_one(
        &self,
        shape: &Shape,
        memory: &mut impl TableMemory,
        start: u64,
        len: u64,
    ) -> Option<Unmapped> {
        // Each with its own numbers in the machine code.
        match len {
            0x1000 => self.unmap_slot(shape, memory, start, 12),
            0x20_0000 => self.unmap_slot(shape, memory, start, 21),
            0x4000_0000 => self.unmap_slot(shape, memory, start, 30),
            _ => None,
        }
    }

    /// Does it for the slot at `start` of `1 << page_shift` bytes, if `start` is a multiple of that.
    #[inline(always)]
    fn unmap_slot(
        &self,
        shape: &Shape,
        memory: &mut impl TableMemory,
        start: u64,
        page_shift: u32,
    ) -> Option<Unmapped> {
        let within = (1 << page_shift) - 1;
        if start & within != 0 || start | within >= self.input_end {
            return None;
        }
        let mut shift = slot_shift(self.limits.levels);
        let mut table = self.root;
        while shift > page_shift {
            let entry = memory.read_entry(table, (start >> shift) as usize % ENTRIES);
            if !is_table_above_pages(shape, entry) {
                return None;
            }
            table = HostPhys::new(entry & ADDRESS);
            shift -= 9;
        }
        let index = (start >> page_shift) as usize % ENTRIES;
        let entry = memory.read_entry(table, index);
        let unmapped = if !shape.is_present(entry) {
            return None;
        } else if page_shift == PageSize::Size4K.shift() || entry & PAGE != 0 {
            Unmapped::Page
        } else if is_table_above_pages(shape, entry) {
            Unmapped::Table(Tree::child(entry, ((page_shift - slot_shift(0)) / 9) as u8))
        } else {
            return None;
        };
        memory.write_entry(table, index, 0);
        Some(unmapped)
    }
}

/// Whether an entry at a level that is known not to be the lowest points to a table.
#[inline]
fn is_table_above_pages(shape: &Shape, entry: u64) -> bool {
    shape.is_table(entry, 2)
}

/// New tables below an entry that covers `1 << shift` bytes, with nothing but the page `leaf` of `size` at `start`: the
/// entry that points to them. `None`, and nothing taken, if memory is out.
#[inline(never)]
fn chain(
    memory: &mut impl TableMemory,
    shape: &Shape,
    shift: u32,
    start: u64,
    size: PageSize,
    leaf: u64,
) -> Option<u64> {
    let top = memory.allocate_table()?;
    let (mut table, mut shift) = (top, shift - 9);
    let level = ((shift - slot_shift(0)) / 9) as u8;
    loop {
        let index = (start >> shift) as usize % ENTRIES;
        let next = if shift == size.shift() { None } else { Some(memory.allocate_table()) };
        let entry = match next {
            None => leaf,
            Some(Some(next)) => shape.table_entry(next),
            Some(None) => {
                free_tree(memory, Tree { table: top, level }, shape);
                return None;
            }
        };
        memory.fill_entry(table, index, entry);
        memory.publish(table, index..index + 1);
        match next.flatten() {
            Some(next) => table = next,
            None => return Some(shape.table_entry(top)),
        }
        shift -= 9;
    }
}
