//! The ACPI DMAR table (VT-d specification, chapter 8): bytes in, typed description out.
//!
//! The bytes are firmware's and may say anything. Nothing here panics or loops for ever, and a structure that cannot be
//! used is reported together with the devices that it names, so that the caller can refuse to hand those out. The
//! caller copies the table once and parses the copy: the original lies in memory that a device may still write.
//!
//! To read it: [`Dmar::parse`], then [`Dmar::structures`] or those of one type, such as [`Dmar::drhds`]. To act on it:
//!
//! | question | answer |
//! |---|---|
//! | which unit serves this PCI function? | [`Dmar::unit_for`] |
//! | which unit remaps this I/O APIC's or HPET's interrupts, and from which source-id? | [`Dmar::io_apic`], [`Dmar::hpet`] |
//! | which unit serves this ACPI device? | [`Dmar::acpi_device`] |
//! | which memory must stay mapped for it? | [`Dmar::reserved_regions`] |
//! | may it have a device-TLB? | [`Dmar::ats`] |
//! | what must its PASID table entry leave out? | [`Dmar::integrated_device_property`] |
//! | which processors and memory is the unit near? | [`Dmar::proximity_domain`] |
//! | what is wrong with the table? | [`Dmar::findings`], [`Dmar::contradictory_scopes`], [`Dmar::oddities`] |
//!
//! Firmware names devices by the bridges on the way to them, so a lookup takes a [`Topology`]: any function that reads a
//! bridge's bus numbers from configuration space. A doubt is an error: the device is then handed out to nobody.
//!
//! ```
//! use addr::{Bdf, PciAddress};
//! use dmar::{Dmar, LookupError};
//!
//! /// Where the registers of the network card's unit are, and the memory that must stay mapped for the card.
//! fn unit_of_the_card(table: &[u8]) -> Result<(u64, Vec<(u64, u64)>), String> {
//!     let dmar = Dmar::parse(table).map_err(|error| error.to_string())?;
//!     for error in dmar.structures().filter_map(Result::err) {
//!         eprintln!("{error}"); // and the lookups below keep its devices back
//!     }
//!     // A bridge at 00:1c.0 with the buses 2 to 4 behind it; a kernel reads registers 0x19 and 0x1a here.
//!     let root_port = PciAddress { segment: 0, bdf: Bdf::new(0, 0x1c, 0).unwrap() };
//!     let bridges = |bridge: PciAddress| (bridge == root_port).then_some((2, 4));
//!     let card = PciAddress { segment: 0, bdf: Bdf::new(2, 0, 0).unwrap() };
//!     let unit = dmar.unit_for(card, &bridges).map_err(|error: LookupError| error.to_string())?;
//!     let regions = dmar.reserved_regions(card, &bridges).map(|region| {
//!         region.map(|region| (region.base.as_u64(), region.limit.as_u64())).map_err(|error| error.to_string())
//!     });
//!     Ok((unit.register_base.as_u64(), regions.collect::<Result<_, _>>()?))
//! }
//!
//! # let mut table = Vec::from(*b"DMAR\x78\0\0\0\x01\0OEMID OEMTABLE\0\0\0\0TEST\0\0\0\0\x26\x01");
//! # table.resize(48, 0);
//! # table.extend(*b"\0\0\x10\0\x01\0\0\0\0\0\xd9\xfe\0\0\0\0"); // INCLUDE_PCI_ALL
//! # table.extend(*b"\x01\0\x20\0\0\0\0\0\0\0\0\x08\0\0\0\0\xff\xff\xff\x08\0\0\0\0\x02\x08\0\0\0\0\x1c\0");
//! # table.extend(*b"\x04\0\x18\0\0\0\0\x01\\_SB.PCI0.I2C0\0\0");
//! # table[9] = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg();
//! assert_eq!(unit_of_the_card(&table), Ok((0xfed9_0000, vec![(0x800_0000, 0x8ff_ffff)])));
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

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use ats::Ats;
pub use finding::Finding;
pub use lookup::LookupError;
pub use oddity::Oddity;
pub use scope::{DeviceScope, DeviceScopeIter, DeviceScopes, Path, ScopeError, ScopeErrorKind, ScopeType, SidpFlags};
pub use structure::{Andd, Atsr, Drhd, Rhsa, Rmrr, Satc, Sidp, Structure, UnknownStructure};
pub use table::{Dmar, DmarError, Structures};
pub use topology::{Relation, Topology};
pub use unusable::{StructureError, StructureErrorKind};
