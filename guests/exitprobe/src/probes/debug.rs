//! Single-stepping and breakpoints, over instructions that the hypervisor completes in the guest's stead.

use super::control::is_lenient;
use super::timer;
use crate::list::{List, Verdict, ensure, note};
use crate::trap::{self, DEBUG, Exception, GENERAL_PROTECTION, attempt, step};
use core::arch::asm;
use guest_support::{clock, cpu};
use x86_64::instructions::interrupts;

/// DR6: the debug exception is a single step's.
const DR6_SINGLE_STEP: u64 = 1 << 14;
/// DR6: breakpoint 0 was met.
const DR6_BREAKPOINT_0: u64 = 1;
/// DR7 with no breakpoint.
const DR7_NONE: u64 = 0x400;
/// DR7: breakpoint 0 is on, and met by execution.
const DR7_EXECUTION: u64 = DR7_NONE | 2;
/// DR7: breakpoint 0 is on, and met by a store of 8 bytes.
const DR7_STORE: u64 = DR7_NONE | 2 | 1 << 16 | 2 << 18;

pub fn probe(list: &mut List) {
    list.probe("step-plain", plain);
    list.probe("step-exits", exits);
    list.probe("step-halt", halt);
    list.probe("step-fault", fault);
    list.probe("breakpoint", breakpoint);
    list.probe("dr-round-trip", round_trip);
    list.probe("dr6-kept", status_kept);
    list.probe("fault-resume-flag", resume_flag);
}

/// One debug exception, right after the instruction.
fn ensure_stepped(name: &str, (caught, length): (Option<Exception>, i64)) -> Verdict {
    let Some(caught) = caught else { return Err(crate::list::Complaint::new(format_args!("{name}: nothing caught"))) };
    ensure!(caught.vector == DEBUG, "{name}: {caught:x?}");
    ensure!(
        caught.offset == length,
        "{name}: caught {} bytes behind the instruction's begin, which is {length} long",
        caught.offset
    );
    ensure!(caught.dr6 & DR6_SINGLE_STEP != 0, "{name}: DR6 = {:#x}", caught.dr6);
    Ok(())
}

fn plain() -> Verdict {
    // SAFETY: they change what is declared.
    unsafe {
        ensure_stepped("nop", step!("nop"))?;
        ensure_stepped("rdtsc", step!("rdtsc", out("eax") _, out("edx") _))?;
        ensure_stepped("mov", step!("mov rax, cr0", out("rax") _))
    }
}

fn exits() -> Verdict {
    // SAFETY: they change what is declared. The port is nobody's, and the register gets what it holds.
    unsafe {
        let cpuid = step!("cpuid", inout("eax") 0u32 => _, inout("ecx") 0u32 => _, out("edx") _);
        ensure_stepped("cpuid", cpuid)?;
        ensure_stepped("in", step!("in al, 0x80", out("al") _))?;
        ensure_stepped("out", step!("out 0x80, al", in("al") 0u8))?;
        ensure_stepped("rdmsr", step!("rdmsr", in("ecx") 0x1bu32, out("eax") _, out("edx") _))?;
        let pat = cpu::read_msr(0x277);
        ensure_stepped(
            "wrmsr",
            step!("wrmsr", in("ecx") 0x277u32, in("eax") pat as u32, in("edx") (pat >> 32) as u32),
        )?;
        ensure_stepped("invd", step!("wbinvd"))?;
        let cr0 = super::control::read_cr0();
        ensure_stepped("mov cr0", step!("mov cr0, rax", in("rax") cr0))?;
        let cr4 = super::control::read_cr4();
        ensure_stepped("mov cr4", step!("mov cr4, rax", in("rax") cr4))?;
        ensure_stepped("mov cr8", step!("mov cr8, rax", in("rax") 0u64))
    }
}

/// A processor that steps over HLT does not sleep: the debug exception is due when the instruction is done.
fn halt() -> Verdict {
    ensure!(timer::works(), "not tried, as the timer does not work");
    trap::forget_interrupts();
    // It ends a HLT that should not have begun.
    timer::start(200_000);
    interrupts::enable();
    let begin = clock::now_us();
    // SAFETY: something ends it.
    let stepped = unsafe { step!("hlt") };
    let passed = clock::now_us() - begin;
    interrupts::disable();
    timer::stop();
    ensure_stepped("hlt", stepped)?;
    ensure!(passed < 100_000, "it slept for {passed} us, until the timer came");
    Ok(())
}

/// An instruction that faults has no debug exception of its own: the fault comes alone, with TF in the saved flags.
fn fault() -> Verdict {
    // SAFETY: there is no such register.
    let (caught, _) = unsafe { step!("rdmsr", in("ecx") 0xdead_beefu32, out("eax") _, out("edx") _) };
    ensure!(trap::is_fault(caught, GENERAL_PROTECTION), "{caught:x?}");
    ensure!(caught.is_some_and(|caught| caught.rflags & 1 << 8 != 0), "the trap flag is not in the saved flags");
    Ok(())
}

