//! The hypervisor's state, which every exit loads (SDM vol. 3, 25.5).

use crate::vcpu::vmx::processor::Processor;
use crate::vcpu::vmx::spec::field::*;

/// The hypervisor's state on one processor. All but RSP, which each entry has its own of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostState {
    /// CR0, CR3 and CR4.
    pub control: [u64; 3],
    /// Selectors of ES, CS, SS, DS, FS, GS and TR.
    pub selectors: [u16; 7],
    /// Bases of FS, GS, TR, the GDT and the IDT.
    pub bases: [u64; 5],
    /// IA32_SYSENTER_CS, IA32_SYSENTER_ESP and IA32_SYSENTER_EIP.
    pub sysenter: [u64; 3],
    /// IA32_PAT.
    pub pat: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// Where exits go.
    pub rip: u64,
    /// IA32_SPEC_CTRL, which has no field; 0 where there is none.
    pub speculation_control: u64,
}

impl HostState {
    /// Writes it into the control structure.
    pub fn write(&self, vmcs: &mut impl Processor) {
        for (field, value) in [HOST_CR0, HOST_CR3, HOST_CR4].into_iter().zip(self.control) {
            vmcs.set(field, value);
        }
        let selectors = [
            HOST_ES_SELECTOR,
            HOST_CS_SELECTOR,
            HOST_SS_SELECTOR,
            HOST_DS_SELECTOR,
            HOST_FS_SELECTOR,
            HOST_GS_SELECTOR,
            HOST_TR_SELECTOR,
        ];
        for (field, value) in selectors.into_iter().zip(self.selectors) {
            // Entry refuses a requested privilege level or a local table.
            vmcs.set(field, value & !7);
        }
        let bases = [HOST_FS_BASE, HOST_GS_BASE, HOST_TR_BASE, HOST_GDTR_BASE, HOST_IDTR_BASE];
        for (field, value) in bases.into_iter().zip(self.bases) {
            vmcs.set(field, value);
        }
        let [cs, esp, eip] = self.sysenter;
        vmcs.set(HOST_SYSENTER_CS, cs as u32);
        vmcs.set(HOST_SYSENTER_ESP, esp);
        vmcs.set(HOST_SYSENTER_EIP, eip);
        vmcs.set(HOST_PAT, self.pat);
        vmcs.set(HOST_EFER, self.efer);
        vmcs.set(HOST_RIP, self.rip);
    }
}

/// The base in a 16-byte system descriptor (SDM vol. 3, 8.2.3).
pub const fn descriptor_base([low, high]: [u64; 2]) -> u64 {
    low >> 16 & 0xff_ffff | low >> 56 << 24 | high << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcpu::vmx::fake::Script;

    #[test]
    fn a_descriptors_base_is_put_together_from_its_four_pieces() {
        assert_eq!(descriptor_base([0x4400_8b33_2211_0067, 0xffff_8000]), 0xffff_8000_4433_2211);
    }

    #[test]
    fn each_value_goes_into_its_own_field() {
        let host = HostState {
            control: [1, 2, 3],
            selectors: [0x10, 0x08, 0x18, 0x23, 0x2b, 0, 0x38],
            bases: [10, 11, 12, 13, 14],
            sysenter: [20, 21, 22],
            pat: 30,
            efer: 31,
            rip: 32,
            speculation_control: 0,
        };
        let mut vmcs = Script::default();
        host.write(&mut vmcs);
        assert_eq!((vmcs.get(HOST_CR0), vmcs.get(HOST_CR3), vmcs.get(HOST_CR4)), (1, 2, 3));
        assert_eq!(
            (vmcs.get(HOST_CS_SELECTOR), vmcs.get(HOST_SS_SELECTOR), vmcs.get(HOST_TR_SELECTOR)),
            (8, 0x18, 0x38)
        );
        assert_eq!((vmcs.get(HOST_DS_SELECTOR), vmcs.get(HOST_FS_SELECTOR)), (0x20, 0x28), "without privilege level");
        assert_eq!((vmcs.get(HOST_FS_BASE), vmcs.get(HOST_TR_BASE), vmcs.get(HOST_IDTR_BASE)), (10, 12, 14));
        assert_eq!((vmcs.get(HOST_SYSENTER_CS), vmcs.get(HOST_SYSENTER_EIP)), (20, 22));
        assert_eq!((vmcs.get(HOST_PAT), vmcs.get(HOST_EFER), vmcs.get(HOST_RIP)), (30, 31, 32));
    }
}
