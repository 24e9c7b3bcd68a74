//! Devices that keep translations themselves at work (ATS): a translated request is let through by its context alone.

use crate::descriptor::{DeviceTlbScope, Tagged};
use crate::fault::{Access, Fault, Reason};
use crate::memory::Memory;
use crate::request::{Request, fault};
use crate::unit::Unit;

impl Unit {
    /// From now on, a device answers no invalidation of its device-TLB, or does so again.
    pub fn set_silent(&mut self, source: u16, silent: bool) {
        match silent {
            true => self.device_tlbs.silent.insert(source),
            false => self.device_tlbs.silent.remove(&source),
        };
    }

    pub(crate) fn device_tlb_invalidated(&mut self, scope: DeviceTlbScope) {
        let DeviceTlbScope { source, of: tagged, first, last } = scope;
        if self.device_tlbs.silent.contains(&source) {
            return self.inject_invalidation_timeout(source);
        }
        self.device_tlbs.pages.retain(|&(of, pasid, page, _), _| {
            let other = match tagged {
                Tagged::Without => pasid.is_some(),
                Tagged::Pasid(named) => pasid != Some(named),
                Tagged::AnyPasid => pasid.is_none(),
            };
            of != source || other || page < first || page > last
        });
    }

    /// A device with a device-TLB accesses memory within one page: by what it was told, or it asks and then does.
    pub(crate) fn device_access(&mut self, memory: &mut Memory, request: &Request, address: u64) -> Result<u64, Fault> {
        let key = (request.source, request.pasid, address >> 12, request.access == Access::Write);
        if let Some(page) = self.device_tlbs.pages.get(&key).copied() {
            self.translated(memory, request, page)?;
            return Ok(page | address & 0xfff);
        }
        self.translated(memory, request, address)?;
        let parts = self.remap(memory, request, address, 1)?;
        let [(target, _)] = parts[..] else {
            return Err(fault(Reason::ABORTED, request, address, false));
        };
        self.device_tlbs.pages.insert(key, target & !0xfff);
        Ok(target)
    }

    /// Whether the context of a device lets translated requests and translation requests through (4.2, 9.3, 9.4).
    fn translated(&mut self, memory: &Memory, request: &Request, address: u64) -> Result<(), Fault> {
        match self.device_tlb_allowed(memory, request.source) {
            Ok(true) => Ok(()),
            Ok(false) => {
                let fault = fault(Reason::TRANSLATION_BLOCKED, request, address, false);
                self.record(&fault);
                Err(fault)
            }
            Err((reason, silent)) => {
                let fault = fault(reason, request, address, silent);
                self.record(&fault);
                Err(fault)
            }
        }
    }
}
