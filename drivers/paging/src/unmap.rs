//! Taking mappings out of the tree.

use crate::{
    ENTRIES, Entry, Flush, Format, InputAddress, Invalidation, MapError, Mapping, PageTable, TableMemory,
    entry::leaf_size,
    geometry::{Slot, slots},
    list::TableList,
    table::At,
};
use addr::HostPhys;
use core::ops::Range;

impl<F: Format> PageTable<F> {
    /// Takes out whatever is mapped of the `len` bytes from `input`. A larger page of which only a part goes is
    /// split, and what is left of it stays mapped at every moment. Tables that become empty are detached.
    ///
    /// # Errors
    /// The range is empty, misaligned or beyond the table; memory is out for the tables of a split. Nothing has
    /// changed then. That nothing was mapped is no error.
    pub fn unmap(
        &mut self,
        memory: &mut impl TableMemory,
        input: F::Input,
        len: u64,
    ) -> Result<Flush<F::Input>, MapError<F::Input>> {
        let range = self.range(input, len)?;
        let needed = self.plan_unmap(memory, self.top(), &range)?;
        let mut spare = TableList::reserve(needed, memory).ok_or(MapError::OutOfMemory)?;
        let mut flush = Flush::none(self.root);
        self.clear(memory, self.top(), &range, &mut spare, &mut flush);
        spare.free(memory);
        Ok(flush)
    }

    /// The number of tables that the splits need when `range` goes.
    fn plan_unmap(&self, memory: &impl TableMemory, at: At, range: &Range<u64>) -> Result<u64, MapError<F::Input>> {
        let mut needed = 0;
        for slot in slots(at.level, at.base, range).filter(|slot| !slot.is_whole()) {
            needed += match Self::entry(memory, at.table, at.level, slot.index) {
                Entry::Absent => 0,
                Entry::Table(child) => self.plan_unmap(memory, at.child(child, &slot), range)?,
                Entry::Leaf(_) => split_tables(at.level - 1, slot.covers.start, range),
                Entry::Malformed => return Err(Self::malformed(memory, at.table, slot.index)),
            };
        }
        Ok(needed)
    }

    /// Clears `range` below `at`, and notes in `flush` what has changed.
    fn clear(
        &self,
        memory: &mut impl TableMemory,
        at: At,
        range: &Range<u64>,
        spare: &mut TableList,
        flush: &mut Flush<F::Input>,
    ) {
        for slot in slots(at.level, at.base, range) {
            let entry = Self::entry(memory, at.table, at.level, slot.index);
            match entry {
                Entry::Absent => {}
                Entry::Table(child) if slot.is_whole() => {
                    memory.write_entry(at.table, slot.index, 0);
                    self.note(flush, &slot, true);
                    self.detach(memory, at.child(child, &slot), flush);
                }
                Entry::Table(child) => {
                    self.clear(memory, at.child(child, &slot), range, spare, flush);
                    // Absent entries only, so there is nothing to clear below.
                    if (0..ENTRIES).all(|index| Self::entry(memory, child, at.level - 1, index) == Entry::Absent) {
                        memory.write_entry(at.table, slot.index, 0);
                        flush.detach(child, memory);
                        // What was cleared in it is noted already; the pointer to it has changed now too.
                        self.note(flush, &slot, true);
                    }
                }
                Entry::Leaf(leaf) if !slot.is_whole() => {
                    let table = self.split(memory, at.level - 1, slot.covers.start, leaf, range, spare);
                    memory.write_entry(at.table, slot.index, F::table(table));
                    self.note(flush, &slot, true);
                }
                Entry::Leaf(_) | Entry::Malformed => {
                    memory.write_entry(at.table, slot.index, 0);
                    // Nobody knows what hardware took a malformed entry for.
                    self.note(flush, &slot, entry == Entry::Malformed);
                }
            }
        }
    }

    /// A new table at `level` that maps from `base` what `leaf`, one level higher, did, except `hole`.
    fn split(
        &self,
        memory: &mut impl TableMemory,
        level: u8,
        base: u64,
        leaf: Mapping<F::Attributes>,
        hole: &Range<u64>,
        spare: &mut TableList,
    ) -> HostPhys {
        let table = spare.pop(memory).expect("the plan counted the tables of every split");
        // Only 2 MiB and 1 GiB leaves are split, so the parts are of 4 KiB or 2 MiB.
        let Some(size) = leaf_size(level) else { return table };
        for slot in slots(level, base, &(base..base + size.bytes() * ENTRIES as u64)) {
            let host = HostPhys::new(leaf.host.as_u64() + (slot.covers.start - base));
            let part = Mapping { host, ..leaf };
            let hole_start = hole.start.max(slot.covers.start);
            let hole_end = hole.end.min(slot.covers.end);
            if hole_start >= hole_end {
                memory.write_entry(table, slot.index, F::leaf(size, part));
            } else if (hole_start..hole_end) != slot.covers {
                let child = self.split(memory, level - 1, slot.covers.start, part, hole, spare);
                memory.write_entry(table, slot.index, F::table(child));
            }
        }
        table
    }

    /// Puts the table at `at` and all below it into `flush`. The entry that pointed to it is cleared already.
    pub(crate) fn detach(&self, memory: &mut impl TableMemory, at: At, flush: &mut Flush<F::Input>) {
        if at.level > 1 {
            for index in 0..ENTRIES {
                if let Entry::Table(child) = Self::entry(memory, at.table, at.level, index) {
                    // The base does not matter any more.
                    self.detach(memory, At { table: child, level: at.level - 1, base: 0 }, flush);
                }
            }
        }
        flush.detach(at.table, memory);
    }

    /// Notes that the entry of `slot` has changed.
    fn note(&self, flush: &mut Flush<F::Input>, slot: &Slot, tables_changed: bool) {
        flush.note(Invalidation {
            root: self.root,
            start: F::Input::from_u64(slot.covers.start),
            len: slot.covers.end - slot.covers.start,
            tables_changed,
            only_added: false,
        });
    }
}

/// The number of tables that replace a page when `hole` is cut out of it; the first is at `level` and covers `base`.
fn split_tables(level: u8, base: u64, hole: &Range<u64>) -> u64 {
    let cut = slots(level, base, hole).filter(|slot| !slot.is_whole());
    1 + cut.map(|slot| split_tables(level - 1, slot.covers.start, hole)).sum::<u64>()
}
