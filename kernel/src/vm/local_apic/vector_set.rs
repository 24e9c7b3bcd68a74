//! A set of interrupt vectors on its way into IRR.

/// 256 bits, one a vector; the same form as the requests of a posted-interrupt descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VectorSet([u64; 4]);

impl VectorSet {
    /// From the bits: vector 64 n + b is bit b of word n.
    pub const fn from_words(words: [u64; 4]) -> Self {
        Self(words)
    }

    /// Takes the vectors 0 to 15 out: no local APIC delivers them. Returns how many there were.
    pub fn remove_illegal(&mut self) -> u32 {
        let illegal = (self.0[0] & 0xffff).count_ones();
        self.0[0] &= !0xffff;
        illegal
    }

    /// How many vectors there are.
    pub fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether there is no vector.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    /// Register `index` (0 to 7) of the eight that show the set, 32 vectors each; 0 beyond.
    pub fn register(&self, index: usize) -> u32 {
        self.0.get(index / 2).map_or(0, |word| (word >> (32 * (index % 2))) as u32)
    }
}
