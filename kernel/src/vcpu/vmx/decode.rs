//! From a control structure after an exit to the typed exit.

use crate::vcpu::event::MACHINE_CHECK;
use crate::vcpu::vmx::processor::Processor;
use crate::vcpu::vmx::spec::exit_reason::*;
use crate::vcpu::vmx::spec::{field, interruption, qualification as q};
use crate::vcpu::{Access, Direction, Exit, IoAccess, IoWidth, NestedPageFault, Registers};
use addr::{GuestPhys, Vector};

/// Why the guest stopped. `registers` are the guest's at the exit. Entry failures are not decoded here.
pub fn decode(vmcs: &impl Processor, reason: ExitReason, registers: &Registers) -> Exit {
    match reason.basic() {
        EXCEPTION_OR_NMI => event(vmcs),
        EXTERNAL_INTERRUPT | PREEMPTION_TIMER_EXPIRED => Exit::ExternalInterrupt,
        TRIPLE_FAULT => Exit::Shutdown,
        INIT => Exit::Init,
        IO_SMI | OTHER_SMI => Exit::SystemManagementInterrupt,
        INTERRUPT_WINDOW | NMI_WINDOW | TPR_BELOW_THRESHOLD => Exit::InterruptWindow,
        TASK_SWITCH => Exit::TaskSwitch,
        VIRTUALIZED_EOI => Exit::VirtualizedEoi { vector: Vector(vmcs.get(field::EXIT_QUALIFICATION) as u8) },
        APIC_WRITE => Exit::ApicWrite { offset: vmcs.get(field::EXIT_QUALIFICATION) as u16 & 0xfff },
        CPUID => Exit::Cpuid,
        HLT => Exit::Halt,
        INVD => Exit::InvalidateCaches,
        RDPMC => Exit::ReadPerformanceCounter,
        VMCALL => Exit::Hypercall,
        IO => Exit::Io(io_access(vmcs.get(field::EXIT_QUALIFICATION))),
        RDMSR => Exit::ReadMsr { index: registers.rcx as u32 },
        WRMSR => Exit::WriteMsr { index: registers.rcx as u32, value: registers.edx_eax() },
        XSETBV => Exit::SetExtendedControl { index: registers.rcx as u32, value: registers.edx_eax() },
        EPT_VIOLATION => Exit::NestedPageFault(ept_violation(vmcs)),
        EPT_MISCONFIGURATION => Exit::NestedPageFault(NestedPageFault {
            // The processor does not say what was tried.
            access: Access::Read,
            present: true,
            table_walk: false,
            malformed: true,
            ..ept_violation(vmcs)
        }),
        VMCLEAR..=VMXON
        | GETSEC
        | RSM
        | MWAIT
        | MONITOR
        | INVEPT
        | INVVPID
        | INVPCID
        | VMFUNC
        | ENCLS
        | XSAVES
        | XRSTORS
        | PCONFIG
        | UMWAIT
        | TPAUSE
        | LOADIWKEY
        | ENCLV => Exit::UndefinedInstruction { code: reason.0.into() },
        _ => unknown(vmcs, reason),
    }
}

/// An exit that the engine has no answer to.
pub fn unknown(vmcs: &impl Processor, reason: ExitReason) -> Exit {
    let information = [vmcs.get(field::EXIT_QUALIFICATION), vmcs.get(field::EXIT_INTERRUPTION_INFORMATION).into()];
    Exit::Unknown { code: reason.0.into(), information }
}

/// Whether RIP is at an instruction that exited and whose length the processor gives (SDM vol. 3, 28.2.5).
pub const fn has_instruction_length(reason: ExitReason) -> bool {
    matches!(
        reason.basic(),
        CPUID..=HLT | INVD..=CONTROL_REGISTER | IO..=WRMSR | MWAIT | MONITOR | INVEPT | INVVPID..=XSETBV | INVPCID..=TPAUSE
    )
}

