//! Shows a DMAR table: as a tree to read, as JSON to process, as a picture to look at.
//!
//! The command is a thin shell around these functions, so that tests and the fuzzer can reach them. A damaged table is
//! shown as far as it can be read; what is wrong with it is said beside it.
#![forbid(unsafe_code)]

mod damage;
mod index;
mod input;
mod json;
mod machine;
mod pci_ids;
mod picture;
mod text;
mod tree;

pub use damage::damages;
pub use input::{Input, InputError, MAXIMUM_BYTES};
pub use json::to_json;
pub use machine::Machine;
pub use picture::to_svg;
pub use tree::to_tree;
