//! The instructions, each in one block with its flags, and the world switch.

#![expect(unsafe_code, reason = "runs guests")]

use crate::vcpu::Registers;
use crate::vcpu::VirtualApicPage;
use crate::vcpu::region::{FRAME, Region, ZeroedFrames};
use crate::vcpu::vmx::bitmap::{IoBitmaps, MsrArea, MsrBitmaps};
use crate::vcpu::vmx::host_state::{HostState, descriptor_base};
use crate::vcpu::vmx::processor::{EntryError, Processor};
use crate::vcpu::vmx::spec::msr::{self, EptVpid};
use crate::vcpu::vmx::spec::{ept, field};
use addr::{HostPhys, Vector};
use alloc::sync::Arc;
use core::arch::{asm, naked_asm};
use core::cell::Cell;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};
use x86_64::instructions::tables;
use x86_64::registers::model_specific::Msr;

/// A frame that begins with the revision identifier: the VMXON region, or a control structure, whose other bytes are
/// the processor's own.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct RevisionFrame {
    revision: u32,
    data: [u8; FRAME - 4],
}

// SAFETY: integers only.
unsafe impl ZeroedFrames for RevisionFrame {}
// SAFETY: bytes only.
unsafe impl ZeroedFrames for IoBitmaps {}
// SAFETY: bytes only.
unsafe impl ZeroedFrames for MsrBitmaps {}
// SAFETY: integers only.
unsafe impl ZeroedFrames for MsrArea {}
// SAFETY: integers only.
unsafe impl ZeroedFrames for VirtualApicPage {}

/// No control structure is current.
pub const NO_STRUCTURE: u64 = u64::MAX;

/// The physical processor, with one control structure.
#[derive(Debug)]
pub struct Machine {
    vmcs: Region<RevisionFrame>,
    /// Where it is: what `current` must be before any instruction that is about it.
    address: u64,
    /// The control structure that is current on this processor, whichever virtual CPU's it is.
    current: Arc<AtomicU64>,
    launched: bool,
    /// What HOST_RSP is, so that it is written only when it changes.
    host_rsp: u64,
    /// The first field whose VMREAD or VMWRITE failed.
    no_such_field: Cell<Option<u32>>,
    ept_vpid: EptVpid,
}

/// What CF and ZF say after a VMX instruction.
fn succeeded(carry: u8, zero: u8) -> bool {
    carry == 0 && zero == 0
}

/// EAX and ECX of a leaf of CPUID.
pub fn cpuid(leaf: u32) -> (u32, u32) {
    let result = core::arch::x86_64::__cpuid(leaf);
    (result.eax, result.ecx)
}

/// Reads a register that the processor has.
pub fn read_msr(register: u32) -> u64 {
    // SAFETY: reading a register of the extension, which the caller knows to be there, has no effect.
    unsafe { Msr::new(register).read() }
}

/// Writes IA32_FEATURE_CONTROL, which is not locked.
pub fn write_feature_control(value: u64) {
    // SAFETY: the register is there with the extension, and what it permits is not used by other code.
    unsafe { Msr::new(msr::FEATURE_CONTROL).write(value) }
}

/// CR0 and CR4.
pub fn control_registers() -> (u64, u64) {
    use x86_64::registers::control::{Cr0, Cr4};
    (Cr0::read_raw(), Cr4::read_raw())
}

/// Sets CR0 and CR4 to values that VMX operation permits: with bits more set than now.
pub fn set_control_registers(cr0: u64, cr4: u64) {
    use x86_64::registers::control::{Cr0, Cr4};
    // SAFETY: the bits that VMX operation wants are protection, paging and numeric error in CR0 and the extension's
    // own in CR4; the first two are set already, and nothing in the hypervisor causes x87 errors.
    unsafe {
        Cr0::write_raw(cr0);
        Cr4::write_raw(cr4);
    }
}

