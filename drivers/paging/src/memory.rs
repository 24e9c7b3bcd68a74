//! The memory that tables live in.

use addr::HostPhys;
use core::ops::Range;

/// The memory that tables live in.
///
/// Two methods have a default that is right everywhere and fast where hardware looks into the processor's caches.
/// Where it does not (ECAP.C = 0), implement [`Self::fill_entry`] as a plain store and [`Self::publish`] as the one
/// flush of the lines that it filled: eight entries share a line.
pub trait TableMemory {
    /// A zeroed 4 KiB frame (flushed to memory where the reader is not coherent), or `None` when memory is out.
    fn allocate_table(&mut self) -> Option<HostPhys>;

    /// Gives a table's frame back. Called only when no hardware can still hold the entry that pointed to it.
    fn free_table(&mut self, table: HostPhys);

    /// Entry `index` (0 to 511) of the table at `table`.
    fn read_entry(&self, table: HostPhys, index: usize) -> u64;

    /// One atomic 64-bit store that hardware may observe at any moment, then flushed from the cache where the reader
    /// is not coherent. Stores become visible in the order of the calls.
    fn write_entry(&mut self, table: HostPhys, index: usize, value: u64);

    /// One atomic 64-bit store that hardware need not see soon: into a table that nothing points to yet, for which
    /// [`Self::publish`] is called before something does, or of an entry that says the same to hardware before and after.
    fn fill_entry(&mut self, table: HostPhys, index: usize, value: u64) {
        self.write_entry(table, index, value);
    }

    /// Makes what [`Self::fill_entry`] stored to `entries` of a table visible before any later store is: where the
    /// reader is not coherent, flushes the cache lines of those entries and waits for it.
    fn publish(&mut self, table: HostPhys, entries: Range<usize>) {
        let _ = (table, entries);
    }
}

/// What is borrowed serves as what is owned, a `dyn TableMemory` too.
impl<M: TableMemory + ?Sized> TableMemory for &mut M {
    fn allocate_table(&mut self) -> Option<HostPhys> {
        (**self).allocate_table()
    }

    fn free_table(&mut self, table: HostPhys) {
        (**self).free_table(table);
    }

    fn read_entry(&self, table: HostPhys, index: usize) -> u64 {
        (**self).read_entry(table, index)
    }

    fn write_entry(&mut self, table: HostPhys, index: usize, value: u64) {
        (**self).write_entry(table, index, value);
    }

    fn fill_entry(&mut self, table: HostPhys, index: usize, value: u64) {
        (**self).fill_entry(table, index, value);
    }

    fn publish(&mut self, table: HostPhys, entries: Range<usize>) {
        (**self).publish(table, entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One table, and nothing beside what must be.
    struct One([u64; 512]);

    impl TableMemory for One {
        fn allocate_table(&mut self) -> Option<HostPhys> {
            None
        }

        fn free_table(&mut self, _: HostPhys) {}

        fn read_entry(&self, _: HostPhys, index: usize) -> u64 {
            self.0[index]
        }

        fn write_entry(&mut self, _: HostPhys, index: usize, value: u64) {
            self.0[index] = value;
        }
    }

    #[test]
    fn what_is_filled_is_written_where_nobody_says_how() {
        let mut memory = One([0; 512]);
        memory.fill_entry(HostPhys::new(0), 7, 0x1003);
        memory.publish(HostPhys::new(0), 7..8);
        assert_eq!(memory.read_entry(HostPhys::new(0), 7), 0x1003);
    }
}
