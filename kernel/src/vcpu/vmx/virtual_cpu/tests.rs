use super::*;
use crate::vcpu::vmx::control_registers::{cr0, cr4};
use crate::vcpu::vmx::fake::*;
use crate::vcpu::vmx::spec::control::EntryControls;
use crate::vcpu::vmx::spec::exit_reason::*;
use crate::vcpu::{Access, ControlState, GeneralProtection, Instruction, NotNow, SegmentName};
use crate::vcpu::{ApicVirtualization, PassedMsrs, PostedProcessing};

const VECTOR: Vector = Vector(0x41);
const PAGE_FAULT: Event = Event::Exception { vector: 14, error_code: Some(2) };

fn enable_interrupts(cpu: &mut VmxVirtualCpu<Script>) {
    cpu.vmcs.change(GUEST_RFLAGS, |flags| flags | RFLAGS_INTERRUPT);
}

#[test]
fn registers_go_in_and_come_out() {
    let mut cpu = cpu(Script::default().then(|vmcs, registers| {
        assert_eq!((vmcs.get(GUEST_RSP), registers.rax, registers.rbx), (2, 1, 3));
        vmcs.set(GUEST_RSP, 5);
        (registers.rax, registers.rbx) = (4, 6);
        vmcs.exit(HLT);
    }));
    let registers = cpu.registers_mut();
    (registers.rax, registers.rsp, registers.rbx) = (1, 2, 3);
    assert_eq!(cpu.run(), Exit::Halt);
    let registers = cpu.registers();
    assert_eq!((registers.rax, registers.rsp, registers.rbx), (4, 5, 6));
}

#[test]
fn a_pvh_start_is_what_the_processor_needs() {
    let vmcs = runnable();
    assert_eq!((vmcs.get(GUEST_CR0), vmcs.get(CR0_READ_SHADOW), vmcs.get(GUEST_RIP)), (0x31, 0x11, ENTRY));
    assert_eq!((vmcs.get(GUEST_CR4), vmcs.get(CR4_READ_SHADOW)), (0x2000, 0));
    assert_eq!((vmcs.get(GUEST_CS.access_rights), vmcs.get(GUEST_SS.access_rights)), (0xc09b, 0xc093));
    assert_eq!((vmcs.get(EPT_POINTER), vmcs.get(VIRTUAL_PROCESSOR_IDENTIFIER)), (0x701e, 1));
    assert_eq!((vmcs.get(IO_BITMAP_A), vmcs.get(IO_BITMAP_B)), (0x100_0000, 0x100_1000));
    assert_eq!((vmcs.get(MSR_BITMAPS), vmcs.get(VIRTUAL_APIC_ADDRESS)), (0x100_2000, 0x100_4000));
    assert_eq!((vmcs.get(EXIT_MSR_STORE_ADDRESS), vmcs.get(ENTRY_MSR_LOAD_ADDRESS)), (0x100_3000, 0x100_3000));
    assert_eq!((vmcs.get(EXIT_MSR_STORE_COUNT), vmcs.get(ENTRY_MSR_LOAD_COUNT)), (5, 5));
}

#[test]
fn every_start_breaks_no_rule_of_entry() {
    for start in
        [Start::Protected { entry: 0x20_0000, rax: 0, information: 0 }, Start::StartupInterrupt { vector: 0x9a }]
    {
        let mut cpu = cpu(Script::default());
        cpu.start(start);
        let errors = consistency_errors(&cpu.vmcs, &cpu.capabilities);
        assert!(errors.is_empty(), "{start:?}: {errors:?}");
    }
}

#[test]
fn running_out_of_memory_names_the_structure() {
    let mut frames = Frames { next: 0, left: 3 };
    let error = VmxVirtualCpu::new(Script::default(), &mut frames, plan(SKYLAKE)).err();
    assert_eq!(error, Some(VmxError::OutOfMemory { structure: "MSR area" }));
}

#[test]
fn translations_are_flushed_at_the_first_entry_and_when_asked() {
    let mut cpu = cpu(Script::default().exits(HLT).exits(HLT).exits(HLT).exits(HLT));
    cpu.run();
    cpu.run();
    assert_eq!(cpu.vmcs.invalidations, [(0x701e, Some(1))]);
    cpu.flush_translations();
    cpu.run();
    cpu.set_nested_root(HostPhys::new(0x9000));
    cpu.run();
    assert_eq!(cpu.vmcs.invalidations[1..], [(0x701e, Some(1)), (0x901e, Some(1))]);
    assert_eq!(cpu.vmcs.at(3, EPT_POINTER), 0x901e);
}

