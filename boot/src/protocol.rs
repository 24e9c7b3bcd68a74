//! By which protocol the image was loaded: what the 32-bit entries tell the 64-bit one.

/// PVH: QEMU's `-kernel`, or this hypervisor for its guests.
pub(crate) const PROTOCOL_PVH: u32 = 1;
/// Multiboot2: GRUB.
pub(crate) const PROTOCOL_MULTIBOOT2: u32 = 2;
