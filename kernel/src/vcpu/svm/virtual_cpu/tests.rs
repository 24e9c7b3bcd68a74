use super::*;
use crate::vcpu::svm::fake::*;
use crate::vcpu::svm::spec::{exit_code::*, intercept, vmcb::EFER_SVME};
use crate::vcpu::{Access, ControlState, Event, Exit, GeneralProtection, Instruction, NotNow, SegmentName};
use addr::Vector;

extern crate std;
use std::vec::Vec;

const VECTOR: Vector = Vector(0x41);

/// An exit with `code`, nothing else changed.
fn exits(code: u64) -> impl FnOnce(&mut Vmcb, &mut Registers) {
    move |vmcb, _| vmcb.control.exit_code = code
}

/// The guest takes the virtual interrupt, then an exit with `code`.
fn takes(code: u64) -> impl FnOnce(&mut Vmcb, &mut Registers) {
    move |vmcb, _| {
        assert_ne!(vmcb.control.interrupt_control & interrupt_control::IRQ, 0);
        vmcb.control.interrupt_control &= !interrupt_control::IRQ;
        vmcb.control.exit_code = code;
    }
}

fn enable_interrupts(cpu: &mut SvmVirtualCpu<Script>) {
    cpu.vmcb.save.rflags |= RFLAGS_INTERRUPT;
}

fn control(cpu: &SvmVirtualCpu<Script>, entry: usize) -> &crate::vcpu::svm::spec::vmcb::ControlArea {
    &cpu.world.entries[entry].control
}

#[test]
fn registers_go_in_and_come_out() {
    let mut cpu = cpu(Script::default().then(|vmcb, registers| {
        assert_eq!((vmcb.save.rax, vmcb.save.rsp, registers.rbx), (1, 2, 3));
        (vmcb.save.rax, vmcb.save.rsp, registers.rbx) = (4, 5, 6);
        vmcb.control.exit_code = HLT;
    }));
    let registers = cpu.registers_mut();
    (registers.rax, registers.rsp, registers.rbx) = (1, 2, 3);
    assert_eq!(cpu.run(), Exit::Halt);
    let registers = cpu.registers();
    assert_eq!((registers.rax, registers.rsp, registers.rbx), (4, 5, 6));
}

#[test]
fn a_pvh_start_breaks_no_rule_of_entry() {
    let mut cpu = cpu(Script::default().then(exits(u64::MAX)));
    let Exit::EntryFailed(failure) = cpu.run() else { panic!("not an entry failure") };
    assert_eq!(failure.reasons, [None; 4]);
    let vmcb = &cpu.world.entries[0];
    assert_eq!((vmcb.save.cr0, vmcb.save.rip, vmcb.save.efer), (0x11, ENTRY, EFER_SVME));
    assert_eq!((vmcb.save.cs.attributes.0, vmcb.save.ss.attributes.0), (0xc9b, 0xc93));
    assert_eq!((vmcb.control.asid, vmcb.control.nested_control, vmcb.control.nested_cr3), (1, 1, ROOT.as_u64()));
    assert_eq!(vmcb.control.iopm_base_pa, 0x100_1000);
    assert_eq!(vmcb.control.msrpm_base_pa, 0x100_4000);
    assert_eq!(vmcb.control.interrupt_control, interrupt_control::MASKING);
    assert_eq!(cpu.mode(), Mode::Protected32);
}

#[test]
fn running_out_of_memory_names_the_structure() {
    let mut frames = Frames { next: 0, left: 2 };
    let error = SvmVirtualCpu::new(Script::default(), &mut frames, EMULATOR, 1, ROOT).err();
    assert_eq!(error, Some(SvmError::OutOfMemory { structure: "I/O permission map" }));
}

