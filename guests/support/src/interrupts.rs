//! The interrupt descriptor table: every vector leads to one function of the guest's.

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::mem::transmute;
use core::sync::atomic::{AtomicUsize, Ordering};
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, Segment};
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;

/// The first vectors are the processor's exceptions.
pub const EXCEPTIONS: u8 = 32;
const VECTORS: usize = 256;
/// The distance between the entry stubs, in bytes: two pushes and a jump fit in.
const STUB_SIZE: usize = 16;

/// The interrupted program. What the handler changes here is what the program goes on with.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "registers are called what they are called")]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rbp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    vector: u64,
    /// The error code; 0 for vectors that have none.
    pub error_code: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

impl Frame {
    /// The vector, 0 to 255.
    pub fn vector(&self) -> u8 {
        self.vector as u8
    }
}

/// What a guest does with an interrupt or exception; interrupts are off meanwhile. It is called in the midst of
/// anything, so it may touch only what the interrupted program shares with it by atomics.
pub type Handler = fn(&mut Frame);

static HANDLER: AtomicUsize = AtomicUsize::new(0);

// A stub pushes 0 where the processor pushes no error code, so that all frames are alike.
global_asm!(
    ".balign 16",
    "guest_support_stubs:",
    ".set guest_support_vector, 0",
    ".rept 256",
    ".balign 16",
    ".if guest_support_vector == 8 || (guest_support_vector >= 10 && guest_support_vector <= 14) || \
     guest_support_vector == 17 || guest_support_vector == 21 || guest_support_vector == 29 || \
     guest_support_vector == 30",
    ".else",
    "push 0",
    ".endif",
    "push guest_support_vector",
    "jmp guest_support_entry",
    ".set guest_support_vector, guest_support_vector + 1",
    ".endr",
    "guest_support_entry:",
    "push rax",
    "push rbx",
    "push rcx",
    "push rdx",
    "push rsi",
    "push rdi",
    "push rbp",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov rdi, rsp",
    "mov rbp, rsp",
    "cld",
    "and rsp, -16",
    "call {handle}",
    "mov rsp, rbp",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rbp",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rcx",
    "pop rbx",
    "pop rax",
    "add rsp, 16",
    "iretq",
    handle = sym handle,
);

unsafe extern "C" {
    static guest_support_stubs: u8;
}

/// The 256 gates (SDM volume 3, "64-Bit Mode IDT").
#[repr(C, align(4096))]
struct Table(UnsafeCell<[[u64; 2]; VECTORS]>);

// SAFETY: one processor, and each change is finished before anything else happens: `install` is called before
// interrupts are on, and `set_stack` writes one word.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new([[0; 2]; VECTORS]));

/// Installs `handler` for every vector, and loads the table. Interrupts stay as they are: off, at the start.
pub fn install(handler: Handler) {
    HANDLER.store(handler as usize, Ordering::Relaxed);
    let stubs = &raw const guest_support_stubs as u64;
    let selector = u64::from(CS::get_reg().0);
    // SAFETY: see `Sync` above.
    let table = unsafe { &mut *TABLE.0.get() };
    for (vector, gate) in table.iter_mut().enumerate() {
        let stub = stubs + (vector * STUB_SIZE) as u64;
        // Present, privilege 0, 64-bit interrupt gate: interrupts are off in the handler.
        let low = stub & 0xffff | selector << 16 | 0x8e00 << 32 | (stub >> 16 & 0xffff) << 48;
        *gate = [low, stub >> 32];
    }
    load();
}

/// Loads the table again, after another one was loaded.
pub fn load() {
    let pointer =
        DescriptorTablePointer { base: VirtAddr::from_ptr(TABLE.0.get()), limit: (size_of::<Table>() - 1) as u16 };
    // SAFETY: the table is static and every gate leads to a stub, through the code segment in use.
    unsafe { lidt(&pointer) };
}

/// Has the handler of `vector` run on stack `number` (1 to 7) of the task state segment; 0: on the interrupted stack.
///
/// # Safety
/// A task state segment must be loaded whose entry `number` is the end of a stack that is the handler's own.
pub unsafe fn set_stack(vector: u8, number: u8) {
    let gate = TABLE.0.get().cast::<[u64; 2]>().wrapping_add(vector.into()).cast::<u64>();
    // SAFETY: `vector` is an index of the table; volatile, because the processor reads it.
    unsafe { gate.write_volatile(gate.read_volatile() & !(7 << 32) | u64::from(number & 7) << 32) };
}

/// Called by the stubs.
extern "C" fn handle(frame: &mut Frame) {
    let handler = HANDLER.load(Ordering::Relaxed);
    // SAFETY: the table is loaded by `install` only, after it has put a `Handler` here.
    let handler: Handler = unsafe { transmute::<usize, Handler>(handler) };
    handler(frame);
}
