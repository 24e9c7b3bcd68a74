//! Interrupt priorities: the order of delivery, the task priority, nesting, and the end of interrupt.

use super::control::{read_cr8, write_cr8};
use super::waiting::wait_for;
use crate::list::{List, Verdict, ensure, note};
use crate::trap;
use addr::Vector;
use core::sync::atomic::{AtomicBool, Ordering};
use guest_support::{apic, clock};
use x86_64::instructions::interrupts;

/// Registers of the local APIC, by their xAPIC offset.
pub const PROCESSOR_PRIORITY: usize = 0xa0;
pub const IN_SERVICE: usize = 0x100;
pub const REQUESTED: usize = 0x200;
pub const ERROR_STATUS: usize = 0x280;
pub const COMMAND: usize = 0x300;
pub const SELF_IPI: usize = crate::ends::SELF_IPI;
/// Interrupt command: to the sender itself.
pub const TO_SELF: u32 = 1 << 18;

/// The longest that an interrupt may take that nothing holds back, in microseconds.
const PATIENCE_US: u64 = 10_000;

pub fn probe(list: &mut List) {
    list.probe("ipi", to_self);
    list.probe("ipi-order", order);
    list.probe("ipi-errors", errors);
    list.probe("tpr-x2apic", || held_back(Way::Register));
    list.probe("tpr-cr8", || held_back(Way::Cr8));
    list.probe("tpr-cr8-pending", written_while_pending);
    list.probe("tpr-cr8-halt", halt_after_lowering);
    list.probe("nesting", nesting);
    list.probe("eoi-order", end_of_interrupt_order);
    list.probe("apic-disabled", software_disabled);
}

/// Whether the vector's bit is set in a register of 256 bits.
pub fn is_set(register: usize, vector: u8) -> bool {
    apic::read(register + usize::from(vector / 32) * 16) >> (vector % 32) & 1 != 0
}

pub fn send(vector: u8) {
    apic::write(SELF_IPI, vector.into());
}

/// Takes what is pending.
fn take() {
    interrupts::enable();
    core::hint::spin_loop();
    core::hint::spin_loop();
    interrupts::disable();
}

fn to_self() -> Verdict {
    trap::forget_interrupts();
    send(0x61);
    ensure!(is_set(REQUESTED, 0x61) && !is_set(IN_SERVICE, 0x61), "it is not requested, or in service");
    take();
    ensure!(trap::count(Vector(0x61)) == 1 && trap::taken() == 1, "{} came by SELF IPI", trap::taken());
    ensure!(!is_set(REQUESTED, 0x61) && !is_set(IN_SERVICE, 0x61), "it is still requested, or in service");
    apic::write(COMMAND, TO_SELF | 0x62);
    take();
    ensure!(trap::count(Vector(0x62)) == 1 && trap::taken() == 2, "it did not come by the shorthand");
    // The destination is in the upper half, which is 0 here: this processor's id.
    apic::write(COMMAND, 0x63);
    take();
    ensure!(trap::count(Vector(0x63)) == 1 && trap::taken() == 3, "it did not come by the id");
    // Twice is once, and a processor that takes interrupts has it at once.
    send(0x64);
    send(0x64);
    take();
    ensure!(trap::count(Vector(0x64)) == 1, "it came {} times", trap::count(Vector(0x64)));
    interrupts::enable();
    send(0x65);
    let came = wait_for(PATIENCE_US, || trap::count(Vector(0x65)) == 1);
    interrupts::disable();
    ensure!(came, "it did not come while interrupts were on");
    Ok(())
}

/// All that is pending comes, the highest vector first.
fn order() -> Verdict {
    const VECTORS: [u8; 13] = [0x31, 0xe0, 0x20, 0x91, 0x92, 0x41, 0xa0, 0xff, 0x51, 0xee, 0x7f, 0x80, 0x90];
    trap::forget_interrupts();
    for vector in VECTORS {
        send(vector);
    }
    interrupts::enable();
    let came = wait_for(PATIENCE_US, || trap::taken() >= VECTORS.len());
    interrupts::disable();
    ensure!(came && trap::taken() == VECTORS.len(), "{} of {} came", trap::taken(), VECTORS.len());
    for number in 1..VECTORS.len() {
        let (before, this) = (trap::vector_of(number - 1), trap::vector_of(number));
        ensure!(before > this, "{this:#x} came after {before:#x}");
    }
    Ok(())
}

