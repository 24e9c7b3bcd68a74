//! A guest's extended state (SDM vol. 1, chapter 13): what XCR0 can be, and what CPUID says of it.
//!
//! Offered are x87, SSE and AVX, where the processor has them, with the instructions that save and restore them for an
//! operating system's programs. Not offered: wider vectors and protection keys, and all supervisor state with XSAVES.
//! XCR0 and the registers themselves are the guest's also while the hypervisor runs, which uses none of them: nothing
//! here keeps a copy.

use crate::vm::cpuid_leaf::Leaf;
use crate::vm::local_apic::GeneralProtection;

/// XCR0: the x87 registers, which cannot be left out.
pub const X87: u64 = 1;
/// XCR0: the XMM registers.
const SSE: u64 = 1 << 1;
/// XCR0: the upper halves of the YMM registers; not without the lower ones.
const AVX: u64 = 1 << 2;
/// XCR0's number, the only one that there is.
const XCR0: u32 = 0;

/// The leaf of CPUID.
pub const LEAF: u32 = 0xd;
/// Subleaf 1, EAX: XSAVEOPT, XSAVEC, XGETBV of what is in use. Not XSAVES.
const INSTRUCTIONS: u32 = XSAVEC | 1 | 1 << 2;
const XSAVEC: u32 = 1 << 1;
/// The first subleaf of a component that is described.
const FIRST_DESCRIBED: u32 = 2;
/// A component's subleaf, ECX: aligned to 64 bytes in the compacted format.
const ALIGNED: u32 = 1 << 1;
/// Bytes of the legacy region and the header (13.4.1 and 13.4.2).
const LEGACY_AND_HEADER: u32 = 512 + 64;

/// One virtual processor's extended state.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExtendedState {
    offered: u64,
}

impl ExtendedState {
    /// On a processor whose XCR0 can have the bits of `processor`: 0 where there is no XSAVE.
    pub const fn new(processor: u64) -> Self {
        let offered = processor & (X87 | SSE | AVX);
        Self { offered: if offered & SSE == 0 { 0 } else { offered } }
    }

    /// Whether there is XSAVE.
    pub const fn is_offered(&self) -> bool {
        self.offered != 0
    }

    /// Whether there is AVX.
    pub const fn has_avx(&self) -> bool {
        self.offered & AVX != 0
    }

    /// Whether XSETBV may set register `index` to `value`.
    pub const fn check(&self, index: u32, value: u64) -> Result<(), GeneralProtection> {
        let illegal = value & !self.offered != 0 || value & X87 == 0 || value & (SSE | AVX) == AVX;
        if index != XCR0 || illegal { Err(GeneralProtection) } else { Ok(()) }
    }

    /// The answer of CPUID for a subleaf of [`LEAF`] when XCR0 is `xcr0`; `processor` gives the processor's own.
    pub fn leaf(&self, subleaf: u32, xcr0: u64, processor: impl Fn(u32) -> Leaf) -> Leaf {
        let enabled = xcr0 & self.offered;
        match subleaf {
            _ if !self.is_offered() => Leaf::default(),
            0 => Leaf {
                eax: self.offered as u32,
                ebx: size(enabled, false, &processor),
                ecx: size(self.offered, false, &processor),
                edx: (self.offered >> 32) as u32,
            },
            1 => {
                let eax = processor(1).eax & INSTRUCTIONS;
                let compacted = if eax & XSAVEC != 0 { size(enabled, true, &processor) } else { 0 };
                Leaf { eax, ebx: compacted, ..Leaf::default() }
            }
            _ if subleaf < u64::BITS && self.offered >> subleaf & 1 != 0 => {
                let own = processor(subleaf);
                Leaf { ecx: own.ecx & ALIGNED, edx: 0, ..own }
            }
            _ => Leaf::default(),
        }
    }
}

