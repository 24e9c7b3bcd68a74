//! Model-specific registers.

use crate::list::{Complaint, List, Verdict, ensure, note};
use crate::trap::{self, Exception, GENERAL_PROTECTION, INVALID_OPCODE, attempt};
use guest_support::cpu::time_stamp;

pub const IA32_TIME_STAMP_COUNTER: u32 = 0x10;
pub const IA32_BIOS_SIGN_ID: u32 = 0x8b;
pub const IA32_MISC_ENABLE: u32 = 0x1a0;
pub const IA32_PAT: u32 = 0x277;
pub const IA32_EFER: u32 = 0xc000_0080;
pub const IA32_STAR: u32 = 0xc000_0081;
pub const IA32_LSTAR: u32 = 0xc000_0082;
pub const IA32_FMASK: u32 = 0xc000_0084;
pub const IA32_FS_BASE: u32 = 0xc000_0100;
pub const IA32_GS_BASE: u32 = 0xc000_0101;
pub const IA32_KERNEL_GS_BASE: u32 = 0xc000_0102;
pub const IA32_SYSENTER_CS: u32 = 0x174;
pub const IA32_SYSENTER_ESP: u32 = 0x175;
pub const IA32_SYSENTER_EIP: u32 = 0x176;

const EFER_SCE: u64 = 1;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;

pub fn probe(list: &mut List) {
    list.probe("msr-unknown-read", unknown_read);
    list.probe("msr-unknown-write", unknown_write);
    list.probe("msr-without-parts", without_parts);
    list.probe("msr-prefixes", prefixes);
    list.probe("msr-pat", page_attribute_table);
    list.probe("msr-efer", efer);
    list.probe("msr-round-trip", round_trip);
    list.probe("msr-swapgs", swap_gs);
    list.probe("msr-misc", misc);
}

/// RDMSR, or the exception of it.
pub fn read(msr: u32) -> Result<u64, Exception> {
    let (low, high): (u32, u32);
    // SAFETY: reading a register changes no memory.
    let caught = unsafe { attempt!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high) };
    caught.map_or(Ok(u64::from(high) << 32 | u64::from(low)), Err)
}

/// WRMSR; the exception of it, if there is one.
///
/// # Safety
/// As that of the register's new value.
pub unsafe fn write(msr: u32, value: u64) -> Option<Exception> {
    // SAFETY: by this function's contract.
    unsafe { attempt!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32) }
}

/// Registers that there are not: of VMX, SVM, banks of machine checks, memory type ranges, and of nobody.
const UNKNOWN: [u32; 18] = [
    0x3a,
    0x122,
    0x17b,
    0x200,
    0x250,
    0x400,
    0x38f,
    0x480,
    0x491,
    0xda0,
    0x2000,
    0xbfff_ffff,
    0xc000_0085,
    0xc000_0103,
    0xc000_2000,
    0xc001_0114,
    0xc001_0117,
    0xdead_beef,
];

/// Machine checks without a bank, and MTRRs without a range: as CPUID shows them.
fn without_parts() -> Verdict {
    const MCG_CAP: u32 = 0x179;
    const MCG_STATUS: u32 = 0x17a;
    const MTRR_CAPABILITY: u32 = 0xfe;
    const MTRR_DEFAULT_TYPE: u32 = 0x2ff;
    for (msr, mask) in [(MCG_CAP, 0xff), (MTRR_CAPABILITY, 0xff), (MCG_STATUS, u64::MAX)] {
        ensure!(read(msr).is_ok_and(|value| value & mask == 0), "{msr:#x} reads {:x?}", read(msr));
    }
    let before = read(MTRR_DEFAULT_TYPE);
    let Ok(default_type) = before else { return Err(Complaint::new(format_args!("the default type: {before:x?}"))) };
    // SAFETY: how the nested tables map memory decides, and the register is put back.
    unsafe {
        for (msr, value) in [(MCG_STATUS, 0), (MTRR_DEFAULT_TYPE, 6), (MTRR_DEFAULT_TYPE, default_type)] {
            let caught = write(msr, value);
            ensure!(caught.is_none() && read(msr) == Ok(value), "{msr:#x} = {value:#x}: {caught:x?}, {:x?}", read(msr));
        }
        for (msr, value) in [
            (MCG_CAP, 0),
            (MCG_STATUS, 1),
            (MTRR_CAPABILITY, 0),
            (MTRR_DEFAULT_TYPE, 2),
            (MTRR_DEFAULT_TYPE, 1 << 9),
            (MTRR_DEFAULT_TYPE, 1 << 12 | 6),
        ] {
            let caught = write(msr, value);
            ensure!(trap::is_fault(caught, GENERAL_PROTECTION), "{msr:#x} = {value:#x}: {caught:x?}");
        }
    }
    Ok(())
}