#[test]
fn a_refused_entry_says_why_in_words_and_keeps_its_event() {
    let mut cpu = cpu(Script::default().refuses(EntryError::Failed { number: 7 }).exits(HLT));
    cpu.inject_exception(14, Some(2));
    cpu.vmcs.set(MSR_BITMAPS, 1);
    let Exit::EntryFailed(failure) = cpu.run() else { panic!("not an entry failure") };
    assert_eq!(failure.code, 7);
    assert_eq!(failure.reasons[0], Some("VM entry with invalid control fields"));
    assert_eq!(failure.reasons[1], Some("the MSR bitmaps are not a frame of physical memory"));
    assert_eq!((failure.reasons[2], cpu.pending_event()), (None, Some(PAGE_FAULT)));
    assert_eq!(cpu.vmcs.get(ENTRY_INTERRUPTION_INFORMATION), 0);
    cpu.run();
    assert_eq!(cpu.vmcs.at(1, ENTRY_INTERRUPTION_INFORMATION), 0x8000_0b0e);
    assert_eq!(cpu.vmcs.invalidations.len(), 2, "what the refused entry flushed may not have been");
}

#[test]
fn a_guest_state_that_is_refused_is_named() {
    let mut cpu = cpu(Script::default().then(|vmcs, _| vmcs.say(EXIT_REASON, 0x8000_0021)));
    cpu.vmcs.set(GUEST_RFLAGS, 0);
    let Exit::EntryFailed(failure) = cpu.run() else { panic!("not an entry failure") };
    assert_eq!((failure.code, failure.reasons[0]), (0x8000_0021, Some("VM entry with invalid guest state")));
    assert_eq!(failure.reasons[1], Some("guest RFLAGS has reserved bits wrong"));
}

#[test]
fn an_interrupt_is_injected_once_and_only_when_it_can_be_taken() {
    let mut cpu = cpu(Script::default().exits(HLT).exits(HLT));
    assert_eq!(cpu.inject_interrupt(VECTOR), Err(NotNow), "IF is clear");
    enable_interrupts(&mut cpu);
    for shadow in [BLOCKING_BY_STI, BLOCKING_BY_MOV_SS] {
        cpu.vmcs.set(GUEST_INTERRUPTIBILITY, shadow);
        assert_eq!(cpu.inject_interrupt(VECTOR), Err(NotNow), "in the shadow");
    }
    cpu.vmcs.set(GUEST_INTERRUPTIBILITY, 0);
    assert_eq!(cpu.inject_interrupt(VECTOR), Ok(()));
    assert_eq!(cpu.inject_interrupt(Vector(0x42)), Err(NotNow), "one is pending");
    cpu.run();
    cpu.run();
    let injected = |entry| cpu.vmcs.at(entry, ENTRY_INTERRUPTION_INFORMATION);
    assert_eq!((injected(0), injected(1) >> 31), (0x8000_0041, 0));
}

#[test]
fn an_event_whose_delivery_faults_is_delivered_again() {
    for (information, error_code, length) in
        [(0x8000_0041, 0, 0), (0x8000_0b0d, 0x18, 0), (0x8000_0480, 0, 2), (0x8000_0603, 0, 1), (0x8000_0501, 0, 1)]
    {
        let mut cpu = cpu(Script::default()
            .then(move |vmcs, _| {
                vmcs.exit(EPT_VIOLATION);
                vmcs.say(EXIT_QUALIFICATION, 0x182);
                vmcs.say(IDT_VECTORING_INFORMATION, information);
                vmcs.say(IDT_VECTORING_ERROR_CODE, error_code);
                vmcs.say(EXIT_INSTRUCTION_LENGTH, length);
            })
            .exits(EXTERNAL_INTERRUPT)
            .exits(HLT));
        enable_interrupts(&mut cpu);
        assert!(matches!(cpu.run(), Exit::NestedPageFault(fault) if fault.access == Access::Write));
        assert!(!cpu.can_take_interrupt(), "{information:#x}");
        cpu.run();
        assert_eq!(u64::from(cpu.vmcs.at(1, ENTRY_INTERRUPTION_INFORMATION)), information);
        assert_eq!(u64::from(cpu.vmcs.at(1, ENTRY_EXCEPTION_ERROR_CODE)), error_code);
        assert_eq!(u64::from(cpu.vmcs.at(1, ENTRY_INSTRUCTION_LENGTH)), length);
        assert!(cpu.can_take_interrupt());
        cpu.run();
        assert_eq!(cpu.vmcs.at(2, ENTRY_INTERRUPTION_INFORMATION) >> 31, 0);
    }
}

