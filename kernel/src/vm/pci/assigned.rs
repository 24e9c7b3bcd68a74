//! A real function as its guest sees it.

use super::DeviceMessage;
use super::bars::GuestBars;
use super::capabilities::{Kind, Visible, VisibleCapabilities, msix_control};
use super::command::GuestCommand;
use super::effect::{EffectSink, MsixEffect, PciEffect, PciEffectKind, Refusal};
use super::express::GuestExpress;
use super::lanes::Lanes;
use super::msi::GuestMsi;
use super::msix_table::MsixTable;
use super::sriov::GuestSriov;
use ::pci::spec::capability::{FIRST_EXTENDED_OFFSET, power_management};
use ::pci::spec::header::command::BUS_MASTER;
use ::pci::spec::header::{
    BAR0, CACHE_LINE_SIZE, CAPABILITIES_POINTER, COMMAND, HEADER_MULTI_FUNCTION, INTERRUPT_LINE, PROGRAMMING_INTERFACE,
    STATUS, SUBSYSTEM_VENDOR_ID, VENDOR_ID, status,
};
use ::pci::spec::msi::{MSI_ENABLE, MSIX_ENABLE, MSIX_FUNCTION_MASK};
use ::pci::{Bar, ConfigSpace, FunctionDescription, HeaderType, MsixCapability, MsixError, Width};
use addr::{Bdf, HostPhys, PciAddress};
use alloc::boxed::Box;
use core::fmt;

mod decoding;
mod trapped;
mod virtual_function;

pub use trapped::{TrappedRead, TrappedWrite};
use virtual_function::VirtualFunction;

/// Why a function cannot be shown to a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AssignError {
    /// A bridge, or a header that no specification has.
    NotAnEndpoint,
    /// The base address register with this number gives answers without sense.
    InvalidBar(u8),
    /// The memory range with this register's number has no address.
    Unplaced(u8),
    /// The MSI-X capability makes no sense.
    Msix(MsixError),
}

impl fmt::Display for AssignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnEndpoint => write!(f, "not an endpoint"),
            Self::InvalidBar(index) => write!(f, "BAR {index} answers without sense"),
            Self::Unplaced(index) => write!(f, "BAR {index} has no address"),
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
    pub(super) bars: GuestBars,
    capabilities: VisibleCapabilities,
    interrupt_line: u8,
    /// What the guest set in power management, bits 1:0: the real function stays in D0.
    power_state: u16,
    express: Option<GuestExpress>,
    msi: Option<GuestMsi>,
    msix: Option<Msix>,
    /// The virtual functions that it shows.
    sriov: Option<Box<GuestSriov>>,
    virtual_function: Option<VirtualFunction>,
}

#[derive(Debug)]
struct Msix {
    capability: MsixCapability,
    table: MsixTable,
}

impl AssignedFunction {
    /// The function of `description`, for a guest that finds it at `guest`, without addresses: its bus gives them. `msi` is
    /// what it is to send if the guest uses MSI; without it the guest sees none. Only reads: [`Self::prepare`] is next.
    ///
    /// # Errors
    /// [`AssignError`].
    #[inline(never)]
    pub fn new<C: ConfigSpace>(
        config: &C,
        description: &FunctionDescription,
        guest: Bdf,
        msi: Option<DeviceMessage>,
    ) -> Result<Self, AssignError> {
        if description.info.header_type != HeaderType::Endpoint {
            return Err(AssignError::NotAnEndpoint);
        }
        if let Some(index) = description.bars.invalid() {
            return Err(AssignError::InvalidBar(index));
        }
        for (index, range) in description.bars.iter() {
            let Bar::Memory { address, .. } = range else { continue };
            if address.as_u64() == 0 {
                return Err(AssignError::Unplaced(index));
            }
        }
        let msix = match description.msix.map_err(AssignError::Msix)? {
            Some(capability) => {
                for region in [capability.table, capability.pending_bits] {
                    region.locate(&description.bars).map_err(AssignError::Msix)?;
                }
                Some(Msix { capability, table: MsixTable::new(capability.entries) })
            }
            None => None,
        };
        let host = description.address();
        Ok(Self {
            host,
            guest,
            description: *description,
            command: GuestCommand::new(::pci::read_command(config, host)),
            bars: GuestBars::new(&description.bars),
            capabilities: VisibleCapabilities::new(config, description, msi.is_some()),
            interrupt_line: 0xFF,
            power_state: 0,
            express: description.express.map(|express| GuestExpress::new(config, host, express)),
            msi: description.msi.zip(msi).map(|(capability, message)| GuestMsi::new(capability, message)),
            msix,
            sriov: None,
            virtual_function: None,
        })
    }

