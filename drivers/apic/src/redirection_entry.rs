//! A redirection entry in the legacy form.

use crate::spec::io_apic::redirection;
use addr::Vector;

/// How the receiving processor takes the interrupt. 82093AA section 3.2.4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum DeliveryMode {
    /// With the entry's vector.
    Fixed = 0b000,
    /// With the entry's vector, to the processor of the lowest priority among the destinations.
    LowestPriority = 0b001,
    /// As a system management interrupt.
    Smi = 0b010,
    /// As a non-maskable interrupt.
    Nmi = 0b100,
    /// As an INIT.
    Init = 0b101,
    /// With the vector that an 8259A gives.
    ExtInt = 0b111,
}

/// The level of an active input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Polarity {
    /// Active high: the ISA default.
    ActiveHigh,
    /// Active low: the PCI default.
    ActiveLow,
}

/// What of an input raises the interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TriggerMode {
    /// The edge: the ISA default.
    Edge,
    /// The level, until the EOI: the PCI default.
    Level,
}

/// A redirection entry in the legacy form, for machines without interrupt remapping. With interrupt remapping the
/// entry is a raw value that the remapping unit's driver makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LegacyRedirectionEntry {
    /// The vector, 16 to 254.
    pub vector: Vector,
    /// How it is delivered.
    pub delivery_mode: DeliveryMode,
    /// The APIC id, or in logical mode the set of processors.
    pub destination: u8,
    /// Whether `destination` is logical.
    pub logical: bool,
    /// The level of the active input.
    pub polarity: Polarity,
    /// Edge or level.
    pub trigger_mode: TriggerMode,
    /// Whether the input is masked.
    pub masked: bool,
}

impl LegacyRedirectionEntry {
    /// The 64 bits of the entry.
    pub fn encode(self) -> u64 {
        let mut value = u64::from(self.vector.0)
            | (self.delivery_mode as u64) << redirection::DELIVERY_MODE_SHIFT
            | u64::from(self.destination) << redirection::DESTINATION_SHIFT;
        for (set, bit) in [
            (self.logical, redirection::LOGICAL_DESTINATION),
            (self.polarity == Polarity::ActiveLow, redirection::ACTIVE_LOW),
            (self.trigger_mode == TriggerMode::Level, redirection::LEVEL),
            (self.masked, redirection::MASKED),
        ] {
            if set {
                value |= bit;
            }
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_data_sheet_says() {
        let entry = LegacyRedirectionEntry {
            vector: Vector(0x31),
            delivery_mode: DeliveryMode::LowestPriority,
            destination: 0x0F,
            logical: true,
            polarity: Polarity::ActiveLow,
            trigger_mode: TriggerMode::Level,
            masked: true,
        };
        assert_eq!(entry.encode(), 0x0F00_0000_0001_A931);
        let isa = LegacyRedirectionEntry {
            delivery_mode: DeliveryMode::Fixed,
            logical: false,
            polarity: Polarity::ActiveHigh,
            trigger_mode: TriggerMode::Edge,
            masked: false,
            ..entry
        };
        assert_eq!(isa.encode(), 0x0F00_0000_0000_0031);
    }
}
