//! Which slot of a table an input address falls into.

use crate::ENTRIES;

/// The logarithm to base 2 of the number of bytes that one entry at `level` (1 to 5) covers.
#[inline]
pub(crate) const fn slot_shift(level: u8) -> u32 {
    3 + 9 * level as u32
}

/// The number of bytes that one entry at `level` (1 to 5) covers.
#[inline]
pub(crate) const fn slot_bytes(level: u8) -> u64 {
    1 << slot_shift(level)
}

/// The index of `input` in a table at `level`.
#[inline]
pub(crate) const fn index(input: u64, level: u8) -> usize {
    (input >> slot_shift(level)) as usize % ENTRIES
}

/// The first address of the slot at `level` that `input` is in.
pub(crate) const fn slot_start(input: u64, level: u8) -> u64 {
    input & !(slot_bytes(level) - 1)
}

/// Where the part of a range that begins at `input` and ends at `end` ends in the slot at `level` that `input` is in.
pub(crate) fn slot_end(input: u64, end: u64, level: u8) -> u64 {
    // With five levels an end is at most 2^57: nothing here can overflow.
    end.min((input | (slot_bytes(level) - 1)) + 1)
}

/// A part of a range: what of it is in one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    /// The slot's index in its table.
    pub(crate) index: usize,
    /// The first address of the part.
    pub(crate) start: u64,
    /// The first address behind it.
    pub(crate) end: u64,
}

/// The parts in which a range falls into the slots of a table at `level`, which covers all of it.
#[inline]
pub(crate) fn parts(start: u64, end: u64, level: u8) -> impl Iterator<Item = Part> {
    let mut at = start;
    core::iter::from_fn(move || {
        let part = Part { index: index(at, level), start: at, end: slot_end(at, end, level) };
        at = part.end;
        (part.start < part.end).then_some(part)
    })
}

/// Whether a range is all that the slot at `level` covers which it begins in.
pub(crate) const fn is_slot(start: u64, end: u64, level: u8) -> bool {
    end - start == slot_bytes(level) && start & (slot_bytes(level) - 1) == 0
}

/// The level of the table in which something is to be done for a range: the lowest one that covers it all, whether it
/// spreads over several slots there or is one of them.
pub(crate) const fn level_of(start: u64, end: u64) -> u8 {
    // The highest bit in which the first and the last address differ: beyond bit 11 it is in the index of some level.
    let bits = u64::BITS - ((start ^ (end - 1)) | 0xfff).leading_zeros();
    let spread = ((bits - 4) / 9) as u8;
    // A range that is all of a table is one slot of the next higher table.
    if end - start == slot_bytes(spread + 1) { spread + 1 } else { spread }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn slots_are_those_of_nine_bit_tables() {
        assert_eq!([slot_bytes(1), slot_bytes(2), slot_bytes(3)], [0x1000, 0x20_0000, 0x4000_0000]);
        let input = 3 << 39 | 5 << 30 | 7 << 21 | 511 << 12 | 0xabc;
        assert_eq!([4, 3, 2, 1].map(|level| index(input, level)), [3, 5, 7, 511]);
        assert_eq!(slot_start(input, 2), 3 << 39 | 5 << 30 | 7 << 21);
        assert_eq!(index(0x1ff << 48, 5), 0x1ff);
    }

    #[test]
    fn a_range_is_cut_where_its_slot_ends() {
        assert_eq!(slot_end(0x1f_f000, 0x40_0000, 2), 0x20_0000);
        assert_eq!(slot_end(0x20_0000, 0x20_1000, 2), 0x20_1000);
        assert_eq!(slot_end(0x20_0000, 0x40_0000, 2), 0x40_0000);
        let part = |index, start, end| Part { index, start, end };
        let in_two = [part(511, 0x1f_f000, 0x20_0000), part(0, 0x20_0000, 0x20_1000)];
        assert_eq!(parts(0x1f_f000, 0x20_1000, 1).collect::<Vec<_>>(), in_two);
        let above = [part(0, 0x1f_f000, 0x20_0000), part(1, 0x20_0000, 0x20_1000)];
        assert_eq!(parts(0x1f_f000, 0x20_1000, 2).collect::<Vec<_>>(), above);
        assert_eq!(parts(0x1000, 0x1000, 1).next(), None);
        assert!(is_slot(0x20_0000, 0x40_0000, 2));
        assert!(!is_slot(0x20_1000, 0x40_1000, 2) && !is_slot(0x20_0000, 0x3f_f000, 2));
    }

    #[test]
    fn the_lowest_table_that_covers_a_range_is_found() {
        const G1: u64 = 1 << 30;
        assert_eq!(level_of(0x5000, 0x6000), 1, "one page");
        assert_eq!(level_of(0x1f_e000, 0x20_0000), 1, "two pages");
        assert_eq!(level_of(0x1f_f000, 0x20_1000), 2, "two pages of two tables");
        assert_eq!(level_of(0x20_0000, 0x40_0000), 2, "a slot");
        assert_eq!(level_of(0x20_1000, 0x40_1000), 2, "as much as a slot");
        assert_eq!(level_of(G1 - 0x1000, G1 + 0x1000), 3);
        assert_eq!(level_of(G1, 2 * G1), 3);
        assert_eq!(level_of(G1 + 0x5000, G1 + 0x7000), 1, "two pages of one table, wherever that is");
        assert_eq!(level_of(0, 512 * G1), 4);
        assert_eq!(level_of(512 * G1 - 0x1000, 512 * G1 + 0x1000), 4);
        assert_eq!(level_of(0, 1 << 48), 5);
        assert_eq!(level_of((1 << 48) - 0x1000, (1 << 48) + 0x1000), 5);
    }
}
