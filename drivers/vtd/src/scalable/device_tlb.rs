//! Device-TLBs in scalable mode: a device has one for all of its PASIDs.

use super::tables::read_context;
use crate::device_tlb::{DeviceTlb, Holds};
use crate::error::{Error, Step};
use crate::memory::DmaMemory;
use crate::memory::store;
use crate::registers::Registers;
use crate::spec::invalidation::Descriptor;
use crate::spec::pasid::Pasid;
use crate::spec::scalable_context::ScalableContextEntry;
use crate::unit::Unit;
use crate::wait::Clock;
use addr::{Bdf, DomainId};

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Lets a device to which something is attached keep translations itself, those of all of its PASIDs, or with `None`
    /// no more. Turn its ATS on after the call that permits it, and off after the one that does not: until then it
    /// answers invalidations. The device is then trusted with the addresses that it claims to have been told.
    ///
    /// # Errors
    /// [`Error::Unsupported`] in legacy mode, where [`Unit::assign_with_device_tlb`] permits it, and without ECAP.DT;
    /// [`Error::TooManyDeviceTlbs`]; [`Error::OutOfOrder`] where nothing is attached; [`Error::Poisoned`];
    /// [`Error::Invalidation`].
    pub fn use_device_tlb<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        device_tlb: Option<DeviceTlb>,
    ) -> Result<(), Error> {
        self.refuse_if_poisoned()?;
        self.effective_pasid(None)?;
        if device_tlb.is_some() {
            self.check_device_tlb(source)?;
        }
        self.set_device_tlb(memory, source, device_tlb)
    }

    /// Changes DTE by one store, if it is to change, and makes hardware see it.
    pub(super) fn set_device_tlb<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        device_tlb: Option<DeviceTlb>,
    ) -> Result<(), Error> {
        let needs = "that something is attached to the device";
        let missing = Error::OutOfOrder { step: Step::Assign, needs };
        let entry = self.scalable_context(memory, source).ok_or(missing)?;
        let context = Some(read_context(memory, entry)).filter(|context| context.is_present()).ok_or(missing)?;
        let enable = ScalableContextEntry::DEVICE_TLB_ENABLE;
        let low = if device_tlb.is_some() { context.low | enable } else { context.low & !enable };
        if let Some(device_tlb) = device_tlb {
            // Whoever is told to forget is so from the moment that it may remember.
            let pasids = self.capabilities.pasid();
            self.device_tlbs.add(self.capabilities, source, Holds::Anything { pasids }, device_tlb);
        }
        if low == context.low {
            return Ok(());
        }
        store(memory, self.capabilities, entry, low);
        if self.root_table_set {
            let context = core::iter::once(Descriptor::context_cache_device(DomainId(0), source));
            let submitted = self.begin(memory, &mut context.chain(self.device_tlb_of_all(source)))?;
            self.complete(memory, submitted)?;
        }
        if device_tlb.is_none() {
            self.device_tlbs.remove(source);
        }
        Ok(())
    }

    /// What makes a device forget what it keeps of one PASID, if it keeps anything: requests without PASID have none.
    pub(super) fn device_tlb_of(&self, source: Bdf, pasid: Pasid) -> Option<Descriptor> {
        let without = self.scalable.is_some_and(|scalable| scalable.rid_pasid == pasid);
        self.device_tlbs.all_of_pasid(source, (!without).then_some(pasid))
    }

    /// What makes a device forget all that it keeps.
    pub(super) fn device_tlb_of_all(&self, source: Bdf) -> impl Iterator<Item = Descriptor> + use<R, C> {
        self.device_tlbs.everything_of(source)
    }
}
