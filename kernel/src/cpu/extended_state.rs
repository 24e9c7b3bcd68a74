//! XCR0: which registers the guest's XSAVE and vector instructions work on. The hypervisor has no use for it.

#![expect(unsafe_code, reason = "sets control registers")]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use x86_64::registers::control::{Cr4, Cr4Flags};

const CPUID_XSAVE: u32 = 1 << 26;
/// The leaf whose EDX:EAX are the bits that XCR0 can have.
const CPUID_EXTENDED_STATE: u32 = 0xd;

/// The bits that XCR0 can have; 0 before [`start`], and where there is no XSAVE.
static SUPPORTED: AtomicU64 = AtomicU64::new(0);

/// Lets XCR0 be set, on a processor that has it. Before a virtualization extension is switched on, which keeps CR4.
pub fn start() {
    if core::arch::x86_64::__cpuid(1).ecx & CPUID_XSAVE == 0 {
        return;
    }
    // SAFETY: the processor has the feature, whose instructions are all that changes.
    unsafe { Cr4::update(|flags| flags.insert(Cr4Flags::OSXSAVE)) };
    let leaf = core::arch::x86_64::__cpuid_count(CPUID_EXTENDED_STATE, 0);
    SUPPORTED.store(u64::from(leaf.edx) << 32 | u64::from(leaf.eax), Ordering::Relaxed);
}

/// The bits that XCR0 can have on this processor; 0 where it has none.
pub fn supported() -> u64 {
    SUPPORTED.load(Ordering::Relaxed)
}

/// XCR0, where there is one.
pub fn read_xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller has something to offer of it, so CR4.OSXSAVE is set; reading changes nothing.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Sets XCR0 to a value that has been checked against what the guest is offered of [`supported`].
pub fn set_xcr0(value: u64) {
    debug_assert!(value & !supported() == 0);
    // SAFETY: XCR0 is there, for there is something to offer, and the value is legal. No code of the hypervisor's depends on
    // it.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nomem, nostack, preserves_flags));
    }
}
