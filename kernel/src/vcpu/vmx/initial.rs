//! What a control structure begins with.

use crate::vcpu::page_attribute_table::PAT_RESET;
use crate::vcpu::vmx::bitmap::MsrArea;
use crate::vcpu::vmx::control_registers::ControlRegister;
use crate::vcpu::vmx::controls::Controls;
use crate::vcpu::vmx::processor::Processor;
use crate::vcpu::vmx::spec::field::{self, SegmentFields};
use crate::vcpu::{InitialState, Segment, SegmentAttributes, event};
use addr::HostPhys;

const DR7_RESET: u64 = 0x400;
/// The exception that a program causes with misaligned data.
const ALIGNMENT_CHECK: u8 = 17;

/// Exceptions that exit. Machine checks are the hypervisor's. Debug exceptions and alignment checks can follow each
/// other without end while they are delivered, and no interrupt would get in between.
pub const INTERCEPTED_EXCEPTIONS: u32 = 1 << event::MACHINE_CHECK | 1 << event::DEBUG | 1 << ALIGNMENT_CHECK;

/// Where the structures are that the control structure points to.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// I/O bitmaps, two frames.
    pub io_bitmaps: HostPhys,
    /// MSR bitmaps.
    pub msr_bitmaps: HostPhys,
    /// The area that exits store to and entries load from.
    pub msr_area: HostPhys,
    /// Virtual-APIC page.
    pub virtual_apic: HostPhys,
}

/// Writes the controls.
pub fn set_controls(vmcs: &mut impl Processor, controls: &Controls) {
    vmcs.set(field::PIN_BASED_CONTROLS, controls.pin.bits());
    vmcs.set(field::PRIMARY_CONTROLS, controls.primary.bits());
    vmcs.set(field::SECONDARY_CONTROLS, controls.secondary.bits());
    vmcs.set(field::EXIT_CONTROLS, controls.exit.bits());
    vmcs.set(field::ENTRY_CONTROLS, controls.entry.bits());
}

/// Writes everything that the controls need beside themselves, but how many registers are switched by way of the area.
pub fn set_execution(vmcs: &mut impl Processor, places: &Places, virtual_processor: Option<u16>) {
    vmcs.set(field::EXCEPTION_BITMAP, INTERCEPTED_EXCEPTIONS);
    vmcs.set(field::PAGE_FAULT_ERROR_CODE_MASK, 0);
    vmcs.set(field::PAGE_FAULT_ERROR_CODE_MATCH, 0);
    vmcs.set(field::CR3_TARGET_COUNT, 0);
    vmcs.set(field::IO_BITMAP_A, places.io_bitmaps.as_u64());
    vmcs.set(field::IO_BITMAP_B, places.io_bitmaps.as_u64() + 4096);
    vmcs.set(field::MSR_BITMAPS, places.msr_bitmaps.as_u64());
    for field in [field::EXIT_MSR_STORE_ADDRESS, field::ENTRY_MSR_LOAD_ADDRESS] {
        vmcs.set(field, places.msr_area.as_u64());
    }
    vmcs.set(field::EXIT_MSR_LOAD_ADDRESS, places.msr_area.as_u64() + MsrArea::HOST_OFFSET);
    vmcs.set(field::VIRTUAL_APIC_ADDRESS, places.virtual_apic.as_u64());
    vmcs.set(field::TPR_THRESHOLD, 0);
    vmcs.set(field::TSC_OFFSET, 0);
    vmcs.set(field::VMCS_LINK_POINTER, u64::MAX);
    if let Some(identifier) = virtual_processor {
        vmcs.set(field::VIRTUAL_PROCESSOR_IDENTIFIER, identifier);
    }
}