/// How many bytes an area for these components has, in the standard or in the compacted format (13.4.3).
fn size(components: u64, compacted: bool, processor: &impl Fn(u32) -> Leaf) -> u32 {
    let described = (FIRST_DESCRIBED..u64::BITS).filter(|component| components >> component & 1 != 0);
    described.fold(LEGACY_AND_HEADER, |end, component| {
        let Leaf { eax: bytes, ebx: offset, ecx, .. } = processor(component);
        let start = match compacted {
            false => offset,
            true if ecx & ALIGNED != 0 => end.saturating_add(63) & !63,
            true => end,
        };
        end.max(start.saturating_add(bytes))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A processor whose AVX state is where it is on all, with more beside it that is not offered.
    fn processor(subleaf: u32) -> Leaf {
        match subleaf {
            0 => Leaf { eax: 0x2e7, ebx: 0xa80, ecx: 0xa88, edx: 1 << 30 },
            1 => Leaf { eax: 0x1f, ebx: 0x988, ecx: 0x100, edx: 0 },
            2 => Leaf { eax: 256, ebx: 576, ecx: 0xffff_fffd, edx: 7 },
            other => Leaf { eax: 8, ebx: 1024 + other, ecx: 1, edx: 0 },
        }
    }

    fn state() -> ExtendedState {
        ExtendedState::new(0x4000_0000_0000_02e7)
    }

    #[test]
    fn three_components_are_offered() {
        let state = state();
        assert!(state.is_offered() && state.has_avx());
        assert_eq!(state.leaf(0, 1, processor), Leaf { eax: 7, ebx: 576, ecx: 832, edx: 0 });
        assert_eq!(state.leaf(1, 1, processor), Leaf { eax: 7, ebx: 576, ecx: 0, edx: 0 });
        assert_eq!(state.leaf(2, 1, processor), Leaf { eax: 256, ebx: 576, ecx: 0, edx: 0 });
        for subleaf in (3..80).chain([u32::MAX]) {
            assert_eq!(state.leaf(subleaf, 7, processor), Leaf::default(), "{subleaf}");
        }
    }

    #[test]
    fn the_sizes_are_those_of_what_is_on() {
        let state = state();
        // What is on and not offered, where a processor has taken it, has no size.
        for (xcr0, standard, compacted) in [(1, 576, 576), (3, 576, 576), (7, 832, 832), (0x203, 576, 576)] {
            let sizes = (state.leaf(0, xcr0, processor).ebx, state.leaf(1, xcr0, processor).ebx);
            assert_eq!(sizes, (standard, compacted), "{xcr0:#x}");
        }
        // Elsewhere in the standard format, and aligned where the processor says so.
        let far =
            |subleaf| if subleaf == 2 { Leaf { eax: 100, ebx: 1000, ..Leaf::default() } } else { processor(subleaf) };
        assert_eq!((state.leaf(0, 7, far).ebx, state.leaf(1, 7, far).ebx), (1100, 676));
        let compacted = |mask, aligned| size(mask, true, &|_| Leaf { eax: 8, ebx: 0, ecx: aligned, edx: 0 });
        assert_eq!((compacted(0xe7, 0), compacted(0xe7, ALIGNED)), (576 + 4 * 8, 576 + 3 * 64 + 8));
        assert_eq!(size(4, false, &|_| Leaf { eax: u32::MAX, ebx: 64, ..Leaf::default() }), u32::MAX, "no wrap");
    }

    #[test]
    fn a_processor_without_compaction_has_no_size_of_it() {
        let old = |subleaf| if subleaf == 1 { Leaf { eax: 1, ebx: 5, ..Leaf::default() } } else { processor(subleaf) };
        assert_eq!(state().leaf(1, 7, old), Leaf { eax: 1, ..Leaf::default() });
    }

    #[test]
    fn what_the_processor_does_not_have_is_not_offered() {
        let old = ExtendedState::new(3);
        assert!(old.is_offered() && !old.has_avx());
        assert_eq!((old.check(0, 7), old.check(0, 3)), (Err(GeneralProtection), Ok(())));
        assert_eq!((old.leaf(0, 3, processor).eax, old.leaf(2, 3, processor)), (3, Leaf::default()));
        for none in [ExtendedState::new(0), ExtendedState::new(1), ExtendedState::default()] {
            assert!(!none.is_offered() && !none.has_avx());
            assert_eq!((none.leaf(0, 1, processor), none.leaf(1, 1, processor)), (Leaf::default(), Leaf::default()));
        }
    }

    #[test]
    fn only_legal_values_are_taken() {
        for value in 0..8 {
            assert_eq!(state().check(0, value).is_ok(), matches!(value, 1 | 3 | 7), "{value}");
        }
        for bit in 3..64 {
            assert_eq!(state().check(0, 1 << bit | 7), Err(GeneralProtection), "bit {bit}");
        }
        for index in [1, 2, u32::MAX] {
            assert_eq!(state().check(index, 7), Err(GeneralProtection), "register {index}");
        }
    }
}
