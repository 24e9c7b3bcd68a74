//! Reaching physical memory, through the map of all memory.
//!
//! Everything that hardware may read or write at the same time (tables, queues, descriptors) goes through the
//! atomic accessors. Plain copies are for memory that nobody else is using yet, or for guests' memory, whose
//! contents the hypervisor never trusts: a guest or its device may change them at any moment.

use crate::memory::layout::{PHYSICAL_MAP, PHYSICAL_MAP_BYTES};
use addr::{HostPhys, PAGE_SIZE};
use core::sync::atomic::{AtomicU64, Ordering, compiler_fence};

/// Where `address` is mapped: by the loader, which is asked for this place, and then by the hypervisor itself.
pub fn virtual_address(address: HostPhys) -> u64 {
    // No machine has memory beyond the map's room, and an address that pretends to be there must not reach past it.
    PHYSICAL_MAP + (address.as_u64() & (PHYSICAL_MAP_BYTES - 1))
}

fn atomic(address: HostPhys) -> *const AtomicU64 {
    (virtual_address(address) & !7) as *const AtomicU64
}

/// Reads 8 bytes at a multiple of 8 (the lower address bits are ignored).
#[expect(unsafe_code, reason = "the physical map")]
pub fn read_u64(address: HostPhys) -> u64 {
    // SAFETY: the physical map covers all memory that the frame table names, and callers pass addresses of frames
    // that they own; an aligned atomic access is sound whoever else accesses the same 8 bytes.
    unsafe { &*atomic(address) }.load(Ordering::Acquire)
}

/// Writes 8 bytes at a multiple of 8 (the lower address bits are ignored), in one store that hardware sees whole.
#[expect(unsafe_code, reason = "the physical map")]
pub fn write_u64(address: HostPhys, value: u64) {
    // SAFETY: as for `read_u64`.
    unsafe { &*atomic(address) }.store(value, Ordering::Release);
}

/// Replaces 16 bytes at a multiple of 16 by one store that hardware sees whole, if they are `old` (low half first); says
/// whether. Every processor with VMX or SVM and long mode has the instruction (CMPXCHG16B).
#[expect(unsafe_code, reason = "the physical map")]
pub fn exchange_u128(address: HostPhys, old: [u64; 2], new: [u64; 2]) -> bool {
    let place = virtual_address(HostPhys::new(address.as_u64() & !15));
    let done: u8;
    // SAFETY: as for `read_u64`. The compiler keeps RBX for itself, so it is exchanged and put back.
    unsafe {
        core::arch::asm!(
            "xchg rbx, {low}",
            "lock cmpxchg16b [{place}]",
            "setz {done}",
            "mov rbx, {low}",
            place = in(reg) place,
            low = inout(reg) new[0] => _,
            in("rcx") new[1],
            inout("rax") old[0] => _,
            inout("rdx") old[1] => _,
            done = out(reg_byte) done,
            options(nostack),
        );
    }
    done != 0
}

/// Zeroes whole frames.
#[expect(unsafe_code, reason = "the physical map")]
pub fn zero(start: HostPhys, frames: usize) {
    let bytes = frames * PAGE_SIZE as usize;
    // SAFETY: callers pass frames that they have just allocated; nothing else refers to them.
    unsafe { core::ptr::write_bytes(virtual_address(start) as *mut u8, 0, bytes) };
}

/// Copies bytes out of physical memory.
#[expect(unsafe_code, reason = "the physical map")]
pub fn read_bytes(from: HostPhys, to: &mut [u8]) {
    compiler_fence(Ordering::SeqCst);
    // SAFETY: the source is mapped memory that no Rust reference covers (frames of guests and of firmware are
    // reached through this module only), the destination is a reference of the caller's.
    unsafe { core::ptr::copy_nonoverlapping(virtual_address(from) as *const u8, to.as_mut_ptr(), to.len()) };
    compiler_fence(Ordering::SeqCst);
}

/// Copies bytes into physical memory.
#[expect(unsafe_code, reason = "the physical map")]
pub fn write_bytes(to: HostPhys, from: &[u8]) {
    compiler_fence(Ordering::SeqCst);
    // SAFETY: as for `read_bytes`, with the directions exchanged.
    unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), virtual_address(to) as *mut u8, from.len()) };
    compiler_fence(Ordering::SeqCst);
}

/// Memory as a slice that lives for ever.
#[expect(unsafe_code, reason = "the physical map")]
pub fn bytes_mut(start: HostPhys, bytes: usize) -> &'static mut [u8] {
    // SAFETY: called once, for the table of frames, with memory that nothing else uses and that is never given back.
    // The hypervisor's own mapping has it at the same place as the loader's.
    unsafe { core::slice::from_raw_parts_mut(virtual_address(start) as *mut u8, bytes) }
}

/// Memory as a slice that nobody changes any more: the archive of guests.
#[expect(unsafe_code, reason = "the physical map")]
pub fn bytes(start: HostPhys, bytes: usize) -> &'static [u8] {
    // SAFETY: the ramdisk's frames belong to the hypervisor, which only reads them, and no device reaches them.
    unsafe { core::slice::from_raw_parts(virtual_address(start) as *const u8, bytes) }
}

/// Writes the cache lines of `start..start + bytes` back to memory: for hardware that reads memory past the caches.
#[expect(unsafe_code, reason = "cache control")]
pub fn write_back(start: HostPhys, bytes: u64) {
    const LINE: u64 = 64;
    let first = start.align_down(LINE).as_u64();
    let last = start.as_u64().saturating_add(bytes);
    let fence = || {
        // SAFETY: MFENCE orders accesses and has no other effect.
        unsafe { core::arch::asm!("mfence", options(nostack, preserves_flags)) }
    };
    // CLFLUSH is ordered with other writes by MFENCE only: with the stores into the line before, and with whatever
    // tells hardware to look after.
    fence();
    for line in (first..last).step_by(LINE as usize) {
        let pointer = virtual_address(HostPhys::new(line));
        // SAFETY: CLFLUSH changes no contents; the line is in the physical map.
        unsafe { core::arch::asm!("clflush [{}]", in(reg) pointer, options(nostack, preserves_flags)) };
    }
    fence();
}
