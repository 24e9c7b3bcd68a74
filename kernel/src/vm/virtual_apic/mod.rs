//! A guest's local APIC and the processor together: three ways to deliver an interrupt, one interface.
//!
//! | | software | virtual-interrupt delivery | with posted-interrupt processing |
//! |---|---|---|---|
//! | registers, the only truth | an array | the virtual-APIC page | the virtual-APIC page |
//! | a posted interrupt, the guest runs | leaves the guest, is collected, injected | leaves the guest, is collected, delivered by the processor | delivered by the processor |
//! | the guest cannot take it yet | the processor waits (SVM), or interrupt window | the processor waits | the processor waits |
//! | EOI, TPR, SELF IPI | exit (TPR as CR8 does not) | no exit in x2APIC mode | no exit in x2APIC mode |
//! | EOI of a level-triggered interrupt | the same exit | EOI-induced exit | EOI-induced exit |
//! | priority | computed from TPR and ISR | VPPR, from VTPR and SVI | VPPR, from VTPR and SVI |
//!
//! What is the same: [`LocalApic`] does all that exits, its timer included, and the registers are where it says. The
//! processor's own copies (RVI, SVI, the EOI-exit bitmap) are written again when software has changed what they are
//! copies of, and at no other time: an entry after an exit that had nothing to do with interrupts costs two looks.

#[cfg(test)]
mod tests;

use crate::vcpu::notification::{self, Steps};
use crate::vcpu::{ApicCapability, ApicVirtualization, ApicWay, PassedMsrs, PostedProcessing, VirtualCpu};
use crate::vm::local_apic::{Effect, LocalApic, Mode};
use addr::{ApicId, Vector};

/// RFLAGS.IF.
const RFLAGS_INTERRUPTS: u64 = 1 << 9;

/// How a guest's processor and its local APIC go together.
#[derive(Debug)]
pub struct VirtualApic {
    capability: ApicCapability,
    /// The descriptor and the vector, where the processor takes requests out of it.
    posted: Option<PostedProcessing>,
    /// What the processor was told last.
    eoi_exits: [u64; 4],
    passes: bool,
    processing: bool,
    /// CR8 as both the processor and the registers had it last (software only).
    task_priority: u8,
    /// An interrupt is requested and was not injected: whether it can be now depends on more than the registers (software
    /// only).
    waiting: bool,
    /// What the processor may deliver by itself, and is requested until it is known to have (software only).
    offered: Option<Vector>,
    /// Interrupts that were injected (software only).
    injected: u64,
}

impl VirtualApic {
    /// For a processor whose engine offers `hardware`, or `None`; `posted` is used where the processor can. Together
    /// with it, the registers: [`LocalApic`] after reset.
    pub fn new(
        hardware: Option<&mut dyn ApicVirtualization>,
        posted: PostedProcessing,
        id: ApicId,
        bootstrap_processor: bool,
        physical_address_bits: u8,
    ) -> (Self, LocalApic) {
        let capability = hardware.as_ref().map_or(ApicCapability::default(), |hardware| hardware.capability());
        let mut new = Self {
            capability,
            posted: (capability.way() == ApicWay::Posted).then_some(posted),
            eoi_exits: [0; 4],
            passes: false,
            processing: false,
            task_priority: 0,
            waiting: false,
            offered: None,
            injected: 0,
        };
        let apic = match hardware {
            Some(hardware) if capability.way() != ApicWay::Software => {
                hardware.set_eoi_exits(new.eoi_exits);
                hardware.set_passed_msrs(PassedMsrs::NONE);
                LocalApic::over_page(hardware.page(), id, bootstrap_processor, physical_address_bits)
            }
            _ => {
                new.capability = ApicCapability::default();
                LocalApic::new(id, bootstrap_processor, physical_address_bits)
            }
        };
        (new, apic)
    }

    /// The way.
    pub fn way(&self) -> ApicWay {
        self.capability.way()
    }

    /// Interrupts that were delivered to the guest, or where the processor delivers, handed over to be delivered. Those
    /// that the processor took out of the descriptor by itself are not among them, nor those that the guest sent to
    /// itself without an exit.
    pub fn delivered(&self, apic: &LocalApic) -> u64 {
        if self.way() == ApicWay::Software { self.injected } else { apic.accepted() }
    }

