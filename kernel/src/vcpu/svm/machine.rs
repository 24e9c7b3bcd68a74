//! The instructions: CPUID, the model-specific registers, and the world switch.

#![expect(unsafe_code, reason = "runs guests")]

use crate::vcpu::Registers;
use crate::vcpu::svm::capability::Leaf;
use crate::vcpu::svm::region::{HostStateArea, Region};
use crate::vcpu::svm::spec::msr;
use crate::vcpu::svm::spec::vmcb::{EFER_SVME, Vmcb};
use addr::HostPhys;
use core::arch::naked_asm;
use core::mem::offset_of;
use x86_64::registers::model_specific::Msr;

/// Enters the guest of a control block, and comes back when it exits.
pub trait WorldSwitch {
    /// Runs the guest. RAX and RSP are the control block's, the other registers are `registers`, both ways.
    fn enter(&mut self, vmcb: &mut Region<Vmcb>, registers: &mut Registers);
}

/// The physical processor.
#[derive(Debug)]
pub struct Machine {
    /// Where VMSAVE keeps the part of the hypervisor's state that VMRUN does not. One for each virtual CPU, written
    /// anew at every entry, so that nothing breaks when the virtual CPU is run by another processor.
    pub host_state: Region<HostStateArea>,
}

impl WorldSwitch for Machine {
    fn enter(&mut self, vmcb: &mut Region<Vmcb>, registers: &mut Registers) {
        // SAFETY: the extension is enabled, as `Machine`s are made by `Svm` only. Both addresses are those of whole
        // frames of their own, and `registers` is borrowed mutably. The guest reaches only the memory that its
        // nested tables map, which is the obligation of whoever sets them.
        unsafe {
            switch(vmcb.physical().as_u64(), registers, self.host_state.physical().as_u64());
        }
    }
}

/// A leaf of CPUID.
pub fn cpuid(leaf: u32) -> Leaf {
    let result = core::arch::x86_64::__cpuid(leaf);
    Leaf { eax: result.eax, ebx: result.ebx, ecx: result.ecx, edx: result.edx }
}

/// Reads VM_CR or another register that the processor has.
pub fn read_msr(register: u32) -> u64 {
    // SAFETY: reading a register of the extension, which CPUID says is there, has no effect.
    unsafe { Msr::new(register).read() }
}

/// Switches the extension on, on this processor.
pub fn enable(host_save_area: &Region<HostStateArea>) {
    let area: HostPhys = host_save_area.physical();
    let mut efer = Msr::new(msr::EFER);
    // SAFETY: the extension is present and not disabled, so EFER.SVME can be set, and setting it changes nothing for
    // code that uses none of its instructions. The area is a frame of its own, used by VMRUN only.
    unsafe {
        let value = efer.read();
        efer.write(value | EFER_SVME);
        Msr::new(msr::VM_HSAVE_PA).write(area.as_u64());
    }
}

/// The world switch. `vmcb` and `host_state` are physical addresses.
///
/// Interrupts: the caller has RFLAGS.IF = 0 and has looked at its mailbox. CLGI holds everything back, NMIs included,
/// from here to STGI; only then is IF set, so that nothing gets in between. With V_INTR_MASKING it is the host's IF,
/// as it is at VMRUN, that lets physical interrupts through while the guest runs. VMRUN sets GIF. An interrupt that
/// arrived at any moment since the caller's CLI is still pending then, and ends the guest at once with an INTR exit.
/// The NOP ends the shadow of STI, which would otherwise reach into the guest on QEMU's TCG.
///
/// After the exit GIF is 0 and IF is 1 again. FS, GS, TR and the rest of the hypervisor's state must be its own before
/// a handler runs, so VMLOAD comes before STGI. At STGI whatever ended the guest is delivered to the hypervisor's
/// handlers; the NOP gives it an instruction boundary, and CLI restores what the caller had.
///
/// # Safety
/// The extension is enabled; `vmcb` is a control block whose nested tables give the guest only what it may have, and
/// which intercepts INTR; `registers` is valid; `host_state` is a frame for VMSAVE. The stack is mapped for the
/// handlers, which preserve all registers.
#[unsafe(naked)]
unsafe extern "sysv64" fn switch(vmcb: u64, registers: *mut Registers, host_state: u64) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rsi",
        "push rdx",
        "clgi",
        "sti",
        "nop",
        "mov rax, rdx",
        "vmsave rax",
        "mov rax, rdi",
        "vmload rax",
        "mov rcx, [rsi + {rcx}]",
        "mov rdx, [rsi + {rdx}]",
        "mov rbx, [rsi + {rbx}]",
        "mov rbp, [rsi + {rbp}]",
        "mov rdi, [rsi + {rdi}]",
        "mov r8, [rsi + {r8}]",
        "mov r9, [rsi + {r9}]",
        "mov r10, [rsi + {r10}]",
        "mov r11, [rsi + {r11}]",
        "mov r12, [rsi + {r12}]",
        "mov r13, [rsi + {r13}]",
        "mov r14, [rsi + {r14}]",
        "mov r15, [rsi + {r15}]",
        "mov rsi, [rsi + {rsi}]",
        "vmrun rax",
        // RAX is the control block's address and RSP this stack again; all else is the guest's.
        "push rdi",
        "mov rdi, [rsp + 16]",
        "mov [rdi + {rsi}], rsi",
        "pop rsi",
        "mov [rdi + {rdi}], rsi",
        "mov [rdi + {rcx}], rcx",
        "mov [rdi + {rdx}], rdx",
        "mov [rdi + {rbx}], rbx",
        "mov [rdi + {rbp}], rbp",
        "mov [rdi + {r8}], r8",
        "mov [rdi + {r9}], r9",
        "mov [rdi + {r10}], r10",
        "mov [rdi + {r11}], r11",
        "mov [rdi + {r12}], r12",
        "mov [rdi + {r13}], r13",
        "mov [rdi + {r14}], r14",
        "mov [rdi + {r15}], r15",
        "vmsave rax",
        "pop rax",
        "vmload rax",
        "pop rsi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        // What is left of the guest's values, so that no later code speculates with them.
        "xor ecx, ecx",
        "xor edx, edx",
        "xor esi, esi",
        "xor edi, edi",
        "xor r8d, r8d",
        "xor r9d, r9d",
        "xor r10d, r10d",
        "xor r11d, r11d",
        "stgi",
        "nop",
        "cli",
        "ret",
        rcx = const offset_of!(Registers, rcx),
        rdx = const offset_of!(Registers, rdx),
        rbx = const offset_of!(Registers, rbx),
        rbp = const offset_of!(Registers, rbp),
        rsi = const offset_of!(Registers, rsi),
        rdi = const offset_of!(Registers, rdi),
        r8 = const offset_of!(Registers, r8),
        r9 = const offset_of!(Registers, r9),
        r10 = const offset_of!(Registers, r10),
        r11 = const offset_of!(Registers, r11),
        r12 = const offset_of!(Registers, r12),
        r13 = const offset_of!(Registers, r13),
        r14 = const offset_of!(Registers, r14),
        r15 = const offset_of!(Registers, r15),
    )
}
