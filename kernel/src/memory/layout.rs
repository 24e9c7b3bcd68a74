//! Where things are in the hypervisor's address space.
//!
//! | from | what |
//! |---|---|
//! | `0xffff_8000_0000_0000` | the physical map: all memory, never executable, the image's constant parts read-only |
//! | `0xffff_c000_0000_0000` | device registers, uncached |
//! | `0xffff_d000_0000_0000` | stacks, each between unmapped guard pages |
//! | `0xffff_ffff_8000_0000` | the image (linker.ld) |

/// The physical map: the host-physical address `a` is at `PHYSICAL_MAP + a`.
pub const PHYSICAL_MAP: u64 = 0xffff_8000_0000_0000;
/// Room for the physical map in bytes: 64 TiB, more than the processors at hand address.
pub const PHYSICAL_MAP_BYTES: u64 = 0x4000_0000_0000;
/// Device registers.
pub const DEVICES: u64 = 0xffff_c000_0000_0000;
/// Room for device registers, in bytes.
pub const DEVICES_BYTES: u64 = 0x100_0000_0000;
/// Stacks.
pub const STACKS: u64 = 0xffff_d000_0000_0000;
