//! The Single Root I/O Virtualization capability of a physical function. PCI Express Base section 9.3.3.

/// Offset of the control register, 16 bits.
pub const CONTROL: u16 = 0x08;
/// Control, bit 0: the virtual functions are there.
pub const VF_ENABLE: u16 = 1 << 0;
/// Control, bit 3: they answer in memory space.
pub const VF_MEMORY_SPACE: u16 = 1 << 3;
/// Control, bit 4: what is above the device forwards by alternative routing ids.
pub const ARI_CAPABLE_HIERARCHY: u16 = 1 << 4;
/// Offset of InitialVFs, 16 bits, read-only: how many there are at first; TotalVFs without migration.
pub const INITIAL_VFS: u16 = 0x0C;
/// Offset of TotalVFs, 16 bits, read-only: how many there can be.
pub const TOTAL_VFS: u16 = 0x0E;
/// Offset of NumVFs, 16 bits: how many there are while they are enabled.
pub const NUM_VFS: u16 = 0x10;
/// Offset of the function dependency link, 8 bits, read-only: the function's own number where it depends on none.
pub const FUNCTION_DEPENDENCY_LINK: u16 = 0x12;
/// Offset of First VF Offset, 16 bits, read-only: the first one's requester id less the physical function's. It may
/// change with NumVFs and [`ARI_CAPABLE_HIERARCHY`].
pub const FIRST_VF_OFFSET: u16 = 0x14;
/// Offset of VF Stride, 16 bits, read-only: from one requester id to the next. It may change as the offset.
pub const VF_STRIDE: u16 = 0x16;
/// Offset of the device id of the virtual functions, 16 bits, read-only. The vendor id is the physical function's.
pub const VF_DEVICE_ID: u16 = 0x1A;
/// Offset of the supported page sizes, 32 bits, read-only: bit n for 4 KiB << n.
pub const SUPPORTED_PAGE_SIZES: u16 = 0x1C;
/// Offset of the system page size, 32 bits, one bit as in the supported ones: what ranges are aligned to.
pub const SYSTEM_PAGE_SIZE: u16 = 0x20;
/// Page sizes, bit 0: 4 KiB.
pub const PAGE_4_KIB: u32 = 1 << 0;
/// Offset of the first of the six base address registers of the virtual functions: where that of the first one begins; the
/// others' follow behind it.
pub const VF_BAR0: u16 = 0x24;
/// Size of the capability, in bytes.
pub const LENGTH: u16 = 0x40;
