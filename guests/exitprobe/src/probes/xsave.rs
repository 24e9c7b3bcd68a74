//! XCR0, XSAVE and the vector registers.

use super::control::{read_cr0, read_cr4, write_cr0, write_cr4};
use super::timer;
use super::waiting::wait_for;
use crate::list::{List, Verdict, ensure, note};
use crate::trap::{self, Exception, GENERAL_PROTECTION, INVALID_OPCODE, TIMER, attempt};
use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use exitprobe::hostile::Hostile;
use guest_support::cpu::cpuid;
use x86_64::instructions::interrupts;

/// CPUID leaf 1, ECX.
const XSAVE: u32 = 1 << 26;
const OSXSAVE_SHOWN: u32 = 1 << 27;
const AVX_SHOWN: u32 = 1 << 28;
/// CPUID leaf 0xd, subleaf 1, EAX.
const XSAVEC: u32 = 1 << 1;
const XSAVES: u32 = 1 << 3;
/// CR0.
const MONITOR_COPROCESSOR: u64 = 1 << 1;
const EMULATION: u64 = 1 << 2;
const TASK_SWITCHED: u64 = 1 << 3;
/// CR4.
const OSFXSR: u64 = 1 << 9;
const OSXMMEXCPT: u64 = 1 << 10;
const OSXSAVE: u64 = 1 << 18;
/// XCR0.
const X87: u64 = 1;
const SSE: u64 = 1 << 1;
const AVX: u64 = 1 << 2;
/// Where the XMM registers and the header are in an area, and the size of one with both.
const XMM: usize = 160;
const HEADER: usize = 512;
const LEGACY: u32 = 576;

pub fn probe(list: &mut List) {
    list.probe("xsave-cpuid", || used(shown));
    list.probe("xsave-xcr0", || used(legal));
    list.probe("xsave-illegal", || used(illegal));
    list.probe("xsave-storm", || used(storm));
    list.probe("xsave-area", || used(area));
    list.probe("xsave-vectors", || used(vectors));
    list.probe("xsave-supervisor", || used(supervisor));
}

/// Runs a probe with the floating-point unit, SSE and XSAVE on, where there is XSAVE, and XCR0 as after reset.
fn used(probe: fn() -> Verdict) -> Verdict {
    let (cr0, cr4) = (read_cr0(), read_cr4());
    if cpuid(1)[2] & XSAVE == 0 {
        note(format_args!("no XSAVE is shown"));
        return Ok(());
    }
    ensure!(cpuid(1)[2] & OSXSAVE_SHOWN == 0, "OSXSAVE is shown, and CR4 is {cr4:#x}");
    // SAFETY: paging and protection stay; both are put back.
    let caught = unsafe {
        let caught = write_cr4(cr4 | OSFXSR | OSXMMEXCPT | OSXSAVE);
        write_cr0(cr0 & !(EMULATION | TASK_SWITCHED) | MONITOR_COPROCESSOR);
        caught
    };
    let verdict = if caught.is_none() { probe() } else { Ok(()) };
    xsetbv(0, X87);
    let shown = cpuid(1)[2] & OSXSAVE_SHOWN != 0;
    // SAFETY: as they were.
    unsafe {
        write_cr0(cr0);
        write_cr4(cr4);
    }
    ensure!(caught.is_none(), "CR4.OSXSAVE: {caught:x?}");
    ensure!(shown && cpuid(1)[2] & OSXSAVE_SHOWN == 0, "with CR4.OSXSAVE, CPUID does not show it, or shows it after");
    verdict
}

fn xsetbv(index: u32, value: u64) -> Option<Exception> {
    // SAFETY: the code does not use what XCR0 is about, but for what is measured.
    unsafe { attempt!("xsetbv", in("ecx") index, in("eax") value as u32, in("edx") (value >> 32) as u32) }
}

fn xgetbv(index: u32) -> Result<u64, Exception> {
    let (low, high): (u32, u32);
    // SAFETY: reading changes nothing.
    let caught = unsafe { attempt!("xgetbv", in("ecx") index, out("eax") low, out("edx") high) };
    caught.map_or(Ok(u64::from(high) << 32 | u64::from(low)), Err)
}

fn leaf(subleaf: u32) -> [u32; 4] {
    let leaf = __cpuid_count(0xd, subleaf);
    [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]
}

/// What XCR0 can have.
fn offered() -> u64 {
    let [low, _, _, high] = leaf(0);
    u64::from(high) << 32 | u64::from(low)
}

/// The bytes of an area with these components, in the standard format.
fn size(components: u64) -> u32 {
    let [bytes, offset, ..] = leaf(2);
    if components & AVX != 0 { LEGACY.max(offset + bytes) } else { LEGACY }
}

