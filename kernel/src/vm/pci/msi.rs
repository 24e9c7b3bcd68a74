//! The MSI capability that the guest writes; the real one is the hypervisor's.

use super::effect::{EffectSink, MsiEffect, PciEffect, PciEffectKind};
use super::lanes::Lanes;
use super::{DeviceMessage, GuestMessage};
use ::pci::spec::msi::{
    MSI_64_BIT, MSI_ADDRESS, MSI_ADDRESS_HIGH, MSI_ENABLE, MSI_MULTIPLE_CAPABLE_SHIFT, MSI_MULTIPLE_ENABLE,
    MSI_MULTIPLE_ENABLE_SHIFT, MSI_PER_VECTOR_MASKING,
};
use ::pci::{ConfigSpace, MsiCapability};
use addr::PciAddress;

/// What the real function does, as far as effects have said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Route {
    Off,
    Live {
        message: GuestMessage,
        vectors: u8,
    },
    /// Off, because of this message.
    Unroutable {
        address: u64,
        data: u16,
    },
}

/// A guest's MSI.
#[derive(Debug)]
pub(super) struct GuestMsi {
    capability: MsiCapability,
    real: DeviceMessage,
    enabled: bool,
    /// Logarithm of the number of vectors that the guest gave.
    exponent: u16,
    address: u64,
    data: u16,
    mask: u32,
    route: Route,
}

impl GuestMsi {
    /// MSI as after a reset, for a real function that is to send `real`.
    pub fn new(capability: MsiCapability, real: DeviceMessage) -> Self {
        Self { capability, real, enabled: false, exponent: 0, address: 0, data: 0, mask: 0, route: Route::Off }
    }

    /// Brings the real function to the state after a reset: off, and no vector masked.
    pub fn prepare<C: ConfigSpace>(&self, config: &mut C, host: PciAddress) {
        self.capability.disable(config, host);
        self.capability.set_mask(config, host, 0);
    }

    /// Forgets what the guest set, after [`Self::switch_off`].
    pub fn reset(&mut self) {
        *self = Self::new(self.capability, self.real);
    }

    /// Switches it off: the real function first.
    pub fn switch_off<C: ConfigSpace>(&mut self, config: &mut C, host: PciAddress) {
        self.capability.disable(config, host);
        self.enabled = false;
        self.route = Route::Off;
    }

    /// What the dword at `register` of the capability reads; of the first one the upper half.
    pub fn read<C: ConfigSpace>(&self, config: &C, host: PciAddress, register: u16) -> u32 {
        let capability = &self.capability;
        match register {
            0 => u32::from(self.control()) << 16,
            MSI_ADDRESS => self.address as u32,
            MSI_ADDRESS_HIGH if capability.is_64_bit => (self.address >> 32) as u32,
            at if at == capability.data_register() => self.data.into(),
            at if Some(at) == capability.mask_register() => self.mask,
            at if Some(at) == capability.pending_register() => config.read32(host, u16::from(capability.offset) + at),
            _ => 0,
        }
    }

    /// Writes a part of the dword at `register` of the capability.
    pub fn write<C: ConfigSpace>(
        &mut self,
        config: &mut C,
        host: PciAddress,
        register: u16,
        lanes: Lanes,
        value: u32,
        effects: &mut EffectSink<'_>,
    ) {
        let merged = lanes.merge(self.read(config, host, register), value);
        let capability = self.capability;
        match register {
            0 => {
                let control = (merged >> 16) as u16;
                self.enabled = control & MSI_ENABLE != 0;
                let capable = capability.vectors.max(1).ilog2() as u16;
                self.exponent = ((control & MSI_MULTIPLE_ENABLE) >> MSI_MULTIPLE_ENABLE_SHIFT).min(capable);
            }
            MSI_ADDRESS => self.address = self.address & !0xFFFF_FFFF | u64::from(merged & !3),
            MSI_ADDRESS_HIGH if capability.is_64_bit => {
                self.address = self.address & 0xFFFF_FFFF | u64::from(merged) << 32;
            }
            at if at == capability.data_register() => self.data = merged as u16,
            at if Some(at) == capability.mask_register() => {
                let used = u32::MAX >> (32 - u32::from(capability.vectors.clamp(1, 32)));
                if self.mask != merged & used {
                    self.mask = merged & used;
                    capability.set_mask(config, host, self.mask);
                }
                return;
            }
            _ => return,
        }
        self.update(config, host, effects);
    }

    fn control(&self) -> u16 {
        let capability = &self.capability;
        let flag = |is_set, bit| if is_set { bit } else { 0 };
        flag(self.enabled, MSI_ENABLE)
            | (capability.vectors.max(1).ilog2() as u16) << MSI_MULTIPLE_CAPABLE_SHIFT
            | self.exponent << MSI_MULTIPLE_ENABLE_SHIFT
            | flag(capability.is_64_bit, MSI_64_BIT)
            | flag(capability.per_vector_masking, MSI_PER_VECTOR_MASKING)
    }

    /// Lets the real function do what the guest's says. Its message never changes: another address or other data of the
    /// guest's change where the remapping entries lead. An address and data are taken as they are at each moment, as
    /// hardware does: a guest that changes them one after the other while MSI is enabled may get what stands between.
    fn update<C: ConfigSpace>(&mut self, config: &mut C, host: PciAddress, effects: &mut EffectSink<'_>) {
        let before = self.route;
        let vectors = 1 << self.exponent;
        let decoded = GuestMessage::decode(self.address, self.data.into());
        self.route = match decoded {
            _ if !self.enabled => Route::Off,
            Ok(message) => Route::Live { message, vectors },
            // Linux clears the message before it switches MSI off.
            Err(_) if self.address == 0 => Route::Off,
            Err(_) => Route::Unroutable { address: self.address, data: self.data },
        };
        if self.route == before {
            return;
        }
        let was_sending = match before {
            Route::Live { vectors, .. } => Some(vectors),
            Route::Off | Route::Unroutable { .. } => None,
        };
        let mut effect = |kind| effects(PciEffect { function: host, kind: PciEffectKind::Msi(kind) });
        if let Route::Live { message, vectors } = self.route {
            if !effect(MsiEffect::Route { message, vectors }) {
                self.capability.disable(config, host);
                self.route = Route::Off;
            } else if was_sending != Some(vectors) {
                let DeviceMessage { address, data } = self.real;
                self.capability.program(config, host, address, data as u16, vectors);
            }
            return;
        }
        if was_sending.is_some() {
            self.capability.disable(config, host);
        }
        if let (Route::Unroutable { address, data }, Err(reason)) = (self.route, decoded) {
            effect(MsiEffect::Unroutable { address, data, reason });
        }
    }
}

#[cfg(test)]
mod tests;
