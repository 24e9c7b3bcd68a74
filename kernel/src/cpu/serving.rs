//! Whom the hypervisor is working for at this moment: the first question when it faults.

use addr::Bdf;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

const NOBODY: u64 = 0;
const GUEST: u64 = 1 << 32;
const DEVICE: u64 = 2 << 32;

static SERVING: AtomicU64 = AtomicU64::new(NOBODY);

/// Somebody whom the hypervisor works for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Served {
    /// Nobody in particular: the hypervisor's own business.
    Nobody,
    /// The guest with this number.
    Guest(u8),
    /// The device with this requester id.
    Device(Bdf),
}

/// Says whom the work is for from now on: one store, for it happens twice at each exit.
#[inline(always)]
pub fn set(served: Served) {
    SERVING.store(encode(served), Ordering::Relaxed);
}

/// As [`set`]; returns whom the work was for before, to be set again afterwards.
pub fn replace(served: Served) -> Served {
    decode(SERVING.swap(encode(served), Ordering::Relaxed))
}

#[inline(always)]
fn encode(served: Served) -> u64 {
    match served {
        Served::Nobody => NOBODY,
        Served::Guest(number) => GUEST | u64::from(number),
        Served::Device(bdf) => DEVICE | u64::from(bdf.as_u16()),
    }
}

/// Whom the work is for.
pub fn current() -> Served {
    decode(SERVING.load(Ordering::Relaxed))
}

fn decode(encoded: u64) -> Served {
    match encoded & !0xffff_ffff {
        GUEST => Served::Guest(encoded as u8),
        DEVICE => Served::Device(Bdf::from_u16(encoded as u16)),
        _ => Served::Nobody,
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Served::Nobody => f.write_str("the machine itself"),
            Served::Guest(number) => write!(f, "guest {number}"),
            Served::Device(bdf) => write!(f, "device {bdf}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_served_is_told_back() {
        let bdf = Bdf::new(0, 3, 0).unwrap();
        assert_eq!(replace(Served::Guest(7)), Served::Nobody);
        assert_eq!(replace(Served::Device(bdf)), Served::Guest(7));
        assert_eq!(current(), Served::Device(bdf));
        set(Served::Nobody);
        assert_eq!(current(), Served::Nobody);
    }
}
