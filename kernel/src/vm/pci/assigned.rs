//! A real function as its guest sees it.

use super::bars::GuestBars;
use super::capabilities::{MessageControl, VisibleCapabilities};
use super::command::GuestCommand;
use super::effect::{EffectSink, MsixEffect, PciEffect, PciEffectKind, Refusal};
use super::lanes::Lanes;
use super::msix_table::MsixTable;
use ::pci::spec::header::command::{BUS_MASTER, IO_SPACE, MEMORY_SPACE};
use ::pci::spec::header::{
    BAR0, CACHE_LINE_SIZE, CAPABILITIES_POINTER, COMMAND, HEADER_MULTI_FUNCTION, INTERRUPT_LINE, PROGRAMMING_INTERFACE,
    STATUS, SUBSYSTEM_VENDOR_ID, VENDOR_ID, status,
};
use ::pci::spec::msi::{MSIX_ENABLE, MSIX_FUNCTION_MASK};
use ::pci::{Bar, ConfigSpace, FunctionDescription, HeaderType, MsixCapability, MsixError, Width};
use addr::{Bdf, HostPhys, PAGE_SIZE, PciAddress};
use core::fmt;

mod trapped;

pub use trapped::{TrappedRead, TrappedWrite};

/// Why a function cannot be shown to a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AssignError {
    /// A bridge, or a header that no specification has.
    NotAnEndpoint,
    /// The base address register with this number gives answers without sense.
    InvalidBar(u8),
    /// The memory range with this register's number has no address.
    Unplaced(u8),
    /// The memory range with this register's number does not fill pages: the guest would get what shares its page.
    SharesPage(u8),
    /// The MSI-X capability makes no sense.
    Msix(MsixError),
}

