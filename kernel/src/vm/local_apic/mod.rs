//! A guest's local APIC (SDM volume 3, the chapter on the APIC; section numbers are those of revision 080): all that
//! software does for it.
//!
//! Where the processor virtualizes no APIC that is everything: what the guest's devices post is collected in a mailbox,
//! merged here at VM entry ([`LocalApic::accept`]), and the vector that is due is injected
//! ([`LocalApic::acknowledge`]). Where it does, the registers are in the page that it works on
//! ([`LocalApic::over_page`]), and here is done what exits: accesses that are not virtualized, commands, the timer.
//! Either way the registers are in one place, the store (`store::Store`), and nothing here keeps a copy of one.
//! All of it is logic: time comes in as TSC values, and what concerns others goes out as [`Effect`].

mod access;
mod base;
mod command;
mod loan;
mod registers;
mod store;
#[cfg(test)]
mod tests;
mod timer;
mod vector_set;

pub use base::Mode;
pub use command::{DeliveryMode, Destination, Effect};
pub use registers::IA32_TSC_DEADLINE;

use addr::{ApicId, Vector};

use crate::vcpu::{InterruptStatus, VirtualApicPage};
use loan::Loan;
use registers::*;
use store::Store;
use timer::{Settings, Timer};
use vector_set::VectorSet;

/// The guest's access is illegal: the processor raises #GP(0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GeneralProtection;

impl core::fmt::Display for GeneralProtection {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "#GP(0)")
    }
}

impl core::error::Error for GeneralProtection {}

/// One virtual processor's local APIC.
#[derive(Debug)]
pub struct LocalApic {
    id: ApicId,
    bootstrap_processor: bool,
    /// The guest's physical-address width in bits; those above are reserved in IA32_APIC_BASE.
    physical_address_bits: u8,
    mode: Mode,
    /// Address of the xAPIC page: bits MAXPHYADDR-1:12 of IA32_APIC_BASE.
    page: u64,
    registers: Store,
    /// The errors since the last write of ESR: the part of that register that cannot be read yet.
    errors: u32,
    timer: Timer,
    /// The TSC value at which the timer will raise an interrupt, [`NEVER`] when it will not. Worked out when something is
    /// written, because it is looked at at every entry.
    timer_due: u64,
    /// What is added to the TSC where the guest reads it.
    time_stamp_offset: u64,
    loan: Loan,
    dropped: u64,
    accepted: u64,
    /// Something on which delivery depends was changed here since [`Self::take_changed`].
    changed: bool,
}

/// A TSC value that is not reached.
const NEVER: u64 = u64::MAX;

impl LocalApic {
    /// A local APIC after reset: in xAPIC mode at 0xfee00000, software-disabled. `physical_address_bits` is the guest's
    /// MAXPHYADDR, 32 to 52.
    pub fn new(id: ApicId, bootstrap_processor: bool, physical_address_bits: u8) -> Self {
        Self::over(Store::array(), id, bootstrap_processor, physical_address_bits)
    }

    /// As [`Self::new`], with the registers in the virtual-APIC page of the processor that runs the guest. Nobody else
    /// writes to the page, but the processor while the guest runs.
    pub fn over_page(
        page: &'static VirtualApicPage,
        id: ApicId,
        bootstrap_processor: bool,
        physical_address_bits: u8,
    ) -> Self {
        Self::over(Store::Page(page), id, bootstrap_processor, physical_address_bits)
    }

    fn over(registers: Store, id: ApicId, bootstrap_processor: bool, physical_address_bits: u8) -> Self {
        let mut apic = Self {
            id,
            bootstrap_processor,
            physical_address_bits,
            mode: Mode::XApic,
            page: APIC_BASE_RESET,
            registers,
            errors: 0,
            timer: Timer::default(),
            timer_due: NEVER,
            time_stamp_offset: 0,
            loan: Loan::default(),
            dropped: 0,
            accepted: 0,
            changed: true,
        };
        apic.init();
        apic
    }

