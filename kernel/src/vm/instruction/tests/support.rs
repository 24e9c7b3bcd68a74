//! A register file, and random numbers.

use crate::vm::instruction::{RegisterFile, Segment};

/// Registers as plain numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registers {
    pub general: [u64; 16],
    pub flags: u64,
    pub rip: u64,
    /// In the order ES, CS, SS, DS, FS, GS.
    pub bases: [u64; 6],
}

impl Registers {
    /// Values that differ in every byte.
    pub fn distinct() -> Self {
        let mut random = Random(7);
        Self {
            general: core::array::from_fn(|_| random.next()),
            flags: 0x202,
            rip: 0xffff_ffff_8123_fff8,
            bases: core::array::from_fn(|_| random.next()),
        }
    }
}

impl RegisterFile for Registers {
    fn general(&self, number: u8) -> u64 {
        self.general[usize::from(number)]
    }

    fn set_general(&mut self, number: u8, value: u64) {
        self.general[usize::from(number)] = value;
    }

    fn flags(&self) -> u64 {
        self.flags
    }

    fn set_flags(&mut self, value: u64) {
        self.flags = value;
    }

    fn rip(&self) -> u64 {
        self.rip
    }

    fn segment_base(&self, segment: Segment) -> u64 {
        self.bases[segment as usize]
    }
}

/// A multiplicative generator (Knuth's constants): the same numbers in every run.
pub struct Random(pub u64);

impl Random {
    /// A number of 64 bits.
    pub fn next(&mut self) -> u64 {
        let mut half = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.0 >> 32
        };
        half() << 32 | half()
    }
}
