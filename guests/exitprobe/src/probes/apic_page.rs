//! The local APIC by its page: each access is an exit, and the hypervisor executes the instruction in the guest's stead.

use super::control::{read_cr8, write_cr8};
use super::priority::{COMMAND, ERROR_STATUS, TO_SELF};
use super::timer;
use super::waiting::wait_for;
use crate::list::{Complaint, List, Verdict, ensure};
use crate::trap::{self, SPURIOUS, TIMER, attempt};
use addr::Vector;
use core::arch::asm;
use guest_support::{apic, clock, memory};
use x86_64::instructions::interrupts;

/// Registers of the page.
const VERSION: usize = 0x30;
const LOGICAL_DESTINATION: usize = 0xd0;
const DESTINATION_FORMAT: usize = 0xe0;
const COMMAND_HIGH: usize = 0x310;

/// Arithmetic flags: CF, PF, AF, ZF, SF, OF. AF is undefined after logic.
const FLAGS: u64 = 0x8d5;
const AUXILIARY: u64 = 1 << 4;

pub fn probe(list: &mut List) {
    list.probe("mmio-setup", setup);
    list.probe("mmio-forms", forms);
    list.probe("mmio-exchanges", exchanges);
    list.probe("mmio-bits", bits);
    list.probe("mmio-strings", strings);
    list.probe("mmio-flags", flags);
    list.probe("mmio-step", step);
    list.probe("mmio-registers", registers);
    list.probe("mmio-ipi", interrupts_by_page);
}

fn setup() -> Verdict {
    let base = super::msr::read(apic::IA32_APIC_BASE);
    ensure!(base == Ok(apic::XAPIC_BASE.as_u64() | 0x900), "IA32_APIC_BASE begins with {base:x?}");
    let id = apic::initialize_in(false, TIMER, SPURIOUS);
    ensure!(id.0 == 0, "the only processor's id is {}", id.0);
    match clock::initialize() {
        Ok(_) => Ok(()),
        Err(why) => Err(Complaint::new(format_args!("no clock: {why}"))),
    }
}

fn page() -> *mut u32 {
    memory::mapped(apic::XAPIC_BASE).as_mut_ptr()
}

/// The task priority register, by the plainest instruction.
fn priority() -> u32 {
    apic::read(apic::TASK_PRIORITY)
}

/// Loads and stores by the forms that compilers choose.
fn forms() -> Verdict {
    let page = page();
    let (plain, extended, indexed, direct, sign, version): (u64, u64, u64, u64, u64, u64);
    // SAFETY: reading the version and the task priority has no effect.
    let caught = unsafe {
        attempt!(
            "mov rax, -1\n mov eax, [rdx + 0x30]\n mov r8, -1\n mov r8d, dword ptr [rdx + 0x30]\n mov r9, -1\n \
             mov r9d, [rdx + rcx*8 + 0x10]\n mov r10, rax\n lea rsi, [rdx + 0x30]\n push rax\n \
             mov eax, [rsi]\n mov r11, rax\n pop rax\n movsxd rdi, dword ptr [rdx + 0x30]\n cmp byte ptr [rdx + 0x30], 0",
            inout("rdx") page => _, inout("rcx") 4u64 => _, out("rax") plain, out("r8") extended,
            out("r9") indexed, out("r10") version, out("r11") direct, out("rdi") sign, out("rsi") _
        )
    };
    ensure!(caught.is_none(), "{caught:x?}");
    let expected = u64::from(apic::read(VERSION));
    ensure!(expected & 0xff >= 0x10 && expected >> 32 == 0, "the version is {expected:#x}");
    for (name, value) in [
        ("mov r32", plain),
        ("mov with REX", extended),
        ("mov with SIB", indexed),
        ("mov by another address", direct),
        ("movsxd", sign),
        ("mov", version),
    ] {
        ensure!(value == expected, "{name} reads {value:#x} and not {expected:#x}");
    }
    // SAFETY: the task priority decides about interrupts, which are off.
    unsafe {
        asm!("mov dword ptr [{0} + 0x80], 0x12", in(reg) page);
        ensure!(priority() == 0x12, "mov imm32: {:#x}", priority());
        asm!("mov [{0} + 0x80], r12d", in(reg) page, in("r12d") 0x23u32);
        ensure!(priority() == 0x23, "mov from a REX register: {:#x}", priority());
        asm!("mov [{0} + {1}*4], {2:e}", in(reg) page, in(reg) 0x20u64, in(reg) 0x34u32);
        ensure!(priority() == 0x34, "mov to a scaled index: {:#x}", priority());
        asm!("or dword ptr [{0} + 0x80], 0x41", in(reg) page);
        ensure!(priority() == 0x75, "or: {:#x}", priority());
        asm!("and dword ptr [{0} + 0x80], {1:e}", in(reg) page, in(reg) 0xf6u32);
        ensure!(priority() == 0x74, "and: {:#x}", priority());
        asm!("xor dword ptr [{0} + 0x80], 0x0f", in(reg) page);
        ensure!(priority() == 0x7b, "xor: {:#x}", priority());
        asm!("add dword ptr [{0} + 0x80], {1:e}", in(reg) page, in(reg) 5u32);
        ensure!(priority() == 0x80, "add: {:#x}", priority());
        asm!("sub dword ptr [{0} + 0x80], 0x70", in(reg) page);
        ensure!(priority() == 0x10, "sub: {:#x}", priority());
        let mut sum = 0x100u64;
        asm!("add {1:e}, dword ptr [{0} + 0x80]", in(reg) page, inout(reg) sum);
        ensure!(sum == 0x110, "add from memory: {sum:#x}");
    }
    apic::write(apic::TASK_PRIORITY, 0);
    Ok(())
}