/// Vectors below 16 cannot be sent.
fn errors() -> Verdict {
    trap::forget_interrupts();
    apic::write(ERROR_STATUS, 0);
    apic::write(ERROR_STATUS, 0);
    ensure!(apic::read(ERROR_STATUS) == 0, "the error status reads {:#x}", apic::read(ERROR_STATUS));
    send(0xf);
    apic::write(ERROR_STATUS, 0);
    let status = apic::read(ERROR_STATUS);
    ensure!(status & 1 << 5 != 0, "vector 15 sent: the error status is {status:#x}");
    apic::write(ERROR_STATUS, 0);
    take();
    ensure!(trap::taken() == 0, "{} interrupts came", trap::taken());
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Register,
    Cr8,
}

impl Way {
    fn set_class(self, class: u8) {
        match self {
            Self::Register => apic::write(apic::TASK_PRIORITY, u32::from(class) << 4),
            Self::Cr8 => {
                write_cr8(class.into());
            }
        }
    }
}

/// The task priority holds back what is not above its class, and lowering it lets that in.
fn held_back(way: Way) -> Verdict {
    trap::forget_interrupts();
    way.set_class(6);
    interrupts::enable();
    send(0x61);
    send(0x5f);
    send(0x71);
    let above = wait_for(PATIENCE_US, || trap::count(Vector(0x71)) == 1);
    let early = trap::taken();
    ensure_off(above && early == 1, early, "with class 6")?;
    let begin = clock::now_us();
    way.set_class(5);
    let came = wait_for(PATIENCE_US, || trap::count(Vector(0x61)) == 1);
    let passed = clock::now_us() - begin;
    let now = trap::taken();
    if !came {
        note(format_args!("vector 0x61 did not come within {passed} us of the class's lowering, without an exit"));
        // Any exit brings it.
        let _ = read_cr8();
        apic::read(apic::TASK_PRIORITY);
        note(format_args!("after an exit {} interrupts have come", trap::taken()));
    }
    way.set_class(0);
    let last = wait_for(PATIENCE_US, || trap::count(Vector(0x5f)) == 1);
    interrupts::disable();
    way.set_class(0);
    take_all();
    ensure!(came && now == 2, "with class 5, {now} interrupts came and not 2");
    ensure!(last, "with class 0, vector 0x5f did not come");
    ensure!(trap::taken() == 3, "{} interrupts came in all, and not 3", trap::taken());
    Ok(())
}

fn ensure_off(condition: bool, count: usize, when: &str) -> Verdict {
    if !condition {
        interrupts::disable();
        apic::write(apic::TASK_PRIORITY, 0);
        take_all();
    }
    ensure!(condition, "{when}, {count} interrupts came and not 1");
    Ok(())
}

/// Takes everything that is pending, with exits.
fn take_all() {
    apic::read(apic::TASK_PRIORITY);
    interrupts::enable();
    for _ in 0..8 {
        apic::read(apic::TASK_PRIORITY);
    }
    interrupts::disable();
}

/// CR8 is written while an interrupt waits for interrupts to be enabled.
fn written_while_pending() -> Verdict {
    interrupts::disable();
    trap::forget_interrupts();
    send(0x61);
    for class in [5, 6, 15, 0, 6] {
        let caught = write_cr8(class);
        ensure!(caught.is_none() && read_cr8() == class, "class {class}: {caught:x?}, reads {}", read_cr8());
    }
    take();
    let early = trap::taken();
    write_cr8(5);
    take();
    let came = trap::count(Vector(0x61));
    write_cr8(0);
    take_all();
    ensure!(early == 0 && came == 1, "{early} came at class 6, and {came} at class 5");
    Ok(())
}

/// A processor that has lowered CR8 and halts at once is woken by what that lets in.
fn halt_after_lowering() -> Verdict {
    ensure!(super::timer::works(), "not tried, as the timer does not work");
    interrupts::disable();
    trap::forget_interrupts();
    write_cr8(15);
    send(0x61);
    // It ends a HLT that the interrupt should have ended.
    super::timer::start(200_000);
    let begin = clock::now_us();
    write_cr8(0);
    interrupts::enable_and_hlt();
    let passed = clock::now_us() - begin;
    interrupts::disable();
    super::timer::stop();
    take_all();
    ensure!(trap::count(Vector(0x61)) == 1, "it came {} times", trap::count(Vector(0x61)));
    ensure!(passed < 100_000, "it came after {passed} us");
    Ok(())
}

