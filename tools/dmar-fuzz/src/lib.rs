//! Mutated DMAR tables, and what must be true of them.
//!
//! A table is taken apart into structures and scopes, changed there and as bytes, and put together again with lengths and
//! checksum made right (mostly), so that what was changed is read and not refused at the door. An input depends on nothing
//! but the seed and its number: each can be made again.
#![forbid(unsafe_code)]

mod check;
mod mutate;
mod parts;
mod reference;
mod seeds;

pub use check::{Reached, check};
pub use mutate::mutate;
pub use parts::{Parts, repair};
pub use seeds::{built_in, from_folder};

/// The `number`-th input of this seed.
pub fn input(seeds: &[Parts], seed: u64, number: u64) -> Vec<u8> {
    // Neighbouring numbers must not give neighbouring streams: fastrand mixes its seed on use only.
    let mut mixer = fastrand::Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut random = fastrand::Rng::with_seed(mixer.u64(..));
    mutate(seeds, &mut random)
}