    /// What INIT does (section 11.4.7.3): everything as after reset but the id, the mode and the page's address.
    pub fn init(&mut self) {
        self.registers.clear();
        for (register, value) in [(VERSION, VERSION_VALUE), (DFR, u32::MAX), (SVR, SVR_RESET)] {
            self.registers.write(register, value);
        }
        for lvt in (LVT_TIMER..=LVT_ERROR).step_by(16) {
            self.registers.write(lvt, LVT_MASKED);
        }
        self.identify();
        self.errors = 0;
        self.timer = Timer::default();
        self.update_timer_due();
        self.changed = true;
    }

    /// The processor's APIC id.
    pub fn id(&self) -> ApicId {
        self.id
    }

    /// How many interrupts were accepted, each vector once in each call that brought it.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// How many interrupts were dropped: for a vector below 16, or because the local APIC was disabled. Interrupts that
    /// merge with one that is requested already are not dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether interrupts are accepted: not disabled in IA32_APIC_BASE, and enabled in the spurious-interrupt vector
    /// register.
    pub fn is_software_enabled(&self) -> bool {
        self.mode != Mode::Disabled && self.registers.read(SVR) & SVR_ENABLE != 0
    }

    /// Accepts all interrupts whose bits are set, as taken from a posted-interrupt descriptor: vector 64 n + b is bit b
    /// of word n. Vectors below 16 are errors (ESR); a disabled APIC drops everything.
    pub fn accept(&mut self, requests: [u64; 4]) {
        let mut requests = VectorSet::from_words(requests);
        if requests.is_empty() {
            return;
        }
        if !self.is_software_enabled() {
            self.dropped = self.dropped.saturating_add(requests.len().into());
            return;
        }
        let illegal = requests.remove_illegal();
        // One at a time: there is hardly ever more than one.
        while let Some(vector) = requests.take() {
            self.request(vector);
        }
        if illegal != 0 {
            self.dropped = self.dropped.saturating_add(illegal.into());
            self.signal_error(ESR_RECEIVE_ILLEGAL_VECTOR);
        }
    }

    /// Accepts an edge-triggered interrupt, as from an I/O APIC.
    pub fn accept_edge(&mut self, vector: Vector) {
        self.receive(vector);
    }

    /// Accepts a level-triggered interrupt, as from an I/O APIC: its EOI comes back as [`Effect::EndOfInterrupt`].
    /// A processor that posts by itself does not look at TMR: where one does, a vector that was level-triggered once and
    /// is posted now still has its EOI come back, and whoever gets it must not mind.
    pub fn accept_level(&mut self, vector: Vector) {
        self.receive(vector);
        if self.registers.contains(IRR, vector) {
            self.registers.insert(TMR, vector);
        }
    }

    /// The vectors whose EOI is somebody else's concern: TMR, vector 64 n + b in bit b of word n.
    pub fn level_triggered(&self) -> [u64; 4] {
        self.registers.words(TMR)
    }

    /// What a processor that delivers by itself must be told of IRR and ISR.
    pub fn interrupt_status(&self) -> InterruptStatus {
        InterruptStatus { requesting: self.registers.highest(IRR), servicing: self.registers.highest(ISR) }
    }

    /// Whether the mode, SVR, TPR, IRR, ISR or TMR were changed here, not by the processor, since the last call: if not,
    /// what was decided about delivery then still holds.
    #[inline(always)]
    pub fn take_changed(&mut self) -> bool {
        // The look alone is what happens at almost every entry.
        self.changed && core::mem::replace(&mut self.changed, false)
    }

    /// The interrupt that is due: the highest in IRR, if its priority class is above the processor's. The processor
    /// takes it once it can (IF set, no shadow).
    pub fn pending(&self) -> Option<Vector> {
        if self.mode == Mode::Disabled {
            return None;
        }
        self.registers.highest(IRR).filter(|vector| vector.0 >> 4 > self.ppr() >> 4)
    }

    /// Whether an interrupt waits that nothing but the task priority holds back.
    pub fn is_held_back_by_task_priority(&self) -> bool {
        // Almost always nothing waits at all.
        let Some(waiting) = self.registers.highest(IRR) else { return false };
        let in_service = self.registers.highest(ISR).map_or(0, |vector| vector.0 >> 4);
        self.mode != Mode::Disabled && self.pending().is_none() && waiting.0 >> 4 > in_service
    }

