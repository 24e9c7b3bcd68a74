//! What a guest's access asks of the rest of the hypervisor.

use super::{GuestMessage, MessageError, Obstacle};
use ::pci::Width;
use addr::{GuestPhys, HostPhys, PciAddress};
use core::fmt;

/// Receives effects in the order in which they must take place, each before the access goes on: when the guest lets all
/// entries of a function go at once, every entry has its route before the real function is unmasked. Returns whether it
/// could be done; only a [`MsiEffect::Route`] asks.
pub type EffectSink<'a> = dyn FnMut(PciEffect) -> bool + 'a;

/// One effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PciEffect {
    /// The real function.
    pub function: PciAddress,
    /// What is to be done, or what has happened.
    pub kind: PciEffectKind,
}

/// What is to be done, or what has happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PciEffectKind {
    /// The guest switched bus mastering. The real bit follows: it is set after this effect, and was cleared before it.
    BusMaster {
        /// On or off.
        enabled: bool,
    },
    /// The guest's second stage changes, before the guest runs again.
    Mapping(MappingEffect),
    /// The guest has reset its function: the real one is to be reset, its MSI-X entries masked, and
    /// [`super::AssignedFunction::prepare`] called, before the guest runs again.
    Reset,
    /// The guest has switched virtual functions on or off: the real function is to have the first `count` of those that it
    /// shows, each with its MSI-X entries masked and [`super::AssignedFunction::prepare`] called, before the guest runs again.
    VirtualFunctions {
        /// How many; 0 for none.
        count: u16,
    },
    /// An MSI-X entry changed.
    Msix(MsixEffect),
    /// MSI changed.
    Msi(MsiEffect),
    /// The guest asked for what it does not get: to be logged, at a bounded rate.
    Refused(Refusal),
}

/// A change of what the guest reaches without the hypervisor. Ranges are whole pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MappingEffect {
    /// Map registers of the real function, read and write, uncached. Nothing is mapped there.
    Map {
        /// Where the guest reaches them.
        guest: GuestPhys,
        /// Where they are.
        host: HostPhys,
        /// How many bytes.
        bytes: u64,
    },
    /// Unmap what was mapped by one [`MappingEffect::Map`], and flush.
    Unmap {
        /// Where the guest reached it.
        guest: GuestPhys,
        /// How many bytes.
        bytes: u64,
    },
}

/// What is to be done with an entry of the real MSI-X table. All entries are masked at the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MsixEffect {
    /// Make an interrupt remapping entry for the message, write its handle into the real entry, and unmask it. Comes again
    /// when the guest changes a live entry, and after each [`MsixEffect::Mask`].
    Route {
        /// The number of the table entry.
        entry: u16,
        /// Where the guest wants the interrupt.
        message: GuestMessage,
    },
    /// Mask the real entry. Its remapping entry may stay for the next time.
    Mask {
        /// The number of the table entry.
        entry: u16,
    },
    /// The guest unmasked an entry whose message no interrupt can be made of. The real entry is and stays masked.
    Unroutable {
        /// The number of the table entry.
        entry: u16,
        /// The guest's message address.
        address: u64,
        /// The guest's message data.
        data: u32,
        /// What is wrong with it.
        reason: MessageError,
    },
}

/// What is to be done for MSI. The real function is given the message of its block of remapping entries once and for all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MsiEffect {
    /// Route the first `vectors` entries of the block: entry n to the guest's vector with its low bits replaced by n. Comes
    /// again when the guest changes the message. The real function is enabled after it, unless it could not be done.
    Route {
        /// Where the guest wants the first interrupt.
        message: GuestMessage,
        /// How many vectors are in use: 1, 2, 4, 8, 16 or 32.
        vectors: u8,
    },
    /// The guest enabled MSI with a message that no interrupt can be made of. The real function is and stays disabled.
    Unroutable {
        /// The guest's message address.
        address: u64,
        /// The guest's message data.
        data: u16,
        /// What is wrong with it.
        reason: MessageError,
    },
}

/// What a guest asked for and does not get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// A range was to be where it cannot be. It is nowhere now.
    BarMove {
        /// The number of the base address register, 0 to 5.
        index: u8,
        /// The address that it holds.
        requested: u64,
        /// What is there.
        obstacle: Obstacle,
    },
    /// An access to the MSI-X table that is not an aligned one of 4 or 8 bytes. A read gave all ones.
    MsixTableAccess {
        /// Offset in the table, in bytes; negative where the access begins before it.
        offset: i64,
        /// Length, in bytes.
        bytes: usize,
    },
    /// Bus mastering, MSI or MSI-X was switched on after the function was quarantined.
    Quarantined {
        /// Offset in configuration space.
        offset: u16,
        /// Width of the access.
        width: Width,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BarMove { index, requested, obstacle } => {
                write!(f, "BAR {index} cannot be at {requested:#x}: {obstacle}")
            }
            Self::MsixTableAccess { offset, bytes } => {
                write!(f, "{bytes} bytes at {offset:#x} of the MSI-X table are no access to an entry")
            }
            Self::Quarantined { offset, .. } => {
                write!(f, "the function is quarantined: the write at {offset:#x} does not bring it back")
            }
        }
    }
}
