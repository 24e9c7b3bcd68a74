//! What exits, interrupts and sleep cost, in ticks of the time-stamp counter. Where a tick is an instruction, as on
//! Bochs with one processor, these are counts and not estimates.
//!
//! Each figure is what passes beyond the same sequence without the measured instruction, so that on a processor alone it
//! would be 1, that instruction. Stamps are 32 bits wide and their differences wrap: nothing here takes so long.
//! `report: bench-NAME=` is the median of the rounds, and `report: bench-NAME-min=` the least.

use crate::trap::{SPURIOUS, TIMER};
use addr::Vector;
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use guest_support::{apic, interrupts, report};
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, Segment};
use x86_64::instructions::tables::{lidt, sidt};
use x86_64::structures::DescriptorTablePointer;

/// How often each is measured.
const ROUNDS: usize = 200;
/// Vector of the interrupt that the guest sends itself.
const SELF_VECTOR: Vector = Vector(0x60);
/// How often to look for an interrupt. One that does not come is a failure.
const PATIENCE: u64 = 10_000_000;
/// What the timer is set to, in its counts: far beyond the arming and the going to sleep.
const COUNTS: u32 = 1000;
/// Ticks of the time-stamp counter in one of these. The hypervisor's timer counts at the frequency of that counter.
const TICKS: u32 = apic::TIMER_DIVISOR as u32;

const SELF_IPI: u32 = apic::X2APIC_MSR + 0x3f;
const INITIAL_COUNT: u32 = apic::X2APIC_MSR + 0x38;
const CURRENT_COUNT: u32 = apic::X2APIC_MSR + 0x39;
const DIVIDE: u32 = apic::X2APIC_MSR + 0x3e;
const IA32_TSC_DEADLINE: u32 = 0x6e0;
/// The timer's mode in its register.
const TSC_DEADLINE: u32 = 1 << 18;
/// A port without a device behind it.
const UNUSED_PORT: u16 = 0x80;
/// The doorbell, where the configuration has put one: a vector that is written there comes as a device's interrupt.
const DOORBELL: u16 = 0x81;

// The handler stamps in its first instruction and after its end of interrupt, four instructions and the end itself later.
// It works in registers that all code with interrupts on gives up: R10 and R12 are the stamps, R13 is R8 as it was, R14
// says that it ran; RAX, RCX and RDX are lost.
global_asm!(
    ".balign 16",
    "exitprobe_bench_handler:",
    "rdtsc",
    "mov r10d, eax",
    "mov ecx, 0x80b",
    "xor eax, eax",
    "xor edx, edx",
    "wrmsr",
    "rdtsc",
    "mov r12d, eax",
    "mov r13d, r8d",
    "mov r14d, 1",
    "iretq",
);

unsafe extern "C" {
    static exitprobe_bench_handler: u8;
}

/// The interrupt descriptor table while measuring: the one in use before, but for the measured vectors.
#[repr(C, align(4096))]
struct Table(UnsafeCell<[[u64; 2]; 256]>);

// SAFETY: one processor, and the table is written before it is loaded.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new([[0; 2]; 256]));

/// Ticks from a stamp to the next with four instructions and the measured one between them.
macro_rules! ticks_around {
    ($instruction:expr, $rax:expr, $rcx:expr, $rdx:expr) => {{
        let ticks: u64;
        // SAFETY: what is measured changes no memory, no register but these, and no state that anything depends on.
        // RBX, which CPUID changes, is the compiler's.
        unsafe {
            asm!(
                "mov r12, rbx",
                "rdtsc",
                "mov r8d, eax",
                "mov eax, r9d",
                "mov ecx, r10d",
                "mov edx, r11d",
                $instruction,
                "rdtsc",
                "sub eax, r8d",
                "mov rbx, r12",
                out("rax") ticks, out("rcx") _, out("rdx") _, out("r8") _, out("r12") _,
                in("r9") u64::from($rax), in("r10") u64::from($rcx), in("r11") u64::from($rdx),
                options(nostack)
            )
        };
        ticks as u32
    }};
}

/// The stamps of an interrupt: before what it is measured from, in its handler's first instruction, after its end.
struct Stamps {
    begin: u32,
    handler: u32,
    ended: u32,
}

