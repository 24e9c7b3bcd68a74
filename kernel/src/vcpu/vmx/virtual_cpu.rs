//! A virtual CPU in a control structure.

mod apic;
mod control_access;
mod state;
#[cfg(test)]
mod tests;

use crate::vcpu::VirtualApicPage;
use crate::vcpu::event::{DEBUG, is_fault};
use crate::vcpu::region::Region;
use crate::vcpu::vmx::bitmap::{IoBitmaps, MsrArea, MsrBitmaps};
use crate::vcpu::vmx::consistency::consistency_errors;
use crate::vcpu::vmx::control_registers::ControlRegister;
use crate::vcpu::vmx::injection::{self, Injection, Pending};
use crate::vcpu::vmx::machine::Machine;
use crate::vcpu::vmx::processor::{EntryError, Processor};
use crate::vcpu::vmx::spec::control::{ExitControls, PinBased, Primary};
use crate::vcpu::vmx::spec::exit_reason::{self, ExitReason};
use crate::vcpu::vmx::spec::field::*;
use crate::vcpu::vmx::spec::{ept, instruction_error, interruption, qualification};
use crate::vcpu::vmx::{Capabilities, Controls, HostState, VmxError, controls, decode, initial};
use crate::vcpu::{
    ApicCapability, Combined, EntryFailure, Event, Exit, FrameSource, Mode, Registers, Start, VirtualCpu, combine,
};
use addr::{HostPhys, Vector};

const RFLAGS_TRAP: u64 = 1 << 8;
const RFLAGS_INTERRUPT: u64 = 1 << 9;
const RFLAGS_RESUME: u64 = 1 << 16;
/// One instruction more, then interrupts.
const SHADOW: u32 = BLOCKING_BY_STI | BLOCKING_BY_MOV_SS;
const DOUBLE_FAULT: u32 = 8;
/// DR7.GD: accesses to debug registers are exceptions. Taking a debug exception clears it.
const DR7_GENERAL_DETECT: u64 = 1 << 13;
/// The code of an entry that failed before the processor had anything to say.
const NO_ERROR_NUMBER: u64 = u64::MAX;
/// The offset of the task-priority register in the virtual-APIC page.
const TASK_PRIORITY: u16 = 0x80;

/// A virtual CPU.
#[derive(Debug)]
pub struct VmxVirtualCpu<P = Machine> {
    vmcs: P,
    io_bitmaps: Region<IoBitmaps>,
    msr_bitmaps: Region<MsrBitmaps>,
    msr_area: Region<MsrArea>,
    virtual_apic: &'static VirtualApicPage,
    capabilities: Capabilities,
    /// Which of them are for the local APIC: asked with every interrupt.
    apic_capability: ApicCapability,
    /// As they are in the control structure, but for [`Self::update_controls`] to come.
    controls: Controls,
    written: Controls,
    cr0: ControlRegister,
    cr4: ControlRegister,
    ept_pointer: u64,
    virtual_processor: Option<u16>,
    /// See [`HostState::speculation_control`].
    host_speculation_control: u64,
    /// RSP is copied from and to the control structure around each entry.
    registers: Registers,
    /// RSP as the control structure has it.
    written_rsp: u64,
    cr2: u64,
    /// Where there is no TPR shadow: CR8.
    task_priority: u8,
    /// What the next entry delivers.
    pending: Option<Pending>,
    /// An interrupt that was on its way when an exception came first: it is delivered as soon as the guest takes it.
    waiting: Option<Vector>,
    /// A non-maskable interrupt waits.
    nmi_waiting: bool,
    /// Where the instruction ends that the last exit is about.
    next_rip: Option<u64>,
    /// The caller wants to know when the guest can take an interrupt.
    window_wanted: bool,
    /// The caller wants to know when the guest lowers its task priority.
    priority_exit_wanted: bool,
    /// The TPR threshold as the control structure has it.
    threshold: u32,
    /// The preemption timer was set to something, or has run down: it is to be set again even where it is not wanted.
    timer_runs: bool,
    /// The next entry flushes this guest's translations.
    flush: bool,
    /// The processor has shut down, and its state is undefined.
    shut_down: bool,
}

