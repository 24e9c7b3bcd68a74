//! VMCB offset 60h: virtual interrupts (APM vol. 2, 15.21).

/// V_TPR: the guest's CR8.
pub const TASK_PRIORITY: u64 = 0xf;
/// V_IRQ: a virtual interrupt is pending.
pub const IRQ: u64 = 1 << 8;
/// V_INTR_PRIO: the lowest bit of the virtual interrupt's priority, which must be above V_TPR.
pub const PRIORITY_SHIFT: u32 = 16;
/// V_INTR_PRIO.
pub const PRIORITY: u64 = 0xf << PRIORITY_SHIFT;
/// V_IGN_TPR: the virtual interrupt is taken whatever CR8 is.
pub const IGNORE_TASK_PRIORITY: u64 = 1 << 20;
/// V_INTR_MASKING: the guest's RFLAGS.IF and CR8 rule virtual interrupts only; physical ones obey the host's.
pub const MASKING: u64 = 1 << 24;
/// V_INTR_VECTOR: the lowest bit of the virtual interrupt's vector.
pub const VECTOR_SHIFT: u32 = 32;
/// V_INTR_VECTOR.
pub const VECTOR: u64 = 0xff << VECTOR_SHIFT;
