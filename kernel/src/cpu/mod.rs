//! The processor that the hypervisor runs on: descriptor tables, exceptions, interrupts, its local APIC.

pub mod descriptor_tables;
pub mod entry_points;
pub mod extended_state;
pub mod frame;
pub mod interrupts;
pub mod local_apic;
pub mod serving;
pub mod speculation;
pub mod timer;

/// Stops for good: the last thing that this processor does.
#[expect(unsafe_code, reason = "halts the processor")]
pub fn stop() -> ! {
    loop {
        // SAFETY: with interrupts disabled nothing but an NMI ends the halt, and the loop halts again.
        unsafe { core::arch::asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// The frame pointer of the caller: where a backtrace begins.
#[inline(always)]
#[expect(unsafe_code, reason = "reads a register")]
pub fn frame_pointer() -> u64 {
    let value: u64;
    // SAFETY: only reads RBP.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}
