//! The rules that VMRUN checks (APM vol. 2, 15.5.1), checked again in software: the processor says only that one of
//! them is broken.

use crate::vcpu::svm::permission_map::{IoPermissionMap, MsrPermissionMap};
use crate::vcpu::svm::spec::event::*;
use crate::vcpu::svm::spec::intercept;
use crate::vcpu::svm::spec::vmcb::{EFER_SVME, Vmcb};
use core::mem::size_of;

pub use crate::vcpu::page_attribute_table::is_page_attribute_table;

const CR0_PE: u64 = 1;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
/// VME to UMIP, LA57, FSGSBASE, PCIDE, OSXSAVE, SMEP, SMAP, PKE, CET: what any processor has defined so far.
const CR4_DEFINED: u64 = 0xfff | 1 << 12 | 0x7 << 16 | 0xf << 20;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// SCE, LME, LMA, NXE, SVME, LMSLE, FFXSR, TCE, MCOMMIT, INTWB, UAIE, AIBRSE.
const EFER_DEFINED: u64 = 1 | EFER_LME | EFER_LMA | 0x1f << 11 | 0x3 << 17 | 0x3 << 20;
const UPPER_HALF: u64 = 0xffff_ffff << 32;

/// In words, the rules that `vmcb` breaks, on a processor with physical addresses of `physical_address_bits` bits.
/// Bits that this processor lacks and others have are not told apart.
pub fn consistency_errors(vmcb: &Vmcb, physical_address_bits: u32) -> impl Iterator<Item = &'static str> + use<> {
    let (control, save) = (&vmcb.control, &vmcb.save);
    let end = 1u64 << physical_address_bits.min(63);
    let outside = |base: u64, size: usize| (base & !0xfff).checked_add(size as u64).is_none_or(|last| last > end);
    let long_paging = save.efer & EFER_LME != 0 && save.cr0 & CR0_PG != 0;
    let event_type = control.event_injection >> TYPE_SHIFT & TYPE;
    let vector = control.event_injection & VECTOR;
    let event_is_wrong = control.event_injection & VALID != 0
        && match event_type {
            TYPE_EXCEPTION => vector >= 32 || vector == 2,
            other => !matches!(other, TYPE_INTERRUPT | TYPE_NMI | TYPE_SOFTWARE_INTERRUPT),
        };
    [
        (save.efer & EFER_SVME == 0, "EFER.SVME is clear"),
        (save.cr0 & CR0_CD == 0 && save.cr0 & CR0_NW != 0, "CR0.NW is set and CR0.CD is clear"),
        (save.cr0 & UPPER_HALF != 0, "CR0 bits 63:32 are set"),
        (long_paging && save.cr3 & !(end - 1) != 0, "CR3 is beyond physical memory"),
        (save.cr4 & !CR4_DEFINED != 0, "CR4 has reserved bits set"),
        (save.dr6 & UPPER_HALF != 0, "DR6 bits 63:32 are set"),
        (save.dr7 & UPPER_HALF != 0, "DR7 bits 63:32 are set"),
        (save.efer & !EFER_DEFINED != 0, "EFER has reserved bits set"),
        (long_paging && save.cr4 & CR4_PAE == 0, "EFER.LME and CR0.PG are set and CR4.PAE is clear"),
        (long_paging && save.cr0 & CR0_PE == 0, "EFER.LME and CR0.PG are set and CR0.PE is clear"),
        (
            long_paging && save.cr4 & CR4_PAE != 0 && save.cs.attributes.long() && save.cs.attributes.default_big(),
            "CS.L and CS.D are both set in long mode",
        ),
        (control.intercept_instructions_2 & intercept::VMRUN == 0, "VMRUN is not intercepted"),
        (
            outside(control.msrpm_base_pa, size_of::<MsrPermissionMap>()),
            "the MSR permission map is beyond physical memory",
        ),
        (
            outside(control.iopm_base_pa, size_of::<IoPermissionMap>()),
            "the I/O permission map is beyond physical memory",
        ),
        (event_is_wrong, "the event to inject has a wrong type or vector"),
        (control.asid == 0, "the address space id is 0, the host's"),
        (control.nested_cr3 & !(end - 1) != 0, "the nested page tables are beyond physical memory"),
        (!is_page_attribute_table(save.g_pat), "the guest's page attribute table has an undefined type"),
    ]
    .into_iter()
    .filter_map(|(broken, rule)| broken.then_some(rule))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::vcpu::svm::fake::runnable_vmcb;
    use std::vec::Vec;

    #[test]
    fn each_rule_is_named_when_it_alone_is_broken() {
        type Break = fn(&mut Vmcb);
        let table: [(&str, Break); 14] = [
            ("EFER.SVME", |vmcb| vmcb.save.efer &= !EFER_SVME),
            ("CR0.NW", |vmcb| vmcb.save.cr0 |= CR0_NW),
            ("CR0 bits", |vmcb| vmcb.save.cr0 |= 1 << 32),
            ("CR4 has", |vmcb| vmcb.save.cr4 |= 1 << 15),
            ("DR6", |vmcb| vmcb.save.dr6 |= 1 << 40),
            ("DR7", |vmcb| vmcb.save.dr7 |= 1 << 40),
            ("EFER has", |vmcb| vmcb.save.efer |= 1 << 63),
            ("VMRUN", |vmcb| vmcb.control.intercept_instructions_2 &= !intercept::VMRUN),
            ("the MSR", |vmcb| vmcb.control.msrpm_base_pa = (1 << 40) - 0x1000),
            ("the I/O", |vmcb| vmcb.control.iopm_base_pa = (1 << 40) - 0x2000),
            ("the event", |vmcb| vmcb.control.event_injection = 0x8000_0341),
            ("the address space", |vmcb| vmcb.control.asid = 0),
            ("the nested", |vmcb| vmcb.control.nested_cr3 = 1 << 40),
            ("the guest's page", |vmcb| vmcb.save.g_pat = 2),
        ];
        for (beginning, make_wrong) in table {
            let mut vmcb = runnable_vmcb();
            make_wrong(&mut vmcb);
            let errors: Vec<_> = consistency_errors(&vmcb, 40).collect();
            assert_eq!(errors.len(), 1, "{beginning}: {errors:?}");
            assert!(errors[0].starts_with(beginning), "{errors:?}");
        }
    }

    #[test]
    fn long_mode_has_rules_of_its_own() {
        let mut vmcb = runnable_vmcb();
        vmcb.save.efer |= EFER_LME | EFER_LMA;
        vmcb.save.cr0 = CR0_PG;
        let errors: Vec<_> = consistency_errors(&vmcb, 40).collect();
        assert_eq!(errors.len(), 2, "{errors:?}");
        vmcb.save.cr0 |= CR0_PE;
        vmcb.save.cr4 |= CR4_PAE;
        assert_eq!(consistency_errors(&vmcb, 40).count(), 0);
        vmcb.save.cs.attributes.0 |= 1 << 9;
        assert_eq!(consistency_errors(&vmcb, 40).next(), Some("CS.L and CS.D are both set in long mode"));
        vmcb.save.cs.attributes.0 &= !(1 << 10);
        vmcb.save.cr3 = 1 << 40;
        assert_eq!(consistency_errors(&vmcb, 40).next(), Some("CR3 is beyond physical memory"));
    }
}
