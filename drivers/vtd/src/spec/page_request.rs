//! Page requests of devices and the responses to them: descriptors of the page request queue (section 7.4.1.1) and page
//! group responses (section 7.6.1).

use super::invalidation::Descriptor;
use addr::{Bdf, Iova};

/// Bytes of a page request descriptor.
pub const DESCRIPTOR_BYTES: u64 = 32;
/// The type of a page request descriptor (bits 7:0).
const TYPE_PAGE_REQUEST: u64 = 1;
const TYPE_PAGE_GROUP_RESPONSE: u64 = 9;

/// A device asks for a page that it found absent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRequest {
    /// The requester id.
    pub source: Bdf,
    /// The PASID of the request, if it has one (PP, bit 8; PASID, 51:32).
    pub pasid: Option<u32>,
    /// The page, a multiple of 4096 (ADDR).
    pub address: Iova,
    /// It wants to read (R).
    pub read: bool,
    /// It wants to write (W).
    pub write: bool,
    /// It wants to execute (EXE).
    pub execute: bool,
    /// It asks for supervisor privilege (PRIV).
    pub privileged: bool,
    /// Last page in group (LPIG): the device waits for one response to all requests of the group.
    pub last_in_group: bool,
    /// Page request group index, 0 to 511 (PRGI).
    pub group: u16,
}

impl PageRequest {
    /// From the two halves that say something, or `None` for a descriptor of another type.
    pub const fn decode(low: u64, high: u64) -> Option<Self> {
        if low & 0xff != TYPE_PAGE_REQUEST {
            return None;
        }
        Some(Self {
            source: Bdf::from_u16((low >> 16) as u16),
            pasid: if low >> 8 & 1 != 0 { Some((low >> 32) as u32 & 0xf_ffff) } else { None },
            address: Iova::new(high & !0xfff),
            read: high & 1 != 0,
            write: high >> 1 & 1 != 0,
            execute: low >> 52 & 1 != 0,
            privileged: low >> 53 & 1 != 0,
            last_in_group: high >> 2 & 1 != 0,
            group: (high >> 3) as u16 & 0x1ff,
        })
    }

    /// The response to the group that this is the last request of: PASID present (bit 4), response code (15:12),
    /// requester id (31:16), PASID (51:32); LPIG (66), PRGI (75:67).
    pub const fn response(self, response: PageResponse) -> Descriptor {
        let (pasid, present) = match self.pasid {
            Some(pasid) => (pasid as u64 & 0xf_ffff, 1),
            None => (0, 0),
        };
        Descriptor {
            low: TYPE_PAGE_GROUP_RESPONSE
                | present << 4
                // Bits 11:9 are the type's upper half, which is 0.
                | (response as u64) << 12
                | (self.source.as_u16() as u64) << 16
                | pasid << 32,
            high: (self.last_in_group as u64) << 2 | (self.group as u64 & 0x1ff) << 3,
        }
    }
}

/// What a device is told of the pages that it asked for (PCI Express, page request group response codes).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PageResponse {
    /// The pages are there: it may ask for their translations again.
    Success = 0x0,
    /// Some are not, and will not be.
    InvalidRequest = 0x1,
    /// Something is broken: the device asks for no page any more.
    Failure = 0xf,
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: PageRequest = PageRequest {
        source: Bdf::from_u16(0x1234),
        pasid: Some(0xabcde),
        address: Iova::new(0x1_2345_6000),
        read: false,
        write: true,
        execute: false,
        privileged: true,
        last_in_group: true,
        group: 0x155,
    };

    #[test]
    fn a_request_has_its_fields_where_the_specification_has_them() {
        assert_eq!(PageRequest::decode(0x002a_bcde_1234_0101, 0x1_2345_6aae), Some(REQUEST));
        let plain = PageRequest::decode(0x001a_bcde_1234_0001, 0x1_2345_6001).unwrap();
        let expected = PageRequest {
            pasid: None,
            read: true,
            write: false,
            execute: true,
            privileged: false,
            last_in_group: false,
            group: 0,
            ..REQUEST
        };
        assert_eq!(plain, expected);
        for other in [0, 2, 0x81] {
            assert_eq!(PageRequest::decode(0x1234_0000 | other, 0), None);
        }
    }

    #[test]
    fn a_response_names_the_group() {
        let of = |response| REQUEST.response(response);
        assert_eq!(of(PageResponse::Success), Descriptor { low: 0x000a_bcde_1234_0019, high: 0xaac });
        assert_eq!(of(PageResponse::InvalidRequest).low, 0x000a_bcde_1234_1019);
        assert_eq!(of(PageResponse::Failure).low, 0x000a_bcde_1234_f019);
        let plain = PageRequest { pasid: None, last_in_group: false, ..REQUEST };
        assert_eq!(plain.response(PageResponse::Success), Descriptor { low: 0x1234_0009, high: 0xaa8 });
    }
}
