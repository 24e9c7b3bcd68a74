//! The invalidation descriptors that scalable mode adds (6.5.2.2, 6.5.2.4).

use crate::caches::{PasidPageScope, PasidScope};
use crate::descriptor::{Descriptor, QueueError};

/// Type 7: type 3:0, G 5:4, DID 31:16, PASID 51:32.
pub(crate) fn pasid_cache(low: u64, high: u64) -> Result<Descriptor, QueueError> {
    let (domain, pasid) = tags(low, high)?;
    Ok(Descriptor::Pasids(match low >> 4 & 3 {
        0 => PasidScope::Domain(domain),
        1 => PasidScope::Pasid { domain, pasid },
        3 => PasidScope::Global,
        _ => return Err(QueueError::Reserved),
    }))
}

/// Type 6: type 3:0, G 5:4, DID 31:16, PASID 51:32; AM 5:0, IH 6, ADDR 63:12. Neither CAP.PSI nor CAP.MAMV limits it.
pub(crate) fn pasid_iotlb(low: u64, high: u64) -> Result<Descriptor, QueueError> {
    let (domain, pasid) = tags(low, high & 0xf80)?;
    Ok(Descriptor::PasidPages(match low >> 4 & 3 {
        2 => PasidPageScope::All { domain, pasid },
        3 => PasidPageScope::Pages {
            domain,
            pasid,
            address: high & !0xfff,
            mask: high as u8 & 0x3f,
            leaves_only: high >> 6 & 1 != 0,
        },
        _ => return Err(QueueError::Reserved),
    }))
}

/// Domain id and PASID, where nothing else but type and granularity is set.
fn tags(low: u64, reserved: u64) -> Result<(u16, u32), QueueError> {
    match low & !0x000f_ffff_ffff_003f | reserved {
        0 => Ok(((low >> 16) as u16, (low >> 32) as u32 & 0xf_ffff)),
        _ => Err(QueueError::Reserved),
    }
}
