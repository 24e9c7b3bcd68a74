//! What a guest is told by CPUID: a table of what passes, and nothing else. A feature that the platform does not
//! give (virtualization, extended state, debug store) is not shown.

use crate::vm::cpuid_leaf::Leaf;
use crate::vm::extended_state::{self, ExtendedState};
use crate::vm::{clock, paravirtual_eoi};
use addr::ApicId;

/// What the policy needs to know beside the processor's own answer.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The virtual processor's APIC id.
    pub apic_id: ApicId,
    /// Its local APIC is enabled by IA32_APIC_BASE: otherwise CPUID does not show one.
    pub apic_enabled: bool,
    /// Software does everything for the local APIC, and offers to end interrupts without an exit.
    pub paravirtual_eoi: bool,
    /// Its extended state.
    pub extended_state: ExtendedState,
    /// CR4.OSXSAVE, which leaf 1 shows.
    pub os_xsave: bool,
    /// XCR0, of which leaf 0xd shows the size.
    pub xcr0: u64,
    /// EDX of leaf 7.
    pub speculation: u32,
    /// The frequency of the time-stamp counter, and of the virtual APIC's timer input, in kHz.
    pub tsc_khz: u32,
}

impl Context {
    /// The bits of the features in EDX that may be shown now.
    fn shown(&self) -> u32 {
        if self.apic_enabled { u32::MAX } else { !FEATURE_APIC }
    }

    /// What of leaf 1, ECX depends on the extended state: what is the processor's, and what is the guest's.
    fn of_extended_state(&self) -> (u32, u32) {
        let os_xsave = if self.os_xsave { FEATURE_OSXSAVE } else { 0 };
        match (self.extended_state.is_offered(), self.extended_state.has_avx()) {
            (true, true) => (FEATURE_XSAVE | FEATURES_AVX, os_xsave),
            (true, false) => (FEATURE_XSAVE, os_xsave),
            (false, _) => (0, 0),
        }
    }
}

/// The highest basic leaf that is shown: the extended topology, or the extended state where there is one.
const HIGHEST_BASIC: u32 = 0xb;
/// The highest hypervisor leaf: the one with the frequencies.
const HIGHEST_HYPERVISOR: u32 = 0x4000_0010;
const HIGHEST_EXTENDED: u32 = 0x8000_0008;
/// The hypervisor's name, in EBX, ECX and EDX of leaf 0x4000_0000.
const NAME: [u8; 12] = *b"PosternVT-d\0";

/// Leaf 1, ECX: SSE3, PCLMULQDQ, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, RDRAND.
const FEATURES_ECX: u32 = 1 | 1 << 1 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 22 | 1 << 23 | 1 << 25 | 1 << 30;
/// x2APIC, and the timer's TSC-deadline mode: the virtual APIC has them whatever the processor has.
const FEATURES_OF_APIC: u32 = 1 << 21 | 1 << 24;
const FEATURE_HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, ECX: XSAVE, which there is, and OSXSAVE, by which the guest's programs see that their operating system uses it.
const FEATURE_XSAVE: u32 = 1 << 26;
const FEATURE_OSXSAVE: u32 = 1 << 27;
/// Leaf 1, ECX: FMA, AVX, F16C.
const FEATURES_AVX: u32 = 1 << 12 | 1 << 28 | 1 << 29;
/// Leaves 1 and 0x8000_0001, EDX: the local APIC.
const FEATURE_APIC: u32 = 1 << 9;
/// Leaf 1, EDX: FPU, VME, DE, PSE, TSC, MSR, PAE, MCE, CX8, APIC, SEP, MTRR, PGE, MCA, CMOV, PAT, PSE-36, CLFLUSH, MMX, FXSR, SSE,
/// SSE2, self-snoop.
const FEATURES_EDX: u32 = 0xff
    | 1 << 8
    | 1 << 9
    | 1 << 11
    | 1 << 12
    | 1 << 13
    | 1 << 14
    | 1 << 15
    | 1 << 16
    | 1 << 17
    | 1 << 19
    | 1 << 23
    | 1 << 24
    | 1 << 25
    | 1 << 26
    | 1 << 27;
