//! The engine-neutral interface, on a control structure.

use super::*;
use crate::vcpu::event::PAGE_FAULT;
use crate::vcpu::instruction::LONGEST_INSTRUCTION;
use crate::vcpu::page_attribute_table::is_page_attribute_table;
use crate::vcpu::vmx::control_registers::cr0;
use crate::vcpu::vmx::spec::control::EntryControls;
use crate::vcpu::vmx::spec::msr;
use crate::vcpu::{ApicVirtualization, ControlState, GeneralProtection, NotNow, Segment, SegmentName};

const EFER_LONG_MODE_ENABLE: u64 = 1 << 8;
const EFER_LONG_MODE_ACTIVE: u64 = 1 << 10;
/// SCE, LME, LMA and NXE: what a guest may set. It is shown no feature that has another bit.
const EFER_OFFERED: u64 = 1 | EFER_LONG_MODE_ENABLE | EFER_LONG_MODE_ACTIVE | 1 << 11;
/// DEBUGCTL.BTF: RFLAGS.TF traps branches only.
const DEBUGCTL_BRANCHES: u64 = 1 << 1;
/// DR6.BS: the debug exception is a single step's.
const DR6_SINGLE_STEP: u64 = 1 << 14;

impl<P: Processor> VirtualCpu for VmxVirtualCpu<P> {
    fn run(&mut self) -> Exit {
        self.run_guest()
    }

    fn start(&mut self, start: Start) {
        let state = start.initial_state();
        initial::set_state(&mut self.vmcs, &state, &self.cr0, &self.cr4);
        self.msr_area.reset(self.host_speculation_control);
        self.msr_bitmaps.set_passed(msr::SPEC_CTRL, false, false);
        self.msr_bitmaps.set_passed(msr::PRED_CMD, false, false);
        self.switch_speculation_control(false);
        self.registers = state.registers;
        self.written_rsp = state.registers.rsp;
        self.vmcs.set(GUEST_RSP, state.registers.rsp);
        self.cr2 = 0;
        // "IA-32e mode guest" must agree with EFER.LMA at entry. The guest changes both by CR0.PG, and an unrestricted
        // guest's exits put both into the control structure (SDM vol. 3, 28.3.1 and 28.3.2): from here on they agree.
        let mut entry = self.controls.entry;
        entry.set(EntryControls::IA32E_MODE_GUEST, state.efer & EFER_LONG_MODE_ACTIVE != 0);
        self.vmcs.set(ENTRY_CONTROLS, entry.bits());
        self.set_task_priority(0);
        (self.pending, self.waiting, self.next_rip) = (None, None, None);
        self.nmi_waiting = false;
        self.controls.primary.remove(Primary::NMI_WINDOW_EXITING);
        (self.window_wanted, self.priority_exit_wanted, self.shut_down) = (false, false, false);
        self.flush = true;
    }

    fn registers(&self) -> &Registers {
        &self.registers
    }

    fn registers_mut(&mut self) -> &mut Registers {
        &mut self.registers
    }

    fn rip(&self) -> u64 {
        self.vmcs.get(GUEST_RIP)
    }

    fn set_rip(&mut self, rip: u64) {
        self.vmcs.set(GUEST_RIP, rip);
    }

    fn control(&self) -> ControlState {
        let vmcs = &self.vmcs;
        // The privilege level is that of SS, also where SS is unusable (SDM vol. 3, 25.4.1).
        let privilege_level = (vmcs.get(GUEST_SS.access_rights) >> 5) as u8 & 3;
        ControlState {
            cr0: self.cr0.seen(vmcs.get(GUEST_CR0), vmcs.get(CR0_READ_SHADOW)),
            cr2: self.cr2,
            cr3: vmcs.get(GUEST_CR3),
            cr4: self.cr4.seen(vmcs.get(GUEST_CR4), vmcs.get(CR4_READ_SHADOW)),
            efer: vmcs.get(GUEST_EFER),
            rflags: vmcs.get(GUEST_RFLAGS),
            privilege_level,
        }
    }

    fn set_rflags(&mut self, rflags: u64) {
        self.vmcs.set(GUEST_RFLAGS, rflags);
    }

    fn segment(&self, name: SegmentName) -> Segment {
        let fields = match name {
            SegmentName::Es => GUEST_ES,
            SegmentName::Cs => GUEST_CS,
            SegmentName::Ss => GUEST_SS,
            SegmentName::Ds => GUEST_DS,
            SegmentName::Fs => GUEST_FS,
            SegmentName::Gs => GUEST_GS,
            SegmentName::Ldtr => GUEST_LDTR,
            SegmentName::Tr => GUEST_TR,
        };
        initial::segment(&self.vmcs, fields)
    }

    fn next_rip(&self) -> Option<u64> {
        self.next_rip
    }