#[test]
fn translations_are_flushed_at_the_first_entry_and_when_asked() {
    let script = || (0..4).fold(Script::default(), |script, _| script.then(exits(HLT)));
    for (flush_by_asid, expected) in [(false, TLB_FLUSH_ALL), (true, TLB_FLUSH_ADDRESS_SPACE)] {
        let mut cpu = cpu_with(Capabilities { flush_by_asid, ..EMULATOR }, script());
        cpu.run();
        cpu.run();
        cpu.flush_translations();
        cpu.run();
        cpu.set_nested_root(addr::HostPhys::new(0x9000));
        cpu.run();
        let flushes = cpu.world.entries.iter().map(|vmcb| vmcb.control.tlb_control);
        assert!(flushes.eq([expected, TLB_FLUSH_NOTHING, expected, expected]));
        assert_eq!(control(&cpu, 3).nested_cr3, 0x9000);
    }
}

#[test]
fn a_refused_entry_flushes_and_delivers_nothing() {
    let mut cpu = cpu(Script::default().then(exits(u64::MAX)).then(exits(HLT)));
    cpu.inject_exception(13, Some(0));
    assert!(matches!(cpu.run(), Exit::EntryFailed(_)));
    assert_eq!(cpu.pending_event(), Some(Event::Exception { vector: 13, error_code: Some(0) }));
    cpu.run();
    assert_eq!(control(&cpu, 1).tlb_control, TLB_FLUSH_ALL);
    assert_eq!(control(&cpu, 1).event_injection, 0x8000_0b0d);
}

#[test]
fn an_interrupt_is_injected_once_and_only_when_it_can_be_taken() {
    let mut cpu = cpu(Script::default().then(exits(INTR)).then(takes(HLT)).then(exits(HLT)));
    assert_eq!(cpu.inject_interrupt(VECTOR), Err(NotNow), "IF is clear");
    enable_interrupts(&mut cpu);
    cpu.vmcb.control.interrupt_state = INTERRUPT_SHADOW;
    assert_eq!(cpu.inject_interrupt(VECTOR), Err(NotNow), "in the shadow");
    cpu.vmcb.control.interrupt_state = 0;
    assert_eq!(cpu.inject_interrupt(VECTOR), Ok(()));
    assert_eq!(cpu.inject_interrupt(Vector(0x42)), Err(NotNow), "one is pending");
    cpu.run();
    assert_eq!(cpu.pending_event(), Some(Event::Interrupt(VECTOR)), "not taken yet");
    cpu.run();
    cpu.run();
    let interrupts = [0, 1, 2].map(|entry| control(&cpu, entry).interrupt_control & !interrupt_control::MASKING);
    assert_eq!(interrupts, [0x41_001f_0100, 0x41_001f_0100, 0]);
    assert!((0..3).all(|entry| control(&cpu, entry).intercept_instructions & intercept::VINTR == 0));
    assert!((0..3).all(|entry| control(&cpu, entry).event_injection == 0));
}

#[test]
fn an_interrupt_whose_delivery_faults_is_delivered_again() {
    let mut cpu = cpu(Script::default()
        .then(|vmcb, _| {
            vmcb.control.exit_code = NPF;
            vmcb.control.exit_info_1 = 0x1_0000_0006;
            vmcb.control.interrupt_control &= !interrupt_control::IRQ;
            vmcb.control.exit_interrupt_info = 0x8000_0041;
        })
        .then(takes(INTR)));
    enable_interrupts(&mut cpu);
    cpu.inject_interrupt(VECTOR).unwrap();
    assert!(matches!(cpu.run(), Exit::NestedPageFault(fault) if fault.access == Access::Write));
    assert_eq!(cpu.pending_event(), Some(Event::Interrupt(VECTOR)));
    assert!(!cpu.can_take_interrupt());
    cpu.run();
    assert_eq!(control(&cpu, 1).interrupt_control & interrupt_control::VECTOR, 0x41 << 32);
    assert_eq!(cpu.pending_event(), None);
}

