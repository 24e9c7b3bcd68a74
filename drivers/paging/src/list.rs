//! A list of tables, linked through the tables themselves: there is no allocator here.

use crate::{TableMemory, entry::ADDRESS};
use addr::HostPhys;

/// The entry that holds the link.
const LINK: usize = 0;

/// Tables that are in no tree: reserved and not yet attached, or detached and perhaps still read by hardware.
///
/// A link is the bare address of the next table: bits 11:0 are zero, so the entry is absent in every format, and
/// hardware that still walks a detached table meets nothing new in it.
#[derive(Debug, Default)]
pub(crate) struct TableList {
    /// The first and the last table. The last one's link means nothing.
    ends: Option<(HostPhys, HostPhys)>,
    /// The number of tables.
    len: u64,
}

impl TableList {
    /// `count` fresh tables, or `None` (and none taken) if there are not as many.
    pub(crate) fn reserve(count: u64, memory: &mut impl TableMemory) -> Option<Self> {
        let mut list = Self::default();
        for _ in 0..count {
            match memory.allocate_table() {
                Some(table) => list.push(table, memory),
                None => {
                    list.free(memory);
                    return None;
                }
            }
        }
        Some(list)
    }

    /// The number of tables.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Adds a table, whose first entry is lost.
    pub(crate) fn push(&mut self, table: HostPhys, memory: &mut impl TableMemory) {
        let (first, last) = self.ends.unwrap_or((HostPhys::new(0), table));
        memory.write_entry(table, LINK, first.as_u64());
        self.ends = Some((table, last));
        self.len += 1;
    }

    /// Takes a table out; its first entry is absent, the others are as they were when it was pushed.
    pub(crate) fn pop(&mut self, memory: &mut impl TableMemory) -> Option<HostPhys> {
        let (first, last) = self.ends?;
        self.ends = (first != last).then(|| (HostPhys::new(memory.read_entry(first, LINK) & ADDRESS), last));
        self.len -= 1;
        memory.write_entry(first, LINK, 0);
        Some(first)
    }

    /// Adds all tables of `other`.
    pub(crate) fn append(&mut self, other: Self, memory: &mut impl TableMemory) {
        let Some((other_first, other_last)) = other.ends else { return };
        self.ends = Some(match self.ends {
            Some((first, last)) => {
                memory.write_entry(last, LINK, other_first.as_u64());
                (first, other_last)
            }
            None => (other_first, other_last),
        });
        self.len += other.len;
    }

    /// Gives all frames back.
    pub(crate) fn free(mut self, memory: &mut impl TableMemory) {
        while let Some(table) = self.pop(memory) {
            memory.free_table(table);
        }
    }
}
