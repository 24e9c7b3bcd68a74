//! What descriptors of the invalidation queue say once they are decoded, and why they may not be (6.5.2).

use crate::caches::{ContextScope, InterruptScope, PageScope, PasidPageScope, PasidScope};

/// IQERCD.IQEI: why the queue stopped (11.4.9.9).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum QueueError {
    /// The tail names no descriptor of the queue.
    Tail = 1,
    /// The descriptor could not be read.
    Fetch = 2,
    /// A descriptor type that the unit has not.
    Type = 3,
    /// A reserved field, a reserved granularity or a value beyond what CAP and ECAP report.
    Reserved = 4,
    /// IQA.DW=1 (256-bit descriptors) on a unit without scalable mode, or DW=0 in scalable mode.
    Width = 5,
    /// The tail is not a multiple of the descriptor's size.
    Alignment = 6,
}

/// A descriptor that has been fetched and found good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Descriptor {
    Context(ContextScope),
    Pages(PageScope, Drain),
    Pasids(PasidScope),
    PasidPages(PasidPageScope),
    Interrupts(InterruptScope),
    DeviceTlb(DeviceTlbScope),
    PageResponse(PageResponse),
    Wait { status: Option<(u64, u32)>, interrupt: bool, fence: bool },
}

impl Descriptor {
    /// Invalidations of a rank are executed after those of lower rank that stand before them (6.5.2.11).
    pub(crate) fn rank(&self) -> Option<u8> {
        match self {
            Self::Context(_) => Some(0),
            Self::Pasids(_) => Some(1),
            Self::Pages(..) | Self::PasidPages(_) => Some(2),
            Self::DeviceTlb(_) => Some(3),
            Self::Interrupts(_) | Self::PageResponse(_) | Self::Wait { .. } => None,
        }
    }
}

/// Which requests in flight an IOTLB invalidation waits for (DW, DR).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Drain {
    pub writes: bool,
    pub reads: bool,
}

/// Which entries of a device-TLB an invalidation is about, by the requests that they are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tagged {
    /// Requests without PASID.
    Without,
    /// Requests with one PASID.
    Pasid(u32),
    /// Requests with any PASID.
    AnyPasid,
}

/// What a device-TLB invalidation reaches (6.5.2.5, 6.5.2.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DeviceTlbScope {
    pub source: u16,
    pub of: Tagged,
    pub first: u64,
    pub last: u64,
}

/// A page group response (7.6.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageResponse {
    /// The requester id of the device that is answered.
    pub source: u16,
    /// The PASID of the group's requests.
    pub pasid: Option<u32>,
    /// The group's index.
    pub group: u16,
    /// 0 success, 1 invalid request, 15 failure.
    pub code: u8,
}