    /// Puts the real function into the state that the guest's view says: memory decoding on, bus mastering, I/O decoding,
    /// INTx, MSI and MSI-X off. After this, and before the guest runs, every real MSI-X entry is to be masked.
    pub fn prepare<C: ConfigSpace>(&self, config: &mut C) {
        config.write16(self.host, COMMAND, self.command.real());
        match (&self.msi, self.description.msi) {
            (Some(msi), _) => msi.prepare(config, self.host),
            (None, Some(hidden)) => hidden.disable(config, self.host),
            (None, None) => {}
        }
        if let Some(msix) = &self.msix {
            msix.capability.set_control(config, self.host, false, false);
        }
    }

    /// Takes DMA and interrupts from the function, for good: bus mastering, MSI and MSI-X go off and stay off whatever the
    /// guest writes, and every live entry is masked.
    pub fn quarantine<C: ConfigSpace>(&mut self, config: &mut C, effects: &mut EffectSink<'_>) {
        self.command.quarantined = true;
        config.write16(self.host, COMMAND, self.command.real());
        if let Some(msix) = &self.msix {
            // Masked whole and not switched off: a function without MSI-X may go back to INTx, and a model of one may not
            // expect it in the midst of its work (QEMU's e1000e ends QEMU).
            msix.capability.set_control(config, self.host, msix.table.enabled(), true);
        }
        self.stop_guest_messages(config, effects);
        self.hide_virtual_functions(GuestSriov::switch_off, effects);
    }

    /// Stops MSI and MSI-X, the real ones first.
    fn stop_messages<C: ConfigSpace>(&mut self, config: &mut C, effects: &mut EffectSink<'_>) {
        if let Some(msix) = &self.msix {
            msix.capability.set_control(config, self.host, false, false);
        }
        self.stop_guest_messages(config, effects);
    }

    /// Stops MSI, and what the guest has set of MSI-X; the real MSI-X is as it was.
    fn stop_guest_messages<C: ConfigSpace>(&mut self, config: &mut C, effects: &mut EffectSink<'_>) {
        if let Some(msi) = &mut self.msi {
            msi.switch_off(config, self.host);
        }
        if let Some(msix) = &mut self.msix {
            msix.table.set_control(false, false, &mut in_function(self.host, effects));
        }
    }

    /// The guest resets the function: all that it has set is as at the start. Its ranges have no addresses then, as on
    /// hardware; what stands behind them is taken away with the decoding.
    fn reset<C: ConfigSpace>(&mut self, config: &mut C, effects: &mut EffectSink<'_>) {
        self.forget(config, effects);
        for index in 0..6 {
            self.bars.write(index, 0);
        }
        self.hide_virtual_functions(GuestSriov::reset, effects);
        self.effect(PciEffectKind::Reset, effects);
    }

