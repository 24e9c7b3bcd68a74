//! A guest's PCI bus: configuration space by ports 0xCF8 to 0xCFF and by memory (ECAM), a host bridge, and the functions
//! that the guest was handed.
//!
//! The guest sees a filtered view of each function's configuration space. Ids, class and link state are the real
//! ones; the command register, the base address registers, MSI and MSI-X are the hypervisor's, because with the real
//! ones a guest could lay its device over another's registers, or choose where an interrupt goes. Hidden altogether: the
//! expansion ROM, INTx, and every capability that is not known to be harmless; of the extended ones the serial number
//! alone is shown, and virtual functions, whose capability is the hypervisor's own ([`sriov`]).
//!
//! The real function stays where the firmware has put it, and its memory decoding stays on whatever the guest says, as the
//! hypervisor writes the real MSI-X table through it. Where the guest puts its ranges decides what its second stage
//! translates. INTx stays off, as nothing would receive it.
//!
//! All here is logic over [`::pci::ConfigSpace`]; what must happen elsewhere (a change of the second stage, an interrupt
//! remapping entry, a line in the log) comes out as a [`PciEffect`] while the access is handled.

pub mod address_space;
mod assigned;
mod bars;
mod bus;
mod capabilities;
mod command;
mod effect;
mod express;
#[cfg(test)]
mod fake;
mod host_bridge;
mod lanes;
mod msi;
mod msix_message;
mod msix_table;
mod sriov;

pub use address_space::{GuestAddressSpace, Obstacle};
pub use assigned::{AssignError, AssignedFunction, TrappedRead, TrappedWrite};
pub use bus::{BusError, GuestPciBus, MAX_FUNCTIONS};
pub use effect::{EffectSink, MappingEffect, MsiEffect, MsixEffect, PciEffect, PciEffectKind, Refusal};
pub use msix_message::{DestinationMode, GuestMessage, MessageError};
pub use msix_table::MsixTable;

/// What a real function is to write where to raise the first of its MSI interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceMessage {
    /// The address.
    pub address: u64,
    /// The data; low bits are replaced by the number of the interrupt.
    pub data: u32,
}