fn unknown_read() -> Verdict {
    for msr in UNKNOWN {
        let caught = read(msr).err();
        ensure!(trap::is_fault(caught, GENERAL_PROTECTION), "{msr:#x}: {caught:x?}");
    }
    Ok(())
}

fn unknown_write() -> Verdict {
    for msr in UNKNOWN {
        for value in [0, 1, u64::MAX] {
            // SAFETY: there is no such register.
            let caught = unsafe { write(msr, value) };
            ensure!(trap::is_fault(caught, GENERAL_PROTECTION), "{msr:#x} = {value:#x}: {caught:x?}");
        }
    }
    Ok(())
}

/// Only ECX names the register, only EAX and EDX hold the value, and a prefix belongs to the instruction.
fn prefixes() -> Verdict {
    let (low, high): (u64, u64);
    let mut after = 1u32;
    // SAFETY: IA32_PAT is read and written back.
    let caught = unsafe {
        attempt!(
            ".byte 0xf3, 0x0f, 0x32\n inc r9d\n bts rax, 40\n bts rdx, 50\n .byte 0x66, 0x2e, 0x0f, 0x30\n inc r9d",
            in("rcx") u64::from(IA32_PAT) | 0xffff_ffff_0000_0000, inout("rax") u64::MAX => low,
            inout("rdx") u64::MAX => high, inout("r9d") after
        )
    };
    ensure!(caught.is_none() && after == 3, "{caught:x?}, then {after} and not 3");
    ensure!(low >> 32 == 1 << 8 && high >> 32 == 1 << 18, "the upper halves are not cleared: {low:#x}, {high:#x}");
    Ok(())
}

fn page_attribute_table() -> Verdict {
    let before = read(IA32_PAT);
    ensure!(before == Ok(0x0007_0406_0007_0406), "it begins with {before:x?}");
    for value in [0x0706_0504_0100_0606, 0x0007_0406_0007_0406] {
        // SAFETY: how memory is cached makes no difference to what it holds; entry 0, which is in use, stays write-back.
        let caught = unsafe { write(IA32_PAT, value) };
        ensure!(caught.is_none(), "{value:#x}: {caught:x?}");
        let now = read(IA32_PAT);
        ensure!(now == Ok(value), "{value:#x} reads {now:x?}");
    }
    for value in [2, 3, 8, 0x0007_0406_0007_0306, 0xff00_0000_0000_0006] {
        // SAFETY: such values are refused.
        let caught = unsafe { write(IA32_PAT, value) };
        ensure!(trap::is_fault(caught, GENERAL_PROTECTION), "{value:#x}: {caught:x?}");
    }
    let after = read(IA32_PAT);
    ensure!(before == after, "refused values changed it to {after:x?}");
    Ok(())
}

fn efer() -> Verdict {
    let Ok(before) = read(IA32_EFER) else { return Err(crate::list::Complaint::new(format_args!("cannot be read"))) };
    ensure!(before == EFER_LME | EFER_LMA | EFER_NXE, "it begins with {before:#x}");
    for value in [before | EFER_SCE, before & !EFER_LMA, before] {
        // SAFETY: system calls are not used, and LMA is the processor's.
        let caught = unsafe { write(IA32_EFER, value) };
        if value & EFER_LMA == 0 {
            // Intel ignores a write of LMA, AMD refuses a change of it.
            ensure!(caught.is_none_or(|it| it.is_fault(GENERAL_PROTECTION, 0)), "without LMA: {caught:x?}");
        } else {
            ensure!(caught.is_none(), "{value:#x}: {caught:x?}");
            ensure!(read(IA32_EFER) == Ok(value), "{value:#x} reads {:x?}", read(IA32_EFER));
        }
        ensure!(read(IA32_EFER).is_ok_and(|now| now & EFER_LMA != 0), "LMA is gone");
    }
    for bit in [1, 2, 7, 9, 12, 13, 16, 31, 32, 63] {
        // SAFETY: these bits are reserved, or of features that there are not.
        let caught = unsafe { write(IA32_EFER, before | 1 << bit) };
        ensure!(trap::is_fault(caught, GENERAL_PROTECTION), "bit {bit}: {caught:x?}");
    }
    // SAFETY: leaving long mode while paging is refused.
    let caught = unsafe { write(IA32_EFER, before & !EFER_LME) };
    ensure!(trap::is_fault(caught, GENERAL_PROTECTION), "without LME: {caught:x?}");
    ensure!(read(IA32_EFER) == Ok(before), "refused values changed it to {:x?}", read(IA32_EFER));
    // SAFETY: without SCE there are no system calls.
    let caught = unsafe { attempt!("syscall", out("rcx") _, out("r11") _) };
    ensure!(trap::is_fault(caught, INVALID_OPCODE), "SYSCALL without SCE: {caught:x?}");
    Ok(())
}

