//! A virtual function as its guest sees it, and the physical one that it belongs to: it is there while that says so, and
//! its ranges are where the registers of that one put them. PCI Express Base section 9.3.4.

use super::super::sriov::GuestSriov;
use super::super::{EffectSink, PciEffectKind, Refusal};
use super::{AssignedFunction, Lanes};
use ::pci::ConfigSpace;
use ::pci::spec::sriov::{CONTROL, LENGTH, VF_ENABLE};
use addr::PciAddress;
use alloc::boxed::Box;

/// What makes a function a virtual one.
#[derive(Clone, Copy, Debug)]
pub(super) struct VirtualFunction {
    /// The real physical function.
    physical: PciAddress,
    /// Its number among the virtual ones, from 0.
    index: u16,
    present: bool,
    pub(super) decodes: bool,
}

impl AssignedFunction {
    /// Makes it virtual function `index` of the real physical function `physical`; it is absent, until that one shows it.
    pub fn into_virtual(mut self, physical: PciAddress, index: u16) -> Self {
        self.virtual_function = Some(VirtualFunction { physical, index, present: false, decodes: false });
        self.command.is_virtual = true;
        self
    }

    /// Shows the guest that `functions` are its virtual functions: in that order, one beside the other, and off.
    pub fn show_virtual_functions(&mut self, functions: &[AssignedFunction]) {
        let Some(first) = functions.first() else { return };
        let total = u16::try_from(functions.len()).unwrap_or(u16::MAX);
        self.sriov = Some(Box::new(GuestSriov::new(self.guest, first.guest, total, &first.description)));
    }

    /// Whether it is there: all are but virtual ones that are switched off.
    pub fn is_present(&self) -> bool {
        self.virtual_function.is_none_or(|own| own.present)
    }

    /// The real physical function that it belongs to, if it is a virtual one.
    pub fn physical(&self) -> Option<PciAddress> {
        self.virtual_function.map(|own| own.physical)
    }

    /// What it shows of virtual functions, and the real function that they belong to.
    pub(in super::super) fn virtual_functions(&self) -> Option<(PciAddress, GuestSriov)> {
        Some((self.host, **self.sriov.as_ref()?))
    }

    pub(in super::super) fn virtual_functions_mut(&mut self) -> Option<&mut GuestSriov> {
        self.sriov.as_deref_mut()
    }

    /// Does what `sriov`, which `physical` shows, says of it, if it belongs to that.
    pub(in super::super) fn follow<C: ConfigSpace>(
        &mut self,
        physical: PciAddress,
        sriov: &GuestSriov,
        config: &mut C,
        effects: &mut EffectSink<'_>,
    ) {
        let Some(mut own) = self.virtual_function.filter(|own| own.physical == physical) else { return };
        let present = own.index < sriov.present();
        // What was set in it is gone with it; the real one is still there.
        if own.present && !present {
            self.forget(config, effects);
        }
        own.present = present;
        own.decodes = present && sriov.decodes();
        self.virtual_function = Some(own);
        for register in 0..6 {
            if self.bars.range(register).is_some() {
                self.bars.set_address(register, sriov.address(register, own.index).unwrap_or(0));
            }
        }
    }

    /// A guest's write of a part of the dword at `register` of what it sees of virtual functions.
    pub(super) fn write_sriov(&mut self, register: u16, lanes: Lanes, value: u32, effects: &mut EffectSink<'_>) {
        let quarantined = self.command.quarantined;
        let Some(sriov) = &mut self.sriov else { return };
        let before = sriov.present();
        if quarantined && register == CONTROL && lanes.position(value) & u32::from(VF_ENABLE) != 0 {
            self.refuse(Refusal::Quarantined { offset: lanes.offset(), width: lanes.width() }, effects);
            return;
        }
        sriov.write(register, lanes, value);
        let count = sriov.present();
        if count != before {
            self.effect(PciEffectKind::VirtualFunctions { count }, effects);
        }
    }

    /// Switches its virtual functions off with `how`.
    pub(super) fn hide_virtual_functions(&mut self, how: fn(&mut GuestSriov), effects: &mut EffectSink<'_>) {
        let Some(sriov) = &mut self.sriov else { return };
        let before = sriov.present();
        how(sriov);
        if before != 0 {
            self.effect(PciEffectKind::VirtualFunctions { count: 0 }, effects);
        }
    }

    /// The offset in what the guest sees of virtual functions, if `offset` of configuration space is in it: behind the serial
    /// number if there is one, else at the start of the extended space.
    pub(super) fn sriov_register(&self, offset: u16) -> Option<u16> {
        let register = offset.checked_sub(self.capabilities.behind_serial_number())?;
        (self.sriov.is_some() && register < LENGTH).then_some(register)
    }
}
