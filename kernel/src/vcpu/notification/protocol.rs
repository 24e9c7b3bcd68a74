//! The steps of a descriptor's life, over the atomic operations of which they consist.

use addr::{ApicId, Vector};
use vtd::DestinationMode;
use vtd::posted::{Control, Notification};

/// The two vectors that every processor has for this, the same on all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vectors {
    /// Of a vCPU that runs. Its handler does nothing. Not 0xff: some processors drop it as the spurious vector.
    pub notification: Vector,
    /// Of a vCPU that is halted. Its handler calls [`wake_if_notified`] for every vCPU of the machine.
    pub wakeup: Vector,
}

/// A processor as NDST names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Processor {
    id: ApicId,
    destination: u32,
    mode: DestinationMode,
}

impl Processor {
    /// The processor with this id, in the mode that the local APICs and the remapping units are in; `None` where the id
    /// does not fit the mode.
    pub const fn new(id: ApicId, mode: DestinationMode) -> Option<Self> {
        match mode.field(id) {
            Some(destination) => Some(Self { id, destination, mode }),
            None => None,
        }
    }

    /// Its local APIC's id.
    pub const fn id(self) -> ApicId {
        self.id
    }

    /// Another, as NDST names it in the same mode.
    const fn of_destination(self, destination: u32) -> ApicId {
        match self.mode {
            DestinationMode::XApic => ApicId(destination >> 8),
            DestinationMode::X2Apic => ApicId(destination),
        }
    }
}

/// Whom a poster must notify.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a notification that is not sent is a lost wake-up"]
pub enum Notify {
    /// Nobody: a notification is under way, or whoever will run the vCPU looks first.
    Nobody,
    /// The vCPU is halted on this very processor: [`wake_if_notified`] is to be called, no interrupt is needed.
    Here,
    /// Send `vector` to `processor`.
    Processor {
        /// Its local APIC's id.
        processor: ApicId,
        /// The notification vector or the wakeup vector.
        vector: Vector,
    },
}

/// The atomic operations. Each is one sequentially consistent step: tests suspend between any two.
pub trait Steps {
    /// Sets a bit in PIR.
    fn set_request(&self, vector: Vector);
    /// Sets ON unless ON or SN is set, and says where the notification goes.
    fn claim_notification(&self) -> Option<Notification>;
    /// ON.
    fn is_outstanding(&self) -> bool;
    /// Clears ON.
    fn clear_outstanding(&self);
    /// Takes one of the four words of PIR.
    fn take_word(&self, index: usize) -> u64;
    /// Looks at one of the four words of PIR.
    fn word(&self, index: usize) -> u64;
    /// Changes ON, SN, NV and NDST together, and returns what they were; `Err`, and no change, where `update` says so.
    fn update_control(&self, update: &dyn Fn(Control) -> Option<Control>) -> Result<Control, Control>;
    /// Says whether the vCPU is halted.
    fn set_halted(&self, halted: bool);
    /// From halted to not halted; false where it was not halted, or somebody else did it first.
    fn end_halt(&self) -> bool;
}

/// Posts an interrupt in the stead of remapping hardware. Called on processor `here` outside any guest, with interrupts
/// disabled: then a vCPU that runs `here` is in the hypervisor, and passes [`collect`] before it is entered.
pub fn post(vcpu: &impl Steps, vectors: &Vectors, vector: Vector, here: Processor) -> Notify {
    // PIR before ON: whoever finds ON finds the bit.
    vcpu.set_request(vector);
    match vcpu.claim_notification() {
        None => Notify::Nobody,
        Some(to) if to.destination != here.destination => {
            Notify::Processor { processor: here.of_destination(to.destination), vector: to.vector }
        }
        Some(to) if to.vector == vectors.wakeup => Notify::Here,
        Some(_) => Notify::Nobody,
    }
}