#[test]
fn an_offer_is_taken_by_the_processor_or_ends_with_the_run() {
    let mut cpu = cpu(Script::default().then(exits(INTR)).then(takes(HLT)).then(exits(HLT)));
    cpu.set_task_priority(3);
    for (taken, exit) in [(false, Exit::ExternalInterrupt), (true, Exit::Halt), (false, Exit::Halt)] {
        // The third run has none.
        assert!(taken || cpu.world.entries.len() == 2 || cpu.offer_interrupt(VECTOR));
        assert!(!taken || cpu.offer_interrupt(Vector(0x52)));
        assert_eq!((cpu.pending_event(), cpu.run()), (None, exit));
        assert_eq!((cpu.took_offer(), cpu.took_offer()), (taken, false));
    }
    let interrupts = [0, 1, 2].map(|entry| control(&cpu, entry).interrupt_control & !interrupt_control::MASKING);
    // The processor compares its class with CR8, which the guest may write before it comes to it.
    assert_eq!(interrupts, [0x41_0004_0103, 0x52_0005_0103, 3]);
    assert!(
        (0..3).all(|entry| control(&cpu, entry).intercept_instructions & (intercept::VINTR | intercept::IRET) == 0)
    );
}

#[test]
fn an_offer_whose_delivery_faults_was_taken_and_is_delivered_again() {
    // V_IRQ is clear then, or on QEMU's TCG still set.
    for left in [0, interrupt_control::IRQ] {
        let mut cpu = cpu(Script::default()
            .then(move |vmcb, _| {
                vmcb.control.exit_code = NPF;
                vmcb.control.exit_info_1 = 0x1_0000_0006;
                vmcb.control.interrupt_control &= !interrupt_control::IRQ | left;
                vmcb.control.exit_interrupt_info = 0x8000_0041;
            })
            .then(takes(INTR)));
        assert!(cpu.offer_interrupt(VECTOR));
        assert!(matches!(cpu.run(), Exit::NestedPageFault(_)));
        assert_eq!((cpu.took_offer(), cpu.pending_event()), (true, Some(Event::Interrupt(VECTOR))));
        cpu.run();
        assert_eq!(control(&cpu, 1).interrupt_control & interrupt_control::VECTOR, 0x41 << 32);
        assert_eq!((cpu.took_offer(), cpu.pending_event()), (false, None));
    }
}

#[test]
fn an_offer_in_the_shadow_waits_for_its_end_and_one_lasts_over_what_the_engine_does_by_itself() {
    let mut cpu = cpu(Script::default()
        .then(|vmcb, _| {
            vmcb.save.rip += 1;
            (vmcb.control.exit_code, vmcb.control.interrupt_state) = (VINTR, 0);
        })
        .then(takes(HLT)));
    enable_interrupts(&mut cpu);
    cpu.vmcb.control.interrupt_state = INTERRUPT_SHADOW;
    assert!(cpu.offer_interrupt(VECTOR));
    assert_eq!((cpu.run(), cpu.took_offer()), (Exit::Halt, true));
    assert_eq!(control(&cpu, 0).interrupt_control & interrupt_control::VECTOR, 0);
    assert_eq!(control(&cpu, 1).interrupt_control & interrupt_control::VECTOR, 0x41 << 32);
}

#[test]
fn an_offer_ends_with_a_start() {
    let mut cpu = cpu(Script::default().then(exits(HLT)));
    assert!(cpu.offer_interrupt(VECTOR));
    cpu.start(Start::StartupInterrupt { vector: 1 });
    cpu.run();
    assert_eq!((control(&cpu, 0).interrupt_control, cpu.took_offer()), (interrupt_control::MASKING, false));
}

#[test]
fn the_window_is_asked_for_until_it_opens() {
    let mut cpu = cpu(Script::default().then(exits(INTR)).then(exits(VINTR)).then(exits(HLT)));
    cpu.set_task_priority(5);
    cpu.request_interrupt_window(true);
    assert_eq!(cpu.run(), Exit::ExternalInterrupt);
    assert_eq!(cpu.run(), Exit::InterruptWindow);
    cpu.run();
    let wanted = |entry: usize| control(&cpu, entry).interrupt_control & interrupt_control::IRQ != 0;
    assert_eq!((wanted(0), wanted(1), wanted(2)), (true, true, false));
    assert_ne!(control(&cpu, 0).intercept_instructions & intercept::VINTR, 0, "or the guest would take vector 0");
    assert_eq!(control(&cpu, 0).interrupt_control & interrupt_control::IGNORE_TASK_PRIORITY, 1 << 20);
    assert_eq!(cpu.task_priority(), 5);
}