    /// All that the guest has set is as at the start, but for addresses.
    fn forget<C: ConfigSpace>(&mut self, config: &mut C, effects: &mut EffectSink<'_>) {
        self.stop_messages(config, effects);
        self.command.reset();
        config.write16(self.host, COMMAND, self.command.real());
        self.interrupt_line = 0xFF;
        self.power_state = 0;
        if let Some(msix) = &mut self.msix {
            msix.table = MsixTable::new(msix.capability.entries);
        }
        if let Some(msi) = &mut self.msi {
            msi.reset();
        }
        if let Some(express) = &mut self.express {
            express.reset();
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

    /// Where the real function answers in memory space: first byte and size in bytes.
    pub fn host_ranges(&self) -> impl Iterator<Item = (HostPhys, u64)> + '_ {
        self.description.bars.iter().filter_map(|(_, range)| match range {
            Bar::Memory { address, size, .. } => Some((address, size)),
            Bar::Io { .. } => None,
        })
    }

    /// A guest's read in the function's configuration space. Reads of two dwords at once give all ones.
    pub fn read<C: ConfigSpace>(&self, config: &C, offset: u16, width: Width) -> u32 {
        match Lanes::new(offset, width) {
            Some(lanes) => lanes.extract(self.read_dword(config, lanes.dword)),
            None => width.mask(),
        }
    }

    fn read_dword<C: ConfigSpace>(&self, config: &C, offset: u16) -> u32 {
        const CLASS: u16 = PROGRAMMING_INTERFACE - 1;
        match offset {
            at @ (VENDOR_ID | CLASS | SUBSYSTEM_VENDOR_ID) => config.read32(self.host, at),
            COMMAND => {
                let mut real =
                    config.read16(self.host, STATUS) & !(status::CAPABILITIES_LIST | status::INTERRUPT_STATUS);
                if self.capabilities.first() != 0 {
                    real |= status::CAPABILITIES_LIST;
                }
                u32::from(self.command.guest()) | u32::from(real) << 16
            }
            // No self test, and one function in the guest's device whatever the real one has.
            CACHE_LINE_SIZE => {
                config.read32(self.host, CACHE_LINE_SIZE) & 0x00FF_FFFF & !(u32::from(HEADER_MULTI_FUNCTION) << 16)
            }
            0x10..0x28 if self.virtual_function.is_none() => self.bars.read(bar_index(offset)),
            CAPABILITIES_POINTER => self.capabilities.first().into(),
            // Interrupt pin 0: there is no INTx.
            INTERRUPT_LINE => self.interrupt_line.into(),
            FIRST_EXTENDED_OFFSET.. => match (&self.sriov, self.sriov_register(offset)) {
                (Some(sriov), Some(register)) => sriov.read(register),
                (sriov, _) => self.capabilities.read_extended(config, self.host, offset, sriov.is_some()),
            },
            0x40.. => self.capabilities.at(offset).map_or(0, |visible| self.read_capability(config, visible, offset)),
            _ => 0,
        }
    }

    fn read_capability<C: ConfigSpace>(&self, config: &C, visible: &Visible, offset: u16) -> u32 {
        let register = offset - u16::from(visible.offset);
        match (visible.kind, register) {
            (Kind::PowerManagement, 0) => {
                let real = config.read16(self.host, offset + power_management::CAPABILITIES);
                visible.header(real & power_management::VERSION)
            }
            (Kind::PowerManagement, _) => u32::from(power_management::NO_SOFT_RESET | self.power_state),
            (Kind::Express, 0) => visible.header(config.read16(self.host, offset + 2)),
            (Kind::Express, _) => match self.express.and_then(|express| express.control(register)) {
                Some(control) => u32::from(control) | config.read32(self.host, offset) & 0xFFFF_0000,
                None => config.read32(self.host, offset),
            },
            (Kind::Msi, _) => {
                let value = self.msi.as_ref().map_or(0, |msi| msi.read(config, self.host, register));
                if register == 0 { visible.header((value >> 16) as u16) } else { value }
            }
            (Kind::Msix, 0) => visible.header(self.msix_control()),
            (Kind::Msix, _) => config.read32(self.host, offset),
        }
    }

    /// A guest's write in the function's configuration space. Writes over two dwords at once do nothing. Says whether what
    /// the function answers to may have changed.
    pub fn write<C: ConfigSpace>(
        &mut self,
        config: &mut C,
        offset: u16,
        width: Width,
        value: u32,
        effects: &mut EffectSink<'_>,
    ) -> bool {
        let Some(lanes) = Lanes::new(offset, width) else { return false };
        match lanes.dword {
            COMMAND => {
                let merged = lanes.merge(self.command.guest().into(), value);
                self.write_command(config, merged as u16, lanes, effects);
                // Of the status register only the bits that were written as 1: the others of the dword are not the guest's.
                let errors = (lanes.position(value) >> 16) as u16 & status::ERRORS;
                if errors != 0 {
                    config.write16(self.host, STATUS, errors);
                }
                true
            }
            0x10..0x28 if self.virtual_function.is_none() => {
                let index = bar_index(lanes.dword);
                self.bars.write(index, lanes.merge(self.bars.read(index), value));
                true
            }
            INTERRUPT_LINE => {
                self.interrupt_line = lanes.merge(self.interrupt_line.into(), value) as u8;
                false
            }
            0x40..FIRST_EXTENDED_OFFSET => match self.capabilities.at(lanes.dword).copied() {
                Some(visible) => self.write_capability(config, &visible, lanes, value, effects),
                None => false,
            },
            at => match self.sriov_register(at) {
                Some(register) => {
                    self.write_sriov(register, lanes, value, effects);
                    true
                }
                None => false,
            },
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

    fn write_capability<C: ConfigSpace>(
        &mut self,
        config: &mut C,
        visible: &Visible,
        lanes: Lanes,
        value: u32,
        effects: &mut EffectSink<'_>,
    ) -> bool {
        let register = lanes.dword - u16::from(visible.offset);
        let control = (lanes.position(value) >> 16) as u16;
        let quarantined = self.command.quarantined && register == 0;
        match visible.kind {
            Kind::PowerManagement if register == power_management::CONTROL_STATUS => {
                let state = lanes.merge(self.power_state.into(), value) as u16 & power_management::STATE;
                // D1 and D2 are not offered: a write of them does nothing.
                if state == 0 || state == power_management::D3_HOT {
                    self.power_state = state;
                }
            }
            Kind::PowerManagement => {}
            Kind::Express => {
                let express = self.express.as_mut();
                if express.is_some_and(|express| express.write(config, self.host, register, lanes, value)) {
                    self.reset(config, effects);
                    return true;
                }
            }
            Kind::Msi if quarantined && control & MSI_ENABLE != 0 => {
                self.refuse(Refusal::Quarantined { offset: lanes.offset(), width: lanes.width() }, effects);
            }
            Kind::Msi => {
                if let Some(msi) = &mut self.msi {
                    msi.write(config, self.host, register, lanes, value, effects);
                }
            }
            Kind::Msix if quarantined && control & MSIX_ENABLE != 0 => {
                self.refuse(Refusal::Quarantined { offset: lanes.offset(), width: lanes.width() }, effects);
            }
            Kind::Msix if register == 0 => self.write_msix_control(config, lanes, value, effects),
            Kind::Msix => {}
        }
        false
    }

    /// Message control is the upper half of the capability's first dword: guests write it alone, with the whole dword, or by
    /// its upper byte. Any other dword there is read-only.
    fn write_msix_control<C: ConfigSpace>(
        &mut self,
        config: &mut C,
        lanes: Lanes,
        value: u32,
        effects: &mut EffectSink<'_>,
    ) {
        let host = self.host;
        let before = self.msix_control();
        let Some(msix) = self.msix.as_mut() else { return };
        let after = (lanes.merge(u32::from(before) << 16, value) >> 16) as u16;
        let (enabled, masked) = (after & MSIX_ENABLE != 0, after & MSIX_FUNCTION_MASK != 0);
        if (after ^ before) & (MSIX_ENABLE | MSIX_FUNCTION_MASK) == 0 {
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

    fn msix_control(&self) -> u16 {
        self.msix.as_ref().map_or(0, |msix| {
            let last = msix.capability.entries.saturating_sub(1);
            msix_control(last, msix.table.enabled(), msix.table.function_masked())
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
    move |effect| {
        effects(PciEffect { function, kind: PciEffectKind::Msix(effect) });
    }
}

/// The number of the base address register at an offset from 0x10 to 0x27.
fn bar_index(offset: u16) -> u8 {
    (offset.saturating_sub(BAR0) / 4) as u8
}

#[cfg(test)]
mod tests;
