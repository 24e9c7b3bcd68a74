//! Addresses and identifiers that cannot be mixed up.
//!
//! A machine with a hypervisor and remapping hardware has several kinds of number that look alike: the address
//! of a byte of memory, the address that a guest believes it has, the address that a device puts on the bus, a
//! requester id, a domain id, an APIC id. Each is a type of its own here, so that passing one for another does
//! not compile. Conversions between kinds are decisions (a page table makes them) and there are none in this crate.
#![no_std]
#![forbid(unsafe_code)]

mod page;
mod pci;

pub use page::{PAGE_SIZE, PageSize};
pub use pci::{Bdf, PciAddress};

use core::fmt;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The address with this numeric value, in bytes.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The numeric value, in bytes.
            pub const fn as_u64(self) -> u64 {
                self.0
            }

            /// The address `bytes` further up, or `None` beyond the end of the 64-bit space.
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }

            /// Rounded down to a multiple of `alignment`, a power of two; of another number, what comes out means nothing.
            pub const fn align_down(self, alignment: u64) -> Self {
                Self(self.0 & !alignment.wrapping_sub(1))
            }

            /// Whether the address is a multiple of `alignment`, a power of two; of another number, the answer means nothing.
            pub const fn is_aligned(self, alignment: u64) -> bool {
                self.0 & alignment.wrapping_sub(1) == 0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address! {
    /// A host-physical address: where a byte really is.
    HostPhys
}
address! {
    /// A guest-physical address: where a guest believes that a byte is.
    GuestPhys
}
address! {
    /// An I/O virtual address: what a device puts on the bus, before a remapping unit translates it.
    Iova
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

identifier! {
    /// A VT-d domain id: the tag under which a unit caches the translations of one address space.
    DomainId(u16)
}
identifier! {
    /// A local APIC id: 8 bits in xAPIC mode, 32 bits in x2APIC mode.
    ApicId(u32)
}
identifier! {
    /// An interrupt vector of a (host or virtual) processor; 0 to 15 cannot be delivered by an APIC.
    Vector(u8)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::format;

    #[test]
    fn addresses_align_and_do_not_wrap() {
        let address = HostPhys::new(0x1234);
        assert_eq!(address.align_down(0x1000), HostPhys::new(0x1000));
        assert!(!address.is_aligned(0x1000));
        assert_eq!(HostPhys::new(u64::MAX).checked_add(1), None);
        assert_eq!(format!("{address} {address:?}"), "0x1234 HostPhys(0x1234)");
    }
}
