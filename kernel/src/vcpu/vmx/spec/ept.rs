//! The extended-page-table pointer, and the descriptors of INVEPT and INVVPID (SDM vol. 3, 25.6.11 and chapter 31).

use addr::HostPhys;

/// Bits 2:0: the tables are write-back memory.
const WRITE_BACK: u64 = 6;
/// Bits 5:3: the number of levels less one.
const FOUR_LEVELS: u64 = 3 << 3;

/// The pointer for four levels of tables at `root`, without accessed and dirty flags.
pub const fn pointer(root: HostPhys) -> u64 {
    root.as_u64() | FOUR_LEVELS | WRITE_BACK
}

/// INVEPT and INVVPID: of one context (EPT pointer, or virtual-processor identifier).
pub const SINGLE_CONTEXT: u64 = 1;
/// INVEPT and INVVPID: of all contexts.
pub const ALL_CONTEXTS: u64 = 2;
