//! A virtual CPU in a control block.

mod interrupts;
mod nmi;
mod refused_write;
mod shadow;
mod state;
#[cfg(test)]
mod tests;

use crate::vcpu::event::{DEBUG, is_fault};
use crate::vcpu::svm::consistency::{consistency_errors, is_page_attribute_table};
use crate::vcpu::svm::decode::{decode, is_entry_failure, next_rip};
use crate::vcpu::svm::machine::{Machine, WorldSwitch};
use crate::vcpu::svm::permission_map::{IoPermissionMap, MsrPermissionMap};
use crate::vcpu::svm::region::Region;
use crate::vcpu::svm::spec::vmcb::{INTERRUPT_SHADOW, TLB_FLUSH_ADDRESS_SPACE, TLB_FLUSH_ALL, TLB_FLUSH_NOTHING, Vmcb};
use crate::vcpu::svm::spec::{exit_code, intercept, interrupt_control};
use crate::vcpu::svm::{Capabilities, SvmError, initial, injection};
use crate::vcpu::{Combined, EntryFailure, Event, Exit, FrameSource, Mode, Registers, Start, VirtualCpu, combine};
use addr::{HostPhys, Vector};
use interrupts::VirtualInterrupt;

/// CR8 among the control registers whose writes exit.
const CR8: u16 = 1 << 8;
/// RFLAGS.
const RFLAGS_TRAP: u64 = 1 << 8;
const RFLAGS_INTERRUPT: u64 = 1 << 9;
const RFLAGS_RESUME: u64 = 1 << 16;
/// DR6.BS: the debug exception is a single step's.
const DR6_SINGLE_STEP: u64 = 1 << 14;
/// DR6.B0 to B3: which breakpoints were met.
const DR6_BREAKPOINTS: u64 = 0xf;

/// A virtual CPU.
#[derive(Debug)]
pub struct SvmVirtualCpu<W = Machine> {
    world: W,
    vmcb: Region<Vmcb>,
    io_map: Region<IoPermissionMap>,
    capabilities: Capabilities,
    /// RAX and RSP are copied from and to the control block around each entry.
    registers: Registers,
    /// The exception or non-maskable interrupt that the next entry delivers.
    pending: Option<Event>,
    /// The maskable interrupt that the guest takes as soon as it can, which may be in the handler of `pending`.
    interrupt: Option<Vector>,
    /// The maskable interrupt that the guest takes if it can before the run ends.
    offer: Option<Vector>,
    /// It was taken.
    offer_taken: bool,
    /// A non-maskable interrupt waits.
    nmi_waiting: bool,
    /// One was delivered, and no IRET has been executed since.
    nmi_blocked: bool,
    /// The caller wants to know when the guest can take an interrupt.
    window_wanted: bool,
    /// The caller wants to know when the guest writes CR8.
    priority_exit_wanted: bool,
    /// The next entry flushes this guest's translations.
    flush: bool,
    /// The processor has shut down, and its state is undefined.
    shut_down: bool,
}

/// What an entry began with.
struct Entry {
    rip: u64,
    shadow: bool,
    /// On QEMU's TCG: the first rule of VMRUN that the state broke. After an entry that it refuses, the hypervisor's own
    /// state may be in the control block.
    broken_rule: Option<&'static str>,
    /// What it delivered.
    injected: Option<Event>,
}

impl<W: WorldSwitch> SvmVirtualCpu<W> {
    pub(super) fn new(
        world: W,
        frames: &mut dyn FrameSource,
        capabilities: Capabilities,
        address_space: u32,
        nested_root: HostPhys,
    ) -> Result<Self, SvmError> {
        let mut vmcb: Region<Vmcb> = Region::allocate(frames, "virtual machine control block")?;
        let mut io_map: Region<IoPermissionMap> = Region::allocate(frames, "I/O permission map")?;
        let mut msr_map: Region<MsrPermissionMap> = Region::allocate(frames, "MSR permission map")?;
        io_map.intercept_all();
        msr_map.intercept_all_but_switched();
        let (io_base, msr_base) = (io_map.physical(), msr_map.physical());
        initial::set_control(&mut vmcb.control, address_space, io_base, msr_base, nested_root);
        let mut cpu = Self {
            world,
            vmcb,
            io_map,
            capabilities,
            registers: Registers::default(),
            pending: None,
            interrupt: None,
            offer: None,
            offer_taken: false,
            nmi_waiting: false,
            nmi_blocked: false,
            window_wanted: false,
            priority_exit_wanted: false,
            // The address space id may have been another guest's before the machine was started again.
            flush: true,
            shut_down: false,
        };
        cpu.start(Start::StartupInterrupt { vector: 0 });
        Ok(cpu)
    }

