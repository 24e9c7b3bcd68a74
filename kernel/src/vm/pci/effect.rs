//! What a guest's access asks of the rest of the hypervisor.

use super::{GuestMessage, MessageError};
use ::pci::Width;
use addr::PciAddress;

/// Receives effects in the order in which they must take place, each before the access goes on: when the guest lets all
/// entries of a function go at once, every entry has its route before the real function is unmasked.
pub type EffectSink<'a> = dyn FnMut(PciEffect) + 'a;

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
    /// The guest switched what its function answers to. The real function goes on answering in memory space; whoever
    /// wants the guest to see its ranges disappear takes them out of its second stage.
    Decoding {
        /// Memory space.
        memory: bool,
        /// I/O space; the real bit follows.
        io: bool,
    },
    /// An MSI-X entry changed.
    Msix(MsixEffect),
    /// The guest asked for what it does not get: to be logged, at a bounded rate.
    Refused(Refusal),
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

/// What a guest asked for and does not get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// A base address register was to hold another address. It keeps its own.
    BarMove {
        /// The number of the register, 0 to 5.
        index: u8,
        /// What was written.
        requested: u32,
    },
    /// An access to the MSI-X table that is not an aligned one of 4 or 8 bytes. A read gave all ones.
    MsixTableAccess {
        /// Offset in the table, in bytes; negative where the access begins before it.
        offset: i64,
        /// Length, in bytes.
        bytes: usize,
    },
    /// Bus mastering or MSI-X was switched on after the function was quarantined.
    Quarantined {
        /// Offset in configuration space.
        offset: u8,
        /// Width of the access.
        width: Width,
    },
}
