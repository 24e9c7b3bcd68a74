//! Which slots of a table a range of input addresses touches.

use crate::ENTRIES;
use core::ops::Range;

/// The number of bytes that one entry at `level` (1 to 5) covers.
pub(crate) const fn slot_bytes(level: u8) -> u64 {
    1 << (12 + 9 * (level as u32 - 1))
}

/// The index of `input` in a table at `level`.
pub(crate) const fn index(input: u64, level: u8) -> usize {
    (input >> (12 + 9 * (level as u32 - 1))) as usize % ENTRIES
}

/// An entry of a table, and the part of a range that falls into it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    /// The index of the entry.
    pub(crate) index: usize,
    /// The input addresses that the entry covers.
    pub(crate) covers: Range<u64>,
    /// Those of them that are in the range; never empty.
    pub(crate) part: Range<u64>,
}

impl Slot {
    /// Whether the range takes in everything that the entry covers.
    pub(crate) fn is_whole(&self) -> bool {
        self.part == self.covers
    }
}

/// The slots that `range` touches of the table at `level` whose first entry covers `base`, in ascending order.
pub(crate) fn slots(level: u8, base: u64, range: &Range<u64>) -> impl Iterator<Item = Slot> + use<> {
    let bytes = slot_bytes(level);
    // With five levels the end is at most 2^57: nothing here can overflow.
    let start = range.start.max(base);
    let end = range.end.min(base + bytes * ENTRIES as u64);
    let indices = if start < end { (start - base) / bytes..(end - base).div_ceil(bytes) } else { 0..0 };
    indices.map(move |index| {
        let covers = base + index * bytes..base + (index + 1) * bytes;
        let part = covers.start.max(start)..covers.end.min(end);
        Slot { index: index as usize, covers, part }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_range_is_cut_at_the_slots_of_a_table() {
        let base = 512 * 0x20_0000;
        let found: Vec<_> = slots(2, base, &(base + 0x1f_f000..base + 0x40_1000)).collect();
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].index, found[0].part.clone()), (0, base + 0x1f_f000..base + 0x20_0000));
        assert!(!found[0].is_whole());
        assert!(found[1].is_whole());
        assert_eq!((found[2].index, found[2].part.clone()), (2, base + 0x40_0000..base + 0x40_1000));
    }

    #[test]
    fn a_range_outside_the_table_touches_nothing() {
        assert_eq!(slots(1, 0x20_0000, &(0..0x20_0000)).count(), 0);
        assert_eq!(slots(1, 0x20_0000, &(0x40_0000..0x50_0000)).count(), 0);
        assert_eq!(slots(5, 0, &(0..1 << 57)).count(), 512);
    }
}
