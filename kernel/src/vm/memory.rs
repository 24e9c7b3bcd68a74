//! A guest's memory: guest-physical 0 to its size, in one piece of the machine's memory.

use crate::memory::frames::Owner;
use crate::memory::{frames, physical};
use addr::{GuestPhys, HostPhys, PAGE_SIZE, PageSize};

/// An address, or the end of an access, is beyond the guest's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfRange(pub GuestPhys);

impl core::fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "guest-physical {:#x} is beyond the guest's memory", self.0)
    }
}

/// Reading and writing a guest's memory. The guest and its devices may change it at any moment: what is read twice
/// may differ, so what is checked must be what is used.
pub trait GuestMemoryAccess {
    /// Reads bytes from guest-physical `from` on.
    fn read(&self, from: GuestPhys, to: &mut [u8]) -> Result<(), OutOfRange>;
    /// Writes bytes from guest-physical `to` on.
    fn write(&mut self, to: GuestPhys, from: &[u8]) -> Result<(), OutOfRange>;

    /// Reads a little-endian 64-bit value.
    fn read_u64(&self, from: GuestPhys) -> Result<u64, OutOfRange> {
        let mut bytes = [0; 8];
        self.read(from, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Reads a little-endian 32-bit value.
    fn read_u32(&self, from: GuestPhys) -> Result<u32, OutOfRange> {
        let mut bytes = [0; 4];
        self.read(from, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }
}

/// The memory of one guest.
#[derive(Debug)]
pub struct GuestMemory {
    start: HostPhys,
    bytes: u64,
}

impl GuestMemory {
    /// Allocates and clears memory for guest `number`: what was there before is nobody else's business.
    /// `None` when the machine has no such piece of memory left.
    pub fn allocate(number: u8, bytes: u64) -> Option<Self> {
        // Aligned for large pages where the guest is large enough to have any.
        let alignment = if bytes >= PageSize::Size2M.bytes() { PageSize::Size2M.bytes() } else { PAGE_SIZE };
        let count = usize::try_from(bytes / PAGE_SIZE).ok()?;
        let start = frames().table().allocate(count, alignment, Owner::Guest(number))?;
        physical::zero(start, count);
        Some(Self { start, bytes: bytes / PAGE_SIZE * PAGE_SIZE })
    }

    /// Where the memory is.
    pub fn start(&self) -> HostPhys {
        self.start
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn host(&self, address: GuestPhys, length: usize) -> Result<HostPhys, OutOfRange> {
        let end = address.checked_add(length as u64).ok_or(OutOfRange(address))?;
        if end.as_u64() > self.bytes {
            return Err(OutOfRange(address));
        }
        self.start.checked_add(address.as_u64()).ok_or(OutOfRange(address))
    }
}

impl GuestMemoryAccess for GuestMemory {
    fn read(&self, from: GuestPhys, to: &mut [u8]) -> Result<(), OutOfRange> {
        physical::read_bytes(self.host(from, to.len())?, to);
        Ok(())
    }

    fn write(&mut self, to: GuestPhys, from: &[u8]) -> Result<(), OutOfRange> {
        physical::write_bytes(self.host(to, from.len())?, from);
        Ok(())
    }
}

#[cfg(test)]
pub mod testing {
    //! Guest memory for the host's tests.
    use super::*;

    impl GuestMemoryAccess for alloc::vec::Vec<u8> {
        fn read(&self, from: GuestPhys, to: &mut [u8]) -> Result<(), OutOfRange> {
            let start = from.as_u64() as usize;
            let range = start..start.checked_add(to.len()).ok_or(OutOfRange(from))?;
            to.copy_from_slice(self.get(range).ok_or(OutOfRange(from))?);
            Ok(())
        }

        fn write(&mut self, to: GuestPhys, from: &[u8]) -> Result<(), OutOfRange> {
            let start = to.as_u64() as usize;
            let range = start..start.checked_add(from.len()).ok_or(OutOfRange(to))?;
            self.get_mut(range).ok_or(OutOfRange(to))?.copy_from_slice(from);
            Ok(())
        }
    }
}