    /// Accepts what was posted. With interrupts disabled until the guest runs; see [`notification::collect`].
    #[inline(always)]
    pub fn collect(&mut self, apic: &mut LocalApic, mailbox: &impl Steps) {
        if mailbox.is_outstanding()
            && let Some(requests) = notification::collect(mailbox)
        {
            apic.accept(requests);
        }
    }

    /// Brings the processor up to date, at TSC `now`: the last thing before [`VirtualCpu::run`], with interrupts
    /// disabled. What comes after it stays pending until the guest runs: then the processor delivers it, or leaves the
    /// guest for it.
    pub fn before_entry(
        &mut self,
        apic: &mut LocalApic,
        mailbox: &impl Steps,
        vcpu: &mut impl ApicProcessor,
        now: u64,
    ) {
        self.collect(apic, mailbox);
        apic.expire(now);
        if self.way() == ApicWay::Software {
            self.inject(apic, vcpu);
        } else if apic.take_changed()
            && let Some(hardware) = vcpu.apic_virtualization()
        {
            self.update(apic, hardware);
        }
    }

    /// The interrupt that the processor may deliver by itself during the next run: it is requested until then.
    pub fn offered(&self) -> Option<Vector> {
        self.offered
    }

    /// Brings the registers up to date: the first thing after [`VirtualCpu::run`]. Where the processor works on the
    /// registers themselves, they are; else the guest may have taken what was offered, and changed CR8, without an exit.
    pub fn after_exit(&mut self, apic: &mut LocalApic, vcpu: &mut impl ApicProcessor) {
        if self.way() != ApicWay::Software {
            return;
        }
        // First, for the priorities are still those of the offer: what it was for is what is acknowledged.
        if self.offered.take().is_some() && vcpu.took_offer() && apic.acknowledge().is_some() {
            self.injected += 1;
        }
        let class = vcpu.task_priority();
        // A write of the class that there is already cannot be told from none: then the low half of the task priority,
        // which has no effect but on what TPR reads, stays although it should become 0.
        if class != self.task_priority {
            self.task_priority = class;
            apic.set_tpr(class << 4);
        }
    }

    /// Whether a guest that executed HLT goes on: something is there that it would take now. What it would not, because
    /// of its priority or because it has disabled interrupts, does not wake it, as on a processor.
    pub fn wants_to_run(&self, apic: &LocalApic, vcpu: &impl ApicProcessor) -> bool {
        // In hardware's ways IRR, TPR and ISR are in the page, so this is "RVI above VPPR" without asking for either.
        apic.pending().is_some() && vcpu.takes_interrupts()
    }

    /// The guest's EOI of `vector` has been made by the processor and left the guest: its EOI-exit bit is set.
    pub fn end_of_interrupt_exit(&mut self, apic: &mut LocalApic, vector: Vector) -> Option<Effect> {
        apic.ended_by_processor(vector)
    }

    /// The processor has made the guest's write at `offset` of the virtual-APIC page and left the rest to software.
    pub fn write_exit(&mut self, apic: &mut LocalApic, offset: u16, now: u64) -> Option<Effect> {
        apic.written_by_processor(offset, now)
    }

    fn update(&mut self, apic: &mut LocalApic, hardware: &mut dyn ApicVirtualization) {
        // A software-disabled APIC drops what its guest sends to itself, and the processor does not know.
        let passes = apic.mode() == Mode::X2Apic && apic.is_software_enabled();
        if passes != self.passes {
            self.passes = passes;
            hardware.set_passed_msrs(if passes { PassedMsrs::of(self.capability) } else { PassedMsrs::NONE });
        }
        // A disabled APIC accepts nothing. The processor would: it does not look at SVR when it processes a
        // notification. So the notification leaves the guest, and `collect` drops what came.
        let processing = self.posted.is_some() && apic.is_software_enabled();
        if processing != self.processing {
            self.processing = processing;
            hardware.set_posted_processing(self.posted.filter(|_| processing));
        }
        hardware.set_interrupt_status(apic.interrupt_status());
        let eoi_exits = apic.level_triggered();
        if differ(&eoi_exits, &self.eoi_exits) {
            self.eoi_exits = eoi_exits;
            hardware.set_eoi_exits(eoi_exits);
        }
    }