/// Executes what brings one interrupt, with interrupts off before and after: the stamps, `None` if none came. R8 is the
/// first stamp when the interrupt comes, R14 becomes 1 when it was there, R15 is the patience.
macro_rules! interrupted {
    ($($instruction:expr),+; $($operands:tt)+) => {{
        let (begin, handler, ended, came): (u64, u64, u64, u64);
        // SAFETY: no interrupt comes but to the handler above, which changes only registers that are given up here.
        unsafe {
            asm!(
                $($instruction),+,
                "cli",
                out("rax") _, out("rcx") _, out("rdx") _, out("r8") _, out("r9") _,
                lateout("r10") handler, lateout("r12") ended, lateout("r13") begin,
                inout("r14") 0u64 => came, inout("r15") PATIENCE => _,
                $($operands)+
            )
        };
        (came != 0).then_some(Stamps { begin: begin as u32, handler: handler as u32, ended: ended as u32 })
    }};
}

/// Measures everything and reports it. The error is a word for the report.
pub fn run() -> Result<(), &'static str> {
    apic::initialize(TIMER, SPURIOUS);
    if apic::mode() != "x2APIC" {
        return Err("no-x2apic");
    }
    apic::write(apic::LVT_TIMER, TIMER.0.into());
    install_handler();
    let done = measure();
    interrupts::load();
    done
}

fn measure() -> Result<(), &'static str> {
    // What the sequence takes by itself.
    let empty = (0..ROUNDS).map(|_| ticks_around!("", 0u32, 0u32, 0u32)).min().unwrap_or(0);
    report::entry("bench-empty", format_args!("{empty}"));
    let exit = |name, round: fn() -> u32| report_figure(name, || Some(round().wrapping_sub(empty)));
    exit("bench-cpuid", || ticks_around!("cpuid", 0u32, 0u32, 0u32))?;
    exit("bench-rdmsr", || ticks_around!("rdmsr", 0u32, CURRENT_COUNT, 0u32))?;
    // Divided by 16, as it is already.
    exit("bench-wrmsr", || ticks_around!("wrmsr", 3u32, DIVIDE, 0u32))?;
    // Each replaces the one before, and none comes.
    exit("bench-arm-count", || ticks_around!("wrmsr", u32::MAX, INITIAL_COUNT, 0u32))?;
    apic::write(apic::LVT_TIMER, TSC_DEADLINE | u32::from(TIMER.0));
    exit("bench-arm-deadline", || ticks_around!("wrmsr", 0u32, IA32_TSC_DEADLINE, 1u32 << 30))?;
    report_figure("bench-deadline-late", || deadline_from_arming().map(late))?;
    report_figure("bench-deadline-wake", || deadline_while_halted().map(late))?;
    apic::write(apic::LVT_TIMER, TIMER.0.into());
    let out = exit("bench-out", || ticks_around!("out dx, al", 0u32, 0u32, UNUSED_PORT))?;

    let from_begin = |stamps: Stamps| stamps.handler.wrapping_sub(stamps.begin).wrapping_sub(empty);
    report_figure("bench-self-ipi", || self_ipi().map(from_begin))?;
    // The doorbell is an OUT and what comes of it: the way of a device's interrupt alone.
    report_figure("bench-device", || doorbell().map(from_begin).map(|ticks| ticks.wrapping_sub(out)))?;
    report_figure("bench-eoi", || Some(self_ipi().map(|it| it.ended.wrapping_sub(it.handler))?.wrapping_sub(empty)))?;
    // Nothing is between the stamp and the handler here but where in the loop it comes.
    report_figure("bench-timer", || {
        Some(timer_while_running().map(|it| it.handler.wrapping_sub(it.begin))?.wrapping_sub(1))
    })?;
    report_figure("bench-timer-late", || timer_from_arming().map(late))?;
    report_figure("bench-wake", || timer_while_halted().map(late))?;
    report_figure("bench-hlt", || halt_with_interrupt_pending().map(from_begin))?;
    Ok(())
}

/// Measures in rounds, and reports. Returns the median.
fn report_figure(name: &str, mut round: impl FnMut() -> Option<u32>) -> Result<u32, &'static str> {
    let mut figures = [0; ROUNDS];
    for figure in &mut figures {
        *figure = round().ok_or("no-interrupt")?;
    }
    figures.sort_unstable();
    report::entry(name, format_args!("{} {name}-min={}", figures[ROUNDS / 2], figures[0]));
    Ok(figures[ROUNDS / 2])
}

/// How long after its time the timer's interrupt was in its handler. The time counts from before the instruction that
/// arms the timer, so that this contains what the hypervisor does before it reads the clock.
fn late(stamps: Stamps) -> u32 {
    stamps.handler.wrapping_sub(stamps.begin).wrapping_sub(COUNTS * TICKS)
}

