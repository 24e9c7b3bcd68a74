//! The interrupt command register: IPIs (SDM section 11.6.1), and which of them reach this processor itself.

use addr::{ApicId, Vector};

use super::registers::{DFR, ESR_SEND_ILLEGAL_VECTOR, ICR_BITS, LDR};
use super::{LocalApic, Mode};

/// What the caller must do for the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Effect {
    /// Deliver an IPI. Where the destination takes in the sender, a fixed interrupt has reached it already; any other
    /// delivery mode has not, not even in the sender.
    InterProcessorInterrupt {
        /// To whom.
        destination: Destination,
        /// What.
        delivery_mode: DeliveryMode,
    },
    /// The handler of a level-triggered interrupt is done: where it came from, it may be raised again.
    EndOfInterrupt(Vector),
}

/// To which processors an IPI goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// One processor.
    Physical(ApicId),
    /// The processors whose logical destination register matches these bits: 8 in xAPIC mode, 32 in x2APIC mode.
    Logical(u32),
    /// All processors but the sender.
    AllExcludingSelf,
    /// All processors.
    AllIncludingSelf,
}

/// What an IPI does there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeliveryMode {
    /// An interrupt with this vector, 16 to 255.
    Fixed(Vector),
    /// The same, to the one processor among the destinations that has the lowest priority.
    LowestPriority(Vector),
    /// A system-management interrupt.
    Smi,
    /// A non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// A start-up IPI: real mode, at this number of 4 KiB pages.
    StartUp(u8),
}

impl LocalApic {
    /// Carries out a command, the way the mode has its destination in bits 63:32.
    pub(super) fn command(&mut self, icr: u64) -> Option<Effect> {
        let low = icr as u32 & ICR_BITS;
        self.registers.set_icr(icr & 0xffff_ffff_0000_0000 | u64::from(low));
        let vector = Vector(low as u8);
        let delivery_mode = match low >> 8 & 7 {
            0 => DeliveryMode::Fixed(vector),
            1 => DeliveryMode::LowestPriority(vector),
            2 => DeliveryMode::Smi,
            4 => DeliveryMode::Nmi,
            // INIT level de-assert (level 0, trigger mode 1) does nothing on processors since the Pentium 4.
            5 if low & (1 << 14 | 1 << 15) == 1 << 15 => return None,
            5 => DeliveryMode::Init,
            6 => DeliveryMode::StartUp(vector.0),
            // 3 and 7 are reserved: nothing is sent.
            _ => return None,
        };
        let fixed = matches!(delivery_mode, DeliveryMode::Fixed(_) | DeliveryMode::LowestPriority(_));
        if fixed && vector.0 < 16 {
            self.signal_error(ESR_SEND_ILLEGAL_VECTOR);
            return None;
        }
        let (destination, reaches_self) = self.destination(icr, low)?;
        if fixed && reaches_self {
            self.receive(vector);
            // The lowest priority is one processor's, and this one has it.
            if destination == Destination::Physical(self.id) || matches!(delivery_mode, DeliveryMode::LowestPriority(_))
            {
                return None;
            }
        }
        Some(Effect::InterProcessorInterrupt { destination, delivery_mode })
    }

    /// The destination of a command, and whether this processor belongs to it. `None` for a self shorthand with another
    /// delivery mode than fixed, which is not valid (table 11-3).
    fn destination(&self, icr: u64, low: u32) -> Option<(Destination, bool)> {
        let x2apic = self.mode == Mode::X2Apic;
        let (field, broadcast) = match x2apic {
            true => ((icr >> 32) as u32, u32::MAX),
            false => ((icr >> 56) as u32, 0xff),
        };
        match low >> 18 & 3 {
            0 if low & 1 << 11 != 0 => Some((Destination::Logical(field), self.matches_logical(field))),
            0 if field == broadcast => Some((Destination::AllIncludingSelf, true)),
            0 => {
                let own = if x2apic { self.id.0 } else { self.id.0 & 0xff };
                let id = if field == own { self.id } else { ApicId(field) };
                Some((Destination::Physical(id), field == own))
            }
            1 => (low >> 8 & 7 == 0).then_some((Destination::Physical(self.id), true)),
            2 => Some((Destination::AllIncludingSelf, true)),
            _ => Some((Destination::AllExcludingSelf, false)),
        }
    }

    /// Whether a destination takes in this processor, which is the sender.
    pub fn is_destination(&self, destination: Destination) -> bool {
        match destination {
            Destination::Physical(id) => id == self.id,
            Destination::Logical(destination) => self.matches_logical(destination),
            Destination::AllExcludingSelf => false,
            Destination::AllIncludingSelf => true,
        }
    }

    /// Whether a logical destination takes in this processor (sections 11.6.2.2 and 11.12.10.2). A caller that routes
    /// IPIs among several processors asks each.
    pub fn matches_logical(&self, destination: u32) -> bool {
        let ldr = self.registers.read(LDR);
        match self.mode {
            Mode::Disabled => false,
            Mode::X2Apic => {
                destination == u32::MAX || ldr >> 16 == destination >> 16 && ldr & destination & 0xffff != 0
            }
            Mode::XApic if destination & 0xff == 0xff => true,
            Mode::XApic if self.registers.read(DFR) >> 28 == 0xf => ldr >> 24 & destination & 0xff != 0,
            Mode::XApic => ldr >> 28 == destination >> 4 & 0xf && ldr >> 24 & destination & 0xf != 0,
        }
    }
}
