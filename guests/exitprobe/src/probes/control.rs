//! CR0, CR4 and CR8.
//!
//! Each write is undone at once: on an emulator that takes what a processor refuses, the guest could not be entered
//! again with it.

use crate::list::{List, Verdict, ensure, note};
use crate::trap::{self, DEVICE_NOT_AVAILABLE, Exception, GENERAL_PROTECTION, attempt};
use core::arch::asm;
use guest_support::apic;

const PROTECTION_ENABLE: u64 = 1;
const MONITOR_COPROCESSOR: u64 = 1 << 1;
const EMULATION: u64 = 1 << 2;
const TASK_SWITCHED: u64 = 1 << 3;
const NUMERIC_ERROR: u64 = 1 << 5;
const WRITE_PROTECT: u64 = 1 << 16;
const ALIGNMENT_MASK: u64 = 1 << 18;
pub const NOT_WRITE_THROUGH: u64 = 1 << 29;
pub const CACHE_DISABLE: u64 = 1 << 30;

/// CR4.
const VME: u64 = 1;
const PVI: u64 = 1 << 1;
const TSD: u64 = 1 << 2;
const DE: u64 = 1 << 3;
const PAE: u64 = 1 << 5;
const PGE: u64 = 1 << 7;
const PCE: u64 = 1 << 8;
const OSFXSR: u64 = 1 << 9;
const OSXMMEXCPT: u64 = 1 << 10;
const VMXE: u64 = 1 << 13;

pub fn probe(list: &mut List) {
    list.probe("cr0-bits", cr0_bits);
    list.probe("cr0-task-switched", task_switched);
    list.probe("cr0-msw", machine_status_word);
    list.probe("cr0-illegal", cr0_illegal);
    list.probe("cr3-illegal", cr3_illegal);
    list.probe("cr4-bits", cr4_bits);
    list.probe("cr4-illegal", cr4_illegal);
    list.probe("cr8", cr8);
}

pub fn read_cr0() -> u64 {
    let value;
    // SAFETY: reading changes nothing.
    unsafe { asm!("mov {}, cr0", out(reg) value) };
    value
}

pub fn read_cr4() -> u64 {
    let value;
    // SAFETY: reading changes nothing.
    unsafe { asm!("mov {}, cr4", out(reg) value) };
    value
}

pub fn read_cr8() -> u64 {
    let value;
    // SAFETY: reading changes nothing.
    unsafe { asm!("mov {}, cr8", out(reg) value) };
    value
}

/// Writes CR0.
///
/// # Safety
/// Paging, protection and whatever the code relies on must stay on.
pub unsafe fn write_cr0(value: u64) -> Option<Exception> {
    // SAFETY: by this function's contract.
    unsafe { attempt!("mov cr0, rax", in("rax") value) }
}

/// Writes CR4.
///
/// # Safety
/// PAE and whatever the code relies on must stay on.
pub unsafe fn write_cr4(value: u64) -> Option<Exception> {
    // SAFETY: by this function's contract.
    unsafe { attempt!("mov cr4, rax", in("rax") value) }
}

/// Writes CR8.
pub fn write_cr8(value: u64) -> Option<Exception> {
    // SAFETY: it decides which interrupts come, and all have a handler.
    unsafe { attempt!("mov cr8, rax", in("rax") value) }
}

/// Writes a value, reads the register, and writes back what it was: without an exit in between.
macro_rules! try_value {
    ($register:literal, $value:expr, $before:expr) => {{
        let now: u64;
        // SAFETY: the caller's, for as long as three instructions last.
        let caught = unsafe {
            attempt!(
                concat!("mov ", $register, ", rax\n mov rdx, ", $register, "\n mov ", $register, ", rcx"),
                in("rax") $value, in("rcx") $before, inout("rdx") 0u64 => now
            )
        };
        (caught, now)
    }};
}

