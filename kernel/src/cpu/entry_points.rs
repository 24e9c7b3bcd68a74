//! Where the processor enters the hypervisor for an exception or interrupt: one short stub a vector, which all save
//! the registers in one form and call one function.

#![expect(unsafe_code, reason = "the processor's entry into the hypervisor")]

use crate::cpu::frame::Frame;
use crate::cpu::{interrupts, local_apic};
use core::arch::global_asm;
use spin::Once;

/// The vector of the non-maskable interrupt.
const NMI: u8 = 2;

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

/// What is called for an exception, with its vector. Until one is set, exceptions stop the processor silently.
static EXCEPTION_HANDLER: Once<fn(u8, &Frame)> = Once::new();

/// Sets what is called for an exception; only the first call has an effect.
pub fn set_exception_handler(handler: fn(u8, &Frame)) {
    EXCEPTION_HANDLER.call_once(|| handler);
}

/// Called by the stubs with a reference to the registers that they saved.
extern "C" fn entered(frame: &Frame) {
    match frame.vector as u8 {
        NMI => interrupts::nmi_arrived(),
        vector @ 0..=31 => match EXCEPTION_HANDLER.get() {
            Some(handle) => handle(vector, frame),
            None => super::stop(),
        },
        vector => {
            let vector = addr::Vector(vector);
            if interrupts::arrived(vector) {
                local_apic::end_of_interrupt();
            }
        }
    }
}
