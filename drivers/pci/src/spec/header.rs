//! The first 64 bytes. PCI Local Bus 3.0 section 6.1; PCI-to-PCI Bridge Architecture 1.2 section 3.2; PCI Express Base
//! section 7.5.1.

/// Vendor id, 16 bits, read-only; 0xFFFF where no function is.
pub const VENDOR_ID: u16 = 0x00;
/// Device id, 16 bits, read-only.
pub const DEVICE_ID: u16 = 0x02;
/// Command, 16 bits.
pub const COMMAND: u16 = 0x04;
/// Status, 16 bits, errors write-1-to-clear.
pub const STATUS: u16 = 0x06;
/// Revision id, 8 bits, read-only.
pub const REVISION_ID: u16 = 0x08;
/// Programming interface, 8 bits, read-only; subclass and base class follow.
pub const PROGRAMMING_INTERFACE: u16 = 0x09;
/// Subclass, 8 bits, read-only.
pub const SUBCLASS: u16 = 0x0A;
/// Base class, 8 bits, read-only.
pub const BASE_CLASS: u16 = 0x0B;
/// Cache line size, 8 bits, in 4-byte units.
pub const CACHE_LINE_SIZE: u16 = 0x0C;
/// Latency timer, 8 bits.
pub const LATENCY_TIMER: u16 = 0x0D;
/// Header type, 8 bits, read-only.
pub const HEADER_TYPE: u16 = 0x0E;
/// Built-in self test, 8 bits.
pub const BIST: u16 = 0x0F;
/// Base address register 0, 32 bits; the others follow.
pub const BAR0: u16 = 0x10;
/// Type 0: CardBus CIS pointer, 32 bits, read-only.
pub const CARDBUS_CIS: u16 = 0x28;
/// Type 0: subsystem vendor id, 16 bits, read-only; the subsystem id follows.
pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2C;
/// Type 0: expansion ROM base address, 32 bits.
pub const EXPANSION_ROM: u16 = 0x30;
/// Types 0 and 1: pointer to the first capability, 8 bits, read-only.
pub const CAPABILITIES_POINTER: u16 = 0x34;
/// Interrupt line, 8 bits: the firmware's note, without effect in the function.
pub const INTERRUPT_LINE: u16 = 0x3C;
/// Interrupt pin, 8 bits, read-only: 1 to 4 for INTA# to INTD#, 0 for none.
pub const INTERRUPT_PIN: u16 = 0x3D;

/// Type 1: primary bus number, 8 bits.
pub const PRIMARY_BUS: u16 = 0x18;
/// Type 1: secondary bus number, 8 bits.
pub const SECONDARY_BUS: u16 = 0x19;
/// Type 1: subordinate bus number, 8 bits.
pub const SUBORDINATE_BUS: u16 = 0x1A;
/// Type 1: memory base, 16 bits: address bits 31:20 of what is carried down in bits 15:4.
pub const MEMORY_BASE: u16 = 0x20;
/// Type 1: memory limit, 16 bits: the last MiB that is carried down.
pub const MEMORY_LIMIT: u16 = 0x22;
/// Type 1: prefetchable memory base, 16 bits, with [`WINDOW_64_BIT`].
pub const PREFETCHABLE_BASE: u16 = 0x24;
/// Type 1: prefetchable memory limit, 16 bits.
pub const PREFETCHABLE_LIMIT: u16 = 0x26;
/// Type 1: upper 32 bits of the prefetchable base.
pub const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
/// Type 1: upper 32 bits of the prefetchable limit.
pub const PREFETCHABLE_LIMIT_UPPER: u16 = 0x2C;
/// Bases and limits: the bits that are address.
pub const WINDOW_ADDRESS: u16 = 0xFFF0;
/// Prefetchable base and limit, bits 3:0, read-only: there are upper halves.
pub const WINDOW_64_BIT: u16 = 1;

/// Header type register: the layout, bits 6:0.
pub const HEADER_LAYOUT: u8 = 0x7F;
/// Header type register, bit 7: the device may have functions other than 0.
pub const HEADER_MULTI_FUNCTION: u8 = 0x80;

/// Bits of the command register.
pub mod command {
    /// Bit 0: answers in I/O space.
    pub const IO_SPACE: u16 = 1 << 0;
    /// Bit 1: answers in memory space.
    pub const MEMORY_SPACE: u16 = 1 << 1;
    /// Bit 2: may start transactions: DMA, and messages of MSI and MSI-X.
    pub const BUS_MASTER: u16 = 1 << 2;
    /// Bit 6: parity errors are reported.
    pub const PARITY_ERROR_RESPONSE: u16 = 1 << 6;
    /// Bit 8: SERR# (a non-fatal or fatal error message) is reported.
    pub const SERR_ENABLE: u16 = 1 << 8;
    /// Bit 10: INTx is not asserted.
    pub const INTERRUPT_DISABLE: u16 = 1 << 10;
}

/// Bits of the status register.
pub mod status {
    /// Bit 3, read-only: an INTx is pending.
    pub const INTERRUPT_STATUS: u16 = 1 << 3;
    /// Bit 4, read-only: there is a capability list.
    pub const CAPABILITIES_LIST: u16 = 1 << 4;
    /// Bits 8 and 15:11, write-1-to-clear: the errors.
    pub const ERRORS: u16 = 0xF900;
}

/// Bits of a base address register. PCI Local Bus 3.0 section 6.2.5.1.
pub mod bar {
    /// Bit 0, read-only: in I/O space.
    pub const IO: u32 = 1 << 0;
    /// I/O: bits that are not address (bit 1 is reserved, 0).
    pub const IO_FLAGS: u32 = 0b11;
    /// I/O: bit 1, reserved.
    pub const IO_RESERVED: u32 = 1 << 1;
    /// Memory: bits that are not address.
    pub const MEMORY_FLAGS: u32 = 0xF;
    /// Memory: the type, bits 2:1, read-only.
    pub const MEMORY_TYPE: u32 = 0b11 << 1;
    /// Memory type: 32-bit address.
    pub const MEMORY_TYPE_32: u32 = 0b00 << 1;
    /// Memory type: 64-bit address; the next register is its upper half.
    pub const MEMORY_TYPE_64: u32 = 0b10 << 1;
    /// Memory: bit 3, read-only: prefetchable.
    pub const PREFETCHABLE: u32 = 1 << 3;
    /// Expansion ROM: bit 0: decodes.
    pub const ROM_ENABLE: u32 = 1 << 0;
}
