//! A set of interrupt vectors on its way into IRR.

use addr::Vector;

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

    /// Takes the lowest vector out.
    pub fn take(&mut self) -> Option<Vector> {
        for (index, word) in self.0.iter_mut().enumerate() {
            if *word != 0 {
                let bit = word.trailing_zeros();
                *word &= *word - 1;
                return Some(Vector((index * 64) as u8 + bit as u8));
            }
        }
        None
    }

    /// Whether there is no vector.
    pub fn is_empty(&self) -> bool {
        // Not `== [0; 4]`, which becomes a call of memcmp.
        self.0.iter().fold(0, |all, word| all | word) == 0
    }
}