static LOWER_CAME: AtomicBool = AtomicBool::new(false);
static HIGHER_CAME: AtomicBool = AtomicBool::new(false);

/// In the handler of 0x61: a higher one nests, a lower one and one of the same class wait.
fn nest(vector: Vector) {
    if vector != Vector(0x61) {
        return;
    }
    send(0x91);
    send(0x51);
    send(0x6f);
    interrupts::enable();
    let came = wait_for(PATIENCE_US, || trap::count(Vector(0x91)) == 1);
    HIGHER_CAME.store(came && apic::read(PROCESSOR_PRIORITY) >> 4 == 6, Ordering::Relaxed);
    LOWER_CAME.store(trap::count(Vector(0x51)) + trap::count(Vector(0x6f)) != 0, Ordering::Relaxed);
    interrupts::disable();
}

fn nesting() -> Verdict {
    trap::forget_interrupts();
    trap::within_handlers(Some(nest));
    send(0x61);
    interrupts::enable();
    let came = wait_for(2 * PATIENCE_US, || trap::taken() >= 4);
    interrupts::disable();
    trap::within_handlers(None);
    ensure!(HIGHER_CAME.load(Ordering::Relaxed), "the higher one did not nest, or the priority is wrong after it");
    ensure!(!LOWER_CAME.load(Ordering::Relaxed), "a lower one, or one of the same class, nested");
    let order: [u8; 4] = core::array::from_fn(trap::vector_of);
    ensure!(came && order == [0x61, 0x91, 0x6f, 0x51], "they came in the order {order:x?}");
    Ok(())
}

/// Each end of interrupt ends the highest in service, and what waits comes then.
fn end_of_interrupt_order() -> Verdict {
    trap::forget_interrupts();
    trap::keep_in_service(true);
    for vector in [0x41, 0x52, 0x83] {
        send(vector);
        take();
    }
    trap::keep_in_service(false);
    let in_service = |vectors: [bool; 3]| [0x41, 0x52, 0x83].map(|vector| is_set(IN_SERVICE, vector)) == vectors;
    let all = in_service([true; 3]) && trap::taken() == 3;
    let priority = apic::read(PROCESSOR_PRIORITY);
    send(0x72);
    take();
    let early = trap::count(Vector(0x72));
    apic::end_of_interrupt();
    let first = in_service([true, true, false]);
    take();
    let late = trap::count(Vector(0x72));
    apic::end_of_interrupt();
    let second = in_service([true, false, false]);
    apic::end_of_interrupt();
    let third = in_service([false; 3]);
    // One that ends nothing.
    apic::end_of_interrupt();
    ensure!(all && priority >> 4 == 8, "not all are in service, or the processor's priority {priority:#x} is wrong");
    ensure!(early == 0 && late == 1, "the one that waits came {early} times before the end of interrupt, then {late}");
    ensure!(first && second && third, "ended one by one: {first}, {second}, {third}");
    ensure!(apic::read(PROCESSOR_PRIORITY) == 0, "in the end the priority is {:#x}", apic::read(PROCESSOR_PRIORITY));
    Ok(())
}

/// An APIC that software has switched off takes nothing, and is itself again later.
fn software_disabled() -> Verdict {
    trap::forget_interrupts();
    let before = apic::read(apic::SPURIOUS);
    apic::write(apic::SPURIOUS, before & !apic::SOFTWARE_ENABLE);
    let timer = apic::read(apic::LVT_TIMER);
    send(0x61);
    take();
    let count = trap::taken();
    apic::write(apic::SPURIOUS, before);
    take();
    let later = trap::taken();
    send(0x62);
    take();
    ensure!(timer & 1 << 16 != 0, "the timer is not masked while the APIC is off: {timer:#x}");
    ensure!(count == 0 && later == 0, "{count} came while it was off, {later} after");
    ensure!(trap::count(Vector(0x62)) == 1, "nothing comes after it is on again");
    ensure!(trap::count(trap::SPURIOUS) == 0, "spurious interrupts came");
    Ok(())
}
