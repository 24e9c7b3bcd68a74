//! The interrupt descriptor table: interrupts are noted and counted, exceptions end the guest.

use crate::{apic, guest, report};
use addr::Vector;
use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, Segment};
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;

/// The NIC received a packet.
pub const RECEIVE: Vector = Vector(0x40);
/// The NIC is done with a packet to send.
pub const TRANSMIT: Vector = Vector(0x41);
/// The NIC has something else to say, such as a link that went up.
pub const OTHER: Vector = Vector(0x42);
/// The local APIC's timer.
pub const TIMER: Vector = Vector(0x50);
/// An interrupt that the local APIC took back.
pub const SPURIOUS: Vector = Vector(0xef);

/// What has come since the last look, a bit each.
pub type Pending = u32;
/// [`RECEIVE`] has come.
pub const PENDING_RECEIVE: Pending = 1;
/// [`TRANSMIT`] has come.
pub const PENDING_TRANSMIT: Pending = 2;
/// [`OTHER`] has come.
pub const PENDING_OTHER: Pending = 4;
const PENDING_TIMER: Pending = 8;

/// The first vectors are the processor's exceptions.
const EXCEPTIONS: u8 = 32;
const VECTORS: usize = 256;
/// The distance between the entry stubs, in bytes: a power of two that a CALL fits in.
const STUB_SIZE: usize = 8;

static PENDING: AtomicU32 = AtomicU32::new(0);
static RECEIVED: AtomicU32 = AtomicU32::new(0);
static TRANSMITTED: AtomicU32 = AtomicU32::new(0);
static OTHERS: AtomicU32 = AtomicU32::new(0);
static TIMERS: AtomicU32 = AtomicU32::new(0);
static SPURIOUS_COUNT: AtomicU32 = AtomicU32::new(0);
static UNEXPECTED: AtomicU32 = AtomicU32::new(0);

// Every vector has a stub of `STUB_SIZE` bytes that calls the common entry: the return address tells which vector it
// was. An exception's error code is left where the processor put it, as no exception returns.
global_asm!(
    ".balign 8",
    "netprobe_interrupt_stubs:",
    ".rept 256",
    "call netprobe_interrupt_entry",
    ".balign 8",
    ".endr",
    "netprobe_interrupt_entry:",
    "push rbp",
    "mov rbp, rsp",
    "push rax",
    "push rcx",
    "push rdx",
    "push rsi",
    "push rdi",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "lea rdi, [rbp + 8]",
    "cld",
    "and rsp, -16",
    "call {handle}",
    "lea rsp, [rbp - 72]",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "pop rbp",
    "add rsp, 8",
    "iretq",
    handle = sym handle,
);

unsafe extern "C" {
    static netprobe_interrupt_stubs: u8;
}

/// The 256 gates (SDM volume 3, "64-Bit Mode IDT").
#[repr(C, align(16))]
struct Table(UnsafeCell<[[u64; 2]; VECTORS]>);

// SAFETY: `initialize` writes the table once, before the processor is told of it, on the only processor.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new([[0; 2]; VECTORS]));

/// Installs a handler for every vector. Interrupts stay off until the first halt.
pub fn initialize() {
    let stubs = &raw const netprobe_interrupt_stubs as u64;
    let selector = u64::from(CS::get_reg().0);
    // SAFETY: called once at start; see `Sync` above.
    let table = unsafe { &mut *TABLE.0.get() };
    for (vector, gate) in table.iter_mut().enumerate() {
        let handler = stubs + (vector * STUB_SIZE) as u64;
        // Present, privilege 0, 64-bit interrupt gate: interrupts are off in the handler.
        let low = handler & 0xffff | selector << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
        *gate = [low, handler >> 32];
    }
    let pointer =
        DescriptorTablePointer { base: VirtAddr::from_ptr(TABLE.0.get()), limit: (size_of::<Table>() - 1) as u16 };
    // SAFETY: the table is static and every gate leads to a stub, through the code segment in use.
    unsafe { lidt(&pointer) };
}

/// Called by the stubs with interrupts off. `frame` points to the return address into the stub, above which lies
/// what the processor pushed.
extern "C" fn handle(frame: *const u64) {
    // SAFETY: the entry stub passes a pointer into the live stack; for an exception the six words above it exist in
    // any case, because the processor pushed five and the interrupted code's own stack follows.
    let words = unsafe { *frame.cast::<[u64; 4]>() };
    let stubs = &raw const netprobe_interrupt_stubs as u64;
    let vector = (words[0].wrapping_sub(stubs) / STUB_SIZE as u64) as u8;
    if vector < EXCEPTIONS {
        exception(vector, &words);
    }
    let pending = match Vector(vector) {
        RECEIVE => count(&RECEIVED, PENDING_RECEIVE),
        TRANSMIT => count(&TRANSMITTED, PENDING_TRANSMIT),
        OTHER => count(&OTHERS, PENDING_OTHER),
        TIMER => count(&TIMERS, PENDING_TIMER),
        SPURIOUS => {
            // The APIC does not put a spurious interrupt in service, so it must not be ended.
            count(&SPURIOUS_COUNT, 0);
            return;
        }
        _ => count(&UNEXPECTED, 0),
    };
    PENDING.fetch_or(pending, Ordering::Relaxed);
    apic::end_of_interrupt();
}

fn count(counter: &AtomicU32, pending: Pending) -> Pending {
    counter.fetch_add(1, Ordering::Relaxed);
    pending
}

/// Prints what is known of an exception, and ends the guest.
fn exception(vector: u8, words: &[u64; 4]) -> ! {
    let has_error_code = matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30);
    let (error_code, instruction) = if has_error_code { (words[1], words[2]) } else { (0, words[1]) };
    let fault_address = x86_64::registers::control::Cr2::read_raw();
    report::say(format_args!(
        "exception {vector}, error code {error_code:#x}, at {instruction:#x}, CR2 {fault_address:#x}"
    ));
    guest::fail(format_args!("exception-{vector}"))
}

/// What has come since the last call.
pub fn take_pending() -> Pending {
    PENDING.swap(0, Ordering::Relaxed)
}

/// Whether anything has come since the last [`take_pending`].
pub fn is_pending() -> bool {
    PENDING.load(Ordering::Relaxed) != 0
}

/// How many interrupts were taken, by kind.
pub struct Counts {
    receive: u32,
    transmit: u32,
    other: u32,
    timer: u32,
    spurious: u32,
    /// Vectors that nobody should have sent.
    pub unexpected: u32,
}

impl Counts {
    /// All of them.
    pub fn total(&self) -> u32 {
        self.receive + self.transmit + self.other + self.timer + self.spurious + self.unexpected
    }
}

/// How many interrupts were taken since the start.
pub fn counts() -> Counts {
    Counts {
        receive: RECEIVED.load(Ordering::Relaxed),
        transmit: TRANSMITTED.load(Ordering::Relaxed),
        other: OTHERS.load(Ordering::Relaxed),
        timer: TIMERS.load(Ordering::Relaxed),
        spurious: SPURIOUS_COUNT.load(Ordering::Relaxed),
        unexpected: UNEXPECTED.load(Ordering::Relaxed),
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { receive, transmit, other, timer, spurious, unexpected } = self;
        write!(
            f,
            "interrupts taken: {receive} receive, {transmit} transmit, {other} other, {timer} timer, \
             {spurious} spurious, {unexpected} unexpected"
        )
    }
}