#[test]
fn an_interrupted_nmi_is_delivered_again_although_it_blocks_itself() {
    let mut cpu = cpu(Script::default()
        .then(|vmcs, _| {
            vmcs.exit(EPT_VIOLATION);
            vmcs.say(IDT_VECTORING_INFORMATION, 0x8000_0202);
            vmcs.set(GUEST_INTERRUPTIBILITY, BLOCKING_BY_NMI);
        })
        .exits(HLT));
    cpu.run();
    assert_eq!(cpu.pending_event(), Some(Event::Nmi));
    cpu.run();
    assert_eq!(cpu.vmcs.at(1, ENTRY_INTERRUPTION_INFORMATION), 0x8000_0202);
    assert_eq!(cpu.vmcs.at(1, GUEST_INTERRUPTIBILITY), 0);
}

#[test]
fn an_iret_that_faults_after_it_unblocked_nmis_blocks_them_again() {
    let mut cpu = cpu(Script::default().then(|vmcs, _| {
        vmcs.exit(EPT_VIOLATION);
        vmcs.say(EXIT_QUALIFICATION, 0x1181);
    }));
    cpu.run();
    assert_eq!(cpu.vmcs.get(GUEST_INTERRUPTIBILITY), BLOCKING_BY_NMI);
}

#[test]
fn the_window_is_asked_for_until_it_opens() {
    let mut cpu = cpu(Script::default().exits(EXTERNAL_INTERRUPT).exits(INTERRUPT_WINDOW).exits(HLT));
    cpu.set_task_priority(5);
    cpu.request_interrupt_window(true);
    assert_eq!(cpu.run(), Exit::ExternalInterrupt);
    assert_eq!(cpu.run(), Exit::InterruptWindow);
    cpu.run();
    let wanted = |entry| cpu.vmcs.at(entry, PRIMARY_CONTROLS) & Primary::INTERRUPT_WINDOW_EXITING.bits() != 0;
    assert_eq!((wanted(0), wanted(1), wanted(2)), (true, true, false));
    assert_eq!(cpu.task_priority(), 5);
}

#[test]
fn handlers_run_for_the_interrupt_or_nmi_that_took_the_guest_out_and_for_nothing_else() {
    let mut cpu = cpu(Script::default()
        .exits(EXTERNAL_INTERRUPT)
        .then(|vmcs, _| {
            vmcs.exit(EXCEPTION_OR_NMI);
            vmcs.say(EXIT_INTERRUPTION_INFORMATION, 0x8000_0202);
        })
        .exits(CPUID)
        .exits(PREEMPTION_TIMER_EXPIRED));
    assert_eq!((cpu.run(), cpu.run(), cpu.run()), (Exit::ExternalInterrupt, Exit::Nmi, Exit::Cpuid));
    assert_eq!(cpu.run(), Exit::ExternalInterrupt);
    assert_eq!((cpu.vmcs.served.as_slice(), cpu.vmcs.nmis), (&[None][..], 1));
}

#[test]
fn an_acknowledged_interrupt_is_served_by_its_vector() {
    let mut cpu = cpu(Script::default()
        .then(|vmcs, _| {
            vmcs.exit(EXTERNAL_INTERRUPT);
            vmcs.say(EXIT_INTERRUPTION_INFORMATION, 0x8000_0055);
        })
        .exits(EXTERNAL_INTERRUPT));
    let apic = cpu.apic_virtualization().unwrap();
    apic.set_posted_processing(Some(PostedProcessing { descriptor: HostPhys::new(0x40), notification: Vector(0xf2) }));
    cpu.run();
    cpu.set_posted_processing(None);
    cpu.run();
    assert_eq!(cpu.vmcs.served, [Some(Vector(0x55)), None]);
    assert_eq!(cpu.vmcs.at(0, POSTED_INTERRUPT_DESCRIPTOR_ADDRESS), 0x40);
    assert_eq!(cpu.vmcs.at(0, POSTED_INTERRUPT_NOTIFICATION_VECTOR), 0xf2);
    let posts = |entry| cpu.vmcs.at(entry, PIN_BASED_CONTROLS) & PinBased::PROCESS_POSTED_INTERRUPTS.bits() != 0;
    assert_eq!((posts(0), posts(1)), (true, false));
    assert!(consistency_errors(&cpu.vmcs, &cpu.capabilities).is_empty());
}