/// Instructions that read and write at once, with LOCK and without.
fn exchanges() -> Verdict {
    let page = page().wrapping_byte_add(apic::TASK_PRIORITY);
    let (mut exchanged, mut added) = (0x31u64, 0x07u64);
    let (mut equal, mut different) = (0x38u64, 0x99u64);
    apic::write(apic::TASK_PRIORITY, 0x12);
    // SAFETY: the task priority decides about interrupts, which are off.
    unsafe {
        asm!("xchg [{0}], {1:e}", in(reg) page, inout(reg) exchanged);
        ensure!((priority(), exchanged) == (0x31, 0x12), "xchg: {:#x}, {exchanged:#x}", priority());
        asm!("lock xadd [{0}], {1:e}", in(reg) page, inout(reg) added);
        ensure!((priority(), added) == (0x38, 0x31), "xadd: {:#x}, {added:#x}", priority());
        asm!("lock cmpxchg [{0}], {1:e}", in(reg) page, in(reg) 0x45u32, inout("rax") equal);
        ensure!((priority(), equal) == (0x45, 0x38), "cmpxchg of equals: {:#x}, {equal:#x}", priority());
        asm!("cmpxchg [{0}], {1:e}", in(reg) page, in(reg) 0x56u32, inout("rax") different);
        ensure!((priority(), different) == (0x45, 0x45), "cmpxchg: {:#x}, {different:#x}", priority());
        asm!("inc dword ptr [{0}]", "inc dword ptr [{0}]", "lock dec dword ptr [{0}]", in(reg) page);
        ensure!(priority() == 0x46, "inc and dec: {:#x}", priority());
        asm!("not dword ptr [{0}]", in(reg) page);
        ensure!(priority() == 0xb9, "not: {:#x}", priority());
        asm!("lock neg dword ptr [{0}]", in(reg) page);
        ensure!(priority() == 0x47, "neg: {:#x}", priority());
        asm!("lock or dword ptr [{0}], 8", in(reg) page);
        ensure!(priority() == 0x4f, "lock or: {:#x}", priority());
    }
    apic::write(apic::TASK_PRIORITY, 0);
    Ok(())
}

