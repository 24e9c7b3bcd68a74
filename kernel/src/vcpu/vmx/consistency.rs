//! The most important rules that VM entry checks (SDM vol. 3, 27.2 and 27.3), checked again in software: the processor
//! says only that one of the controls, of the host's state or of the guest's state is wrong.

use crate::vcpu::page_attribute_table::is_page_attribute_table;
use crate::vcpu::vmx::capability::{Allowed, Capabilities};
use crate::vcpu::vmx::control_registers::{cr0, cr4};
use crate::vcpu::vmx::processor::Processor;
use crate::vcpu::vmx::spec::control::{EntryControls, ExitControls, PinBased, Primary, Secondary};
use crate::vcpu::vmx::spec::field::*;
use crate::vcpu::vmx::spec::interruption as event;
use alloc::vec::Vec;

const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// SCE, LME, LMA, NXE.
const EFER_DEFINED: u64 = 1 | EFER_LME | EFER_LMA | 1 << 11;
const RFLAGS_TRAP: u64 = 1 << 8;
const RFLAGS_INTERRUPT: u64 = 1 << 9;
const RFLAGS_VIRTUAL_8086: u64 = 1 << 17;
const RFLAGS_ONE: u64 = 1 << 1;
const RFLAGS_RESERVED: u64 = !0x3f_ffff | 1 << 15 | 1 << 5 | 1 << 3;
const UPPER_HALF: u64 = 0xffff_ffff << 32;
const ACTIVITY_LAST: u32 = 3;

type Rule = (bool, &'static str);

/// In words, the rules that the control structure breaks.
pub fn consistency_errors(vmcs: &impl Processor, capabilities: &Capabilities) -> Vec<&'static str> {
    let mut rules = Vec::new();
    control_rules(vmcs, capabilities, &mut rules);
    host_rules(vmcs, capabilities, &mut rules);
    guest_rules(vmcs, capabilities, &mut rules);
    segment_rules(vmcs, &mut rules);
    rules.into_iter().filter_map(|(broken, rule)| broken.then_some(rule)).collect()
}

const fn forbids(allowed: Allowed, bits: u32) -> bool {
    bits & !allowed.may != 0 || allowed.must & !bits != 0
}

/// Whether bits 63:47 are all equal.
const fn is_canonical(address: u64) -> bool {
    (address as i64) << 16 >> 16 == address as i64
}

fn control_rules(vmcs: &impl Processor, capabilities: &Capabilities, rules: &mut Vec<Rule>) {
    let end = 1u64 << capabilities.physical_address_bits.min(63);
    let frame = |field| {
        let address = vmcs.get(field);
        address & 0xfff != 0 || address >= end
    };
    let (pin, primary) = (vmcs.get(PIN_BASED_CONTROLS), vmcs.get(PRIMARY_CONTROLS));
    let secondary = vmcs.get(SECONDARY_CONTROLS);
    let has = |control: Secondary| secondary & control.bits() != 0;
    let tpr_shadow = primary & Primary::USE_TPR_SHADOW.bits() != 0;
    let pointer = vmcs.get(EPT_POINTER);
    let posted = pin & PinBased::PROCESS_POSTED_INTERRUPTS.bits() != 0;
    let acknowledged = vmcs.get(EXIT_CONTROLS) & ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT.bits() != 0;
    let delivery = has(Secondary::VIRTUAL_INTERRUPT_DELIVERY);
    let entry_event = vmcs.get(ENTRY_INTERRUPTION_INFORMATION);
    let kind = entry_event >> event::TYPE_SHIFT & event::TYPE;
    let vector = entry_event & event::VECTOR;
    let event_is_wrong = entry_event & event::VALID != 0
        && match kind {
            event::TYPE_HARDWARE_EXCEPTION => vector > 31,
            event::TYPE_NMI => vector != 2,
            kind => kind == 1,
        };
    rules.extend([
        (forbids(capabilities.pin, pin), "the pin-based controls are not as the processor permits"),
        (forbids(capabilities.primary, primary), "the primary controls are not as the processor permits"),
        (forbids(capabilities.secondary, secondary), "the secondary controls are not as the processor permits"),
        (forbids(capabilities.exit, vmcs.get(EXIT_CONTROLS)), "the VM-exit controls are not as the processor permits"),
        (
            forbids(capabilities.entry, vmcs.get(ENTRY_CONTROLS)),
            "the VM-entry controls are not as the processor permits",
        ),
        (frame(IO_BITMAP_A) || frame(IO_BITMAP_B), "an I/O bitmap is not a frame of physical memory"),
        (frame(MSR_BITMAPS), "the MSR bitmaps are not a frame of physical memory"),
        (tpr_shadow && frame(VIRTUAL_APIC_ADDRESS), "the virtual-APIC page is not a frame of physical memory"),
        (
            has(Secondary::VIRTUALIZE_APIC_ACCESSES) && frame(APIC_ACCESS_ADDRESS),
            "the APIC-access page is not a frame of physical memory",
        ),
        (tpr_shadow && !delivery && vmcs.get(TPR_THRESHOLD) & !0xf != 0, "the TPR threshold has reserved bits set"),
        (
            !tpr_shadow
                && (delivery || has(Secondary::VIRTUALIZE_X2APIC_MODE | Secondary::APIC_REGISTER_VIRTUALIZATION)),
            "the APIC is virtualized without the TPR shadow",
        ),
        (posted && !(delivery && acknowledged), "posted interrupts lack another control that they need"),
        (has(Secondary::ENABLE_EPT) && (pointer & 0x7f != 0x1e || pointer >= end), "the EPT pointer is malformed"),
        (
            has(Secondary::ENABLE_VPID) && vmcs.get(VIRTUAL_PROCESSOR_IDENTIFIER) == 0,
            "the virtual-processor identifier is 0, the host's",
        ),
        (
            vmcs.get(EXIT_MSR_STORE_ADDRESS) & 0xf != 0 || vmcs.get(ENTRY_MSR_LOAD_ADDRESS) & 0xf != 0,
            "an MSR area is not at a multiple of 16",
        ),
        (event_is_wrong, "the event to inject has a wrong type or vector"),
    ]);
}

