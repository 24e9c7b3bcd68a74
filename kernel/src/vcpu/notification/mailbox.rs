//! One virtual CPU's mailbox: its posted-interrupt descriptor, and whether it is halted.

use addr::Vector;
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
use vtd::PostedInterruptDescriptor;
use vtd::posted::{Control, Notification};

use super::protocol::{self, Notify, Processor, Steps, Vectors};

/// What everybody who has to do with one vCPU's interrupts shares.
#[derive(Debug, Default)]
pub struct Mailbox {
    descriptor: PostedInterruptDescriptor,
    /// Beside the descriptor, and with the same order: written before, and read after, locked operations on it.
    halted: AtomicBool,
}

impl Mailbox {
    /// Of a vCPU that does not run yet.
    pub const fn new() -> Self {
        Self { descriptor: PostedInterruptDescriptor::new(), halted: AtomicBool::new(false) }
    }

    /// The descriptor, whose address hardware is told.
    pub fn descriptor(&self) -> &PostedInterruptDescriptor {
        &self.descriptor
    }

    /// See [`protocol::post`].
    pub fn post(&self, vectors: &Vectors, vector: Vector, here: Processor) -> Notify {
        protocol::post(self, vectors, vector, here)
    }

    /// See [`protocol::enter`].
    pub fn enter(&self, vectors: &Vectors, here: Processor) {
        protocol::enter(self, vectors, here);
    }

    /// See [`protocol::collect`].
    pub fn collect(&self) -> Option<[u64; 4]> {
        protocol::collect(self)
    }

    /// See [`protocol::preempt`].
    pub fn preempt(&self) {
        protocol::preempt(self);
    }

    /// See [`protocol::halt`].
    #[must_use = "on false, the vCPU must go on"]
    pub fn halt(&self, vectors: &Vectors, here: Processor) -> bool {
        protocol::halt(self, vectors, here)
    }

    /// See [`protocol::wake_if_notified`].
    #[must_use = "a vCPU that nobody runs has lost its wake-up"]
    pub fn wake_if_notified(&self) -> bool {
        protocol::wake_if_notified(self)
    }

    /// See [`protocol::wake`].
    #[must_use = "a vCPU that nobody runs has lost its wake-up"]
    pub fn wake(&self) -> bool {
        protocol::wake(self)
    }

    /// See [`protocol::migrate`].
    #[must_use = "a vCPU that nobody runs has lost its wake-up"]
    pub fn migrate(&self, vectors: &Vectors, to: Processor) -> bool {
        protocol::migrate(self, vectors, to)
    }
}

impl Steps for Mailbox {
    fn set_request(&self, vector: Vector) {
        self.descriptor.set_request(vector);
    }

    fn claim_notification(&self) -> Option<Notification> {
        self.descriptor.claim_notification()
    }

    fn is_outstanding(&self) -> bool {
        self.descriptor.is_outstanding()
    }

    fn clear_outstanding(&self) {
        self.descriptor.clear_outstanding();
    }

    fn take_word(&self, index: usize) -> u64 {
        self.descriptor.take_word(index)
    }

    fn word(&self, index: usize) -> u64 {
        self.descriptor.word(index)
    }

    fn update_control(&self, update: &dyn Fn(Control) -> Option<Control>) -> Result<Control, Control> {
        self.descriptor.update_control(update)
    }

    fn set_halted(&self, halted: bool) {
        self.halted.store(halted, SeqCst);
    }

    fn end_halt(&self) -> bool {
        self.halted.compare_exchange(true, false, SeqCst, SeqCst).is_ok()
    }
}
