//! Events in the form of EVENTINJ and EXITINTINFO.

use crate::vcpu::Event;
use crate::vcpu::svm::spec::event::*;
use addr::Vector;

/// Exceptions have the vectors below.
const EXCEPTIONS: u8 = 32;
/// The exceptions of INT3 and INTO, which like INT n are a program's own.
const BREAKPOINT: u8 = 3;
const OVERFLOW: u8 = 4;

/// EVENTINJ for `event`.
pub fn encode(event: Event) -> u64 {
    match event {
        Event::Interrupt(vector) => VALID | TYPE_INTERRUPT << TYPE_SHIFT | u64::from(vector.0),
        Event::Nmi => VALID | TYPE_NMI << TYPE_SHIFT | 2,
        Event::Exception { vector, error_code } => {
            let error = error_code.map_or(0, |code| ERROR_CODE_VALID | u64::from(code) << ERROR_CODE_SHIFT);
            VALID | TYPE_EXCEPTION << TYPE_SHIFT | u64::from(vector) | error
        }
    }
}

/// The event whose delivery an exit interrupted and that has to be delivered again, from EXITINTINFO. `injected` is
/// what the entry before was asked to deliver.
///
/// A program's own events (INT n, INT3, INTO) are `None`: RIP is still at the instruction, which raises them again.
/// Delivered a second time they would push the wrong RIP.
pub fn interrupted(exit_interrupt_info: u64, injected: Option<Event>) -> Option<Event> {
    if exit_interrupt_info & VALID == 0 {
        return None;
    }
    let vector = (exit_interrupt_info & VECTOR) as u8;
    let error_code =
        (exit_interrupt_info & ERROR_CODE_VALID != 0).then_some((exit_interrupt_info >> ERROR_CODE_SHIFT) as u32);
    let event = match exit_interrupt_info >> TYPE_SHIFT & TYPE {
        TYPE_INTERRUPT => Event::Interrupt(Vector(vector)),
        TYPE_NMI => Event::Nmi,
        // QEMU's TCG calls every event an exception that was not injected, and refuses to inject this one.
        TYPE_EXCEPTION if vector >= EXCEPTIONS => Event::Interrupt(Vector(vector)),
        TYPE_EXCEPTION => Event::Exception { vector, error_code },
        _ => return None,
    };
    let programs_own = matches!(event, Event::Exception { vector: BREAKPOINT | OVERFLOW, .. });
    (!programs_own || injected == Some(event)).then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERRUPT: Event = Event::Interrupt(Vector(0x41));
    const PAGE_FAULT: Event = Event::Exception { vector: 14, error_code: Some(6) };
    const INVALID_OPCODE: Event = Event::Exception { vector: 6, error_code: None };

    #[test]
    fn events_have_the_form_of_the_manual() {
        assert_eq!(encode(INTERRUPT), 0x8000_0041);
        assert_eq!(encode(Event::Nmi), 0x8000_0202);
        assert_eq!(encode(PAGE_FAULT), 0x6_8000_0b0e);
        assert_eq!(encode(INVALID_OPCODE), 0x8000_0306);
    }

    #[test]
    fn an_interrupted_delivery_is_repeated_as_it_was() {
        for event in [INTERRUPT, Event::Nmi, PAGE_FAULT, INVALID_OPCODE] {
            assert_eq!(interrupted(encode(event), None), Some(event));
            assert_eq!(interrupted(encode(event) & !VALID, Some(event)), None);
        }
    }

    #[test]
    fn a_programs_own_interrupt_is_not_repeated_because_its_instruction_is() {
        assert_eq!(interrupted(0x8000_0480, None), None);
        assert_eq!(interrupted(0x8000_0303, None), None);
        assert_eq!(interrupted(0x8000_0304, None), None);
    }

    #[test]
    fn a_breakpoint_that_was_injected_is_repeated() {
        let breakpoint = Event::Exception { vector: 3, error_code: None };
        assert_eq!(interrupted(0x8000_0303, Some(breakpoint)), Some(breakpoint));
    }

    #[test]
    fn an_exception_above_31_is_an_interrupt() {
        assert_eq!(interrupted(0x8000_0341, None), Some(INTERRUPT));
    }

    #[test]
    fn an_unknown_type_is_nothing() {
        assert_eq!(interrupted(0x8000_0741, None), None);
    }
}