    /// Gives the processor the interrupt that is due and puts it into service. Call it when the vector is really going
    /// to be injected.
    pub fn acknowledge(&mut self) -> Option<Vector> {
        let vector = self.pending()?;
        self.registers.remove(IRR, vector);
        self.registers.insert(ISR, vector);
        self.changed = true;
        Some(vector)
    }

    /// What a write of EOI does: the interrupt in service with the highest priority is done. Returns it.
    pub fn end_of_interrupt(&mut self) -> Option<Vector> {
        let vector = self.registers.highest(ISR)?;
        self.registers.remove(ISR, vector);
        self.changed = true;
        Some(vector)
    }

    /// Whether the interrupt in service can end without anybody's knowing at once: it was an edge, and nothing is
    /// requested that could be delivered then. `offered` is one that is requested still, and that the processor may put
    /// into service by itself: if nothing else is in service or requested, it is its end that is meant.
    pub fn can_end_silently(&self, offered: Option<Vector>) -> bool {
        let ends = match offered {
            None => self.registers.highest(ISR).filter(|_| self.registers.highest(IRR).is_none()),
            Some(vector) => {
                let alone = self.registers.is_only(IRR, vector) && self.registers.highest(ISR).is_none();
                alone.then_some(vector)
            }
        };
        ends.is_some_and(|vector| !self.registers.contains(TMR, vector))
    }

    /// The task priority register: class in bits 7:4.
    pub fn tpr(&self) -> u8 {
        self.registers.read(TPR) as u8
    }

    /// Sets the task priority register.
    pub fn set_tpr(&mut self, tpr: u8) {
        self.registers.write(TPR, tpr.into());
        self.changed = true;
    }

    /// What CR8 reads: the task priority's class, 0 to 15.
    pub fn cr8(&self) -> u64 {
        u64::from(self.tpr() >> 4)
    }

    /// What a write of CR8 does (section 11.8.6): bits 63:4 are reserved.
    pub fn set_cr8(&mut self, value: u64) -> Result<(), GeneralProtection> {
        let class = u8::try_from(value).ok().filter(|class| *class < 16).ok_or(GeneralProtection)?;
        self.set_tpr(class << 4);
        Ok(())
    }

    /// The processor priority (section 11.8.3.1): the higher class of the task priority and the highest interrupt in
    /// service.
    pub fn ppr(&self) -> u8 {
        let in_service = self.registers.highest(ISR).map_or(0, |vector| vector.0 & 0xf0);
        let task = self.tpr();
        if task & 0xf0 >= in_service { task } else { in_service }
    }

    /// The TSC value at which [`Self::expire`] must be called at the latest; `None` when no timer interrupt will come.
    /// It may lie in the past, and a guest may choose a period of a few ticks: a caller that sets an alarm for it keeps a
    /// least distance of its own choice, or such a guest never runs.
    #[inline(always)]
    pub fn timer_deadline(&self) -> Option<u64> {
        (self.timer_due != NEVER).then_some(self.timer_due)
    }

    /// The guest reads the TSC plus `offset` from TSC `now` on: a deadline is compared with that.
    pub fn set_time_stamp_offset(&mut self, offset: u64, now: u64) {
        self.settle_timer(now);
        self.time_stamp_offset = offset;
        self.set_tsc_deadline(self.timer.tsc_deadline(), now);
    }

    /// What a write of IA32_TSC_DEADLINE does at TSC `now`.
    fn set_tsc_deadline(&mut self, deadline: u64, now: u64) {
        if Settings::of(&self.registers).has_deadline() {
            self.timer.start_until(deadline, now, self.time_stamp_offset);
            self.update_timer_due();
        }
    }

    /// After a write to anything that the timer's interrupt depends on.
    fn update_timer_due(&mut self) {
        let raises = self.is_software_enabled() && self.registers.read(LVT_TIMER) & LVT_MASKED == 0;
        let settings = Settings::of(&self.registers);
        let deadline = self.timer.deadline(settings).filter(|_| raises);
        self.timer_due = deadline.unwrap_or(NEVER);
        let same = raises && settings.has_deadline() && self.time_stamp_offset == 0;
        self.loan.update(same);
    }