/// What a virtual CPU is made of, beside frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub capabilities: Capabilities,
    pub controls: Controls,
    pub host: HostState,
    pub virtual_processor: Option<u16>,
    pub nested_root: HostPhys,
}

impl<P: Processor> VmxVirtualCpu<P> {
    pub(super) fn new(mut vmcs: P, frames: &mut dyn FrameSource, plan: Plan) -> Result<Self, VmxError> {
        let Plan { capabilities, controls, host, virtual_processor, nested_root } = plan;
        let mut io_bitmaps: Region<IoBitmaps> = Region::allocate(frames, "I/O bitmaps")?;
        let mut msr_bitmaps: Region<MsrBitmaps> = Region::allocate(frames, "MSR bitmaps")?;
        let msr_area: Region<MsrArea> = Region::allocate(frames, "MSR area")?;
        let (virtual_apic_address, virtual_apic) =
            Region::<VirtualApicPage>::allocate(frames, "virtual-APIC page")?.leak();
        io_bitmaps.intercept_all();
        msr_bitmaps.intercept_all_but_switched();
        let places = initial::Places {
            io_bitmaps: io_bitmaps.physical(),
            msr_bitmaps: msr_bitmaps.physical(),
            msr_area: msr_area.physical(),
            virtual_apic: virtual_apic_address,
        };
        initial::set_controls(&mut vmcs, &controls);
        initial::set_execution(&mut vmcs, &places, virtual_processor);
        host.write(&mut vmcs);
        let [_, _, host_cr4] = host.control;
        let mut cpu = Self {
            vmcs,
            io_bitmaps,
            msr_bitmaps,
            msr_area,
            virtual_apic,
            capabilities,
            apic_capability: controls::apic_capability(&capabilities),
            controls,
            written: controls,
            cr0: ControlRegister::cr0(&capabilities),
            cr4: ControlRegister::cr4(&capabilities, host_cr4),
            ept_pointer: 0,
            virtual_processor,
            host_speculation_control: host.speculation_control,
            registers: Registers::default(),
            written_rsp: 0,
            cr2: 0,
            task_priority: 0,
            pending: None,
            waiting: None,
            nmi_waiting: false,
            next_rip: None,
            window_wanted: false,
            priority_exit_wanted: false,
            threshold: 0,
            timer_runs: true,
            flush: true,
            shut_down: false,
        };
        cpu.set_nested_root(nested_root);
        cpu.set_preemption_timer(None);
        cpu.start(Start::StartupInterrupt { vector: 0 });
        Ok(cpu)
    }

    /// What the processor's extension can do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Ends [`run`](VirtualCpu::run) as if by an interrupt after about `ticks` of the VMX-preemption timer, counted
    /// while the guest runs; `None` for the longest time that the timer has. Says whether the processor has the timer. It
    /// ticks once for 2 to the power of [`Capabilities::preemption_timer_rate`] ticks of the time-stamp counter.
    pub fn set_preemption_timer(&mut self, ticks: Option<u32>) -> bool {
        // It is active always: to switch it on and off would be two controls to write, each way.
        if !self.controls.pin.contains(PinBased::ACTIVATE_PREEMPTION_TIMER) {
            return false;
        }
        if ticks.is_some() || self.timer_runs {
            self.vmcs.set(PREEMPTION_TIMER, ticks.unwrap_or(u32::MAX));
            self.timer_runs = ticks.is_some();
        }
        true
    }

    /// Writes the controls that have changed. The VM-entry controls are not among them: the one that changes, "IA-32e
    /// mode guest", is the processor's, see [`Self::start`].
    fn update_controls(&mut self) {
        self.controls.primary.set(Primary::INTERRUPT_WINDOW_EXITING, self.window_wanted || self.waiting.is_some());
        if self.controls != self.written {
            self.write_controls();
        }
    }

