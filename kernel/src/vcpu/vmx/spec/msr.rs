//! Model-specific registers of the extension, and of what it switches (SDM vol. 3, appendix A; vol. 4).

/// IA32_FEATURE_CONTROL: who may use the extension.
pub const FEATURE_CONTROL: u32 = 0x3a;
/// IA32_FEATURE_CONTROL: the register cannot be written any more.
pub const FEATURE_CONTROL_LOCK: u64 = 1 << 0;
/// IA32_FEATURE_CONTROL: VMXON works outside SMX operation.
pub const FEATURE_CONTROL_VMX: u64 = 1 << 2;

/// IA32_VMX_BASIC.
pub const VMX_BASIC: u32 = 0x480;
/// IA32_VMX_BASIC, bits 30:0: the revision identifier.
pub const BASIC_REVISION: u64 = 0x7fff_ffff;
/// IA32_VMX_BASIC, bit 55: the true-control registers exist.
pub const BASIC_TRUE_CONTROLS: u64 = 1 << 55;
/// IA32_VMX_PINBASED_CTLS.
pub const VMX_PINBASED_CTLS: u32 = 0x481;
/// IA32_VMX_PROCBASED_CTLS.
pub const VMX_PROCBASED_CTLS: u32 = 0x482;
/// IA32_VMX_EXIT_CTLS.
pub const VMX_EXIT_CTLS: u32 = 0x483;
/// IA32_VMX_ENTRY_CTLS.
pub const VMX_ENTRY_CTLS: u32 = 0x484;
/// IA32_VMX_MISC.
pub const VMX_MISC: u32 = 0x485;
/// IA32_VMX_MISC, bits 4:0: the preemption timer counts once for 2 to this power ticks of the time-stamp counter.
pub const MISC_PREEMPTION_TIMER_RATE: u64 = 0x1f;
/// IA32_VMX_CR0_FIXED0: bits that must be one.
pub const VMX_CR0_FIXED0: u32 = 0x486;
/// IA32_VMX_CR0_FIXED1: bits that may be one.
pub const VMX_CR0_FIXED1: u32 = 0x487;
/// IA32_VMX_CR4_FIXED0.
pub const VMX_CR4_FIXED0: u32 = 0x488;
/// IA32_VMX_CR4_FIXED1.
pub const VMX_CR4_FIXED1: u32 = 0x489;
/// IA32_VMX_PROCBASED_CTLS2; exists where the primary controls can switch the secondary ones on.
pub const VMX_PROCBASED_CTLS2: u32 = 0x48b;
/// IA32_VMX_EPT_VPID_CAP; exists where the secondary controls have EPT or VPID.
pub const VMX_EPT_VPID_CAP: u32 = 0x48c;
/// IA32_VMX_TRUE_PINBASED_CTLS.
pub const VMX_TRUE_PINBASED_CTLS: u32 = 0x48d;
/// IA32_VMX_TRUE_PROCBASED_CTLS.
pub const VMX_TRUE_PROCBASED_CTLS: u32 = 0x48e;
/// IA32_VMX_TRUE_EXIT_CTLS.
pub const VMX_TRUE_EXIT_CTLS: u32 = 0x48f;
/// IA32_VMX_TRUE_ENTRY_CTLS.
pub const VMX_TRUE_ENTRY_CTLS: u32 = 0x490;

bitflags::bitflags! {
    /// IA32_VMX_EPT_VPID_CAP.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EptVpid: u64 {
        /// Tables of four levels.
        const FOUR_LEVELS = 1 << 6;
        /// Tables in write-back memory.
        const WRITE_BACK = 1 << 14;
        /// 2 MiB pages.
        const PAGES_2M = 1 << 16;
        /// 1 GiB pages.
        const PAGES_1G = 1 << 17;
        /// INVEPT.
        const INVEPT = 1 << 20;
        /// INVEPT of one EPT pointer.
        const INVEPT_SINGLE_CONTEXT = 1 << 25;
        /// INVEPT of all.
        const INVEPT_ALL_CONTEXTS = 1 << 26;
        /// INVVPID.
        const INVVPID = 1 << 32;
        /// INVVPID of one identifier.
        const INVVPID_SINGLE_CONTEXT = 1 << 41;
        /// INVVPID of all.
        const INVVPID_ALL_CONTEXTS = 1 << 42;
    }
}

/// IA32_SYSENTER_CS.
pub const SYSENTER_CS: u32 = 0x174;
/// IA32_SYSENTER_ESP.
pub const SYSENTER_ESP: u32 = 0x175;
/// IA32_SYSENTER_EIP.
pub const SYSENTER_EIP: u32 = 0x176;
/// IA32_PAT.
pub const PAT: u32 = 0x277;
/// IA32_SPEC_CTRL.
pub const SPEC_CTRL: u32 = 0x48;
/// IA32_PRED_CMD.
pub const PRED_CMD: u32 = 0x49;
/// IA32_TSC_DEADLINE.
pub const TSC_DEADLINE: u32 = 0x6e0;
/// IA32_EFER.
pub const EFER: u32 = 0xc000_0080;
/// IA32_FS_BASE.
pub const FS_BASE: u32 = 0xc000_0100;
/// IA32_GS_BASE.
pub const GS_BASE: u32 = 0xc000_0101;

/// Registers that the control structure has fields for, loaded at entry and stored at exit: the guest's own.
pub const IN_CONTROL_STRUCTURE: [u32; 5] = [SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP, FS_BASE, GS_BASE];

/// Registers that entry loads from an area in memory and exit stores there: the guest's own, and not used by the
/// hypervisor, which has neither system calls nor SWAPGS.
pub const IN_AREA: [u32; 5] = [
    0xc000_0081, // IA32_STAR
    0xc000_0082, // IA32_LSTAR
    0xc000_0083, // IA32_CSTAR
    0xc000_0084, // IA32_FMASK
    0xc000_0102, // IA32_KERNEL_GS_BASE
];
