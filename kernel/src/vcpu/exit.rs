//! Why a guest stopped.

use crate::vcpu::{Instruction, Registers};
use addr::{GuestPhys, Vector};
use core::fmt;

/// Why [`run`](crate::vcpu::VirtualCpu::run) returned. RIP is at the instruction that exited, which has had no effect
/// yet; for events that are not an instruction's, at the next one to execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A physical interrupt; the hypervisor's handler has already run. Nothing of the guest's.
    ExternalInterrupt,
    /// A physical non-maskable interrupt; the hypervisor's handler has already run.
    Nmi,
    /// A system-management interrupt; the firmware's handler has already run.
    SystemManagementInterrupt,
    /// An INIT signal reached the physical processor.
    Init,
    /// The guest can take an interrupt now; the request is used up.
    InterruptWindow,
    /// The processor has ended a virtual interrupt whose EOI was asked for (EOI-induced exit).
    VirtualizedEoi {
        /// The vector.
        vector: Vector,
    },
    /// The processor has written a register of the virtual-APIC page and leaves the rest to software (APIC-write exit).
    ApicWrite {
        /// The register's offset in the page.
        offset: u16,
    },
    /// HLT.
    Halt,
    /// IN, OUT, INS or OUTS at a port that is not passed through.
    Io(IoAccess),
    /// CPUID: leaf in EAX, subleaf in ECX.
    Cpuid,
    /// RDMSR of a register that is not passed through.
    ReadMsr {
        /// The register's number (ECX).
        index: u32,
    },
    /// WRMSR to a register that is not passed through.
    WriteMsr {
        /// The register's number (ECX).
        index: u32,
        /// The value (EDX:EAX).
        value: u64,
    },
    /// An access that the nested page tables do not permit.
    NestedPageFault(NestedPageFault),
    /// VMMCALL or VMCALL.
    Hypercall,
    /// XSETBV.
    SetExtendedControl {
        /// The register's number (ECX); 0 is XCR0.
        index: u32,
        /// The value (EDX:EAX).
        value: u64,
    },
    /// INVD, which would throw away other guests' modified cache lines; it may be treated as doing nothing.
    InvalidateCaches,
    /// RDPMC.
    ReadPerformanceCounter,
    /// An instruction that the guest's processor does not have (of SVM, MONITOR, MWAIT, RDPRU): to be answered by an
    /// invalid-opcode exception.
    UndefinedInstruction {
        /// The engine's exit code.
        code: u64,
    },
    /// The guest raised an exception that the hypervisor looks at first: #DB and #AC, because an endless chain of
    /// them keeps a processor from ever taking an interrupt. Give it back with `inject_exception`.
    Exception {
        /// The vector.
        vector: u8,
        /// The error code, for the vectors that have one.
        error_code: Option<u32>,
    },
    /// The physical processor reported a machine check while the guest ran; the hypervisor's handler has not run.
    MachineCheck,
    /// A hardware task switch, which this platform does not offer.
    TaskSwitch,
    /// The guest waits for the external handler of a floating-point error (CR0.NE = 0), which no platform here has.
    FloatingPointFreeze,
    /// The guest's processor shut down (triple fault). Its state is undefined.
    Shutdown,
    /// The processor refused to run the guest.
    EntryFailed(EntryFailure),
    /// An exit that this engine does not ask for and does not know.
    Unknown {
        /// The engine's exit code.
        code: u64,
        /// What else the processor said.
        information: [u64; 2],
    },
}

impl Exit {
    /// The instruction that exited, where it is one that the hypervisor completes in the guest's stead and that has
    /// no operands of its own: for [`finish_instruction`](crate::vcpu::VirtualCpu::finish_instruction).
    pub const fn instruction(&self) -> Option<Instruction> {
        Some(match self {
            Exit::Halt => Instruction::Halt,
            Exit::Cpuid => Instruction::Cpuid,
            Exit::ReadMsr { .. } => Instruction::ReadMsr,
            Exit::WriteMsr { .. } => Instruction::WriteMsr,
            Exit::Hypercall => Instruction::Hypercall,
            Exit::SetExtendedControl { .. } => Instruction::SetExtendedControl,
            Exit::InvalidateCaches => Instruction::InvalidateCaches,
            Exit::ReadPerformanceCounter => Instruction::ReadPerformanceCounter,
            _ => return None,
        })
    }
}

/// Which way an access to an I/O port goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// IN, INS: from the port.
    In,
    /// OUT, OUTS: to the port.
    Out,
}

/// How much an access to an I/O port moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoWidth {
    /// One byte.
    Byte,
    /// Two bytes.
    Word,
    /// Four bytes.
    Dword,
}

