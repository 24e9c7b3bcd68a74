//! A guest's PCI bus: ports 0xCF8 to 0xCFF, a host bridge, and the functions that the guest was handed.
//!
//! The guest sees a filtered view of each function's configuration space. Ids, class and link state are the real
//! ones; the command register, the base address registers and MSI-X are the hypervisor's, because with the real ones
//! a guest could lay its device over another's registers, or choose where an interrupt goes. Hidden altogether: the
//! expansion ROM, INTx, MSI, extended configuration space and every capability that is not known to be harmless.
//!
//! The real function's memory decoding stays on whatever the guest says, as the hypervisor writes the real MSI-X table
//! through it; INTx stays off, as nothing would receive it.
//!
//! All here is logic over [`::pci::ConfigSpace`]; what must happen elsewhere (an interrupt remapping entry, a line in
//! the log) comes out as a [`PciEffect`] while the access is handled.

mod assigned;
mod bars;
mod bus;
mod capabilities;
mod command;
mod effect;
#[cfg(test)]
mod fake;
mod host_bridge;
mod lanes;
mod msix_message;
mod msix_table;

pub use assigned::{AssignError, AssignedFunction, TrappedRead, TrappedWrite};
pub use bus::{BusError, GuestPciBus, MAX_FUNCTIONS};
pub use effect::{EffectSink, MsixEffect, PciEffect, PciEffectKind, Refusal};
pub use msix_message::{DestinationMode, GuestMessage, MessageError};
pub use msix_table::MsixTable;
