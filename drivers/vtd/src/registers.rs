//! How a unit's registers are reached.

/// A unit's register window. Offsets are bytes from its base, which is where the DMAR table says, as long as it says.
/// [`Unit::probe`](crate::Unit::probe) stays in the first 4 KiB; the fault recording and IOTLB registers may lie beyond
/// them ([`Capabilities::register_bytes`](crate::Capabilities::register_bytes)), and the window must reach that far before
/// another step is taken.
///
/// Each call is one access of exactly that width, neither split, merged, nor reordered with another, and a write is
/// not passed by an earlier store to [`DmaMemory`](crate::DmaMemory).
pub trait Registers {
    /// Reads 32 bits at an offset that is a multiple of 4.
    fn read32(&self, offset: u16) -> u32;
    /// Reads 64 bits at an offset that is a multiple of 8.
    fn read64(&self, offset: u16) -> u64;
    /// Writes 32 bits at an offset that is a multiple of 4.
    fn write32(&mut self, offset: u16, value: u32);
    /// Writes 64 bits at an offset that is a multiple of 8.
    fn write64(&mut self, offset: u16, value: u64);
}

impl<R: Registers + ?Sized> Registers for &mut R {
    fn read32(&self, offset: u16) -> u32 {
        (**self).read32(offset)
    }

    fn read64(&self, offset: u16) -> u64 {
        (**self).read64(offset)
    }

    fn write32(&mut self, offset: u16, value: u32) {
        (**self).write32(offset, value);
    }

    fn write64(&mut self, offset: u16, value: u64) {
        (**self).write64(offset, value);
    }
}