/// Leaf 7, EBX: FSGSBASE, BMI1, SMEP, BMI2, ERMS, RDSEED, ADX, SMAP, CLFLUSHOPT, SHA.
const STRUCTURED_EBX: u32 = 1 | 1 << 3 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 23 | 1 << 29;
/// The same, where there is AVX: AVX2.
const STRUCTURED_EBX_AVX: u32 = 1 << 5;
/// Leaf 7, ECX, where there is AVX: VAES, VPCLMULQDQ.
const STRUCTURED_ECX_AVX: u32 = 1 << 9 | 1 << 10;
/// Leaf 0x8000_0001, ECX: LAHF in 64-bit mode, LZCNT, SSE4A, misaligned SSE, PREFETCHW.
const EXTENDED_ECX: u32 = 1 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8;
/// Leaf 0x8000_0001, EDX: SYSCALL, no-execute, 1 GiB pages, long mode, and what leaf 1 has in the same bits.
const EXTENDED_EDX: u32 = 1 << 11 | 1 << 20 | 1 << 26 | 1 << 29 | FEATURES_EDX & 0x0183_f3ff;
/// Leaf 0x8000_0007, EDX: the time-stamp counter's rate never changes.
const INVARIANT_TSC: u32 = 1 << 8;

/// The guest's answer for `leaf` and `subleaf`; `processor` is the processor's own.
pub fn answer(leaf: u32, subleaf: u32, context: &Context, processor: impl Fn(u32, u32) -> Leaf) -> Leaf {
    match leaf {
        0 => {
            let own = processor(0, 0);
            let highest = if context.extended_state.is_offered() { extended_state::LEAF } else { HIGHEST_BASIC };
            Leaf { eax: own.eax.min(highest), ..own }
        }
        1 => features(context, Leaf { eax: signature(&processor), ..processor(1, 0) }),
        // The local APIC's timer never stops (ARAT): without it, a kernel that has no other timer never leaves it alone.
        6 => Leaf { eax: 1 << 2, ..Leaf::default() },
        7 if subleaf == 0 => {
            let (own, avx) = (processor(7, 0), if context.extended_state.has_avx() { u32::MAX } else { 0 });
            Leaf {
                ebx: own.ebx & (STRUCTURED_EBX | STRUCTURED_EBX_AVX & avx),
                ecx: own.ecx & STRUCTURED_ECX_AVX & avx,
                edx: own.edx & context.speculation,
                ..Leaf::default()
            }
        }
        0xb => Leaf {
            // One thread, one core: each level has one logical processor, and the levels end at once.
            ebx: u32::from(subleaf < 2),
            ecx: subleaf & 0xff | if subleaf < 2 { (subleaf + 1) << 8 } else { 0 },
            edx: context.apic_id.0,
            ..Leaf::default()
        },
        extended_state::LEAF => context.extended_state.leaf(subleaf, context.xcr0, |subleaf| processor(leaf, subleaf)),
        0x4000_0000 => named(HIGHEST_HYPERVISOR, NAME),
        // A second interface, which more guests know.
        clock::CPUID_BASE => named(clock::CPUID_FEATURES, clock::NAME),
        clock::CPUID_FEATURES => {
            let eoi = if context.paravirtual_eoi { paravirtual_eoi::FEATURE } else { 0 };
            Leaf { eax: clock::FEATURES | eoi, ..Leaf::default() }
        }
        HIGHEST_HYPERVISOR => Leaf { eax: context.tsc_khz, ebx: context.tsc_khz, ..Leaf::default() },
        0x8000_0000 => {
            let own = processor(leaf, 0);
            Leaf { eax: own.eax.min(HIGHEST_EXTENDED), ..own }
        }
        0x8000_0001 => {
            let own = processor(leaf, 0);
            Leaf {
                eax: signature(&processor),
                ebx: 0,
                ecx: own.ecx & EXTENDED_ECX,
                edx: own.edx & EXTENDED_EDX & context.shown(),
            }
        }
        // The processor's name.
        0x8000_0002..=0x8000_0004 => processor(leaf, 0),
        0x8000_0007 => Leaf { edx: processor(leaf, 0).edx & INVARIANT_TSC, ..Leaf::default() },
        0x8000_0008 => Leaf { eax: processor(leaf, 0).eax & 0xffff, ..Leaf::default() },
        _ => Leaf::default(),
    }
}

