//! What a control block begins with.

use crate::vcpu::page_attribute_table::PAT_RESET;
use crate::vcpu::svm::spec::vmcb::{ControlArea, EFER_SVME, NESTED_PAGING, StateSaveArea, TLB_FLUSH_NOTHING};
use crate::vcpu::svm::spec::{intercept, interrupt_control};
use crate::vcpu::{DescriptorTable, InitialState, Segment, SegmentAttributes, event};
use addr::HostPhys;

/// DR6 and DR7 after reset.
const DR6_RESET: u64 = 0xffff_0ff0;
const DR7_RESET: u64 = 0x400;
/// The exception that a program causes with misaligned data.
const ALIGNMENT_CHECK: u8 = 17;

/// Exceptions that exit. Machine checks are the hypervisor's. Debug exceptions and alignment checks can follow each
/// other without end while they are delivered, and no interrupt would get in between.
pub const INTERCEPTED_EXCEPTIONS: u32 = 1 << event::MACHINE_CHECK | 1 << event::DEBUG | 1 << ALIGNMENT_CHECK;

/// Events and instructions that exit. VINTR and IRET are set and cleared entry by entry.
pub const INTERCEPTED: u32 = intercept::INTR
    | intercept::NMI
    | intercept::SMI
    | intercept::INIT
    | intercept::RDPMC
    | intercept::CPUID
    | intercept::INVD
    | intercept::HLT
    | intercept::INVLPGA
    | intercept::IOIO_PROT
    | intercept::MSR_PROT
    | intercept::TASK_SWITCH
    | intercept::FERR_FREEZE
    | intercept::SHUTDOWN;

/// More of them: the extension's own instructions, and those that the guest is not offered.
pub const INTERCEPTED_2: u32 = intercept::VMRUN
    | intercept::VMMCALL
    | intercept::VMLOAD
    | intercept::VMSAVE
    | intercept::STGI
    | intercept::CLGI
    | intercept::SKINIT
    | intercept::MONITOR
    | intercept::MWAIT
    | intercept::MWAIT_CONDITIONAL
    | intercept::XSETBV
    | intercept::RDPRU;

/// Sets the control area of a zeroed block up.
pub fn set_control(
    control: &mut ControlArea,
    address_space: u32,
    io_map: HostPhys,
    msr_map: HostPhys,
    nested_root: HostPhys,
) {
    control.intercept_exceptions = INTERCEPTED_EXCEPTIONS;
    control.intercept_instructions = INTERCEPTED;
    control.intercept_instructions_2 = INTERCEPTED_2;
    control.iopm_base_pa = io_map.as_u64();
    control.msrpm_base_pa = msr_map.as_u64();
    control.asid = address_space;
    control.tlb_control = TLB_FLUSH_NOTHING;
    control.interrupt_control = interrupt_control::MASKING;
    control.nested_control = NESTED_PAGING;
    control.nested_cr3 = nested_root.as_u64();
}

/// Sets the guest's state to `state`, with everything else as after reset. RAX and RSP are taken from the general
/// registers at every entry.
pub fn set_state(save: &mut StateSaveArea, state: &InitialState) {
    let table = |DescriptorTable { base, limit }| Segment {
        selector: 0,
        attributes: SegmentAttributes::default(),
        limit: limit.into(),
        base,
    };
    save.cs = state.code;
    (save.ss, save.ds, save.es, save.fs, save.gs) = (state.data, state.data, state.data, state.data, state.data);
    (save.tr, save.ldtr) = (state.task, state.local_table);
    (save.gdtr, save.idtr) = (table(state.global_table), table(state.interrupt_table));
    save.cpl = 0;
    // The guest does not see the bit, and the processor refuses to run a guest without it.
    save.efer = state.efer | EFER_SVME;
    (save.cr0, save.cr2, save.cr3, save.cr4) = (state.cr0, 0, state.cr3, state.cr4);
    (save.dr6, save.dr7) = (DR6_RESET, DR7_RESET);
    (save.rflags, save.rip) = (state.rflags, state.rip);
    (save.star, save.lstar, save.cstar, save.sfmask, save.kernel_gs_base) = (0, 0, 0, 0, 0);
    (save.sysenter_cs, save.sysenter_esp, save.sysenter_eip) = (0, 0, 0);
    save.g_pat = PAT_RESET;
    save.debug_control = 0;
}