#[test]
fn an_interrupt_waits_for_the_handler_of_an_exception_and_is_not_lost() {
    let mut cpu = cpu(Script::default().then(exits(INTR)).then(takes(HLT)));
    enable_interrupts(&mut cpu);
    cpu.inject_interrupt(VECTOR).unwrap();
    cpu.inject_exception(13, Some(0));
    cpu.run();
    assert_eq!(control(&cpu, 0).event_injection, 0x8000_0b0d);
    assert_eq!(cpu.pending_event(), Some(Event::Interrupt(VECTOR)));
    cpu.run();
    assert_eq!((control(&cpu, 1).event_injection, cpu.pending_event()), (0, None));
}

#[test]
fn an_interrupt_in_the_shadow_is_delivered_after_it() {
    let mut cpu = cpu(Script::default()
        .then(|vmcb, _| {
            vmcb.save.rip += 1;
            (vmcb.control.exit_code, vmcb.control.interrupt_state) = (VINTR, 0);
        })
        .then(takes(HLT)));
    enable_interrupts(&mut cpu);
    cpu.inject_interrupt(VECTOR).unwrap();
    cpu.vmcb.control.interrupt_state = INTERRUPT_SHADOW;
    assert_eq!(cpu.run(), Exit::Halt);
    assert_eq!(control(&cpu, 0).interrupt_control & interrupt_control::VECTOR, 0);
    assert_eq!(control(&cpu, 1).interrupt_control & interrupt_control::VECTOR, 0x41 << 32);
}

#[test]
fn a_window_wanted_beside_an_interrupt_opens_after_the_handler() {
    // IRET of another handler, with the interrupt still waiting; then the interrupt; its IRET does not exit because
    // the entry was made for getting past the first one.
    let mut cpu = cpu(Script::default().then(exits(IRET)).then(takes(CPUID)).then(exits(VINTR)));
    enable_interrupts(&mut cpu);
    cpu.inject_interrupt(VECTOR).unwrap();
    cpu.request_interrupt_window(true);
    assert_eq!(cpu.run(), Exit::Cpuid);
    assert_eq!(cpu.run(), Exit::InterruptWindow);
    let iret = |entry: usize| control(&cpu, entry).intercept_instructions & intercept::IRET != 0;
    assert_eq!((iret(0), iret(1), iret(2)), (true, false, false));
}

#[test]
fn the_end_of_the_handler_opens_the_window() {
    let mut cpu = cpu(Script::default().then(takes(IRET)).then(exits(VINTR)));
    enable_interrupts(&mut cpu);
    cpu.inject_interrupt(VECTOR).unwrap();
    cpu.request_interrupt_window(true);
    assert_eq!(cpu.run(), Exit::InterruptWindow);
}

#[test]
fn a_window_within_the_shadow_is_replaced_by_a_single_step() {
    let mut cpu = cpu(Script::default().then(exits(VINTR)).then(|vmcb, _| {
        vmcb.save.rip += 1;
        vmcb.save.dr6 |= DR6_SINGLE_STEP;
        vmcb.control.exit_code = EXCEPTION + 1;
        vmcb.control.interrupt_state = 0;
    }));
    enable_interrupts(&mut cpu);
    cpu.vmcb.control.interrupt_state = INTERRUPT_SHADOW;
    let dr6 = cpu.vmcb.save.dr6;
    cpu.request_interrupt_window(true);
    assert_eq!(cpu.run(), Exit::InterruptWindow);
    assert_eq!(cpu.rip(), ENTRY + 1);
    let step = &cpu.world.entries[1];
    assert_eq!(step.save.rflags & RFLAGS_TRAP, RFLAGS_TRAP);
    assert_eq!(step.control.interrupt_control & interrupt_control::IRQ, 0);
    assert_eq!((cpu.vmcb.save.rflags & RFLAGS_TRAP, cpu.vmcb.save.dr6), (0, dr6));
    assert!(cpu.can_take_interrupt());
}

