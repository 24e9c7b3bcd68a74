//! Read-only memory: the 64 KiB below 1 MiB, where a PC has its BIOS and the guest finds what its loader told it.

use super::priority::{COMMAND, TO_SELF};
use super::waiting::pass;
use crate::list::{List, Verdict, ensure};
use crate::trap::{self, DEBUG, attempt, step};
use addr::{GuestPhys, Vector};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use guest_support::interrupts::Frame;
use guest_support::{apic, memory};

const START: u64 = 0xf_0000;
const END: u64 = 0x10_0000;
/// `hvm_start_info` begins with it.
const MAGIC: u32 = 0x336e_c578;
/// CLI, HLT, and JMP to the HLT, at F000:FFF0h.
const RESET_VECTOR: u64 = 0xf_fff0;
const RESET_CODE: u32 = u32::from_le_bytes([0xfa, 0xf4, 0xeb, 0xfd]);
const HALT: u64 = RESET_VECTOR + 1;
const JUMP: u64 = RESET_VECTOR + 2;

const TRAP_FLAG: u64 = 1 << 8;
/// CF, PF, AF, ZF, SF, OF.
const FLAGS: u64 = 0x8d5;

pub fn probe(list: &mut List) {
    list.probe("rom-read", read);
    list.probe("rom-write", written);
    list.probe("rom-modify", modified);
    list.probe("rom-step", stepped);
    list.probe("rom-border", border);
    list.probe("rom-execute", executed);
}

fn at(address: u64) -> *mut u32 {
    memory::mapped(GuestPhys::new(address)).as_mut_ptr()
}

fn word(address: u64) -> u32 {
    // SAFETY: it is memory that nobody writes.
    unsafe { at(address).read_volatile() }
}

/// A sum over all of it.
fn sum() -> u64 {
    (START..END).step_by(4).fold(0u64, |sum, address| sum.rotate_left(5).wrapping_add(word(address).into()))
}

fn read() -> Verdict {
    ensure!(word(START) == MAGIC, "what the loader told begins with {:#x}", word(START));
    ensure!(word(RESET_VECTOR) == RESET_CODE, "at the reset vector there is {:#x}", word(RESET_VECTOR));
    Ok(())
}

/// Stores of every width are done, and nothing is stored.
fn written() -> Verdict {
    let before = sum();
    let (first, last) = (at(START), at(END - 8));
    // SAFETY: nothing there is a Rust object.
    let caught = unsafe {
        attempt!(
            "mov [rdx], al\n mov [rdx + 1], ah\n mov [rdx + 2], ax\n mov [rdx + 4], eax\n mov [rdx + 8], rax\n \
             mov byte ptr [rdx], 0x5a\n mov word ptr [rdx + 2], 0x5a5a\n mov dword ptr [rdx + 0x1000], 0x5a5a5a5a\n \
             mov qword ptr [rcx], -1\n mov [rcx + 7], al\n mov [rdx + r8*8 + 0x10], eax",
            in("rdx") first, in("rcx") last, in("rax") 0x1234_5678_9abc_def0u64, in("r8") 1u64,
        )
    };
    ensure!(caught.is_none(), "{caught:x?}");
    ensure!(sum() == before, "it has changed");
    Ok(())
}

/// An instruction that reads, computes and writes computes with what is there, and has the flags of that.
fn modified() -> Verdict {
    let before = sum();
    let mut expected = word(START);
    let (sum_flags, flags): (u64, u64);
    // SAFETY: the same with a local and with memory that stays as it is.
    let caught = unsafe {
        attempt!(
            "xor r9d, r9d\n add dword ptr [rcx], 0x7fffffff\n pushfq\n pop r8\n xor r9d, r9d\n \
             add dword ptr [rdx], 0x7fffffff\n pushfq\n pop r9",
            in("rcx") &raw mut expected, in("rdx") at(START), out("r8") sum_flags, out("r9") flags,
        )
    };
    ensure!(caught.is_none(), "{caught:x?}");
    ensure!(expected == MAGIC.wrapping_add(0x7fff_ffff), "in memory the sum is {expected:#x}");
    ensure!(sum_flags & FLAGS == flags & FLAGS, "flags {flags:#x} and not {sum_flags:#x}");
    let difference: u32;
    // SAFETY: as above.
    let caught =
        unsafe { attempt!("sub eax, [rdx]\n or [rdx], eax", inout("eax") MAGIC => difference, in("rdx") at(START)) };
    ensure!(caught.is_none() && difference == 0 && sum() == before, "{caught:x?}, {difference:#x}");
    Ok(())
}

/// Single-stepping goes over such a store as over any other.
fn stepped() -> Verdict {
    // SAFETY: nothing is stored.
    let (caught, length) = unsafe { step!("mov [rdx], eax", in("rdx") at(START), in("eax") 0u32) };
    let right = caught.is_some_and(|caught| caught.vector == DEBUG && caught.offset == length);
    ensure!(right && word(START) == MAGIC, "{caught:x?}");
    Ok(())
}

/// Right before and right behind it there is memory.
fn border() -> Verdict {
    for address in [START - 4, END] {
        let pointer = at(address);
        // SAFETY: the guest's image and its loader's tables are not there.
        let (before, after) = unsafe {
            let before = pointer.read_volatile();
            pointer.write_volatile(!before);
            let after = pointer.read_volatile();
            pointer.write_volatile(before);
            (before, after)
        };
        ensure!(after == !before, "{address:#x} keeps {before:#x}");
    }
    Ok(())
}

const STEPS: usize = 6;
static STEP: AtomicUsize = AtomicUsize::new(0);
static AT: [AtomicU64; STEPS] = [const { AtomicU64::new(0) }; STEPS];

/// Follows the code there, step by step, and leaves it again.
fn follow(frame: &mut Frame) -> bool {
    if frame.vector() != DEBUG {
        return false;
    }
    let step = STEP.fetch_add(1, Relaxed);
    if let Some(place) = AT.get(step) {
        place.store(frame.rip, Relaxed);
    }
    if step + 1 >= STEPS {
        frame.rip = trap::RESUME.load(Relaxed);
        frame.rflags &= !TRAP_FLAG;
    }
    true
}

/// What is there can be executed, exits included, and interrupted.
fn executed() -> Verdict {
    STEP.store(0, Relaxed);
    trap::mend_with(Some(follow));
    // A jump there, JMP, HLT, JMP, HLT, JMP: a HLT that is single-stepped does not sleep. Physical memory can be executed
    // at its own address.
    // SAFETY: the code there changes nothing, and is left by the last step.
    let caught = unsafe {
        attempt!(
            "pushfq\n or dword ptr [rsp], 0x100\n popfq\n jmp rdx",
            in("rdx") JUMP,
        )
    };
    trap::mend_with(None);
    // SAFETY: it says what happened, and changes nothing.
    unsafe { asm!("mov dr6, {}", in(reg) 0xffff_0ff0u64) };
    let way = AT.each_ref().map(|place| place.load(Relaxed));
    ensure!(way == [JUMP, HALT, JUMP, HALT, JUMP, HALT] && caught.is_none(), "{way:x?}, {caught:x?}");
    // Interrupts are on afterwards as they were before.
    trap::forget_interrupts();
    apic::write(COMMAND, TO_SELF | 0x61);
    x86_64::instructions::interrupts::enable();
    pass(500);
    x86_64::instructions::interrupts::disable();
    ensure!(trap::count(Vector(0x61)) == 1, "no interrupt comes any more");
    Ok(())
}
