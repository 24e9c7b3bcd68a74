//! Which interrupt vector means what, and what arrived.
//!
//! A handler here only notes what happened, in atomics: it may run between any two instructions at which interrupts
//! are enabled (which are few: the processor takes interrupts only when a guest is left, and when it halts). The
//! work is done afterwards, by whoever looks at the notes.
//!
//! A vector proves nothing about who sent it: on some platforms a device can forge any of them by writing to
//! `0xfee0_0000`. So every handler is one that does no harm when nothing has happened, and a vector that nobody
//! allocated is counted, logged and otherwise ignored.

use crate::cpu::local_apic::{self, SPURIOUS};
use crate::memory::address_space;
use crate::vcpu::PostedProcessing;
use crate::vcpu::notification::{Mailbox, Notify, Vectors};
use addr::Vector;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// The lowest vector given out. Below are the exceptions (to 31) and a class that stays empty.
const FIRST: u8 = 0x30;
/// The highest vector given out.
const LAST: u8 = 0xed;
/// What tells a processor that something was posted for the vCPU that it runs, or has halted.
pub const NOTIFICATIONS: Vectors = Vectors { notification: Vector(0xee), wakeup: Vector(0xef) };
/// Virtual processors in the machine.
pub const MAXIMUM_VCPUS: usize = 16;

/// What a vector means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Nothing: the vector was not allocated.
    Nothing,
    /// The local APIC's timer.
    Timer,
    /// A remapping unit has recorded a fault.
    RemappingFault,
    /// Something was typed.
    Console,
    /// A passed-through device interrupts `vcpu` with the vector that its guest chose.
    Device {
        /// The virtual processor's number.
        vcpu: u8,
        /// The vector in the guest.
        guest_vector: Vector,
    },
}

impl Source {
    const fn encode(self) -> u32 {
        match self {
            Source::Nothing => 0,
            Source::Timer => 1,
            Source::RemappingFault => 2,
            Source::Console => 3,
            Source::Device { vcpu, guest_vector } => 1 << 16 | (vcpu as u32) << 8 | guest_vector.0 as u32,
        }
    }

    const fn decode(encoded: u32) -> Self {
        match encoded {
            1 => Source::Timer,
            2 => Source::RemappingFault,
            3 => Source::Console,
            device if device >> 16 == 1 => {
                Source::Device { vcpu: (device >> 8) as u8, guest_vector: Vector(device as u8) }
            }
            _ => Source::Nothing,
        }
    }
}

static SOURCES: [AtomicU32; 256] = [const { AtomicU32::new(0) }; 256];
static MAILBOXES: [Mailbox; MAXIMUM_VCPUS] = [const { Mailbox::new() }; MAXIMUM_VCPUS];
static DEVICE_INTERRUPTS: AtomicU64 = AtomicU64::new(0);
static STRAY: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
static STRAY_COUNT: AtomicU64 = AtomicU64::new(0);
static NMI_COUNT: AtomicU64 = AtomicU64::new(0);
/// Whether anything was noted that is served outside of the handlers: one look at every exit instead of many.
static NOTED: AtomicBool = AtomicBool::new(false);
static TIMER_FIRED: AtomicBool = AtomicBool::new(false);
static FAULT_PENDING: AtomicBool = AtomicBool::new(false);
static CONSOLE_PENDING: AtomicBool = AtomicBool::new(false);

/// Allocates a vector for `source`, or `None` when all are in use.
pub fn allocate(source: Source) -> Option<Vector> {
    (FIRST..=LAST).map(Vector).find(|vector| {
        let free = Source::Nothing.encode();
        SOURCES[usize::from(vector.0)]
            .compare_exchange(free, source.encode(), Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    })
}

/// Gives a vector another meaning.
pub fn set(vector: Vector, source: Source) {
    if (FIRST..=LAST).contains(&vector.0) {
        SOURCES[usize::from(vector.0)].store(source.encode(), Ordering::Release);
    }
}

/// What a vector means.
pub fn source(vector: Vector) -> Source {
    Source::decode(SOURCES[usize::from(vector.0)].load(Ordering::Acquire))
}

/// Gives a vector back. What still arrives on it is a stray interrupt.
pub fn free(vector: Vector) {
    set(vector, Source::Nothing);
}

/// The mailbox of a virtual processor: where every interrupt for it is put.
pub fn mailbox(vcpu: u8) -> Option<&'static Mailbox> {
    MAILBOXES.get(usize::from(vcpu))
}

/// What a processor needs to take requests out of that mailbox by itself.
pub fn posted_processing(vcpu: u8) -> Option<PostedProcessing> {
    let descriptor = address_space::translate(core::ptr::from_ref(mailbox(vcpu)?.descriptor()) as u64)?;
    Some(PostedProcessing { descriptor, notification: NOTIFICATIONS.notification })
}

