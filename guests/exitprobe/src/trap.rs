//! Exceptions and interrupts: caught, noted, and handed to the probe that expects them.
//!
//! All state is atomics: the handler runs in the midst of the probes, on the only processor.

use addr::Vector;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use guest_support::interrupts::{self, EXCEPTIONS, Frame};
use guest_support::{apic, report};

/// The local APIC's timer.
pub const TIMER: Vector = Vector(0x50);
/// An interrupt that the local APIC took back.
pub const SPURIOUS: Vector = Vector(0xef);

/// Vectors of exceptions.
pub const DIVIDE: u8 = 0;
pub const DEBUG: u8 = 1;
pub const NMI: u8 = 2;
pub const BREAKPOINT: u8 = 3;
pub const INVALID_OPCODE: u8 = 6;
pub const DEVICE_NOT_AVAILABLE: u8 = 7;
pub const DOUBLE_FAULT: u8 = 8;
pub const GENERAL_PROTECTION: u8 = 13;
pub const PAGE_FAULT: u8 = 14;

const TRAP_FLAG: u64 = 1 << 8;
const RESUME_FLAG: u64 = 1 << 16;

/// Where the attempted instruction is, and where to go on after an exception; 0 when none is expected. Written by the
/// assembly of [`attempt!`].
pub static START: AtomicU64 = AtomicU64::new(0);
pub static RESUME: AtomicU64 = AtomicU64::new(0);

static CAUGHT: AtomicBool = AtomicBool::new(false);
static CAUGHT_VECTOR: AtomicU8 = AtomicU8::new(0);
static CAUGHT_ERROR: AtomicU64 = AtomicU64::new(0);
static CAUGHT_RIP: AtomicU64 = AtomicU64::new(0);
static CAUGHT_CR2: AtomicU64 = AtomicU64::new(0);
static CAUGHT_DR6: AtomicU64 = AtomicU64::new(0);
static CAUGHT_RFLAGS: AtomicU64 = AtomicU64::new(0);

/// An exception that was caught.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exception {
    pub vector: u8,
    pub error_code: u64,
    /// How far RIP was behind the beginning of the attempted instruction.
    pub offset: i64,
    pub cr2: u64,
    pub dr6: u64,
    pub rflags: u64,
}

impl Exception {
    /// Whether it is a fault with this vector and error code, at the instruction.
    pub fn is_fault(&self, vector: u8, error_code: u64) -> bool {
        (self.vector, self.error_code, self.offset) == (vector, error_code, 0)
    }
}

/// Whether it is a fault with this vector, error code 0, at the instruction.
pub fn is_fault(caught: Option<Exception>, vector: u8) -> bool {
    caught.is_some_and(|exception| exception.is_fault(vector, 0))
}

/// Executes an instruction that may raise an exception. The value is an `Option<Exception>`; RESUME follows the
/// instruction.
macro_rules! attempt {
    ($instruction:expr $(, $($operands:tt)*)?) => {{
        $crate::trap::begin();
        core::arch::asm!(
            "lea {scratch}, [rip + 22f]",
            "mov [rip + {start}], {scratch}",
            "lea {scratch}, [rip + 33f]",
            "mov [rip + {resume}], {scratch}",
            "22:",
            $instruction,
            "33:",
            scratch = out(reg) _,
            start = sym $crate::trap::START,
            resume = sym $crate::trap::RESUME,
            $($($operands)*)?
        );
        $crate::trap::end()
    }};
}
pub(crate) use attempt;

/// Executes one instruction with RFLAGS.TF set. The value is an `Option<Exception>`, and how long the instruction was. RBX,
/// which cannot be an operand, is kept.
macro_rules! step {
    ($instruction:expr $(, $($operands:tt)*)?) => {{
        $crate::trap::begin();
        let length: u64;
        core::arch::asm!(
            "push rbx",
            "lea {length}, [rip + 22f]",
            "mov [rip + {start}], {length}",
            "lea {length}, [rip + 33f]",
            "mov [rip + {resume}], {length}",
            "sub {length}, [rip + {start}]",
            "pushfq",
            "or dword ptr [rsp], 0x100",
            "popfq",
            "22:",
            $instruction,
            // Never reached with the trap flag set: the trap comes before this instruction.
            "33: nop",
            "pushfq",
            "and dword ptr [rsp], 0xfffffeff",
            "popfq",
            "pop rbx",
            length = out(reg) length,
            start = sym $crate::trap::START,
            resume = sym $crate::trap::RESUME,
            $($($operands)*)?
        );
        ($crate::trap::end(), length as i64)
    }};
}
pub(crate) use step;

/// Prepares for an attempt.
pub fn begin() {
    CAUGHT.store(false, Relaxed);
}

/// Ends an attempt: what was caught.
pub fn end() -> Option<Exception> {
    RESUME.store(0, Relaxed);
    CAUGHT.load(Relaxed).then(|| Exception {
        vector: CAUGHT_VECTOR.load(Relaxed),
        error_code: CAUGHT_ERROR.load(Relaxed),
        offset: CAUGHT_RIP.load(Relaxed).wrapping_sub(START.load(Relaxed)) as i64,
        cr2: CAUGHT_CR2.load(Relaxed),
        dr6: CAUGHT_DR6.load(Relaxed),
        rflags: CAUGHT_RFLAGS.load(Relaxed),
    })
}