fn host_rules(vmcs: &impl Processor, capabilities: &Capabilities, rules: &mut Vec<Rule>) {
    let (cr0, cr4) = (vmcs.get(HOST_CR0), vmcs.get(HOST_CR4));
    let fixed = |bits: u64, must: u64, may: u64| bits & !may != 0 || must & !bits != 0;
    let addresses = [
        HOST_FS_BASE,
        HOST_GS_BASE,
        HOST_TR_BASE,
        HOST_GDTR_BASE,
        HOST_IDTR_BASE,
        HOST_SYSENTER_ESP,
        HOST_SYSENTER_EIP,
        HOST_RIP,
    ];
    let long = EFER_LME | EFER_LMA;
    rules.extend([
        (fixed(cr0, capabilities.cr0.must, capabilities.cr0.may), "host CR0 is not as VMX operation fixes it"),
        (fixed(cr4, capabilities.cr4.must, capabilities.cr4.may), "host CR4 is not as VMX operation fixes it"),
        (vmcs.get(HOST_CR3) >> capabilities.physical_address_bits.min(63) != 0, "host CR3 is beyond physical memory"),
        (addresses.into_iter().any(|field| !is_canonical(vmcs.get(field))), "a host address is not canonical"),
        (vmcs.get(HOST_TR_SELECTOR) == 0, "the host has no task state segment"),
        (vmcs.get(HOST_CS_SELECTOR) == 0, "the host's CS selector is 0"),
        (!is_page_attribute_table(vmcs.get(HOST_PAT)), "the host's page attribute table has an undefined type"),
        (vmcs.get(HOST_EFER) & long != long, "host EFER is not that of 64-bit mode"),
    ]);
}

