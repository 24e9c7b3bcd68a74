//! From a control block after an exit to the typed exit.

use crate::vcpu::event::{MACHINE_CHECK, has_error_code};
use crate::vcpu::svm::consistency::consistency_errors;
use crate::vcpu::svm::spec::event;
use crate::vcpu::svm::spec::exit_code::*;
use crate::vcpu::svm::spec::vmcb::{ControlArea, Vmcb};
use crate::vcpu::{Access, Direction, EntryFailure, Exit, IoAccess, IoWidth, NestedPageFault, Registers};
use addr::GuestPhys;

/// Why the guest stopped. `registers` are the guest's at the exit, RAX included.
pub fn decode(vmcb: &Vmcb, registers: &Registers, physical_address_bits: u32) -> Exit {
    let control = &vmcb.control;
    if is_entry_failure(control) {
        let reasons = consistency_errors(vmcb, physical_address_bits);
        return Exit::EntryFailed(EntryFailure::new(control.exit_code, reasons));
    }
    let code = control.exit_code;
    match code {
        EXCEPTION..=EXCEPTION_LAST => match (code - EXCEPTION) as u8 {
            MACHINE_CHECK => Exit::MachineCheck,
            vector => {
                let error_code = has_error_code(vector).then_some(control.exit_info_1 as u32);
                Exit::Exception { vector, error_code }
            }
        },
        INTR => Exit::ExternalInterrupt,
        NMI => Exit::Nmi,
        SMI => Exit::SystemManagementInterrupt,
        INIT => Exit::Init,
        VINTR => Exit::InterruptWindow,
        RDPMC => Exit::ReadPerformanceCounter,
        CPUID => Exit::Cpuid,
        INVD => Exit::InvalidateCaches,
        HLT => Exit::Halt,
        IOIO => Exit::Io(io_access(control.exit_info_1)),
        MSR => {
            let index = registers.rcx as u32;
            match control.exit_info_1 & 1 {
                0 => Exit::ReadMsr { index },
                _ => Exit::WriteMsr { index, value: registers.edx_eax() },
            }
        }
        TASK_SWITCH => Exit::TaskSwitch,
        FERR_FREEZE => Exit::FloatingPointFreeze,
        SHUTDOWN => Exit::Shutdown,
        VMMCALL => Exit::Hypercall,
        XSETBV => Exit::SetExtendedControl { index: registers.rcx as u32, value: registers.edx_eax() },
        INVLPGA | VMRUN | VMLOAD | VMSAVE | STGI | CLGI | SKINIT | MONITOR | MWAIT | MWAIT_CONDITIONAL | RDPRU => {
            Exit::UndefinedInstruction { code }
        }
        NPF => Exit::NestedPageFault(nested_page_fault(control)),
        _ => Exit::Unknown { code, information: [control.exit_info_1, control.exit_info_2] },
    }
}

/// Whether the processor refused the entry. The code is -1 in 64 bits; QEMU's TCG stores it in 32.
pub fn is_entry_failure(control: &ControlArea) -> bool {
    control.exit_code & 0xffff_ffff == INVALID
}

/// The RIP after the instruction that exited, where the processor says so.
pub fn next_rip(control: &ControlArea, next_rip_saved: bool) -> Option<u64> {
    match control.exit_code {
        IOIO => Some(control.exit_info_2),
        // Zero for exits that are not an instruction's (APM vol. 2, 15.7.1).
        _ if next_rip_saved && control.next_rip != 0 => Some(control.next_rip),
        _ => None,
    }
}

fn io_access(information: u64) -> IoAccess {
    IoAccess {
        port: (information >> IOIO_PORT_SHIFT) as u16,
        direction: if information & IOIO_IN != 0 { Direction::In } else { Direction::Out },
        width: if information & IOIO_SIZE_8 != 0 {
            IoWidth::Byte
        } else if information & IOIO_SIZE_16 != 0 {
            IoWidth::Word
        } else {
            IoWidth::Dword
        },
        string: information & IOIO_STRING != 0,
        repeat: information & IOIO_REPEAT != 0,
    }
}

