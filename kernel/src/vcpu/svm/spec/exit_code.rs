//! Intercept exit codes (APM vol. 2, appendix C).

/// MOV to CR8.
pub const CR8_WRITE: u64 = 0x18;
/// 40h to 5Fh: an exception, by vector.
pub const EXCEPTION: u64 = 0x40;
/// The last exception.
pub const EXCEPTION_LAST: u64 = 0x5f;
/// Physical maskable interrupt.
pub const INTR: u64 = 0x60;
/// Physical non-maskable interrupt.
pub const NMI: u64 = 0x61;
/// System-management interrupt.
pub const SMI: u64 = 0x62;
/// INIT.
pub const INIT: u64 = 0x63;
/// The guest is about to take a virtual interrupt.
pub const VINTR: u64 = 0x64;
/// RDPMC.
pub const RDPMC: u64 = 0x6f;
/// CPUID.
pub const CPUID: u64 = 0x72;
/// IRET.
pub const IRET: u64 = 0x74;
/// INVD.
pub const INVD: u64 = 0x76;
/// HLT.
pub const HLT: u64 = 0x78;
/// INVLPGA.
pub const INVLPGA: u64 = 0x7a;
/// IN, OUT, INS, OUTS: EXITINFO1 describes it, EXITINFO2 is the next RIP.
pub const IOIO: u64 = 0x7b;
/// RDMSR (EXITINFO1 = 0), WRMSR (1).
pub const MSR: u64 = 0x7c;
/// Task switch.
pub const TASK_SWITCH: u64 = 0x7d;
/// The processor freezes for a legacy floating-point error.
pub const FERR_FREEZE: u64 = 0x7e;
/// Shutdown.
pub const SHUTDOWN: u64 = 0x7f;
/// VMRUN.
pub const VMRUN: u64 = 0x80;
/// VMMCALL.
pub const VMMCALL: u64 = 0x81;
/// VMLOAD.
pub const VMLOAD: u64 = 0x82;
/// VMSAVE.
pub const VMSAVE: u64 = 0x83;
/// STGI.
pub const STGI: u64 = 0x84;
/// CLGI.
pub const CLGI: u64 = 0x85;
/// SKINIT.
pub const SKINIT: u64 = 0x86;
/// MONITOR.
pub const MONITOR: u64 = 0x8a;
/// MWAIT.
pub const MWAIT: u64 = 0x8b;
/// MWAIT while armed.
pub const MWAIT_CONDITIONAL: u64 = 0x8c;
/// XSETBV.
pub const XSETBV: u64 = 0x8d;
/// RDPRU.
pub const RDPRU: u64 = 0x8e;
/// Nested page fault: EXITINFO1 is the error code, EXITINFO2 the guest-physical address.
pub const NPF: u64 = 0x400;
/// The guest's state is not consistent: -1, of which QEMU's TCG stores only the lower half.
pub const INVALID: u64 = 0xffff_ffff;

/// EXITINFO1 of [`IOIO`] (section 15.10.2): IN rather than OUT.
pub const IOIO_IN: u64 = 1;
/// INS or OUTS.
pub const IOIO_STRING: u64 = 1 << 2;
/// With a REP prefix.
pub const IOIO_REPEAT: u64 = 1 << 3;
/// One byte.
pub const IOIO_SIZE_8: u64 = 1 << 4;
/// Two bytes.
pub const IOIO_SIZE_16: u64 = 1 << 5;
/// The port is in bits 31:16.
pub const IOIO_PORT_SHIFT: u32 = 16;

/// EXITINFO1 of [`NPF`] (section 15.25.6): the page is present.
pub const NPF_PRESENT: u64 = 1;
/// A write.
pub const NPF_WRITE: u64 = 1 << 1;
/// Reserved bits are set in a nested entry.
pub const NPF_RESERVED: u64 = 1 << 3;
/// An instruction fetch.
pub const NPF_FETCH: u64 = 1 << 4;
/// The fault is of an access to the guest's page tables.
pub const NPF_TABLE_WALK: u64 = 1 << 33;
