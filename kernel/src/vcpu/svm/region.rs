//! A structure in frames of its own, which the processor reads and writes by physical address.

#![expect(unsafe_code, reason = "turns frames into structures")]

use crate::vcpu::FrameSource;
use crate::vcpu::svm::SvmError;
use crate::vcpu::svm::permission_map::{IoPermissionMap, MsrPermissionMap};
use crate::vcpu::svm::spec::vmcb::Vmcb;
use addr::HostPhys;
use core::mem::size_of;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

const FRAME: usize = 4096;

/// A structure that zeroed frames are a value of.
///
/// # Safety
/// All bytes zero is a valid value, the alignment is at most 4096, and any bytes that the processor may leave there
/// are a valid value too.
pub unsafe trait ZeroedFrames {}

// SAFETY: integers only.
unsafe impl ZeroedFrames for Vmcb {}
// SAFETY: bytes only.
unsafe impl ZeroedFrames for IoPermissionMap {}
// SAFETY: bytes only.
unsafe impl ZeroedFrames for MsrPermissionMap {}
// SAFETY: bytes only.
unsafe impl ZeroedFrames for HostStateArea {}

/// A frame for the processor's own use: VM_HSAVE_PA, or VMSAVE and VMLOAD of the host.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct HostStateArea([u8; FRAME]);

/// A `T` in frames of its own. The frames are never given back: a processor may hold on to what it has once been
/// told the address of.
#[derive(Debug)]
pub struct Region<T> {
    physical: HostPhys,
    pointer: NonNull<T>,
}

impl<T: ZeroedFrames> Region<T> {
    /// A zeroed `T`; `structure` names it in the error.
    pub fn allocate(frames: &mut dyn FrameSource, structure: &'static str) -> Result<Self, SvmError> {
        let (physical, pointer) =
            frames.allocate(size_of::<T>().div_ceil(FRAME)).ok_or(SvmError::OutOfMemory { structure })?;
        Ok(Self { physical, pointer: pointer.cast() })
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
        // processor writes there during VMRUN, VMSAVE and VMLOAD only, which happen with this borrowed mutably and
        // with no reference to the `T` alive.
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
