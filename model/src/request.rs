//! What a device asks of the unit.

use crate::fault::{Access, Fault, Reason};

/// What a device puts on the bus beside the address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// The requester id.
    pub source: u16,
    /// The PASID, if the request has one.
    pub pasid: Option<u32>,
    /// The request asks for supervisor privilege; only one with PASID can.
    pub supervisor: bool,
    /// What the request wants.
    pub access: Access,
}

impl Request {
    /// A request without PASID.
    pub fn new(source: u16, access: Access) -> Self {
        Self { source, pasid: None, supervisor: false, access }
    }

    /// A request with PASID and without supervisor privilege.
    pub fn with_pasid(source: u16, pasid: u32, access: Access) -> Self {
        Self { pasid: Some(pasid), ..Self::new(source, access) }
    }
}

/// The fault that blocks a request; `silent` says that a fault processing disable bit asks not to record it.
pub(crate) fn fault(reason: Reason, request: &Request, address: u64, silent: bool) -> Fault {
    Fault {
        reason,
        source: request.source,
        pasid: request.pasid,
        info: address & !0xfff,
        access: request.access,
        silenced: silent && reason.qualified(),
    }
}