#[test]
fn a_halt_in_the_shadow_exits_before_any_interrupt_is_taken() {
    // The emulator drops the shadow at each exit.
    let drops = |code| {
        move |vmcb: &mut Vmcb, _: &mut Registers| {
            (vmcb.control.exit_code, vmcb.control.interrupt_state) = (code, 0);
        }
    };
    let mut cpu = cpu(Script::default().then(drops(INTR)).then(drops(VINTR)).then(drops(HLT)));
    enable_interrupts(&mut cpu);
    cpu.vmcb.control.interrupt_state = INTERRUPT_SHADOW;
    cpu.request_interrupt_window(true);
    let first = cpu.run();
    assert_eq!(first, Exit::ExternalInterrupt);
    assert!(!cpu.can_take_interrupt(), "the shadow still covers the HLT");
    assert_eq!(cpu.run(), Exit::Halt);
    assert_eq!(cpu.vmcb.save.rflags & RFLAGS_TRAP, 0);
    cpu.advance(1);
    assert!(cpu.can_take_interrupt());
}

#[test]
fn a_guests_own_single_step_stays_its_own() {
    let mut cpu = cpu(Script::default().then(exits(VINTR)).then(|vmcb, _| {
        vmcb.save.dr6 |= DR6_SINGLE_STEP;
        vmcb.control.exit_code = EXCEPTION + 1;
    }));
    enable_interrupts(&mut cpu);
    cpu.vmcb.save.rflags |= RFLAGS_TRAP;
    cpu.vmcb.control.interrupt_state = INTERRUPT_SHADOW;
    cpu.request_interrupt_window(true);
    assert_eq!(cpu.run(), Exit::Exception { vector: 1, error_code: None });
    assert_eq!(cpu.vmcb.save.rflags & RFLAGS_TRAP, RFLAGS_TRAP);
    assert_ne!(cpu.vmcb.save.dr6 & DR6_SINGLE_STEP, 0);
}

#[test]
fn completing_an_instruction_ends_the_shadow_and_traps_a_guest_that_steps() {
    let mut cpu = cpu(Script::default());
    cpu.vmcb.control.interrupt_state = INTERRUPT_SHADOW;
    cpu.vmcb.save.rflags |= RFLAGS_RESUME;
    cpu.set_rip(0xffff_ffff);
    cpu.advance(2);
    assert_eq!((cpu.rip(), cpu.vmcb.control.interrupt_state, cpu.vmcb.save.rflags & RFLAGS_RESUME), (1, 0, 0));
    assert_eq!(cpu.pending_event(), None);
    cpu.vmcb.save.rflags |= RFLAGS_TRAP;
    cpu.advance(1);
    assert_eq!(cpu.pending_event(), Some(Event::Exception { vector: 1, error_code: None }));
}

#[test]
fn the_handler_of_a_fault_finds_the_resume_flag() {
    for (vector, error_code, flag) in
        [(13, Some(0), RFLAGS_RESUME), (6, None, RFLAGS_RESUME), (1, None, 0), (3, None, 0), (8, Some(0), 0)]
    {
        let mut cpu = cpu(Script::default());
        cpu.inject_exception(vector, error_code);
        assert_eq!(cpu.vmcb.save.rflags & RFLAGS_RESUME, flag, "{vector}");
    }
}

#[test]
fn on_the_emulator_cr8_is_not_written_while_an_interrupt_is_pending() {
    let written = |vmcb: &mut Vmcb, _: &mut Registers| {
        assert_eq!((vmcb.control.intercept_cr_write, vmcb.control.interrupt_control & interrupt_control::IRQ), (0, 0));
        vmcb.save.dr6 |= DR6_SINGLE_STEP;
        vmcb.control.exit_code = EXCEPTION + 1;
    };
    for (is_tcg, wanted, exits_at_write) in [(true, true, true), (true, false, false), (false, true, false)] {
        let script = Script::default().then(exits(CR8_WRITE)).then(written).then(exits(HLT));
        let mut cpu = cpu_with(Capabilities { is_tcg, ..EMULATOR }, script);
        cpu.request_interrupt_window(wanted);
        cpu.run();
        assert_eq!(cpu.world.entries[0].control.intercept_cr_write, if exits_at_write { CR8 } else { 0 });
    }
}

