//! The virtual machine control block (APM vol. 2, appendix B).

use crate::vcpu::Segment;
use core::mem::{offset_of, size_of};

/// The control block of a guest: one 4 KiB frame, in write-back memory.
#[derive(Clone, Debug)]
#[repr(C, align(4096))]
pub struct Vmcb {
    /// What the guest may do, and what became of it.
    pub control: ControlArea,
    /// The guest's state.
    pub save: StateSaveArea,
    reserved: [u8; 0x780],
}

/// The control area: table B-1.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct ControlArea {
    /// 000h: exits for reads of CR0 to CR15, one bit each.
    pub intercept_cr_read: u16,
    /// 002h: exits for writes of CR0 to CR15.
    pub intercept_cr_write: u16,
    /// 004h: exits for reads of DR0 to DR15.
    pub intercept_dr_read: u16,
    /// 006h: exits for writes of DR0 to DR15.
    pub intercept_dr_write: u16,
    /// 008h: exits for exceptions, one bit a vector.
    pub intercept_exceptions: u32,
    /// 00Ch: exits for interrupts and instructions, see [`intercept`](super::intercept).
    pub intercept_instructions: u32,
    /// 010h: more of them.
    pub intercept_instructions_2: u32,
    /// 014h: more of them.
    pub intercept_instructions_3: u32,
    reserved_018: [u8; 0x24],
    /// 03Ch: PAUSE filter threshold.
    pub pause_filter_threshold: u16,
    /// 03Eh: PAUSE filter count.
    pub pause_filter_count: u16,
    /// 040h: host-physical address of the I/O permission map, three frames.
    pub iopm_base_pa: u64,
    /// 048h: host-physical address of the MSR permission map, two frames.
    pub msrpm_base_pa: u64,
    /// 050h: added to the time-stamp counter that the guest reads.
    pub tsc_offset: u64,
    /// 058h: the guest's address space id; 0 is the host's.
    pub asid: u32,
    /// 05Ch: what to flush at entry, bits 7:0.
    pub tlb_control: u32,
    /// 060h: virtual interrupts, see [`interrupt_control`](super::interrupt_control).
    pub interrupt_control: u64,
    /// 068h: bit 0, the guest is in an interrupt shadow; bit 1, the guest's RFLAGS.IF (written at exit).
    pub interrupt_state: u64,
    /// 070h: why the guest exited.
    pub exit_code: u64,
    /// 078h: depends on the exit.
    pub exit_info_1: u64,
    /// 080h: depends on the exit.
    pub exit_info_2: u64,
    /// 088h: the event whose delivery the exit interrupted, in the form of `event_injection`.
    pub exit_interrupt_info: u64,
    /// 090h: bit 0, nested paging.
    pub nested_control: u64,
    /// 098h: AVIC's APIC base address.
    pub avic_apic_bar: u64,
    /// 0A0h: the guest-hypervisor communication block.
    pub ghcb: u64,
    /// 0A8h: the event that entry delivers, see [`event`](super::event).
    pub event_injection: u64,
    /// 0B0h: host-physical address of the nested page tables.
    pub nested_cr3: u64,
    /// 0B8h: bit 0, last-branch records are virtual; bit 1, VMLOAD and VMSAVE are virtual.
    pub virtualization_control: u64,
    /// 0C0h: which parts of the block are as they were at the last exit; 0: none.
    pub clean_bits: u64,
    /// 0C8h: the RIP after the instruction that exited, with NRIPS.
    pub next_rip: u64,
    /// 0D0h: how many bytes the processor fetched of it, with decode assists.
    pub fetched_bytes: u8,
    /// 0D1h: the bytes.
    pub instruction_bytes: [u8; 15],
    /// 0E0h: AVIC's backing page.
    pub avic_backing_page: u64,
    reserved_0e8: u64,
    /// 0F0h: AVIC's logical table.
    pub avic_logical_table: u64,
    /// 0F8h: AVIC's physical table.
    pub avic_physical_table: u64,
    reserved_100: [u8; 0x300],
}

