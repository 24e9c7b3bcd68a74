//! PCI configuration space, capabilities, MSI and MSI-X, function reset, and what of the topology matters to DMA and
//! interrupt remapping: requester ids and isolation groups.
//!
//! How configuration space is reached (ports 0xCF8/0xCFC, or memory under PCI Express) is the trait [`ConfigSpace`].
//! Nothing here allocates, recurses or waits without a bound, and no answer of a device leads to a panic: a function
//! that answers all ones, zeros or lists that loop is a normal case, because that is what a broken, a removed and
//! a hostile one look like.
//!
//! Not here yet: ARI for physical functions (those above 7), virtual functions beyond their bus, Enhanced Allocation, phantom functions, hot plug,
//! resizable BARs, and the assignment of bus numbers and addresses, which is taken from the firmware as it stands.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod acs;
mod bar;
mod capability;
mod command;
mod config;
mod enumerate;
mod express;
#[cfg(test)]
mod fake;
mod function;
mod header;
mod isolation;
mod msi;
mod msix;
mod msix_table;
mod requester;
mod reset;
mod room;
mod routing;
pub mod spec;
mod sriov;

pub use acs::peers_are_isolated;
pub use bar::{Bar, BarSlot, Bars, read_bars};
pub use capability::{
    Capabilities, Capability, ExtendedCapabilities, ExtendedCapability, find_capability, find_extended_capability,
};
pub use command::{disable, disable_bus_mastering, enable, read_command, set_command_bits};
pub use config::{ConfigSpace, Width};
pub use enumerate::Functions;
pub use express::{DevicePortType, ExpressCapability};
pub use function::FunctionDescription;
pub use header::{Class, FunctionInfo, HeaderType};
pub use isolation::isolation_group;
pub use msi::MsiCapability;
pub use msix::{MsixCapability, MsixError, MsixRegion};
pub use msix_table::{MsixTableAccess, MsixTableDriver};
pub use requester::{MAX_REQUESTER_IDS, RequesterIds, bridges_above, requester_ids};
pub use reset::{ResetError, ResetMethod, reset_function};
pub use room::{Room, find_room};
pub use routing::{Routing, open_routing};
pub use sriov::{DISABLING_US, ENABLING_US, Sriov, SriovError};
