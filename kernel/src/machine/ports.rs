//! I/O ports.

#![expect(unsafe_code, reason = "I/O port instructions")]

/// Reads 1, 2 or 4 bytes from an I/O port; any other width reads as all ones.
pub fn read(port: u16, bytes: u8) -> u32 {
    let value: u32;
    // SAFETY: port reads change no memory. Which ports a caller may touch is the caller's business: the modules of
    // `machine` and `console` use ports of their own, and a guest's accesses are limited to what was assigned to it.
    unsafe {
        match bytes {
            1 => {
                core::arch::asm!("xor eax, eax", "in al, dx", out("eax") value, in("dx") port, options(nomem, nostack))
            }
            2 => {
                core::arch::asm!("xor eax, eax", "in ax, dx", out("eax") value, in("dx") port, options(nomem, nostack))
            }
            4 => core::arch::asm!("in eax, dx", out("eax") value, in("dx") port, options(nomem, nostack)),
            _ => value = u32::MAX,
        }
    }
    value
}

/// Writes 1, 2 or 4 bytes to an I/O port; any other width does nothing.
pub fn write(port: u16, bytes: u8, value: u32) {
    // SAFETY: as for `read`; no port that is used here makes a device write to memory that Rust knows of.
    unsafe {
        match bytes {
            1 => core::arch::asm!("out dx, al", in("eax") value, in("dx") port, options(nomem, nostack)),
            2 => core::arch::asm!("out dx, ax", in("eax") value, in("dx") port, options(nomem, nostack)),
            4 => core::arch::asm!("out dx, eax", in("eax") value, in("dx") port, options(nomem, nostack)),
            _ => {}
        }
    }
}
