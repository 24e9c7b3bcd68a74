//! The engine-neutral interface, on a control block.

use super::*;
use crate::vcpu::svm::spec::vmcb::EFER_SVME;
use crate::vcpu::{ControlState, GeneralProtection, NotNow, Segment, SegmentName};
use addr::Vector;

const EFER_LONG_MODE_ENABLE: u64 = 1 << 8;
const EFER_LONG_MODE_ACTIVE: u64 = 1 << 10;
/// SCE, LME, LMA and NXE: what a guest may set. It is shown no feature that has another bit.
const EFER_OFFERED: u64 = 1 | EFER_LONG_MODE_ENABLE | EFER_LONG_MODE_ACTIVE | 1 << 11;
const CR0_PAGING: u64 = 1 << 31;

impl<W: WorldSwitch> VirtualCpu for SvmVirtualCpu<W> {
    fn run(&mut self) -> Exit {
        self.run_guest()
    }

    fn start(&mut self, start: Start) {
        let state = start.initial_state();
        initial::set_state(&mut self.vmcb.save, &state);
        self.registers = state.registers;
        self.vmcb.control.interrupt_state = 0;
        self.vmcb.control.interrupt_control = interrupt_control::MASKING;
        self.vmcb.control.exit_code = 0;
        self.vmcb.control.next_rip = 0;
        (self.pending, self.interrupt, self.window_wanted, self.shut_down) = (None, None, false, false);
        (self.offer, self.offer_taken) = (None, false);
        (self.nmi_waiting, self.nmi_blocked, self.priority_exit_wanted) = (false, false, false);
        self.flush = true;
    }

    fn registers(&self) -> &Registers {
        &self.registers
    }

    fn registers_mut(&mut self) -> &mut Registers {
        &mut self.registers
    }

    fn rip(&self) -> u64 {
        self.vmcb.save.rip
    }

    fn set_rip(&mut self, rip: u64) {
        self.vmcb.save.rip = rip;
    }

    fn control(&self) -> ControlState {
        let save = &self.vmcb.save;
        ControlState {
            cr0: save.cr0,
            cr2: save.cr2,
            cr3: save.cr3,
            cr4: save.cr4,
            efer: save.efer & !EFER_SVME,
            rflags: save.rflags,
            privilege_level: save.cpl & 3,
        }
    }

    fn set_rflags(&mut self, rflags: u64) {
        self.vmcb.save.rflags = rflags;
    }

    fn segment(&self, name: SegmentName) -> Segment {
        let save = &self.vmcb.save;
        match name {
            SegmentName::Es => save.es,
            SegmentName::Cs => save.cs,
            SegmentName::Ss => save.ss,
            SegmentName::Ds => save.ds,
            SegmentName::Fs => save.fs,
            SegmentName::Gs => save.gs,
            SegmentName::Ldtr => save.ldtr,
            SegmentName::Tr => save.tr,
        }
    }

    fn next_rip(&self) -> Option<u64> {
        next_rip(&self.vmcb.control, self.capabilities.next_rip)
    }

    fn advance_to(&mut self, rip: u64) {
        let rip = if self.mode() == Mode::Long { rip } else { rip & 0xffff_ffff };
        let Vmcb { control, save, .. } = &mut *self.vmcb;
        save.rip = rip;
        save.rflags &= !RFLAGS_RESUME;
        control.interrupt_state &= !INTERRUPT_SHADOW;
        if save.rflags & RFLAGS_TRAP != 0 {
            save.dr6 |= DR6_SINGLE_STEP;
            self.raise(DEBUG, None);
        }
    }

    fn can_take_interrupt(&self) -> bool {
        self.vmcb.save.rflags & RFLAGS_INTERRUPT != 0 && !self.in_shadow() && self.pending_event().is_none()
    }

    fn inject_interrupt(&mut self, vector: Vector) -> Result<(), NotNow> {
        if !self.can_take_interrupt() {
            return Err(NotNow);
        }
        self.interrupt = Some(vector);
        Ok(())
    }

    fn offer_interrupt(&mut self, vector: Vector) -> bool {
        (self.offer, self.offer_taken) = (Some(vector), false);
        true
    }

    fn took_offer(&mut self) -> bool {
        self.offer = None;
        core::mem::replace(&mut self.offer_taken, false)
    }

    fn inject_exception(&mut self, vector: u8, error_code: Option<u32>) {
        self.raise(vector, error_code);
    }

    fn inject_page_fault(&mut self, address: u64, error_code: u32) {
        self.vmcb.save.cr2 = address;
        self.raise(crate::vcpu::event::PAGE_FAULT, Some(error_code));
    }

    fn inject_nmi(&mut self) {
        self.nmi_waiting = true;
    }

    fn pending_event(&self) -> Option<Event> {
        self.pending.or(self.interrupt.map(Event::Interrupt))
    }

    fn take_pending_event(&mut self) -> Option<Event> {
        self.pending.take().or_else(|| self.interrupt.take().map(Event::Interrupt))
    }

    fn request_interrupt_window(&mut self, wanted: bool) {
        self.window_wanted = wanted;
    }

    fn request_priority_exit(&mut self, wanted: bool) {
        self.priority_exit_wanted = wanted;
    }

    fn task_priority(&self) -> u8 {
        (self.vmcb.control.interrupt_control & interrupt_control::TASK_PRIORITY) as u8
    }

    fn set_task_priority(&mut self, priority: u8) {
        let control = &mut self.vmcb.control.interrupt_control;
        *control =
            *control & !interrupt_control::TASK_PRIORITY | u64::from(priority) & interrupt_control::TASK_PRIORITY;
    }

    fn write_efer(&mut self, value: u64) -> Result<(), GeneralProtection> {
        let save = &mut self.vmcb.save;
        let changed = value ^ save.efer;
        if value & !EFER_OFFERED != 0 || save.cr0 & CR0_PAGING != 0 && changed & EFER_LONG_MODE_ENABLE != 0 {
            return Err(GeneralProtection);
        }
        // LMA is the processor's: it follows LME and CR0.PG.
        save.efer = value & !EFER_LONG_MODE_ACTIVE | save.efer & EFER_LONG_MODE_ACTIVE | EFER_SVME;
        Ok(())
    }

    fn page_attribute_table(&self) -> u64 {
        self.vmcb.save.g_pat
    }

    fn set_page_attribute_table(&mut self, value: u64) -> Result<(), GeneralProtection> {
        if !is_page_attribute_table(value) {
            return Err(GeneralProtection);
        }
        self.vmcb.save.g_pat = value;
        Ok(())
    }

    fn set_time_stamp_offset(&mut self, offset: u64) {
        self.vmcb.control.tsc_offset = offset;
    }

    fn set_port_passed(&mut self, port: u16, passed: bool) {
        self.io_map.set_passed(port, passed);
    }

    fn set_nested_root(&mut self, root: HostPhys) {
        self.vmcb.control.nested_cr3 = root.as_u64();
        self.flush = true;
    }

    fn flush_translations(&mut self) {
        self.flush = true;
    }
}