fn guest_rules(vmcs: &impl Processor, capabilities: &Capabilities, rules: &mut Vec<Rule>) {
    let (cr0, cr4, efer) = (vmcs.get(GUEST_CR0), vmcs.get(GUEST_CR4), vmcs.get(GUEST_EFER));
    let long_mode = vmcs.get(ENTRY_CONTROLS) & EntryControls::IA32E_MODE_GUEST.bits() != 0;
    let (flags, interruptibility) = (vmcs.get(GUEST_RFLAGS), vmcs.get(GUEST_INTERRUPTIBILITY));
    let paging = cr0 & cr0::PG != 0;
    let sti = interruptibility & BLOCKING_BY_STI != 0;
    let blocking = interruptibility & (BLOCKING_BY_STI | BLOCKING_BY_MOV_SS) != 0;
    let interrupts = flags & RFLAGS_INTERRUPT != 0;
    let entry_event = vmcs.get(ENTRY_INTERRUPTION_INFORMATION);
    let injects = |kind: u32| entry_event & event::VALID != 0 && entry_event >> event::TYPE_SHIFT & event::TYPE == kind;
    let long_code = long_mode && vmcs.get(GUEST_CS.access_rights) & 1 << 13 != 0;
    let single_step = vmcs.get(GUEST_PENDING_DEBUG_EXCEPTIONS) & PENDING_SINGLE_STEP != 0;
    rules.extend([
        (
            capabilities.cr0.must & !(cr0::PE | cr0::PG) & !cr0 != 0 || cr0 & !capabilities.cr0.may != 0,
            "guest CR0 is not as VMX operation fixes it",
        ),
        (paging && cr0 & cr0::PE == 0, "guest CR0.PG is set and CR0.PE is clear"),
        (
            capabilities.cr4.must & !cr4 != 0 || cr4 & !capabilities.cr4.may != 0,
            "guest CR4 is not as VMX operation fixes it",
        ),
        (long_mode && !paging, "the guest is in IA-32e mode and CR0.PG is clear"),
        (long_mode && cr4 & cr4::PAE == 0, "the guest is in IA-32e mode and CR4.PAE is clear"),
        (!long_mode && cr4 & cr4::PCIDE != 0, "the guest is not in IA-32e mode and CR4.PCIDE is set"),
        (vmcs.get(GUEST_CR3) >> capabilities.physical_address_bits.min(63) != 0, "guest CR3 is beyond physical memory"),
        (vmcs.get(GUEST_DR7) & UPPER_HALF != 0, "guest DR7 bits 63:32 are set"),
        (efer & !EFER_DEFINED != 0, "guest EFER has reserved bits set"),
        ((efer & EFER_LMA != 0) != long_mode, "guest EFER.LMA and the control IA32E_MODE_GUEST differ"),
        (
            paging && (efer & EFER_LMA != 0) != (efer & EFER_LME != 0),
            "guest CR0.PG is set and EFER.LMA and EFER.LME differ",
        ),
        (!is_page_attribute_table(vmcs.get(GUEST_PAT)), "the guest's page attribute table has an undefined type"),
        (
            !is_canonical(vmcs.get(GUEST_SYSENTER_ESP)) || !is_canonical(vmcs.get(GUEST_SYSENTER_EIP)),
            "a SYSENTER address of the guest is not canonical",
        ),
        (flags & RFLAGS_ONE == 0 || flags & RFLAGS_RESERVED != 0, "guest RFLAGS has reserved bits wrong"),
        (
            flags & RFLAGS_VIRTUAL_8086 != 0 && (long_mode || cr0 & cr0::PE == 0),
            "guest RFLAGS.VM is set outside legacy protected mode",
        ),
        (
            injects(event::TYPE_EXTERNAL_INTERRUPT) && !interrupts,
            "an interrupt is injected and guest RFLAGS.IF is clear",
        ),
        (injects(event::TYPE_EXTERNAL_INTERRUPT) && blocking, "an interrupt is injected into the guest's shadow"),
        (
            injects(event::TYPE_NMI) && interruptibility & (BLOCKING_BY_MOV_SS | BLOCKING_BY_NMI) != 0,
            "an NMI is injected while the guest blocks NMIs",
        ),
        (!long_code && vmcs.get(GUEST_RIP) & UPPER_HALF != 0, "guest RIP is beyond 4 GiB outside 64-bit mode"),
        (vmcs.get(GUEST_ACTIVITY) > ACTIVITY_LAST, "the guest's activity state is undefined"),
        (interruptibility & !0x1f != 0, "the guest's interruptibility state has reserved bits set"),
        (sti && interruptibility & BLOCKING_BY_MOV_SS != 0, "the guest is blocked by STI and by MOV SS"),
        (sti && !interrupts, "the guest is blocked by STI and RFLAGS.IF is clear"),
        (
            blocking && (flags & RFLAGS_TRAP != 0 && vmcs.get(GUEST_DEBUGCTL) & 2 == 0) != single_step,
            "guest RFLAGS.TF and the pending single step differ in the guest's shadow",
        ),
        (vmcs.get(VMCS_LINK_POINTER) != u64::MAX, "the VMCS link pointer is not all ones"),
    ]);
}