fn breakpoint() -> Verdict {
    let (executed, stored);
    let mut cell = 0u64;
    // SAFETY: the debug registers are exitprobe's, and off again in the end.
    unsafe {
        executed = attempt!(
            "lea rax, [rip + 44f]\n mov dr0, rax\n mov dr7, rdx\n mov rcx, 1\n 44: mov rcx, 2",
            out("rax") _, in("rdx") DR7_EXECUTION, out("rcx") _
        );
        asm!("mov dr7, {}", in(reg) DR7_NONE);
        stored = attempt!(
            "mov dr0, rcx\n mov dr7, rdx\n mov [rcx], rax\n nop\n nop",
            in("rcx") &raw mut cell, in("rax") 0x1234u64, in("rdx") DR7_STORE
        );
        asm!("mov dr7, {}", in(reg) DR7_NONE);
        asm!("mov dr0, {}", in(reg) 0u64);
    }
    let met = |caught: Option<Exception>| {
        caught.is_some_and(|caught| caught.vector == DEBUG && caught.dr6 & 0xf == DR6_BREAKPOINT_0)
    };
    ensure!(met(executed), "by execution: {executed:x?}");
    ensure!(met(stored), "by a store: {stored:x?}");
    // SAFETY: the cell is a local.
    let cell = unsafe { (&raw const cell).read_volatile() };
    ensure!(cell == 0x1234, "the store was not done: {cell:#x}");
    Ok(())
}

fn round_trip() -> Verdict {
    for value in [0x1234_5678_9abcu64, 0] {
        let (zero, three, status): (u64, u64, u64);
        // SAFETY: the breakpoints are off.
        unsafe {
            asm!(
                "mov dr0, {value}", "mov dr3, {value}", "mov eax, 0x40000000", "mov r8, rbx", "cpuid", "mov rbx, r8",
                "mov {zero}, dr0", "mov {three}, dr3", "mov {status}, dr7",
                value = in(reg) value, zero = out(reg) zero, three = out(reg) three, status = out(reg) status,
                out("eax") _, out("ecx") _, out("edx") _, out("r8") _,
            );
        }
        ensure!((zero, three) == (value, value), "{value:#x} reads {zero:#x} and {three:#x} after an exit");
        ensure!(status == DR7_NONE, "DR7 is {status:#x}");
    }
    Ok(())
}

/// A debug exception changes of DR6 what it is about, and no other bit is cleared but by software.
fn status_kept() -> Verdict {
    const ACCESS_DETECTED: u64 = 1 << 13;
    let cell = 0u64;
    let stored;
    // SAFETY: the debug registers are exitprobe's, and as they were in the end.
    unsafe {
        asm!("mov dr6, {}", in(reg) 0xffff_0ff2 | DR6_SINGLE_STEP | ACCESS_DETECTED);
        stored = attempt!(
            "mov dr0, rcx\n mov dr7, rdx\n mov [rcx], rax\n nop\n nop",
            in("rcx") &raw const cell, in("rax") 0u64, in("rdx") DR7_STORE
        );
        asm!("mov dr7, {}", in(reg) DR7_NONE);
        asm!("mov dr0, {}", in(reg) 0u64);
    }
    let expected = DR6_BREAKPOINT_0 | DR6_SINGLE_STEP | ACCESS_DETECTED;
    // Whether B1 goes is the processor's to say.
    let right = |caught: Exception| caught.vector == DEBUG && caught.dr6 & 0xe00d == expected;
    ensure!(stored.is_some_and(right), "{stored:x?}");
    Ok(())
}

/// The flags that a fault pushes have RF, whoever raises it; those of a trap do not.
fn resume_flag() -> Verdict {
    const RESUME_FLAG: u64 = 1 << 16;
    // SAFETY: there is no such register and no such instruction, and nothing is mapped there.
    let faults = unsafe {
        [
            attempt!("rdmsr", in("ecx") 0xdead_beefu32, out("eax") _, out("edx") _),
            attempt!("wrmsr", in("ecx") 0xdead_beefu32, in("eax") 0u32, in("edx") 0u32),
            attempt!("rdpmc", in("ecx") 0x7fff_ffffu32, out("eax") _, out("edx") _),
            attempt!("vmcall", inout("eax") 0u32 => _, out("ecx") _, out("edx") _),
            attempt!("ud2"),
            attempt!("mov rax, [rdx]", out("rax") _, in("rdx") super::space::page(9)),
        ]
    };
    for (number, caught) in faults.into_iter().enumerate() {
        // The first three are the hypervisor's to raise.
        if number >= 3 && is_lenient() && caught.is_some_and(|caught| caught.rflags & RESUME_FLAG == 0) {
            note(format_args!("fault {number} pushes flags without RF, which is an emulator's mistake"));
            continue;
        }
        ensure!(caught.is_some_and(|caught| caught.rflags & RESUME_FLAG != 0), "fault {number}: {caught:x?}");
    }
    // SAFETY: it changes what is declared.
    let (trapped, _) = unsafe { step!("rdtsc", out("eax") _, out("edx") _) };
    ensure!(trapped.is_some_and(|caught| caught.rflags & RESUME_FLAG == 0), "a trap: {trapped:x?}");
    Ok(())
}
