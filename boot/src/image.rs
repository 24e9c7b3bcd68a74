//! Where the parts of this image are, as `linker.ld` placed them.

use core::ops::Range;

unsafe extern "C" {
    static __boot_start: u8;
    static __boot_end: u8;
    static __image_start: u8;
    static __image_end: u8;
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_start: u8;
    static __rodata_end: u8;
    static __data_start: u8;
    static __data_end: u8;
    static __stack_start: u8;
    static __stack_end: u8;
}

/// The parts of this image. All are virtual addresses at multiples of 4 KiB, and hold wherever a loader put the image
/// in physical memory.
#[derive(Debug, Clone)]
pub struct Image {
    /// Entry code of this crate, linked at its physical address, not needed any more. A loader other than PVH and
    /// Multiboot2 maps it too, at this address.
    pub boot: Range<u64>,
    /// Everything below: text, read-only data and data follow each other.
    pub whole: Range<u64>,
    /// Code: readable, executable.
    pub text: Range<u64>,
    /// Constants: readable.
    pub rodata: Range<u64>,
    /// Variables, `.bss` and the boot stack: readable, writable.
    pub data: Range<u64>,
    /// The stack at `_start` when this crate booted the image; it lies in `data`. The page below it holds nothing: left
    /// unmapped, it turns an overflow into a page fault.
    pub stack: Range<u64>,
}

/// The parts of this image.
pub fn image() -> Image {
    let range = |start: *const u8, end: *const u8| start as u64..end as u64;
    Image {
        boot: range(&raw const __boot_start, &raw const __boot_end),
        whole: range(&raw const __image_start, &raw const __image_end),
        text: range(&raw const __text_start, &raw const __text_end),
        rodata: range(&raw const __rodata_start, &raw const __rodata_end),
        data: range(&raw const __data_start, &raw const __data_end),
        stack: range(&raw const __stack_start, &raw const __stack_end),
    }
}
