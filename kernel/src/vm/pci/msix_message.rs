//! What a guest's MSI message means. SDM 3A "Message Signalled Interrupts".

use addr::{ApicId, Vector};
use core::fmt;

/// How the destination of a message is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DestinationMode {
    /// The APIC id of one virtual processor; 0xFF is all.
    Physical,
    /// A set of virtual processors, by their logical destination registers.
    Logical,
}

/// An interrupt that a guest wants its device to raise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestMessage {
    /// The guest's vector, 16 to 255.
    pub vector: Vector,
    /// The destination, 8 bits.
    pub destination: ApicId,
    /// How the destination is meant.
    pub destination_mode: DestinationMode,
    /// Whether only the processor of the lowest priority among the destinations gets it.
    pub lowest_priority: bool,
}

/// Why no interrupt can be made of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageError {
    /// The address is not 0xFEExxxxx: it would be a write to memory.
    NotAnInterruptAddress,
    /// Reserved bits of the address are set, among them the one of the remappable format: the guest has no remapping unit.
    ReservedAddressBits,
    /// A delivery mode (3 bits) other than fixed and lowest priority: SMI, NMI, INIT and ExtINT are not a device's to send.
    DeliveryMode(u8),
    /// Level-triggered: nothing would tell the device of the EOI.
    LevelTriggered,
    /// A vector below 16.
    IllegalVector(Vector),
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnInterruptAddress => write!(f, "the address is not in the interrupt range"),
            Self::ReservedAddressBits => write!(f, "reserved address bits"),
            Self::DeliveryMode(mode) => write!(f, "delivery mode {mode}"),
            Self::LevelTriggered => write!(f, "level-triggered"),
            Self::IllegalVector(vector) => write!(f, "vector {vector}"),
        }
    }
}

impl core::error::Error for MessageError {}

impl GuestMessage {
    /// Reads a message in compatibility format. Reserved bits of the data are ignored, as the hardware does.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn decode(address: u64, data: u32) -> Result<Self, MessageError> {
        if address >> 20 != 0xFEE {
            return Err(MessageError::NotAnInterruptAddress);
        }
        if address & 0xFF0 != 0 {
            return Err(MessageError::ReservedAddressBits);
        }
        let delivery_mode = (data >> 8) as u8 & 7;
        if delivery_mode > 1 {
            return Err(MessageError::DeliveryMode(delivery_mode));
        }
        if data & 1 << 15 != 0 {
            return Err(MessageError::LevelTriggered);
        }
        let vector = Vector(data as u8);
        if vector.0 < 16 {
            return Err(MessageError::IllegalVector(vector));
        }
        // The SDM lets the destination mode count only together with the redirection hint. Processors honour it
        // alone, and Linux relies on that (logical mode, no hint): read as physical, its message would go nowhere.
        let logical = address & 1 << 2 != 0;
        Ok(Self {
            vector,
            destination: ApicId((address >> 12) as u32 & 0xFF),
            destination_mode: if logical { DestinationMode::Logical } else { DestinationMode::Physical },
            lowest_priority: delivery_mode == 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_vector_and_destination() {
        let message = GuestMessage::decode(0xFEE0_5000, 0x4041).unwrap();
        assert_eq!((message.vector, message.destination), (Vector(0x41), ApicId(5)));
        assert_eq!((message.destination_mode, message.lowest_priority), (DestinationMode::Physical, false));
        let message = GuestMessage::decode(0xFEEF_F004, 0x0155).unwrap();
        assert_eq!((message.destination, message.destination_mode), (ApicId(0xFF), DestinationMode::Logical));
        assert!(message.lowest_priority);
    }

    #[test]
    fn what_is_no_interrupt_is_refused_with_the_reason() {
        let decode = |address, data| GuestMessage::decode(address, data).unwrap_err();
        assert_eq!(decode(0, 0), MessageError::NotAnInterruptAddress);
        assert_eq!(decode(0x1_FEE0_0000, 0x41), MessageError::NotAnInterruptAddress);
        assert_eq!(decode(0xFEF0_0000, 0x41), MessageError::NotAnInterruptAddress);
        assert_eq!(decode(0xFEE0_0010, 0x41), MessageError::ReservedAddressBits);
        for mode in 2..8 {
            assert_eq!(decode(0xFEE0_0000, 0x41 | mode << 8), MessageError::DeliveryMode(mode as u8));
        }
        assert_eq!(decode(0xFEE0_0000, 0xC041), MessageError::LevelTriggered);
        assert_eq!(decode(0xFEE0_0000, 0x0F), MessageError::IllegalVector(Vector(15)));
    }
}
