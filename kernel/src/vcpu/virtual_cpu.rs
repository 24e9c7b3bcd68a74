//! What every engine does.

use crate::vcpu::instruction::LONGEST_INSTRUCTION;
use crate::vcpu::{
    ApicVirtualization, Event, Exit, Instruction, Registers, Segment, SegmentName, Start, instruction_length,
};
use addr::{HostPhys, Vector};
use core::fmt;

/// CR0.PE.
const CR0_PROTECTION: u64 = 1;
/// EFER.LMA.
const EFER_LONG_MODE_ACTIVE: u64 = 1 << 10;
/// RFLAGS.VM.
const RFLAGS_VIRTUAL_8086: u64 = 1 << 17;

/// How a guest's instructions are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Real mode: 16-bit.
    Real,
    /// Virtual-8086 mode: 16-bit.
    Virtual8086,
    /// A 16-bit code segment in protected or compatibility mode.
    Protected16,
    /// A 32-bit code segment in protected or compatibility mode.
    Protected32,
    /// 64-bit mode.
    Long,
}

impl Mode {
    /// The code's default size in bits: 16, 32 or 64.
    pub const fn bits(self) -> u32 {
        match self {
            Mode::Real | Mode::Virtual8086 | Mode::Protected16 => 16,
            Mode::Protected32 => 32,
            Mode::Long => 64,
        }
    }
}

/// The guest's control state: what its page tables are walked with, and with which privilege.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlState {
    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER as the guest reads it.
    pub efer: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// The current privilege level, 0 to 3.
    pub privilege_level: u8,
}

/// The guest cannot take an interrupt now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotNow;

impl fmt::Display for NotNow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the guest cannot take an interrupt now")
    }
}

/// The value is one that the processor answers with a general-protection exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneralProtection;

impl fmt::Display for GeneralProtection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value is not one that the register can have")
    }
}

/// A virtual CPU. It runs on the physical processor on which it was made.
///
/// A loop that loses no interrupt: with physical interrupts disabled (RFLAGS.IF = 0) look at the mailbox; if
/// something is there, [`inject_interrupt`](Self::inject_interrupt) when
/// [`can_take_interrupt`](Self::can_take_interrupt), else
/// [`request_interrupt_window`](Self::request_interrupt_window); then [`run`](Self::run). An interrupt that arrives
/// after the look stays pending until the guest is entered, and takes it out again at once.
///
/// The x87 and SSE registers, CR8's effect on a virtual APIC, DR0 to DR3 and IA32_TSC_AUX are not the engine's: the
/// first three stay in the physical registers, which the hypervisor does not use.
pub trait VirtualCpu {
    /// Runs the guest until something needs the hypervisor. Call with physical interrupts disabled; they are enabled
    /// for a moment within, so that whatever took the guest out is handled before this returns, and disabled again.
    fn run(&mut self) -> Exit;

    /// Puts the virtual CPU into the state in which it begins. Pending events are dropped.
    fn start(&mut self, start: Start);

    /// The general-purpose registers.
    fn registers(&self) -> &Registers;

    /// The general-purpose registers, to be changed.
    fn registers_mut(&mut self) -> &mut Registers;

    /// The offset in CS of the next instruction.
    fn rip(&self) -> u64;

    /// Continues elsewhere. Does not end an interrupt shadow.
    fn set_rip(&mut self, rip: u64);

    /// CR0, CR2, CR3, CR4, EFER, RFLAGS and the privilege level.
    fn control(&self) -> ControlState;

    /// Sets RFLAGS, for an instruction that the hypervisor completes and that changes the arithmetic flags.
    fn set_rflags(&mut self, rflags: u64);

    /// A segment register with its hidden part.
    fn segment(&self, name: SegmentName) -> Segment;

    /// Where the instruction ends that the last exit is about, if the processor said so.
    fn next_rip(&self) -> Option<u64>;

    /// Ends the instruction that exited and was completed by the hypervisor: the guest continues at `rip`, an
    /// interrupt shadow is over, and a guest that single-steps gets its debug exception.
    fn advance_to(&mut self, rip: u64);

    /// IF = 1, no interrupt shadow, and no event waits to be delivered.
    fn can_take_interrupt(&self) -> bool;

    /// Delivers a maskable interrupt at the next entry, or says that the guest [cannot take
    /// one](Self::can_take_interrupt).
    fn inject_interrupt(&mut self, vector: Vector) -> Result<(), NotNow>;

    /// Raises an exception at the next entry. Together with an exception that was not delivered yet it may become a
    /// double fault, or shut the virtual CPU down.
    fn inject_exception(&mut self, vector: u8, error_code: Option<u32>);

    /// Raises a page fault at the next entry, with `address` in CR2.
    fn inject_page_fault(&mut self, address: u64, error_code: u32);

    /// Delivers a non-maskable interrupt as soon as the guest takes one: not while the handler of one before runs, up to
    /// its IRET. Of several that wait, one is delivered (SDM vol. 3, 7.7.1).
    fn inject_nmi(&mut self);

    /// The event that the next entry delivers: one that was injected, or one whose delivery the last exit interrupted.
    fn pending_event(&self) -> Option<Event>;

    /// Takes the pending event back: whoever does must deliver it in another way, or it is lost.
    fn take_pending_event(&mut self) -> Option<Event>;

    /// Offers a maskable interrupt to a guest that cannot take one yet: the processor delivers it during the next
    /// [`run`](Self::run), as soon as the guest can take it and its CR8 lets it through, without an exit. The offer ends
    /// with that run, and [`took_offer`](Self::took_offer) says what became of it. `false` if the processor has no way to
    /// do so: then there is the [interrupt window](Self::request_interrupt_window).
    fn offer_interrupt(&mut self, vector: Vector) -> bool {
        let _ = vector;
        false
    }