/// The vCPU runs on processor `here` from now on: interrupts are disabled, and [`collect`] follows before the guest is
/// entered.
pub fn enter(vcpu: &impl Steps, vectors: &Vectors, here: Processor) {
    vcpu.set_halted(false);
    direct(vcpu, vectors.notification, here);
    // After SN is clear, never before: a post that saw SN did not claim ON, and would be found by nobody.
    if (0..4).any(|index| vcpu.word(index) != 0) {
        // The same word as the others', so that from here on ON alone says that there is something.
        let _ = vcpu.update_control(&|control| Some(control.outstanding(true)));
    }
}

/// Takes what was posted; `None` where nothing was. Called with interrupts disabled, which they stay until the guest
/// runs: a notification that comes after this look then waits at the processor until the guest is there to take it, or
/// to be left for it.
pub fn collect(vcpu: &impl Steps) -> Option<[u64; 4]> {
    if !vcpu.is_outstanding() {
        return None;
    }
    // ON before PIR: a post in between notifies again. The other way round it would see ON, and nobody would see it.
    vcpu.clear_outstanding();
    Some(core::array::from_fn(|index| vcpu.take_word(index)))
}

/// The vCPU gives its processor up and wants to run again: it needs no notification until [`enter`].
pub fn preempt(vcpu: &impl Steps) {
    let _ = vcpu.update_control(&|control| Some(control.suppressed(true)));
}

/// The vCPU halts on processor `here`, having collected and found nothing to deliver. True: it is halted, and runs again
/// by [`enter`] once [`wake`], [`wake_if_notified`] or [`migrate`] says so to somebody; interrupts may be enabled. False: something was posted
/// since it collected, and the caller goes on with [`enter`] and [`collect`] at once.
pub fn halt(vcpu: &impl Steps, vectors: &Vectors, here: Processor) -> bool {
    // Before the wakeup vector can go out: its handler ignores who is not halted.
    vcpu.set_halted(true);
    let before = direct(vcpu, vectors.wakeup, here);
    // ON as it was in the very step after which the wakeup vector goes out: no post is between.
    !(before.is_outstanding() && vcpu.end_halt())
}

/// What the wakeup vector's handler does for each vCPU. True for the one caller that must make the vCPU run.
#[must_use = "a vCPU that nobody runs has lost its wake-up"]
pub fn wake_if_notified(vcpu: &impl Steps) -> bool {
    vcpu.is_outstanding() && vcpu.end_halt()
}

/// Wakes the vCPU for another reason than a post: its timer, the end of the guest. True for the one caller that must
/// make it run.
#[must_use = "a vCPU that nobody runs has lost its wake-up"]
pub fn wake(vcpu: &impl Steps) -> bool {
    vcpu.end_halt()
}

/// A halted vCPU is to be woken on processor `to`, for the one before goes away. True: a notification was under way to
/// the old one, where it may be lost, and the caller must make the vCPU run. A vCPU that is not halted is left alone:
/// [`enter`] directs it to where it runs.
#[must_use = "a vCPU that nobody runs has lost its wake-up"]
pub fn migrate(vcpu: &impl Steps, vectors: &Vectors, to: Processor) -> bool {
    let target = Notification { vector: vectors.wakeup, destination: to.destination };
    // Looked at in the same step as the change: a vCPU that has entered since must not be directed away.
    let halted = |control: Control| control.notification().vector == vectors.wakeup && !control.is_suppressed();
    match vcpu.update_control(&|control| halted(control).then(|| control.directed(target))) {
        Ok(before) => before.is_outstanding() && vcpu.end_halt(),
        Err(_) => false,
    }
}

/// NV, NDST and SN = 0 in one step, so that no notification has one of the old and one of the new.
fn direct(vcpu: &impl Steps, vector: Vector, here: Processor) -> Control {
    let target = Notification { vector, destination: here.destination };
    match vcpu.update_control(&|control| Some(control.directed(target).suppressed(false))) {
        Ok(before) | Err(before) => before,
    }
}
