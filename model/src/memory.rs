//! Physical memory as software sees it and as the unit sees it.
//!
//! The newest content is kept once. For readers that do not snoop, what they still see of a line is kept beside it:
//! `unflushed` holds the line's content in memory while the processor's cache has a newer one (ECAP.C=0, 6.8).
//! With a write buffer (CAP.RWBF=1, 6.8), what it holds back is the stores for a reader that snoops (`unposted`), and
//! the lines written back for one that does not (`unposted_lines`).

use std::collections::{BTreeMap, HashMap};

/// Bytes in a line of the processor's cache.
pub const LINE: u64 = 64;
const PAGE: u64 = 4096;

/// How a reader sees memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    /// The processor's cache is snooped.
    pub snoops: bool,
    /// The write buffer is passed by: content in it is not seen.
    pub buffered: bool,
}

impl View {
    /// Everything that was ever stored is seen: the processor, devices' DMA, the invalidation queue, wait status and
    /// posted-interrupt descriptors (accesses that are always coherent).
    pub const COHERENT: View = View { snoops: true, buffered: false };
}

/// Sparse physical memory from address 0 to a size.
#[derive(Clone, Debug)]
pub struct Memory {
    size: u64,
    fill: u8,
    pages: HashMap<u64, Box<[u8; PAGE as usize]>>,
    unflushed: BTreeMap<u64, [u8; LINE as usize]>,
    unposted: BTreeMap<u64, [u8; LINE as usize]>,
    unposted_lines: BTreeMap<u64, [u8; LINE as usize]>,
    /// What the stores since the last wait that completed have replaced, the newest last.
    history: Vec<(u64, Vec<u8>)>,
    /// So many stores ago the first half of a 128-bit entry is fetched, and the other now.
    pub(crate) torn: usize,
}

impl Memory {
    /// `size` bytes from address 0. What nobody has written reads as `fill` in every byte.
    pub fn new(size: u64, fill: u8) -> Self {
        Self {
            size,
            fill,
            pages: HashMap::new(),
            unflushed: BTreeMap::new(),
            unposted: BTreeMap::new(),
            unposted_lines: BTreeMap::new(),
            history: Vec::new(),
            torn: 0,
        }
    }

    /// Whether `len` bytes at `address` are memory.
    pub fn contains(&self, address: u64, len: u64) -> bool {
        address.checked_add(len).is_some_and(|end| end <= self.size)
    }

    /// Copies newest content that lies within one page.
    fn copy(&self, address: u64, bytes: &mut [u8]) {
        let offset = (address % PAGE) as usize;
        match self.pages.get(&(address / PAGE)) {
            Some(page) => bytes.copy_from_slice(&page[offset..offset + bytes.len()]),
            None => bytes.fill(self.fill),
        }
    }

    fn set(&mut self, address: u64, bytes: &[u8]) {
        let fill = self.fill;
        for (start, len) in pieces(address, bytes.len() as u64, PAGE) {
            let page = self.pages.entry(start / PAGE).or_insert_with(|| Box::new([fill; PAGE as usize]));
            let (to, from) = ((start % PAGE) as usize, (start - address) as usize);
            page[to..to + len as usize].copy_from_slice(&bytes[from..from + len as usize]);
        }
    }

    fn line(&self, line: u64) -> [u8; LINE as usize] {
        let mut content = [0; LINE as usize];
        self.copy(line * LINE, &mut content);
        content
    }

    /// Reads bytes; `false` and nothing read outside memory.
    pub fn read(&self, address: u64, bytes: &mut [u8], view: View) -> bool {
        if !self.contains(address, bytes.len() as u64) {
            return false;
        }
        for (start, len) in pieces(address, bytes.len() as u64, LINE) {
            let (line, offset) = (start / LINE, (start % LINE) as usize);
            let part = &mut bytes[(start - address) as usize..][..len as usize];
            let old = match (view.snoops, view.buffered) {
                (true, false) => None,
                (true, true) => self.unposted.get(&line),
                (false, false) => self.unflushed.get(&line),
                (false, true) => self.unposted_lines.get(&line).or_else(|| self.unflushed.get(&line)),
            };
            match old {
                Some(content) => part.copy_from_slice(&content[offset..offset + part.len()]),
                None => self.copy(start, part),
            }
        }
        true
    }