/// Sets the guest's state to `state`, with everything else as after reset. RSP is taken from the general registers at
/// every entry.
pub fn set_state(vmcs: &mut impl Processor, state: &InitialState, cr0: &ControlRegister, cr4: &ControlRegister) {
    set_segment(vmcs, field::GUEST_CS, state.code);
    for data in [field::GUEST_ES, field::GUEST_SS, field::GUEST_DS, field::GUEST_FS, field::GUEST_GS] {
        set_segment(vmcs, data, state.data);
    }
    set_segment(vmcs, field::GUEST_TR, state.task);
    set_segment(vmcs, field::GUEST_LDTR, state.local_table);
    for (base, limit, table) in [
        (field::GUEST_GDTR_BASE, field::GUEST_GDTR_LIMIT, state.global_table),
        (field::GUEST_IDTR_BASE, field::GUEST_IDTR_LIMIT, state.interrupt_table),
    ] {
        vmcs.set(base, table.base);
        vmcs.set(limit, table.limit.into());
    }
    vmcs.set(field::CR0_MASK, cr0.mask);
    vmcs.set(field::CR0_READ_SHADOW, state.cr0);
    vmcs.set(field::GUEST_CR0, cr0.real(state.cr0));
    vmcs.set(field::CR4_MASK, cr4.mask);
    vmcs.set(field::CR4_READ_SHADOW, state.cr4);
    vmcs.set(field::GUEST_CR4, cr4.real(state.cr4));
    vmcs.set(field::GUEST_CR3, state.cr3);
    for entry in [field::GUEST_PDPTE_0, field::GUEST_PDPTE_1, field::GUEST_PDPTE_2, field::GUEST_PDPTE_3] {
        vmcs.set(entry, 0);
    }
    vmcs.set(field::GUEST_DR7, DR7_RESET);
    vmcs.set(field::GUEST_RFLAGS, state.rflags);
    vmcs.set(field::GUEST_RIP, state.rip);
    vmcs.set(field::GUEST_SYSENTER_CS, 0);
    vmcs.set(field::GUEST_SYSENTER_ESP, 0);
    vmcs.set(field::GUEST_SYSENTER_EIP, 0);
    vmcs.set(field::GUEST_DEBUGCTL, 0);
    vmcs.set(field::GUEST_PAT, PAT_RESET);
    vmcs.set(field::GUEST_EFER, state.efer);
    // Active: the states "halted" and "wait for SIPI" are the hypervisor's business, and not every processor has them.
    vmcs.set(field::GUEST_ACTIVITY, 0);
    vmcs.set(field::GUEST_INTERRUPTIBILITY, 0);
    vmcs.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 0);
    vmcs.set(field::ENTRY_INTERRUPTION_INFORMATION, 0);
}

/// Bits 7:0 of attributes and access rights are the same; above them, access rights have four reserved bits.
const LOWER_ATTRIBUTES: u16 = 0xff;

/// Sets a segment register. One that is not present is unusable, as after loading a null selector.
pub fn set_segment(vmcs: &mut impl Processor, fields: SegmentFields, segment: Segment) {
    let attributes = segment.attributes;
    let rights = u32::from(attributes.0 & LOWER_ATTRIBUTES) | u32::from(attributes.0 & !LOWER_ATTRIBUTES) << 4;
    vmcs.set(fields.selector, segment.selector);
    vmcs.set(fields.limit, segment.limit);
    vmcs.set(fields.base, segment.base);
    let unusable = if attributes.present() { 0 } else { field::ACCESS_RIGHTS_UNUSABLE };
    vmcs.set(fields.access_rights, rights | unusable);
}

/// A segment register.
pub fn segment(vmcs: &impl Processor, fields: SegmentFields) -> Segment {
    let rights = vmcs.get(fields.access_rights);
    let attributes = if rights & field::ACCESS_RIGHTS_UNUSABLE != 0 {
        SegmentAttributes::default()
    } else {
        SegmentAttributes(rights as u16 & LOWER_ATTRIBUTES | (rights >> 4) as u16 & 0xf00)
    };
    Segment {
        selector: vmcs.get(fields.selector),
        attributes,
        limit: vmcs.get(fields.limit),
        base: vmcs.get(fields.base),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcpu::vmx::fake::Script;

    #[test]
    fn a_segment_comes_back_as_it_was_set() {
        let mut vmcs = Script::default();
        let code = Segment { selector: 8, base: 0x1000, limit: 0xffff_ffff, attributes: SegmentAttributes(0xa9b) };
        set_segment(&mut vmcs, field::GUEST_CS, code);
        assert_eq!(vmcs.get(field::GUEST_CS.access_rights), 0xa09b);
        assert_eq!(segment(&vmcs, field::GUEST_CS), code);
    }

    #[test]
    fn a_null_segment_is_unusable() {
        let mut vmcs = Script::default();
        set_segment(&mut vmcs, field::GUEST_FS, Segment::default());
        assert_eq!(vmcs.get(field::GUEST_FS.access_rights), field::ACCESS_RIGHTS_UNUSABLE);
        vmcs.set(field::GUEST_FS.access_rights, 0x1c0f3);
        assert_eq!(segment(&vmcs, field::GUEST_FS).attributes, SegmentAttributes(0));
    }
}