/// Instructions on one bit, by its number in the register and by one that counts from elsewhere in the page.
fn bits() -> Verdict {
    let page = page();
    let place = page.wrapping_byte_add(apic::TASK_PRIORITY);
    let mut were = [0u8; 5];
    let [a, b, c, d, e] = &mut were;
    apic::write(apic::TASK_PRIORITY, 0x21);
    // SAFETY: as above.
    unsafe {
        asm!("bt dword ptr [{0}], 5", "setc {1}", in(reg) place, out(reg_byte) *a);
        asm!("lock bts dword ptr [{0}], 1", "setc {1}", in(reg) place, out(reg_byte) *b);
        asm!("btr dword ptr [{0}], {2:e}", "setc {1}", in(reg) page, out(reg_byte) *c, in(reg) 8 * 0x80u32);
        asm!("btc qword ptr [{0}], {2}", "setc {1}", in(reg) place.wrapping_byte_add(0x100), out(reg_byte) *d,
            in(reg) 6 - 8 * 0x100i64);
    }
    // A quadword is no register: it reads as all ones, and what is written is lost.
    ensure!(priority() == 0x22, "the task priority is {:#x}", priority());
    // SAFETY: as above.
    unsafe { asm!("btc dword ptr [{0}], 6", "setc {1}", in(reg) place, out(reg_byte) *e) };
    ensure!(priority() == 0x62, "the task priority is {:#x} then", priority());
    ensure!(were == [1, 0, 1, were[3], 0], "the bits were {were:?}");
    apic::write(apic::TASK_PRIORITY, 0);
    Ok(())
}

/// String instructions with one end at registers.
fn strings() -> Verdict {
    let page = page();
    let version = page.wrapping_byte_add(VERSION);
    let place = page.wrapping_byte_add(apic::TASK_PRIORITY);
    let mut copied = [0u32; 2];
    let (count, from, to): (u64, u64, u64);
    let stored: u64;
    let loaded: u64;
    // SAFETY: reading the version has no effect; the task priority decides about interrupts, which are off.
    unsafe {
        asm!("rep movsd", inout("rcx") 1u64 => count, inout("rsi") version => from, inout("rdi") copied.as_mut_ptr() => to);
        asm!("rep stosd", inout("rcx") 1u64 => _, inout("rdi") place => stored, in("eax") 0x5au32);
    }
    ensure!(copied == [apic::read(VERSION), 0], "movsd copied {copied:x?}");
    let ends = (version as u64 + 4, copied.as_ptr() as u64 + 4, 0);
    ensure!((from, to, count) == ends, "movsd ended at {from:#x} and {to:#x} with {count}");
    ensure!(priority() == 0x5a && stored == place as u64 + 4, "stosd: {:#x}, {stored:#x}", priority());
    copied[1] = 0x6b;
    // SAFETY: as above.
    unsafe {
        asm!("std", "movsd", "cld", inout("rsi") &raw const copied[1] => _, inout("rdi") place => _);
        asm!("lodsd", inout("rsi") place => _, inout("rax") u64::MAX => loaded);
    }
    ensure!(priority() == 0x6b && loaded == 0x6b, "movsd down: {:#x}; lodsd: {loaded:#x}", priority());
    apic::write(apic::TASK_PRIORITY, 0);
    Ok(())
}

