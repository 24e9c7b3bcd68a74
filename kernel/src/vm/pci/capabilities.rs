//! The capability list that a guest sees: what is known to be harmless, linked anew.

use ::pci::spec::capability::{id, power_management};
use ::pci::spec::express::{CAPABILITIES, DEVICE_CAPABILITIES, FUNCTION_LEVEL_RESET_CAPABLE};
use ::pci::spec::msi::{MSIX_ENABLE, MSIX_FUNCTION_MASK, MSIX_LENGTH};
use ::pci::{Capabilities, ConfigSpace, FunctionDescription};
use addr::PciAddress;

/// What may be shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// In D0, and nothing else can be chosen: in D3hot the hypervisor could not reach the MSI-X table.
    PowerManagement,
    /// The real registers, read-only, without function level reset: it would clear what the hypervisor has set up.
    Express,
    /// The message control of the guest's table.
    Msix,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Visible {
    kind: Kind,
    offset: u8,
    /// Offset of the first byte behind it, up to 256.
    end: u16,
    /// Offset of the next one, or 0.
    next: u8,
}

/// The list that a guest sees, in the order of the real one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct VisibleCapabilities([Option<Visible>; 3]);

impl VisibleCapabilities {
    /// Chooses from the real function's list. MSI is hidden, with MSI-X in its place or not: its message would have to
    /// be emulated too.
    pub fn new<C: ConfigSpace>(config: &C, function: &FunctionDescription) -> Self {
        let address = function.address();
        let msix = function.msix.ok().flatten();
        let mut list = [None; 3];
        let mut places = list.iter_mut();
        for capability in Capabilities::new(config, address) {
            let offset = Some(capability.offset);
            let (kind, length) = match capability.id {
                id::POWER_MANAGEMENT if function.power_management == offset => {
                    (Kind::PowerManagement, power_management::LENGTH)
                }
                id::PCI_EXPRESS if function.express.map(|express| express.offset) == offset => {
                    (Kind::Express, function.express.map_or(0, |express| express.length()))
                }
                id::MSI_X if msix.map(|msix| msix.offset) == offset => (Kind::Msix, MSIX_LENGTH),
                _ => continue,
            };
            // A capability ends where the next one begins, shown or not: a longer one would show what is hidden.
            let next_begins = Capabilities::new(config, address)
                .map(|other| u16::from(other.offset))
                .filter(|other| *other > u16::from(capability.offset))
                .min()
                .unwrap_or(0x100);
            let end = (u16::from(capability.offset) + u16::from(length)).min(next_begins);
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
        Self(list)
    }

    /// Offset of the first capability, or 0.
    pub fn first(&self) -> u8 {
        self.0.iter().flatten().next().map_or(0, |visible| visible.offset)
    }

    /// What the dword at `offset` (0x40 and above) reads; 0 where nothing is shown. `table` is the guest's message control.
    pub fn read_dword<C: ConfigSpace>(
        &self,
        config: &C,
        function: PciAddress,
        offset: u8,
        message_control: MessageControl,
    ) -> u32 {
        let begins = |visible: &&Visible| visible.offset <= offset && u16::from(offset) < visible.end;
        let Some(visible) = self.0.iter().flatten().find(begins) else { return 0 };
        let register = u16::from(offset - visible.offset);
        let offset = u16::from(offset);
        let header = |id: u8, upper: u16| u32::from(id) | u32::from(visible.next) << 8 | u32::from(upper) << 16;
        match (visible.kind, register) {
            (Kind::PowerManagement, 0) => {
                let real = config.read16(function, offset + power_management::CAPABILITIES);
                header(id::POWER_MANAGEMENT, real & power_management::VERSION)
            }
            (Kind::PowerManagement, _) => u32::from(power_management::NO_SOFT_RESET),
            (Kind::Express, 0) => header(id::PCI_EXPRESS, config.read16(function, offset + CAPABILITIES)),
            (Kind::Express, DEVICE_CAPABILITIES) => config.read32(function, offset) & !FUNCTION_LEVEL_RESET_CAPABLE,
            (Kind::Express, _) => config.read32(function, offset),
            (Kind::Msix, 0) => header(id::MSI_X, message_control.bits()),
            (Kind::Msix, _) => config.read32(function, offset),
        }
    }
}

/// The message control register of a guest's MSI-X capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct MessageControl {
    /// The number of table entries less one.
    pub last_entry: u16,
    /// MSI-X is enabled.
    pub enabled: bool,
    /// All entries are masked.
    pub function_masked: bool,
}

impl MessageControl {
    fn bits(self) -> u16 {
        let mut bits = self.last_entry;
        if self.enabled {
            bits |= MSIX_ENABLE;
        }
        if self.function_masked {
            bits |= MSIX_FUNCTION_MASK;
        }
        bits
    }
}
