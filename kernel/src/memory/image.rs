//! The hypervisor's image in memory: its sections as linker.ld lays them out.

#![cfg_attr(not(target_os = "none"), allow(dead_code, reason = "the linker's symbols exist in the image only"))]

/// A range of virtual addresses of the image, whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// Whether it can be written.
    pub writable: bool,
    /// Whether it can be executed.
    pub executable: bool,
}

impl Section {
    /// The length in bytes.
    pub const fn bytes(&self) -> u64 {
        self.end - self.start
    }
}

#[cfg(target_os = "none")]
mod symbols {
    #![expect(unsafe_code, reason = "the linker's symbols")]

    macro_rules! symbols {
        ($($name:ident => $symbol:ident),* $(,)?) => {
            $(pub fn $name() -> u64 {
                unsafe extern "C" {
                    static $symbol: u8;
                }
                &raw const $symbol as u64
            })*
        };
    }

    symbols! {
        text_start => __text_start,
        text_end => __text_end,
        rodata_start => __rodata_start,
        rodata_end => __rodata_end,
        data_start => __data_start,
        data_end => __data_end,
        bss_start => __bss_start,
    }
}

#[cfg(not(target_os = "none"))]
mod symbols {
    //! On the host there is no image: its sections are empty.
    pub fn text_start() -> u64 {
        0
    }
    pub use text_start as text_end;
    pub use text_start as rodata_start;
    pub use text_start as rodata_end;
    pub use text_start as data_start;
    pub use text_start as data_end;
    pub use text_start as bss_start;
}

/// Code, constants and data, in this order.
pub fn sections() -> [Section; 3] {
    use symbols::*;
    [
        Section { start: text_start(), end: text_end(), writable: false, executable: true },
        Section { start: rodata_start(), end: rodata_end(), writable: false, executable: false },
        Section { start: data_start(), end: data_end(), writable: true, executable: false },
    ]
}

/// Bytes of the image that come from its file: code, constants and initialized data.
pub fn file_bytes() -> u64 {
    symbols::text_end() - symbols::text_start() + symbols::rodata_end() - symbols::rodata_start() + symbols::bss_start()
        - symbols::data_start()
}

/// A checksum of code and constants: what must not change while guests run.
#[expect(unsafe_code, reason = "reads the image's own sections")]
pub fn constant_checksum() -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325u64;
    for section in sections().iter().filter(|section| !section.writable) {
        for address in (section.start..section.end).step_by(8) {
            // SAFETY: the sections are mapped, readable, page-aligned and constant; volatile, because the question is
            // whether somebody else (a device) changed them.
            let word = unsafe { core::ptr::read_volatile(address as *const u64) };
            // FNV-1a over 64-bit words: every single changed bit changes the sum.
            sum = (sum ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    sum
}
