//! Where an engine's control structures live.

#![expect(unsafe_code, reason = "the pointers of a frame source are trusted")]

use addr::HostPhys;
use core::ptr::NonNull;

/// Gives memory for structures that the processor reads and writes by physical address.
///
/// # Safety
/// For every `Some((address, pointer))` that [`allocate`](FrameSource::allocate) returns, `pointer` is a mapping
/// (write-back cached, at a multiple of 4096) of the `frames` frames from `address` on, stays valid for reads and
/// writes for ever, and nothing else uses these frames: no guest, no device, no other part of the hypervisor.
pub unsafe trait FrameSource {
    /// `frames` contiguous, zeroed 4 KiB frames, or `None` when memory is out.
    fn allocate(&mut self, frames: usize) -> Option<(HostPhys, NonNull<u8>)>;
}
