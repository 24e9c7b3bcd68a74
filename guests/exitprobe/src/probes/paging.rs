//! The guest's own paging: it is the guest's, and no exit.

use super::control::{is_lenient, read_cr0, write_cr0};
use super::space::{self, *};
use crate::list::{List, Verdict, ensure, note};
use crate::trap::{Exception, PAGE_FAULT, attempt};
use guest_support::cpu::cpuid;

/// Page-fault error code.
const PROTECTION: u64 = 1;
const WRITE: u64 = 1 << 1;
const RESERVED: u64 = 1 << 3;
const FETCH: u64 = 1 << 4;
const CR0_WRITE_PROTECT: u64 = 1 << 16;
/// RET.
const RETURN: u64 = 0xc3;

pub fn probe(list: &mut List) {
    space::install();
    list.probe("page-fault", absent);
    list.probe("page-protection", protection);
    list.probe("page-reserved", reserved);
    list.probe("page-sizes", sizes);
    list.probe("page-flush", flush);
    list.probe("page-fault-string", string);
}

pub fn load(address: u64) -> (Option<Exception>, u64) {
    let value;
    // SAFETY: the address is of `space`, where there is nothing that Rust knows of; or it faults.
    let caught = unsafe { attempt!("mov rax, [rdx]", in("rdx") address, inout("rax") 0u64 => value) };
    (caught, value)
}

fn store(address: u64, value: u64) -> Option<Exception> {
    // SAFETY: as for `load`; frames are looked at by volatile reads only.
    unsafe { attempt!("mov [rdx], rax", in("rdx") address, in("rax") value) }
}

/// Calls a RET.
fn call(address: u64) -> Option<Exception> {
    // SAFETY: it comes back, or the caller has a page from which nothing can be fetched, and `fetch` is for those.
    unsafe { attempt!("call rdx", in("rdx") address) }
}

fn is_page_fault(caught: Option<Exception>, error_code: u64, address: u64) -> bool {
    caught.is_some_and(|caught| caught.is_fault(PAGE_FAULT, error_code) && caught.cr2 == address)
}

fn absent() -> Verdict {
    for number in [0, 1, 511] {
        space::set_page(number, 0);
        let address = space::page(number) + 0x128;
        let (read, _) = load(address);
        ensure!(is_page_fault(read, 0, address), "a load: {read:x?}");
        let written = store(address, 1);
        ensure!(is_page_fault(written, WRITE, address), "a store: {written:x?}");
    }
    Ok(())
}

fn protection() -> Verdict {
    let frame = FRAMES.physical(0);
    let address = space::page(0);
    // SAFETY: the frame is for this.
    unsafe { FRAMES.pointer(0).write_volatile(RETURN) };
    space::set_page(0, frame | PRESENT);
    let (read, value) = load(address);
    ensure!(read.is_none() && value == RETURN, "a load from a read-only page: {read:x?}, {value:#x}");
    ensure!(space::entry_of(0) & (ACCESSED | DIRTY) == ACCESSED, "the entry is {:#x} then", space::entry_of(0));
    let written = store(address, RETURN);
    ensure!(is_page_fault(written, WRITE | PROTECTION, address), "a store to it: {written:x?}");

    let before = read_cr0();
    // SAFETY: nothing but the next store uses a read-only page.
    let cleared = unsafe { write_cr0(before & !CR0_WRITE_PROTECT) };
    let written = store(address, RETURN | 0x100);
    // SAFETY: as it was.
    unsafe { write_cr0(before) };
    ensure!(cleared.is_none() && written.is_none(), "a store without CR0.WP: {written:x?}");
    ensure!(space::entry_of(0) & DIRTY != 0, "the entry is {:#x} then", space::entry_of(0));
    // SAFETY: the frame is for this.
    let value = unsafe { FRAMES.pointer(0).read_volatile() };
    ensure!(value == RETURN | 0x100, "it stored {value:#x}");

    let executed = call(address);
    ensure!(executed.is_none(), "executing there: {executed:x?}");
    space::set_page(0, frame | PRESENT | NO_EXECUTE);
    let executed = fetch(address);
    let right =
        |caught: Exception| (caught.vector, caught.error_code, caught.cr2) == (PAGE_FAULT, FETCH | PROTECTION, address);
    ensure!(executed.is_some_and(right), "executing where it is forbidden: {executed:x?}");
    Ok(())
}

