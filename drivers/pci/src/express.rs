//! The PCI Express capability.

use crate::ConfigSpace;
use crate::spec::express::{
    CAPABILITIES, DEVICE_CAPABILITIES, DEVICE_PORT_TYPE_SHIFT, DEVICE_STATUS, FUNCTION_LEVEL_RESET_CAPABLE,
    LENGTH_VERSION_1, LENGTH_VERSION_2, TRANSACTIONS_PENDING, VERSION,
};
use addr::PciAddress;

/// What a PCI Express function is. PCI Express Base section 7.5.3.2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DevicePortType {
    /// Type 0: endpoint.
    Endpoint,
    /// Type 1: legacy endpoint.
    LegacyEndpoint,
    /// Type 4: root port.
    RootPort,
    /// Type 5: upstream port of a switch.
    UpstreamPort,
    /// Type 6: downstream port of a switch.
    DownstreamPort,
    /// Type 7: bridge from PCI Express down to PCI or PCI-X.
    ExpressToPciBridge,
    /// Type 8: bridge from PCI or PCI-X down to PCI Express.
    PciToExpressBridge,
    /// Type 9: endpoint integrated in the root complex.
    IntegratedEndpoint,
    /// Type 10: event collector of the root complex.
    EventCollector,
    /// A type that the specification has not.
    Other(u8),
}

impl DevicePortType {
    /// From the 4 bits of the capabilities register.
    pub const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Endpoint,
            1 => Self::LegacyEndpoint,
            4 => Self::RootPort,
            5 => Self::UpstreamPort,
            6 => Self::DownstreamPort,
            7 => Self::ExpressToPciBridge,
            8 => Self::PciToExpressBridge,
            9 => Self::IntegratedEndpoint,
            10 => Self::EventCollector,
            other => Self::Other(other),
        }
    }
}

/// A PCI Express capability, as it was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExpressCapability {
    /// Where it begins.
    pub offset: u8,
    capabilities: u16,
    device_capabilities: u32,
}

impl ExpressCapability {
    /// Reads the capability at `offset`. One that begins in the last dword has no registers: they read as zero.
    pub fn read(config: &dyn ConfigSpace, function: PciAddress, offset: u8) -> Self {
        let offset16 = u16::from(offset);
        Self {
            offset,
            capabilities: config.read16(function, offset16 + CAPABILITIES),
            device_capabilities: if offset16 + DEVICE_CAPABILITIES < 0x100 {
                config.read32(function, offset16 + DEVICE_CAPABILITIES)
            } else {
                0
            },
        }
    }

    /// What the function is.
    pub const fn port_type(&self) -> DevicePortType {
        DevicePortType::from_bits((self.capabilities >> DEVICE_PORT_TYPE_SHIFT) as u8 & 0xF)
    }

    /// The version of the layout.
    pub const fn version(&self) -> u8 {
        (self.capabilities & VERSION) as u8
    }

    /// The size by version, in bytes; the registers from there on are something else's.
    pub const fn length(&self) -> u8 {
        if self.version() >= 2 { LENGTH_VERSION_2 } else { LENGTH_VERSION_1 }
    }

    /// Whether the function can be reset on its own by FLR.
    pub const fn function_level_reset_capable(&self) -> bool {
        self.device_capabilities & FUNCTION_LEVEL_RESET_CAPABLE != 0
    }

    /// Whether the function has started requests that are not completed.
    pub fn read_transactions_pending(&self, config: &dyn ConfigSpace, function: PciAddress) -> bool {
        match self.register(DEVICE_STATUS) {
            Some(offset) => config.read16(function, offset) & TRANSACTIONS_PENDING != 0,
            None => false,
        }
    }

    /// The offset of a register of the capability in configuration space, or `None` where it would lie beyond the 256
    /// bytes in which capabilities are.
    pub const fn register(&self, register: u16) -> Option<u16> {
        let offset = self.offset as u16 + register;
        if offset < 0x100 { Some(offset) } else { None }
    }
}
