//! Events on their way into a guest, and what becomes of two of them at once.

use addr::Vector;

/// An event that the next entry delivers to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A maskable interrupt.
    Interrupt(Vector),
    /// A non-maskable interrupt.
    Nmi,
    /// A fault or trap.
    Exception {
        /// The vector, 0 to 31.
        vector: u8,
        /// The error code, for the vectors that have one.
        error_code: Option<u32>,
    },
}

/// What two events together become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combined {
    /// This event is delivered.
    Deliver(Event),
    /// A fault while a double fault is delivered: the processor shuts down ("triple fault").
    Shutdown,
}

/// The vector of the debug exception.
pub const DEBUG: u8 = 1;
/// The vector of the double fault.
pub const DOUBLE_FAULT: u8 = 8;
/// The vectors of INT3 and INTO.
const BREAKPOINT: u8 = 3;
const OVERFLOW: u8 = 4;
/// The vector of the page fault.
pub const PAGE_FAULT: u8 = 14;
/// The vector of the machine check.
pub const MACHINE_CHECK: u8 = 18;

/// Whether the processor pushes an error code with this exception (outside real mode).
pub const fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
}

/// Whether the exception is a fault: its handler finds RFLAGS.RF set in what was pushed (SDM vol. 3, 18.3.1.1), which an
/// injected event takes from RFLAGS as they are. A debug exception is a fault or a trap, and arrives here with RF as it
/// is to be pushed.
pub const fn is_fault(vector: u8) -> bool {
    !matches!(vector, DEBUG | BREAKPOINT | OVERFLOW | DOUBLE_FAULT | MACHINE_CHECK)
}

/// The contributory exceptions: division, and faults with segments.
const fn is_contributory(vector: u8) -> bool {
    matches!(vector, 0 | 10..=13 | 21)
}

/// What an exception becomes that is raised while `pending` has not been delivered yet (APM vol. 2, 8.2.9, table of
/// exception combinations). Where the processor would handle one after the other, the new exception is delivered and
/// the first is not repeated here: as on a processor, a fault repeats when its instruction is executed again.
pub const fn combine(pending: Option<Event>, vector: u8, error_code: Option<u32>) -> Combined {
    let new = Combined::Deliver(Event::Exception { vector, error_code });
    let Some(Event::Exception { vector: first, .. }) = pending else { return new };
    let double = match first {
        DOUBLE_FAULT if is_contributory(vector) || vector == PAGE_FAULT => return Combined::Shutdown,
        PAGE_FAULT => is_contributory(vector) || vector == PAGE_FAULT,
        first => is_contributory(first) && is_contributory(vector),
    };
    if double { Combined::Deliver(Event::Exception { vector: DOUBLE_FAULT, error_code: Some(0) }) } else { new }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn exception(vector: u8) -> Event {
        Event::Exception { vector, error_code: if has_error_code(vector) { Some(0) } else { None } }
    }

    fn becomes(first: u8, second: u8) -> Combined {
        combine(Some(exception(first)), second, if has_error_code(second) { Some(0) } else { None })
    }

    #[test]
    fn two_contributory_faults_are_a_double_fault() {
        assert_eq!(becomes(13, 13), Combined::Deliver(exception(8)));
        assert_eq!(becomes(14, 14), Combined::Deliver(exception(8)));
        assert_eq!(becomes(14, 11), Combined::Deliver(exception(8)));
        assert_eq!(becomes(0, 10), Combined::Deliver(exception(8)));
    }

    #[test]
    fn a_page_fault_after_a_contributory_fault_is_handled_in_turn() {
        assert_eq!(becomes(13, 14), Combined::Deliver(exception(14)));
        assert_eq!(becomes(6, 13), Combined::Deliver(exception(13)));
        assert_eq!(becomes(14, 6), Combined::Deliver(exception(6)));
    }

    #[test]
    fn a_fault_within_a_double_fault_shuts_the_processor_down() {
        assert_eq!(becomes(8, 13), Combined::Shutdown);
        assert_eq!(becomes(8, 14), Combined::Shutdown);
        assert_eq!(becomes(8, 1), Combined::Deliver(exception(1)));
    }

    #[test]
    fn a_fault_while_an_interrupt_is_delivered_comes_first() {
        let combined = combine(Some(Event::Interrupt(Vector(0x40))), 13, Some(1));
        assert_eq!(combined, Combined::Deliver(Event::Exception { vector: 13, error_code: Some(1) }));
    }
}