    #[cold]
    fn write_controls(&mut self) {
        let (new, old) = (self.controls, self.written);
        let changes = [
            (PIN_BASED_CONTROLS, new.pin.bits(), old.pin.bits()),
            (PRIMARY_CONTROLS, new.primary.bits(), old.primary.bits()),
            (SECONDARY_CONTROLS, new.secondary.bits(), old.secondary.bits()),
            (EXIT_CONTROLS, new.exit.bits(), old.exit.bits()),
        ];
        for (field, new, old) in changes {
            if new != old {
                self.vmcs.set(field, new);
            }
        }
        self.written = new;
    }

    /// Switches IA32_SPEC_CTRL at entries and exits, or not.
    fn switch_speculation_control(&mut self, switched: bool) {
        let (guest, host) = MsrArea::counts(switched);
        self.vmcs.set(EXIT_MSR_STORE_COUNT, guest);
        self.vmcs.set(ENTRY_MSR_LOAD_COUNT, guest);
        self.vmcs.set(EXIT_MSR_LOAD_COUNT, host);
    }

    /// Sets the TPR threshold: below the present priority the guest exits. With virtual-interrupt delivery the processor
    /// compares priorities itself, and does not look at it.
    fn update_threshold(&mut self) {
        let threshold =
            if self.priority_exit_wanted && self.has_tpr_shadow() { self.task_priority().into() } else { 0 };
        if threshold != self.threshold {
            self.vmcs.set(TPR_THRESHOLD, threshold);
            self.threshold = threshold;
        }
    }

    fn inject(&mut self, pending: Pending) {
        let protected = self.vmcs.get(GUEST_CR0) & crate::vcpu::vmx::control_registers::cr0::PE != 0;
        let Injection { information, error_code, length } = injection::encode(pending, protected);
        self.vmcs.set(ENTRY_INTERRUPTION_INFORMATION, information);
        if information & interruption::ERROR_CODE_VALID != 0 {
            self.vmcs.set(ENTRY_EXCEPTION_ERROR_CODE, error_code);
        }
        if matches!(pending, Pending::Software { .. }) {
            self.vmcs.set(ENTRY_INSTRUCTION_LENGTH, length);
        }
        // The handler begins without the shadow that its event ended.
        self.clear_interruptibility(SHADOW);
    }

    /// Delivers the non-maskable interrupt that waits, if the guest takes it now; else the guest exits once it does.
    fn offer_nmi(&mut self) {
        let blocked = self.vmcs.get(GUEST_INTERRUPTIBILITY) & (SHADOW | BLOCKING_BY_NMI) != 0;
        self.nmi_waiting = blocked || self.pending.is_some();
        if !self.nmi_waiting {
            self.pending = Some(Pending::Event(Event::Nmi));
        }
        self.controls.primary.set(Primary::NMI_WINDOW_EXITING, self.nmi_waiting);
    }

    fn clear_interruptibility(&mut self, bits: u32) {
        let state = self.vmcs.get_at_exit(GUEST_INTERRUPTIBILITY);
        if state & bits != 0 {
            self.vmcs.set(GUEST_INTERRUPTIBILITY, state & !bits);
        }
    }

    /// One entry and exit.
    fn enter(&mut self) -> Result<ExitReason, EntryFailure> {
        if self.nmi_waiting {
            self.offer_nmi();
        }
        if self.pending.is_none() && self.waiting.is_some() && self.takes_interrupts() {
            self.pending = self.waiting.take().map(|vector| Pending::Event(Event::Interrupt(vector)));
        }
        let injected = self.pending.take();
        self.update_controls();
        self.update_threshold();
        if self.flush {
            self.vmcs.invalidate(self.ept_pointer, self.virtual_processor);
        }
        if let Some(pending) = injected {
            self.inject(pending);
        }
        if self.registers.rsp != self.written_rsp {
            self.vmcs.set(GUEST_RSP, self.registers.rsp);
        }
        let entered = self.vmcs.enter(&mut self.registers, &mut self.cr2);
        let reason = match entered {
            Ok(()) => ExitReason(self.vmcs.get_at_exit(EXIT_REASON)),
            Err(error) => return Err(self.refused(injected, error)),
        };
        if reason.is_entry_failure() {
            return Err(self.not_loaded(injected, reason));
        }
        self.flush = false;
        self.written_rsp = self.vmcs.get_at_exit(GUEST_RSP);
        self.registers.rsp = self.written_rsp;
        self.take_interrupted(reason);
        self.next_rip = if decode::has_instruction_length(reason) {
            let length = self.vmcs.get_at_exit(EXIT_INSTRUCTION_LENGTH);
            Some(self.vmcs.get_at_exit(GUEST_RIP).wrapping_add(length.into()))
        } else {
            None
        };
        Ok(reason)
    }

