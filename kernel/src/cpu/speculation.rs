//! What this processor says of its speculation.

#![expect(unsafe_code, reason = "reads a model-specific register")]

use x86_64::registers::model_specific::Msr;

const IA32_ARCH_CAPABILITIES: u32 = 0x10a;
/// The leaf whose EDX says what there is, and its bit of that register.
const FEATURES: u32 = 7;
const HAS_CAPABILITIES: u32 = 1 << 29;

/// EDX of CPUID leaf 7, and IA32_ARCH_CAPABILITIES; 0 where there is none.
pub fn read() -> (u32, u64) {
    if core::arch::x86_64::__cpuid(0).eax < FEATURES {
        return (0, 0);
    }
    let features = core::arch::x86_64::__cpuid_count(FEATURES, 0).edx;
    let capabilities = if features & HAS_CAPABILITIES != 0 {
        // SAFETY: the processor says that it has the register; reading it has no effect.
        unsafe { Msr::new(IA32_ARCH_CAPABILITIES).read() }
    } else {
        0
    };
    (features, capabilities)
}
