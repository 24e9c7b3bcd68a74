//! Exit qualifications (SDM vol. 3, 28.2.1).

/// I/O, bits 2:0: the size of the access less one.
pub const IO_SIZE: u64 = 7;
/// I/O, bit 3: IN or INS.
pub const IO_IN: u64 = 1 << 3;
/// I/O, bit 4: INS or OUTS.
pub const IO_STRING: u64 = 1 << 4;
/// I/O, bit 5: with REP.
pub const IO_REPEAT: u64 = 1 << 5;
/// I/O, bits 31:16: the port.
pub const IO_PORT_SHIFT: u32 = 16;

/// EPT violation, bit 1: a store.
pub const EPT_WRITE: u64 = 1 << 1;
/// EPT violation, bit 2: an instruction fetch.
pub const EPT_FETCH: u64 = 1 << 2;
/// EPT violation, bits 5:3: what the tables permit; none where nothing is mapped.
pub const EPT_PERMITTED: u64 = 7 << 3;
/// EPT violation, bit 7: the guest-linear address is valid.
pub const EPT_LINEAR_VALID: u64 = 1 << 7;
/// EPT violation, bit 8: the access was to what the linear address translates to, not to a paging structure.
pub const EPT_TRANSLATED: u64 = 1 << 8;
/// EPT violation, bit 12: IRET had already ended the blocking of NMIs.
pub const EPT_NMI_UNBLOCKING_BY_IRET: u64 = 1 << 12;

/// Control register, bits 3:0: its number.
pub const CR_NUMBER: u64 = 0xf;
/// Control register, bits 5:4: what was done.
pub const CR_ACCESS_SHIFT: u32 = 4;
/// What was done, shifted down.
pub const CR_ACCESS: u64 = 3;
/// Access: MOV to the control register.
pub const CR_WRITE: u64 = 0;
/// Access: MOV from the control register.
pub const CR_READ: u64 = 1;
/// Control register, bits 11:8: the general-purpose register.
pub const CR_REGISTER_SHIFT: u32 = 8;

/// Debug exception: B0 to B3, BD and BS, at their places in DR6.
pub const DEBUG_STATUS: u64 = 0xf | 1 << 13 | 1 << 14;
/// Debug exception: B0 to B3, which a debug exception may clear. It clears no other bit of DR6 (SDM vol. 3, 18.2.3).
pub const DEBUG_BREAKPOINTS: u64 = 0xf;