    fn advance_to(&mut self, rip: u64) {
        // Only outside 64-bit mode does RIP wrap, and only an instruction that begins below 4 GiB can pass it there. With
        // all others the mode, which is half a dozen fields, does not matter.
        let passes = (0..LONGEST_INSTRUCTION as u64).contains(&rip.wrapping_sub(1 << 32));
        let rip = if passes && self.mode() != Mode::Long { rip & 0xffff_ffff } else { rip };
        self.vmcs.set(GUEST_RIP, rip);
        self.clear_interruptibility(SHADOW);
        let flags = self.vmcs.get_at_exit(GUEST_RFLAGS);
        if flags & RFLAGS_RESUME != 0 {
            self.vmcs.set(GUEST_RFLAGS, flags & !RFLAGS_RESUME);
        }
        if flags & RFLAGS_TRAP != 0 && self.vmcs.get(GUEST_DEBUGCTL) & DEBUGCTL_BRANCHES == 0 {
            // Neither the entry nor its event sets DR6.
            let status = self.vmcs.debug_status();
            self.vmcs.set_debug_status(status | DR6_SINGLE_STEP);
            self.raise(DEBUG, None);
        }
    }

    fn can_take_interrupt(&self) -> bool {
        self.pending.is_none() && self.waiting.is_none() && self.takes_interrupts()
    }

    fn inject_interrupt(&mut self, vector: Vector) -> Result<(), NotNow> {
        if !self.can_take_interrupt() {
            return Err(NotNow);
        }
        self.pending = Some(Pending::Event(Event::Interrupt(vector)));
        Ok(())
    }

    fn inject_exception(&mut self, vector: u8, error_code: Option<u32>) {
        self.raise(vector, error_code);
    }

    fn inject_page_fault(&mut self, address: u64, error_code: u32) {
        self.cr2 = address;
        self.raise(PAGE_FAULT, Some(error_code));
    }

    fn inject_nmi(&mut self) {
        self.nmi_waiting = true;
    }

    fn pending_event(&self) -> Option<Event> {
        match self.pending {
            Some(Pending::Event(event)) => Some(event),
            Some(Pending::Software { .. }) => None,
            None => self.waiting.map(Event::Interrupt),
        }
    }

    fn take_pending_event(&mut self) -> Option<Event> {
        let event = self.pending_event();
        if self.pending.take().is_none() {
            self.waiting = None;
        }
        event
    }

    fn request_interrupt_window(&mut self, wanted: bool) {
        self.window_wanted = wanted;
    }

    fn request_priority_exit(&mut self, wanted: bool) {
        self.priority_exit_wanted = wanted;
    }

    fn set_alarm(&mut self, ticks: Option<u64>) -> bool {
        let rate = self.capabilities.preemption_timer_rate;
        // Rounded up: an alarm that is too early costs an exit for nothing.
        let ticks = ticks.map(|ticks| u32::try_from((ticks >> rate).saturating_add(1)).unwrap_or(u32::MAX));
        self.set_preemption_timer(ticks)
    }

    fn pass_deadline_writes(&mut self, passed: bool) -> bool {
        self.msr_bitmaps.set_passed(msr::TSC_DEADLINE, false, passed);
        true
    }

    fn has_speculation_control(&self) -> bool {
        true
    }

    fn pass_speculation_control(&mut self, register: u32) {
        self.msr_bitmaps.set_passed(register, register == msr::SPEC_CTRL, true);
        if register == msr::SPEC_CTRL {
            self.switch_speculation_control(true);
        }
    }

    fn task_priority(&self) -> u8 {
        if self.has_tpr_shadow() {
            (self.virtual_apic.read(TASK_PRIORITY) >> 4) as u8 & 0xf
        } else {
            self.task_priority
        }
    }

    fn set_task_priority(&mut self, priority: u8) {
        self.task_priority = priority & 0xf;
        if self.has_tpr_shadow() {
            self.virtual_apic.write(TASK_PRIORITY, u32::from(priority & 0xf) << 4);
        }
    }

    fn apic_virtualization(&mut self) -> Option<&mut dyn ApicVirtualization> {
        let apic: &mut dyn ApicVirtualization = self.virtualize_apic()?;
        Some(apic)
    }

    fn write_efer(&mut self, value: u64) -> Result<(), GeneralProtection> {
        let old = self.vmcs.get(GUEST_EFER);
        let changed = value ^ old;
        let paging = self.vmcs.get(GUEST_CR0) & cr0::PG != 0;
        if value & !EFER_OFFERED != 0 || paging && changed & EFER_LONG_MODE_ENABLE != 0 {
            return Err(GeneralProtection);
        }
        // LMA is the processor's: it follows LME and CR0.PG.
        self.vmcs.set(GUEST_EFER, value & !EFER_LONG_MODE_ACTIVE | old & EFER_LONG_MODE_ACTIVE);
        Ok(())
    }

    fn page_attribute_table(&self) -> u64 {
        self.vmcs.get(GUEST_PAT)
    }

    fn set_page_attribute_table(&mut self, value: u64) -> Result<(), GeneralProtection> {
        if !is_page_attribute_table(value) {
            return Err(GeneralProtection);
        }
        self.vmcs.set(GUEST_PAT, value);
        Ok(())
    }

    fn set_time_stamp_offset(&mut self, offset: u64) {
        self.vmcs.set(TSC_OFFSET, offset);
    }

    fn set_port_passed(&mut self, port: u16, passed: bool) {
        self.io_bitmaps.set_passed(port, passed);
    }

    fn set_nested_root(&mut self, root: HostPhys) {
        self.ept_pointer = ept::pointer(root);
        self.vmcs.set(EPT_POINTER, self.ept_pointer);
        self.flush = true;
    }

    fn flush_translations(&mut self) {
        self.flush = true;
    }
}
