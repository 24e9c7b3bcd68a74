//! Layouts only. Offsets are in bytes from the start of a function's configuration space, or of a capability.

pub mod capability;
pub mod express;
pub mod header;
pub mod msi;
pub mod sriov;
