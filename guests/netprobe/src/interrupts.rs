//! The guest's vectors: interrupts are noted and counted, exceptions end the guest.

use crate::{apic, report};
use addr::Vector;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use guest_support::interrupts::{self, Frame};

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

static PENDING: AtomicU32 = AtomicU32::new(0);
static RECEIVED: AtomicU32 = AtomicU32::new(0);
static TRANSMITTED: AtomicU32 = AtomicU32::new(0);
static OTHERS: AtomicU32 = AtomicU32::new(0);
static TIMERS: AtomicU32 = AtomicU32::new(0);
static SPURIOUS_COUNT: AtomicU32 = AtomicU32::new(0);
static UNEXPECTED: AtomicU32 = AtomicU32::new(0);

/// Installs a handler for every vector. Interrupts stay off until the first halt.
pub fn initialize() {
    interrupts::install(handle);
}

fn handle(frame: &mut Frame) {
    let vector = frame.vector();
    if vector < interrupts::EXCEPTIONS {
        exception(frame);
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
fn exception(frame: &Frame) -> ! {
    let (vector, error_code, instruction) = (frame.vector(), frame.error_code, frame.rip);
    let fault_address = x86_64::registers::control::Cr2::read_raw();
    report::say(format_args!(
        "exception {vector}, error code {error_code:#x}, at {instruction:#x}, CR2 {fault_address:#x}"
    ));
    report::fail(format_args!("exception-{vector}"))
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