fn cr0_bits() -> Verdict {
    let before = read_cr0();
    ensure!(before & 0x8001_0001 == 0x8001_0001, "CR0 is {before:#x}");
    for bits in [
        WRITE_PROTECT,
        MONITOR_COPROCESSOR,
        EMULATION | MONITOR_COPROCESSOR,
        TASK_SWITCHED,
        NUMERIC_ERROR,
        ALIGNMENT_MASK,
        CACHE_DISABLE,
        CACHE_DISABLE | NOT_WRITE_THROUGH,
        WRITE_PROTECT | MONITOR_COPROCESSOR | TASK_SWITCHED | ALIGNMENT_MASK | CACHE_DISABLE,
    ] {
        // SAFETY: paging and protection stay; no bit here is one that the code needs.
        let caught = unsafe { write_cr0(before ^ bits) };
        ensure!(caught.is_none(), "{bits:#x} toggled: {caught:x?}");
        // An exit with it, and an entry.
        let _ = guest_support::cpu::cpuid(0);
        let now = read_cr0();
        // SAFETY: as it was.
        let caught = unsafe { write_cr0(before) };
        ensure!(now == before ^ bits && caught.is_none(), "{bits:#x} toggled in {before:#x} reads {now:#x}");
    }
    Ok(())
}

/// TS, MP and EM have their effects, and CLTS clears TS alone.
fn task_switched() -> Verdict {
    let before = read_cr0();
    // SAFETY: floating point is not used; CR0 is put back.
    unsafe {
        let clean = before & !(TASK_SWITCHED | EMULATION) | MONITOR_COPROCESSOR;
        write_cr0(clean);
        let usable = attempt!("fnop");
        ensure!(usable.is_none(), "FNOP: {usable:x?}");
        write_cr0(clean | TASK_SWITCHED);
        let (x87, wait) = (attempt!("fnop"), attempt!("fwait"));
        let cleared = attempt!("clts");
        let now = read_cr0();
        write_cr0(clean | EMULATION);
        let emulated = attempt!("fnop");
        write_cr0(before);
        ensure!(trap::is_fault(x87, DEVICE_NOT_AVAILABLE), "FNOP with TS: {x87:x?}");
        ensure!(trap::is_fault(wait, DEVICE_NOT_AVAILABLE), "FWAIT with TS and MP: {wait:x?}");
        ensure!(cleared.is_none() && now == clean, "CLTS: {cleared:x?}, CR0 {now:#x} and not {clean:#x}");
        ensure!(trap::is_fault(emulated, DEVICE_NOT_AVAILABLE), "FNOP with EM: {emulated:x?}");
    }
    Ok(())
}

/// LMSW sets bits 3:0 and cannot clear PE; SMSW reads.
fn machine_status_word() -> Verdict {
    let before = read_cr0();
    let read: u64;
    // SAFETY: floating point is not used; CR0 is put back.
    let (set, cleared, now) = unsafe {
        let set = attempt!("lmsw ax", in("ax") (PROTECTION_ENABLE | TASK_SWITCHED | EMULATION) as u16);
        asm!("smsw {}", out(reg) read);
        let cleared = attempt!("lmsw ax", in("ax") 0u16);
        let now = read_cr0();
        write_cr0(before);
        (set, cleared, now)
    };
    ensure!(set.is_none() && cleared.is_none(), "{set:x?}, {cleared:x?}");
    ensure!(read & 0xf == PROTECTION_ENABLE | TASK_SWITCHED | EMULATION, "SMSW reads {read:#x}");
    ensure!(now & 0xf == PROTECTION_ENABLE && now >> 4 == before >> 4, "LMSW of 0 leaves {now:#x} of {before:#x}");
    Ok(())
}

fn cr0_illegal() -> Verdict {
    let before = read_cr0();
    let mut taken = 0;
    for (name, value) in [
        ("NW without CD", before & !CACHE_DISABLE | NOT_WRITE_THROUGH),
        ("bit 32", before | 1 << 32),
        ("bit 63", before | 1 << 63),
    ] {
        let (caught, now) = try_value!("cr0", value, before);
        if caught.is_none() {
            note(format_args!("CR0 with {name} is taken, and reads {now:#x}: the emulator's mistake, if it is one"));
            taken += 1;
        } else {
            ensure!(trap::is_fault(caught, GENERAL_PROTECTION), "{name}: {caught:x?}");
        }
        ensure!(read_cr0() == before, "{name}: CR0 is {:#x} and was {before:#x}", read_cr0());
    }
    ensure!(taken == 0 || is_lenient(), "{taken} illegal values are taken");
    Ok(())
}

