//! What is refused before anything changes.

use crate::device_tlb;
use crate::error::Error;
use crate::registers::Registers;
use crate::spec::pasid::Pasid;
use crate::unit::Unit;
use crate::wait::Clock;
use addr::{Bdf, DomainId, HostPhys, PAGE_SIZE};

/// What legacy mode lacks.
pub(crate) const NOT_SCALABLE: Error = Error::Unsupported { capability: "scalable mode (Unit::use_scalable_mode)" };

/// Refuses what is no page for the root of a table.
pub(crate) fn check_table(table: HostPhys) -> Result<(), Error> {
    match table.as_u64() == 0 || !table.is_aligned(PAGE_SIZE) || table.as_u64() >> 52 != 0 {
        true => Err(Error::BadTable(table)),
        false => Ok(()),
    }
}

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Refuses domain id 0, which caching mode reserves, and those that the unit has not.
    pub(crate) fn check_domain(&self, domain: DomainId) -> Result<(), Error> {
        match domain.0 == 0 || u32::from(domain.0) >= self.capabilities.domains() {
            true => Err(Error::DomainOutOfRange(domain)),
            false => Ok(()),
        }
    }

    /// Refuses to let a device keep translations that the unit could not make it forget.
    pub(crate) fn check_device_tlb(&self, source: Bdf) -> Result<(), Error> {
        if !device_tlb::supported(self.capabilities) {
            return Err(Error::Unsupported { capability: "device-TLBs (ECAP.DT)" });
        }
        if !self.device_tlbs.has_room(source) {
            return Err(Error::TooManyDeviceTlbs(source));
        }
        Ok(())
    }

    /// The PASID under which requests are found: RID_PASID for those without.
    pub(crate) fn effective_pasid(&self, pasid: Option<Pasid>) -> Result<Pasid, Error> {
        let scalable = self.scalable.ok_or(NOT_SCALABLE)?;
        match pasid {
            None => Ok(scalable.rid_pasid),
            Some(_) if !self.capabilities.pasid() => {
                Err(Error::Unsupported { capability: "requests with PASID (ECAP.PASID)" })
            }
            // The PASID of requests without PASID is not another's.
            Some(pasid) if pasid.as_u32() >> self.capabilities.pasid_bits() != 0 || pasid == scalable.rid_pasid => {
                Err(Error::PasidOutOfRange(pasid))
            }
            Some(pasid) => Ok(pasid),
        }
    }
}
