//! Interrupt remapping: table entries (sections 9.9 and 9.10) and the messages that refer to them (section 5.1).

use addr::{ApicId, Bdf, HostPhys, Vector};

/// Bytes of an interrupt remapping table entry.
pub const ENTRY_BYTES: u64 = 16;
/// Bit 0 of the low half: present.
pub const PRESENT: u64 = 1;

/// How an interrupt is signalled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// Once for each message: MSI and MSI-X always, I/O APIC pins by programming.
    Edge,
    /// Until the device is served and the EOI is broadcast: I/O APIC pins only.
    Level,
}

/// The electrical sense of an I/O APIC pin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Polarity {
    /// Asserted high.
    ActiveHigh,
    /// Asserted low.
    ActiveLow,
}

/// The form of destinations in the table (IRTA.EIME): it must be that of the processors' local APICs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DestinationMode {
    /// 8-bit xAPIC ids, in bits 47:40 of an entry.
    XApic,
    /// 32-bit x2APIC ids, in bits 63:32 of an entry.
    X2Apic,
}

impl DestinationMode {
    /// The 32-bit destination field for one processor, or `None` when the id does not fit or is the broadcast.
    pub const fn field(self, destination: ApicId) -> Option<u32> {
        match self {
            DestinationMode::XApic if destination.0 < 0xff => Some(destination.0 << 8),
            DestinationMode::X2Apic if destination.0 != u32::MAX => Some(destination.0),
            _ => None,
        }
    }
}

/// An interrupt remapping table entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Bits 63:0.
    pub low: u64,
    /// Bits 127:64: SID (79:64), SQ (81:80), SVT (83:82); of a posted entry also the descriptor's address (127:96).
    pub high: u64,
}

/// SVT = 01b, SQ = 00b: all 16 bits of the requester id must match SID.
const VALIDATE_SOURCE: u64 = 1 << 18;

impl Entry {
    /// A remapped-format entry: fixed delivery (DLM 000b) to one physical destination (DM 0, RH 0), faults recorded
    /// (FPD 0), and only for messages of `source`. `destination` is the field by [`DestinationMode::field`].
    pub const fn remapped(vector: Vector, destination: u32, trigger: Trigger, source: Bdf) -> Self {
        let level = matches!(trigger, Trigger::Level) as u64;
        Self {
            low: PRESENT | level << 4 | (vector.0 as u64) << 16 | (destination as u64) << 32,
            high: source.as_u16() as u64 | VALIDATE_SOURCE,
        }
    }

    /// A posted-format entry (IM 1): sets `vector` in the 64-byte aligned descriptor at `descriptor`. `urgent` notifies
    /// even while the descriptor suppresses notification.
    pub const fn posted(vector: Vector, descriptor: HostPhys, urgent: bool, source: Bdf) -> Self {
        let address = descriptor.as_u64();
        Self {
            low: PRESENT | (urgent as u64) << 14 | 1 << 15 | (vector.0 as u64) << 16 | (address & 0xffff_ffc0) << 32,
            high: source.as_u16() as u64 | VALIDATE_SOURCE | address & 0xffff_ffff_0000_0000,
        }
    }

    /// P: whether hardware uses the entry.
    pub const fn is_present(self) -> bool {
        self.low & PRESENT != 0
    }
}

/// The address of a remappable message (section 5.1.2.2): 0xFEE in 31:20, handle\[14:0\] in 19:5, format 1 in bit 4,
/// SHV in bit 3, handle\[15\] in bit 2. With `subhandle` the message's data is added to the handle.
pub const fn message_address(handle: u16, subhandle: bool) -> u64 {
    0xfee0_0000 | (handle as u64 & 0x7fff) << 5 | 1 << 4 | (subhandle as u64) << 3 | (handle as u64 >> 15) << 2
}

/// A remappable I/O APIC redirection entry, unmasked (section 5.1.5.1): vector 7:0, handle\[15\] in bit 11, polarity
/// 13, trigger 15, format 1 in bit 48, handle\[14:0\] in 63:49.
pub const fn io_apic_entry(handle: u16, vector: Vector, trigger: Trigger, polarity: Polarity) -> u64 {
    vector.0 as u64
        | (handle as u64 >> 15) << 11
        | (matches!(polarity, Polarity::ActiveLow) as u64) << 13
        | (matches!(trigger, Trigger::Level) as u64) << 15
        | 1 << 48
        | (handle as u64 & 0x7fff) << 49
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remapped_entry_validates_the_source_that_may_use_it() {
        let entry = Entry::remapped(Vector(0x41), 0x300, Trigger::Edge, Bdf::from_u16(0x00f8));
        assert_eq!(entry.low, 0x0000_0300_0041_0001);
        assert_eq!(entry.high, 0x4_00f8);
        assert_eq!(Entry::remapped(Vector(0x41), 0, Trigger::Level, Bdf::from_u16(0)).low, 0x41_0011);
    }

    #[test]
    fn a_posted_entry_names_its_descriptor_in_two_parts() {
        let entry = Entry::posted(Vector(0x55), HostPhys::new(0x12_3456_7fc0), true, Bdf::from_u16(0xabcd));
        assert_eq!(entry.low, 0x3456_7fc0_0055_c001);
        assert_eq!(entry.high, 0x0000_0012_0004_abcd);
    }

    #[test]
    fn destinations_stand_where_the_mode_has_them() {
        assert_eq!(DestinationMode::XApic.field(ApicId(3)), Some(0x300));
        assert_eq!(DestinationMode::XApic.field(ApicId(0xff)), None, "the broadcast");
        assert_eq!(DestinationMode::XApic.field(ApicId(0x100)), None);
        assert_eq!(DestinationMode::X2Apic.field(ApicId(0x12345)), Some(0x12345));
        assert_eq!(DestinationMode::X2Apic.field(ApicId(u32::MAX)), None);
    }

    #[test]
    fn a_message_has_the_format_in_bit_4_and_the_subhandle_in_bit_3() {
        assert_eq!(message_address(0, false), 0xfee0_0010);
        assert_eq!(message_address(1, false), 0xfee0_0030);
        assert_eq!(message_address(0x8001, true), 0xfee0_003c);
        assert_eq!(message_address(0x7fff, false), 0xfeef_fff0);
    }

    #[test]
    fn an_io_apic_entry_carries_the_handle_in_two_parts() {
        let entry = io_apic_entry(0x8003, Vector(0x31), Trigger::Level, Polarity::ActiveLow);
        assert_eq!(entry, 3 << 49 | 1 << 48 | 1 << 15 | 1 << 13 | 1 << 11 | 0x31);
        assert_eq!(io_apic_entry(1, Vector(0x31), Trigger::Edge, Polarity::ActiveHigh), 1 << 49 | 1 << 48 | 0x31);
    }
}