fn shown() -> Verdict {
    let offered = offered();
    ensure!(offered == X87 | SSE | AVX || offered == X87 | SSE, "XCR0 can have {offered:#x}");
    ensure!(
        (cpuid(1)[2] & AVX_SHOWN != 0) == (offered & AVX != 0),
        "AVX is shown without its state, or hidden with it"
    );
    ensure!(cpuid(0)[0] >= 0xd, "the last leaf is {:#x}", cpuid(0)[0]);
    ensure!(xgetbv(0) == Ok(X87), "XCR0 begins with {:x?}", xgetbv(0));
    let [_, now, most, _] = leaf(0);
    ensure!((now, most) == (LEGACY, size(offered)), "{now} bytes are in use and {most} the most");
    let [instructions, compacted, low, high] = leaf(1);
    ensure!(instructions & !0b111 == 0 && low | high == 0, "subleaf 1: {instructions:#x}, {low:#x}, {high:#x}");
    ensure!((instructions & XSAVEC != 0) == (compacted != 0), "compacted, it has {compacted} bytes: {instructions:#x}");
    for subleaf in (2..64).chain([64, 0x1000, u32::MAX]) {
        let there = subleaf == 2 && offered & AVX != 0;
        ensure!((leaf(subleaf) != [0; 4]) == there, "subleaf {subleaf}: {:x?}", leaf(subleaf));
    }
    Ok(())
}

fn legal() -> Verdict {
    for value in [X87 | SSE, X87, X87 | SSE | AVX, X87].into_iter().filter(|value| value & !offered() == 0) {
        let caught = xsetbv(0, value);
        ensure!(caught.is_none() && xgetbv(0) == Ok(value), "{value:#x}: {caught:x?}, reads {:x?}", xgetbv(0));
        ensure!(leaf(0)[1] == size(value), "{value:#x}: {} bytes and not {}", leaf(0)[1], size(value));
    }
    // Prefixes belong to the instruction, and the upper halves of the registers do not matter.
    let mut after = 1u32;
    // SAFETY: as in `xsetbv`.
    let caught = unsafe {
        attempt!(
            ".byte 0x2e, 0x2e, 0x0f, 0x01, 0xd1\n inc r9d",
            in("rcx") 0xffff_ffff_0000_0000u64, in("rax") 0xffff_ffff_0000_0003u64, in("rdx") 0xffff_ffff_0000_0000u64,
            inout("r9d") after
        )
    };
    ensure!(caught.is_none() && after == 2 && xgetbv(0) == Ok(X87 | SSE), "{caught:x?}, {after}, {:x?}", xgetbv(0));
    Ok(())
}

fn illegal() -> Verdict {
    let offered = offered();
    xsetbv(0, offered);
    let refused = |index, value| {
        let caught = xsetbv(index, value);
        if caught.is_none() && super::control::is_lenient() {
            note(format_args!("XCR0 = {value:#x} is taken, and reads {:x?}", xgetbv(0)));
            xsetbv(0, offered);
            return Ok(());
        }
        ensure!(trap::is_fault(caught, GENERAL_PROTECTION), "register {index} = {value:#x}: {caught:x?}");
        ensure!(xgetbv(0) == Ok(offered), "register {index} = {value:#x}: XCR0 became {:x?}", xgetbv(0));
        Ok(())
    };
    for value in [0, SSE, AVX, SSE | AVX, X87 | AVX, u64::MAX] {
        refused(0, value)?;
    }
    for bit in (0..64).filter(|bit| offered >> bit & 1 == 0) {
        refused(0, offered | 1 << bit)?;
    }
    for index in [1, 2, 0x8000_0000, u32::MAX] {
        refused(index, offered)?;
    }
    // Only a processor can refuse it, and the emulator may not.
    if let Ok(value) = xgetbv(2) {
        note(format_args!("XGETBV of register 2 reads {value:#x}"));
    }
    Ok(())
}

fn storm() -> Verdict {
    let mut hostile = Hostile::new(0x5eed_0007);
    let mut taken = 0;
    for _ in 0..200 {
        let (before, value) = (xgetbv(0), hostile.value());
        let index = if hostile.random().is_multiple_of(4) { hostile.value() as u32 } else { 0 };
        let legal = index == 0 && value & !offered() == 0 && matches!(value, 1 | 3 | 7);
        let caught = xsetbv(index, value);
        let expected = if legal { Ok(value) } else { before };
        taken += u32::from(caught.is_none());
        if caught.is_none() && !legal && super::control::is_lenient() {
            xsetbv(0, X87);
            continue;
        }
        ensure!(caught.is_none() == legal && xgetbv(0) == expected, "register {index:#x} = {value:#x}: {caught:x?}");
    }
    note(format_args!("{taken} of 200 values were taken"));
    Ok(())
}

/// An area to save to.
#[repr(C, align(64))]
struct Area([u8; 4096]);

impl Area {
    fn word(&self, offset: usize) -> u64 {
        self.0
            .get(offset..offset + 8)
            .map_or(0, |bytes| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)))
    }
}

