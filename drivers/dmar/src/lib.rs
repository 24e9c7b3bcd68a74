//! The ACPI DMAR table (VT-d specification, chapter 8): bytes in, typed description out.
//!
//! The bytes are firmware's and may say anything. Nothing here panics or loops for ever, and a structure that cannot be
//! used is reported together with the devices that it names, so that the caller can refuse to hand those out. The
//! caller copies the table once and parses the copy: the original lies in memory that a device may still write.
//!
//! ```
//! # fn show(table: &[u8]) -> Result<(), dmar::DmarError> {
//! let dmar = dmar::Dmar::parse(table)?;
//! for structure in dmar.structures() {
//!     match structure {
//!         Ok(dmar::Structure::Drhd(unit)) => { let _ = (unit.register_base, unit.segment); }
//!         Ok(_) => {}
//!         Err(error) => { let _ = error.scopes(); /* these devices cannot be handed out */ }
//!     }
//! }
//! # Ok(())
//! # }
//! ```
#![no_std]
#![forbid(unsafe_code)]

mod ats;
mod bytes;
mod checks;
mod finding;
mod lookup;
mod oddities;
mod oddity;
mod scope;
pub mod spec;
mod structure;
mod table;
mod topology;
mod unusable;

#[cfg(test)]
extern crate std;
#[cfg(test)]
mod tests;

pub use ats::Ats;
pub use finding::Finding;
pub use lookup::LookupError;
pub use oddity::Oddity;
pub use scope::{DeviceScope, DeviceScopeIter, DeviceScopes, Path, ScopeError, ScopeErrorKind, ScopeType, SidpFlags};
pub use structure::{Andd, Atsr, Drhd, Rhsa, Rmrr, Satc, Sidp, Structure, UnknownStructure};
pub use table::{Dmar, DmarError, Structures};
pub use topology::{Relation, Topology};
pub use unusable::{StructureError, StructureErrorKind};