#[test]
fn x2apic_mode_is_virtualized_if_and_only_if_registers_pass() {
    let mut cpu = cpu(Script::default().exits(HLT).exits(HLT));
    let apic = cpu.apic_virtualization().unwrap();
    apic.set_passed_msrs(PassedMsrs { reads: [1 << 8, 0, 0, 0], writes: [1 << 0x0b, 0, 0, 0] });
    cpu.run();
    let passed = |cpu: &VmxVirtualCpu<Script>, register| cpu.msr_bitmaps.is_passed(register);
    assert_eq!((passed(&cpu, 0x808), passed(&cpu, 0x80b)), ((true, false), (false, true)));
    assert_eq!(passed(&cpu, 0x80a), (false, false));
    cpu.set_passed_msrs(PassedMsrs::NONE);
    assert_eq!(passed(&cpu, 0x808), (false, false));
    cpu.run();
    let virtualized = |entry| cpu.vmcs.at(entry, SECONDARY_CONTROLS) & 1 << 4 != 0;
    assert_eq!((virtualized(0), virtualized(1)), (true, false));
    assert_eq!(cpu.vmcs.at(0, SECONDARY_CONTROLS) >> 8 & 3, 3, "register virtualization and delivery");
}

#[test]
fn without_delivery_by_the_processor_the_local_apic_is_software() {
    let mut lesser = SKYLAKE;
    lesser.secondary.may &= !(1 << 9);
    let mut cpu = cpu_with(lesser, Script::default().exits(HLT));
    assert!(cpu.apic_virtualization().is_none());
    cpu.run();
    assert_eq!(cpu.vmcs.at(0, SECONDARY_CONTROLS) >> 8 & 3, 0);
}

#[test]
fn an_interrupt_that_an_exception_overtakes_is_delivered_afterwards() {
    let mut cpu = cpu(Script::default()
        .then(|vmcs, _| {
            vmcs.change(GUEST_RFLAGS, |flags| flags & !RFLAGS_INTERRUPT);
            vmcs.exit(EXTERNAL_INTERRUPT);
        })
        .then(|vmcs, _| {
            vmcs.change(GUEST_RFLAGS, |flags| flags | RFLAGS_INTERRUPT);
            vmcs.exit(INTERRUPT_WINDOW);
        })
        .exits(HLT));
    enable_interrupts(&mut cpu);
    cpu.inject_interrupt(VECTOR).unwrap();
    cpu.inject_exception(13, Some(0));
    assert_eq!((cpu.run(), cpu.can_take_interrupt()), (Exit::ExternalInterrupt, false));
    assert_eq!(cpu.pending_event(), Some(Event::Interrupt(VECTOR)));
    assert_eq!(cpu.run(), Exit::Halt, "the window is the engine's own");
    let injected = |entry| cpu.vmcs.at(entry, ENTRY_INTERRUPTION_INFORMATION);
    assert_eq!((injected(0), injected(1) >> 31, injected(2)), (0x8000_0b0d, 0, 0x8000_0041));
}

#[test]
fn completing_an_instruction_ends_the_shadow_and_traps_a_guest_that_steps() {
    let mut cpu = cpu(Script::default());
    cpu.vmcs.set(GUEST_INTERRUPTIBILITY, BLOCKING_BY_STI | BLOCKING_BY_NMI);
    cpu.vmcs.change(GUEST_RFLAGS, |flags| flags | RFLAGS_RESUME);
    cpu.set_rip(0xffff_ffff);
    cpu.advance(2);
    assert_eq!((cpu.rip(), cpu.vmcs.get(GUEST_INTERRUPTIBILITY)), (1, BLOCKING_BY_NMI));
    assert_eq!((cpu.vmcs.get(GUEST_RFLAGS), cpu.pending_event(), cpu.vmcs.debug_status), (2, None, 0));
    cpu.vmcs.change(GUEST_RFLAGS, |flags| flags | RFLAGS_TRAP);
    cpu.advance(1);
    assert_eq!(cpu.pending_event(), Some(Event::Exception { vector: 1, error_code: None }));
    assert_eq!(cpu.vmcs.debug_status, 1 << 14);
}

#[test]
fn an_instruction_ends_where_the_processor_says() {
    let mut cpu = cpu(Script::default()
        .then(|vmcs, _| {
            vmcs.exit(CPUID);
            vmcs.say(EXIT_INSTRUCTION_LENGTH, 3);
        })
        .exits(EXTERNAL_INTERRUPT));
    cpu.run();
    assert_eq!(cpu.next_rip(), Some(ENTRY + 3));
    cpu.finish_instruction(Instruction::Cpuid, &mut |_, _| panic!("the bytes are not needed"));
    assert_eq!(cpu.rip(), ENTRY + 3);
    cpu.run();
    assert_eq!(cpu.next_rip(), None, "an interrupt is no instruction's");
}