    /// The entry instruction itself failed.
    fn refused(&mut self, injected: Option<Pending>, error: EntryError) -> EntryFailure {
        let (code, words) = match error {
            EntryError::Failed { number } => (number.into(), instruction_error::in_words(number)),
            EntryError::NoCurrentStructure => (NO_ERROR_NUMBER, "there is no current control structure"),
            EntryError::NoSuchField { encoding } => {
                (encoding.into(), "the processor lacks the field of the control structure that the code names")
            }
        };
        self.entry_failed(injected, code, words)
    }

    /// The entry failed while the guest's state was loaded.
    fn not_loaded(&mut self, injected: Option<Pending>, reason: ExitReason) -> EntryFailure {
        let words = match reason.basic() {
            exit_reason::INVALID_GUEST_STATE => "VM entry with invalid guest state",
            exit_reason::MSR_LOADING => "VM entry could not load a register of the MSR area",
            exit_reason::MACHINE_CHECK_AT_ENTRY => "a machine check during VM entry",
            _ => "VM entry failed for a reason that has no name here",
        };
        self.entry_failed(injected, reason.0.into(), words)
    }

    fn entry_failed(&mut self, injected: Option<Pending>, code: u64, words: &'static str) -> EntryFailure {
        let rules = consistency_errors(&self.vmcs, &self.capabilities);
        let failure = EntryFailure::new(code, core::iter::once(words).chain(rules));
        // Nothing was delivered, and the processor clears the field at exits only.
        self.vmcs.set(ENTRY_INTERRUPTION_INFORMATION, 0);
        self.pending = injected;
        self.next_rip = None;
        failure
    }

    /// Keeps the event whose delivery the exit interrupted, and the blocking of NMIs as it was before (SDM vol. 3,
    /// 28.2.3 and 28.2.4).
    fn take_interrupted(&mut self, reason: ExitReason) {
        let information = self.vmcs.get_at_exit(IDT_VECTORING_INFORMATION);
        if information & interruption::VALID != 0 {
            let error_code = self.vmcs.get(IDT_VECTORING_ERROR_CODE);
            let length = self.vmcs.get(EXIT_INSTRUCTION_LENGTH);
            self.pending = injection::interrupted(information, error_code, length);
            if self.pending == Some(Pending::Event(Event::Nmi)) {
                // Blocked since its delivery began: the entry that delivers it again would be refused.
                self.clear_interruptibility(BLOCKING_BY_NMI);
            }
            return;
        }
        let unblocked = match reason.basic() {
            exit_reason::EXCEPTION_OR_NMI => {
                let information = self.vmcs.get(EXIT_INTERRUPTION_INFORMATION);
                information & interruption::VECTOR != DOUBLE_FAULT
                    && information & interruption::NMI_UNBLOCKING_BY_IRET != 0
            }
            exit_reason::EPT_VIOLATION => {
                self.vmcs.get(EXIT_QUALIFICATION) & qualification::EPT_NMI_UNBLOCKING_BY_IRET != 0
            }
            _ => false,
        };
        if unblocked {
            // The IRET will be executed again.
            let state = self.vmcs.get(GUEST_INTERRUPTIBILITY);
            self.vmcs.set(GUEST_INTERRUPTIBILITY, state | BLOCKING_BY_NMI);
        }
    }

    fn run_guest(&mut self) -> Exit {
        loop {
            if self.shut_down {
                return Exit::Shutdown;
            }
            let reason = match self.enter() {
                Ok(reason) => reason,
                Err(failure) => return Exit::EntryFailed(failure),
            };
            if reason.basic() == exit_reason::CONTROL_REGISTER {
                match self.access_control_register(reason) {
                    None => continue,
                    Some(exit) => return exit,
                }
            }
            if reason.basic() == exit_reason::INTERRUPT_WINDOW && self.waiting.is_some() {
                // The next entry delivers it.
                continue;
            }
            return self.finish_exit(reason);
        }
    }

