//! The kernel command line, kept beyond the life of the loader's memory: `BootInfo` has no place for one.

use core::cell::UnsafeCell;

use crate::pvh::MAX_COMMAND_LINE;

/// All zero until [`keep`] fills it, so it costs no bytes in the file.
struct Kept {
    length: Option<usize>,
    text: [u8; MAX_COMMAND_LINE],
}

struct KeptCell(UnsafeCell<Kept>);

// SAFETY: written by `keep` only, which runs once, before `_start`, on the only processor that runs.
unsafe impl Sync for KeptCell {}

static KEPT: KeptCell = KeptCell(UnsafeCell::new(Kept { length: None, text: [0; MAX_COMMAND_LINE] }));

/// Keeps a copy of `line`, as much as there is room for.
///
/// # Safety
/// Must be called at most once, before `_start` and while no other processor runs.
pub(crate) unsafe fn keep(line: &[u8]) {
    // SAFETY: by this function's contract nobody else has a reference.
    let kept = unsafe { &mut *KEPT.0.get() };
    for (place, byte) in kept.text.iter_mut().zip(line) {
        *place = *byte;
    }
    kept.length = Some(line.len().min(MAX_COMMAND_LINE));
}

/// The kernel command line that a PVH loader passed (QEMU's `-append`, or the hypervisor to its guest): at most
/// 4095 bytes. `None` if there was none, if it was longer or not UTF-8, or if another kind of loader booted the image.
///
/// It is meant for small guests. What a hypervisor is to do stands in its ramdisk, so that it is the same with every
/// loader.
pub fn command_line() -> Option<&'static str> {
    // SAFETY: `keep` was called before `_start` if at all, so nothing is written any more.
    let kept = unsafe { &*KEPT.0.get() };
    core::str::from_utf8(kept.text.get(..kept.length?)?).ok()
}