/// VMXON. Says whether it succeeded.
pub fn enter_vmx_operation(region: &mut Region<RevisionFrame>, revision: u32) -> bool {
    region.revision = revision;
    let address = region.physical().as_u64();
    let (carry, zero): (u8, u8);
    // SAFETY: the extension is permitted and CR0 and CR4 are as it wants. The region is a frame of its own, which the
    // processor may use for ever.
    unsafe {
        asm!("vmxon [{}]", "setc {}", "setz {}", in(reg) &address, out(reg_byte) carry, out(reg_byte) zero, options(nostack));
    }
    succeeded(carry, zero)
}

/// VMXOFF. Says whether it succeeded.
pub fn leave_vmx_operation() -> bool {
    let (carry, zero): (u8, u8);
    // SAFETY: the processor is in VMX operation, as only a switched-on extension calls this.
    unsafe {
        asm!("vmxoff", "setc {}", "setz {}", out(reg_byte) carry, out(reg_byte) zero, options(nostack));
    }
    succeeded(carry, zero)
}

/// VMCLEAR. Says whether it succeeded.
fn clear(structure: HostPhys) -> bool {
    let address = structure.as_u64();
    let (carry, zero): (u8, u8);
    // SAFETY: in VMX operation; the structure is a frame of its own.
    unsafe {
        asm!("vmclear [{}]", "setc {}", "setz {}", in(reg) &address, out(reg_byte) carry, out(reg_byte) zero, options(nostack));
    }
    succeeded(carry, zero)
}

/// VMPTRLD. Says whether it succeeded.
fn load(structure: HostPhys) -> bool {
    let address = structure.as_u64();
    let (carry, zero): (u8, u8);
    // SAFETY: in VMX operation; the structure is a frame of its own that was cleared before its first use.
    unsafe {
        asm!("vmptrld [{}]", "setc {}", "setz {}", in(reg) &address, out(reg_byte) carry, out(reg_byte) zero, options(nostack));
    }
    succeeded(carry, zero)
}

/// INVEPT. Says whether it succeeded.
pub fn invalidate_ept(kind: u64, ept_pointer: u64) -> bool {
    let descriptor = [ept_pointer, 0];
    let (carry, zero): (u8, u8);
    // SAFETY: in VMX operation; forgetting translations changes no meaning.
    unsafe {
        asm!("invept {}, [{}]", "setc {}", "setz {}", in(reg) kind, in(reg) &descriptor, out(reg_byte) carry, out(reg_byte) zero, options(nostack));
    }
    succeeded(carry, zero)
}

/// INVVPID. Says whether it succeeded.
pub fn invalidate_virtual_processor(kind: u64, identifier: u16) -> bool {
    let descriptor = [u64::from(identifier), 0];
    let (carry, zero): (u8, u8);
    // SAFETY: in VMX operation; forgetting translations changes no meaning.
    unsafe {
        asm!("invvpid {}, [{}]", "setc {}", "setz {}", in(reg) kind, in(reg) &descriptor, out(reg_byte) carry, out(reg_byte) zero, options(nostack));
    }
    succeeded(carry, zero)
}

impl Machine {
    /// With a new control structure, cleared and current.
    pub fn new(
        mut vmcs: Region<RevisionFrame>,
        revision: u32,
        current: Arc<AtomicU64>,
        ept_vpid: EptVpid,
    ) -> Result<Self, &'static str> {
        vmcs.revision = revision;
        if !clear(vmcs.physical()) {
            return Err("VMCLEAR");
        }
        let address = vmcs.physical().as_u64();
        let no_such_field = Cell::new(None);
        let machine = Self { vmcs, address, current, launched: false, host_rsp: 0, no_such_field, ept_vpid };
        if machine.make_current() { Ok(machine) } else { Err("VMPTRLD") }
    }

    /// Makes this control structure the one that the instructions are about.
    #[inline(always)]
    fn make_current(&self) -> bool {
        // At every VMREAD and VMWRITE, and true at almost all of them.
        self.current.load(Ordering::Relaxed) == self.address || self.load()
    }

    #[cold]
    fn load(&self) -> bool {
        let loaded = load(self.vmcs.physical());
        self.current.store(if loaded { self.address } else { NO_STRUCTURE }, Ordering::Relaxed);
        loaded
    }

    #[cold]
    fn note_missing(&self, encoding: u32) {
        if self.no_such_field.get().is_none() {
            self.no_such_field.set(Some(encoding));
        }
    }
}

