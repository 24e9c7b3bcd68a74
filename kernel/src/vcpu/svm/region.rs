//! The structures of this engine that have frames of their own.

#![expect(unsafe_code, reason = "turns frames into structures")]

use crate::vcpu::region::{FRAME, OutOfMemory, ZeroedFrames};
use crate::vcpu::svm::SvmError;
use crate::vcpu::svm::permission_map::{IoPermissionMap, MsrPermissionMap};
use crate::vcpu::svm::spec::vmcb::Vmcb;

pub use crate::vcpu::region::Region;

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

impl From<OutOfMemory> for SvmError {
    fn from(OutOfMemory { structure }: OutOfMemory) -> Self {
        SvmError::OutOfMemory { structure }
    }
}