/// CR3 has reserved bits above the physical addresses.
fn cr3_illegal() -> Verdict {
    let before: u64;
    // SAFETY: reading changes nothing.
    unsafe { asm!("mov {}, cr3", out(reg) before) };
    let address_bits = guest_support::cpu::cpuid(0x8000_0008)[0] & 0xff;
    // Bit 63 asks not to flush where process-context identifiers are on, and is reserved where they are not.
    for bit in (address_bits..52).chain([52, 60, 63]) {
        let (caught, now) = try_value!("cr3", before | 1 << bit, before);
        ensure!(trap::is_fault(caught, GENERAL_PROTECTION), "bit {bit}: {caught:x?}, reads {now:#x}");
    }
    let (caught, now) = try_value!("cr3", before, before);
    ensure!(caught.is_none() && now == before, "as it was: {caught:x?}, {now:#x}");
    Ok(())
}

/// An emulator that takes everything in CR0 and CR4 (QEMU's TCG, whose guests have no VMX) is not the hypervisor's
/// fault: the processor itself is to refuse, where the hypervisor does not intercept.
pub fn is_lenient() -> bool {
    guest_support::cpu::cpuid(0)[2] == u32::from_le_bytes(*b"cAMD")
}

fn cr4_bits() -> Verdict {
    let before = read_cr4();
    ensure!(before & PAE != 0, "CR4 is {before:#x}");
    for bits in [PGE, DE, TSD, PCE, VME, PVI, OSFXSR | OSXMMEXCPT, PGE | DE | TSD] {
        // SAFETY: PAE stays, and none of these matters to the code.
        let caught = unsafe { write_cr4(before ^ bits) };
        ensure!(caught.is_none(), "{bits:#x} toggled: {caught:x?}");
        let _ = guest_support::cpu::cpuid(0);
        let now = read_cr4();
        // SAFETY: as it was.
        let caught = unsafe { write_cr4(before) };
        ensure!(now == before ^ bits && caught.is_none(), "{bits:#x} toggled in {before:#x} reads {now:#x}");
    }
    Ok(())
}

fn cr4_illegal() -> Verdict {
    let before = read_cr4();
    for (name, bits) in
        [("VMXE", VMXE), ("bit 15", 1 << 15), ("bit 31", 1 << 31), ("bit 32", 1 << 32), ("bit 63", 1 << 63)]
    {
        let (caught, now) = try_value!("cr4", before | bits, before);
        ensure!(trap::is_fault(caught, GENERAL_PROTECTION), "{name}: {caught:x?}, reads {now:#x}");
    }
    // Features that CPUID hides: a processor without them refuses.
    for (name, bit) in [("SMXE", 14), ("PCIDE", 17), ("PKE", 22), ("CET", 23), ("MCE", 6), ("UMIP", 11)] {
        let (caught, now) = try_value!("cr4", before | 1 << bit, before);
        match caught {
            Some(caught) => ensure!(caught.is_fault(GENERAL_PROTECTION, 0), "{name}: {caught:x?}"),
            None => note(format_args!("CR4.{name}, which CPUID hides, is taken, and reads {now:#x}")),
        }
    }
    ensure!(read_cr4() == before, "CR4 is {:#x} and was {before:#x}", read_cr4());
    Ok(())
}

/// CR8 and the task priority register are one.
fn cr8() -> Verdict {
    for class in (0..16).rev() {
        let caught = write_cr8(class);
        ensure!(caught.is_none() && read_cr8() == class, "CR8 = {class}: {caught:x?}, reads {}", read_cr8());
        let priority = apic::read(apic::TASK_PRIORITY);
        ensure!(u64::from(priority) == class << 4, "CR8 = {class}: the task priority reads {priority:#x}");
    }
    for class in [5, 15, 9, 0] {
        apic::write(apic::TASK_PRIORITY, class << 4 | 3);
        let (now, priority) = (read_cr8(), apic::read(apic::TASK_PRIORITY));
        ensure!(now == u64::from(class), "the task priority is {:#x}, and CR8 reads {now}", class << 4 | 3);
        ensure!(priority == class << 4 | 3, "the task priority is {:#x}, and reads {priority:#x}", class << 4 | 3);
    }
    apic::write(apic::TASK_PRIORITY, 0);
    for value in [16u64, 0x80, 1 << 32, u64::MAX] {
        let caught = write_cr8(value);
        if caught.is_none() && is_lenient() {
            note(format_args!("CR8 = {value:#x} is taken, and reads {:#x}", read_cr8()));
        } else {
            ensure!(trap::is_fault(caught, GENERAL_PROTECTION), "CR8 = {value:#x}: {caught:x?}");
        }
        write_cr8(0);
    }
    Ok(())
}