    /// The guest can have this processor's timer in place of this one, where it would do the same: see [`Loan`].
    pub fn offer_timer(&mut self) {
        self.loan.offered = true;
        self.update_timer_due();
    }

    /// Whether the processor's timer is to be [borrowed](Self::borrow_timer) now, or [returned](Self::return_timer): the guest
    /// must not run before.
    #[inline(always)]
    pub fn timer_moves(&self) -> bool {
        self.loan.moves
    }

    /// Whether the guest has the processor's timer, and writes IA32_TSC_DEADLINE of that.
    pub fn has_borrowed_timer(&self) -> bool {
        self.loan.borrowed
    }

    /// The guest has the processor's timer from now on. The deadline that is set; 0 for none.
    pub fn borrow_timer(&mut self) -> u64 {
        let deadline = self.timer.tsc_deadline();
        self.timer = Timer::default();
        self.loan.borrowed = true;
        self.update_timer_due();
        deadline
    }

    /// The deadline of the processor's timer that the guest has is reached.
    pub fn deadline_reached(&mut self) {
        self.raise_local(LVT_TIMER);
    }

    /// The guest has this timer again, at TSC `now`, with the deadline that the processor's had, and one `reached` of which
    /// it was not told. Both are no more, where the mode has changed meanwhile.
    pub fn return_timer(&mut self, deadline: u64, reached: bool, now: u64) {
        self.loan.borrowed = false;
        if Settings::of(&self.registers).has_deadline() {
            if reached {
                self.deadline_reached();
            }
            self.timer.start_until(deadline, now, self.time_stamp_offset);
        }
        self.update_timer_due();
    }

    /// Before the guest reads IA32_TSC_DEADLINE: whether the processor's timer must be returned first. Then it is, before the
    /// guest runs again, and until it has read.
    pub fn recall_timer(&mut self) -> bool {
        self.loan.recalled = self.loan.borrowed;
        self.update_timer_due();
        self.loan.recalled
    }

    /// Raises the timer's interrupt if its count has reached 0 by TSC `now`. A periodic timer raises one interrupt
    /// however many periods have passed, and keeps its phase.
    #[inline(always)]
    pub fn expire(&mut self, now: u64) {
        if now >= self.timer_due {
            self.settle_timer(now);
        }
    }

    /// Brings the timer to TSC `now`, also where it raises nothing: before anything that it depends on is read or
    /// changed.
    fn settle_timer(&mut self, now: u64) {
        if self.timer.runs() && self.timer.expire(Settings::of(&self.registers), now) {
            self.raise_local(LVT_TIMER);
            self.update_timer_due();
        }
    }

    /// Raises the interrupt of the timer's or the error's Local Vector Table register: they have no other delivery mode
    /// than fixed.
    fn raise_local(&mut self, offset: u16) {
        let lvt = self.registers.read(offset);
        if lvt & LVT_MASKED != 0 {
            return;
        }
        let vector = Vector((lvt & LVT_VECTOR) as u8);
        if offset == LVT_ERROR && vector.0 < 16 {
            // Signalling this error would be the same error again.
            self.errors |= ESR_RECEIVE_ILLEGAL_VECTOR;
        } else {
            self.receive(vector);
        }
    }

    /// Accepts one interrupt.
    fn receive(&mut self, vector: Vector) {
        if !self.is_software_enabled() {
            self.dropped = self.dropped.saturating_add(1);
        } else if vector.0 < 16 {
            self.dropped = self.dropped.saturating_add(1);
            self.signal_error(ESR_RECEIVE_ILLEGAL_VECTOR);
        } else {
            self.request(vector);
        }
    }

    /// Puts a vector that is allowed into IRR, as an edge.
    fn request(&mut self, vector: Vector) {
        self.registers.insert(IRR, vector);
        self.registers.remove(TMR, vector);
        self.accepted = self.accepted.saturating_add(1);
        self.changed = true;
    }

    /// Notes an error for ESR and raises the error interrupt (section 11.5.3).
    fn signal_error(&mut self, error: u32) {
        self.errors |= error;
        self.raise_local(LVT_ERROR);
    }
}