/// The state save area, at 400h of the block: table B-2.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct StateSaveArea {
    /// 400h.
    pub es: Segment,
    /// 410h.
    pub cs: Segment,
    /// 420h.
    pub ss: Segment,
    /// 430h.
    pub ds: Segment,
    /// 440h (VMLOAD and VMSAVE).
    pub fs: Segment,
    /// 450h (VMLOAD and VMSAVE).
    pub gs: Segment,
    /// 460h: base and limit count.
    pub gdtr: Segment,
    /// 470h (VMLOAD and VMSAVE).
    pub ldtr: Segment,
    /// 480h: base and limit count.
    pub idtr: Segment,
    /// 490h (VMLOAD and VMSAVE).
    pub tr: Segment,
    reserved_4a0: [u8; 0x2b],
    /// 4CBh: the current privilege level.
    pub cpl: u8,
    reserved_4cc: u32,
    /// 4D0h.
    pub efer: u64,
    reserved_4d8: [u8; 0x70],
    /// 548h.
    pub cr4: u64,
    /// 550h.
    pub cr3: u64,
    /// 558h.
    pub cr0: u64,
    /// 560h.
    pub dr7: u64,
    /// 568h.
    pub dr6: u64,
    /// 570h.
    pub rflags: u64,
    /// 578h.
    pub rip: u64,
    reserved_580: [u8; 0x58],
    /// 5D8h.
    pub rsp: u64,
    /// 5E0h: shadow stacks.
    pub s_cet: u64,
    /// 5E8h.
    pub ssp: u64,
    /// 5F0h.
    pub interrupt_ssp_table: u64,
    /// 5F8h.
    pub rax: u64,
    /// 600h (VMLOAD and VMSAVE, as the next seven).
    pub star: u64,
    /// 608h.
    pub lstar: u64,
    /// 610h.
    pub cstar: u64,
    /// 618h.
    pub sfmask: u64,
    /// 620h.
    pub kernel_gs_base: u64,
    /// 628h.
    pub sysenter_cs: u64,
    /// 630h.
    pub sysenter_esp: u64,
    /// 638h.
    pub sysenter_eip: u64,
    /// 640h.
    pub cr2: u64,
    reserved_648: [u8; 0x20],
    /// 668h: the guest's page attribute table, with nested paging.
    pub g_pat: u64,
    /// 670h: DEBUGCTL.
    pub debug_control: u64,
    /// 678h: last-branch records.
    pub last_branch: [u64; 4],
    reserved_698: [u8; 0x1e8],
}

/// `interrupt_state`: one instruction more, then interrupts.
pub const INTERRUPT_SHADOW: u64 = 1;
/// `nested_control`: guest-physical addresses are translated by the tables at `nested_cr3`.
pub const NESTED_PAGING: u64 = 1;
/// `tlb_control`: flush nothing.
pub const TLB_FLUSH_NOTHING: u32 = 0;
/// `tlb_control`: flush all address spaces.
pub const TLB_FLUSH_ALL: u32 = 1;
/// `tlb_control`: flush this guest's address space (with FlushByAsid only).
pub const TLB_FLUSH_ADDRESS_SPACE: u32 = 3;
/// `efer`: must be set in every guest.
pub const EFER_SVME: u64 = 1 << 12;

macro_rules! assert_offsets {
    ($structure:ty, $start:literal: $($field:ident = $offset:literal),* $(,)?) => {
        $(const _: () = assert!(offset_of!($structure, $field) + $start == $offset);)*
    };
}

assert_offsets!(ControlArea, 0: intercept_exceptions = 0x008, intercept_instructions = 0x00c,
    intercept_instructions_2 = 0x010, pause_filter_threshold = 0x03c, iopm_base_pa = 0x040, msrpm_base_pa = 0x048,
    tsc_offset = 0x050, asid = 0x058, tlb_control = 0x05c, interrupt_control = 0x060, interrupt_state = 0x068,
    exit_code = 0x070, exit_info_1 = 0x078, exit_info_2 = 0x080, exit_interrupt_info = 0x088, nested_control = 0x090,
    avic_apic_bar = 0x098, ghcb = 0x0a0, event_injection = 0x0a8, nested_cr3 = 0x0b0, virtualization_control = 0x0b8,
    clean_bits = 0x0c0, next_rip = 0x0c8, fetched_bytes = 0x0d0, instruction_bytes = 0x0d1, avic_backing_page = 0x0e0,
    avic_logical_table = 0x0f0, avic_physical_table = 0x0f8);
assert_offsets!(StateSaveArea, 0x400: es = 0x400, cs = 0x410, ss = 0x420, ds = 0x430, fs = 0x440, gs = 0x450,
    gdtr = 0x460, ldtr = 0x470, idtr = 0x480, tr = 0x490, cpl = 0x4cb, efer = 0x4d0, cr4 = 0x548, cr3 = 0x550,
    cr0 = 0x558, dr7 = 0x560, dr6 = 0x568, rflags = 0x570, rip = 0x578, rsp = 0x5d8, s_cet = 0x5e0, ssp = 0x5e8,
    interrupt_ssp_table = 0x5f0, rax = 0x5f8, star = 0x600, lstar = 0x608, cstar = 0x610, sfmask = 0x618,
    kernel_gs_base = 0x620, sysenter_cs = 0x628, sysenter_esp = 0x630, sysenter_eip = 0x638, cr2 = 0x640,
    g_pat = 0x668, debug_control = 0x670, last_branch = 0x678);
const _: () = assert!(size_of::<Segment>() == 16);
const _: () = assert!(offset_of!(Segment, attributes) == 2 && offset_of!(Segment, limit) == 4);
const _: () = assert!(offset_of!(Segment, base) == 8);
const _: () = assert!(size_of::<ControlArea>() == 0x400 && offset_of!(Vmcb, save) == 0x400);
const _: () = assert!(size_of::<StateSaveArea>() == 0x480 && size_of::<Vmcb>() == 4096);
