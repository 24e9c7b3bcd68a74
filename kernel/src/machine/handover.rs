//! What the first half of the start hands over to the second, which runs on a stack of its own.

use crate::machine::firmware::Firmware;
use addr::HostPhys;

/// What was found of the machine.
pub struct Handover {
    /// What the firmware says.
    pub firmware: Firmware,
    /// Where the archive of guests is, and its length in bytes.
    pub ramdisk: Option<(HostPhys, u64)>,
}