/// Jumps where nothing can be fetched.
fn fetch(address: u64) -> Option<Exception> {
    // SAFETY: the fault is caught, and the stack is not used.
    unsafe { attempt!("jmp rdx", in("rdx") address) }
}

fn reserved() -> Verdict {
    let address_bits = cpuid(0x8000_0008)[0] & 0xff;
    let address = space::page(2);
    if address_bits >= 52 {
        return Ok(());
    }
    for bit in [51, address_bits] {
        space::set_page(2, FRAMES.physical(0) | PRESENT | 1 << bit);
        let (read, _) = load(address);
        if is_lenient() && is_page_fault(read, RESERVED, address) {
            note(format_args!(
                "the error code of a reserved bit says that the page is absent, which is an emulator's mistake"
            ));
            continue;
        }
        ensure!(is_page_fault(read, RESERVED | PROTECTION, address), "bit {bit}: {read:x?}");
    }
    space::set_page(2, 0);
    Ok(())
}

/// The same memory through pages of 4 KiB, 2 MiB and 1 GiB.
fn sizes() -> Verdict {
    let frame = FRAMES.physical(1);
    let has_huge = cpuid(0x8000_0001)[3] >> 26 & 1 != 0;
    space::set_page(3, frame | PRESENT | WRITABLE);
    space::set_large(frame & !0x1f_ffff | PRESENT | WRITABLE | LARGE);
    space::set_huge(if has_huge { frame & !0x3fff_ffff | PRESENT | WRITABLE | LARGE } else { 0 });
    let large = LARGE_PAGE + (frame & 0x1f_ffff);
    let huge = HUGE_PAGE + (frame & 0x3fff_ffff);
    for (value, address) in [(0x1111, space::page(3)), (0x2222, large), (0x3333, huge)] {
        if address == huge && !has_huge {
            continue;
        }
        let written = store(address, value);
        // SAFETY: the frame is for this.
        let direct = unsafe { FRAMES.pointer(1).read_volatile() };
        ensure!(written.is_none() && direct == value, "{value:#x} at {address:#x}: {written:x?}, {direct:#x}");
        for other in [space::page(3), large] {
            let (read, seen) = load(other);
            ensure!(read.is_none() && seen == value, "at {other:#x}: {read:x?}, {seen:#x}");
        }
    }
    space::set_large(0);
    space::set_huge(0);
    Ok(())
}

/// A changed entry counts from INVLPG, a load of CR3, and a change of CR4.PGE on.
fn flush() -> Verdict {
    for frame in [1, 2, 3] {
        // SAFETY: the frames are for this.
        unsafe { FRAMES.pointer(frame).write_volatile(frame as u64) };
    }
    let address = space::page(4);
    let entry = |frame| FRAMES.physical(frame) | PRESENT | WRITABLE;
    space::set_page(4, entry(1));
    let first = load(address).1;
    space::set_page(4, entry(2));
    let second = load(address).1;
    space::set_page_without_flush(4, entry(3));
    space::flush_all();
    let third = load(address).1;
    space::set_page(4, 0);
    let gone = load(address).0;
    ensure!((first, second, third) == (1, 2, 3), "{first}, {second}, {third}");
    ensure!(is_page_fault(gone, 0, address), "an entry taken away: {gone:x?}");
    Ok(())
}

/// A string from a port runs into a page that is not there, and one that may not be written: the faults are the guest's, and
/// what fits is done.
fn string() -> Verdict {
    space::set_page(5, FRAMES.physical(1) | PRESENT | WRITABLE);
    let from = space::page(5) + 0xffa;
    let beyond = space::page(6);
    for (entry, protection) in [(0, 0), (FRAMES.physical(2) | PRESENT, PROTECTION)] {
        space::set_page(6, entry);
        let (count, to): (u64, u64);
        // SAFETY: nothing is at the port, and the pages are for this.
        let caught =
            unsafe { attempt!("rep insd", in("dx") 0x80u16, inout("rcx") 4u64 => count, inout("rdi") from => to) };
        // The third element is in both pages, and not written in part.
        ensure!(is_page_fault(caught, WRITE | protection, beyond), "{caught:x?}");
        ensure!((to, count) == (from + 4, 3), "at {to:#x}, {count} left");
        let (read, value) = load(space::page(5) + 0xff8);
        ensure!(read.is_none() && value == 0x0000_ffff_ffff_0000, "{read:x?}: {value:#x}");
    }
    ensure!(space::entry_of(5) & DIRTY != 0, "the page that was written is clean");
    space::set_page(5, 0);
    space::set_page(6, 0);
    Ok(())
}
