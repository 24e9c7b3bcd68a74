//! EVENTINJ and EXITINTINFO (APM vol. 2, 15.20 and 15.7.2): the vector in bits 7:0, the type in 10:8, the error code
//! in 63:32.

/// The vector.
pub const VECTOR: u64 = 0xff;
/// The type's lowest bit.
pub const TYPE_SHIFT: u32 = 8;
/// The type, after shifting.
pub const TYPE: u64 = 7;
/// Type: external or virtual interrupt.
pub const TYPE_INTERRUPT: u64 = 0;
/// Type: non-maskable interrupt.
pub const TYPE_NMI: u64 = 2;
/// Type: fault or trap.
pub const TYPE_EXCEPTION: u64 = 3;
/// Type: software interrupt (INT n).
pub const TYPE_SOFTWARE_INTERRUPT: u64 = 4;
/// EV: there is an error code.
pub const ERROR_CODE_VALID: u64 = 1 << 11;
/// V: there is an event.
pub const VALID: u64 = 1 << 31;
/// The error code's lowest bit.
pub const ERROR_CODE_SHIFT: u32 = 32;