#[test]
fn on_the_emulator_the_rule_that_a_refused_entry_broke_is_the_one_from_before() {
    // The hypervisor's state is in the control block then.
    let refuses = |vmcb: &mut Vmcb, _: &mut Registers| {
        vmcb.save.cr0 = 0x8001_0033;
        vmcb.control.exit_code = INVALID;
    };
    let mut cpu = cpu_with(Capabilities { is_tcg: true, ..EMULATOR }, Script::default().then(refuses));
    cpu.vmcb.save.cr0 |= 1 << 29;
    let Exit::EntryFailed(failure) = cpu.run() else { panic!("not an entry failure") };
    assert_eq!(failure.reasons[..2], [Some("CR0.NW is set and CR0.CD is clear"), None]);
}

const NMI_INJECTED: u64 = 0x8000_0202;

/// What each entry delivered, and whether IRET exited.
fn nmis(cpu: &SvmVirtualCpu<Script>) -> Vec<(u64, bool)> {
    let entries = cpu.world.entries.iter().map(|entry| &entry.control);
    let iret =
        |control: &crate::vcpu::svm::spec::vmcb::ControlArea| control.intercept_instructions & intercept::IRET != 0;
    entries.map(|control| (control.event_injection, iret(control))).collect()
}

#[test]
fn an_nmi_is_delivered_once_and_blocks_others_until_iret() {
    let mut cpu = cpu(Script::default().then(exits(HLT)).then(exits(IRET)).then(exits(HLT)).then(exits(HLT)));
    cpu.inject_nmi();
    cpu.inject_nmi();
    for _ in 0..3 {
        assert_eq!(cpu.run(), Exit::Halt);
    }
    assert_eq!(nmis(&cpu), [(NMI_INJECTED, true), (0, true), (0, false), (0, false)]);
}

#[test]
fn an_nmi_that_waits_comes_right_behind_the_iret() {
    let steps = |vmcb: &mut Vmcb, _: &mut Registers| {
        assert_eq!(vmcb.save.rflags & RFLAGS_TRAP, RFLAGS_TRAP);
        // IRET loads the flags of the interrupted program, which steps itself.
        vmcb.save.rip = 0x5000;
        vmcb.save.dr6 |= DR6_SINGLE_STEP;
        vmcb.control.exit_code = EXCEPTION + 1;
    };
    let mut cpu = cpu(Script::default().then(exits(HLT)).then(exits(IRET)).then(steps).then(exits(HLT)));
    cpu.inject_nmi();
    assert_eq!(cpu.run(), Exit::Halt);
    cpu.inject_nmi();
    let dr6 = cpu.vmcb.save.dr6;
    assert_eq!(cpu.run(), Exit::Halt);
    assert_eq!((cpu.rip(), cpu.vmcb.save.dr6, cpu.vmcb.save.rflags & RFLAGS_TRAP), (0x5000, dr6, RFLAGS_TRAP));
    assert_eq!(nmis(&cpu), [(NMI_INJECTED, true), (0, true), (0, false), (NMI_INJECTED, true)]);
    assert_eq!(cpu.vmcb.control.intercept_exceptions, initial::INTERCEPTED_EXCEPTIONS);
}

#[test]
fn a_fault_of_the_iret_is_the_guests_and_does_not_show_the_step() {
    let faults = |vmcb: &mut Vmcb, _: &mut Registers| {
        assert_ne!(vmcb.control.intercept_exceptions & 1 << 14, 0);
        (vmcb.control.exit_code, vmcb.control.exit_info_1, vmcb.control.exit_info_2) = (EXCEPTION + 14, 5, 0x7777);
    };
    let handler = |vmcb: &mut Vmcb, _: &mut Registers| {
        assert_eq!((vmcb.save.cr2, vmcb.save.rflags & RFLAGS_TRAP), (0x7777, 0));
        vmcb.control.exit_code = IRET;
    };
    let script = Script::default().then(exits(HLT)).then(exits(IRET)).then(faults).then(handler).then(exits(HLT));
    let mut cpu = cpu(script);
    cpu.inject_nmi();
    cpu.run();
    cpu.inject_nmi();
    assert_eq!(cpu.run(), Exit::Halt);
    // The IRET has ended the blocking although it has faulted.
    assert_eq!(nmis(&cpu)[3..], [(0x5_8000_0b0e, true), (NMI_INJECTED, true)]);
}

