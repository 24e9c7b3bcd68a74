//! Interruption information: of the event that an entry delivers, that exited, or whose delivery an exit interrupted
//! (SDM vol. 3, 25.8.3, 25.9.2 and 25.9.3).

/// Bits 7:0: the vector.
pub const VECTOR: u32 = 0xff;
/// Bits 10:8: the type.
pub const TYPE_SHIFT: u32 = 8;
/// The type, shifted down.
pub const TYPE: u32 = 7;
/// Type: external interrupt.
pub const TYPE_EXTERNAL_INTERRUPT: u32 = 0;
/// Type: NMI.
pub const TYPE_NMI: u32 = 2;
/// Type: hardware exception.
pub const TYPE_HARDWARE_EXCEPTION: u32 = 3;
/// Type: software interrupt, INT n.
pub const TYPE_SOFTWARE_INTERRUPT: u32 = 4;
/// Type: privileged software exception, INT1.
pub const TYPE_PRIVILEGED_SOFTWARE_EXCEPTION: u32 = 5;
/// Type: software exception, INT3 and INTO.
pub const TYPE_SOFTWARE_EXCEPTION: u32 = 6;
/// Bit 11: there is an error code.
pub const ERROR_CODE_VALID: u32 = 1 << 11;
/// Bit 12 of the event that exited: IRET had already ended the blocking of NMIs.
pub const NMI_UNBLOCKING_BY_IRET: u32 = 1 << 12;
/// Bit 31: there is an event.
pub const VALID: u32 = 1 << 31;
