//! CR0 and CR4 of a guest: which bits are its own, and what happens when it writes one that is not.
//!
//! A write that changes a bit of the host's exits before it has had any effect. It is answered by putting the new value
//! of the host's bits into the read shadow and letting the guest execute the instruction again: now nothing of the
//! host's changes, so it does not exit, and the processor itself does all the rest (loading the page-directory
//! pointers, entering IA-32e mode, and the checks that go with it).

use crate::vcpu::GeneralProtection;
use crate::vcpu::vmx::capability::Capabilities;

/// CR0.
pub mod cr0 {
    /// Protection enable.
    pub const PE: u64 = 1;
    /// Numeric error: reported as an exception.
    pub const NE: u64 = 1 << 5;
    /// Not write-through.
    pub const NW: u64 = 1 << 29;
    /// Cache disable.
    pub const CD: u64 = 1 << 30;
    /// Paging.
    pub const PG: u64 = 1 << 31;
}

/// CR4.
pub mod cr4 {
    /// Physical-address extension.
    pub const PAE: u64 = 1 << 5;
    /// Machine-check enable.
    pub const MCE: u64 = 1 << 6;
    /// VMX enable.
    pub const VMXE: u64 = 1 << 13;
    /// Process-context identifiers.
    pub const PCIDE: u64 = 1 << 17;
    /// What a guest may have, if the processor does: VME, PVI, TSD, DE, PSE, PAE, PGE, PCE, OSFXSR, OSXMMEXCPT,
    /// FSGSBASE, OSXSAVE, SMEP, SMAP. It is shown no feature that has another bit.
    pub const OFFERED: u64 = 0x3f | 0xf << 7 | 1 << 16 | 1 << 18 | 1 << 20 | 1 << 21;
}

/// One of the two registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlRegister {
    /// The bits that are the host's: the guest reads the shadow's, and exits when it changes them.
    pub mask: u64,
    /// What those bits really are while the guest runs.
    pub fixed: u64,
    /// The bits that the guest may set, be it in the shadow only.
    settable: u64,
}

impl ControlRegister {
    /// CR0. With an unrestricted guest PE and PG are free although VMX operation fixes them. CD and NW would act on
    /// the physical caches.
    pub const fn cr0(capabilities: &Capabilities) -> Self {
        let fixed = capabilities.cr0.must & !(cr0::PE | cr0::PG) | cr0::NE;
        Self { mask: fixed | cr0::CD | cr0::NW | !capabilities.cr0.may, fixed, settable: capabilities.cr0.may }
    }

    /// CR4. `host` is the hypervisor's: without its CR4.MCE, a machine check in the guest would shut the processor
    /// down.
    pub const fn cr4(capabilities: &Capabilities, host: u64) -> Self {
        let own = cr4::OFFERED & capabilities.cr4.may & !capabilities.cr4.must;
        Self {
            mask: !own,
            fixed: capabilities.cr4.must | host & cr4::MCE,
            settable: own | cr4::MCE & capabilities.cr4.may,
        }
    }

    /// The register while the guest runs that has set it to `value`.
    pub const fn real(&self, value: u64) -> u64 {
        value & !self.mask | self.fixed
    }

    /// What the guest reads.
    pub const fn seen(&self, real: u64, shadow: u64) -> u64 {
        real & !self.mask | shadow & self.mask
    }

    /// Whether a write of `value` changes bits of the host's.
    pub const fn changes(&self, shadow: u64, value: u64) -> bool {
        (shadow ^ value) & self.mask != 0
    }

    /// Whether the guest may write `value`.
    pub const fn check(&self, value: u64) -> Result<(), GeneralProtection> {
        if value & !self.settable == 0 { Ok(()) } else { Err(GeneralProtection) }
    }
}

/// Whether CR0 can be `value` as far as the host's bits go: CR0.NW without CR0.CD cannot.
pub const fn check_caching(value: u64) -> Result<(), GeneralProtection> {
    if value & cr0::NW != 0 && value & cr0::CD == 0 { Err(GeneralProtection) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcpu::vmx::fake::SKYLAKE;

    #[test]
    fn a_guest_owns_protection_and_paging_and_sees_its_own_numeric_error_and_caching() {
        let cr0 = ControlRegister::cr0(&SKYLAKE);
        assert_eq!(cr0.mask, cr0::NE | cr0::CD | cr0::NW | 0xffff_ffff << 32);
        assert_eq!(cr0.real(0x6000_0010), 0x30);
        assert_eq!(cr0.seen(0x8001_0033, 0x6000_0010), 0xe001_0013);
        assert!(cr0.changes(0x11, 0x31) && !cr0.changes(0x11, 0x8001_0011));
        assert_eq!(cr0.check(1 << 32), Err(GeneralProtection));
        assert_eq!(cr0.check(0xe005_003f), Ok(()));
        assert_eq!((check_caching(cr0::NW), check_caching(cr0::NW | cr0::CD)), (Err(GeneralProtection), Ok(())));
    }

    #[test]
    fn the_extensions_bit_is_neither_seen_nor_set_by_a_guest() {
        let cr4 = ControlRegister::cr4(&SKYLAKE, cr4::MCE);
        assert_eq!(cr4.real(0x20), 0x20 | cr4::VMXE | cr4::MCE);
        assert_eq!(cr4.seen(0x20 | cr4::VMXE | cr4::MCE, 0), 0x20);
        assert_eq!(cr4.check(cr4::VMXE), Err(GeneralProtection));
        assert_eq!(cr4.check(cr4::PCIDE), Err(GeneralProtection));
        assert_eq!(cr4.check(1 << 22), Err(GeneralProtection), "PKE");
        assert_eq!(cr4.check(0x3506f0 & !(3 << 12)), Ok(()));
        assert!(cr4.changes(0, cr4::MCE) && !cr4.changes(cr4::MCE, cr4::MCE | cr4::PAE));
    }
}