    fn inject(&mut self, apic: &mut LocalApic, vcpu: &mut impl ApicProcessor) {
        // The guest may have written the task priority as a register of the APIC's.
        let class = apic.tpr() >> 4;
        if class != self.task_priority {
            self.task_priority = class;
            vcpu.set_task_priority(class);
        }
        if !apic.take_changed() && !self.waiting {
            return;
        }
        if let Some(vector) = apic.pending() {
            if !vcpu.can_take_interrupt() {
                self.offered = vcpu.offer_interrupt(vector).then_some(vector);
            } else if apic.acknowledge().is_some() {
                vcpu.inject(vector);
                self.injected += 1;
            }
        }
        let (due, held_back) = (apic.pending().is_some(), apic.is_held_back_by_task_priority());
        self.waiting = due || held_back;
        vcpu.request_interrupt_window(due && self.offered.is_none());
        vcpu.request_priority_exit(held_back);
    }
}

/// Not `!=`, which becomes a call of memcmp.
fn differ(one: &[u64; 4], other: &[u64; 4]) -> bool {
    one.iter().zip(other).fold(0, |all, (one, other)| all | (one ^ other)) != 0
}

/// What of a virtual CPU this needs; every [`VirtualCpu`] is one.
pub trait ApicProcessor {
    /// What the processor does for a local APIC; `None` where it does nothing.
    fn apic_virtualization(&mut self) -> Option<&mut dyn ApicVirtualization>;
    /// See [`VirtualCpu::task_priority`].
    fn task_priority(&self) -> u8;
    /// See [`VirtualCpu::set_task_priority`].
    fn set_task_priority(&mut self, priority: u8);
    /// See [`VirtualCpu::can_take_interrupt`].
    fn can_take_interrupt(&self) -> bool;
    /// Delivers at the next entry; only when it [can take one](Self::can_take_interrupt).
    fn inject(&mut self, vector: Vector);
    /// See [`VirtualCpu::offer_interrupt`].
    fn offer_interrupt(&mut self, vector: Vector) -> bool;
    /// See [`VirtualCpu::took_offer`].
    fn took_offer(&mut self) -> bool;
    /// See [`VirtualCpu::request_interrupt_window`].
    fn request_interrupt_window(&mut self, wanted: bool);
    /// See [`VirtualCpu::request_priority_exit`].
    fn request_priority_exit(&mut self, wanted: bool);
    /// RFLAGS.IF.
    fn takes_interrupts(&self) -> bool;
}

impl<V: VirtualCpu> ApicProcessor for V {
    fn apic_virtualization(&mut self) -> Option<&mut dyn ApicVirtualization> {
        VirtualCpu::apic_virtualization(self)
    }

    fn task_priority(&self) -> u8 {
        VirtualCpu::task_priority(self)
    }

    fn set_task_priority(&mut self, priority: u8) {
        VirtualCpu::set_task_priority(self, priority);
    }

    fn can_take_interrupt(&self) -> bool {
        VirtualCpu::can_take_interrupt(self)
    }

    fn inject(&mut self, vector: Vector) {
        // The caller has asked whether it can.
        let _ = self.inject_interrupt(vector);
    }

    fn offer_interrupt(&mut self, vector: Vector) -> bool {
        VirtualCpu::offer_interrupt(self, vector)
    }

    fn took_offer(&mut self) -> bool {
        VirtualCpu::took_offer(self)
    }

    fn request_interrupt_window(&mut self, wanted: bool) {
        VirtualCpu::request_interrupt_window(self, wanted);
    }

    fn request_priority_exit(&mut self, wanted: bool) {
        VirtualCpu::request_priority_exit(self, wanted);
    }

    fn takes_interrupts(&self) -> bool {
        self.control().rflags & RFLAGS_INTERRUPTS != 0
    }
}