/// Called for every vector from 32 on, with interrupts disabled. Says whether the local APIC waits for its end.
pub fn arrived(vector: Vector) -> bool {
    if vector == SPURIOUS {
        return false;
    }
    if vector == NOTIFICATIONS.notification {
        // Whoever enters the guest next looks into its mailbox.
        return true;
    }
    if vector == NOTIFICATIONS.wakeup {
        wake_halted();
        return true;
    }
    match source(vector) {
        Source::Device { vcpu, guest_vector } => {
            DEVICE_INTERRUPTS.fetch_add(1, Ordering::Relaxed);
            if let (Some(mailbox), Some(here)) = (mailbox(vcpu), local_apic::processor()) {
                match mailbox.post(&NOTIFICATIONS, guest_vector, here) {
                    Notify::Nobody => {}
                    Notify::Here => wake_halted(),
                    Notify::Processor { processor, vector } => local_apic::notify(processor, vector),
                }
            }
        }
        Source::Timer => TIMER_FIRED.store(true, Ordering::Release),
        Source::RemappingFault => {
            FAULT_PENDING.store(true, Ordering::Release);
            NOTED.store(true, Ordering::Release);
        }
        Source::Console => {
            CONSOLE_PENDING.store(true, Ordering::Release);
            NOTED.store(true, Ordering::Release);
        }
        Source::Nothing => {
            STRAY[usize::from(vector.0 >> 6)].fetch_or(1 << (vector.0 & 63), Ordering::Relaxed);
            STRAY_COUNT.fetch_add(1, Ordering::Relaxed);
            NOTED.store(true, Ordering::Release);
        }
    }
    true
}

/// A woken vCPU runs because whoever halted it looks after every interrupt.
fn wake_halted() {
    for mailbox in &MAILBOXES {
        let _ = mailbox.wake_if_notified();
    }
}

/// Called for an NMI, which may interrupt anything: it only counts.
pub fn nmi_arrived() {
    NMI_COUNT.fetch_add(1, Ordering::Relaxed);
}

/// Whether a fault, the console or a stray interrupt has been noted since the last call: then, and only then, one of
/// the calls below has something to say of them.
pub fn take_noted() -> bool {
    // The look alone is what happens at almost every exit; it needs no bus lock.
    NOTED.load(Ordering::Acquire) && NOTED.swap(false, Ordering::AcqRel)
}

/// Whether the timer has interrupted since the last call of [`take_timer`].
#[inline(always)]
pub fn has_timer_fired() -> bool {
    TIMER_FIRED.load(Ordering::Acquire)
}

/// Whether the timer has interrupted since the last call.
pub fn take_timer() -> bool {
    TIMER_FIRED.load(Ordering::Acquire) && TIMER_FIRED.swap(false, Ordering::AcqRel)
}

/// Whether a remapping unit has interrupted since the last call.
pub fn take_fault() -> bool {
    FAULT_PENDING.swap(false, Ordering::AcqRel)
}

/// Whether the console has interrupted since the last call.
pub fn take_console() -> bool {
    CONSOLE_PENDING.swap(false, Ordering::AcqRel)
}

/// The stray vectors since the last call, one bit each.
pub fn take_stray() -> [u64; 4] {
    core::array::from_fn(|word| STRAY[word].swap(0, Ordering::Relaxed))
}

/// Interrupts that arrived from passed-through devices.
pub fn device_interrupts() -> u64 {
    DEVICE_INTERRUPTS.load(Ordering::Relaxed)
}

/// Interrupts that nobody had asked for, NMIs included.
pub fn stray_interrupts() -> u64 {
    STRAY_COUNT.load(Ordering::Relaxed) + NMI_COUNT.load(Ordering::Relaxed)
}

/// NMIs.
pub fn nmis() -> u64 {
    NMI_COUNT.load(Ordering::Relaxed)
}

/// Lets the handlers of all interrupts run that are pending. The caller has interrupts disabled.
#[expect(unsafe_code, reason = "enables interrupts for a moment")]
pub fn take_pending() {
    // SAFETY: STI takes effect after the next instruction; the one after that takes what is pending. The handlers only touch
    // atomics.
    unsafe { core::arch::asm!("sti", "nop", "nop", "cli", options(nostack)) };
}

/// Waits for an interrupt, with interrupts enabled for just that long. The caller has interrupts disabled and has
/// found nothing to do; an interrupt since then is still pending and ends the wait at once.
#[expect(unsafe_code, reason = "enables interrupts and halts")]
pub fn wait() {
    // SAFETY: STI takes effect after the next instruction, so no interrupt can be handled before HLT, which it then
    // ends. The handlers only touch atomics.
    unsafe { core::arch::asm!("sti", "hlt", "cli", options(nostack)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_their_encoding() {
        let device = Source::Device { vcpu: 15, guest_vector: Vector(0xfe) };
        for source in [Source::Nothing, Source::Timer, Source::RemappingFault, Source::Console, device] {
            assert_eq!(Source::decode(source.encode()), source);
        }
    }

    #[test]
    fn vectors_are_given_out_once_and_come_back() {
        let first = allocate(Source::Timer).unwrap();
        let second = allocate(Source::Console).unwrap();
        assert_ne!(first, second);
        assert!(first.0 >= FIRST && second.0 <= LAST);
        free(first);
        assert_eq!(allocate(Source::RemappingFault), Some(first));
        free(first);
        free(second);
    }
}