    /// Ends the offer. Whether the guest has taken it: it is in service then, even if its delivery was interrupted and is
    /// completed by the next entry.
    fn took_offer(&mut self) -> bool {
        false
    }

    /// With `true`, the next [`run`](Self::run) ends with [`Exit::InterruptWindow`] as soon as the guest can take an
    /// interrupt. The request holds until then, or until `false`.
    fn request_interrupt_window(&mut self, wanted: bool);

    /// With `true`, [`run`](Self::run) ends with [`Exit::InterruptWindow`] after the guest's next write of CR8, which
    /// may let an interrupt through that only the task priority holds back. The request holds until then, or until
    /// `false`. An engine whose processor compares priorities itself has nothing to do.
    fn request_priority_exit(&mut self, wanted: bool) {
        let _ = wanted;
    }

    /// Ends the next [`run`](Self::run), as if by an interrupt, once the guest has run for about `ticks` of the
    /// time-stamp counter; `None` for as long as it likes. Says whether the engine can: if not, a timer of the
    /// processor's must interrupt it.
    fn set_alarm(&mut self, ticks: Option<u64>) -> bool {
        let _ = ticks;
        false
    }

    /// Lets the guest write this processor's IA32_TSC_DEADLINE without an exit, or not, as at first; reads of it exit always.
    /// Says whether the engine can.
    fn pass_deadline_writes(&mut self, passed: bool) -> bool {
        let _ = passed;
        false
    }

    /// Whether [`Self::pass_speculation_control`] does anything.
    fn has_speculation_control(&self) -> bool {
        false
    }

    /// Gives the guest IA32_SPEC_CTRL or IA32_PRED_CMD, without exits from then on; the hypervisor keeps its own value. The
    /// processor must have the register.
    fn pass_speculation_control(&mut self, register: u32) {
        let _ = register;
    }

    /// CR8: the upper four bits of the task priority, 0 to 15, which the guest changes without an exit.
    fn task_priority(&self) -> u8;

    /// Sets CR8, when the guest wrote the task priority in another way; bits 7:4 are ignored.
    fn set_task_priority(&mut self, priority: u8);

    /// What the processor does for the guest's local APIC; `None` where software does everything.
    fn apic_virtualization(&mut self) -> Option<&mut dyn ApicVirtualization> {
        None
    }

    /// What the guest's WRMSR to EFER does.
    fn write_efer(&mut self, value: u64) -> Result<(), GeneralProtection>;

    /// The guest's page attribute table.
    fn page_attribute_table(&self) -> u64;

    /// What the guest's WRMSR to the page attribute table does.
    fn set_page_attribute_table(&mut self, value: u64) -> Result<(), GeneralProtection>;

    /// What is added to the time-stamp counter that the guest reads.
    fn set_time_stamp_offset(&mut self, offset: u64);

    /// Lets the guest reach an I/O port without an exit, or not. At first every port exits.
    fn set_port_passed(&mut self, port: u16, passed: bool);

    /// The tables that translate guest-physical addresses, from the next entry on. They must map to the guest nothing
    /// but what is the guest's.
    fn set_nested_root(&mut self, root: HostPhys);

    /// Forgets all translations of this guest before the next entry: after any change to the nested tables that takes
    /// something away. A virtual CPU that is running elsewhere must be made to exit first.
    fn flush_translations(&mut self);

    /// Continues `length` bytes further; see [`advance_to`](Self::advance_to).
    fn advance(&mut self, length: u8) {
        let rip = self.rip().wrapping_add(length.into());
        self.advance_to(rip);
    }

    /// Ends the instruction that exited, with the length that the processor gave, or else the one that its bytes
    /// have. `fetch(linear_address, bytes)` reads the guest's code and says how many bytes it could read; where they
    /// are not to be had, or have been changed meanwhile, the instruction counts as one without prefixes.
    fn finish_instruction(&mut self, instruction: Instruction, fetch: &mut dyn FnMut(u64, &mut [u8]) -> usize) {
        if let Some(rip) = self.next_rip() {
            return self.advance_to(rip);
        }
        let mut bytes = [0; LONGEST_INSTRUCTION];
        let fetched = fetch(self.linear_rip(), &mut bytes);
        let fetched = bytes.get(..fetched).unwrap_or(&bytes);
        let length = instruction_length(fetched, instruction, self.mode());
        self.advance(length.unwrap_or(instruction.opcode_length()));
    }

    /// The linear address of the next instruction.
    fn linear_rip(&self) -> u64 {
        if self.mode() == Mode::Long {
            self.rip()
        } else {
            self.segment(SegmentName::Cs).base.wrapping_add(self.rip()) & 0xffff_ffff
        }
    }

    /// How the guest's instructions are to be read.
    fn mode(&self) -> Mode {
        let control = self.control();
        let code = self.segment(SegmentName::Cs).attributes;
        if control.cr0 & CR0_PROTECTION == 0 {
            Mode::Real
        } else if control.efer & EFER_LONG_MODE_ACTIVE != 0 && code.long() {
            Mode::Long
        } else if control.efer & EFER_LONG_MODE_ACTIVE == 0 && control.rflags & RFLAGS_VIRTUAL_8086 != 0 {
            Mode::Virtual8086
        } else if code.default_big() {
            Mode::Protected32
        } else {
            Mode::Protected16
        }
    }
}
