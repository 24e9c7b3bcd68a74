//! The moment at which a pending interrupt is taken: exactly when the program allows it, neither before nor after.

use super::priority::send;
use crate::list::{List, Verdict, ensure, note};
use crate::trap;
use core::arch::asm;

pub fn probe(list: &mut List) {
    list.probe("window-sti", sti);
    list.probe("window-popf", popf);
    list.probe("window-mov-ss", mov_ss);
    list.probe("window-sti-cli", sti_cli);
    list.probe("window-exits", exits);
}

/// One interrupt came, and interrupted at `wanted`.
fn ensure_at(wanted: u64, what: &str) -> Verdict {
    let at = trap::interrupted_at(0).wrapping_sub(wanted) as i64;
    ensure!(trap::taken() == 1, "{what}: {} interrupts", trap::taken());
    ensure!(at == 0, "{what}: taken {at} bytes from where it is to be taken");
    Ok(())
}

/// Executes instructions with an interrupt pending; the interrupt must be taken at label 22.
macro_rules! taken_at_22 {
    ($what:literal, $($instruction:literal),+) => {{
        trap::forget_interrupts();
        send(0x61);
        let wanted: u64;
        // SAFETY: the registers are declared, and interrupts are off in the end.
        unsafe {
            asm!(
                "lea r9, [rip + 22f]",
                $($instruction,)+
                "cli",
                out("r9") wanted, inout("rax") 0u64 => _, out("rcx") _, out("rdx") _, out("r10") _,
            );
        }
        ensure_at(wanted, $what)?;
    }};
}

fn sti() -> Verdict {
    taken_at_22!("sti; nop; nop", "sti", "nop", "22: nop", "nop");
    taken_at_22!("sti; mov; mov", "sti", "mov eax, 1", "22: mov eax, 2", "nop");
    taken_at_22!("sti; sti; nop", "sti", "sti", "22: nop", "nop");
    Ok(())
}

fn popf() -> Verdict {
    taken_at_22!("popf", "pushfq", "or dword ptr [rsp], 0x200", "popfq", "22: nop", "nop");
    Ok(())
}

/// MOV SS protects the next instruction. AMD and Intel agree on it for interrupts.
fn mov_ss() -> Verdict {
    trap::forget_interrupts();
    send(0x61);
    let (wanted, early): (u64, u64);
    // SAFETY: SS is loaded with what it holds, and interrupts are off in the end.
    unsafe {
        asm!(
            "mov ecx, ss",
            "lea r8, [rip + 44f]",
            "lea r9, [rip + 22f]",
            "pushfq",
            "or dword ptr [rsp], 0x200",
            "mov edx, 1",
            // The shadow of STI covers the MOV SS, and that one's the NOP.
            "sti",
            "44: mov ss, ecx",
            "nop",
            "22: nop",
            "cli",
            "lea rsp, [rsp + 8]",
            out("r9") wanted, out("r8") early, out("rcx") _, out("rdx") _,
        );
    }
    ensure!(trap::interrupted_at(0) != early, "taken in the shadow of STI");
    if trap::interrupted_at(0) == wanted.wrapping_sub(1) {
        // A processor may drop the second of two shadows in a row (SDM volume 3, 7.8.3).
        note(format_args!("of two interrupt shadows in a row only the first holds"));
        return Ok(());
    }
    ensure_at(wanted, "sti; mov ss; nop")
}

/// Between STI and CLI nothing is taken.
fn sti_cli() -> Verdict {
    trap::forget_interrupts();
    send(0x61);
    // SAFETY: interrupts are off in the end.
    unsafe { asm!("sti", "cli", "nop", "nop") };
    let early = trap::taken();
    // SAFETY: as above.
    unsafe { asm!("sti", "nop", "nop", "cli") };
    ensure!(early == 0, "taken between STI and CLI");
    ensure!(trap::taken() == 1, "then {} were taken", trap::taken());
    Ok(())
}

/// The instruction in the shadow exits: the interrupt comes right after it.
fn exits() -> Verdict {
    taken_at_22!("sti; cpuid", "mov r10, rbx", "sti", "cpuid", "22: nop", "nop", "mov rbx, r10");
    taken_at_22!("sti; in", "sti", "in al, 0x80", "22: nop", "nop");
    taken_at_22!("sti; out", "sti", "out 0x80, al", "22: nop", "nop");
    taken_at_22!("sti; rdmsr", "mov ecx, 0x1b", "sti", "rdmsr", "22: nop", "nop");
    taken_at_22!("sti; hlt", "sti", "hlt", "22: nop", "nop");
    Ok(())
}