fn nested_page_fault(control: &ControlArea) -> NestedPageFault {
    let error = control.exit_info_1;
    NestedPageFault {
        address: GuestPhys::new(control.exit_info_2),
        access: if error & NPF_WRITE != 0 {
            Access::Write
        } else if error & NPF_FETCH != 0 {
            Access::Execute
        } else {
            Access::Read
        },
        present: error & NPF_PRESENT != 0,
        table_walk: error & NPF_TABLE_WALK != 0,
        during_delivery: control.exit_interrupt_info & event::VALID != 0,
        malformed: error & NPF_RESERVED != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcpu::svm::fake::runnable_vmcb;

    fn exit(code: u64, info_1: u64, info_2: u64) -> Exit {
        let mut vmcb = runnable_vmcb();
        vmcb.control.exit_code = code;
        vmcb.control.exit_info_1 = info_1;
        vmcb.control.exit_info_2 = info_2;
        let registers =
            Registers { rax: 0xffff_ffff_0000_0003, rcx: 0xffff_ffff_c000_0080, rdx: 5, ..Default::default() };
        decode(&vmcb, &registers, 40)
    }

    #[test]
    fn each_code_has_its_exit() {
        let table = [
            (0x41, Exit::Exception { vector: 1, error_code: None }),
            (0x51, Exit::Exception { vector: 17, error_code: Some(0) }),
            (0x52, Exit::MachineCheck),
            (0x60, Exit::ExternalInterrupt),
            (0x61, Exit::Nmi),
            (0x62, Exit::SystemManagementInterrupt),
            (0x63, Exit::Init),
            (0x64, Exit::InterruptWindow),
            (0x6f, Exit::ReadPerformanceCounter),
            (0x72, Exit::Cpuid),
            (0x76, Exit::InvalidateCaches),
            (0x78, Exit::Halt),
            (0x7d, Exit::TaskSwitch),
            (0x7e, Exit::FloatingPointFreeze),
            (0x7f, Exit::Shutdown),
            (0x81, Exit::Hypercall),
            (0x8d, Exit::SetExtendedControl { index: 0xc000_0080, value: 0x5_0000_0003 }),
        ];
        for (code, expected) in table {
            assert_eq!(exit(code, 0, 0), expected, "{code:#x}");
        }
        for code in [0x7a, 0x80, 0x82, 0x83, 0x84, 0x85, 0x86, 0x8a, 0x8b, 0x8c, 0x8e] {
            assert_eq!(exit(code, 0, 0), Exit::UndefinedInstruction { code });
        }
    }

    #[test]
    fn an_unknown_code_is_handed_on_with_what_came_with_it() {
        assert_eq!(exit(0x4ff, 1, 2), Exit::Unknown { code: 0x4ff, information: [1, 2] });
        assert_eq!(exit(0x10, 3, 0), Exit::Unknown { code: 0x10, information: [3, 0] });
    }

    #[test]
    fn msr_accesses_carry_index_and_value() {
        assert_eq!(exit(0x7c, 0, 0), Exit::ReadMsr { index: 0xc000_0080 });
        assert_eq!(exit(0x7c, 1, 0), Exit::WriteMsr { index: 0xc000_0080, value: 0x5_0000_0003 });
    }

    #[test]
    fn port_accesses_carry_port_width_and_direction() {
        let out =
            IoAccess { port: 0x3f8, direction: Direction::Out, width: IoWidth::Byte, string: false, repeat: false };
        assert_eq!(exit(0x7b, 0x03f8_0110, 0), Exit::Io(out));
        assert_eq!(
            exit(0x7b, 0x0cfc_0141, 0),
            Exit::Io(IoAccess { port: 0xcfc, direction: Direction::In, width: IoWidth::Dword, ..out })
        );
        let string = IoAccess { port: 0x604, width: IoWidth::Word, string: true, repeat: true, ..out };
        assert_eq!(exit(0x7b, 0x0604_012c, 0), Exit::Io(string));
    }

    #[test]
    fn nested_page_faults_carry_address_and_access() {
        let fault = NestedPageFault {
            address: GuestPhys::new(0xfee0_0020),
            access: Access::Read,
            present: false,
            table_walk: false,
            during_delivery: false,
            malformed: false,
        };
        assert_eq!(exit(0x400, 0x1_0000_0004, 0xfee0_0020), Exit::NestedPageFault(fault));
        assert_eq!(
            exit(0x400, 0x1_0000_0007, 0xfee0_0020),
            Exit::NestedPageFault(NestedPageFault { access: Access::Write, present: true, ..fault })
        );
        assert_eq!(
            exit(0x400, 0x2_0000_0007, 0xfee0_0020),
            Exit::NestedPageFault(NestedPageFault { access: Access::Write, present: true, table_walk: true, ..fault }),
            "a guest's page tables in read-only memory"
        );
        assert_eq!(
            exit(0x400, 0x1_0000_0014, 0xfee0_0020),
            Exit::NestedPageFault(NestedPageFault { access: Access::Execute, ..fault })
        );
        assert_eq!(
            exit(0x400, 0x2_0000_000e, 0xfee0_0020),
            Exit::NestedPageFault(NestedPageFault {
                access: Access::Write,
                table_walk: true,
                malformed: true,
                ..fault
            })
        );
    }

    #[test]
    fn a_refused_entry_is_recognised_in_both_widths() {
        for code in [u64::MAX, 0xffff_ffff] {
            assert!(matches!(exit(code, 0, 0), Exit::EntryFailed(failure) if failure.code == code));
        }
    }

    #[test]
    fn the_next_instruction_is_known_for_ports_always_and_else_with_nrips_only() {
        let mut control = runnable_vmcb().control;
        (control.exit_code, control.exit_info_2, control.next_rip) = (IOIO, 0x1002, 0x2002);
        assert_eq!(next_rip(&control, false), Some(0x1002));
        control.exit_code = CPUID;
        assert_eq!(next_rip(&control, false), None);
        assert_eq!(next_rip(&control, true), Some(0x2002));
        control.next_rip = 0;
        assert_eq!(next_rip(&control, true), None);
    }
}
