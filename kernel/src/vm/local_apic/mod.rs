//! A guest's local APIC in software (SDM volume 3, the chapter on the APIC; section numbers are those of revision 080).
//!
//! For processors that virtualize no APIC: what the guest's devices post is collected in a mailbox, merged here at VM
//! entry ([`LocalApic::accept`]), and the vector that is due is injected ([`LocalApic::acknowledge`]). All of it is
//! logic: time comes in as TSC values, and what concerns other processors goes out as [`Effect`].
//!
//! There is no I/O APIC, so all interrupts are edge-triggered: TMR is always 0 and an EOI concerns nobody else.

mod access;
mod base;
mod command;
mod registers;
#[cfg(test)]
mod tests;
mod timer;
mod vector_set;

pub use base::Mode;
pub use command::{DeliveryMode, Destination, Effect};

use addr::{ApicId, Vector};

use registers::{ESR_RECEIVE_ILLEGAL_VECTOR, LVT_ERROR, LVT_MASKED, LVT_TIMER, LVT_VECTOR, SVR_ENABLE, SVR_RESET};
use timer::Timer;
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

/// The Local Vector Table registers there are: timer, thermal sensor, performance counters, LINT0, LINT1, error.
const LVT_COUNT: usize = 6;

/// One virtual processor's local APIC.
#[derive(Clone, Debug)]
pub struct LocalApic {
    id: ApicId,
    bootstrap_processor: bool,
    /// The guest's physical-address width in bits; those above are reserved in IA32_APIC_BASE.
    physical_address_bits: u8,
    mode: Mode,
    /// Address of the xAPIC page: bits MAXPHYADDR-1:12 of IA32_APIC_BASE.
    page: u64,
    irr: VectorSet,
    isr: VectorSet,
    tpr: u8,
    /// Bits 31:24, xAPIC mode only.
    ldr: u32,
    dfr: u32,
    svr: u32,
    /// What ESR reads.
    esr: u32,
    /// The errors since the last write of ESR.
    errors: u32,
    icr: u64,
    lvt: [u32; LVT_COUNT],
    timer: Timer,
    dropped: u64,
}

impl LocalApic {
    /// A local APIC after reset: in xAPIC mode at 0xfee00000, software-disabled. `physical_address_bits` is the guest's
    /// MAXPHYADDR, 32 to 52.
    pub fn new(id: ApicId, bootstrap_processor: bool, physical_address_bits: u8) -> Self {
        let (page, timer) = (registers::APIC_BASE_RESET, Timer::default());
        let mut apic = Self {
            id,
            bootstrap_processor,
            physical_address_bits,
            mode: Mode::XApic,
            page,
            irr: VectorSet::default(),
            isr: VectorSet::default(),
            tpr: 0,
            ldr: 0,
            dfr: 0,
            svr: 0,
            esr: 0,
            errors: 0,
            icr: 0,
            lvt: [0; LVT_COUNT],
            timer,
            dropped: 0,
        };
        apic.init();
        apic
    }

    /// What INIT does (section 11.4.7.3): everything as after reset but the id, the mode and the page's address.
    pub fn init(&mut self) {
        self.irr = VectorSet::default();
        self.isr = VectorSet::default();
        self.tpr = 0;
        self.ldr = 0;
        self.dfr = u32::MAX;
        self.svr = SVR_RESET;
        self.esr = 0;
        self.errors = 0;
        self.icr = 0;
        self.lvt = [LVT_MASKED; LVT_COUNT];
        self.timer = Timer::default();
    }

    /// The processor's APIC id.
    pub fn id(&self) -> ApicId {
        self.id
    }

    /// How many interrupts were dropped: for a vector below 16, or because the local APIC was disabled. Interrupts that
    /// merge with one that is requested already are not dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether interrupts are accepted: not disabled in IA32_APIC_BASE, and enabled in the spurious-interrupt vector
    /// register.
    pub fn is_software_enabled(&self) -> bool {
        self.mode != Mode::Disabled && self.svr & SVR_ENABLE != 0
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
        self.irr.merge(requests);
        if illegal != 0 {
            self.dropped = self.dropped.saturating_add(illegal.into());
            self.signal_error(ESR_RECEIVE_ILLEGAL_VECTOR);
        }
    }