#[test]
fn a_debug_exception_leaves_the_debug_registers_as_its_delivery_does() {
    let mut cpu = cpu(Script::default().then(|vmcs, _| {
        vmcs.exit(EXCEPTION_OR_NMI);
        vmcs.say(EXIT_INTERRUPTION_INFORMATION, 0x8000_0301);
        vmcs.say(EXIT_QUALIFICATION, 0x4001);
    }));
    // B1 was another breakpoint; BD stays, because the processor never clears it.
    cpu.vmcs.debug_status = 0xffff_2ff2;
    cpu.vmcs.set(GUEST_DR7, 0x2400);
    assert_eq!(cpu.run(), Exit::Exception { vector: 1, error_code: None });
    assert_eq!((cpu.vmcs.debug_status, cpu.vmcs.get(GUEST_DR7)), (0xffff_6ff1, 0x400));
    assert_eq!(cpu.rip(), ENTRY);
}

#[test]
fn the_handler_of_a_fault_finds_the_resume_flag() {
    for (vector, error_code, flag) in
        [(13, Some(0), RFLAGS_RESUME), (6, None, RFLAGS_RESUME), (1, None, 0), (3, None, 0), (8, Some(0), 0)]
    {
        let mut cpu = cpu(Script::default());
        cpu.inject_exception(vector, error_code);
        assert_eq!(cpu.vmcs.get(GUEST_RFLAGS) & RFLAGS_RESUME, flag, "{vector}");
    }
    let mut cpu = cpu(Script::default());
    cpu.inject_page_fault(0x1234, 2);
    assert_eq!(cpu.vmcs.get(GUEST_RFLAGS) & RFLAGS_RESUME, RFLAGS_RESUME);
}

/// What the entry with this number injects, and whether the guest exits when it can take an NMI.
fn nmi_at(cpu: &VmxVirtualCpu<Script>, entry: usize) -> (u32, bool) {
    let injected = cpu.vmcs.at(entry, ENTRY_INTERRUPTION_INFORMATION);
    let controls = Primary::from_bits_retain(cpu.vmcs.at(entry, PRIMARY_CONTROLS));
    (injected, controls.contains(Primary::NMI_WINDOW_EXITING))
}

const NMI_INJECTED: u32 = 0x8000_0202;

#[test]
fn an_nmi_is_delivered_at_once_with_interrupts_enabled_or_not() {
    let mut cpu = cpu(Script::default().exits(HLT).exits(HLT));
    cpu.inject_nmi();
    // Another that comes before it is delivered is the same.
    cpu.inject_nmi();
    cpu.run();
    assert_eq!(nmi_at(&cpu, 0), (NMI_INJECTED, false));
    cpu.run();
    assert_eq!(nmi_at(&cpu, 1), (0x202, false), "the processor has cleared the valid bit");
}

#[test]
fn an_nmi_waits_for_the_end_of_another_s_handler_or_of_a_shadow() {
    for blocking in [BLOCKING_BY_NMI, BLOCKING_BY_MOV_SS, BLOCKING_BY_STI] {
        let opens = |vmcs: &mut Script, _: &mut Registers| {
            vmcs.set(GUEST_INTERRUPTIBILITY, 0);
            vmcs.exit(NMI_WINDOW);
        };
        let mut cpu = cpu(Script::default().exits(HLT).then(opens).exits(HLT));
        cpu.vmcs.set(GUEST_INTERRUPTIBILITY, blocking);
        cpu.inject_nmi();
        assert_eq!(cpu.run(), Exit::Halt);
        assert_eq!(nmi_at(&cpu, 0), (0, true));
        assert_eq!(cpu.run(), Exit::InterruptWindow);
        assert_eq!(cpu.run(), Exit::Halt);
        assert_eq!(nmi_at(&cpu, 2), (NMI_INJECTED, false));
    }
}

#[test]
fn an_nmi_comes_after_an_exception_and_before_an_interrupt() {
    let mut cpu = cpu(Script::default().exits(NMI_WINDOW).exits(HLT).exits(HLT));
    enable_interrupts(&mut cpu);
    cpu.inject_interrupt(VECTOR).unwrap();
    cpu.inject_exception(14, Some(2));
    cpu.inject_nmi();
    cpu.run();
    assert_eq!(nmi_at(&cpu, 0), (0x8000_0b0e, true));
    cpu.run();
    assert_eq!(nmi_at(&cpu, 1), (NMI_INJECTED, false));
    cpu.run();
    assert_eq!(nmi_at(&cpu, 2), (0x8000_0041, false));
}

#[test]
fn a_start_forgets_an_nmi_that_waits() {
    let mut cpu = cpu(Script::default().exits(HLT).exits(HLT));
    cpu.vmcs.set(GUEST_INTERRUPTIBILITY, BLOCKING_BY_NMI);
    cpu.inject_nmi();
    cpu.run();
    cpu.start(Start::StartupInterrupt { vector: 0x9a });
    cpu.run();
    assert_eq!(nmi_at(&cpu, 1), (0, false));
}