/// A leaf with a name, and the highest leaf of those that belong to it.
fn named(highest: u32, name: [u8; 12]) -> Leaf {
    let [ebx, ecx, edx] = core::array::from_fn(|word| {
        u32::from_le_bytes([name[word * 4], name[word * 4 + 1], name[word * 4 + 2], name[word * 4 + 3]])
    });
    Leaf { eax: highest, ebx, ecx, edx }
}

/// Family, model and stepping. Processors of AMD's families 0Fh and 10h have a graphics aperture in their northbridge, for
/// which kernels search all 256 buses, 32 slots each, before they know of any: this platform has neither the bridge nor
/// the buses, and shows the family between, which is the same without them.
fn signature(processor: impl Fn(u32, u32) -> Leaf) -> u32 {
    const AMD: u32 = u32::from_le_bytes(*b"Auth");
    const FAMILY_11H: u32 = 0x0020_0f31;
    let own = processor(1, 0).eax;
    let family = (own >> 8 & 0xf) + if own >> 8 & 0xf == 0xf { own >> 20 & 0xff } else { 0 };
    if matches!(family, 0xf | 0x10) && processor(0, 0).ebx == AMD { FAMILY_11H } else { own }
}

fn features(context: &Context, own: Leaf) -> Leaf {
    const CLFLUSH_LINE: u32 = 0xff00;
    let (extended, enabled) = context.of_extended_state();
    Leaf {
        eax: own.eax,
        ebx: (context.apic_id.0 & 0xff) << 24 | 1 << 16 | own.ebx & CLFLUSH_LINE,
        ecx: own.ecx & (FEATURES_ECX | extended) | enabled | FEATURES_OF_APIC | FEATURE_HYPERVISOR,
        edx: own.edx & FEATURES_EDX & context.shown(),
    }
}

