//! The memory that the NIC reads and writes: two descriptor rings and their packet buffers.

use crate::memory;
use addr::Iova;
use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering, fence};
use netprobe::descriptor::{self, DESCRIPTOR_SIZE};

/// The number of descriptors in a ring: a multiple of 8, because the ring's length counts in 128 bytes.
pub const DESCRIPTORS: usize = 32;
/// The size of a packet buffer, in bytes; RCTL says so to the NIC.
pub const BUFFER_SIZE: usize = 2048;
/// The length of a ring, in bytes.
pub const RING_LENGTH: usize = DESCRIPTORS * DESCRIPTOR_SIZE;

const RECEIVE_RING: usize = 0;
const TRANSMIT_RING: usize = 0x1000;
const RECEIVE_BUFFERS: usize = 0x2000;
const TRANSMIT_BUFFERS: usize = RECEIVE_BUFFERS + DESCRIPTORS * BUFFER_SIZE;
const LENGTH: usize = TRANSMIT_BUFFERS + DESCRIPTORS * BUFFER_SIZE;

#[repr(C, align(4096))]
struct Storage(UnsafeCell<[u8; LENGTH]>);

// SAFETY: `Rings::take` hands it out once, and from then on it is touched through that one value only.
unsafe impl Sync for Storage {}

static STORAGE: Storage = Storage(UnsafeCell::new([0; LENGTH]));
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The rings and buffers. The device writes here at any time, so no reference to the bytes is ever made: they are
/// copied in and out.
pub struct Rings {
    base: *mut u8,
    device_base: Iova,
}

impl Rings {
    /// The only rings there are, or `None` if they were taken before or are not contiguous in physical memory.
    pub fn take() -> Option<Self> {
        if TAKEN.swap(true, Ordering::Relaxed) {
            return None;
        }
        let base = STORAGE.0.get().cast::<u8>();
        let start = memory::physical_address(base)?;
        let contiguous = (0..LENGTH)
            .step_by(0x1000)
            .all(|offset| memory::physical_address(base.wrapping_add(offset)) == start.checked_add(offset as u64));
        // No remapping of netprobe's own: what the device must say is the guest-physical address.
        contiguous.then_some(Self { base, device_base: Iova::new(start.as_u64()) })
    }

    fn device_address(&self, offset: usize) -> Iova {
        Iova::new(self.device_base.as_u64() + offset as u64)
    }

    /// Where the NIC finds the receive ring.
    pub fn receive_ring(&self) -> Iova {
        self.device_address(RECEIVE_RING)
    }

    /// Where the NIC finds the transmit ring.
    pub fn transmit_ring(&self) -> Iova {
        self.device_address(TRANSMIT_RING)
    }

    /// Where the NIC finds the receive buffer of descriptor `index`.
    pub fn receive_buffer(&self, index: usize) -> Iova {
        self.device_address(RECEIVE_BUFFERS + index % DESCRIPTORS * BUFFER_SIZE)
    }

    /// Where the NIC finds the transmit buffer of descriptor `index`.
    pub fn transmit_buffer(&self, index: usize) -> Iova {
        self.device_address(TRANSMIT_BUFFERS + index % DESCRIPTORS * BUFFER_SIZE)
    }

    /// Fills in receive descriptor `index`, whose packet goes to `buffer`.
    pub fn write_receive(&mut self, index: usize, buffer: Iova) {
        self.write_descriptor(RECEIVE_RING, index, descriptor::receive(buffer));
    }

    /// Fills in transmit descriptor `index`, whose packet of `length` bytes is at `buffer`.
    pub fn write_transmit(&mut self, index: usize, buffer: Iova, length: u16) {
        self.write_descriptor(TRANSMIT_RING, index, descriptor::transmit(buffer, length));
    }

    /// The second word of receive descriptor `index`.
    pub fn receive_status(&self, index: usize) -> u64 {
        self.read_status(RECEIVE_RING, index)
    }

    /// The second word of transmit descriptor `index`.
    pub fn transmit_status(&self, index: usize) -> u64 {
        self.read_status(TRANSMIT_RING, index)
    }

    /// Copies the packet of receive descriptor `index` out, as much as fits.
    pub fn copy_received(&self, index: usize, packet: &mut [u8]) {
        let source = self.base.wrapping_add(RECEIVE_BUFFERS + index % DESCRIPTORS * BUFFER_SIZE);
        // SAFETY: the buffer lies within the storage, and at most its size is copied; `packet` is ordinary memory
        // elsewhere. The device is done with the buffer (its descriptor says so); if it were not, the bytes would be
        // a mixture, which is what a packet may be anyway.
        unsafe { ptr::copy_nonoverlapping(source, packet.as_mut_ptr(), packet.len().min(BUFFER_SIZE)) };
    }

    /// Copies a packet into the buffer of transmit descriptor `index`, as much as fits.
    pub fn copy_to_transmit(&mut self, index: usize, packet: &[u8]) {
        let target = self.base.wrapping_add(TRANSMIT_BUFFERS + index % DESCRIPTORS * BUFFER_SIZE);
        // SAFETY: as above; the device only reads transmit buffers.
        unsafe { ptr::copy_nonoverlapping(packet.as_ptr(), target, packet.len().min(BUFFER_SIZE)) };
    }

    fn descriptor(&self, ring: usize, index: usize) -> *mut u64 {
        self.base.wrapping_add(ring + index % DESCRIPTORS * DESCRIPTOR_SIZE).cast()
    }

    fn write_descriptor(&mut self, ring: usize, index: usize, words: [u64; 2]) {
        let place = self.descriptor(ring, index);
        // SAFETY: both words lie within the storage and are aligned; volatile, because the device sees them.
        unsafe {
            place.write_volatile(words[0]);
            place.add(1).write_volatile(words[1]);
        }
        fence(Ordering::Release);
    }

    fn read_status(&self, ring: usize, index: usize) -> u64 {
        // SAFETY: as above; volatile, because the device changes it.
        let word = unsafe { self.descriptor(ring, index).add(1).read_volatile() };
        fence(Ordering::Acquire);
        word
    }
}
