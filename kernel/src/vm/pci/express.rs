//! The control registers of the guest's PCI Express capability. What they say about the path to the function (payload
//! sizes, link, error reports) concerns the machine, whose owner set it up: the guest reads back what it wrote, and the
//! real registers keep theirs. PCI Express Base section 7.5.3.

use super::lanes::Lanes;
use ::pci::spec::express::{
    DEVICE_CONTROL, DEVICE_CONTROL_2, DEVICE_ERRORS, DEVICE_STATUS, INITIATE_FUNCTION_LEVEL_RESET, LINK_CONTROL,
    LINK_CONTROL_2, MAXIMUM_READ_REQUEST, RELAXED_ORDERING,
};
use ::pci::{ConfigSpace, ExpressCapability};
use addr::PciAddress;

/// What of device control the real register gets. Not the payload size, which must be that of every port on the way; not
/// requests without snooping, because the processor's caches are not written back when the guest asks for it.
const PASSED: u16 = RELAXED_ORDERING | MAXIMUM_READ_REQUEST;
/// The registers that the guest writes, each with its status beside it.
const CONTROLS: [u16; 4] = [DEVICE_CONTROL, LINK_CONTROL, DEVICE_CONTROL_2, LINK_CONTROL_2];

/// The control registers of one function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct GuestExpress {
    capability: ExpressCapability,
    controls: [u16; 4],
    /// What they were at first.
    initial: [u16; 4],
}

impl GuestExpress {
    /// The registers as the real function has them now.
    pub fn new<C: ConfigSpace>(config: &C, host: PciAddress, capability: ExpressCapability) -> Self {
        let controls = CONTROLS.map(|register| match capability.register(register) {
            Some(offset) if register < capability.length().into() => config.read16(host, offset),
            _ => 0,
        });
        Self { capability, controls, initial: controls }
    }

    /// As after a reset.
    pub fn reset(&mut self) {
        self.controls = self.initial;
    }

    /// The control register at `register` of the capability, if that is one.
    pub fn control(&self, register: u16) -> Option<u16> {
        self.controls.into_iter().zip(CONTROLS).find_map(|(value, at)| (at == register).then_some(value))
    }

    /// Writes a part of the dword at `register` of the capability. Says whether the guest asks for a reset.
    pub fn write<C: ConfigSpace>(
        &mut self,
        config: &mut C,
        host: PciAddress,
        register: u16,
        lanes: Lanes,
        value: u32,
    ) -> bool {
        let own = self.controls.iter_mut().zip(CONTROLS).find(|(_, at)| *at == register);
        let Some((control, _)) = own else { return false };
        let merged = lanes.merge((*control).into(), value) as u16;
        *control = merged & !INITIATE_FUNCTION_LEVEL_RESET;
        if register != DEVICE_CONTROL {
            return false;
        }
        if let Some(offset) = self.capability.register(DEVICE_CONTROL) {
            let real = config.read16(host, offset);
            let wanted = (real & !PASSED | merged & PASSED) & !INITIATE_FUNCTION_LEVEL_RESET;
            if wanted != real {
                config.write16(host, offset, wanted);
            }
        }
        let errors = (lanes.position(value) >> 16) as u16 & DEVICE_ERRORS;
        if let (1.., Some(offset)) = (errors, self.capability.register(DEVICE_STATUS)) {
            config.write16(host, offset, errors);
        }
        merged & INITIATE_FUNCTION_LEVEL_RESET != 0 && self.capability.function_level_reset_capable()
    }
}