    /// Reads a little-endian 64-bit word; `None` outside memory.
    pub fn read_u64(&self, address: u64, view: View) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes, view).then(|| u64::from_le_bytes(bytes))
    }

    /// Reads a little-endian 128-bit word in one piece, as a unit fetches root, context and interrupt-remapping
    /// entries; `None` outside memory.
    pub fn read_u128(&self, address: u64, view: View) -> Option<u128> {
        let mut bytes = [0; 16];
        self.read_entry(address, &mut bytes, view).then(|| u128::from_le_bytes(bytes))
    }

    /// Reads consecutive little-endian 64-bit words in one piece, as a unit fetches context entries of scalable mode and
    /// PASID table entries; `None` outside memory.
    pub fn read_words<const N: usize>(&self, address: u64, view: View) -> Option<[u64; N]> {
        let mut bytes = [0; 64];
        let bytes = bytes.get_mut(..8 * N)?;
        self.read_entry(address, bytes, view).then(|| {
            let mut words = [0; N];
            for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            words
        })
    }

    fn read_entry(&self, address: u64, bytes: &mut [u8], view: View) -> bool {
        if !self.read(address, bytes, view) {
            return false;
        }
        // A unit that fetches an entry in pieces, the first 64 bits first: software may store in between.
        for (at, old) in self.history.iter().rev().take(self.torn) {
            for (at, byte) in (*at..).zip(old) {
                if let Some(place) = at.checked_sub(address).filter(|offset| *offset < 8) {
                    bytes[place as usize] = *byte;
                }
            }
        }
        true
    }

    /// How many stores there have been since the last wait that completed.
    pub fn stores(&self) -> usize {
        self.history.len()
    }

    /// What was fetched before is not used any more.
    pub(crate) fn forget_history(&mut self) {
        self.history.clear();
    }

    /// A store of the processor: into its cache, and no further. `false` outside memory.
    pub fn store(&mut self, address: u64, bytes: &[u8]) -> bool {
        if !self.contains(address, bytes.len() as u64) {
            return false;
        }
        let mut old = vec![0; bytes.len()];
        if self.read(address, &mut old, View::COHERENT) {
            // A history without end is nobody's interest.
            if self.history.len() == 64 {
                self.history.remove(0);
            }
            self.history.push((address, old));
        }
        for line in lines(address, bytes.len() as u64) {
            let before = self.line(line);
            self.unflushed.entry(line).or_insert(before);
            self.unposted.entry(line).or_insert(before);
        }
        self.set(address, bytes);
        true
    }

    /// A flush of the lines that `len` bytes at `address` touch (CLFLUSH, CLFLUSHOPT with a fence, CLWB).
    pub fn flush(&mut self, address: u64, len: u64) {
        for line in lines(address, len) {
            if let Some(before) = self.unflushed.remove(&line) {
                self.unposted_lines.entry(line).or_insert(before);
            }
        }
    }

    /// Everything reaches memory, as when a firmware hands over (WBINVD and a drained write buffer).
    pub fn flush_all(&mut self) {
        self.unflushed.clear();
        self.unposted.clear();
        self.unposted_lines.clear();
    }

    /// The write buffer drains (GCMD.WBF, or an invalidation). Lines still in the processor's cache are not in it.
    pub fn drain_write_buffer(&mut self) {
        self.unposted.clear();
        self.unposted_lines.clear();
    }

    /// The processor's cache writes one line back by itself, as it may at any time; `choice` picks which.
    pub fn evict(&mut self, choice: u64) {
        let count = self.unflushed.len() as u64;
        if count != 0 {
            let line = self.unflushed.keys().nth((choice % count) as usize).copied().unwrap_or(0);
            self.flush(line * LINE, 1);
        }
    }

    /// Number of lines that a reader without snooping sees in an old state.
    pub fn unflushed_lines(&self) -> usize {
        self.unflushed.len()
    }

    /// A write by a device or by the unit: seen by all. `false` outside memory.
    pub fn device_write(&mut self, address: u64, bytes: &[u8]) -> bool {
        if !self.contains(address, bytes.len() as u64) {
            return false;
        }
        self.set(address, bytes);
        for (at, byte) in (address..).zip(bytes) {
            for old in [&mut self.unflushed, &mut self.unposted, &mut self.unposted_lines] {
                if let Some(line) = old.get_mut(&(at / LINE)) {
                    line[(at % LINE) as usize] = *byte;
                }
            }
        }
        true
    }
}

