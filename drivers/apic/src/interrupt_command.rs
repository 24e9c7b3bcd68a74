//! Interrupts from one processor to another.

use crate::ApicMode;
use crate::spec::local_apic::icr;
use addr::{ApicId, Vector};

/// Who receives an interrupt command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// The processor with this APIC id (physical destination mode).
    Physical(ApicId),
    /// The sending processor.
    SelfOnly,
    /// Every processor but the sending one.
    AllButSelf,
}

/// What an interrupt command sends. SDM 3A "Interrupt Command Register (ICR)".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InterruptCommand {
    /// An interrupt with this vector, 16 to 255.
    Fixed(Vector),
    /// A non-maskable interrupt.
    Nmi,
    /// INIT: the processor resets and waits for a start-up.
    Init,
    /// Start-up: the processor begins in real mode at this page, an address of `page * 4096`.
    StartUp(u8),
}

impl InterruptCommand {
    /// The 64 bits for the interrupt command register, or `None` where `mode` cannot express `destination`: an
    /// APIC id of 255 or above in xAPIC mode (255 is the broadcast), or 0xFFFF_FFFF in x2APIC mode.
    pub fn encode(self, destination: Destination, mode: ApicMode) -> Option<u64> {
        let command = match self {
            Self::Fixed(vector) => icr::FIXED | u64::from(vector.0),
            Self::Nmi => icr::NMI,
            Self::Init => icr::INIT,
            Self::StartUp(page) => icr::START_UP | u64::from(page),
        } | icr::ASSERT;
        let target = match (destination, mode) {
            (Destination::SelfOnly, _) => icr::SELF,
            (Destination::AllButSelf, _) => icr::ALL_BUT_SELF,
            (Destination::Physical(ApicId(id)), ApicMode::XApic) if id < 0xFF => {
                u64::from(id) << icr::XAPIC_DESTINATION_SHIFT
            }
            (Destination::Physical(ApicId(id)), ApicMode::X2Apic) if id != u32::MAX => {
                u64::from(id) << icr::X2APIC_DESTINATION_SHIFT
            }
            (Destination::Physical(_), _) => return None,
        };
        Some(command | target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_destination_moves_with_the_mode() {
        let command = InterruptCommand::Fixed(Vector(0x41));
        let to = Destination::Physical(ApicId(7));
        assert_eq!(command.encode(to, ApicMode::XApic), Some(0x0700_0000_0000_4041));
        assert_eq!(command.encode(to, ApicMode::X2Apic), Some(0x0000_0007_0000_4041));
        assert_eq!(InterruptCommand::StartUp(8).encode(Destination::AllButSelf, ApicMode::XApic), Some(0xC_4608));
    }

    #[test]
    fn a_broadcast_id_is_no_physical_destination() {
        for (id, mode) in [(255, ApicMode::XApic), (256, ApicMode::XApic), (u32::MAX, ApicMode::X2Apic)] {
            assert_eq!(InterruptCommand::Init.encode(Destination::Physical(ApicId(id)), mode), None);
        }
        assert!(InterruptCommand::Init.encode(Destination::Physical(ApicId(256)), ApicMode::X2Apic).is_some());
    }
}
