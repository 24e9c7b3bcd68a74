//! What the header of a function says about it.

use crate::spec::capability::id;
use crate::spec::header::{
    BASE_CLASS, COMMAND, DEVICE_ID, HEADER_LAYOUT, HEADER_MULTI_FUNCTION, HEADER_TYPE, PROGRAMMING_INTERFACE,
    SECONDARY_BUS, SUBCLASS, SUBORDINATE_BUS, VENDOR_ID,
};
use crate::{ConfigSpace, DevicePortType, ExpressCapability, find_capability, peers_are_isolated};
use addr::PciAddress;
use core::fmt;

/// What a function is for: base class, subclass and programming interface. PCI Code and ID Assignment Specification.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Class {
    /// Base class, such as 0x02 for network controllers and 0x06 for bridges.
    pub base: u8,
    /// Subclass.
    pub sub: u8,
    /// Programming interface.
    pub interface: u8,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}{:02x}", self.base, self.sub, self.interface)
    }
}

/// The layout of the first 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderType {
    /// Type 0: an endpoint.
    Endpoint,
    /// Type 1: a PCI-to-PCI bridge, which every PCI Express port is too.
    Bridge {
        /// The bus right below it.
        secondary: u8,
        /// The highest bus below it.
        subordinate: u8,
    },
    /// Type 2 (CardBus) or one that no specification has.
    Other(u8),
}

/// What enumeration learns of a function: enough for the topology. Read without writing anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FunctionInfo {
    /// The function.
    pub address: PciAddress,
    /// Vendor id.
    pub vendor_id: u16,
    /// Device id.
    pub device_id: u16,
    /// What it is for.
    pub class: Class,
    /// The layout of its header.
    pub header_type: HeaderType,
    /// Whether the device may have other functions.
    pub multi_function: bool,
    /// The PCI Express device or port type, or `None` for conventional PCI.
    pub port_type: Option<DevicePortType>,
    /// Whether Access Control Services keep it from talking to its peers; see [`peers_are_isolated`].
    pub isolated_from_peers: bool,
}

impl FunctionInfo {
    /// Reads the description of the function at `address`, or `None` if there is none: the vendor id is all ones, or 0,
    /// which no vendor has and which some bridges answer for an empty slot.
    pub fn read(config: &dyn ConfigSpace, address: PciAddress) -> Option<Self> {
        let vendor_id = config.read16(address, VENDOR_ID);
        if vendor_id == 0xFFFF || vendor_id == 0 {
            return None;
        }
        Some(Self::of(config, address, vendor_id, config.read16(address, DEVICE_ID)))
    }

    /// Reads the description of the virtual function at `address`, or `None` if it does not answer: its own ids are all
    /// ones, so that its command register is asked, of which most bits are 0.
    pub(crate) fn read_virtual(
        config: &dyn ConfigSpace,
        address: PciAddress,
        physical: &Self,
        device_id: u16,
    ) -> Option<Self> {
        let there = config.read16(address, COMMAND) != 0xFFFF;
        there.then(|| Self::of(config, address, physical.vendor_id, device_id))
    }

    fn of(config: &dyn ConfigSpace, address: PciAddress, vendor_id: u16, device_id: u16) -> Self {
        let layout = config.read8(address, HEADER_TYPE);
        let header_type = match layout & HEADER_LAYOUT {
            0 => HeaderType::Endpoint,
            1 => HeaderType::Bridge {
                secondary: config.read8(address, SECONDARY_BUS),
                subordinate: config.read8(address, SUBORDINATE_BUS),
            },
            other => HeaderType::Other(other),
        };
        let port_type = find_capability(config, address, id::PCI_EXPRESS)
            .map(|capability| ExpressCapability::read(config, address, capability.offset).port_type());
        Self {
            address,
            vendor_id,
            device_id,
            class: Class {
                base: config.read8(address, BASE_CLASS),
                sub: config.read8(address, SUBCLASS),
                interface: config.read8(address, PROGRAMMING_INTERFACE),
            },
            header_type,
            multi_function: layout & HEADER_MULTI_FUNCTION != 0,
            port_type,
            // Conventional PCI has no extended capabilities: what one would read there may be anything.
            isolated_from_peers: port_type.is_some() && peers_are_isolated(config, address),
        }
    }

    /// The bus right below the function, if it is a bridge to one.
    pub fn secondary_bus(&self) -> Option<u8> {
        match self.header_type {
            HeaderType::Bridge { secondary, .. } => Some(secondary),
            HeaderType::Endpoint | HeaderType::Other(_) => None,
        }
    }
}

impl fmt::Display for FunctionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:04x}:{:04x} class {}", self.address, self.vendor_id, self.device_id, self.class)
    }
}