fn segment_rules(vmcs: &impl Processor, rules: &mut Vec<Rule>) {
    let rights = |segment: SegmentFields| vmcs.get(segment.access_rights);
    let usable = |segment| rights(segment) & ACCESS_RIGHTS_UNUSABLE == 0;
    // In virtual-8086 mode segments have rules of their own.
    let virtual_8086 = vmcs.get(GUEST_RFLAGS) & RFLAGS_VIRTUAL_8086 != 0;
    let long_mode = vmcs.get(ENTRY_CONTROLS) & EntryControls::IA32E_MODE_GUEST.bits() != 0;
    let granularity_is_wrong = |segment: SegmentFields| {
        let (limit, granular) = (vmcs.get(segment.limit), rights(segment) & 1 << 15 != 0);
        usable(segment) && (limit & 0xfff != 0xfff && granular || limit >> 20 != 0 && !granular)
    };
    let data = [GUEST_SS, GUEST_DS, GUEST_ES, GUEST_FS, GUEST_GS];
    let wrong = |segment: SegmentFields, types: u16, system: bool| {
        let rights = rights(segment);
        types >> (rights & 0xf) & 1 == 0 || (rights & 1 << 4 == 0) != system || rights & 1 << 7 == 0
    };
    let code = rights(GUEST_CS);
    rules.extend([
        (
            !virtual_8086 && wrong(GUEST_CS, 1 << 3 | 1 << 9 | 1 << 11 | 1 << 13 | 1 << 15, false),
            "guest CS is no code segment",
        ),
        (long_mode && code & 1 << 13 != 0 && code & 1 << 14 != 0, "guest CS.L and CS.D are both set"),
        (
            !virtual_8086 && usable(GUEST_SS) && wrong(GUEST_SS, 1 << 3 | 1 << 7, false),
            "guest SS is no writable data segment",
        ),
        (
            // Accessed, and readable where it is code.
            !virtual_8086
                && data.into_iter().skip(1).any(|segment| {
                    usable(segment) && wrong(segment, 1 << 1 | 1 << 3 | 1 << 5 | 1 << 7 | 1 << 11 | 1 << 15, false)
                }),
            "guest DS, ES, FS or GS is no readable segment",
        ),
        (
            !usable(GUEST_TR) || wrong(GUEST_TR, if long_mode { 1 << 11 } else { 1 << 3 | 1 << 11 }, true),
            "guest TR is no busy task state segment",
        ),
        (usable(GUEST_LDTR) && wrong(GUEST_LDTR, 1 << 2, true), "guest LDTR is no local descriptor table"),
        (
            [GUEST_CS, GUEST_TR, GUEST_LDTR].into_iter().chain(data).any(granularity_is_wrong),
            "a limit of a guest segment and its granularity do not agree",
        ),
        (
            [GUEST_TR, GUEST_FS, GUEST_GS].into_iter().any(|segment| !is_canonical(vmcs.get(segment.base)))
                || !is_canonical(vmcs.get(GUEST_GDTR_BASE))
                || !is_canonical(vmcs.get(GUEST_IDTR_BASE)),
            "a base of the guest's is not canonical",
        ),
        (
            vmcs.get(GUEST_CS.base) & UPPER_HALF != 0
                || data.into_iter().take(3).any(|segment| usable(segment) && vmcs.get(segment.base) & UPPER_HALF != 0),
            "a base of guest CS, SS, DS or ES is beyond 4 GiB",
        ),
        (
            vmcs.get(GUEST_GDTR_LIMIT) > 0xffff || vmcs.get(GUEST_IDTR_LIMIT) > 0xffff,
            "a limit of the guest's descriptor tables is beyond FFFFh",
        ),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcpu::vmx::fake::{SKYLAKE, Script, runnable};

    fn errors(change: impl FnOnce(&mut Script)) -> Vec<&'static str> {
        let mut vmcs = runnable();
        change(&mut vmcs);
        consistency_errors(&vmcs, &SKYLAKE)
    }

    #[test]
    fn a_structure_that_the_processor_runs_breaks_no_rule() {
        assert_eq!(errors(|_| {}), Vec::<&str>::new());
    }

    #[test]
    fn each_rule_is_named_when_it_alone_is_broken() {
        type Break = fn(&mut Script);
        let table: [(&str, Break); 36] = [
            ("the pin-based", |v| v.set(PIN_BASED_CONTROLS, 0)),
            ("the primary", |v| v.change(PRIMARY_CONTROLS, |old| old | 1)),
            ("the secondary", |v| v.change(SECONDARY_CONTROLS, |old| old | 1 << 31)),
            ("the VM-exit", |v| v.change(EXIT_CONTROLS, |old| old | 1 << 31)),
            ("the VM-entry", |v| v.change(ENTRY_CONTROLS, |old| old | 1 << 31)),
            ("an I/O bitmap", |v| v.set(IO_BITMAP_B, 0x1001)),
            ("the MSR bitmaps", |v| v.set(MSR_BITMAPS, 1 << 40)),
            ("the virtual-APIC page", |v| v.set(VIRTUAL_APIC_ADDRESS, 8)),
            ("the TPR threshold", |v| v.set(TPR_THRESHOLD, 0x10)),
            ("posted", |v| v.change(PIN_BASED_CONTROLS, |old| old | 1 << 7)),
            ("the EPT pointer", |v| v.set(EPT_POINTER, 0x7000)),
            ("the virtual-processor", |v| v.set(VIRTUAL_PROCESSOR_IDENTIFIER, 0)),
            ("an MSR area", |v| v.set(ENTRY_MSR_LOAD_ADDRESS, 8)),
            ("the event", |v| v.set(ENTRY_INTERRUPTION_INFORMATION, 0x8000_0341)),
            ("host CR0", |v| v.set(HOST_CR0, 0x8000_0011)),
            ("host CR4", |v| v.set(HOST_CR4, 0x20)),
            ("a host address", |v| v.set(HOST_RIP, 1 << 47)),
            ("the host has no task", |v| v.set(HOST_TR_SELECTOR, 0)),
            ("host EFER", |v| v.set(HOST_EFER, 0x800)),
            ("guest CR0 is", |v| v.set(GUEST_CR0, 0x11)),
            ("guest CR4 is", |v| v.set(GUEST_CR4, 0)),
            ("guest CR3", |v| v.set(GUEST_CR3, 1 << 40)),
            ("guest DR7", |v| v.set(GUEST_DR7, 1 << 40)),
            ("guest EFER has", |v| v.set(GUEST_EFER, 1 << 12)),
            ("guest EFER.LMA", |v| v.set(GUEST_EFER, EFER_LMA | EFER_LME)),
            ("the guest's page", |v| v.set(GUEST_PAT, 2)),
            ("guest RFLAGS has", |v| v.set(GUEST_RFLAGS, 0)),
            ("an interrupt is injected and", |v| v.set(ENTRY_INTERRUPTION_INFORMATION, 0x8000_0041)),
            ("guest RIP", |v| v.set(GUEST_RIP, 1 << 32)),
            ("the guest is blocked by STI and RFLAGS", |v| v.set(GUEST_INTERRUPTIBILITY, 1)),
            ("the VMCS link", |v| v.set(VMCS_LINK_POINTER, 0)),
            ("guest CS is", |v| v.set(GUEST_CS.access_rights, 0xc092)),
            ("guest SS is", |v| v.set(GUEST_SS.access_rights, 0xc091)),
            ("guest TR is", |v| v.set(GUEST_TR.access_rights, 0x89)),
            ("a limit of a guest", |v| v.set(GUEST_DS.limit, 0xfffe)),
            ("a base of the guest's", |v| v.set(GUEST_FS.base, 1 << 47)),
        ];
        for (beginning, make_wrong) in table {
            let errors = errors(make_wrong);
            assert_eq!(errors.len(), 1, "{beginning}: {errors:?}");
            assert!(errors[0].starts_with(beginning), "{beginning}: {errors:?}");
        }
    }

    #[test]
    fn long_mode_has_rules_of_its_own() {
        let long = |v: &mut Script| {
            v.change(ENTRY_CONTROLS, |old| old | EntryControls::IA32E_MODE_GUEST.bits());
            v.set(GUEST_EFER, EFER_LMA | EFER_LME);
            v.change(GUEST_CR0, |old| old | cr0::PG);
            v.change(GUEST_CR4, |old| old | cr4::PAE);
            v.set(GUEST_CS.access_rights, 0xa09b);
        };
        assert_eq!(errors(long), Vec::<&str>::new());
        let no_paging = |v: &mut Script| {
            long(v);
            v.change(GUEST_CR0, |old| old & !cr0::PG);
        };
        assert_eq!(errors(no_paging), ["the guest is in IA-32e mode and CR0.PG is clear"]);
        let both = |v: &mut Script| {
            long(v);
            v.set(GUEST_CS.access_rights, 0xe09b);
        };
        assert_eq!(errors(both), ["guest CS.L and CS.D are both set"]);
    }
}
