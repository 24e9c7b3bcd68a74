//! The capability list that a guest sees: what is known to be harmless, linked anew.

use ::pci::spec::capability::{FIRST_EXTENDED_OFFSET, device_serial_number, extended_id, id, power_management};
use ::pci::spec::msi::{MSIX_ENABLE, MSIX_FUNCTION_MASK, MSIX_LENGTH};
use ::pci::{Capabilities, ConfigSpace, FunctionDescription, find_extended_capability};
use addr::PciAddress;

/// What may be shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// D0 and D3hot in name: in the real D3hot the hypervisor could not reach the MSI-X table.
    PowerManagement,
    /// The real registers, read-only, but for the controls.
    Express,
    /// The guest's own MSI.
    Msi,
    /// The message control of the guest's table.
    Msix,
}

/// A capability that is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Visible {
    /// What it is.
    pub kind: Kind,
    /// Where it begins, there and here.
    pub offset: u8,
    /// Offset of the first byte behind it, up to 256.
    end: u16,
    /// Offset of the next one, or 0.
    next: u8,
}

impl Visible {
    /// Its first dword, with `upper` in the upper half.
    pub fn header(&self, upper: u16) -> u32 {
        let id = match self.kind {
            Kind::PowerManagement => id::POWER_MANAGEMENT,
            Kind::Express => id::PCI_EXPRESS,
            Kind::Msi => id::MSI,
            Kind::Msix => id::MSI_X,
        };
        u32::from(id) | u32::from(self.next) << 8 | u32::from(upper) << 16
    }
}

/// The lists that a guest sees: in the first 256 bytes in the order of the real one, and from 0x100 the serial number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct VisibleCapabilities {
    list: [Option<Visible>; 4],
    /// Where the real function has its serial number.
    serial_number: Option<u16>,
}

impl VisibleCapabilities {
    /// Chooses from the real function's list. MSI is hidden unless there is a message for it.
    pub fn new<C: ConfigSpace>(config: &C, function: &FunctionDescription, shows_msi: bool) -> Self {
        let address = function.address();
        let msi = function.msi.filter(|_| shows_msi);
        let msix = function.msix.ok().flatten();
        let mut list = [None; 4];
        let mut places = list.iter_mut();
        for capability in Capabilities::new(config, address) {
            let offset = Some(capability.offset);
            let (kind, length) = match capability.id {
                id::POWER_MANAGEMENT if function.power_management == offset => {
                    (Kind::PowerManagement, power_management::LENGTH.into())
                }
                id::PCI_EXPRESS if function.express.map(|express| express.offset) == offset => {
                    (Kind::Express, function.express.map_or(0, |express| express.length().into()))
                }
                id::MSI if msi.map(|msi| msi.offset) == offset => (Kind::Msi, msi.map_or(0, |msi| msi.length())),
                id::MSI_X if msix.map(|msix| msix.offset) == offset => (Kind::Msix, MSIX_LENGTH.into()),
                _ => continue,
            };
            // A capability ends where the next one begins, shown or not: a longer one would show what is hidden.
            let next_begins = Capabilities::new(config, address)
                .map(|other| u16::from(other.offset))
                .filter(|other| *other > u16::from(capability.offset))
                .min()
                .unwrap_or(0x100);
            let end = (u16::from(capability.offset) + length).min(next_begins);
            if let Some(place) = places.next() {
                *place = Some(Visible { kind, offset: capability.offset, end, next: 0 });
            }
        }
        let offsets = list.map(|place| place.map_or(0, |visible| visible.offset));
        for (place, next) in list.iter_mut().zip(offsets.into_iter().skip(1)) {
            if let Some(visible) = place {
                visible.next = next;
            }
        }
        let serial_number = function
            .express
            .and_then(|_| find_extended_capability(config, address, extended_id::DEVICE_SERIAL_NUMBER))
            .map(|capability| capability.offset);
        Self { list, serial_number }
    }

    /// Offset of the first capability, or 0.
    pub fn first(&self) -> u8 {
        self.list.iter().flatten().next().map_or(0, |visible| visible.offset)
    }

    /// The capability that the dword at `offset` is in, if it is in one that is shown.
    pub fn at(&self, offset: u16) -> Option<&Visible> {
        self.list.iter().flatten().find(|visible| u16::from(visible.offset) <= offset && offset < visible.end)
    }

    /// Where the next capability can be that is shown from 0x100 on.
    pub fn behind_serial_number(&self) -> u16 {
        FIRST_EXTENDED_OFFSET + self.serial_number.map_or(0, |_| device_serial_number::LENGTH)
    }

    /// What the dword at `offset` (0x100 and above) reads. The serial number is the first of the list, and the last unless there
    /// is something [`Self::behind_serial_number`].
    pub fn read_extended<C: ConfigSpace>(&self, config: &C, function: PciAddress, offset: u16, more: bool) -> u32 {
        let register = offset.wrapping_sub(FIRST_EXTENDED_OFFSET);
        match (self.serial_number, register) {
            // Version 1, and where the next capability is.
            (Some(_), 0) => {
                let next = if more { self.behind_serial_number() } else { 0 };
                u32::from(extended_id::DEVICE_SERIAL_NUMBER) | 1 << 16 | u32::from(next) << 20
            }
            (Some(real), 1..device_serial_number::LENGTH) => {
                real.checked_add(register).filter(|at| *at < 0x1000).map_or(0, |at| config.read32(function, at))
            }
            _ => 0,
        }
    }
}

/// The message control register of a guest's MSI-X capability: the number of table entries less one, enabled, all
/// entries masked.
pub(super) fn msix_control(last_entry: u16, enabled: bool, function_masked: bool) -> u16 {
    last_entry | if enabled { MSIX_ENABLE } else { 0 } | if function_masked { MSIX_FUNCTION_MASK } else { 0 }
}
