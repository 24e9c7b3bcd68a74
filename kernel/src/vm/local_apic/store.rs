//! Where the registers are: the only place that knows their values.

use addr::Vector;

use super::registers::{ICR_HIGH, ICR_LOW};
use crate::vcpu::VirtualApicPage;

/// The registers that there are: 16 bytes apart, up to offset 0x3f0.
const REGISTERS: usize = 64;

/// The registers, by their offsets in the xAPIC page.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one for each virtual processor, and not moved")]
pub enum Store {
    /// The hypervisor's own memory: nobody else looks.
    Array([u32; REGISTERS]),
    /// The page that the processor reads and writes while the guest runs. Whoever holds a copy of one of its registers
    /// holds an old one after the next entry.
    Page(&'static VirtualApicPage),
}

impl Store {
    /// Registers in the hypervisor's own memory, all 0.
    pub const fn array() -> Self {
        Self::Array([0; REGISTERS])
    }

    /// The register at this offset; 0 where none can be.
    pub fn read(&self, offset: u16) -> u32 {
        match self {
            Self::Array(registers) => registers.get(usize::from(offset / 16)).copied().unwrap_or(0),
            Self::Page(page) => page.read(offset),
        }
    }

    /// Sets the register at this offset.
    pub fn write(&mut self, offset: u16, value: u32) {
        match self {
            Self::Array(registers) => {
                if let Some(register) = registers.get_mut(usize::from(offset / 16)) {
                    *register = value;
                }
            }
            Self::Page(page) => page.write(offset, value),
        }
    }

    /// Sets all registers to 0.
    pub fn clear(&mut self) {
        for index in 0..REGISTERS as u16 {
            self.write(index * 16, 0);
        }
    }

    /// The interrupt command register: both halves.
    pub fn icr(&self) -> u64 {
        u64::from(self.read(ICR_HIGH)) << 32 | u64::from(self.read(ICR_LOW))
    }

    /// Sets both halves of the interrupt command register.
    pub fn set_icr(&mut self, value: u64) {
        self.write(ICR_HIGH, (value >> 32) as u32);
        self.write(ICR_LOW, value as u32);
    }

    /// Whether a vector is in the set whose first of eight registers is at `base`.
    pub fn contains(&self, base: u16, vector: Vector) -> bool {
        let (offset, bit) = place(base, vector);
        self.read(offset) & bit != 0
    }

    /// Puts a vector into the set at `base`.
    pub fn insert(&mut self, base: u16, vector: Vector) {
        let (offset, bit) = place(base, vector);
        self.write(offset, self.read(offset) | bit);
    }

    /// Takes a vector out of the set at `base`.
    pub fn remove(&mut self, base: u16, vector: Vector) {
        let (offset, bit) = place(base, vector);
        self.write(offset, self.read(offset) & !bit);
    }

    /// The vector with the highest priority in the set at `base`.
    pub fn highest(&self, base: u16) -> Option<Vector> {
        // With every interrupt, several times: which store it is, is asked once.
        match self {
            Self::Array(registers) => highest(|index| *registers.get(usize::from(base / 16 + index)).unwrap_or(&0)),
            Self::Page(page) => highest(|index| page.read(base + index * 16)),
        }
    }

    /// Whether a vector is in the set at `base`, and no other is.
    pub fn is_only(&self, base: u16, vector: Vector) -> bool {
        let (place, bit) = place(base, vector);
        (0..8).map(|index| base + index * 16).all(|offset| self.read(offset) == if offset == place { bit } else { 0 })
    }

    /// The set at `base`: vector 64 n + b is bit b of word n.
    pub fn words(&self, base: u16) -> [u64; 4] {
        core::array::from_fn(|word| {
            let offset = base + word as u16 * 32;
            u64::from(self.read(offset + 16)) << 32 | u64::from(self.read(offset))
        })
    }
}

/// The highest vector of a set whose eight registers `read` reads.
#[inline(always)]
fn highest(read: impl Fn(u16) -> u32) -> Option<Vector> {
    let mut index = 8;
    while index > 0 {
        index -= 1;
        if let Some(bit) = read(index).checked_ilog2() {
            return Some(Vector((index * 32) as u8 + bit as u8));
        }
    }
    None
}

fn place(base: u16, vector: Vector) -> (u16, u32) {
    (base + u16::from(vector.0 / 32) * 16, 1 << (vector.0 % 32))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::boxed::Box;

    fn stores() -> [Store; 2] {
        [Store::array(), Store::Page(Box::leak(Box::default()))]
    }

    #[test]
    fn a_set_holds_exactly_what_was_put_in() {
        for mut store in stores() {
            for vector in (0..=255).map(Vector) {
                store.insert(0x200, vector);
                assert_eq!(store.highest(0x200), Some(vector));
                assert!(store.contains(0x200, vector));
                assert!(store.is_only(0x200, vector));
                for other in [Vector(vector.0 ^ 1), Vector(vector.0 ^ 0x80)] {
                    assert!(!store.is_only(0x200, other), "another");
                    store.insert(0x200, other);
                    assert!(!store.is_only(0x200, vector), "not alone");
                    store.remove(0x200, other);
                }
                assert_eq!(store.words(0x200)[usize::from(vector.0 / 64)], 1 << (vector.0 % 64));
                store.remove(0x200, vector);
                assert_eq!(store.words(0x200), [0; 4]);
            }
            assert_eq!(store.highest(0x200), None);
        }
    }

    #[test]
    fn a_sets_neighbours_stay_as_they_are() {
        for mut store in stores() {
            for vector in [0, 127, 128, 129, 232] {
                store.insert(0x180, Vector(vector));
            }
            store.remove(0x180, Vector(128));
            store.remove(0x180, Vector(232));
            assert_eq!(store.words(0x180), [1, 1 << 63, 2, 0]);
            assert_eq!((store.words(0x100), store.words(0x200)), ([0; 4], [0; 4]));
            store.clear();
            assert_eq!(store.words(0x180), [0; 4]);
        }
    }

    #[test]
    fn an_offset_beyond_the_registers_is_nothing() {
        let mut store = Store::array();
        store.write(0x400, 1);
        assert_eq!(store.read(0x400), 0);
    }
}
