//! The ways to end by the hypervisor's hand. None of them returns, on no platform; a processor that goes on is reported.

use core::arch::asm;
use exitprobe::command_line::End;
use guest_support::interrupts::{self, Frame};
use guest_support::{apic, memory, report};
use x86_64::VirtAddr;
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;

use crate::probes::control::{self, CACHE_DISABLE, NOT_WRITE_THROUGH};
use crate::trap;
use addr::{GuestPhys, Vector};

/// 1 GiB: above the guest's memory, below the machine's devices; no memory is there in a guest, and none that matters
/// without a hypervisor.
pub const NOWHERE: GuestPhys = GuestPhys::new(0x4000_0000);
/// Read-only memory, with memory before it.
const READ_ONLY: GuestPhys = GuestPhys::new(0xf_0000);
/// The offset of the local APIC's interrupt command register, and in it: INIT, level assert, by id to 0.
const COMMAND: usize = 0x300;
const INIT: u32 = 5 << 8 | 1 << 14;
/// What is stored nowhere, and in a register when the stack is nowhere.
const PATTERN: u32 = 0x600d_f00d;

/// Ends in this way.
pub fn end(way: End) -> ! {
    report::say(format_args!("ends by {}", way.name()));
    // Whatever is raised must not be caught: what comes after is the hypervisor's.
    interrupts::install(report_and_fail);
    let nowhere: *mut u32 = memory::mapped(NOWHERE).as_mut_ptr();
    match way {
        End::TripleFault => {
            let empty = DescriptorTablePointer { base: VirtAddr::zero(), limit: 0 };
            // SAFETY: the processor shuts down here, and with it everything that could be unsound.
            unsafe {
                lidt(&empty);
                asm!("ud2");
            }
        }
        End::JumpNowhere => {
            // SAFETY: nothing is executed: there is no memory. Physical memory can be executed at its own address.
            unsafe { asm!("call {}", in(reg) NOWHERE.as_u64()) };
        }
        End::PageTableNowhere => {
            // SAFETY: the next instruction cannot be fetched.
            unsafe { asm!("mov cr3, {}", in(reg) NOWHERE.as_u64()) };
        }
        End::StackNowhere => stack_at(nowhere),
        End::StackReadOnly => stack_at(memory::mapped(READ_ONLY).as_mut_ptr()),
        End::PushReadOnly => {
            let stack: *mut u8 = memory::mapped(READ_ONLY).as_mut_ptr();
            // SAFETY: nothing is stored; the stack pointer is put back.
            unsafe {
                asm!("mov {own}, rsp", "mov rsp, {stack}", "push rax", "mov rsp, {own}",
                    own = out(reg) _, stack = in(reg) stack.wrapping_byte_add(0x1000));
            }
        }
        End::StoreAcross => {
            let border: *mut u8 = memory::mapped(READ_ONLY).as_mut_ptr();
            // SAFETY: the bytes before read-only memory are nobody's.
            unsafe { asm!("mov [{0}], {1:e}", in(reg) border.wrapping_byte_sub(2), in(reg) PATTERN) };
        }
        End::EntryRefused => {
            // SAFETY: caching is not what the code relies on; CPUID exits. RBX is not used any more.
            unsafe {
                asm!("mov cr0, {}", "cpuid", in(reg) (control::read_cr0() | NOT_WRITE_THROUGH) & !CACHE_DISABLE,
                    out("eax") _, out("ecx") _, out("edx") _);
            }
        }
        End::InitSelf => {
            apic::initialize(trap::TIMER, trap::SPURIOUS);
            apic::write(COMMAND, INIT);
        }
        End::HaltForever => {
            // SAFETY: nothing comes after it.
            unsafe { asm!("cli", "hlt") };
        }
        End::DescriptorTableNowhere => {
            let there = DescriptorTablePointer { base: VirtAddr::from_ptr(nowhere), limit: 0xfff };
            // SAFETY: no gate can be read, so nothing goes on.
            unsafe {
                lidt(&there);
                asm!("ud2");
            }
        }
    }
    report::say(format_args!("still here"));
    report::fail(format_args!("{}-went-on", way.name()))
}

/// An interrupt comes while the stack pointer is at `place` and the program only stores to its own memory: the access that
/// fails is not the instruction's.
fn stack_at(place: *mut u32) -> ! {
    apic::initialize(trap::TIMER, trap::SPURIOUS);
    apic::write(SELF_IPI, u32::from(Vector(0x61).0));
    let mut own = 0u32;
    // SAFETY: the stack is never used again; the stores go to `own`, for ever.
    unsafe {
        asm!(
            "mov rsp, {stack}",
            "sti",
            "22:",
            ".rept 64",
            "mov [{own}], eax",
            ".endr",
            "jmp 22b",
            stack = in(reg) place.wrapping_byte_add(0x1000),
            own = in(reg) &raw mut own,
            in("eax") PATTERN,
            options(noreturn),
        )
    }
}

/// The offset of the x2APIC's SELF IPI register.
pub const SELF_IPI: usize = 0x3f0;

fn report_and_fail(frame: &mut Frame) {
    let (vector, error_code, rip) = (frame.vector(), frame.error_code, frame.rip);
    report::say(format_args!("vector {vector:#x} came, error code {error_code:#x}, at {rip:#x}"));
    report::fail(format_args!("vector-{vector}"))
}
