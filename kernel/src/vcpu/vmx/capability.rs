//! What the processor's extension can do, and whether it may be used.

use crate::vcpu::region::OutOfMemory;
use crate::vcpu::vmx::spec::control::{Primary, Secondary};
use crate::vcpu::vmx::spec::msr::{self, EptVpid};
use core::fmt;

/// What a register of controls can be: which bits must be set and which may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// The "allowed 0-settings", inverted: bits that must be one.
    pub must: u32,
    /// The "allowed 1-settings": bits that may be one.
    pub may: u32,
}

impl Allowed {
    /// From a capability register: must in its lower half, may in its upper half.
    pub const fn from_register(value: u64) -> Self {
        Self { must: value as u32, may: (value >> 32) as u32 }
    }
}

/// Bits of a control register that VMX operation fixes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FixedBits {
    /// Bits that must be one.
    pub must: u64,
    /// Bits that may be one.
    pub may: u64,
}

/// What the processor's extension can do (SDM vol. 3, appendix A).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The revision identifier of control structures.
    pub revision: u32,
    /// Pin-based controls.
    pub pin: Allowed,
    /// Primary processor-based controls.
    pub primary: Allowed,
    /// Secondary processor-based controls.
    pub secondary: Allowed,
    /// VM-exit controls.
    pub exit: Allowed,
    /// VM-entry controls.
    pub entry: Allowed,
    /// CR0 in VMX operation.
    pub cr0: FixedBits,
    /// CR4 in VMX operation.
    pub cr4: FixedBits,
    /// Extended page tables and virtual-processor identifiers.
    pub ept_vpid: EptVpid,
    /// The VMX-preemption timer counts once for 2 to this power ticks of the time-stamp counter.
    pub preemption_timer_rate: u8,
    /// The width of physical addresses in bits (CPUID 8000_0008h).
    pub physical_address_bits: u32,
}

/// Why this processor runs no guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmxError {
    /// CPUID 1 ECX.VMX is clear.
    Absent,
    /// IA32_FEATURE_CONTROL is locked and forbids VMXON.
    DisabledByFirmware {
        /// IA32_FEATURE_CONTROL.
        feature_control: u64,
    },
    /// VMX operation fixes a bit of CR0 or CR4 as zero that the hypervisor has set.
    ForbiddenControlBits {
        /// CR0 or CR4.
        register: &'static str,
        /// The bits.
        bits: u64,
    },
    /// A control that the engine cannot do without.
    MissingControl {
        /// Its name.
        name: &'static str,
    },
    /// A control that the processor forces on and the engine cannot do with.
    ForcedControl {
        /// Its name.
        name: &'static str,
    },
    /// A property of the extended page tables that the engine cannot do without.
    MissingEpt {
        /// Its name.
        name: &'static str,
        /// IA32_VMX_EPT_VPID_CAP.
        capability: u64,
    },
    /// An instruction that switches the extension or a control structure on failed.
    InstructionFailed {
        /// Which.
        instruction: &'static str,
    },
    /// All virtual-processor identifiers of this processor are taken.
    OutOfIdentifiers,
    /// There is no memory for a control structure.
    OutOfMemory {
        /// Which.
        structure: &'static str,
    },
}

impl From<OutOfMemory> for VmxError {
    fn from(OutOfMemory { structure }: OutOfMemory) -> Self {
        VmxError::OutOfMemory { structure }
    }
}

impl fmt::Display for VmxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VmxError::Absent => f.write_str("the processor has no VMX (CPUID 1 ECX bit 5)"),
            VmxError::DisabledByFirmware { feature_control } => write!(
                f,
                "the firmware has disabled VMX (IA32_FEATURE_CONTROL = {feature_control:#x}): enable it in the \
                 firmware's setup"
            ),
            VmxError::ForbiddenControlBits { register, bits } => {
                write!(f, "VMX operation does not permit bits {bits:#x} of {register}, which are set")
            }
            VmxError::MissingControl { name } => write!(f, "the processor's VMX lacks the control {name}"),
            VmxError::ForcedControl { name } => {
                write!(f, "the processor's VMX does not let the control {name} be switched off")
            }
            VmxError::MissingEpt { name, capability } => {
                write!(f, "the processor's EPT lacks {name} (IA32_VMX_EPT_VPID_CAP = {capability:#x})")
            }
            VmxError::InstructionFailed { instruction } => write!(f, "{instruction} failed"),
            VmxError::OutOfIdentifiers => f.write_str("all virtual-processor identifiers of this processor are taken"),
            VmxError::OutOfMemory { structure } => write!(f, "no memory for the {structure}"),
        }
    }
}

/// CPUID leaf 1.
pub const FEATURES: u32 = 1;
/// CPUID leaf 1, ECX: VMX.
pub const FEATURE_VMX: u32 = 1 << 5;
const ADDRESS_SIZES: u32 = 0x8000_0008;
/// The narrowest that a processor with long mode has.
const LEAST_ADDRESS_BITS: u32 = 36;