impl fmt::Display for AssignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnEndpoint => write!(f, "not an endpoint"),
            Self::InvalidBar(index) => write!(f, "BAR {index} answers without sense"),
            Self::Unplaced(index) => write!(f, "BAR {index} has no address"),
            Self::SharesPage(index) => write!(f, "BAR {index} shares a page with something else"),
            Self::Msix(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for AssignError {}

/// A real function as its guest sees it.
#[derive(Debug)]
pub struct AssignedFunction {
    host: PciAddress,
    guest: Bdf,
    description: FunctionDescription,
    command: GuestCommand,
    bars: GuestBars,
    capabilities: VisibleCapabilities,
    interrupt_line: u8,
    msix: Option<Msix>,
}

#[derive(Debug)]
struct Msix {
    capability: MsixCapability,
    table: MsixTable,
    /// Where the table is, for host and guest alike.
    address: HostPhys,
}

impl AssignedFunction {
    /// The function of `description`, for a guest that finds it at `guest`. Only reads: [`Self::prepare`] is next.
    ///
    /// # Errors
    /// [`AssignError`].
    pub fn new<C: ConfigSpace>(config: &C, description: &FunctionDescription, guest: Bdf) -> Result<Self, AssignError> {
        if description.info.header_type != HeaderType::Endpoint {
            return Err(AssignError::NotAnEndpoint);
        }
        if let Some(index) = description.bars.invalid() {
            return Err(AssignError::InvalidBar(index));
        }
        for (index, range) in description.bars.iter() {
            let Bar::Memory { address, size, .. } = range else { continue };
            if address.as_u64() == 0 {
                return Err(AssignError::Unplaced(index));
            }
            if size < PAGE_SIZE || !address.is_aligned(PAGE_SIZE) {
                return Err(AssignError::SharesPage(index));
            }
        }
        let msix = match description.msix.map_err(AssignError::Msix)? {
            Some(capability) => {
                capability.pending_bits.locate(&description.bars).map_err(AssignError::Msix)?;
                Some(Msix {
                    capability,
                    table: MsixTable::new(capability.entries),
                    address: capability.table.locate(&description.bars).map_err(AssignError::Msix)?,
                })
            }
            None => None,
        };
        Ok(Self {
            host: description.address(),
            guest,
            description: *description,
            command: GuestCommand::new(::pci::read_command(config, description.address())),
            bars: GuestBars::new(&description.bars),
            capabilities: VisibleCapabilities::new(config, description),
            interrupt_line: 0xFF,
            msix,
        })
    }

    /// Puts the real function into the state that the guest's view says: memory decoding on, bus mastering, I/O decoding,
    /// INTx, MSI and MSI-X off. After this, and before the guest runs, every real MSI-X entry is to be masked.
    pub fn prepare<C: ConfigSpace>(&self, config: &mut C) {
        config.write16(self.host, COMMAND, self.command.real());
        if let Some(msi) = self.description.msi {
            msi.disable(config, self.host);
        }
        if let Some(msix) = &self.msix {
            msix.capability.set_control(config, self.host, false, false);
        }
    }

    /// Takes DMA and interrupts from the function, for good: bus mastering and MSI-X go off and stay off whatever the guest
    /// writes, and every live entry is masked.
    pub fn quarantine<C: ConfigSpace>(&mut self, config: &mut C, effects: &mut EffectSink<'_>) {
        self.command.quarantined = true;
        config.write16(self.host, COMMAND, self.command.real());
        if let Some(msix) = &mut self.msix {
            msix.capability.set_control(config, self.host, false, false);
            msix.table.set_control(false, false, &mut in_function(self.host, effects));
        }
    }

    /// The real function.
    pub fn host(&self) -> PciAddress {
        self.host
    }

    /// Where the guest finds it.
    pub fn guest(&self) -> Bdf {
        self.guest
    }

    /// The description that it was made of.
    pub fn description(&self) -> &FunctionDescription {
        &self.description
    }

    /// The guest's MSI-X table.
    pub fn msix_table(&self) -> Option<&MsixTable> {
        self.msix.as_ref().map(|msix| &msix.table)
    }

    /// The ranges to be mapped for the guest at their own addresses: first byte, size in bytes, and whether it is
    /// prefetchable. The [`Self::trapped_pages`] in them are to be left out.
    pub fn memory_ranges(&self) -> impl Iterator<Item = (HostPhys, u64, bool)> + '_ {
        self.description.bars.iter().filter_map(|(_, range)| match range {
            Bar::Memory { address, size, prefetchable, .. } => Some((address, size, prefetchable)),
            Bar::Io { .. } => None,
        })
    }

    /// The port ranges to be opened for the guest: first port and number of ports.
    pub fn port_ranges(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        self.description.bars.iter().filter_map(|(_, range)| match range {
            Bar::Io { port, size } if port != 0 => Some((u16::try_from(port).ok()?, u16::try_from(size).ok()?)),
            _ => None,
        })
    }

    /// A guest's read in the function's configuration space. Reads of two dwords at once give all ones.
    pub fn read<C: ConfigSpace>(&self, config: &C, offset: u8, width: Width) -> u32 {
        match Lanes::new(offset, width) {
            Some(lanes) => lanes.extract(self.read_dword(config, lanes.dword)),
            None => width.mask(),
        }
    }

    fn read_dword<C: ConfigSpace>(&self, config: &C, offset: u8) -> u32 {
        const CLASS: u16 = PROGRAMMING_INTERFACE - 1;
        match u16::from(offset) {
            at @ (VENDOR_ID | CLASS | SUBSYSTEM_VENDOR_ID) => config.read32(self.host, at),
            COMMAND => {
                let mut real = config.read16(self.host, STATUS) & !status::CAPABILITIES_LIST;
                if self.capabilities.first() != 0 {
                    real |= status::CAPABILITIES_LIST;
                }
                u32::from(self.command.guest()) | u32::from(real) << 16
            }
            // No self test, and one function in the guest's device whatever the real one has.
            CACHE_LINE_SIZE => {
                config.read32(self.host, CACHE_LINE_SIZE) & 0x00FF_FFFF & !(u32::from(HEADER_MULTI_FUNCTION) << 16)
            }
            0x10..0x28 => self.bars.read(bar_index(offset)),
            CAPABILITIES_POINTER => self.capabilities.first().into(),
            // Interrupt pin 0: there is no INTx.
            INTERRUPT_LINE => self.interrupt_line.into(),
            0x40.. => self.capabilities.read_dword(config, self.host, offset, self.message_control()),
            _ => 0,
        }
    }

    /// A guest's write in the function's configuration space. Writes over two dwords at once do nothing.
    pub fn write<C: ConfigSpace>(
        &mut self,
        config: &mut C,
        offset: u8,
        width: Width,
        value: u32,
        effects: &mut EffectSink<'_>,
    ) {
        let Some(lanes) = Lanes::new(offset, width) else { return };
        match u16::from(lanes.dword) {
            COMMAND => {
                let merged = lanes.merge(self.command.guest().into(), value);
                self.write_command(config, merged as u16, lanes, effects);
                // Of the status register only the bits that were written as 1: the others of the dword are not the guest's.
                let errors = (lanes.position(value) >> 16) as u16 & status::ERRORS;
                if errors != 0 {
                    config.write16(self.host, STATUS, errors);
                }
            }
            0x10..0x28 => {
                let index = bar_index(lanes.dword);
                let merged = lanes.merge(self.bars.read(index), value);
                if !self.bars.write(index, merged) {
                    self.refuse(Refusal::BarMove { index, requested: merged }, effects);
                }
            }
            INTERRUPT_LINE => self.interrupt_line = lanes.merge(self.interrupt_line.into(), value) as u8,
            _ => self.write_message_control(config, lanes, value, effects),
        }
    }

    fn write_command<C: ConfigSpace>(
        &mut self,
        config: &mut C,
        value: u16,
        lanes: Lanes,
        effects: &mut EffectSink<'_>,
    ) {
        let before = self.command;
        self.command.set_guest(value);
        let after = self.command;
        if after == before {
            return;
        }
        let decoding = |command: GuestCommand| (command.has(MEMORY_SPACE), command.has(IO_SPACE));
        if decoding(after) != decoding(before) {
            let (memory, io) = decoding(after);
            self.effect(PciEffectKind::Decoding { memory, io }, effects);
        }
        let master = after.has(BUS_MASTER);
        let master_changed = master != before.has(BUS_MASTER);
        if master_changed && master && after.quarantined {
            self.refuse(Refusal::Quarantined { offset: lanes.offset(), width: lanes.width() }, effects);
        }
        if master_changed && master && !after.quarantined {
            self.effect(PciEffectKind::BusMaster { enabled: true }, effects);
        }
        if after.real() != before.real() {
            config.write16(self.host, COMMAND, after.real());
        }
        if master_changed && !master && !after.quarantined {
            self.effect(PciEffectKind::BusMaster { enabled: false }, effects);
        }
    }

    /// Message control is the upper half of the capability's first dword: guests write it alone, with the whole dword, or by
    /// its upper byte. Any other dword here is read-only.
    fn write_message_control<C: ConfigSpace>(
        &mut self,
        config: &mut C,
        lanes: Lanes,
        value: u32,
        effects: &mut EffectSink<'_>,
    ) {
        let host = self.host;
        let Some(msix) = self.msix.as_mut().filter(|msix| msix.capability.offset == lanes.dword) else { return };
        let bits = |enabled, masked| {
            u32::from(if enabled { MSIX_ENABLE } else { 0 } | if masked { MSIX_FUNCTION_MASK } else { 0 }) << 16
        };
        let before = bits(msix.table.enabled(), msix.table.function_masked());
        let after = (lanes.merge(before, value) >> 16) as u16;
        let (enabled, masked) = (after & MSIX_ENABLE != 0, after & MSIX_FUNCTION_MASK != 0);
        if bits(enabled, masked) == before {
            return;
        }
        if enabled && self.command.quarantined {
            self.refuse(Refusal::Quarantined { offset: lanes.offset(), width: lanes.width() }, effects);
            return;
        }
        // Routes before the function is let go, and the function stopped before entries are masked one by one.
        let stops = !enabled || masked;
        if stops {
            msix.capability.set_control(config, host, enabled, masked);
        }
        msix.table.set_control(enabled, masked, &mut in_function(host, effects));
        if !stops {
            msix.capability.set_control(config, host, enabled, masked);
        }
    }

    fn message_control(&self) -> MessageControl {
        self.msix.as_ref().map_or_else(MessageControl::default, |msix| MessageControl {
            last_entry: msix.capability.entries.saturating_sub(1),
            enabled: msix.table.enabled(),
            function_masked: msix.table.function_masked(),
        })
    }

    fn refuse(&self, refusal: Refusal, effects: &mut EffectSink<'_>) {
        self.effect(PciEffectKind::Refused(refusal), effects);
    }

    fn effect(&self, kind: PciEffectKind, effects: &mut EffectSink<'_>) {
        effects(PciEffect { function: self.host, kind });
    }
}

/// Effects of a table as effects of its function.
fn in_function<'a>(function: PciAddress, effects: &'a mut EffectSink<'_>) -> impl FnMut(MsixEffect) + 'a {
    move |effect| effects(PciEffect { function, kind: PciEffectKind::Msix(effect) })
}

/// The number of the base address register at an offset from 0x10 to 0x27.
fn bar_index(offset: u8) -> u8 {
    offset.saturating_sub(BAR0 as u8) / 4
}

#[cfg(test)]
mod tests;
