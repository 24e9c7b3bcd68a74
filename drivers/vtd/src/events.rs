//! A unit's own interrupts, by which it reports events: faults, and page requests. Remapping does not touch their messages.

use crate::error::Error;
use crate::registers::Registers;
use crate::spec::interrupt::DestinationMode;
use crate::spec::registers::*;
use crate::unit::Unit;
use crate::wait::Clock;
use addr::{ApicId, Vector};

/// Where a unit reports faults, or page requests: a message to a processor, which remapping does not touch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultInterrupt {
    /// The vector, 16 to 255.
    pub vector: Vector,
    /// The processor.
    pub destination: ApicId,
}

impl FaultInterrupt {
    /// Refuses vectors that cannot be delivered, and destinations that there are not.
    pub(crate) fn check(self, mode: DestinationMode) -> Result<(), Error> {
        if self.vector.0 < 16 {
            return Err(Error::BadVector(self.vector));
        }
        mode.field(self.destination).ok_or(Error::DestinationOutOfRange(self.destination))?;
        Ok(())
    }
}

/// The registers of one event's interrupt.
#[derive(Clone, Copy)]
pub(crate) struct EventRegisters {
    pub control: Register<u32, ReadWrite>,
    pub data: Register<u32, ReadWrite>,
    pub address: Register<u32, ReadWrite>,
    pub upper_address: Register<u32, ReadWrite>,
}

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Programs where an event's interrupt goes, in the form of the interrupt table's destinations, then unmasks it.
    pub(crate) fn direct_event(&mut self, event: EventRegisters, interrupt: FaultInterrupt) -> Result<(), Error> {
        let FaultInterrupt { vector, destination } = interrupt;
        interrupt.check(self.interrupt_table.as_ref().map_or(DestinationMode::XApic, |table| table.mode()))?;
        // Masked while address and data do not belong together; masked after reset too, with a vector of 0.
        self.mask_event(event, true);
        self.registers.write(event.data, u32::from(vector.0));
        self.registers.write(event.address, 0xfee0_0000 | (destination.0 & 0xff) << 12);
        if self.capabilities.extended_interrupt_mode() {
            self.registers.write(event.upper_address, destination.0 & !0xff);
        }
        self.mask_event(event, false);
        Ok(())
    }

    /// Masks an event's interrupt, or unmasks it. What is pending comes when it is unmasked.
    pub(crate) fn mask_event(&mut self, event: EventRegisters, masked: bool) {
        // Reserved bits keep their value; the pending bit is hardware's and is not echoed.
        let kept = self.registers.read(event.control) & !(EVENT_CONTROL_MASKED | EVENT_CONTROL_PENDING);
        self.registers.write(event.control, if masked { kept | EVENT_CONTROL_MASKED } else { kept });
    }
}