/// Asks the processor itself.
pub fn of_processor(leaf: u32, subleaf: u32) -> Leaf {
    let answer = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    Leaf { eax: answer.eax, ebx: answer.ebx, ecx: answer.ecx, edx: answer.edx }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Leaf = Leaf { eax: u32::MAX, ebx: u32::MAX, ecx: u32::MAX, edx: u32::MAX };
    const CONTEXT: Context = Context {
        apic_id: ApicId(3),
        apic_enabled: true,
        paravirtual_eoi: false,
        extended_state: ExtendedState::new(0),
        os_xsave: true,
        xcr0: 1,
        speculation: 0,
        tsc_khz: 2_500_000,
    };

    fn ask(leaf: u32, subleaf: u32) -> Leaf {
        answer(leaf, subleaf, &CONTEXT, |_, _| ALL)
    }

    #[test]
    fn a_processor_with_a_northbridge_of_its_own_is_shown_as_one_without() {
        let shown = |vendor: &[u8; 4], own: u32| {
            let processor = |leaf, _| Leaf {
                eax: own,
                ebx: if leaf == 0 { u32::from_le_bytes(*vendor) } else { 0 },
                ..Leaf::default()
            };
            let of = |leaf| answer(leaf, 0, &CONTEXT, processor).eax;
            assert_eq!(of(1), of(0x8000_0001));
            of(1)
        };
        for own in [0x0006_0fb1, 0x0010_0f42] {
            assert_eq!(shown(b"Auth", own), 0x0020_0f31);
            assert_eq!(shown(b"Genu", own), own);
        }
        for own in [0x0020_0f31, 0x0060_0f12, 0x0080_0f11, 0x0000_0663] {
            assert_eq!(shown(b"Auth", own), own);
        }
    }

    #[test]
    fn what_the_platform_does_not_give_is_hidden() {
        let features = ask(1, 0);
        for (name, bit) in
            [("MONITOR", 3), ("VMX", 5), ("FMA", 12), ("PCID", 17), ("XSAVE", 26), ("OSXSAVE", 27), ("AVX", 28)]
        {
            assert_eq!(features.ecx >> bit & 1, 0, "{name}");
        }
        for (name, bit) in [("DTES", 21), ("HTT", 28)] {
            assert_eq!(features.edx >> bit & 1, 0, "{name}");
        }
        let extended = ask(0x8000_0001, 0);
        assert_eq!(extended.ecx >> 2 & 1, 0, "SVM");
        assert_eq!(extended.edx >> 27 & 1, 0, "RDTSCP");
        for leaf in [2, 4, 5, 0xa, 0xd, 0x14, 0x4000_0001, 0x8000_000a, 0x8000_001f, u32::MAX] {
            assert_eq!(ask(leaf, 0), Leaf::default(), "{leaf:#x}");
        }
        assert_eq!(ask(7, 1), Leaf::default());
        assert_eq!((ask(0, 0).eax, ask(0x8000_0000, 0).eax), (0xb, 0x8000_0008));
    }

    #[test]
    fn extended_state_is_shown_with_what_needs_it() {
        let ask = |extended_state, os_xsave, leaf| {
            let context = Context { extended_state: ExtendedState::new(extended_state), os_xsave, ..CONTEXT };
            answer(leaf, 0, &context, |_, _| ALL)
        };
        let (xsave, os_xsave, avx) = (1 << 26, 1 << 27, 1 << 12 | 1 << 28 | 1 << 29);
        for (state, enabled, expected) in [
            (0, true, 0),
            (3, false, xsave),
            (3, true, xsave | os_xsave),
            (7, false, xsave | avx),
            (7, true, xsave | os_xsave | avx),
        ] {
            assert_eq!(ask(state, enabled, 1).ecx & (xsave | os_xsave | avx), expected, "{state} {enabled}");
        }
        let (avx2, vector) = (1 << 5, 1 << 9 | 1 << 10);
        assert_eq!((ask(7, true, 7).ebx & avx2, ask(7, true, 7).ecx), (avx2, vector));
        assert_eq!((ask(3, true, 7).ebx & avx2, ask(3, true, 7).ecx), (0, 0));
        assert_eq!([0, 3, 7].map(|state| ask(state, true, 0).eax), [0xb, 0xd, 0xd]);
        // What the processor does not have is not shown.
        let context = Context { extended_state: ExtendedState::new(7), ..CONTEXT };
        let none = |leaf| answer(leaf, 0, &context, |_, _| Leaf::default());
        assert_eq!((none(1).ecx & avx, none(7), none(0).eax), (0, Leaf::default(), 0));
        let context = Context { speculation: 1 << 26, ..CONTEXT };
        assert_eq!(answer(7, 0, &context, |_, _| ALL).edx, 1 << 26);
        // Wider vectors need state that is not offered.
        assert_eq!(ask(7, true, 7).ebx & (1 << 16 | 1 << 17 | 1 << 30 | 1 << 31), 0);
    }

    #[test]
    fn the_guest_learns_who_and_how_fast() {
        let features = ask(1, 0);
        assert_eq!((features.ebx >> 24, features.ecx >> 21 & 1, features.ecx >> 31), (3, 1, 1));
        assert_eq!(features.ecx >> 24 & 1, 1, "TSC deadline, which the virtual APIC has");
        let name = ask(0x4000_0000, 0);
        let bytes = [name.ebx, name.ecx, name.edx].map(u32::to_le_bytes).concat();
        assert_eq!(bytes, NAME);
        let frequency = ask(0x4000_0010, 0);
        assert_eq!((frequency.eax, frequency.ebx), (2_500_000, 2_500_000));
        assert_eq!(ask(0xb, 1).edx, 3);
    }
}
