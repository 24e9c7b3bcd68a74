//! What the processor's extension can do, and whether it may be used.

use crate::vcpu::svm::spec::msr;
use core::fmt;

/// The four registers of a CPUID leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// What the extension can do (CPUID 8000_000Ah).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The number of address space ids; 0 is the host's own.
    pub address_spaces: u32,
    /// NRIPS: an exit says where the instruction ends.
    pub next_rip: bool,
    /// FlushByAsid: one guest's translations can be flushed alone.
    pub flush_by_asid: bool,
    /// The width of physical addresses in bits (CPUID 8000_0008h).
    pub physical_address_bits: u32,
    /// The processor is QEMU's TCG, which answers some of a guest's mistakes as failed entries.
    pub is_tcg: bool,
}

/// Why this processor runs no guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SvmError {
    /// CPUID 8000_0001h ECX.SVM is clear.
    Absent,
    /// VM_CR.SVMDIS is set and cannot be cleared without the firmware.
    DisabledByFirmware {
        /// VM_CR.
        vm_cr: u64,
        /// The firmware set a key with which the extension could be unlocked (CPUID 8000_000Ah EDX.SVML).
        locked_by_key: bool,
    },
    /// CPUID 8000_000Ah EDX.NP is clear.
    NoNestedPaging,
    /// All address space ids of this processor are taken.
    OutOfAddressSpaces {
        /// How many there are, the host's included.
        total: u32,
    },
    /// There is no memory for a control structure.
    OutOfMemory {
        /// Which.
        structure: &'static str,
    },
}

impl fmt::Display for SvmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SvmError::Absent => f.write_str("the processor has no SVM (CPUID 8000_0001h ECX bit 2)"),
            SvmError::DisabledByFirmware { vm_cr, locked_by_key } => write!(
                f,
                "the firmware has disabled SVM (VM_CR = {vm_cr:#x}{}): enable it in the firmware's setup",
                if *locked_by_key { ", locked by a key" } else { "" }
            ),
            SvmError::NoNestedPaging => {
                f.write_str("the processor's SVM has no nested paging (CPUID 8000_000Ah EDX bit 0)")
            }
            SvmError::OutOfAddressSpaces { total } => {
                write!(f, "all {total} address space ids of this processor are taken")
            }
            SvmError::OutOfMemory { structure } => write!(f, "no memory for the {structure}"),
        }
    }
}

const FEATURES: u32 = 1;
/// ECX of the features: there is a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
const HYPERVISOR_NAME: u32 = 0x4000_0000;
/// TCG's name, in EBX, ECX and EDX.
const TCG: [u32; 3] = [u32::from_le_bytes(*b"TCGT"), u32::from_le_bytes(*b"CGTC"), u32::from_le_bytes(*b"GTCG")];
const LARGEST_EXTENDED_LEAF: u32 = 0x8000_0000;
const EXTENDED_FEATURES: u32 = 0x8000_0001;
const ADDRESS_SIZES: u32 = 0x8000_0008;
const SVM_FEATURES: u32 = 0x8000_000a;
/// ECX of the extended features.
const SVM: u32 = 1 << 2;
/// EDX of the SVM features.
const NESTED_PAGING: u32 = 1;
const SVM_LOCK: u32 = 1 << 2;
const NEXT_RIP_SAVE: u32 = 1 << 3;
const FLUSH_BY_ASID: u32 = 1 << 6;
/// The narrowest that a processor with long mode has.
const LEAST_ADDRESS_BITS: u32 = 36;

impl Capabilities {
    /// Asks the processor. VM_CR is read only where CPUID says that there is one (APM vol. 2, 15.4).
    pub fn detect(cpuid: impl Fn(u32) -> Leaf, read_msr: impl FnOnce(u32) -> u64) -> Result<Self, SvmError> {
        let largest = cpuid(LARGEST_EXTENDED_LEAF).eax;
        if largest < SVM_FEATURES || cpuid(EXTENDED_FEATURES).ecx & SVM == 0 {
            return Err(SvmError::Absent);
        }
        let features = cpuid(SVM_FEATURES);
        let vm_cr = read_msr(msr::VM_CR);
        if vm_cr & msr::VM_CR_SVMDIS != 0 {
            return Err(SvmError::DisabledByFirmware { vm_cr, locked_by_key: features.edx & SVM_LOCK != 0 });
        }
        if features.edx & NESTED_PAGING == 0 {
            return Err(SvmError::NoNestedPaging);
        }
        Ok(Self {
            address_spaces: features.ebx,
            next_rip: features.edx & NEXT_RIP_SAVE != 0,
            flush_by_asid: features.edx & FLUSH_BY_ASID != 0,
            physical_address_bits: (cpuid(ADDRESS_SIZES).eax & 0xff).clamp(LEAST_ADDRESS_BITS, 52),
            is_tcg: is_tcg(&cpuid),
        })
    }
}

fn is_tcg(cpuid: &impl Fn(u32) -> Leaf) -> bool {
    let Leaf { ebx, ecx, edx, .. } = cpuid(HYPERVISOR_NAME);
    cpuid(FEATURES).ecx & HYPERVISOR != 0 && [ebx, ecx, edx] == TCG
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    /// QEMU's TCG: nested paging and 16 address spaces, 40 bits.
    fn emulator(leaf: u32) -> Leaf {
        match leaf {
            FEATURES => Leaf { ecx: HYPERVISOR, ..Default::default() },
            HYPERVISOR_NAME => Leaf { ebx: TCG[0], ecx: TCG[1], edx: TCG[2], ..Default::default() },
            LARGEST_EXTENDED_LEAF => Leaf { eax: 0x8000_001f, ..Default::default() },
            EXTENDED_FEATURES => Leaf { ecx: SVM, ..Default::default() },
            ADDRESS_SIZES => Leaf { eax: 0x3028, ..Default::default() },
            SVM_FEATURES => Leaf { eax: 1, ebx: 16, edx: NESTED_PAGING, ..Default::default() },
            _ => Leaf::default(),
        }
    }

    #[test]
    fn the_emulators_processor_is_accepted_without_its_missing_features() {
        let expected = Capabilities {
            address_spaces: 16,
            next_rip: false,
            flush_by_asid: false,
            physical_address_bits: 40,
            is_tcg: true,
        };
        assert_eq!(Capabilities::detect(emulator, |_| 0), Ok(expected));
    }

    #[test]
    fn a_processor_without_the_extension_is_not_asked_for_its_registers() {
        let intel = |leaf| if leaf == SVM_FEATURES { Leaf::default() } else { emulator(leaf) };
        let intel = |leaf| if leaf == EXTENDED_FEATURES { Leaf::default() } else { intel(leaf) };
        let result = Capabilities::detect(intel, |_| panic!("reading VM_CR faults here"));
        assert_eq!(result, Err(SvmError::Absent));
    }

    #[test]
    fn firmware_that_disables_it_is_named() {
        let error = Capabilities::detect(emulator, |register| {
            assert_eq!(register, msr::VM_CR);
            0x18
        })
        .unwrap_err();
        assert_eq!(error, SvmError::DisabledByFirmware { vm_cr: 0x18, locked_by_key: false });
        assert!(error.to_string().contains("0x18"));
    }

    #[test]
    fn nested_paging_is_required() {
        let old = |leaf| if leaf == SVM_FEATURES { Leaf { ebx: 64, ..Default::default() } } else { emulator(leaf) };
        assert_eq!(Capabilities::detect(old, |_| 0), Err(SvmError::NoNestedPaging));
    }
}
