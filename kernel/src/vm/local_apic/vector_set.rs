//! A set of interrupt vectors: what IRR, ISR and TMR are.

use addr::Vector;

/// 256 bits, one a vector; the same form as the requests of a posted-interrupt descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VectorSet([u64; 4]);

impl VectorSet {
    /// From the bits: vector 64 n + b is bit b of word n.
    pub const fn from_words(words: [u64; 4]) -> Self {
        Self(words)
    }

    /// Puts a vector in.
    pub fn insert(&mut self, vector: Vector) {
        self.0[usize::from(vector.0 >> 6)] |= 1 << (vector.0 & 63);
    }

    /// Takes a vector out.
    pub fn remove(&mut self, vector: Vector) {
        self.0[usize::from(vector.0 >> 6)] &= !(1 << (vector.0 & 63));
    }

    /// Takes the vectors 0 to 15 out: no local APIC delivers them. Returns how many there were.
    pub fn remove_illegal(&mut self) -> u32 {
        let illegal = (self.0[0] & 0xffff).count_ones();
        self.0[0] &= !0xffff;
        illegal
    }

    /// Puts all vectors of another set in.
    pub fn merge(&mut self, other: Self) {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word |= other;
        }
    }

    /// How many vectors there are.
    pub fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether there is no vector.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    /// The highest vector: the one with the highest priority.
    pub fn highest(&self) -> Option<Vector> {
        let (index, word) = (0u8..).zip(self.0).filter(|(_, word)| *word != 0).last()?;
        let bit = u8::try_from(word.ilog2()).ok()?;
        Some(Vector(index << 6 | bit))
    }

    /// Register `index` (0 to 7) of the eight that show the set, 32 vectors each; 0 beyond.
    pub fn register(&self, index: usize) -> u32 {
        self.0.get(index / 2).map_or(0, |word| (word >> (32 * (index % 2))) as u32)
    }
}
