//! The function at 00:00.0: guests take a bus without a host bridge for no PCI at all.

/// Vendor 8086, device 0D57: a host bridge of a virtual machine, for which no guest has a quirk.
const ID: u32 = 0x0D57_8086;
/// Class 0600: host bridge.
const CLASS: u32 = 0x0600_0000;

/// What the dword at `offset` reads. There are no capabilities and no base address registers, and nothing can be written.
pub(super) fn read_dword(offset: u16) -> u32 {
    match offset {
        0x00 => ID,
        0x08 => CLASS,
        _ => 0,
    }
}