/// The flags of an instruction that the hypervisor executes are those of the same instruction on memory.
fn flags() -> Verdict {
    macro_rules! compare {
        ($($instruction:literal),* $(,)?) => {
            $(for (memory, operand) in
                [(0u32, 0u32), (0x10, 0x10), (0x10, 0x20), (0x80, 0x80), (0xff, 1), (1, 0xffff_ffff), (0x55, 0xaa), (0x7f, 0x8000_0000)]
            {
                apic::write(apic::TASK_PRIORITY, memory);
                let mut cell = memory;
                let (by_page, by_memory): (u64, u64);
                // SAFETY: one touches the task priority, the other a local; the flags are saved by a push.
                unsafe {
                    asm!(concat!("stc\n ", $instruction, "\n pushfq\n pop {flags}"), flags = lateout(reg) by_page,
                        in("rdx") page().wrapping_byte_add(apic::TASK_PRIORITY), inout("ecx") operand => _,
                        inout("eax") operand => _);
                    asm!(concat!("stc\n ", $instruction, "\n pushfq\n pop {flags}"), flags = lateout(reg) by_memory,
                        in("rdx") &raw mut cell, inout("ecx") operand => _, inout("eax") operand => _);
                }
                let logic = ["or ", "and", "xor", "test"].into_iter().any(|name| $instruction.starts_with(name));
                let mask = if logic { FLAGS & !AUXILIARY } else { FLAGS };
                let differ = (by_page ^ by_memory) & mask;
                ensure!(differ == 0, "{} of {memory:#x} and {operand:#x}: flags {differ:#x} differ", $instruction);
                ensure!(priority() == cell & 0xff, "{} of {memory:#x} and {operand:#x}: {:#x}", $instruction, priority());
            })*
        };
    }
    compare!(
        "cmp dword ptr [rdx], ecx",
        "cmp ecx, dword ptr [rdx]",
        "cmp dword ptr [rdx], 0x10",
        "test dword ptr [rdx], ecx",
        "test dword ptr [rdx], 0x80",
        "or dword ptr [rdx], ecx",
        "and dword ptr [rdx], ecx",
        "xor dword ptr [rdx], ecx",
        "add dword ptr [rdx], ecx",
        "sub dword ptr [rdx], ecx",
        "neg dword ptr [rdx]",
        "not dword ptr [rdx]",
        "inc dword ptr [rdx]",
        "lock dec dword ptr [rdx]",
        "xadd dword ptr [rdx], ecx",
        "lock cmpxchg dword ptr [rdx], ecx",
    );
    apic::write(apic::TASK_PRIORITY, 0);
    Ok(())
}

/// Single-stepping over an access to the page.
fn step() -> Verdict {
    // SAFETY: reading the version has no effect.
    let (caught, length) = unsafe { trap::step!("mov eax, [rdx + 0x30]", in("rdx") page(), out("eax") _) };
    ensure!(
        caught.is_some_and(|caught| caught.vector == trap::DEBUG && caught.offset == length),
        "{caught:x?}, the instruction is {length} long"
    );
    Ok(())
}

fn registers() -> Verdict {
    for (name, register, value, expected) in [
        ("DFR", DESTINATION_FORMAT, 0x0fff_ffff, 0x0fff_ffff),
        ("DFR", DESTINATION_FORMAT, 0xf000_0000, 0xffff_ffff),
        ("LDR", LOGICAL_DESTINATION, 0xa5ff_ffff, 0xa500_0000),
        ("ICR high", COMMAND_HIGH, 0xffff_ffff, 0xff00_0000),
        ("ICR high", COMMAND_HIGH, 0, 0),
        ("TPR", apic::TASK_PRIORITY, 0xffff_ff5a, 0x5a),
    ] {
        apic::write(register, value);
        let now = apic::read(register);
        ensure!(now == expected, "{name} = {value:#x} reads {now:#x}");
    }
    ensure!(read_cr8() == 5, "the task priority is 0x5a, and CR8 reads {}", read_cr8());
    write_cr8(9);
    ensure!(priority() == 0x90, "CR8 is 9, and the task priority reads {:#x}", priority());
    write_cr8(0);
    // The version cannot be written, and what is no register is noted.
    apic::write(VERSION, 0);
    ensure!(apic::read(VERSION) != 0, "the version could be written");
    apic::write(ERROR_STATUS, 0);
    let _ = apic::read(0x40);
    apic::write(ERROR_STATUS, 0);
    ensure!(
        apic::read(ERROR_STATUS) & 1 << 7 != 0,
        "an illegal register is not noted: {:#x}",
        apic::read(ERROR_STATUS)
    );
    apic::write(ERROR_STATUS, 0);
    Ok(())
}

fn interrupts_by_page() -> Verdict {
    trap::forget_interrupts();
    apic::write(COMMAND, TO_SELF | 0x61);
    interrupts::enable();
    let came = wait_for(10_000, || trap::count(Vector(0x61)) == 1);
    timer::start(1000);
    let timed = wait_for(500_000, || trap::count(TIMER) == 1);
    interrupts::disable();
    ensure!(came, "no interrupt by the command register");
    ensure!(timed, "no interrupt of the timer");
    ensure!(trap::taken() == 2, "{} interrupts and not 2", trap::taken());
    ensure!(apic::read(super::priority::PROCESSOR_PRIORITY) == 0, "one is still in service");
    Ok(())
}
