//! The PCI Express capability. PCI Express Base section 7.5.3.

/// Offset of the capabilities register, 16 bits, read-only.
pub const CAPABILITIES: u16 = 0x02;
/// Capabilities: the version, bits 3:0.
pub const VERSION: u16 = 0xF;
/// Capabilities: device or port type, bits 7:4.
pub const DEVICE_PORT_TYPE_SHIFT: u32 = 4;

/// Offset of the device capabilities register, 32 bits, read-only.
pub const DEVICE_CAPABILITIES: u16 = 0x04;
/// Device capabilities, bit 28: function level reset.
pub const FUNCTION_LEVEL_RESET_CAPABLE: u32 = 1 << 28;

/// Offset of the device control register, 16 bits.
pub const DEVICE_CONTROL: u16 = 0x08;
/// Device control, bit 4: the function may mark requests that need not keep their order.
pub const RELAXED_ORDERING: u16 = 1 << 4;
/// Device control, bits 14:12: the largest read request, 128 bytes shifted left by it.
pub const MAXIMUM_READ_REQUEST: u16 = 7 << 12;
/// Device control, bit 15: start a function level reset; reads 0.
pub const INITIATE_FUNCTION_LEVEL_RESET: u16 = 1 << 15;

/// Offset of the device status register, 16 bits, errors write-1-to-clear.
pub const DEVICE_STATUS: u16 = 0x0A;
/// Device status, bit 5, read-only: the function has started requests that are not completed.
pub const TRANSACTIONS_PENDING: u16 = 1 << 5;

/// Device status, bits 3:0, write-1-to-clear: the errors that were detected.
pub const DEVICE_ERRORS: u16 = 0xF;

/// Offset of the link control register, 16 bits; the link status register is beside it.
pub const LINK_CONTROL: u16 = 0x10;
/// Offset of the device capabilities 2 register, 32 bits, read-only.
pub const DEVICE_CAPABILITIES_2: u16 = 0x24;
/// Device capabilities 2, bit 5: the port has [`ARI_FORWARDING`].
pub const ARI_FORWARDING_SUPPORTED: u32 = 1 << 5;

/// Offset of the device control 2 register, 16 bits; device status 2 is beside it.
pub const DEVICE_CONTROL_2: u16 = 0x28;
/// Device control 2, bit 5: the port lets all 256 functions of the device below it be reached.
pub const ARI_FORWARDING: u16 = 1 << 5;
/// Offset of the link control 2 register, 16 bits; link status 2 is beside it.
pub const LINK_CONTROL_2: u16 = 0x30;

/// Size of a version 1 capability of an endpoint, in bytes: up to the link status.
pub const LENGTH_VERSION_1: u8 = 0x14;
/// Size of a version 2 capability, in bytes.
pub const LENGTH_VERSION_2: u8 = 0x3C;
