//! Where page requests of devices are.

use addr::HostPhys;

/// The ring of page requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageRequestQueue {
    /// The first descriptor.
    pub base: HostPhys,
    /// The size of the ring.
    pub bytes: u64,
}