#[test]
fn int1_is_not_executed_again_after_its_handler() {
    let mut cpu = cpu(Script::default().then(|vmcs, _| {
        vmcs.exit(EXCEPTION_OR_NMI);
        vmcs.say(EXIT_INTERRUPTION_INFORMATION, 0x8000_0501);
        vmcs.say(EXIT_INSTRUCTION_LENGTH, 1);
    }));
    assert_eq!(cpu.run(), Exit::Exception { vector: 1, error_code: None });
    assert_eq!(cpu.rip(), ENTRY + 1);
}

#[test]
fn faults_add_up_to_a_shutdown_that_lasts() {
    let mut cpu = cpu(Script::default().exits(TRIPLE_FAULT));
    cpu.inject_exception(13, Some(0));
    cpu.inject_page_fault(0x1234, 2);
    assert_eq!((cpu.control().cr2, cpu.pending_event()), (0x1234, Some(PAGE_FAULT)));
    cpu.inject_exception(13, Some(0));
    assert_eq!(cpu.pending_event(), Some(Event::Exception { vector: 8, error_code: Some(0) }));
    cpu.inject_exception(13, Some(0));
    assert_eq!((cpu.run(), cpu.vmcs.entries.len()), (Exit::Shutdown, 0));
    cpu.start(Start::StartupInterrupt { vector: 1 });
    assert_eq!((cpu.run(), cpu.run(), cpu.vmcs.entries.len()), (Exit::Shutdown, Exit::Shutdown, 1));
}

/// An exit by MOV between control register `number` and RBX.
fn control_access(number: u64, read: bool) -> impl FnOnce(&mut Script, &mut Registers) {
    move |vmcs, _| {
        vmcs.exit(CONTROL_REGISTER);
        vmcs.say(EXIT_QUALIFICATION, number | u64::from(read) << 4 | 3 << 8);
        vmcs.say(EXIT_INSTRUCTION_LENGTH, 3);
    }
}

#[test]
fn a_write_of_the_hosts_control_bits_changes_what_the_guest_reads_and_is_executed_again() {
    let mut cpu = cpu(Script::default().then(control_access(0, false)).exits(HLT));
    cpu.registers_mut().rbx = cr0::PE | cr0::NE | cr0::CD;
    assert_eq!((cpu.run(), cpu.rip()), (Exit::Halt, ENTRY));
    assert_eq!(cpu.vmcs.at(1, CR0_READ_SHADOW), cr0::PE | cr0::NE | cr0::CD);
    assert_eq!(cpu.vmcs.at(1, GUEST_CR0), 0x31, "the rest is the instruction's own");
    assert_eq!(cpu.control().cr0, 0x11 | cr0::NE | cr0::CD);
    assert_eq!(cpu.vmcs.served, [], "nothing runs that the caller would have to look at");
}

#[test]
fn forbidden_control_bits_are_a_general_protection_exception() {
    for (number, value) in [(0, cr0::NW | cr0::PE), (4, cr4::VMXE), (4, 1 << 17), (4, 1 << 24), (8, 0x10)] {
        let mut cpu = cpu(Script::default().then(control_access(number, false)).exits(HLT));
        cpu.registers_mut().rbx = value;
        cpu.run();
        assert_eq!(cpu.vmcs.at(1, ENTRY_INTERRUPTION_INFORMATION), 0x8000_0b0d, "CR{number} = {value:#x}");
        assert_eq!((cpu.rip(), cpu.vmcs.at(1, CR0_READ_SHADOW), cpu.vmcs.at(1, CR4_READ_SHADOW)), (ENTRY, 0x11, 0));
    }
}

#[test]
fn an_access_that_should_not_have_exited_is_not_repeated_for_ever() {
    for number in [0, 3, 4] {
        let mut cpu = cpu(Script::default().then(control_access(number, false)));
        cpu.registers_mut().rbx = if number == 0 { 0x8001_0011 } else { 0x20 };
        assert!(matches!(cpu.run(), Exit::Unknown { code: 28, .. }), "CR{number}");
    }
}

#[test]
fn without_a_tpr_shadow_cr8_is_the_engines() {
    let mut lesser = SKYLAKE;
    lesser.primary.may &= !Primary::USE_TPR_SHADOW.bits();
    let script = Script::default().then(control_access(8, false)).then(control_access(8, true)).exits(HLT);
    let mut cpu = cpu_with(lesser, script.then(|_, _| {}));
    cpu.registers_mut().rbx = 9;
    // The first access writes 9; the second reads it back.
    cpu.run();
    assert_eq!((cpu.task_priority(), cpu.registers().rbx, cpu.rip()), (9, 9, ENTRY + 6));
    assert_eq!(cpu.page().read(TASK_PRIORITY), 0);
}

