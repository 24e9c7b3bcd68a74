//! I/O ports.

use crate::list::{List, Verdict, ensure};
use crate::trap::attempt;
use core::arch::asm;

/// Ports where nothing is: no POST code display, no PIC, no PIT, and the last ones.
const UNUSED: [u16; 7] = [0x80, 0x20, 0x40, 0x2f8, 0x1234, 0xfff0, 0xffff];
const SCRATCH: u16 = 0x3ff;

pub fn probe(list: &mut List) {
    list.probe("ports-unused", unused);
    list.probe("ports-forms", forms);
    list.probe("ports-serial", serial);
    list.probe("ports-strings", strings);
}

fn unused() -> Verdict {
    for port in UNUSED {
        let before = 0x1122_3344_5566_7788u64;
        let (mut byte, mut word, mut dword) = (before, before, before);
        // SAFETY: nothing is there.
        unsafe {
            asm!("in al, dx", in("dx") port, inout("rax") byte);
            asm!("in ax, dx", in("dx") port, inout("rax") word);
            asm!("in eax, dx", in("dx") port, inout("rax") dword);
            asm!("out dx, al", in("dx") port, in("rax") before);
            asm!("out dx, ax", in("dx") port, in("rax") before);
            asm!("out dx, eax", in("dx") port, in("rax") before);
        }
        ensure!(byte == 0x1122_3344_5566_77ff, "a byte from {port:#x}: RAX = {byte:#x}");
        ensure!(word == 0x1122_3344_5566_ffff, "a word from {port:#x}: RAX = {word:#x}");
        ensure!(dword == 0xffff_ffff, "a dword from {port:#x}: RAX = {dword:#x}");
    }
    Ok(())
}

/// The port in the instruction, and prefixes.
fn forms() -> Verdict {
    let mut after = 0u32;
    let (byte, word): (u64, u64);
    // SAFETY: nothing is at the ports.
    let caught = unsafe {
        attempt!(
            "in al, 0x80\n inc r9d\n mov r8, rax\n .byte 0x66, 0xf2, 0xed\n inc r9d\n out 0x80, al\n inc r9d\n \
             out 0x80, eax\n inc r9d\n .byte 0x48, 0xef\n inc r9d\n .byte 0x2e, 0xec\n inc r9d",
            inout("rax") 0u64 => word, out("r8") byte, in("dx") 0x1234u16, inout("r9d") after
        )
    };
    ensure!(caught.is_none() && after == 6, "{caught:x?}, {after} of 6");
    ensure!((byte, word) == (0xff, 0xffff), "{byte:#x}, {word:#x}");
    Ok(())
}

/// The serial port's registers, as bytes and beside each other.
fn serial() -> Verdict {
    for value in [0xa5u8, 0x5a] {
        let (byte, word): (u8, u16);
        // SAFETY: the scratch register is for this.
        unsafe {
            asm!("out dx, al", in("dx") SCRATCH, in("al") value);
            asm!("in al, dx", in("dx") SCRATCH, out("al") byte);
            asm!("in ax, dx", in("dx") SCRATCH - 1, out("ax") word);
        }
        ensure!(byte == value && (word >> 8) as u8 == value, "{value:#x} reads {byte:#x}, and {word:#x} as a word");
    }
    Ok(())
}

/// Strings in and out, of every width, up and down, and longer than any exit serves at once.
fn strings() -> Verdict {
    let text = *b"0123456789";
    let mut bytes = [0u8; 1200];
    let (mut words, mut dwords) = ([0u16; 4], [0u32; 4]);
    let (from, to, count): (u64, u64, u64);
    let last: u8;
    // SAFETY: the scratch register keeps what was written last; nothing is at the other port; the buffers are long enough.
    unsafe {
        asm!("rep outsb", in("dx") SCRATCH, inout("rsi") text.as_ptr() => from, inout("rcx") text.len() => count);
        asm!("in al, dx", in("dx") SCRATCH, out("al") last);
        asm!("rep insb", in("dx") SCRATCH, inout("rdi") bytes.as_mut_ptr() => to, inout("rcx") 1100u64 => _);
        asm!("std", "rep insw", "cld", in("dx") SCRATCH, inout("rdi") &raw mut words[2] => _, inout("rcx") 2u64 => _);
        asm!("insd", in("dx") UNUSED[0], inout("rdi") &raw mut dwords[1] => _, inout("rcx") 9u64 => _);
        asm!("rep insd", in("dx") UNUSED[0], inout("rdi") &raw mut dwords[3] => _, inout("rcx") 0u64 => _);
        asm!("outsw", "outsd", in("dx") UNUSED[0], inout("rsi") text.as_ptr() => _);
    }
    ensure!(from == text.as_ptr() as u64 + 10 && count == 0 && last == b'9', "outsb: {from:#x}, {count}, {last:#x}");
    ensure!(to == bytes.as_ptr() as u64 + 1100, "insb ended at {to:#x}");
    let (written, rest) = bytes.split_at(1100);
    ensure!(written.iter().all(|byte| *byte == b'9') && rest.iter().all(|byte| *byte == 0), "insb: {bytes:x?}");
    ensure!(words == [0, 0xff39, 0xff39, 0], "insw: {words:x?}");
    ensure!(dwords == [0, 0xffff_ffff, 0, 0], "insd: {dwords:x?}");
    Ok(())
}
