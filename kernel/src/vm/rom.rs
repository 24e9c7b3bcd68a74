//! A guest's read-only memory: the 64 KiB below 1 MiB where a PC has its BIOS. The guest reads and executes what is
//! there, and a write has no effect, as on hardware.
//!
//! The loader leaves there what it tells the kernel; at the reset vector a processor stops for good.

use crate::vm::memory::{GuestMemoryAccess, OutOfRange};
use addr::GuestPhys;

/// Where it begins.
pub const START: GuestPhys = GuestPhys::new(0xf_0000);
/// Its size in bytes.
pub const BYTES: u64 = 0x1_0000;
/// Where it ends: 1 MiB.
pub const END: GuestPhys = GuestPhys::new(START.as_u64() + BYTES);

/// F000:FFF0h, where software jumps that wants a PC to start again.
const RESET_VECTOR: GuestPhys = GuestPhys::new(END.as_u64() - 16);
/// CLI; HLT; JMP to the HLT. The same in 16, 32 and 64 bits.
const STOP: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd];

/// Writes what is there whatever the kernel is.
pub fn write(memory: &mut impl GuestMemoryAccess) -> Result<(), OutOfRange> {
    memory.write(RESET_VECTOR, &STOP)
}

/// Whether an address is in it.
pub fn contains(address: GuestPhys) -> bool {
    (START..END).contains(&address)
}
