//! The two capability lists. PCI Local Bus 3.0 section 6.7 and appendix H; PCI Express Base sections 7.5.3 and 7.9.

/// Capability ids of the list in the first 256 bytes.
pub mod id {
    /// Power Management.
    pub const POWER_MANAGEMENT: u8 = 0x01;
    /// Message signalled interrupts.
    pub const MSI: u8 = 0x05;
    /// Vendor-specific.
    pub const VENDOR_SPECIFIC: u8 = 0x09;
    /// PCI Express.
    pub const PCI_EXPRESS: u8 = 0x10;
    /// MSI-X.
    pub const MSI_X: u8 = 0x11;
    /// Advanced Features: function level reset for conventional PCI.
    pub const ADVANCED_FEATURES: u8 = 0x13;
}

/// Capability ids of the list from offset 0x100.
pub mod extended_id {
    /// Advanced Error Reporting.
    pub const ADVANCED_ERROR_REPORTING: u16 = 0x0001;
    /// Device Serial Number.
    pub const DEVICE_SERIAL_NUMBER: u16 = 0x0003;
    /// Access Control Services.
    pub const ACCESS_CONTROL_SERVICES: u16 = 0x000D;
    /// Alternative Routing-ID Interpretation.
    pub const ALTERNATIVE_ROUTING_ID: u16 = 0x000E;
    /// Address Translation Services.
    pub const ADDRESS_TRANSLATION_SERVICES: u16 = 0x000F;
    /// Single Root I/O Virtualization.
    pub const SINGLE_ROOT_IO_VIRTUALIZATION: u16 = 0x0010;
    /// Page Request Interface.
    pub const PAGE_REQUEST: u16 = 0x0013;
    /// Process Address Space Id.
    pub const PASID: u16 = 0x001B;
}

/// The lowest offset of a capability: the header ends there.
pub const FIRST_OFFSET: u8 = 0x40;
/// The lowest offset of an extended capability.
pub const FIRST_EXTENDED_OFFSET: u16 = 0x100;

/// Power Management. PCI Bus Power Management Interface 1.2 section 3.2.
pub mod power_management {
    /// Offset of the capabilities register, 16 bits, read-only.
    pub const CAPABILITIES: u16 = 2;
    /// Capabilities: the version of the specification, bits 2:0.
    pub const VERSION: u16 = 7;
    /// Offset of the control and status register, 16 bits.
    pub const CONTROL_STATUS: u16 = 4;
    /// Control: the power state, bits 1:0.
    pub const STATE: u16 = 0b11;
    /// Control: state D3hot.
    pub const D3_HOT: u16 = 0b11;
    /// Control, bit 3, read-only: going from D3hot to D0 does not reset the function.
    pub const NO_SOFT_RESET: u16 = 1 << 3;
    /// Control, bit 15: PME status, write-1-to-clear.
    pub const PME_STATUS: u16 = 1 << 15;
    /// Size of the capability, in bytes.
    pub const LENGTH: u8 = 8;
}

/// Advanced Features. Engineering change notice "Advanced Capabilities for Conventional PCI" of 2006.
pub mod advanced_features {
    /// Offset of the capabilities register, 8 bits, read-only.
    pub const CAPABILITIES: u16 = 3;
    /// Capabilities, bit 0: transactions pending is there.
    pub const TRANSACTIONS_PENDING_CAPABLE: u8 = 1 << 0;
    /// Capabilities, bit 1: function level reset is there.
    pub const FUNCTION_LEVEL_RESET_CAPABLE: u8 = 1 << 1;
    /// Offset of the control register, 8 bits; bit 0 starts the reset.
    pub const CONTROL: u16 = 4;
    /// Control, bit 0: start a function level reset.
    pub const INITIATE_RESET: u8 = 1 << 0;
    /// Offset of the status register, 8 bits, read-only.
    pub const STATUS: u16 = 5;
    /// Status, bit 0: transactions are pending.
    pub const TRANSACTIONS_PENDING: u8 = 1 << 0;
}

/// Device Serial Number. PCI Express Base section 7.9.3.
pub mod device_serial_number {
    /// Size of the capability, in bytes: the header and 64 bits, read-only.
    pub const LENGTH: u16 = 12;
}

/// Access Control Services. PCI Express Base section 7.7.11.
pub mod acs {
    /// Offset of the capability register, 16 bits, read-only.
    pub const CAPABILITY: u16 = 4;
    /// Offset of the control register, 16 bits, with the same bits.
    pub const CONTROL: u16 = 6;
    /// Bit 0: a requester id that is not of the port's buses is blocked.
    pub const SOURCE_VALIDATION: u16 = 1 << 0;
    /// Bit 2: peer-to-peer requests go up to the root complex.
    pub const REQUEST_REDIRECT: u16 = 1 << 2;
    /// Bit 3: peer-to-peer completions go up to the root complex.
    pub const COMPLETION_REDIRECT: u16 = 1 << 3;
    /// Bit 4: what comes up is forwarded up, even if it is addressed down the same port.
    pub const UPSTREAM_FORWARDING: u16 = 1 << 4;
}
