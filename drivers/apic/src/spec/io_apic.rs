//! The I/O APIC's registers. 82093AA data sheet, section 3.

/// Offset of the index register (IOREGSEL) from the base, in bytes; 32-bit accesses, bits 7:0 select.
pub const INDEX_OFFSET: usize = 0x00;
/// Offset of the data window (IOWIN) from the base, in bytes; 32-bit accesses.
pub const WINDOW_OFFSET: usize = 0x10;

/// Index of the identification register: the id in bits 27:24.
pub const ID: u8 = 0x00;
/// Index of the version register: version in bits 7:0, number of the last redirection entry in 23:16.
pub const VERSION: u8 = 0x01;
/// Index of the low half of redirection entry 0. Each entry takes two indices, the low half first.
pub const REDIRECTION_TABLE: u8 = 0x10;

/// How many redirection entries an 8-bit index can reach, from 0x10 to 0xFF.
pub const MAX_REDIRECTION_ENTRIES: u16 = 120;

/// Fields of a redirection entry. Bits that both the legacy and the remappable form have keep their places.
pub mod redirection {
    /// Bits 7:0: vector.
    pub const VECTOR: u64 = 0xFF;
    /// Bits 10:8: delivery mode (in the remappable form, zero).
    pub const DELIVERY_MODE_SHIFT: u32 = 8;
    /// Bit 11: destination mode logical (in the remappable form, bit 15 of the handle).
    pub const LOGICAL_DESTINATION: u64 = 1 << 11;
    /// Bit 12: delivery status, read-only.
    pub const DELIVERY_STATUS: u64 = 1 << 12;
    /// Bit 13: active low.
    pub const ACTIVE_LOW: u64 = 1 << 13;
    /// Bit 14: remote IRR, read-only: a level interrupt was accepted and not yet ended.
    pub const REMOTE_IRR: u64 = 1 << 14;
    /// Bit 15: level-triggered.
    pub const LEVEL: u64 = 1 << 15;
    /// Bit 16: masked.
    pub const MASKED: u64 = 1 << 16;
    /// Bit 48: the remappable form (VT-d "I/OxAPIC Programming").
    pub const REMAPPABLE: u64 = 1 << 48;
    /// Bits 63:56: destination of the legacy form.
    pub const DESTINATION_SHIFT: u32 = 56;
}
