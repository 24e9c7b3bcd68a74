//! Events in the form of interruption information, on their way into a guest and back.

use crate::vcpu::Event;
use crate::vcpu::event::has_error_code;
use crate::vcpu::vmx::spec::interruption::*;
use addr::Vector;

const NMI: u32 = 2;

/// What the next entry delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// An event that is nobody's instruction.
    Event(Event),
    /// INT n, INT1, INT3 or INTO whose delivery an exit interrupted. RIP is at the instruction: dropping the event
    /// raises it again.
    Software {
        /// Its type.
        kind: u32,
        /// Its vector.
        vector: u8,
        /// The length of the instruction.
        length: u32,
    },
}

/// An event as entry wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    /// Interruption information.
    pub information: u32,
    /// The error code, if `information` says that there is one.
    pub error_code: u32,
    /// The instruction's length, for software events.
    pub length: u32,
}

/// `pending` as entry wants it. An error code is delivered in protected mode only, and there always (SDM vol. 3,
/// 27.2.1.3): otherwise the entry fails.
pub const fn encode(pending: Pending, protected_mode: bool) -> Injection {
    let (information, error_code, length) = match pending {
        Pending::Event(Event::Interrupt(vector)) => (TYPE_EXTERNAL_INTERRUPT << TYPE_SHIFT | vector.0 as u32, 0, 0),
        Pending::Event(Event::Nmi) => (TYPE_NMI << TYPE_SHIFT | NMI, 0, 0),
        Pending::Event(Event::Exception { vector, error_code }) => {
            let information = TYPE_HARDWARE_EXCEPTION << TYPE_SHIFT | vector as u32 & 0x1f;
            if protected_mode && has_error_code(vector) {
                let error_code = match error_code {
                    Some(code) => code & 0xffff,
                    None => 0,
                };
                (information | ERROR_CODE_VALID, error_code, 0)
            } else {
                (information, 0, 0)
            }
        }
        Pending::Software { kind, vector, length } => (kind << TYPE_SHIFT | vector as u32, 0, length),
    };
    Injection { information: VALID | information, error_code, length }
}

/// The event whose delivery an exit interrupted, from the IDT-vectoring information, its error code and the length of
/// the instruction.
pub const fn interrupted(information: u32, error_code: u32, length: u32) -> Option<Pending> {
    if information & VALID == 0 {
        return None;
    }
    let vector = (information & VECTOR) as u8;
    Some(match information >> TYPE_SHIFT & TYPE {
        TYPE_EXTERNAL_INTERRUPT => Pending::Event(Event::Interrupt(Vector(vector))),
        TYPE_NMI => Pending::Event(Event::Nmi),
        TYPE_HARDWARE_EXCEPTION => {
            let error_code = if information & ERROR_CODE_VALID != 0 { Some(error_code) } else { None };
            Pending::Event(Event::Exception { vector, error_code })
        }
        kind @ (TYPE_SOFTWARE_INTERRUPT | TYPE_PRIVILEGED_SOFTWARE_EXCEPTION | TYPE_SOFTWARE_EXCEPTION) => {
            Pending::Software { kind, vector, length }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERRUPT: Pending = Pending::Event(Event::Interrupt(Vector(0x41)));
    const PAGE_FAULT: Pending = Pending::Event(Event::Exception { vector: 14, error_code: Some(6) });
    const INVALID_OPCODE: Pending = Pending::Event(Event::Exception { vector: 6, error_code: None });
    const INT_80: Pending = Pending::Software { kind: TYPE_SOFTWARE_INTERRUPT, vector: 0x80, length: 2 };

    #[test]
    fn events_have_the_form_of_the_manual() {
        let form = |pending| {
            let Injection { information, error_code, length } = encode(pending, true);
            (information, error_code, length)
        };
        assert_eq!(form(INTERRUPT), (0x8000_0041, 0, 0));
        assert_eq!(form(Pending::Event(Event::Nmi)), (0x8000_0202, 0, 0));
        assert_eq!(form(PAGE_FAULT), (0x8000_0b0e, 6, 0));
        assert_eq!(form(INVALID_OPCODE), (0x8000_0306, 0, 0));
        assert_eq!(form(INT_80), (0x8000_0480, 0, 2));
    }

    #[test]
    fn an_error_code_is_delivered_in_protected_mode_only_and_there_always() {
        assert_eq!(encode(PAGE_FAULT, false).information, 0x8000_030e);
        let bare = Pending::Event(Event::Exception { vector: 13, error_code: None });
        assert_eq!(encode(bare, true).information, 0x8000_0b0d);
        let surplus = Pending::Event(Event::Exception { vector: 6, error_code: Some(1) });
        assert_eq!(encode(surplus, true).information, 0x8000_0306);
    }

    #[test]
    fn an_interrupted_delivery_is_repeated_as_it_was() {
        for pending in [INTERRUPT, Pending::Event(Event::Nmi), PAGE_FAULT, INVALID_OPCODE, INT_80] {
            let Injection { information, error_code, length } = encode(pending, true);
            assert_eq!(interrupted(information, error_code, length), Some(pending));
            assert_eq!(interrupted(information & !VALID, error_code, length), None);
        }
    }

    #[test]
    fn an_unknown_type_is_nothing() {
        assert_eq!(interrupted(0x8000_0741, 0, 0), None);
        assert_eq!(interrupted(0x8000_0141, 0, 0), None);
    }
}