    /// What must happen before the caller sees the exit.
    fn finish_exit(&mut self, reason: ExitReason) -> Exit {
        let exit = decode::decode(&self.vmcs, reason, &self.registers);
        match exit {
            Exit::ExternalInterrupt if reason.basic() == exit_reason::PREEMPTION_TIMER_EXPIRED => {
                self.timer_runs = true
            }
            Exit::ExternalInterrupt => {
                let acknowledged = self.written.exit.contains(ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT);
                let information = self.vmcs.get(EXIT_INTERRUPTION_INFORMATION);
                let vector = Vector((information & interruption::VECTOR) as u8);
                self.vmcs.serve_interrupt(acknowledged.then_some(vector));
            }
            Exit::Nmi => self.vmcs.serve_nmi(),
            Exit::InterruptWindow if reason.basic() == exit_reason::TPR_BELOW_THRESHOLD => {
                self.priority_exit_wanted = false;
            }
            Exit::InterruptWindow => self.window_wanted = false,
            Exit::Shutdown => self.shut_down = true,
            Exit::Exception { vector: DEBUG, .. } => self.take_debug_exception(),
            _ => {}
        }
        exit
    }

    /// Does what the processor does when it delivers a debug exception and leaves undone when the exception exits
    /// (SDM vol. 3, 28.1): the injected one will not do it either.
    fn take_debug_exception(&mut self) {
        let status = self.vmcs.get(EXIT_QUALIFICATION) & qualification::DEBUG_STATUS;
        let before = self.vmcs.debug_status();
        self.vmcs.set_debug_status(before & !qualification::DEBUG_BREAKPOINTS | status);
        let control = self.vmcs.get(GUEST_DR7);
        if control & DR7_GENERAL_DETECT != 0 {
            self.vmcs.set(GUEST_DR7, control & !DR7_GENERAL_DETECT);
        }
        let information = self.vmcs.get(EXIT_INTERRUPTION_INFORMATION);
        let kind = information >> interruption::TYPE_SHIFT & interruption::TYPE;
        if kind == interruption::TYPE_PRIVILEGED_SOFTWARE_EXCEPTION {
            // INT1 is a trap: its handler returns to behind it, or it would be executed for ever.
            let length = self.vmcs.get(EXIT_INSTRUCTION_LENGTH);
            let rip = self.vmcs.get(GUEST_RIP).wrapping_add(length.into());
            self.vmcs.set(GUEST_RIP, rip);
        }
    }

    fn raise(&mut self, vector: u8, error_code: Option<u32>) {
        // An interrupted INT n is dropped: its instruction will be executed again after the handler.
        let pending = match self.pending {
            Some(Pending::Event(event)) => Some(event),
            _ => None,
        };
        match combine(pending, vector, error_code) {
            Combined::Deliver(event) => {
                if let Some(Event::Interrupt(vector)) = pending {
                    self.waiting = Some(vector);
                }
                if matches!(event, Event::Exception { vector, .. } if is_fault(vector)) {
                    let flags = self.vmcs.get(GUEST_RFLAGS);
                    self.vmcs.set(GUEST_RFLAGS, flags | RFLAGS_RESUME);
                }
                self.pending = Some(Pending::Event(event));
            }
            Combined::Shutdown => self.shut_down = true,
        }
    }

    /// RFLAGS.IF is set, and there is no interrupt shadow.
    fn takes_interrupts(&self) -> bool {
        self.vmcs.get(GUEST_RFLAGS) & RFLAGS_INTERRUPT != 0 && self.vmcs.get(GUEST_INTERRUPTIBILITY) & SHADOW == 0
    }

    /// Whether CR8 is in the virtual-APIC page.
    fn has_tpr_shadow(&self) -> bool {
        self.controls.primary.contains(Primary::USE_TPR_SHADOW)
    }
}

#[cfg(test)]
impl<P> VmxVirtualCpu<P> {
    pub(super) fn into_processor(self) -> P {
        self.vmcs
    }
}