fn round_trip() -> Verdict {
    for (msr, values) in [
        (IA32_STAR, [0x0013_0008_0000_0000, 0xffff_ffff_ffff_ffff]),
        (IA32_LSTAR, [0xffff_ffff_8000_1234, 0x0000_7fff_ffff_f000]),
        (IA32_FMASK, [0x700, 0xffff_ffff]),
        (IA32_FS_BASE, [0x0000_7fff_1234_5678, 0xffff_8000_0000_0000]),
        (IA32_GS_BASE, [0x0000_7fff_1234_5678, 0xffff_8000_0000_0000]),
        (IA32_KERNEL_GS_BASE, [0x0000_7fff_1234_5678, 0xffff_8000_0000_0000]),
        (IA32_SYSENTER_CS, [8, 0x10]),
        (IA32_SYSENTER_ESP, [0xffff_ffff_8000_1000, 0]),
        (IA32_SYSENTER_EIP, [0xffff_ffff_8000_1000, 0]),
    ] {
        let before = read(msr);
        let Ok(before) = before else { return Err(crate::list::Complaint::new(format_args!("{msr:#x}: {before:x?}"))) };
        for value in values {
            // SAFETY: system calls and thread-local data are not used.
            let caught = unsafe { write(msr, value) };
            let now = read(msr);
            ensure!(caught.is_none() && now == Ok(value), "{msr:#x} = {value:#x}: {caught:x?}, reads {now:x?}");
        }
        // SAFETY: as before.
        unsafe { write(msr, before) };
    }
    Ok(())
}

fn swap_gs() -> Verdict {
    // SAFETY: thread-local data is not used; everything is put back.
    unsafe {
        write(IA32_GS_BASE, 0x1111_1000);
        write(IA32_KERNEL_GS_BASE, 0xffff_8888_0000_0000);
        let caught = attempt!("swapgs");
        let bases = (read(IA32_GS_BASE), read(IA32_KERNEL_GS_BASE));
        write(IA32_GS_BASE, 0);
        write(IA32_KERNEL_GS_BASE, 0);
        ensure!(caught.is_none(), "{caught:x?}");
        ensure!(bases == (Ok(0xffff_8888_0000_0000), Ok(0x1111_1000)), "{bases:x?}");
    }
    Ok(())
}

fn misc() -> Verdict {
    let Ok(enable) = read(IA32_MISC_ENABLE) else {
        return Err(crate::list::Complaint::new(format_args!("IA32_MISC_ENABLE cannot be read")));
    };
    ensure!(enable & 1 != 0, "fast strings are off: {enable:#x}");
    // SAFETY: what it holds is written back.
    let caught = unsafe { write(IA32_MISC_ENABLE, enable) };
    ensure!(caught.is_none(), "IA32_MISC_ENABLE as it was: {caught:x?}");
    // SAFETY: the update signature is cleared before it is read.
    let caught = unsafe { write(IA32_BIOS_SIGN_ID, 0) };
    ensure!(caught.is_none() && read(IA32_BIOS_SIGN_ID).is_ok(), "IA32_BIOS_SIGN_ID: {caught:x?}");
    let (before, by_msr, after) = (time_stamp(), read(IA32_TIME_STAMP_COUNTER), time_stamp());
    ensure!(by_msr.is_ok_and(|now| (before..=after).contains(&now)), "the TSC: {before:#x}, {by_msr:x?}, {after:#x}");
    for (name, msr) in
        [("non-canonical IA32_LSTAR", IA32_LSTAR), ("non-canonical IA32_KERNEL_GS_BASE", IA32_KERNEL_GS_BASE)]
    {
        // SAFETY: system calls and thread-local data are not used; it is put back.
        let caught = unsafe { write(msr, 0x8000_0000_0000_0000) };
        if !trap::is_fault(caught, GENERAL_PROTECTION) {
            note(format_args!("{name} is taken: {caught:x?}"));
        }
        // SAFETY: as above.
        unsafe { write(msr, 0) };
    }
    Ok(())
}
