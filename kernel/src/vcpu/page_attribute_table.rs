//! The page attribute table (SDM vol. 3, 13.12; APM vol. 2, 7.8).

/// The page attribute table after reset.
pub const PAT_RESET: u64 = 0x0007_0406_0007_0406;

/// Whether each of the eight bytes is a memory type: UC, WC, WT, WP, WB or UC-.
pub fn is_page_attribute_table(value: u64) -> bool {
    value.to_le_bytes().iter().all(|memory_type| matches!(memory_type, 0 | 1 | 4..=7))
}
