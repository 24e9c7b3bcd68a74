//! The registers of the hypervisor at an exception or interrupt.

/// The registers at an exception or interrupt, as the stubs leave them on the stack.
#[derive(Debug)]
#[repr(C)]
pub struct Frame {
    /// r15, r14, r13, r12, r11, r10, r9, r8, in this order.
    pub high: [u64; 8],
    /// Destination index.
    pub rdi: u64,
    /// Source index.
    pub rsi: u64,
    /// Frame pointer.
    pub rbp: u64,
    /// Base.
    pub rbx: u64,
    /// Data.
    pub rdx: u64,
    /// Counter.
    pub rcx: u64,
    /// Accumulator.
    pub rax: u64,
    /// The vector, 0 to 255.
    pub vector: u64,
    /// The error code that the processor pushed, or 0 where the vector has none.
    pub error_code: u64,
    /// Where execution was.
    pub rip: u64,
    /// In which code segment.
    pub cs: u64,
    /// With which flags.
    pub rflags: u64,
    /// On which stack.
    pub rsp: u64,
    /// In which stack segment.
    pub ss: u64,
}
