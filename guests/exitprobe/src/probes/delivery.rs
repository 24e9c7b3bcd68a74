//! Interrupts and exceptions that meet: faults in handlers' way, and interrupts in the midst of faults.

use super::paging::load;
use super::priority::{IN_SERVICE, is_set, send};
use super::space::{self, FRAMES, PRESENT, WRITABLE};
use super::timer;
use super::waiting::wait_for;
use crate::list::{List, Verdict, ensure, note};
use crate::trap::{self, DOUBLE_FAULT, PAGE_FAULT, TIMER};
use addr::Vector;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use guest_support::interrupts::{self as table, Frame};
use guest_support::{apic, clock};
use x86_64::instructions::interrupts;

const PERIODIC: u32 = 1 << 17;
/// Page-fault error code: a write.
const WRITE: u64 = 1 << 1;
/// The page that is the stack.
const STACK: usize = 8;
/// A stack pointer in the midst of it.
const STACK_POINTER: u64 = space::page(STACK) + 0x800;

pub fn probe(list: &mut List) {
    list.probe("faults-and-timer", faults_and_timer);
    list.probe("stack-fault-interrupt", || stack_fault(Cause::Interrupt));
    list.probe("stack-fault-exception", || stack_fault(Cause::Exception));
    list.probe("double-fault", double_fault);
}

/// As `attempt!`, with the stack pointer in the page that is the stack, and RDX where nothing is.
macro_rules! on_stack {
    ($instruction:literal) => {{
        trap::begin();
        asm!(
            "lea r9, [rip + 22f]",
            "mov [rip + {start}], r9",
            "lea r9, [rip + 33f]",
            "mov [rip + {resume}], r9",
            "mov r8, rsp",
            "mov rsp, rax",
            $instruction,
            "33: mov rsp, r8",
            start = sym trap::START,
            resume = sym trap::RESUME,
            inout("rax") STACK_POINTER => _, in("rdx") space::page(9), out("r8") _, out("r9") _,
        );
        trap::end()
    }};
}

/// A periodic timer while one page fault follows the other: each fault has its own address, and the timer goes on.
fn faults_and_timer() -> Verdict {
    ensure!(timer::works(), "not tried, as the timer does not work");
    trap::forget_interrupts();
    apic::write(apic::LVT_TIMER, PERIODIC | u32::from(TIMER.0));
    apic::write(apic::INITIAL_COUNT, clock::timer_ticks(150));
    interrupts::enable();
    let deadline = clock::now_us() + 1_000_000;
    let mut faults = 0u64;
    let mut verdict = Ok(());
    while clock::now_us() < deadline && (trap::count(TIMER) < 200 || faults < 1000) {
        let address = space::page(16 + faults as usize % 256) + faults % 4096;
        let (caught, _) = load(address);
        if !caught.is_some_and(|caught| caught.is_fault(PAGE_FAULT, 0) && caught.cr2 == address) {
            verdict = Err(caught);
            break;
        }
        faults += 1;
    }
    timer::stop();
    interrupts::disable();
    ensure!(verdict.is_ok(), "fault {faults}: {verdict:x?}");
    let timers = trap::count(TIMER);
    ensure!(timers >= 50 && faults >= 1000, "{timers} timers and {faults} faults in a second");
    ensure!(trap::taken() == timers as usize, "other interrupts came");
    Ok(())
}

static FAULTS: AtomicU64 = AtomicU64::new(0);
static FAULT_CR2: AtomicU64 = AtomicU64::new(0);
static FAULT_ERROR: AtomicU64 = AtomicU64::new(0);
static FAULT_RIP: AtomicU64 = AtomicU64::new(0);

/// Brings the stack's page in. It runs on the page fault's own stack.
fn bring_in(frame: &mut Frame) -> bool {
    if frame.vector() != PAGE_FAULT {
        return false;
    }
    FAULT_CR2.store(x86_64::registers::control::Cr2::read_raw(), Relaxed);
    FAULT_ERROR.store(frame.error_code, Relaxed);
    FAULT_RIP.store(frame.rip, Relaxed);
    space::set_page(STACK, FRAMES.physical(0) | PRESENT | WRITABLE);
    FAULTS.fetch_add(1, Relaxed) == 0
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Interrupt,
    Exception,
}

/// The frame of an interrupt, or of an exception, goes to a stack that is not present: the page fault is delivered in
/// place of it, on a stack of its own, at the interrupted instruction.
fn stack_fault(cause: Cause) -> Verdict {
    trap::forget_interrupts();
    FAULTS.store(0, Relaxed);
    space::set_page(STACK, 0);
    trap::mend_with(Some(bring_in));
    let wanted: u64;
    let caught = match cause {
        Cause::Interrupt => {
            send(0x61);
            // SAFETY: nothing is pushed on the stack while it is absent but by the processor; it is put back.
            unsafe {
                asm!(
                    "mov r8, rsp",
                    "lea r9, [rip + 22f]",
                    "mov rsp, rax",
                    "sti",
                    "nop",
                    "22: nop",
                    "cli",
                    "mov rsp, r8",
                    in("rax") STACK_POINTER, out("r8") _, out("r9") wanted,
                );
            }
            None
        }
        Cause::Exception => {
            // SAFETY: the exception is raised a second time once the stack is there, and caught then.
            let caught = unsafe { on_stack!("22: ud2") };
            wanted = trap::START.load(Relaxed);
            caught
        }
    };
    trap::mend_with(None);
    let (faults, cr2, error_code, at) =
        (FAULTS.load(Relaxed), FAULT_CR2.load(Relaxed), FAULT_ERROR.load(Relaxed), FAULT_RIP.load(Relaxed));
    ensure!(faults == 1, "{faults} page faults");
    ensure!(
        (space::page(STACK)..STACK_POINTER).contains(&cr2) && error_code == WRITE,
        "CR2 {cr2:#x}, error {error_code:#x}"
    );
    ensure!(at == wanted, "the fault was at {:#x} from where the interrupt came", at.wrapping_sub(wanted));
    if cause == Cause::Exception {
        ensure!(caught.is_some_and(|caught| caught.vector == trap::INVALID_OPCODE), "then: {caught:x?}");
        return Ok(());
    }
    // The processor had taken the interrupt from the APIC: it is in service, and lost. Some deliver it again.
    let lost = trap::count(Vector(0x61)) == 0;
    note(format_args!("an interrupt whose delivery faults is {}", if lost { "lost" } else { "delivered again" }));
    if lost {
        ensure!(is_set(IN_SERVICE, 0x61), "it is neither delivered nor in service");
        apic::end_of_interrupt();
    }
    send(0x61);
    interrupts::enable();
    let came = wait_for(10_000, || trap::count(Vector(0x61)) != 0);
    interrupts::disable();
    ensure!(came, "none comes after it");
    Ok(())
}

/// A page fault whose frame goes to a stack that is not present is a double fault.
fn double_fault() -> Verdict {
    space::set_page(STACK, 0);
    // SAFETY: the gate's stack is put back before anything else can fault.
    unsafe { table::set_stack(PAGE_FAULT, 0) };
    // SAFETY: the stack is not used while it is absent; double faults have one of their own.
    let caught = unsafe { on_stack!("22: mov rax, [rdx]") };
    // SAFETY: as it was.
    unsafe { table::set_stack(PAGE_FAULT, crate::stacks::PAGE_FAULT_STACK) };
    ensure!(caught.is_some_and(|caught| (caught.vector, caught.error_code) == (DOUBLE_FAULT, 0)), "{caught:x?}");
    Ok(())
}