    /// One entry and exit.
    fn enter(&mut self, virtual_interrupt: VirtualInterrupt, iret_exits: bool) -> Entry {
        let injected = self.pending.take();
        let flush_control = match (self.flush, self.capabilities.flush_by_asid) {
            (false, _) => TLB_FLUSH_NOTHING,
            (true, false) => TLB_FLUSH_ALL,
            (true, true) => TLB_FLUSH_ADDRESS_SPACE,
        };
        let Vmcb { control, save, .. } = &mut *self.vmcb;
        control.event_injection = injected.map_or(0, injection::encode);
        if injected.is_some() {
            // The handler begins without the shadow that its event ended.
            control.interrupt_state &= !INTERRUPT_SHADOW;
        }
        control.tlb_control = flush_control;
        control.clean_bits = 0;
        virtual_interrupt.arm(control);
        // QEMU's TCG does not survive that CR8 is written while a virtual interrupt is pending: it takes it for a change
        // from another thread, and ends. There the write is made with none pending.
        let fragile = self.capabilities.is_tcg && virtual_interrupt != VirtualInterrupt::None;
        control.intercept_cr_write = if self.priority_exit_wanted || fragile { CR8 } else { 0 };
        if iret_exits {
            control.intercept_instructions |= intercept::IRET;
        }
        (save.rax, save.rsp) = (self.registers.rax, self.registers.rsp);
        let (rip, shadow) = (save.rip, control.interrupt_state & INTERRUPT_SHADOW != 0);
        let capabilities = self.capabilities;
        let broken_rule = capabilities
            .is_tcg
            .then(|| consistency_errors(&self.vmcb, capabilities.physical_address_bits).next())
            .flatten();
        let entry = Entry { rip, shadow, broken_rule, injected };

        self.world.enter(&mut self.vmcb, &mut self.registers);

        let Vmcb { control, save, .. } = &mut *self.vmcb;
        (self.registers.rax, self.registers.rsp) = (save.rax, save.rsp);
        if is_entry_failure(control) {
            // Nothing was delivered. The field is for the check that puts the failure in words: the processor has
            // cleared it.
            control.event_injection = injected.map_or(0, injection::encode);
            self.pending = injected;
        } else {
            self.flush = false;
            let mut taken = virtual_interrupt.was_taken(control);
            if taken {
                self.interrupt = None;
            }
            match injection::interrupted(control.exit_interrupt_info, injected) {
                Some(Event::Interrupt(vector)) => {
                    // QEMU's TCG clears V_IRQ only at the end of a delivery.
                    taken = true;
                    self.interrupt = Some(vector);
                }
                event => self.pending = event,
            }
            if taken && matches!(virtual_interrupt, VirtualInterrupt::Offer(_)) {
                (self.offer, self.offer_taken) = (None, true);
            }
            self.nmi_blocked |= injected == Some(Event::Nmi) && self.pending != injected;
        }
        VirtualInterrupt::disarm(control);
        shadow::restore(&mut self.vmcb, &entry);
        entry
    }

    fn decode(&mut self) -> Exit {
        let exit = decode(&self.vmcb, &self.registers, self.capabilities.physical_address_bits);
        match exit {
            Exit::InterruptWindow => self.window_wanted = false,
            Exit::Shutdown => self.shut_down = true,
            _ => {}
        }
        exit
    }

    fn run_guest(&mut self) -> Exit {
        let mut at_iret = false;
        loop {
            if self.shut_down {
                return Exit::Shutdown;
            }
            let nmi = self.offer_nmi();
            let virtual_interrupt = self.virtual_interrupt(at_iret);
            let iret_exits = nmi || !at_iret && (self.nmi_blocked || self.nmi_waiting);
            let entry = self.enter(virtual_interrupt, iret_exits);
            if refused_write::is_one(&self.vmcb, &entry, self.capabilities.is_tcg) {
                self.answer_refused_write(&entry);
                continue;
            }
            let exit_code = self.vmcb.control.exit_code;
            at_iret = exit_code == exit_code::IRET;
            if at_iret && self.nmi_blocked {
                // It ends the handler of an NMI, and goes on by itself, unless another waits.
                self.nmi_blocked = false;
                at_iret = !self.nmi_waiting;
                if let Some(exit) = self.step_to_next_nmi() {
                    return exit;
                }
                continue;
            }
            if exit_code == exit_code::CR8_WRITE {
                // The write is the guest's to make: once it is made, whoever asked looks at the priorities again.
                self.request_priority_exit(false);
                return self.step_out_of_shadow().unwrap_or(Exit::InterruptWindow);
            }
            // The shadow that kept an interrupt waiting is over: the next entry delivers it.
            let interrupt_can_go = exit_code == exit_code::VINTR && self.interrupt.or(self.offer).is_some();
            if shadow::was_ignored(&self.vmcb, &entry) {
                if let Some(exit) = self.step_out_of_shadow() {
                    return exit;
                }
            } else if !(at_iret || interrupt_can_go) {
                let exit = self.decode();
                return match (exit, entry.broken_rule) {
                    (Exit::EntryFailed(failure), Some(rule)) => {
                        Exit::EntryFailed(EntryFailure::new(failure.code, core::iter::once(rule)))
                    }
                    _ => exit,
                };
            }
        }
    }

    /// What is added to the time-stamp counter that the guest reads.
    #[cfg(test)]
    pub(crate) fn time_stamp_offset(&self) -> u64 {
        self.vmcb.control.tsc_offset
    }

    fn raise(&mut self, vector: u8, error_code: Option<u32>) {
        match combine(self.pending, vector, error_code) {
            Combined::Deliver(event) => {
                if matches!(event, Event::Exception { vector, .. } if is_fault(vector)) {
                    self.vmcb.save.rflags |= RFLAGS_RESUME;
                }
                self.pending = Some(event);
            }
            Combined::Shutdown => self.shut_down = true,
        }
    }

    fn in_shadow(&self) -> bool {
        self.vmcb.control.interrupt_state & INTERRUPT_SHADOW != 0
    }
}