fn self_ipi() -> Option<Stamps> {
    interrupted!(
        "sti",
        "nop",
        "rdtsc",
        "mov r8d, eax",
        "mov ecx, {register}",
        "mov eax, {value}",
        "xor edx, edx",
        "wrmsr",
        "2: test r14d, r14d",
        "jnz 3f",
        "dec r15",
        "jnz 2b",
        "3:";
        register = const SELF_IPI, value = const SELF_VECTOR.0
    )
}

/// The first stamp is before the ringing. As many instructions are between it and the OUT as where an OUT alone is measured.
fn doorbell() -> Option<Stamps> {
    interrupted!(
        "sti",
        "nop",
        "rdtsc",
        "mov r8d, eax",
        "mov eax, {value}",
        "mov ecx, 0",
        "mov edx, {port}",
        "out dx, al",
        "2: test r14d, r14d",
        "jnz 3f",
        "dec r15",
        "jnz 2b",
        "3:";
        port = const DOORBELL, value = const SELF_VECTOR.0
    )
}

/// The first stamp is the last that the running program took before the interrupt.
fn timer_while_running() -> Option<Stamps> {
    interrupted!(
        "mov ecx, {register}",
        "mov eax, {value}",
        "xor edx, edx",
        "wrmsr",
        "sti",
        "2: rdtsc",
        "mov r8d, eax",
        "test r14d, r14d",
        "jnz 3f",
        "dec r15",
        "jnz 2b",
        "3:";
        register = const INITIAL_COUNT, value = const COUNTS
    )
}

/// The first stamp is before the arming.
fn timer_from_arming() -> Option<Stamps> {
    interrupted!(
        "rdtsc",
        "mov r8d, eax",
        "mov ecx, {register}",
        "mov eax, {value}",
        "xor edx, edx",
        "wrmsr",
        "sti",
        "2: test r14d, r14d",
        "jnz 3f",
        "dec r15",
        "jnz 2b",
        "3:";
        register = const INITIAL_COUNT, value = const COUNTS
    )
}

/// The first stamp is before the arming. A HLT ends by an interrupt, and there is no other.
fn timer_while_halted() -> Option<Stamps> {
    interrupted!(
        "rdtsc",
        "mov r8d, eax",
        "mov ecx, {register}",
        "mov eax, {value}",
        "xor edx, edx",
        "wrmsr",
        "sti",
        "hlt";
        register = const INITIAL_COUNT, value = const COUNTS
    )
}

/// As [`timer_from_arming`], in TSC-deadline mode.
fn deadline_from_arming() -> Option<Stamps> {
    interrupted!(
        "rdtsc",
        "mov r8d, eax",
        "mov ecx, {register}",
        "add eax, {ticks}",
        "adc edx, 0",
        "wrmsr",
        "sti",
        "2: test r14d, r14d",
        "jnz 3f",
        "dec r15",
        "jnz 2b",
        "3:";
        register = const IA32_TSC_DEADLINE, ticks = const COUNTS * TICKS
    )
}

/// As [`timer_while_halted`], in TSC-deadline mode.
fn deadline_while_halted() -> Option<Stamps> {
    interrupted!(
        "rdtsc",
        "mov r8d, eax",
        "mov ecx, {register}",
        "add eax, {ticks}",
        "adc edx, 0",
        "wrmsr",
        "sti",
        "hlt";
        register = const IA32_TSC_DEADLINE, ticks = const COUNTS * TICKS
    )
}

/// A HLT that the pending interrupt ends at once.
fn halt_with_interrupt_pending() -> Option<Stamps> {
    interrupted!(
        "mov ecx, {register}",
        "mov eax, {value}",
        "xor edx, edx",
        "wrmsr",
        "rdtsc",
        "mov r8d, eax",
        "nop",
        "nop",
        "sti",
        "hlt";
        register = const SELF_IPI, value = const SELF_VECTOR.0
    )
}

fn install_handler() {
    let handler = &raw const exitprobe_bench_handler as u64;
    let selector = u64::from(CS::get_reg().0);
    // SAFETY: see `Sync` above; the table in use has 256 gates, and is not this one.
    let table = unsafe { &mut *TABLE.0.get() };
    // SAFETY: as above.
    *table = unsafe { sidt().base.as_ptr::<[[u64; 2]; 256]>().read() };
    for vector in [TIMER, SELF_VECTOR] {
        // Present, privilege 0, 64-bit interrupt gate, on the interrupted stack.
        let low = handler & 0xffff | selector << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
        table[usize::from(vector.0)] = [low, handler >> 32];
    }
    let pointer =
        DescriptorTablePointer { base: VirtAddr::from_ptr(TABLE.0.get()), limit: (size_of::<Table>() - 1) as u16 };
    // SAFETY: the table is static, and each of its gates leads to a handler.
    unsafe { lidt(&pointer) };
}
