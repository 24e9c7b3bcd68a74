//! Registers of a device, in the device window of the hypervisor's mapping: the one place where they are accessed.

#![expect(unsafe_code, reason = "device registers")]

use crate::memory::address_space::{self, MappingError};
use addr::HostPhys;
use core::ptr::NonNull;

/// A range of device registers, mapped uncached for ever. Accesses outside it read as all ones and write nothing.
#[derive(Debug)]
pub struct DeviceMemory {
    start: NonNull<u8>,
    bytes: u64,
}

// SAFETY: the range is a device's; which CPU accesses it makes no difference.
unsafe impl Send for DeviceMemory {}

macro_rules! accessors {
    ($($read:ident $write:ident $type:ty),* $(,)?) => {$(
        /// One read of this width, at an offset in bytes that is a multiple of it.
        pub fn $read(&self, offset: u64) -> $type {
            let register = self.register(offset, size_of::<$type>() as u64);
            // SAFETY: the address is inside the mapped range and aligned.
            register.map_or(<$type>::MAX, |register| unsafe { register.cast::<$type>().read_volatile() })
        }

        /// One write of this width, at an offset in bytes that is a multiple of it.
        pub fn $write(&mut self, offset: u64, value: $type) {
            if let Some(register) = self.register(offset, size_of::<$type>() as u64) {
                // SAFETY: the address is inside the mapped range and aligned. What a device then does to memory by
                // itself is limited by remapping, and before that by the order in which it is set up.
                unsafe { register.cast::<$type>().write_volatile(value) };
            }
        }
    )*};
}

impl DeviceMemory {
    /// Maps `bytes` bytes of registers at `start`.
    pub fn map(start: HostPhys, bytes: u64) -> Result<Self, MappingError> {
        Ok(Self { start: address_space::map_device(start, bytes)?, bytes })
    }

    /// The length of the range in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn register(&self, offset: u64, width: u64) -> Option<*mut u8> {
        let inside = offset.checked_add(width)? <= self.bytes && offset.is_multiple_of(width);
        inside.then(|| self.start.as_ptr().wrapping_add(offset as usize))
    }

    accessors!(read8 write8 u8, read16 write16 u16, read32 write32 u32, read64 write64 u64);
}
