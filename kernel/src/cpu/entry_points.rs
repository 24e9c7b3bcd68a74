//! Where the processor enters the hypervisor for an exception or interrupt: one short stub a vector, which all save
//! the registers in one form and call one function.

#![expect(unsafe_code, reason = "the processor's entry into the hypervisor")]

use core::arch::global_asm;

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

// Vectors 8, 10 to 14, 17, 21, 29 and 30 push an error code (SDM vol. 3, table 7-1; APM vol. 2, table 8-1); the
// other stubs push a zero in its place, so that the frame has one form. Each stub is padded to 16 bytes.
global_asm!(
    r#"
    .section .text.interrupt_entry, "ax"
    .align 16
    .global postern_interrupt_stubs
postern_interrupt_stubs:
    .set vector, 0
    .rept 256
    .align 16
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
    push 0
    .endif
    push vector
    jmp postern_interrupt_common
    .set vector, vector + 1
    .endr

postern_interrupt_common:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    mov rbp, rsp
    and rsp, -16
    call {entered}
    mov rsp, rbp
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq
    "#,
    entered = sym entered,
);

/// Bytes from one stub to the next.
const STUB_BYTES: u64 = 16;

/// The address of the stub for `vector`.
pub fn stub(vector: u8) -> u64 {
    unsafe extern "C" {
        static postern_interrupt_stubs: u8;
    }
    &raw const postern_interrupt_stubs as u64 + u64::from(vector) * STUB_BYTES
}

/// Called by the stubs with a reference to the registers that they saved.
extern "C" fn entered(frame: &Frame) {
    match frame.vector as u8 {
        vector @ 0..=31 => super::exceptions::handle(vector, frame),
        vector => super::interrupts::arrived(addr::Vector(vector)),
    }
}