#[test]
fn a_guest_that_lowers_its_task_priority_exits_once_when_asked_to() {
    let lowers = |vmcs: &mut Script, _: &mut Registers| vmcs.exit(TPR_BELOW_THRESHOLD);
    let mut cpu = cpu(Script::default().exits(HLT).then(lowers).exits(HLT));
    cpu.set_task_priority(9);
    cpu.request_interrupt_window(true);
    cpu.run();
    cpu.request_priority_exit(true);
    assert_eq!(cpu.run(), Exit::InterruptWindow);
    cpu.run();
    let threshold = |entry| cpu.vmcs.at(entry, crate::vcpu::vmx::spec::field::TPR_THRESHOLD);
    assert_eq!((threshold(0), threshold(1), threshold(2)), (0, 9, 0));
    assert!(cpu.window_wanted, "the window is another request");
}

#[test]
fn without_a_tpr_shadow_a_write_of_cr8_exits_once_when_asked_to() {
    let mut lesser = SKYLAKE;
    lesser.primary.may &= !Primary::USE_TPR_SHADOW.bits();
    let mut cpu =
        cpu_with(lesser, Script::default().then(control_access(8, false)).then(control_access(8, false)).exits(HLT));
    cpu.registers_mut().rbx = 3;
    cpu.request_priority_exit(true);
    assert_eq!((cpu.run(), cpu.rip()), (Exit::InterruptWindow, ENTRY + 3));
    assert_eq!(cpu.run(), Exit::Halt);
}

#[test]
fn the_task_priority_is_in_the_virtual_apic_page() {
    let mut cpu = cpu(Script::default());
    cpu.set_task_priority(0x1b);
    assert_eq!((cpu.page().read(TASK_PRIORITY), cpu.task_priority()), (0xb0, 0xb));
    cpu.page().write(TASK_PRIORITY, 0x4f);
    assert_eq!(cpu.task_priority(), 4);
}

#[test]
fn entry_follows_the_guest_into_long_mode_and_out_of_it() {
    let long = |on: bool| {
        move |vmcs: &mut Script, _: &mut Registers| {
            vmcs.set(GUEST_EFER, if on { 0x500 } else { 0x100 });
            vmcs.change(GUEST_CR0, |cr0| if on { cr0 | cr0::PG } else { cr0 & !cr0::PG });
            vmcs.exit(HLT);
        }
    };
    let mut cpu = cpu(Script::default().then(long(true)).then(long(false)).exits(HLT));
    assert_eq!(cpu.write_efer(0x100), Ok(()));
    cpu.run();
    assert_eq!((cpu.control().efer, cpu.control().cr0), (0x500, 0x11 | cr0::PG));
    cpu.run();
    cpu.run();
    let long_mode = |entry| cpu.vmcs.at(entry, ENTRY_CONTROLS) & EntryControls::IA32E_MODE_GUEST.bits() != 0;
    assert_eq!((long_mode(0), long_mode(1), long_mode(2)), (false, true, false));
}

#[test]
fn efer_takes_what_a_guest_is_offered() {
    let mut cpu = cpu(Script::default());
    assert_eq!(cpu.write_efer(1 << 12), Err(GeneralProtection));
    assert_eq!(cpu.write_efer(0x901), Ok(()));
    assert_eq!((cpu.control().efer, cpu.vmcs.get(GUEST_EFER)), (0x901, 0x901));
    cpu.vmcs.change(GUEST_CR0, |cr0| cr0 | cr0::PG);
    assert_eq!(cpu.write_efer(0x801), Err(GeneralProtection), "LME while paging");
    assert_eq!(cpu.write_efer(0x500), Ok(()), "LMA is ignored");
    assert_eq!(cpu.control().efer, 0x100);
}

#[test]
fn undefined_memory_types_are_refused() {
    let mut cpu = cpu(Script::default());
    assert_eq!(cpu.page_attribute_table(), 0x0007_0406_0007_0406);
    assert_eq!(cpu.set_page_attribute_table(2), Err(GeneralProtection));
    assert_eq!(cpu.set_page_attribute_table(0x0100), Ok(()));
    assert_eq!(cpu.vmcs.get(GUEST_PAT), 0x0100);
}

