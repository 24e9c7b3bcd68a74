//! Frames for tables: one stock for all crates that are measured, last in, first out, in memory that was touched before.
//!
//! A frame's physical address is its address in this process, so that no crate pays for a translation.
#![expect(unsafe_code, reason = "the memory that tables live in: everything above it is safe")]

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a frame.
pub const FRAME: usize = 4096;

/// The stock.
struct Stock {
    free: UnsafeCell<Vec<u64>>,
}

// SAFETY: the bench has one thread; `with` is the only access, and it never calls itself.
unsafe impl Sync for Stock {}

static STOCK: Stock = Stock { free: UnsafeCell::new(Vec::new()) };

fn with<T>(act: impl FnOnce(&mut Vec<u64>) -> T) -> T {
    // SAFETY: one thread, and no caller's closure calls a function of this module.
    act(unsafe { &mut *STOCK.free.get() })
}

/// Makes sure that at least `frames` are in stock.
pub fn provide(frames: usize) {
    let missing = frames.saturating_sub(in_stock());
    if missing == 0 {
        return;
    }
    let Ok(layout) = Layout::from_size_align(missing * FRAME, 2 << 20) else { return };
    // SAFETY: the layout is not empty.
    let start = unsafe { alloc_zeroed(layout) };
    if start.is_null() {
        handle_alloc_error(layout);
    }
    for frame in 0..missing {
        // SAFETY: inside what was just allocated. Touched, so that no measurement pays for the page's first use.
        unsafe { start.add(frame * FRAME).write_volatile(0) };
    }
    with(|free| {
        free.reserve(frames);
        free.extend((0..missing).rev().map(|frame| start as u64 + (frame * FRAME) as u64));
    });
}

/// The number of frames in stock.
pub fn in_stock() -> usize {
    with(|free| free.len())
}

/// A frame with whatever was in it.
#[inline]
pub fn take() -> Option<u64> {
    with(Vec::pop)
}

/// A zeroed frame.
#[inline]
pub fn take_zeroed() -> Option<u64> {
    let frame = take()?;
    // SAFETY: a frame of the stock, which nobody else uses.
    unsafe { zero(frame as *mut u8) };
    Some(frame)
}

/// Zeroes a frame, in the fastest way that this processor has for 4 KiB: who allocates frames zeroed may choose.
///
/// # Safety
/// `frame` is one, and nobody else uses it.
#[inline]
unsafe fn zero(frame: *mut u8) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2; the rest is the caller's.
        return unsafe { zero_by_32_bytes(frame) };
    }
    // SAFETY: the caller's.
    unsafe { frame.write_bytes(0, FRAME) };
}

/// # Safety
/// As [`zero`], and the processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn zero_by_32_bytes(frame: *mut u8) {
    let zero = std::arch::x86_64::_mm256_setzero_si256();
    for part in 0..FRAME / 32 {
        // Volatile, or it would become the call of `memset` that it is to be faster than.
        // SAFETY: inside the frame, which is aligned to its size.
        unsafe { frame.cast::<std::arch::x86_64::__m256i>().add(part).write_volatile(zero) };
    }
}

/// Gives a frame back.
#[inline]
pub fn give(frame: u64) {
    with(|free| free.push(frame));
}

/// Entry `index` (below 512) of the table in a frame.
#[inline]
pub fn entry(frame: u64, index: usize) -> &'static AtomicU64 {
    // SAFETY: frames are never given back to the process, are 4096 bytes, and are used as words by atomic accesses only
    // while Postern's tables are in them.
    unsafe { &*(frame as *const AtomicU64).add(index % 512) }
}

/// Postern's tables in frames of the stock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frames;

impl paging::TableMemory for Frames {
    #[inline]
    fn allocate_table(&mut self) -> Option<addr::HostPhys> {
        take_zeroed().map(addr::HostPhys::new)
    }

    #[inline]
    fn free_table(&mut self, table: addr::HostPhys) {
        give(table.as_u64());
    }

    #[inline]
    fn read_entry(&self, table: addr::HostPhys, index: usize) -> u64 {
        entry(table.as_u64(), index).load(Ordering::Relaxed)
    }

    #[inline]
    fn write_entry(&mut self, table: addr::HostPhys, index: usize, value: u64) {
        entry(table.as_u64(), index).store(value, Ordering::Release);
    }
}