impl IoWidth {
    /// 1, 2 or 4.
    pub const fn bytes(self) -> u8 {
        match self {
            IoWidth::Byte => 1,
            IoWidth::Word => 2,
            IoWidth::Dword => 4,
        }
    }

    /// The bits that are moved.
    pub const fn mask(self) -> u32 {
        match self {
            IoWidth::Byte => 0xff,
            IoWidth::Word => 0xffff,
            IoWidth::Dword => 0xffff_ffff,
        }
    }
}

/// An access to an I/O port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoAccess {
    /// The first port.
    pub port: u16,
    /// Which way.
    pub direction: Direction,
    /// How much at a time.
    pub width: IoWidth,
    /// INS or OUTS: memory at RDI or RSI, not RAX.
    pub string: bool,
    /// With a REP prefix: RCX times.
    pub repeat: bool,
}

impl IoAccess {
    /// What OUT sends: AL, AX or EAX.
    pub const fn value(&self, registers: &Registers) -> u32 {
        registers.rax as u32 & self.width.mask()
    }

    /// What IN does with `value`: AL and AX leave the rest of RAX as it is, EAX clears the upper half.
    pub const fn complete_in(&self, registers: &mut Registers, value: u32) {
        let kept = match self.width {
            IoWidth::Dword => 0,
            IoWidth::Word | IoWidth::Byte => registers.rax & !(self.width.mask() as u64),
        };
        registers.rax = kept | (value & self.width.mask()) as u64;
    }
}

/// What the guest wanted of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Execute,
}

/// An access that the nested page tables do not permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NestedPageFault {
    /// The guest-physical address that was accessed.
    pub address: GuestPhys,
    /// What was tried.
    pub access: Access,
    /// The address is mapped, and the mapping forbids the access.
    pub present: bool,
    /// The access was the processor's own, to the guest's page tables.
    pub table_walk: bool,
    /// The access was the processor's own, for an event that it was delivering: to the stack or a descriptor table.
    pub during_delivery: bool,
    /// An entry of the nested tables has reserved bits set: a mistake of the hypervisor's.
    pub malformed: bool,
}

/// Why the processor refused to run the guest, as far as the engine can tell by checking the rules itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryFailure {
    /// The engine's exit code or error number.
    pub code: u64,
    /// The rules that are broken, the first few of them.
    pub reasons: [Option<&'static str>; 4],
}

impl EntryFailure {
    /// With the first rules of `reasons`.
    pub fn new(code: u64, reasons: impl Iterator<Item = &'static str>) -> Self {
        let mut kept = [None; 4];
        for (slot, reason) in kept.iter_mut().zip(reasons) {
            *slot = Some(reason);
        }
        Self { code, reasons: kept }
    }
}

impl fmt::Display for EntryFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the processor refused to run the guest (code {:#x}): ", self.code)?;
        let mut reasons = self.reasons.iter().flatten();
        match reasons.next() {
            None => f.write_str("its state breaks no rule that is checked here"),
            Some(first) => {
                f.write_str(first)?;
                reasons.try_for_each(|reason| write!(f, "; {reason}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    const ACCESS: IoAccess =
        IoAccess { port: 0x3f8, direction: Direction::In, width: IoWidth::Byte, string: false, repeat: false };

    #[test]
    fn a_byte_or_word_read_keeps_the_rest_of_rax_and_a_dword_clears_it() {
        for (width, expected) in [
            (IoWidth::Byte, 0xaaaa_bbbb_cccc_dd44),
            (IoWidth::Word, 0xaaaa_bbbb_cccc_3344),
            (IoWidth::Dword, 0x1122_3344),
        ] {
            let mut registers = Registers { rax: 0xaaaa_bbbb_cccc_dddd, ..Default::default() };
            IoAccess { width, ..ACCESS }.complete_in(&mut registers, 0x1122_3344);
            assert_eq!(registers.rax, expected);
        }
    }

    #[test]
    fn a_write_sends_as_much_as_its_width() {
        let registers = Registers { rax: 0xaaaa_bbbb_cccc_dddd, ..Default::default() };
        assert_eq!(ACCESS.value(&registers), 0xdd);
        assert_eq!(IoAccess { width: IoWidth::Dword, ..ACCESS }.value(&registers), 0xcccc_dddd);
    }

    #[test]
    fn a_failed_entry_says_every_broken_rule() {
        let text = EntryFailure::new(7, ["one", "two"].into_iter()).to_string();
        assert!(text.contains("0x7") && text.ends_with("one; two"), "{text}");
        assert!(EntryFailure::new(7, core::iter::empty()).to_string().contains("no rule"));
    }
}