fn event(vmcs: &impl Processor) -> Exit {
    let information = vmcs.get(field::EXIT_INTERRUPTION_INFORMATION);
    if information >> interruption::TYPE_SHIFT & interruption::TYPE == interruption::TYPE_NMI {
        return Exit::Nmi;
    }
    match (information & interruption::VECTOR) as u8 {
        MACHINE_CHECK => Exit::MachineCheck,
        vector => {
            let has_error_code = information & interruption::ERROR_CODE_VALID != 0;
            let error_code = has_error_code.then(|| vmcs.get(field::EXIT_INTERRUPTION_ERROR_CODE));
            Exit::Exception { vector, error_code }
        }
    }
}

const fn io_access(qualification: u64) -> IoAccess {
    IoAccess {
        port: (qualification >> q::IO_PORT_SHIFT) as u16,
        direction: if qualification & q::IO_IN != 0 { Direction::In } else { Direction::Out },
        width: match qualification & q::IO_SIZE {
            0 => IoWidth::Byte,
            1 => IoWidth::Word,
            _ => IoWidth::Dword,
        },
        string: qualification & q::IO_STRING != 0,
        repeat: qualification & q::IO_REPEAT != 0,
    }
}

fn ept_violation(vmcs: &impl Processor) -> NestedPageFault {
    let qualification = vmcs.get(field::EXIT_QUALIFICATION);
    let translated = q::EPT_LINEAR_VALID | q::EPT_TRANSLATED;
    NestedPageFault {
        address: GuestPhys::new(vmcs.get(field::GUEST_PHYSICAL_ADDRESS)),
        access: if qualification & q::EPT_FETCH != 0 {
            Access::Execute
        } else if qualification & q::EPT_WRITE != 0 {
            Access::Write
        } else {
            Access::Read
        },
        present: qualification & q::EPT_PERMITTED != 0,
        table_walk: qualification & translated != translated,
        during_delivery: vmcs.get(field::IDT_VECTORING_INFORMATION) & interruption::VALID != 0,
        malformed: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcpu::vmx::fake::Script;
    use crate::vcpu::vmx::spec::field::*;

    fn exit_with(reason: u16, fields: &[(u32, u64)]) -> Exit {
        let mut vmcs = Script::default();
        for (encoding, value) in fields {
            vmcs.write(*encoding, *value);
        }
        let registers =
            Registers { rax: 0xffff_ffff_0000_0003, rcx: 0xffff_ffff_c000_0080, rdx: 5, ..Default::default() };
        decode(&vmcs, ExitReason(reason.into()), &registers)
    }

    #[test]
    fn each_reason_has_its_exit() {
        let table = [
            (1, Exit::ExternalInterrupt),
            (2, Exit::Shutdown),
            (3, Exit::Init),
            (6, Exit::SystemManagementInterrupt),
            (7, Exit::InterruptWindow),
            (8, Exit::InterruptWindow),
            (43, Exit::InterruptWindow),
            (9, Exit::TaskSwitch),
            (10, Exit::Cpuid),
            (12, Exit::Halt),
            (13, Exit::InvalidateCaches),
            (15, Exit::ReadPerformanceCounter),
            (18, Exit::Hypercall),
            (31, Exit::ReadMsr { index: 0xc000_0080 }),
            (32, Exit::WriteMsr { index: 0xc000_0080, value: 0x5_0000_0003 }),
            (52, Exit::ExternalInterrupt),
            (55, Exit::SetExtendedControl { index: 0xc000_0080, value: 0x5_0000_0003 }),
        ];
        for (reason, expected) in table {
            assert_eq!(exit_with(reason, &[]), expected, "{reason}");
        }
    }

    #[test]
    fn what_the_processor_did_to_the_local_apic_is_in_the_qualification() {
        let qualification = [(EXIT_QUALIFICATION.encoding(), 0x1a0)];
        assert_eq!(exit_with(45, &qualification), Exit::VirtualizedEoi { vector: Vector(0xa0) });
        assert_eq!(exit_with(56, &qualification), Exit::ApicWrite { offset: 0x1a0 });
    }

    #[test]
    fn instructions_that_the_guest_does_not_have_are_undefined() {
        for reason in
            [11, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 36, 39, 50, 53, 58, 59, 60, 63, 64, 65, 67, 68, 69, 70]
        {
            assert_eq!(exit_with(reason, &[]), Exit::UndefinedInstruction { code: reason.into() });
        }
    }

    #[test]
    fn an_unknown_reason_is_told_with_what_the_processor_said() {
        let fields = [(EXIT_QUALIFICATION.encoding(), 7), (EXIT_INTERRUPTION_INFORMATION.encoding(), 8)];
        for reason in [4, 14, 16, 28, 29, 40, 44, 46, 54, 61, 77, 0xffff] {
            let expected = Exit::Unknown { code: reason.into(), information: [7, 8] };
            assert_eq!(exit_with(reason, &fields), expected);
        }
    }

    #[test]
    fn an_exception_an_nmi_and_a_machine_check_are_told_apart() {
        let information = |value| [(EXIT_INTERRUPTION_INFORMATION.encoding(), value)];
        assert_eq!(exit_with(0, &information(0x8000_0202)), Exit::Nmi);
        assert_eq!(exit_with(0, &information(0x8000_0312)), Exit::MachineCheck);
        assert_eq!(exit_with(0, &information(0x8000_0301)), Exit::Exception { vector: 1, error_code: None });
        let alignment =
            [(EXIT_INTERRUPTION_INFORMATION.encoding(), 0x8000_0b11), (EXIT_INTERRUPTION_ERROR_CODE.encoding(), 9)];
        assert_eq!(exit_with(0, &alignment), Exit::Exception { vector: 17, error_code: Some(9) });
    }

    #[test]
    fn a_port_access_is_read_from_its_qualification() {
        let access = |qualification| match exit_with(30, &[(EXIT_QUALIFICATION.encoding(), qualification)]) {
            Exit::Io(access) => access,
            other => panic!("{other:?}"),
        };
        let out =
            IoAccess { port: 0x3f8, direction: Direction::Out, width: IoWidth::Byte, string: false, repeat: false };
        assert_eq!(access(0x03f8_0000), out);
        assert_eq!(access(0x03f8_0009), IoAccess { direction: Direction::In, width: IoWidth::Word, ..out });
        let expected = IoAccess { port: 0xcfc, width: IoWidth::Dword, string: true, repeat: true, ..out };
        assert_eq!(access(0x0cfc_0033), expected);
    }

    #[test]
    fn a_violation_says_what_was_tried_and_what_is_there() {
        let fault = |qualification| {
            let fields =
                [(GUEST_PHYSICAL_ADDRESS.encoding(), 0xfee0_0080), (EXIT_QUALIFICATION.encoding(), qualification)];
            match exit_with(48, &fields) {
                Exit::NestedPageFault(fault) => fault,
                other => panic!("{other:?}"),
            }
        };
        let read = NestedPageFault {
            address: GuestPhys::new(0xfee0_0080),
            access: Access::Read,
            present: false,
            table_walk: false,
            during_delivery: false,
            malformed: false,
        };
        assert_eq!(fault(0x181), read);
        assert_eq!(fault(0x18a), NestedPageFault { access: Access::Write, present: true, ..read });
        // A read-modify-write is reported as both; readable and executable memory that was written.
        assert_eq!(fault(0x1ab), NestedPageFault { access: Access::Write, present: true, ..read });
        assert_eq!(fault(0x1aa), NestedPageFault { access: Access::Write, present: true, ..read });
        assert_eq!(fault(0x0aa), NestedPageFault { access: Access::Write, present: true, table_walk: true, ..read });
        assert_eq!(fault(0x184), NestedPageFault { access: Access::Execute, ..read });
        assert_eq!(fault(0x081), NestedPageFault { table_walk: true, ..read });
        assert_eq!(fault(0x001), NestedPageFault { table_walk: true, ..read }, "loading page-directory pointers");
        let delivering = [(IDT_VECTORING_INFORMATION.encoding(), 0x8000_0041), (EXIT_QUALIFICATION.encoding(), 0x182)];
        assert!(matches!(exit_with(48, &delivering), Exit::NestedPageFault(fault) if fault.during_delivery));
        assert!(matches!(exit_with(49, &[]), Exit::NestedPageFault(NestedPageFault { malformed: true, .. })));
    }
}
