//! MSI and MSI-X. PCI Local Bus 3.0 section 6.8; PCI Express Base section 7.7.1 and 7.7.2.

/// Offset of the message control register in either capability, 16 bits.
pub const MESSAGE_CONTROL: u16 = 2;

/// MSI: message control, bit 0: enabled.
pub const MSI_ENABLE: u16 = 1 << 0;
/// MSI: message control, bits 3:1, read-only: logarithm of the number of vectors that the function can use.
pub const MSI_MULTIPLE_CAPABLE_SHIFT: u32 = 1;
/// MSI: message control, bits 6:4: logarithm of the number of vectors in use.
pub const MSI_MULTIPLE_ENABLE: u16 = 7 << 4;
/// MSI: message control, bit 7, read-only: 64-bit address.
pub const MSI_64_BIT: u16 = 1 << 7;
/// MSI: message control, bit 8, read-only: mask bits for each vector.
pub const MSI_PER_VECTOR_MASKING: u16 = 1 << 8;
/// MSI: message control, bits 6:4: where the logarithm begins.
pub const MSI_MULTIPLE_ENABLE_SHIFT: u32 = 4;
/// MSI: offset of the low half of the address, 32 bits.
pub const MSI_ADDRESS: u16 = 4;
/// MSI: offset of the high half of a 64-bit address, 32 bits.
pub const MSI_ADDRESS_HIGH: u16 = 8;
/// MSI: offset of the data behind a 32-bit address, 16 bits; with masks, 32 mask bits and 32 pending bits follow.
pub const MSI_DATA_32_BIT: u16 = 8;
/// MSI: offset of the data behind a 64-bit address, 16 bits; with masks, 32 mask bits and 32 pending bits follow.
pub const MSI_DATA_64_BIT: u16 = 12;

/// MSI-X: message control, bits 10:0, read-only: number of table entries less one.
pub const MSIX_TABLE_SIZE: u16 = 0x7FF;
/// MSI-X: message control, bit 14: all entries are masked.
pub const MSIX_FUNCTION_MASK: u16 = 1 << 14;
/// MSI-X: message control, bit 15: enabled.
pub const MSIX_ENABLE: u16 = 1 << 15;
/// MSI-X: offset of the table's place, 32 bits, read-only.
pub const MSIX_TABLE: u16 = 4;
/// MSI-X: offset of the pending bit array's place, 32 bits, read-only.
pub const MSIX_PENDING_BITS: u16 = 8;
/// MSI-X: in a place, bits 2:0 are the number of the BAR; the rest is the offset in it, in bytes.
pub const MSIX_BAR_INDICATOR: u32 = 7;
/// MSI-X: size of the capability, in bytes.
pub const MSIX_LENGTH: u8 = 12;
/// MSI-X: the most entries that a table can have.
pub const MSIX_MAX_ENTRIES: u16 = 2048;

/// MSI-X: size of a table entry, in bytes.
pub const ENTRY_SIZE: u64 = 16;
/// MSI-X table entry: offset of the low half of the address.
pub const ENTRY_ADDRESS: u64 = 0;
/// MSI-X table entry: offset of the high half of the address.
pub const ENTRY_ADDRESS_HIGH: u64 = 4;
/// MSI-X table entry: offset of the data.
pub const ENTRY_DATA: u64 = 8;
/// MSI-X table entry: offset of the vector control.
pub const ENTRY_VECTOR_CONTROL: u64 = 12;
/// MSI-X table entry: vector control, bit 0: masked.
pub const ENTRY_MASKED: u32 = 1 << 0;
