//! Speculation control: what a guest sees of the registers with which it keeps its processor from running ahead (SDM vol. 4,
//! table 2-2; Intel's "Speculative Execution Side Channel Mitigations").
//!
//! They act on the guest's own execution, so once it uses one it has it: the write that is seen first is checked here, and
//! after that the processor refuses what it does not know.

/// IA32_SPEC_CTRL.
pub const IA32_SPEC_CTRL: u32 = 0x48;
/// IA32_PRED_CMD: write only.
pub const IA32_PRED_CMD: u32 = 0x49;
/// IA32_ARCH_CAPABILITIES: read only.
pub const IA32_ARCH_CAPABILITIES: u32 = 0x10a;

/// CPUID leaf 7, EDX: IBRS and IBPB, STIBP, IA32_ARCH_CAPABILITIES, SSBD.
const IBRS_IBPB: u32 = 1 << 26;
const STIBP: u32 = 1 << 27;
const ARCH_CAPABILITIES: u32 = 1 << 29;
const SSBD: u32 = 1 << 31;
/// What is shown of that register: the above, and that VERW clears buffers (MD_CLEAR).
const SHOWN: u32 = 1 << 10 | IBRS_IBPB | STIBP | ARCH_CAPABILITIES | SSBD;

/// What is shown of IA32_ARCH_CAPABILITIES: what the processor is not susceptible to, what it does by itself, and where it is
/// worse than its model says. Not what comes with other registers: RDCL_NO, IBRS_ALL, RSBA, SSB_NO, MDS_NO,
/// IF_PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, RRSBA, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO.
const CAPABILITIES: u64 = 0b111
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 8
    | 1 << 13
    | 1 << 14
    | 1 << 15
    | 1 << 19
    | 1 << 20
    | 1 << 24
    | 1 << 26
    | 1 << 27
    | 1 << 62;

/// What one guest sees; nothing by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Speculation {
    shown: u32,
    capabilities: u64,
}

impl Speculation {
    /// On a processor with this EDX of CPUID leaf 7, and this IA32_ARCH_CAPABILITIES if it has that.
    pub const fn new(edx: u32, capabilities: u64) -> Self {
        Self { shown: edx & SHOWN, capabilities: capabilities & CAPABILITIES }
    }

    /// EDX of leaf 7.
    pub const fn shown(&self) -> u32 {
        self.shown
    }

    /// What RDMSR gives, of a register that the guest does not have yet; `None` where there is none to be read.
    pub fn read(&self, msr: u32) -> Option<u64> {
        match msr {
            IA32_SPEC_CTRL if self.controls() != 0 => Some(0),
            IA32_ARCH_CAPABILITIES if self.shown & ARCH_CAPABILITIES != 0 => Some(self.capabilities),
            _ => None,
        }
    }

    /// Whether the guest may write this: then the register is to be its own, and its processor makes the write.
    pub fn accepts(&self, msr: u32, value: u64) -> bool {
        match msr {
            IA32_SPEC_CTRL => self.controls() != 0 && value & !self.controls() == 0,
            IA32_PRED_CMD => self.shown & IBRS_IBPB != 0 && value & !1 == 0,
            _ => false,
        }
    }

    /// The bits of IA32_SPEC_CTRL that there are.
    fn controls(&self) -> u64 {
        let has = |feature: u32| u64::from(self.shown & feature != 0);
        has(IBRS_IBPB) | has(STIBP) << 1 | has(SSBD) << 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Speculation = Speculation::new(u32::MAX, u64::MAX);

    #[test]
    fn what_comes_with_other_registers_is_hidden() {
        for (name, bit) in [("L1D_FLUSH", 28), ("CORE_CAPABILITIES", 30), ("AMX", 24), ("UINTR", 5)] {
            assert_eq!(ALL.shown() >> bit & 1, 0, "{name}");
        }
        let capabilities = ALL.read(0x10a).unwrap();
        for (name, bit) in [
            ("SKIP_L1DFL_VMENTRY", 3),
            ("TSX_CTRL", 7),
            ("MISC_PACKAGE_CTLS", 10),
            ("ENERGY_FILTERING_CTL", 11),
            ("FB_CLEAR_CTRL", 18),
            ("XAPIC_DISABLE_STATUS", 21),
        ] {
            assert_eq!(capabilities >> bit & 1, 0, "{name}");
        }
        assert_eq!((capabilities & 0b111, Speculation::new(1 << 29, 2).read(0x10a)), (0b111, Some(2)));
    }

    #[test]
    fn nothing_is_there_that_is_not_shown() {
        for (features, present) in [(0, [false; 3]), (1 << 26, [true, true, false]), (1 << 29, [false, false, true])] {
            let some = Speculation::new(features, u64::MAX);
            let there = [some.read(0x48).is_some(), some.accepts(0x49, 1), some.read(0x10a).is_some()];
            assert_eq!(there, present, "{features:#x}");
            assert_eq!(some.accepts(0x48, 0), present[0]);
        }
    }

    #[test]
    fn only_bits_that_there_are_can_be_written() {
        for (features, legal) in [(1 << 26, 1u64), (1 << 27, 2), (1 << 31, 4), (1 << 26 | 1 << 27 | 1 << 31, 7)] {
            let some = Speculation::new(features, 0);
            assert_eq!(some.read(0x48), Some(0));
            for bit in 0..64 {
                assert_eq!(some.accepts(0x48, 1 << bit), legal >> bit & 1 != 0, "{features:#x} bit {bit}");
            }
        }
        for (value, legal) in [(0, true), (1, true), (2, false), (3, false), (1 << 63, false)] {
            assert_eq!(ALL.accepts(0x49, value), legal, "{value:#x}");
        }
        assert_eq!(ALL.read(0x49), None, "it is write only");
        assert!(!ALL.accepts(0x10a, 0), "it is read only");
    }
}
