//! The registers of the 82574L that the driver uses: offsets in BAR 0 and bits (datasheet section 10.2).

/// Device control.
pub const CTRL: usize = 0x0000;
/// CTRL: the NIC starts no further access to memory.
pub const CTRL_GIO_MASTER_DISABLE: u32 = 1 << 2;
/// CTRL: auto-speed detection.
pub const CTRL_ASDE: u32 = 1 << 5;
/// CTRL: set link up.
pub const CTRL_SLU: u32 = 1 << 6;
/// CTRL: reset; the NIC clears it when it is done.
pub const CTRL_RST: u32 = 1 << 26;
/// Device status.
pub const STATUS: usize = 0x0008;
/// STATUS: link up.
pub const STATUS_LU: u32 = 1 << 1;
/// STATUS: accesses to memory may be under way.
pub const STATUS_GIO_MASTER_ENABLE: u32 = 1 << 19;
/// Extended device control.
pub const CTRL_EXT: usize = 0x0018;
/// CTRL_EXT: interrupt acknowledge auto-mask is off, so that IMS keeps its bits when a cause is cleared.
pub const CTRL_EXT_IAME: u32 = 1 << 27;
/// CTRL_EXT: setting a bit of IMS clears the pending bit of its MSI-X entry.
pub const CTRL_EXT_PBA_CLR: u32 = 1 << 31;

/// Interrupt cause read; writing a bit clears it.
pub const ICR: usize = 0x00c0;
/// Interrupt throttling.
pub const ITR: usize = 0x00c4;
/// Interrupt mask set.
pub const IMS: usize = 0x00d0;
/// Interrupt mask clear.
pub const IMC: usize = 0x00d8;
/// Causes that are cleared when their MSI-X message is sent.
pub const EIAC: usize = 0x00dc;
/// Which MSI-X entry a cause uses: 4 bits each, the entry in bits 2:0 and a valid bit.
pub const IVAR: usize = 0x00e4;
/// Throttling of MSI-X entry 0; the next follow.
pub const EITR: usize = 0x00e8;
/// The number of MSI-X entries.
pub const MSIX_ENTRIES: usize = 5;
/// Cause: link status change; reported through [`CAUSE_OTHER`].
pub const CAUSE_LSC: u32 = 1 << 2;
/// Cause: receive queue 0.
pub const CAUSE_RXQ0: u32 = 1 << 20;
/// Cause: transmit queue 0.
pub const CAUSE_TXQ0: u32 = 1 << 22;
/// Cause: anything that is not a queue.
pub const CAUSE_OTHER: u32 = 1 << 24;
/// IVAR field: the entry is in use.
pub const IVAR_VALID: u32 = 1 << 3;
/// Position of receive queue 0 in IVAR.
pub const IVAR_RXQ0_SHIFT: u32 = 0;
/// Position of transmit queue 0 in IVAR.
pub const IVAR_TXQ0_SHIFT: u32 = 8;
/// Position of the other causes in IVAR.
pub const IVAR_OTHER_SHIFT: u32 = 16;

/// Receive control.
pub const RCTL: usize = 0x0100;
/// RCTL: receiver on.
pub const RCTL_EN: u32 = 1 << 1;
/// RCTL: broadcasts are accepted.
pub const RCTL_BAM: u32 = 1 << 15;
/// RCTL: the frame check sequence is not written to memory.
pub const RCTL_SECRC: u32 = 1 << 26;
/// Transmit control.
pub const TCTL: usize = 0x0400;
/// TCTL: transmitter on.
pub const TCTL_EN: u32 = 1 << 1;
/// TCTL: short packets are padded.
pub const TCTL_PSP: u32 = 1 << 3;
/// TCTL: collision threshold 15 and collision distance 63, the datasheet's values for full duplex.
pub const TCTL_COLLISIONS: u32 = 0x0f << 4 | 0x3f << 12;
/// Transmit inter-packet gap.
pub const TIPG: usize = 0x0410;
/// TIPG: the datasheet's value for IEEE 802.3.
pub const TIPG_IEEE: u32 = 0x0060_2008;

/// Receive descriptor base, low half; the high half and the length follow.
pub const RDBAL: usize = 0x2800;
/// Receive descriptor base, high half.
pub const RDBAH: usize = 0x2804;
/// Receive ring length in bytes, a multiple of 128.
pub const RDLEN: usize = 0x2808;
/// Receive head: the next descriptor that the NIC will fill.
pub const RDH: usize = 0x2810;
/// Receive tail: the first descriptor that the NIC may not fill.
pub const RDT: usize = 0x2818;
/// Receive interrupt delay.
pub const RDTR: usize = 0x2820;
/// Receive absolute interrupt delay.
pub const RADV: usize = 0x282c;
/// Transmit descriptor base, low half.
pub const TDBAL: usize = 0x3800;
/// Transmit descriptor base, high half.
pub const TDBAH: usize = 0x3804;
/// Transmit ring length in bytes, a multiple of 128.
pub const TDLEN: usize = 0x3808;
/// Transmit head.
pub const TDH: usize = 0x3810;
/// Transmit tail.
pub const TDT: usize = 0x3818;
/// Transmit interrupt delay.
pub const TIDV: usize = 0x3820;
/// Transmit descriptor control.
pub const TXDCTL: usize = 0x3828;
/// TXDCTL: thresholds count descriptors, write back each one, and bit 22, which the datasheet wants set.
pub const TXDCTL_WRITE_BACK_EACH: u32 = 1 << 24 | 1 << 22 | 1 << 16;
/// Transmit absolute interrupt delay.
pub const TADV: usize = 0x382c;

/// Multicast table: 128 registers.
pub const MTA: usize = 0x5200;
/// The number of registers of the multicast table.
pub const MTA_REGISTERS: usize = 128;
/// Receive address 0, the NIC's own: the first four bytes, little-endian.
pub const RAL0: usize = 0x5400;
/// Receive address 0: the last two bytes, and a valid bit.
pub const RAH0: usize = 0x5404;
/// RAH: the address is in use.
pub const RAH_AV: u32 = 1 << 31;
/// Receive filter control: 0 means legacy descriptors.
pub const RFCTL: usize = 0x5008;

/// How much of BAR 0 the registers take, in bytes.
pub const LENGTH: u64 = 0x2_0000;
