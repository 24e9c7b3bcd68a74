//! Intercept bits (APM vol. 2, appendix B, table B-1).

/// 00Ch: physical maskable interrupts.
pub const INTR: u32 = 1;
/// 00Ch: physical non-maskable interrupts.
pub const NMI: u32 = 1 << 1;
/// 00Ch: system-management interrupts.
pub const SMI: u32 = 1 << 2;
/// 00Ch: INIT.
pub const INIT: u32 = 1 << 3;
/// 00Ch: virtual interrupts.
pub const VINTR: u32 = 1 << 4;
/// 00Ch: RDPMC.
pub const RDPMC: u32 = 1 << 15;
/// 00Ch: CPUID.
pub const CPUID: u32 = 1 << 18;
/// 00Ch: IRET.
pub const IRET: u32 = 1 << 20;
/// 00Ch: INVD.
pub const INVD: u32 = 1 << 22;
/// 00Ch: HLT.
pub const HLT: u32 = 1 << 24;
/// 00Ch: INVLPGA.
pub const INVLPGA: u32 = 1 << 26;
/// 00Ch: port accesses that the I/O permission map says.
pub const IOIO_PROT: u32 = 1 << 27;
/// 00Ch: MSR accesses that the MSR permission map says.
pub const MSR_PROT: u32 = 1 << 28;
/// 00Ch: task switches.
pub const TASK_SWITCH: u32 = 1 << 29;
/// 00Ch: freezing for a legacy floating-point error.
pub const FERR_FREEZE: u32 = 1 << 30;
/// 00Ch: shutdown.
pub const SHUTDOWN: u32 = 1 << 31;

/// 010h: VMRUN, which must be intercepted.
pub const VMRUN: u32 = 1;
/// 010h: VMMCALL.
pub const VMMCALL: u32 = 1 << 1;
/// 010h: VMLOAD.
pub const VMLOAD: u32 = 1 << 2;
/// 010h: VMSAVE.
pub const VMSAVE: u32 = 1 << 3;
/// 010h: STGI.
pub const STGI: u32 = 1 << 4;
/// 010h: CLGI.
pub const CLGI: u32 = 1 << 5;
/// 010h: SKINIT.
pub const SKINIT: u32 = 1 << 6;
/// 010h: MONITOR.
pub const MONITOR: u32 = 1 << 10;
/// 010h: MWAIT.
pub const MWAIT: u32 = 1 << 11;
/// 010h: MWAIT while armed.
pub const MWAIT_CONDITIONAL: u32 = 1 << 12;
/// 010h: XSETBV.
pub const XSETBV: u32 = 1 << 13;
/// 010h: RDPRU.
pub const RDPRU: u32 = 1 << 14;
