//! Devices that keep translations themselves (ATS, chapter 4): what they were told stays until an invalidation of their
//! device-TLB reaches it, and a translated request is let through by its context alone.

use crate::descriptor::{Descriptor, DeviceTlbScope, QueueError, Tagged};
use std::collections::{HashMap, HashSet};

/// The device-TLBs of all devices under one unit: source-id, PASID and page to host page, for reading and for writing.
#[derive(Clone, Default, Debug)]
pub(crate) struct DeviceTlbs {
    pub pages: HashMap<(u16, Option<u32>, u64, bool), u64>,
    /// Devices that do not answer invalidations.
    pub silent: HashSet<u16>,
}

/// Type 3: type 3:0, PFSID 15:12 and 63:52, MIP 20:16, SID 47:32; S 0, ADDR 63:12 of the other half.
pub(crate) fn decode(low: u64, high: u64) -> Result<Descriptor, QueueError> {
    if low & 0x000f_0000_ffe0_0ff0 != 0 || high & 0xffe != 0 {
        return Err(QueueError::Reserved);
    }
    let (first, last) = pages(high, high & 1 != 0);
    Ok(Descriptor::DeviceTlb(DeviceTlbScope { source: (low >> 32) as u16, of: Tagged::Without, first, last }))
}

/// Type 8: type 3:0, MIP 8:4, PFSID 15:12 and 63:52, SID 31:16, PASID 51:32; G 0, S 11, ADDR 63:12 of the other half.
pub(crate) fn decode_with_pasid(low: u64, high: u64) -> Result<Descriptor, QueueError> {
    if low & 0xe00 != 0 || high & 0x7fe != 0 {
        return Err(QueueError::Reserved);
    }
    let (first, last) = pages(high, high >> 11 & 1 != 0);
    let of = if high & 1 != 0 { Tagged::AnyPasid } else { Tagged::Pasid((low >> 32) as u32 & 0xf_ffff) };
    Ok(Descriptor::DeviceTlb(DeviceTlbScope { source: (low >> 16) as u16, of, first, last }))
}

/// The first and the last page: with S, the lowest clear bit of ADDR says how many, two to the power of one more than
/// the ones below it.
fn pages(high: u64, sized: bool) -> (u64, u64) {
    let page = high >> 12;
    let count = if sized { 2u64.checked_shl(page.trailing_ones()).unwrap_or(0) } else { 1 };
    let first = if count == 0 { 0 } else { page & !(count - 1) };
    (first, if count == 0 { u64::MAX } else { first + (count - 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_names_pages_by_the_lowest_clear_bit() {
        let of = |high| match decode(0x0010_0000_0003, high) {
            Ok(Descriptor::DeviceTlb(scope)) => (scope.first, scope.last),
            other => panic!("{other:?}"),
        };
        assert_eq!(of(0x5000), (5, 5));
        assert_eq!(of(0x4001), (4, 5));
        assert_eq!(of(0x1_3001), (0x10, 0x17), "bits 13:12 are set: eight pages");
        assert_eq!(of(0x7fff_ffff_ffff_f001), (0, (1 << 52) - 1));
        assert_eq!(of(0xffff_ffff_ffff_f001).0, 0, "no clear bit at all");
        assert!(decode(0x13, 0).is_err() && decode(3, 2).is_err());
    }

    #[test]
    fn a_descriptor_with_pasid_has_its_fields_elsewhere() {
        let of = |high| match decode_with_pasid(0xa_bcde_0018_0008, high) {
            Ok(Descriptor::DeviceTlb(scope)) => (scope.source, scope.of, scope.first, scope.last),
            other => panic!("{other:?}"),
        };
        assert_eq!(of(0x5000), (0x18, Tagged::Pasid(0xa_bcde), 5, 5));
        assert_eq!(of(0x4800), (0x18, Tagged::Pasid(0xa_bcde), 4, 5));
        assert_eq!(of(0x7fff_ffff_ffff_f801), (0x18, Tagged::AnyPasid, 0, (1 << 52) - 1));
        assert!(decode_with_pasid(0x208, 0).is_err() && decode_with_pasid(8, 2).is_err());
    }
}