#[test]
fn a_start_up_interrupt_begins_in_real_mode_with_everything_else_as_after_reset() {
    let mut cpu = cpu(Script::default());
    cpu.inject_exception(13, None);
    cpu.vmcs.set(GUEST_EFER, 0x500);
    cpu.start(Start::StartupInterrupt { vector: 0x9a });
    assert_eq!((cpu.mode(), cpu.linear_rip(), cpu.pending_event()), (Mode::Real, 0x9a000, None));
    assert_eq!(cpu.segment(SegmentName::Cs).selector, 0x9a00);
    assert_eq!(cpu.control(), ControlState { cr0: 0x6000_0010, rflags: 2, ..Default::default() });
    assert_eq!((cpu.vmcs.get(GUEST_CR0), cpu.vmcs.get(GUEST_ACTIVITY)), (0x30, 0));
}

#[test]
fn the_preemption_timer_counts_when_it_is_asked_to() {
    let expires = |vmcs: &mut Script, _: &mut Registers| {
        vmcs.set(PREEMPTION_TIMER, 0);
        vmcs.exit(PREEMPTION_TIMER_EXPIRED);
    };
    let mut cpu = cpu(Script::default().exits(HLT).exits(HLT).then(expires).exits(HLT));
    cpu.run();
    assert!(cpu.set_preemption_timer(Some(1000)));
    cpu.run();
    assert!(cpu.set_preemption_timer(None));
    cpu.run();
    // It has run down although nobody wanted it: once more would be at once.
    assert!(cpu.set_preemption_timer(None));
    cpu.run();
    let counts = |entry| cpu.vmcs.at(entry, PREEMPTION_TIMER);
    assert_eq!((counts(0), counts(1), counts(2), counts(3)), (u32::MAX, 1000, u32::MAX, u32::MAX));
    let active = |entry| cpu.vmcs.at(entry, PIN_BASED_CONTROLS) & PinBased::ACTIVATE_PREEMPTION_TIMER.bits() != 0;
    assert!((0..4).all(active));
    let mut lesser = SKYLAKE;
    lesser.exit.may &= !ExitControls::SAVE_PREEMPTION_TIMER.bits();
    assert!(!cpu_with(lesser, Script::default()).set_preemption_timer(Some(1)));
}

#[test]
fn a_passed_port_is_open_in_the_map() {
    let mut cpu = cpu(Script::default());
    cpu.set_port_passed(0x80, true);
    assert!(cpu.io_bitmaps.is_passed(0x80) && !cpu.io_bitmaps.is_passed(0x81));
}

#[test]
fn deadlines_are_written_without_an_exit_and_not_read() {
    let mut cpu = cpu(Script::default());
    let passed = |cpu: &VmxVirtualCpu<Script>| cpu.msr_bitmaps.is_passed(0x6e0);
    assert_eq!(passed(&cpu), (false, false));
    assert!(cpu.pass_deadline_writes(true));
    assert_eq!(passed(&cpu), (false, true));
    assert!(cpu.pass_deadline_writes(false));
    assert_eq!(passed(&cpu), (false, false));
}

#[test]
fn speculation_control_is_switched_once_the_guest_has_it() {
    let script = Script::default().exits(HLT).exits(HLT).exits(HLT);
    let mut cpu = cpu(script);
    cpu.run();
    let passed = |cpu: &VmxVirtualCpu<Script>| [0x48, 0x49].map(|register| cpu.msr_bitmaps.is_passed(register));
    assert_eq!(passed(&cpu), [(false, false); 2]);
    assert!(cpu.has_speculation_control());
    cpu.pass_speculation_control(0x49);
    assert_eq!(passed(&cpu), [(false, false), (false, true)], "it is write only");
    cpu.pass_speculation_control(0x48);
    assert_eq!(passed(&cpu), [(true, true), (false, true)]);
    cpu.run();
    // Of another life nothing is left.
    cpu.start(Start::Protected { entry: ENTRY as u32, rax: 0, information: 0x9000 });
    assert_eq!(passed(&cpu), [(false, false); 2]);
    cpu.run();
    let counts = |entry| {
        [EXIT_MSR_STORE_COUNT, ENTRY_MSR_LOAD_COUNT, EXIT_MSR_LOAD_COUNT].map(|field| cpu.vmcs.at(entry, field))
    };
    assert_eq!([counts(0), counts(1), counts(2)], [[5, 5, 0], [6, 6, 1], [5, 5, 0]]);
    let area = cpu.vmcs.at(0, ENTRY_MSR_LOAD_ADDRESS);
    assert_eq!(cpu.vmcs.at(0, EXIT_MSR_LOAD_ADDRESS), area + 6 * 16);
    let [.., guest, host] = &cpu.msr_area.entries()[..] else { panic!("no entries") };
    assert_eq!((guest.index, guest.value, host.index, host.value), (0x48, 0, 0x48, 4));
}