    /// The interrupt that is due: the highest in IRR, if its priority class is above the processor's. The processor
    /// takes it once it can (IF set, no shadow).
    pub fn pending(&self) -> Option<Vector> {
        if self.mode == Mode::Disabled {
            return None;
        }
        self.irr.highest().filter(|vector| vector.0 >> 4 > self.ppr() >> 4)
    }

    /// Gives the processor the interrupt that is due and puts it into service. Call it when the vector is really going
    /// to be injected.
    pub fn acknowledge(&mut self) -> Option<Vector> {
        let vector = self.pending()?;
        self.irr.remove(vector);
        self.isr.insert(vector);
        Some(vector)
    }

    /// What a write of EOI does: the interrupt in service with the highest priority is done. Returns it.
    pub fn end_of_interrupt(&mut self) -> Option<Vector> {
        let vector = self.isr.highest()?;
        self.isr.remove(vector);
        Some(vector)
    }

    /// The task priority register: class in bits 7:4.
    pub fn tpr(&self) -> u8 {
        self.tpr
    }

    /// Sets the task priority register.
    pub fn set_tpr(&mut self, tpr: u8) {
        self.tpr = tpr;
    }

    /// What CR8 reads: the task priority's class, 0 to 15.
    pub fn cr8(&self) -> u64 {
        u64::from(self.tpr >> 4)
    }

    /// What a write of CR8 does (section 11.8.6): bits 63:4 are reserved.
    pub fn set_cr8(&mut self, value: u64) -> Result<(), GeneralProtection> {
        let class = u8::try_from(value).ok().filter(|class| *class < 16).ok_or(GeneralProtection)?;
        self.tpr = class << 4;
        Ok(())
    }

    /// The processor priority (section 11.8.3.1): the higher class of the task priority and the highest interrupt in
    /// service.
    pub fn ppr(&self) -> u8 {
        let in_service = self.isr.highest().map_or(0, |vector| vector.0 & 0xf0);
        if self.tpr & 0xf0 >= in_service { self.tpr } else { in_service }
    }

    /// The TSC value at which [`Self::expire`] must be called at the latest; `None` when no timer interrupt will come.
    /// It may lie in the past, and a guest may choose a period of a few ticks: a caller that sets an alarm for it keeps a
    /// least distance of its own choice, or such a guest never runs.
    pub fn timer_deadline(&self) -> Option<u64> {
        let raises = self.is_software_enabled() && self.lvt(LVT_TIMER) & LVT_MASKED == 0;
        self.timer.deadline().filter(|_| raises)
    }

    /// Raises the timer's interrupt if its count has reached 0 by TSC `now`. A periodic timer raises one interrupt
    /// however many periods have passed, and keeps its phase.
    pub fn expire(&mut self, now: u64) {
        if self.timer.expire(now) {
            self.raise_local(LVT_TIMER);
        }
    }

    /// The Local Vector Table register at this offset; masked where there is none.
    fn lvt(&self, offset: u16) -> u32 {
        Self::lvt_index(offset).and_then(|index| self.lvt.get(index)).copied().unwrap_or(LVT_MASKED)
    }

    fn lvt_index(offset: u16) -> Option<usize> {
        offset.checked_sub(LVT_TIMER).map(|distance| usize::from(distance / 16)).filter(|index| *index < LVT_COUNT)
    }

    /// Raises the interrupt of the timer's or the error's Local Vector Table register: they have no other delivery mode
    /// than fixed.
    fn raise_local(&mut self, offset: u16) {
        let lvt = self.lvt(offset);
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
        let mut requests = [0; 4];
        requests[usize::from(vector.0 >> 6)] = 1 << (vector.0 & 63);
        self.accept(requests);
    }

    /// Notes an error for ESR and raises the error interrupt (section 11.5.3).
    fn signal_error(&mut self, error: u32) {
        self.errors |= error;
        self.raise_local(LVT_ERROR);
    }
}