/// What IA32_FEATURE_CONTROL must become before VMXON, if it must be written.
pub const fn unlock(feature_control: u64) -> Result<Option<u64>, VmxError> {
    let (locked, permitted) =
        (feature_control & msr::FEATURE_CONTROL_LOCK != 0, feature_control & msr::FEATURE_CONTROL_VMX != 0);
    match (locked, permitted) {
        (true, true) => Ok(None),
        (true, false) => Err(VmxError::DisabledByFirmware { feature_control }),
        (false, _) => Ok(Some(feature_control | msr::FEATURE_CONTROL_VMX | msr::FEATURE_CONTROL_LOCK)),
    }
}

impl Capabilities {
    /// Asks the processor: `cpuid(leaf)` gives EAX and ECX. Registers are read only where others say that they exist:
    /// reading one that does not is a general-protection exception.
    pub fn detect(cpuid: impl Fn(u32) -> (u32, u32), read_msr: impl Fn(u32) -> u64) -> Result<Self, VmxError> {
        if cpuid(FEATURES).1 & FEATURE_VMX == 0 {
            return Err(VmxError::Absent);
        }
        unlock(read_msr(msr::FEATURE_CONTROL))?;
        let basic = read_msr(msr::VMX_BASIC);
        // The other registers do not say that some of the controls that must be one may be zero.
        let exact = basic & msr::BASIC_TRUE_CONTROLS != 0;
        let controls = |exactly, otherwise| Allowed::from_register(read_msr(if exact { exactly } else { otherwise }));
        let primary = controls(msr::VMX_TRUE_PROCBASED_CTLS, msr::VMX_PROCBASED_CTLS);
        let secondary = if primary.may & Primary::ACTIVATE_SECONDARY_CONTROLS.bits() != 0 {
            Allowed::from_register(read_msr(msr::VMX_PROCBASED_CTLS2))
        } else {
            Allowed::default()
        };
        let ept_vpid = if secondary.may & (Secondary::ENABLE_EPT | Secondary::ENABLE_VPID).bits() != 0 {
            EptVpid::from_bits_retain(read_msr(msr::VMX_EPT_VPID_CAP))
        } else {
            EptVpid::empty()
        };
        Ok(Self {
            revision: (basic & msr::BASIC_REVISION) as u32,
            pin: controls(msr::VMX_TRUE_PINBASED_CTLS, msr::VMX_PINBASED_CTLS),
            primary,
            secondary,
            exit: controls(msr::VMX_TRUE_EXIT_CTLS, msr::VMX_EXIT_CTLS),
            entry: controls(msr::VMX_TRUE_ENTRY_CTLS, msr::VMX_ENTRY_CTLS),
            cr0: FixedBits { must: read_msr(msr::VMX_CR0_FIXED0), may: read_msr(msr::VMX_CR0_FIXED1) },
            cr4: FixedBits { must: read_msr(msr::VMX_CR4_FIXED0), may: read_msr(msr::VMX_CR4_FIXED1) },
            ept_vpid,
            preemption_timer_rate: (read_msr(msr::VMX_MISC) & msr::MISC_PREEMPTION_TIMER_RATE) as u8,
            physical_address_bits: (cpuid(ADDRESS_SIZES).0 & 0xff).clamp(LEAST_ADDRESS_BITS, 52),
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::vcpu::vmx::fake::{SKYLAKE, skylake_cpuid, skylake_msr};
    use std::string::ToString;

    #[test]
    fn a_processor_is_described_by_its_registers() {
        assert_eq!(Capabilities::detect(skylake_cpuid, skylake_msr), Ok(SKYLAKE));
    }

    #[test]
    fn a_processor_without_the_extension_is_not_asked_for_its_registers() {
        let none = |_| panic!("reading the register faults here");
        assert_eq!(Capabilities::detect(|_| (0x28, 0), none), Err(VmxError::Absent));
    }

    #[test]
    fn firmware_that_disables_it_is_named_and_firmware_that_left_it_open_is_not() {
        let error = unlock(msr::FEATURE_CONTROL_LOCK).unwrap_err();
        assert!(error.to_string().contains("0x1"), "{error}");
        assert_eq!(unlock(0), Ok(Some(5)));
        assert_eq!(unlock(4), Ok(Some(5)));
        assert_eq!(unlock(5), Ok(None));
        let locked = |register| if register == msr::FEATURE_CONTROL { 1 } else { skylake_msr(register) };
        assert!(matches!(Capabilities::detect(skylake_cpuid, locked), Err(VmxError::DisabledByFirmware { .. })));
    }

    #[test]
    fn registers_that_an_old_processor_lacks_are_not_read() {
        let old = |register| match register {
            msr::VMX_BASIC => 0x1234,
            msr::VMX_PINBASED_CTLS => 0x0000_0029_0000_0016,
            msr::VMX_PROCBASED_CTLS => 0x7fff_ffff_0401_e172,
            msr::VMX_EXIT_CTLS..=msr::VMX_ENTRY_CTLS => 0,
            msr::VMX_PROCBASED_CTLS2..=msr::VMX_TRUE_ENTRY_CTLS => panic!("{register:#x} faults here"),
            _ => skylake_msr(register),
        };
        let capabilities = Capabilities::detect(skylake_cpuid, old).unwrap();
        assert_eq!((capabilities.secondary, capabilities.ept_vpid), (Allowed::default(), EptVpid::empty()));
        assert_eq!((capabilities.revision, capabilities.primary.must), (0x1234, 0x0401_e172));
    }
}
