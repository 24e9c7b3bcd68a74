//! Values that registers do not like, in an order that looks random and is always the same.

/// Where bits tend to matter: ends of widths, canonical addresses, every other bit, pages.
const INTERESTING: [u64; 20] = [
    0,
    1,
    2,
    0x7f,
    0xff,
    0x100,
    0xfff,
    0x1000,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x0000_7fff_ffff_ffff,
    0x0000_8000_0000_0000,
    0x8000_0000_0000_0000,
    0xffff_8000_0000_0000,
    0xffff_7fff_ffff_ffff,
    u64::MAX - 0xfff,
    u64::MAX,
    0x5555_5555_5555_5555,
    0xdead_beef_cafe_f00d,
];

/// A source of hostile values (the values of a table, shifted, mixed and negated by an xorshift generator).
#[derive(Clone, Debug)]
pub struct Hostile(u64);

impl Hostile {
    /// Always the same sequence for the same `seed`.
    pub const fn new(seed: u64) -> Self {
        // The generator stands still at 0.
        Self(if seed == 0 { 1 } else { seed })
    }

    /// The next random number (Marsaglia's xorshift with 13, 7 and 17).
    pub const fn random(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One of `choices`, which are not empty.
    pub fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[(self.random() % choices.len() as u64) as usize]
    }

    /// The next hostile value.
    pub fn value(&mut self) -> u64 {
        let first = self.choose(&INTERESTING);
        match self.random() % 8 {
            0..=2 => first,
            3 => !first,
            4 => first.wrapping_sub(1),
            5 => first ^ self.choose(&INTERESTING),
            6 => 1 << (self.random() % 64),
            _ => self.random(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_repeats_and_has_every_interesting_value_and_every_bit() {
        let (mut one, mut other) = (Hostile::new(7), Hostile::new(7));
        let values: Vec<u64> = (0..5000).map(|_| one.value()).collect();
        assert!(values.iter().all(|value| *value == other.value()));
        assert!(INTERESTING.iter().all(|wanted| values.contains(wanted)));
        assert!((0..64).all(|bit| values.contains(&(1 << bit))));
    }

    #[test]
    fn a_seed_of_zero_does_not_stand_still() {
        let mut hostile = Hostile::new(0);
        assert_ne!(hostile.random(), hostile.random());
    }
}