impl Processor for Machine {
    fn read(&self, encoding: u32) -> u64 {
        self.read_at_exit(encoding)
    }

    #[inline(always)]
    fn read_at_exit(&self, encoding: u32) -> u64 {
        self.make_current();
        let value: u64;
        let failed: u8;
        // SAFETY: in VMX operation; VMREAD changes nothing.
        unsafe {
            // "Not above": CF or ZF.
            asm!("vmread {}, {}", "setna {}", out(reg) value, in(reg) u64::from(encoding), out(reg_byte) failed, options(nostack));
        }
        if failed == 0 {
            return value;
        }
        self.note_missing(encoding);
        0
    }

    fn write(&mut self, encoding: u32, value: u64) {
        self.make_current();
        let failed: u8;
        // SAFETY: in VMX operation. What the fields may be is the obligation of the engine's logic: the host state is
        // this processor's own, and the addresses are those of frames that the virtual CPU owns.
        unsafe {
            asm!("vmwrite {}, {}", "setna {}", in(reg) u64::from(encoding), in(reg) value, out(reg_byte) failed, options(nostack));
        }
        if failed != 0 {
            self.note_missing(encoding);
        }
    }

    fn enter(&mut self, registers: &mut Registers, cr2: &mut u64) -> Result<(), EntryError> {
        if let Some(encoding) = self.no_such_field.get() {
            return Err(EntryError::NoSuchField { encoding });
        }
        if !self.make_current() {
            return Err(EntryError::NoCurrentStructure);
        }
        let failed;
        // SAFETY: the control structure is current and sends exits to `exit_point` with the stack of `switch`; the
        // host state is this processor's. `registers` is borrowed mutably. The guest reaches only the memory that its
        // nested tables map, which is the obligation of whoever sets them. CR2 is used by page faults only, and one in
        // the hypervisor does not return.
        unsafe {
            load_cr2(*cr2);
            failed = switch(registers, self.launched.into(), &mut self.host_rsp);
        }
        match failed {
            0 => {
                *cr2 = x86_64::registers::control::Cr2::read_raw();
                self.launched = true;
                Ok(())
            }
            _ if failed & FAILED_WITH_NUMBER != 0 => {
                Err(EntryError::Failed { number: self.get(field::INSTRUCTION_ERROR) })
            }
            _ => Err(EntryError::NoCurrentStructure),
        }
    }

    fn invalidate(&mut self, ept_pointer: u64, virtual_processor: Option<u16>) {
        // Where one context cannot be named, all are forgotten.
        let kind = |single| if self.ept_vpid.contains(single) { ept::SINGLE_CONTEXT } else { ept::ALL_CONTEXTS };
        let mut done = invalidate_ept(kind(EptVpid::INVEPT_SINGLE_CONTEXT), ept_pointer);
        if let Some(identifier) = virtual_processor {
            done &= invalidate_virtual_processor(kind(EptVpid::INVVPID_SINGLE_CONTEXT), identifier);
        }
        if !done {
            log::error!("INVEPT or INVVPID failed; stale translations may be used");
        }
    }

    fn serve_interrupt(&mut self, vector: Option<Vector>) {
        match vector {
            // SAFETY: interrupts are disabled, and the interrupt descriptor table has a handler for every vector.
            Some(vector) => unsafe { call_handler(vector) },
            // STI holds interrupts back for one instruction more, so the second instruction takes what is pending.
            // SAFETY: the handlers preserve all registers, and the caller's interrupts are disabled again.
            None => unsafe { asm!("sti", "nop", "cli") },
        }
    }