#[test]
fn an_nmi_whose_delivery_is_interrupted_is_delivered_again() {
    let interrupted = |vmcb: &mut Vmcb, _: &mut Registers| {
        (vmcb.control.exit_code, vmcb.control.exit_interrupt_info) = (NPF, NMI_INJECTED);
    };
    let mut cpu = cpu(Script::default().then(interrupted).then(exits(HLT)));
    cpu.inject_nmi();
    assert!(matches!(cpu.run(), Exit::NestedPageFault(_)));
    assert_eq!(cpu.run(), Exit::Halt);
    assert_eq!(nmis(&cpu), [(NMI_INJECTED, true), (NMI_INJECTED, true)]);
}

#[test]
fn an_nmi_comes_after_an_exception() {
    let mut cpu = cpu(Script::default().then(exits(INTR)).then(exits(HLT)));
    cpu.inject_exception(6, None);
    cpu.inject_nmi();
    assert_eq!(cpu.run(), Exit::ExternalInterrupt);
    assert_eq!(cpu.run(), Exit::Halt);
    assert_eq!(nmis(&cpu), [(0x8000_0306, true), (NMI_INJECTED, true)]);
}

#[test]
fn an_instruction_ends_where_its_bytes_do() {
    let mut cpu = cpu(Script::default().then(exits(CPUID)));
    cpu.run();
    cpu.finish_instruction(Instruction::Cpuid, &mut |address, bytes| {
        assert_eq!(address, ENTRY);
        bytes[..3].copy_from_slice(&[0xf3, 0x0f, 0xa2]);
        3
    });
    assert_eq!(cpu.rip(), ENTRY + 3);
    cpu.finish_instruction(Instruction::Cpuid, &mut |_, _| 0);
    assert_eq!(cpu.rip(), ENTRY + 5, "without bytes it is as long as its opcode");
}

#[test]
fn a_port_access_ends_where_the_processor_says() {
    let mut cpu = cpu(Script::default().then(|vmcb, _| {
        (vmcb.control.exit_code, vmcb.control.exit_info_2) = (IOIO, ENTRY + 2);
    }));
    cpu.run();
    assert_eq!(cpu.next_rip(), Some(ENTRY + 2));
}

#[test]
fn faults_add_up_to_a_shutdown_that_lasts() {
    let mut cpu = cpu(Script::default().then(exits(SHUTDOWN)));
    cpu.inject_exception(13, Some(0));
    cpu.inject_page_fault(0x1234, 2);
    assert_eq!(
        (cpu.control().cr2, cpu.pending_event()),
        (0x1234, Some(Event::Exception { vector: 14, error_code: Some(2) }))
    );
    cpu.inject_exception(13, Some(0));
    assert_eq!(cpu.pending_event(), Some(Event::Exception { vector: 8, error_code: Some(0) }));
    cpu.inject_exception(13, Some(0));
    assert_eq!((cpu.run(), cpu.world.entries.len()), (Exit::Shutdown, 0));
    cpu.start(crate::vcpu::Start::StartupInterrupt { vector: 1 });
    assert_eq!((cpu.run(), cpu.run(), cpu.world.entries.len()), (Exit::Shutdown, Exit::Shutdown, 1));
}

#[test]
fn the_guest_never_sees_nor_clears_the_extensions_bit_in_efer() {
    let mut cpu = cpu(Script::default());
    assert_eq!(cpu.write_efer(0x900), Ok(()));
    assert_eq!((cpu.control().efer, cpu.vmcb.save.efer & EFER_SVME), (0x900, EFER_SVME));
    assert_eq!(cpu.write_efer(EFER_SVME), Err(GeneralProtection));
    cpu.vmcb.save.cr0 |= 1 << 31;
    cpu.vmcb.save.efer |= 1 << 10;
    assert_eq!(cpu.write_efer(0x800), Err(GeneralProtection), "LME while paging");
    assert_eq!(cpu.write_efer(0x901), Ok(()));
    assert_eq!(cpu.control().efer, 0xd01, "LMA is the processor's");
}

