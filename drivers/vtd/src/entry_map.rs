//! Which entries of an interrupt remapping table are given away: a bit each, in memory that hardware does not look at.
//! A word of 64 bits that is full is marked so, and for each size of block it is known below which word there is none: a
//! table of 65536 entries that is almost full costs no more than an empty one.

use crate::memory::DmaMemory;
use crate::memory::at;
use addr::{HostPhys, PAGE_SIZE};

/// Words for the largest table.
const WORDS: usize = (1 << 16) / 64;
/// Sizes of blocks: 1, 2, 4, 8, 16, 32.
const SIZES: usize = 6;

/// The places in a word at which a block of each size may begin.
const STARTS: [u64; SIZES] = [
    u64::MAX,
    0x5555_5555_5555_5555,
    0x1111_1111_1111_1111,
    0x0101_0101_0101_0101,
    0x0001_0001_0001_0001,
    0x0000_0001_0000_0001,
];

/// The map of one table.
#[derive(Debug)]
pub(crate) struct EntryMap {
    base: HostPhys,
    words: u16,
    /// A bit for each word: full.
    full: [u64; WORDS / 64],
    /// For each size, the first word that may have a free block of it.
    first: [u16; SIZES],
}

impl EntryMap {
    /// Pages of the map of a table of so many entries.
    pub(crate) const fn pages(entries: usize) -> usize {
        (entries / 8).div_ceil(PAGE_SIZE as usize)
    }

    /// A map over zeroed memory of [`Self::pages`]. Entry 0 is given away from the start.
    pub(crate) fn new<M: DmaMemory>(memory: &mut M, base: HostPhys, entries: usize) -> Self {
        let words = (entries / 64).min(WORDS);
        let mut full = [u64::MAX; WORDS / 64];
        for word in 0..words {
            if let Some(marks) = full.get_mut(word / 64) {
                *marks &= !(1 << (word % 64));
            }
        }
        memory.write_u64(base, 1);
        Self { base, words: words as u16, full, first: [0; SIZES] }
    }

    /// Takes a free block of 2^`size` entries, aligned to their number; answers its first entry.
    pub(crate) fn take<M: DmaMemory>(&mut self, memory: &mut M, size: u32) -> Option<u16> {
        let starts = *STARTS.get(size as usize)?;
        let mut word = *self.first.get(size as usize)?;
        let (word, place) = loop {
            word = self.next_not_full(word)?;
            // A bit stays where so many bits from it on are free.
            let mut free = !memory.read_u64(self.place(word));
            for step in 0..size {
                free &= free >> (1 << step);
            }
            let free = free & starts;
            if free != 0 {
                break (word, free.trailing_zeros());
            }
            word += 1;
            self.set_first(size, word);
        };
        let bits = block(size) << place;
        let now = memory.read_u64(self.place(word)) | bits;
        memory.write_u64(self.place(word), now);
        self.mark(word, now == u64::MAX);
        Some(word * 64 + place as u16)
    }

    /// Gives a block of 2^`size` entries back, which [`Self::take`] has answered.
    pub(crate) fn give_back<M: DmaMemory>(&mut self, memory: &mut M, first: u16, size: u32) {
        let word = first / 64;
        let now = memory.read_u64(self.place(word)) & !(block(size) << (first % 64));
        memory.write_u64(self.place(word), now);
        self.mark(word, false);
        for from in &mut self.first {
            *from = (*from).min(word);
        }
    }

    /// Whether an entry is given away; entry 0 is nobody's.
    pub(crate) fn is_given<M: DmaMemory>(&self, memory: &M, index: u16) -> bool {
        let word = index / 64;
        index != 0 && word < self.words && memory.read_u64(self.place(word)) >> (index % 64) & 1 != 0
    }

    fn place(&self, word: u16) -> HostPhys {
        at(self.base, u64::from(word) * 8)
    }

    fn set_first(&mut self, size: u32, word: u16) {
        if let Some(first) = self.first.get_mut(size as usize) {
            *first = word;
        }
    }

    fn mark(&mut self, word: u16, is_full: bool) {
        if let Some(marks) = self.full.get_mut(usize::from(word / 64)) {
            let bit = 1 << (word % 64);
            *marks = if is_full { *marks | bit } else { *marks & !bit };
        }
    }

    /// The first word from `word` on that is not full.
    fn next_not_full(&self, word: u16) -> Option<u16> {
        let mut ignored = (1u64 << (word % 64)) - 1;
        for (number, marks) in self.full.iter().enumerate().skip(usize::from(word / 64)) {
            let open = !(marks | ignored);
            if open != 0 {
                return Some(number as u16 * 64 + open.trailing_zeros() as u16);
            }
            ignored = 0;
        }
        None
    }
}

/// 2^`size` ones; size is at most 5.
fn block(size: u32) -> u64 {
    (1 << (1 << size)) - 1
}