/// The range cut at multiples of `size`.
fn pieces(address: u64, len: u64, size: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut at = address;
    std::iter::from_fn(move || {
        let start = at;
        let piece = (size - start % size).min(address + len - start);
        at += piece;
        (piece != 0).then_some((start, piece))
    })
}

fn lines(address: u64, len: u64) -> std::ops::RangeInclusive<u64> {
    address / LINE..=address.saturating_add(len.max(1) - 1) / LINE
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_SNOOP: View = View { snoops: false, buffered: false };
    const BUFFERED: View = View { snoops: true, buffered: true };

    #[test]
    fn a_reader_without_snooping_sees_only_flushed_lines() {
        let mut memory = Memory::new(0x10000, 0);
        memory.store(0x1000, &[1; 8]);
        memory.store(0x1040, &[2; 8]);
        assert_eq!(memory.read_u64(0x1000, NO_SNOOP), Some(0));
        assert_eq!(memory.read_u64(0x1000, View::COHERENT), Some(0x0101_0101_0101_0101));
        memory.flush(0x1000, 8);
        assert_eq!(memory.read_u64(0x1000, NO_SNOOP), Some(0x0101_0101_0101_0101));
        assert_eq!(memory.read_u64(0x1040, NO_SNOOP), Some(0), "the next line was not flushed");
        memory.store(0x1008, &[3; 8]);
        assert_eq!(memory.read_u64(0x1000, NO_SNOOP), Some(0x0101_0101_0101_0101), "old content stays whole");
        assert_eq!(memory.read_u64(0x1008, NO_SNOOP), Some(0));
    }

    #[test]
    fn a_flush_of_an_unaligned_range_reaches_its_last_line() {
        let mut memory = Memory::new(0x10000, 0);
        memory.store(0x1030, &[7; 64]);
        memory.flush(0x1030, 64);
        assert_eq!(memory.unflushed_lines(), 0);
    }

    #[test]
    fn the_write_buffer_hides_stores_until_it_drains() {
        let mut memory = Memory::new(0x10000, 0);
        memory.store(0x2000, &[9; 8]);
        assert_eq!(memory.read_u64(0x2000, BUFFERED), Some(0));
        memory.drain_write_buffer();
        assert_eq!(memory.read_u64(0x2000, BUFFERED), Some(0x0909_0909_0909_0909));
        let both = View { snoops: false, buffered: true };
        memory.flush(0x2000, 8);
        assert_eq!(memory.read_u64(0x2000, both), Some(0), "flushed into the buffer, not out of it");
        memory.drain_write_buffer();
        assert_eq!(memory.read_u64(0x2000, both), Some(0x0909_0909_0909_0909));
    }

    #[test]
    fn a_reader_that_snoops_does_not_care_when_a_line_is_written_back() {
        let mut memory = Memory::new(0x10000, 0);
        memory.store(0x2000, &[9; 8]);
        memory.drain_write_buffer();
        memory.flush(0x2000, 8);
        assert_eq!(memory.read_u64(0x2000, BUFFERED), Some(0x0909_0909_0909_0909));
    }

    #[test]
    fn eviction_shows_a_line_that_nobody_flushed() {
        let mut memory = Memory::new(0x10000, 0);
        memory.store(0x3000, &[5; 8]);
        memory.evict(11);
        assert_eq!(memory.read_u64(0x3000, NO_SNOOP), Some(0x0505_0505_0505_0505));
    }

    #[test]
    fn a_device_write_is_seen_by_all_and_nothing_is_outside_memory() {
        let mut memory = Memory::new(0x10000, 0xa5);
        memory.store(0x4000, &[1; 16]);
        assert!(memory.device_write(0x4008, &[6; 8]));
        assert_eq!(memory.read_u64(0x4008, NO_SNOOP), Some(0x0606_0606_0606_0606));
        assert_eq!(memory.read_u64(0x4000, NO_SNOOP), Some(0xa5a5_a5a5_a5a5_a5a5));
        assert_eq!(memory.read_u64(0xfffc, View::COHERENT), None);
        assert!(!memory.store(u64::MAX, &[1, 2]));
    }
}
