//! Model-specific registers of the extension, and those that VMLOAD and VMSAVE switch (APM vol. 2, appendix A).

/// Extended features: EFER.
pub const EFER: u32 = 0xc000_0080;
/// VM_CR: who may use the extension.
pub const VM_CR: u32 = 0xc001_0114;
/// VM_CR: EFER.SVME cannot be set.
pub const VM_CR_SVMDIS: u64 = 1 << 4;
/// VM_HSAVE_PA: where VMRUN keeps the host's state.
pub const VM_HSAVE_PA: u32 = 0xc001_0117;

/// Registers that are the guest's own while it runs: entry and exit switch them.
pub const SWITCHED: [u32; 10] = [
    0x0000_0174, // SYSENTER_CS
    0x0000_0175, // SYSENTER_ESP
    0x0000_0176, // SYSENTER_EIP
    0xc000_0081, // STAR
    0xc000_0082, // LSTAR
    0xc000_0083, // CSTAR
    0xc000_0084, // SFMASK
    0xc000_0100, // FS.base
    0xc000_0101, // GS.base
    0xc000_0102, // KernelGSbase
];