/// What is saved comes back, in each format, and no more is written than CPUID says.
fn area() -> Verdict {
    let offered = offered();
    xsetbv(0, offered);
    let instructions = leaf(1)[0];
    let (standard, compacted) = (leaf(0)[1] as usize, leaf(1)[1] as usize);
    let mut area = Area([0xee; 4096]);
    // The header must be clean before it is restored from, and XSAVE writes of it only what is saved.
    area.0[HEADER..HEADER + 64].fill(0);
    macro_rules! round_trip {
        ($save:literal, $bytes:expr) => {{
            let (kept, value) = (0x0123_4567_89ab_cdefu64, area.0.as_mut_ptr());
            let back: u64;
            // SAFETY: the area is large and aligned; the vector registers are nobody's.
            let caught = unsafe {
                attempt!(
                    concat!("movq xmm5, r8\n ", $save, " [r9]\n pxor xmm5, xmm5\n xrstor64 [r9]\n movq r10, xmm5"),
                    in("eax") u32::MAX, in("edx") u32::MAX, in("r8") kept, in("r9") value, out("r10") back,
                    out("xmm5") _
                )
            };
            ensure!(caught.is_none() && back == kept, concat!($save, ": {:x?}, {:#x}"), caught, back);
            let in_area = area.word(XMM + 5 * 16);
            ensure!(in_area == kept, concat!($save, ": the area has {:#x}"), in_area);
            let beyond = area.0.iter().skip($bytes).all(|byte| *byte == 0xee);
            ensure!(beyond && $bytes <= 4096, concat!($save, ": it wrote beyond {} bytes"), $bytes);
        }};
    }
    round_trip!("xsave64", standard);
    if instructions & 1 != 0 {
        round_trip!("xsaveopt64", standard);
    }
    if instructions & XSAVEC != 0 {
        round_trip!("xsavec64", compacted);
        let format = area.word(HEADER + 8);
        ensure!(format == 1 << 63 | offered, "the compacted format is {format:#x}");
    }
    Ok(())
}

/// The vector registers keep their values over exits, interrupts and sleep.
fn vectors() -> Verdict {
    let avx = offered() & AVX != 0;
    xsetbv(0, offered());
    ensure!(timer::works(), "not tried, as the timer does not work");
    let mut given = Area([0; 4096]);
    let mut taken = Area([0; 4096]);
    for (index, byte) in given.0.iter_mut().take(512).enumerate() {
        *byte = (index * 7 + 3) as u8;
    }
    trap::forget_interrupts();
    macro_rules! through {
        ($move:literal, $register:literal) => {
            // SAFETY: the areas are large enough for 16 registers of 32 bytes; the registers are nobody's, and stay as they are
            // until they are read: the code between uses none of them.
            unsafe {
                asm!(
                    concat!(
                        ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n ", $move, " ", $register, "\\n, [{0} + 32*\\n]\n .endr"
                    ),
                    in(reg) given.0.as_ptr(), options(nostack)
                );
                exits_and_interrupts();
                asm!(
                    concat!(
                        ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n ", $move, " [{0} + 32*\\n], ", $register, "\\n\n .endr"
                    ),
                    in(reg) taken.0.as_mut_ptr(), options(nostack)
                );
            }
        };
    }
    if avx {
        through!("vmovdqu", "ymm");
    } else {
        through!("movdqu", "xmm");
    }
    let width = if avx { 32 } else { 16 };
    for register in 0..16 {
        let bytes = register * 32..register * 32 + width;
        ensure!(given.0.get(bytes.clone()) == taken.0.get(bytes), "register {register} has changed");
    }
    ensure!(trap::count(TIMER) == 3, "{} interrupts and not 3", trap::count(TIMER));
    Ok(())
}

fn exits_and_interrupts() {
    for round in 0..3 {
        timer::start(200);
        for _ in 0..20 {
            let _ = cpuid(0);
            guest_support::cpu::write_port8(0x80, 0);
        }
        if round == 2 {
            interrupts::enable_and_hlt();
        }
        interrupts::enable();
        wait_for(500_000, || trap::count(TIMER) == round + 1);
        interrupts::disable();
    }
}

/// Supervisor state is hidden, and its instructions with it.
fn supervisor() -> Verdict {
    ensure!(leaf(1)[0] & XSAVES == 0, "XSAVES is shown: {:#x}", leaf(1)[0]);
    let mut area = Area([0; 4096]);
    // SAFETY: the area is large and aligned.
    let caught = unsafe { attempt!("xsaves64 [r9]", in("eax") 1, in("edx") 0, in("r9") area.0.as_mut_ptr()) };
    if caught.is_none() && super::control::is_lenient() {
        note(format_args!("XSAVES, which CPUID hides, is executed"));
    } else {
        ensure!(trap::is_fault(caught, INVALID_OPCODE), "XSAVES: {caught:x?}");
    }
    Ok(())
}