    fn serve_nmi(&mut self) {
        // The processor blocks NMIs from the exit on until the handler's IRET, so the handler runs once.
        // SAFETY: the handler runs on a stack of its own, preserves all registers and returns.
        unsafe { asm!("int 2") }
    }

    fn debug_status(&self) -> u64 {
        let value: u64;
        // SAFETY: reading DR6 has no effect; CR4.DE and DR7.GD do not concern it here: exits clear DR7.
        unsafe { asm!("mov {}, dr6", out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }

    fn set_debug_status(&mut self, value: u64) {
        // SAFETY: DR6 only says what happened; the upper half, which must be zero, is.
        unsafe { asm!("mov dr6, {}", in(reg) value & 0xffff_ffff, options(nomem, nostack, preserves_flags)) };
    }
}

/// # Safety
/// None beyond being in ring 0: CR2 is read by the page-fault handler only.
unsafe fn load_cr2(value: u64) {
    // SAFETY: the caller's.
    unsafe { asm!("mov cr2, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

/// Calls the handler of `vector` as the processor does: with a stack frame that IRETQ takes away.
///
/// # Safety
/// Interrupts are disabled, and the gate of `vector` leads to a handler without an error code on the current stack.
unsafe fn call_handler(vector: Vector) {
    let gate = (tables::sidt().base.as_u64() + u64::from(vector.0) * 16) as *const [u64; 2];
    // SAFETY: the interrupt descriptor table has 256 entries.
    let [low, high] = unsafe { gate.read() };
    let handler = low & 0xffff | low >> 48 << 16 | high << 32;
    // SAFETY: the handler returns by IRETQ to behind the call, with the stack pointer of before.
    unsafe {
        asm!(
            "mov {stack}, rsp",
            "and rsp, -16",
            "mov {scratch:e}, ss",
            "push {scratch}",
            "push {stack}",
            "pushfq",
            "mov {scratch:e}, cs",
            "push {scratch}",
            "call {handler}",
            stack = out(reg) _,
            scratch = out(reg) _,
            handler = in(reg) handler,
        );
    }
}

/// Whether there is IA32_SPEC_CTRL: IBRS, STIBP or SSBD in CPUID leaf 7, EDX.
fn has_speculation_control() -> bool {
    const LEAF: u32 = 7;
    const FEATURES: u32 = 1 << 26 | 1 << 27 | 1 << 31;
    core::arch::x86_64::__cpuid(0).eax >= LEAF && core::arch::x86_64::__cpuid_count(LEAF, 0).edx & FEATURES != 0
}

/// The state of the processor that this runs on, as exits shall restore it.
pub fn host_state() -> HostState {
    use x86_64::registers::segmentation::{CS, DS, ES, FS, GS, SS, Segment};
    let (cr0, cr4) = control_registers();
    let (cr3, task): (u64, u16);
    // SAFETY: both only read.
    unsafe {
        asm!("mov {}, cr3", out(reg) cr3, options(nomem, nostack, preserves_flags));
        asm!("str {:x}", out(reg) task, options(nomem, nostack, preserves_flags));
    }
    let (gdt, idt) = (tables::sgdt().base.as_u64(), tables::sidt().base.as_u64());
    // SAFETY: the task register was loaded from this table, which is never changed.
    let task_descriptor = unsafe { ((gdt + u64::from(task & !7)) as *const [u64; 2]).read_unaligned() };
    HostState {
        control: [cr0, cr3, cr4],
        selectors: [
            ES::get_reg().0,
            CS::get_reg().0,
            SS::get_reg().0,
            DS::get_reg().0,
            FS::get_reg().0,
            GS::get_reg().0,
            task,
        ],
        bases: [read_msr(msr::FS_BASE), read_msr(msr::GS_BASE), descriptor_base(task_descriptor), gdt, idt],
        sysenter: [read_msr(msr::SYSENTER_CS), read_msr(msr::SYSENTER_ESP), read_msr(msr::SYSENTER_EIP)],
        pat: read_msr(msr::PAT),
        efer: read_msr(msr::EFER),
        rip: exit_point as *const () as u64,
        speculation_control: if has_speculation_control() { read_msr(msr::SPEC_CTRL) } else { 0 },
    }
}

/// What `switch` returns where ZF was set: the control structure holds an error number. Bit 0 is CF.
const FAILED_WITH_NUMBER: u64 = 2;

/// The way in. Returns 0 after an exit, and otherwise CF and ZF of the instruction that failed.
///
/// Interrupts are disabled from the caller's look at its mailbox on. One that arrives after the look stays pending
/// until the guest is entered, and takes it out again at once: "external-interrupt exiting" does not look at RFLAGS.IF.
///
/// # Safety
/// The current control structure gives the guest only what it may have, and its HOST_RIP is [`exit_point`];
/// `registers` is valid; `host_rsp` is what its HOST_RSP is.
#[unsafe(naked)]
unsafe extern "sysv64" fn switch(registers: *mut Registers, launched: u64, host_rsp: *mut u64) -> u64 {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rdi",
        "cmp [rdx], rsp",
        "je 2f",
        "mov [rdx], rsp",
        "mov eax, {host_rsp}",
        "vmwrite rax, rsp",
        "jbe 4f",
        "2:",
        // The loads below keep ZF.
        "test esi, esi",
        "mov rax, [rdi + {rax}]",
        "mov rcx, [rdi + {rcx}]",
        "mov rdx, [rdi + {rdx}]",
        "mov rbx, [rdi + {rbx}]",
        "mov rbp, [rdi + {rbp}]",
        "mov rsi, [rdi + {rsi}]",
        "mov r8, [rdi + {r8}]",
        "mov r9, [rdi + {r9}]",
        "mov r10, [rdi + {r10}]",
        "mov r11, [rdi + {r11}]",
        "mov r12, [rdi + {r12}]",
        "mov r13, [rdi + {r13}]",
        "mov r14, [rdi + {r14}]",
        "mov r15, [rdi + {r15}]",
        "mov rdi, [rdi + {rdi}]",
        "jne 3f",
        "vmlaunch",
        "jmp 4f",
        "3:",
        "vmresume",
        // Only a failure gets here: exits go to the other function.
        "4:",
        "setc al",
        "setz cl",
        "movzx eax, al",
        "movzx ecx, cl",
        "lea eax, [rax + 2 * rcx]",
        "pop rdi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
        host_rsp = const field::HOST_RSP.encoding(),
        rax = const offset_of!(Registers, rax),
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

/// The way out: exits come here with the stack of [`switch`] and the guest's registers, and return from it. RFLAGS are
/// clear: interrupts are disabled.
///
/// # Safety
/// Only the processor goes here.
#[unsafe(naked)]
unsafe extern "sysv64" fn exit_point() {
    naked_asm!(
        "push rax",
        "mov rax, [rsp + 8]",
        "pop qword ptr [rax + {rax}]",
        "mov [rax + {rcx}], rcx",
        "mov [rax + {rdx}], rdx",
        "mov [rax + {rbx}], rbx",
        "mov [rax + {rbp}], rbp",
        "mov [rax + {rsi}], rsi",
        "mov [rax + {rdi}], rdi",
        "mov [rax + {r8}], r8",
        "mov [rax + {r9}], r9",
        "mov [rax + {r10}], r10",
        "mov [rax + {r11}], r11",
        "mov [rax + {r12}], r12",
        "mov [rax + {r13}], r13",
        "mov [rax + {r14}], r14",
        "mov [rax + {r15}], r15",
        "pop rdi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        // What is left of the guest's values, so that no later code speculates with them.
        "xor eax, eax",
        "xor ecx, ecx",
        "xor edx, edx",
        "xor esi, esi",
        "xor edi, edi",
        "xor r8d, r8d",
        "xor r9d, r9d",
        "xor r10d, r10d",
        "xor r11d, r11d",
        "ret",
        rax = const offset_of!(Registers, rax),
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
