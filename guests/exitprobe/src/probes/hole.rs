//! Guest-physical addresses where nothing is: what is loaded from there is all ones, and what is stored there is
//! forgotten, as in a machine.

use crate::ends::NOWHERE;
use crate::list::{List, Verdict, ensure};
use core::arch::asm;
use guest_support::memory;

const PATTERN: u64 = 0x1234_5678_9abc_def0;

pub fn probe(list: &mut List) {
    list.probe("hole-loads", loads);
    list.probe("hole-stores", stores);
    list.probe("hole-strings", strings);
}

fn nowhere() -> *mut u64 {
    memory::mapped(NOWHERE).as_mut_ptr()
}

fn loads() -> Verdict {
    let (byte, word, double, quad): (u64, u64, u64, u64);
    // SAFETY: there is no memory that Rust knows of.
    unsafe {
        asm!(
            "movzx {0:e}, byte ptr [{4} + 7]",
            "movzx {1:e}, word ptr [{4} + 2]",
            "mov {2:e}, [{4}]",
            "mov {3}, [{4}]",
            out(reg) byte, out(reg) word, out(reg) double, out(reg) quad, in(reg) nowhere(),
            options(nostack, readonly)
        );
    }
    ensure!((byte, word) == (0xff, 0xffff), "a byte is {byte:#x}, a word {word:#x}");
    ensure!((double, quad) == (0xffff_ffff, u64::MAX), "a doubleword is {double:#x}, a quadword {quad:#x}");
    Ok(())
}

/// A store is forgotten; and what both loads and stores has the result of ones.
fn stores() -> Verdict {
    let (after, old): (u64, u64);
    // SAFETY: there is no memory that Rust knows of.
    unsafe {
        asm!(
            "mov [{2}], {3}",
            "mov byte ptr [{2} + 1], 5",
            "lock xadd [{2}], {1}",
            "and qword ptr [{2}], 0",
            "mov {0}, [{2}]",
            out(reg) after, inout(reg) 1u64 => old, in(reg) nowhere(), in(reg) PATTERN,
            options(nostack)
        );
    }
    ensure!(after == u64::MAX, "{after:#x} was kept");
    ensure!(old == u64::MAX, "an exchange gave {old:#x}");
    Ok(())
}

fn strings() -> Verdict {
    let mut buffer = [0u8; 12];
    // SAFETY: the destination is the buffer's first eight bytes; the source is no memory that Rust knows of.
    unsafe {
        asm!("rep movsb", inout("rcx") 8u64 => _, inout("rsi") nowhere() => _, inout("rdi") buffer.as_mut_ptr() => _,
             options(nostack));
    }
    ensure!(buffer == [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], "{buffer:x?} was copied");
    // SAFETY: the source is the buffer; the destination is no memory that Rust knows of.
    unsafe {
        asm!("rep movsd", inout("rcx") 3u64 => _, inout("rsi") buffer.as_ptr() => _, inout("rdi") nowhere() => _,
             options(nostack, readonly));
    }
    Ok(())
}
