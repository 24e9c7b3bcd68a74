//! When the hypervisor itself fails: an exception, a panic, or a reason why it cannot go on. It says all that helps to
//! find out why, and ends the machine.

use crate::console::report::Report;
use crate::console::serial;
use crate::cpu::frame::Frame;
use crate::cpu::serving;
use crate::machine::power;
use crate::memory::{address_space, image};
use core::fmt::Write;

const PAGE_FAULT: u8 = 14;
/// Frames of a backtrace: a stack that loops must not print for ever.
const MAXIMUM_DEPTH: usize = 32;

/// Names of the exceptions (SDM vol. 3, table 7-1).
const NAMES: [&str; 32] = [
    "divide error",
    "debug exception",
    "non-maskable interrupt",
    "breakpoint",
    "overflow",
    "bound range exceeded",
    "invalid opcode",
    "device not available",
    "double fault",
    "coprocessor segment overrun",
    "invalid TSS",
    "segment not present",
    "stack-segment fault",
    "general protection",
    "page fault",
    "reserved exception 15",
    "x87 floating-point error",
    "alignment check",
    "machine check",
    "SIMD floating-point exception",
    "virtualization exception",
    "control protection exception",
    "reserved exception 22",
    "reserved exception 23",
    "reserved exception 24",
    "reserved exception 25",
    "reserved exception 26",
    "reserved exception 27",
    "hypervisor injection exception",
    "VMM communication exception",
    "security exception",
    "reserved exception 31",
];

/// Ends the machine for an exception with `vector` below 32.
pub fn exception(vector: u8, frame: &Frame) {
    let mut line = serial::line();
    // The serial line never reports an error.
    let _ = write_fault(&mut *line, vector, frame);
    drop(line);
    power::finish(false)
}

/// Ends the machine for a panic.
pub fn panic(message: &dyn core::fmt::Display, frame_pointer: u64) -> ! {
    let mut line = serial::line();
    // The serial line never reports an error.
    let _ = writeln!(line, "\nFATAL: {message}\n  while serving {}", serving::current());
    let _ = write_backtrace(&mut *line, 0, frame_pointer);
    drop(line);
    power::finish(false)
}

/// Says why the machine cannot go on, and ends it.
pub fn give_up(reason: &str) -> ! {
    log::error!("{reason}");
    let mut report = Report::default();
    report.set("result", "fail");
    // The serial line never reports an error.
    let _ = report.write(&mut *serial::line());
    power::finish(false)
}

fn write_fault(to: &mut impl Write, vector: u8, frame: &Frame) -> core::fmt::Result {
    let name = NAMES.get(usize::from(vector)).copied().unwrap_or("exception");
    writeln!(to, "\nFATAL: {name} (vector {vector}, error code {:#x}) in the hypervisor", frame.error_code)?;
    writeln!(to, "  while serving {}", serving::current())?;
    if vector == PAGE_FAULT {
        writeln!(to, "  address {:#018x}", x86_64::registers::control::Cr2::read_raw())?;
    }
    writeln!(to, "  rip {:#018x} cs {:#06x} rflags {:#010x}", frame.rip, frame.cs, frame.rflags)?;
    writeln!(to, "  rsp {:#018x} ss {:#06x} rbp {:#018x}", frame.rsp, frame.ss, frame.rbp)?;
    writeln!(to, "  rax {:#018x} rbx {:#018x} rcx {:#018x} rdx {:#018x}", frame.rax, frame.rbx, frame.rcx, frame.rdx)?;
    writeln!(to, "  rsi {:#018x} rdi {:#018x}", frame.rsi, frame.rdi)?;
    for (pair, registers) in frame.high.chunks_exact(4).enumerate() {
        write!(to, " ")?;
        for (offset, value) in registers.iter().enumerate() {
            write!(to, " r{} {value:#018x}", 15 - pair * 4 - offset)?;
        }
        writeln!(to)?;
    }
    write_backtrace(to, frame.rip, frame.rbp)
}

/// Writes the return addresses from a frame pointer on. They can be named by addr2line with the unstripped image.
fn write_backtrace(to: &mut impl Write, rip: u64, mut frame_pointer: u64) -> core::fmt::Result {
    write!(to, "  backtrace {rip:#x}")?;
    let [text, ..] = image::sections();
    for _ in 0..MAXIMUM_DEPTH {
        let sound = frame_pointer.is_multiple_of(8)
            && address_space::is_mapped(frame_pointer)
            && address_space::is_mapped(frame_pointer.saturating_add(15));
        if !sound {
            break;
        }
        let (next, return_address) = read_frame(frame_pointer);
        if return_address < text.start || return_address >= text.end {
            break;
        }
        write!(to, " {return_address:#x}")?;
        // A caller's frame is further up the stack; anything else is not a chain of frames.
        if next <= frame_pointer {
            break;
        }
        frame_pointer = next;
    }
    writeln!(to)
}

#[expect(unsafe_code, reason = "follows frame pointers")]
fn read_frame(frame_pointer: u64) -> (u64, u64) {
    let frame = frame_pointer as *const [u64; 2];
    // SAFETY: the caller has checked that the 16 bytes are mapped and aligned; whatever they hold is only printed or
    // checked before it is followed.
    let [next, return_address] = unsafe { frame.read_volatile() };
    (next, return_address)
}