/// The most interrupts of which the order is kept.
const LOG: usize = 64;
static ORDER: [AtomicU8; LOG] = [const { AtomicU8::new(0) }; LOG];
static INTERRUPTED: [AtomicU64; LOG] = [const { AtomicU64::new(0) }; LOG];
static TAKEN: AtomicUsize = AtomicUsize::new(0);
static COUNTS: [AtomicU32; 256] = [const { AtomicU32::new(0) }; 256];
/// The handler leaves the interrupt in service.
static KEEP_IN_SERVICE: AtomicBool = AtomicBool::new(false);
/// What runs within the handler of a vector, before the end of interrupt; 0 when nothing does.
static WITHIN: AtomicUsize = AtomicUsize::new(0);
/// What looks at an exception first: a `fn(&mut Frame) -> bool` that says whether it has dealt with it; 0: nothing.
static MENDER: AtomicUsize = AtomicUsize::new(0);

/// Something that runs within a handler.
pub type Within = fn(Vector);
/// Something that may mend what an exception is about.
pub type Mender = fn(&mut Frame) -> bool;

/// Forgets the interrupts so far.
pub fn forget_interrupts() {
    TAKEN.store(0, Relaxed);
    for count in &COUNTS {
        count.store(0, Relaxed);
    }
}

/// How often `vector` was taken since [`forget_interrupts`].
pub fn count(vector: Vector) -> u32 {
    COUNTS[usize::from(vector.0)].load(Relaxed)
}

/// How many interrupts were taken since [`forget_interrupts`].
pub fn taken() -> usize {
    TAKEN.load(Relaxed)
}

/// The vector of the interrupt with this number, in the order in which the handlers began; 0 if there is none.
pub fn vector_of(number: usize) -> u8 {
    if number < taken() { ORDER.get(number).map_or(0, |vector| vector.load(Relaxed)) } else { 0 }
}

/// Where the interrupt with this number interrupted; 0 if there is none.
pub fn interrupted_at(number: usize) -> u64 {
    if number < taken() { INTERRUPTED.get(number).map_or(0, |rip| rip.load(Relaxed)) } else { 0 }
}

/// Whether handlers leave their interrupt in service.
pub fn keep_in_service(keep: bool) {
    KEEP_IN_SERVICE.store(keep, Relaxed);
}

/// Lets `within` run in each interrupt's handler, after it is counted and before the end of interrupt.
pub fn within_handlers(within: Option<Within>) {
    WITHIN.store(within.map_or(0, |within| within as usize), Relaxed);
}

/// Lets `mender` look at each exception first.
pub fn mend_with(mender: Option<Mender>) {
    MENDER.store(mender.map_or(0, |mender| mender as usize), Relaxed);
}

/// Installs the handler.
pub fn initialize() {
    interrupts::install(handle);
}

fn handle(frame: &mut Frame) {
    if frame.vector() < EXCEPTIONS { exception(frame) } else { interrupt(frame) }
}

fn interrupt(frame: &Frame) {
    let vector = Vector(frame.vector());
    let number = TAKEN.fetch_add(1, Relaxed);
    if let (Some(order), Some(interrupted)) = (ORDER.get(number), INTERRUPTED.get(number)) {
        order.store(vector.0, Relaxed);
        interrupted.store(frame.rip, Relaxed);
    }
    COUNTS[usize::from(vector.0)].fetch_add(1, Relaxed);
    let within = WITHIN.load(Relaxed);
    if within != 0 {
        // SAFETY: only `within_handlers` writes here, and it writes a `Within`.
        let within: Within = unsafe { core::mem::transmute::<usize, Within>(within) };
        within(vector);
    }
    // The APIC does not put a spurious interrupt in service, so it must not be ended.
    if !KEEP_IN_SERVICE.load(Relaxed) && vector != SPURIOUS {
        apic::end_of_interrupt();
    }
}

fn exception(frame: &mut Frame) {
    let vector = frame.vector();
    let mender = MENDER.load(Relaxed);
    if mender != 0 {
        // SAFETY: only `mend_with` writes here, and it writes a `Mender`.
        let mender: Mender = unsafe { core::mem::transmute::<usize, Mender>(mender) };
        if mender(frame) {
            return;
        }
    }
    let cr2 = x86_64::registers::control::Cr2::read_raw();
    if vector == NMI {
        COUNTS[usize::from(vector)].fetch_add(1, Relaxed);
        return;
    }
    let resume = RESUME.swap(0, Relaxed);
    if resume == 0 {
        let (error_code, instruction) = (frame.error_code, frame.rip);
        report::say(format_args!(
            "exception {vector}, error code {error_code:#x}, at {instruction:#x}, CR2 {cr2:#x}, rsp {:#x}",
            frame.rsp
        ));
        report::fail(format_args!("exception-{vector}"))
    }
    CAUGHT.store(true, Relaxed);
    CAUGHT_VECTOR.store(vector, Relaxed);
    CAUGHT_ERROR.store(frame.error_code, Relaxed);
    CAUGHT_RIP.store(frame.rip, Relaxed);
    CAUGHT_CR2.store(cr2, Relaxed);
    CAUGHT_RFLAGS.store(frame.rflags, Relaxed);
    CAUGHT_DR6.store(take_debug_status(), Relaxed);
    frame.rip = resume;
    frame.rflags &= !TRAP_FLAG;
    // Else an instruction breakpoint at the place to go on with would be met at once.
    frame.rflags |= RESUME_FLAG;
}

/// Reads DR6, and puts it back to what it is without a debug exception.
fn take_debug_status() -> u64 {
    let status: u64;
    // SAFETY: DR6 says what happened, and changes nothing.
    unsafe {
        core::arch::asm!("mov {0}, dr6", "mov dr6, {1}", out(reg) status, in(reg) 0xffff_0ff0u64, options(nomem, nostack));
    }
    status
}