#[test]
fn undefined_memory_types_are_refused() {
    let mut cpu = cpu(Script::default());
    assert_eq!(cpu.page_attribute_table(), 0x0007_0406_0007_0406);
    assert_eq!(cpu.set_page_attribute_table(2), Err(GeneralProtection));
    assert_eq!(cpu.set_page_attribute_table(0x0100), Ok(()));
    assert_eq!(cpu.page_attribute_table(), 0x0100);
}

#[test]
fn the_mode_follows_the_control_registers_and_the_code_segment() {
    let mut cpu = cpu(Script::default());
    assert_eq!((cpu.mode(), cpu.linear_rip()), (Mode::Protected32, ENTRY));
    cpu.vmcb.save.cs.attributes.0 &= !(1 << 10);
    assert_eq!(cpu.mode(), Mode::Protected16);
    cpu.vmcb.save.efer |= 1 << 10;
    cpu.vmcb.save.cs.attributes.0 |= 1 << 9;
    cpu.vmcb.save.rip = 0xffff_8000_0000_0000;
    assert_eq!((cpu.mode(), cpu.linear_rip()), (Mode::Long, 0xffff_8000_0000_0000));
    cpu.start(crate::vcpu::Start::StartupInterrupt { vector: 0x9a });
    assert_eq!((cpu.mode(), cpu.linear_rip()), (Mode::Real, 0x9a000));
    assert_eq!(cpu.segment(SegmentName::Cs).selector, 0x9a00);
    assert_eq!(cpu.control(), ControlState { cr0: 0x6000_0010, rflags: 2, ..Default::default() });
}

#[test]
fn a_passed_port_is_open_in_the_map() {
    let mut cpu = cpu(Script::default());
    cpu.set_port_passed(0x80, true);
    assert!(cpu.io_map.is_passed(0x80) && !cpu.io_map.is_passed(0x81));
}

#[test]
fn tcgs_failed_entry_for_a_refused_write_is_a_general_protection_fault() {
    let tcg = Capabilities { is_tcg: true, ..EMULATOR };
    let script = || {
        Script::default()
            .then(|vmcb, _| vmcb.control.exit_code = u64::MAX)
            .then(|vmcb, _| vmcb.control.exit_code = exit_code::CPUID)
    };
    let mut cpu = cpu_with(tcg, script());
    assert_eq!(cpu.run(), Exit::Cpuid);
    // Vector 13, an exception with an error code, which is 0.
    assert_eq!(cpu.world.entries[1].control.event_injection, 0x8000_0b0d);
    // On every other processor it is a failed entry.
    let mut cpu = cpu_with(EMULATOR, script());
    assert!(matches!(cpu.run(), Exit::EntryFailed(_)));
}

#[test]
fn a_wanted_exit_for_the_priority_comes_after_the_write() {
    let script = Script::default()
        .then(|vmcb, _| vmcb.control.exit_code = exit_code::CR8_WRITE)
        .then(|vmcb, _| {
            // The step over the write: a debug exception for the single step.
            vmcb.control.interrupt_control |= 3;
            vmcb.control.exit_code = exit_code::EXCEPTION + 1;
            vmcb.save.dr6 |= 1 << 14;
        })
        .then(|vmcb, _| vmcb.control.exit_code = exit_code::CPUID);
    let mut cpu = cpu(script);
    cpu.request_priority_exit(true);
    assert_eq!(cpu.run(), Exit::InterruptWindow);
    assert_eq!((cpu.task_priority(), cpu.control().rflags & 1 << 8), (3, 0));
    assert_eq!(cpu.run(), Exit::Cpuid);
    let asked: Vec<u16> = cpu.world.entries.iter().map(|entry| entry.control.intercept_cr_write >> 8 & 1).collect();
    assert_eq!(asked, [1, 0, 0]);
}
