//! A structure in frames of its own, which the processor reads and writes by physical address.

#![expect(unsafe_code, reason = "turns frames into structures")]

use crate::vcpu::FrameSource;
use addr::HostPhys;
use core::mem::size_of;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

/// The size of a frame in bytes.
pub const FRAME: usize = 4096;

/// A structure that zeroed frames are a value of.
///
/// # Safety
/// All bytes zero is a valid value, the alignment is at most 4096, and any bytes that the processor may leave there
/// are a valid value too.
pub unsafe trait ZeroedFrames {}

/// There is no memory for a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Which.
    pub structure: &'static str,
}

/// A `T` in frames of its own. The frames are never given back: a processor may hold on to what it has once been
/// told the address of.
#[derive(Debug)]
pub struct Region<T> {
    physical: HostPhys,
    pointer: NonNull<T>,
}

impl<T: ZeroedFrames> Region<T> {
    /// A zeroed `T`; `structure` names it in the error.
    pub fn allocate(frames: &mut dyn FrameSource, structure: &'static str) -> Result<Self, OutOfMemory> {
        let (physical, pointer) = frames.allocate(size_of::<T>().div_ceil(FRAME)).ok_or(OutOfMemory { structure })?;
        Ok(Self { physical, pointer: pointer.cast() })
    }

    /// The `T` for ever: for one that the processor and the hypervisor both change through shared references.
    pub fn leak(self) -> (HostPhys, &'static T) {
        // SAFETY: as for `deref`; the frames are never given back, and with the region gone there is no other way to
        // the `T`.
        (self.physical, unsafe { self.pointer.as_ref() })
    }

    /// Where it is, for the processor.
    pub fn physical(&self) -> HostPhys {
        self.physical
    }
}

impl<T: ZeroedFrames> Deref for Region<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the frame source promised memory for it that nothing else uses, zeroed, which is a valid `T`. The
        // processor writes there only while a guest runs or the hypervisor's state is being saved, which happens with
        // no reference to the `T` alive.
        unsafe { self.pointer.as_ref() }
    }
}

impl<T: ZeroedFrames> DerefMut for Region<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as for `deref`, and the borrow of `self` makes the reference the only one.
        unsafe { self.pointer.as_mut() }
    }
}

// SAFETY: the region is the only user of its frames, which every processor has mapped at the same place.
unsafe impl<T: Send> Send for Region<T> {}
