//! What each exit of a guest means, engine-neutral.
//!
//! A guest decides when and why it exits, and nothing that it can do is an error of the hypervisor's: an exit that has
//! no sensible answer gets the one that hardware would give, or stops the guest with the reason in words.

mod strings;
#[cfg(test)]
mod tests;

use crate::vcpu::{Access, Direction, Exit, Instruction, IoAccess, Mode, NestedPageFault, SegmentName, VirtualCpu};
use crate::vm::clock::{self, Clock};
use crate::vm::cpuid;
use crate::vm::cpuid_leaf::Leaf;
use crate::vm::extended_state::{self, ExtendedState};
use crate::vm::guest_paging::{self, Paging};
use crate::vm::instruction::{self, CodeSize, DecodeError, MAX_LENGTH, RegisterFile, StringKind};
use crate::vm::local_apic::{self, DeliveryMode, Destination, Effect, IA32_TSC_DEADLINE};
use crate::vm::memory::GuestMemoryAccess;
use crate::vm::paravirtual_eoi::ParavirtualEoi;
use crate::vm::platform::{Host, Outcome, Platform, Services};
use crate::vm::speculation::{IA32_PRED_CMD, IA32_SPEC_CTRL};
use addr::{GuestPhys, PAGE_SIZE};
use alloc::format;
use alloc::string::{String, ToString};
use pci::ConfigSpace;

const INVALID_OPCODE: u8 = 6;
const GENERAL_PROTECTION: u8 = 13;
/// RFLAGS.IF.
const RFLAGS_INTERRUPT: u64 = 1 << 9;
/// CR4.OSXSAVE.
const CR4_OSXSAVE: u64 = 1 << 18;
const IA32_EFER: u32 = 0xc000_0080;
const IA32_PAT: u32 = 0x277;
const IA32_TIME_STAMP_COUNTER: u32 = 0x10;

/// What to do after an exit was served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Run the guest again.
    Run,
    /// The guest waits for an interrupt.
    Halt,
    /// The guest has switched itself off.
    PowerOff,
    /// The guest cannot go on, for this reason.
    Stop(String),
}

/// How often each kind of exit happened.
#[derive(Default, Debug, Clone)]
pub struct ExitCounts {
    /// Of all kinds.
    pub total: u64,
    /// By a physical interrupt.
    pub interrupts: u64,
    /// I/O ports.
    pub ports: u64,
    /// Model-specific registers.
    pub msrs: u64,
    /// Device registers in memory.
    pub memory: u64,
    /// HLT.
    pub halts: u64,
    /// Windows for an interrupt.
    pub windows: u64,
    /// All others.
    pub others: u64,
}

impl ExitCounts {
    fn count(&mut self, exit: &Exit) {
        self.total += 1;
        *match exit {
            Exit::ExternalInterrupt | Exit::Nmi => &mut self.interrupts,
            Exit::Io(_) => &mut self.ports,
            Exit::ReadMsr { .. } | Exit::WriteMsr { .. } => &mut self.msrs,
            Exit::NestedPageFault(_) => &mut self.memory,
            Exit::Halt => &mut self.halts,
            Exit::InterruptWindow => &mut self.windows,
            _ => &mut self.others,
        } += 1;
    }
}

/// Serves one exit at `now`, in ticks of the time-stamp counter.
pub fn serve<V: VirtualCpu, C: ConfigSpace, M: GuestMemoryAccess>(
    exit: Exit,
    vcpu: &mut V,
    platform: &mut Platform<M>,
    counts: &mut ExitCounts,
    now: u64,
    tsc_khz: u32,
    services: &mut Services<'_, C>,
) -> Next {
    counts.count(&exit);
    match exit {
        // The handler has run: what it noted is looked at before the guest runs again. The window's request is used
        // up, and the look decides whether another is needed.
        Exit::ExternalInterrupt | Exit::Nmi | Exit::SystemManagementInterrupt | Exit::InterruptWindow => Next::Run,
        // Both are after the guest's write: there is no instruction to finish.
        Exit::VirtualizedEoi { vector } => {
            if let Some(effect) = platform.apic.ended_by_processor(vector) {
                platform.apic_effect(effect, services.host);
            }
            Next::Run
        }
        Exit::ApicWrite { offset } => {
            let effect = platform.apic.written_by_processor(offset, now);
            serve_apic(effect, vcpu, platform, services)
        }
        Exit::Halt => {
            finish(Instruction::Halt, vcpu, platform);
            if vcpu.pending_event().is_some() {
                // A guest that single-steps: its debug exception is due, and it does not sleep.
                Next::Run
            } else if vcpu.control().rflags & RFLAGS_INTERRUPT == 0 {
                Next::Stop("it halted with interrupts disabled: nothing can wake it".to_string())
            } else {
                Next::Halt
            }
        }
        Exit::Io(access) => serve_port(&access, vcpu, platform, now, services),
        Exit::Cpuid => {
            let (leaf, subleaf) = (vcpu.registers().rax as u32, vcpu.registers().rcx as u32);
            let context = cpuid::Context {
                apic_id: platform.apic.id(),
                apic_enabled: platform.apic.mode() != local_apic::Mode::Disabled,
                paravirtual_eoi: platform.paravirtual_eoi.is_some(),
                extended_state: platform.extended_state,
                // Each is shown by one leaf only.
                os_xsave: leaf == 1 && vcpu.control().cr4 & CR4_OSXSAVE != 0,
                xcr0: match leaf {
                    extended_state::LEAF if platform.extended_state.is_offered() => services.host.xcr0(),
                    _ => 0,
                },
                speculation: platform.msrs.speculation.shown(),
                tsc_khz,
            };
            let Leaf { eax, ebx, ecx, edx } = cpuid::answer(leaf, subleaf, &context, cpuid::of_processor);
            let registers = vcpu.registers_mut();
            registers.rax = eax.into();
            registers.rbx = ebx.into();
            registers.rcx = ecx.into();
            registers.rdx = edx.into();
            finish(Instruction::Cpuid, vcpu, platform);
            Next::Run
        }
        Exit::ReadMsr { index } => {
            let value = match index {
                // Executed again when the timer is the virtual one.
                IA32_TSC_DEADLINE if platform.apic.recall_timer() => return Next::Run,
                IA32_EFER => Ok(vcpu.control().efer),
                IA32_PAT => Ok(vcpu.page_attribute_table()),
                _ if Clock::owns_msr(index) => Ok(platform.clock.read(index)),
                _ if ParavirtualEoi::owns_msr(index) => {
                    platform.paravirtual_eoi.as_ref().map(ParavirtualEoi::read).ok_or(local_apic::GeneralProtection)
                }
                _ => platform.msrs.read(index, &mut platform.apic, now),
            };
            match value {
                Ok(value) => {
                    vcpu.registers_mut().set_edx_eax(value);
                    finish(Instruction::ReadMsr, vcpu, platform);
                }
                Err(_) => vcpu.inject_exception(GENERAL_PROTECTION, Some(0)),
            }
            Next::Run
        }
        Exit::WriteMsr { index, value } => {
            let done = match index {
                IA32_EFER => vcpu.write_efer(value).ok().map(|()| None),
                IA32_SPEC_CTRL | IA32_PRED_CMD if platform.msrs.speculation.accepts(index, value) => {
                    // Executed again, by its processor.
                    vcpu.pass_speculation_control(index);
                    return Next::Run;
                }
                IA32_PAT => vcpu.set_page_attribute_table(value).ok().map(|()| None),
                _ if ParavirtualEoi::owns_msr(index) => {
                    let Platform { paravirtual_eoi, memory, .. } = platform;
                    paravirtual_eoi.as_mut().and_then(|eoi| eoi.write(value, memory).ok()).map(|()| None)
                }
                _ if Clock::owns_msr(index) => {
                    let counter = clock::Counter { now, offset: platform.msrs.time_stamp_offset(), khz: tsc_khz };
                    platform.clock.write(index, value, counter, &mut platform.memory).ok().map(|()| None)
                }
                _ => platform.msrs.write(index, value, &mut platform.apic, now).ok(),
            };
            let Some(effect) = done else {
                vcpu.inject_exception(GENERAL_PROTECTION, Some(0));
                return Next::Run;
            };
            if index == IA32_TIME_STAMP_COUNTER {
                vcpu.set_time_stamp_offset(platform.msrs.time_stamp_offset());
            }
            finish(Instruction::WriteMsr, vcpu, platform);
            serve_apic(effect, vcpu, platform, services)
        }
        Exit::NestedPageFault(fault) => serve_memory(&fault, vcpu, platform, now, services),
        Exit::InvalidateCaches => {
            // Nothing of the guest's is lost when nothing is thrown away.
            finish(Instruction::InvalidateCaches, vcpu, platform);
            Next::Run
        }
        Exit::SetExtendedControl { index, value } => {
            if set_extended_control(index, value, vcpu, platform.extended_state, services.host) {
                finish(Instruction::SetExtendedControl, vcpu, platform);
            }
            Next::Run
        }
        // No hypercalls and no performance counters are offered; CPUID says so.
        Exit::Hypercall | Exit::UndefinedInstruction { .. } => {
            vcpu.inject_exception(INVALID_OPCODE, None);
            Next::Run
        }
        Exit::ReadPerformanceCounter => {
            vcpu.inject_exception(GENERAL_PROTECTION, Some(0));
            Next::Run
        }
        Exit::Exception { vector, error_code } => {
            vcpu.inject_exception(vector, error_code);
            Next::Run
        }
        Exit::Init => Next::Stop("an INIT signal arrived, which nobody here sends".to_string()),
        Exit::MachineCheck => Next::Stop("the processor reported a machine check".to_string()),
        Exit::TaskSwitch => Next::Stop("it used a hardware task switch, which this platform does not have".to_string()),
        Exit::FloatingPointFreeze => Next::Stop("it waits for a floating-point error handler of the PC".to_string()),
        Exit::Shutdown => Next::Stop("its processor shut down (triple fault)".to_string()),
        Exit::EntryFailed(failure) => Next::Stop(format!("{failure}")),
        Exit::Unknown { code, information } => {
            Next::Stop(format!("exit {code:#x} is not known (information {information:#x?})"))
        }
    }
}

/// XSETBV; says whether it was legal.
fn set_extended_control(
    index: u32,
    value: u64,
    vcpu: &mut dyn VirtualCpu,
    state: ExtendedState,
    host: &mut dyn Host,
) -> bool {
    let control = vcpu.control();
    if !state.is_offered() || control.cr4 & CR4_OSXSAVE == 0 {
        vcpu.inject_exception(INVALID_OPCODE, None);
        return false;
    }
    if control.privilege_level != 0 || state.check(index, value).is_err() {
        vcpu.inject_exception(GENERAL_PROTECTION, Some(0));
        return false;
    }
    host.set_xcr0(value);
    true
}

/// Ends an instruction that was completed in the guest's stead.
fn finish<V: VirtualCpu, M: GuestMemoryAccess>(instruction: Instruction, vcpu: &mut V, platform: &Platform<M>) {
    if let Some(rip) = vcpu.next_rip() {
        // The processor says where it ends: the guest's code and its page tables need not be looked at.
        return vcpu.advance_to(rip);
    }
    let paging = paging_of(vcpu);
    vcpu.finish_instruction(instruction, &mut |linear, bytes| fetch(linear, bytes, &paging, platform));
}

fn paging_of(vcpu: &dyn VirtualCpu) -> Paging {
    let control = vcpu.control();
    Paging { cr0: control.cr0, cr3: control.cr3, cr4: control.cr4, efer: control.efer }
}

/// Reads the guest's code, as far as it is there; returns how many bytes.
fn fetch<M: GuestMemoryAccess>(linear: u64, bytes: &mut [u8], paging: &Paging, platform: &Platform<M>) -> usize {
    let mut done = 0;
    while done < bytes.len() {
        let at = linear.wrapping_add(done as u64);
        let Ok(address) = guest_paging::translate(at, paging, &platform.memory) else { break };
        let in_page = (PAGE_SIZE - address.as_u64() % PAGE_SIZE) as usize;
        let end = bytes.len().min(done + in_page);
        let Some(piece) = bytes.get_mut(done..end) else { break };
        if platform.memory.read(address, piece).is_err() {
            break;
        }
        done = end;
    }
    done
}

/// Decodes the instruction at the guest's instruction pointer.
fn decode<M: GuestMemoryAccess>(
    vcpu: &dyn VirtualCpu,
    platform: &Platform<M>,
) -> Result<instruction::Instruction, DecodeError> {
    let mut bytes = [0; MAX_LENGTH];
    let fetched = fetch(vcpu.linear_rip(), &mut bytes, &paging_of(vcpu), platform);
    instruction::decode(bytes.get(..fetched).unwrap_or_default(), code_size(vcpu))
}

fn code_size(vcpu: &dyn VirtualCpu) -> CodeSize {
    match vcpu.mode() {
        Mode::Long => CodeSize::Bits64,
        Mode::Protected32 => CodeSize::Bits32,
        _ => CodeSize::Bits16,
    }
}

fn serve_port<V: VirtualCpu, C: ConfigSpace, M: GuestMemoryAccess>(
    access: &IoAccess,
    vcpu: &mut V,
    platform: &mut Platform<M>,
    now: u64,
    services: &mut Services<'_, C>,
) -> Next {
    // A repeat prefix before an instruction that is no string instruction means nothing.
    if access.string {
        let instruction = match decode(vcpu, platform) {
            Ok(instruction) => instruction,
            Err(error) => return Next::Stop(format!("it used I/O port {:#x} by an {error}", access.port)),
        };
        let kind = if access.direction == Direction::In { StringKind::Input } else { StringKind::Output };
        return match instruction.string() {
            Some(string) if string.kind == kind => {
                strings::serve(&instruction, &string, None, vcpu, platform, now, services)
            }
            // The guest has changed its code since.
            _ => Next::Run,
        };
    }
    let bytes = access.width.bytes();
    let outcome = match access.direction {
        Direction::In => {
            let value = platform.read_port(access.port, bytes, services);
            access.complete_in(vcpu.registers_mut(), value);
            Outcome::Continue
        }
        Direction::Out => platform.write_port(access.port, bytes, access.value(vcpu.registers()), services),
    };
    match vcpu.next_rip() {
        Some(rip) => vcpu.advance_to(rip),
        None => return Next::Stop("the processor did not say where its I/O instruction ends".to_string()),
    }
    ended(outcome)
}

/// What an access to a port means for the guest's life.
fn ended(outcome: Outcome) -> Next {
    match outcome {
        Outcome::Continue => Next::Run,
        Outcome::PowerOff => Next::PowerOff,
        Outcome::Reset => Next::Stop("it asked to be started again, which this version does not do".to_string()),
        Outcome::Failed(status) => Next::Stop(format!("it ended with status {status:#x}")),
    }
}

/// The registers of a virtual CPU, for the instruction's emulation.
struct Registers<'a>(&'a mut dyn VirtualCpu, u64);

impl RegisterFile for Registers<'_> {
    fn general(&self, number: u8) -> u64 {
        self.0.registers().get(number)
    }

    fn set_general(&mut self, number: u8, value: u64) {
        self.0.registers_mut().set(number, value);
    }

    fn flags(&self) -> u64 {
        self.1
    }

    fn set_flags(&mut self, flags: u64) {
        self.1 = flags;
    }

    fn rip(&self) -> u64 {
        self.0.rip()
    }

    fn segment_base(&self, segment: instruction::Segment) -> u64 {
        let name = match segment {
            instruction::Segment::Es => SegmentName::Es,
            instruction::Segment::Cs => SegmentName::Cs,
            instruction::Segment::Ss => SegmentName::Ss,
            instruction::Segment::Ds => SegmentName::Ds,
            instruction::Segment::Fs => SegmentName::Fs,
            instruction::Segment::Gs => SegmentName::Gs,
        };
        self.0.segment(name).base
    }
}

/// An access that the nested tables do not permit: to device registers that are emulated, to read-only memory, or to
/// nothing.
fn serve_memory<C: ConfigSpace, M: GuestMemoryAccess>(
    fault: &NestedPageFault,
    vcpu: &mut dyn VirtualCpu,
    platform: &mut Platform<M>,
    now: u64,
    services: &mut Services<'_, C>,
) -> Next {
    let stop = |why: &str| Next::Stop(format!("{why} at guest-physical {:#x}", fault.address));
    let stop_there = |why: &str| {
        stop(&format!("{why} where {},", if fault.present { "that is not permitted" } else { "no memory is" }))
    };
    if fault.malformed {
        return stop("its nested tables are malformed");
    }
    if fault.access == Access::Execute {
        return stop_there("it jumped to");
    }
    if fault.table_walk {
        return stop_there("its page tables are");
    }
    if fault.during_delivery {
        // The access is the processor's own, for an event; the instruction at RIP has nothing to do with it.
        return stop_there("its stack or descriptor tables are");
    }
    let instruction = match decode(vcpu, platform) {
        Ok(instruction) => instruction,
        Err(error) => return stop(&format!("it accessed no memory by an instruction that is not emulated ({error})")),
    };
    if let Some(string) = instruction.string() {
        let page = fault.address.align_down(PAGE_SIZE);
        return strings::serve(&instruction, &string, Some(page), vcpu, platform, now, services);
    }
    let paging = paging_of(vcpu);
    let mut registers = Registers(vcpu, 0);
    registers.1 = registers.0.control().rflags;
    let linear = instruction.linear_address(&registers);
    let width = instruction.width().bytes() as u8;
    let offset = linear & (PAGE_SIZE - 1);
    if offset + u64::from(width) > PAGE_SIZE {
        return stop("one access of it is to two pages,");
    }
    // The guest may have changed its code since the fault: then what is there now is not what faulted, and it runs on.
    let same = guest_paging::translate(linear, &paging, &platform.memory)
        .is_ok_and(|address| address.align_down(PAGE_SIZE) == fault.address.align_down(PAGE_SIZE));
    if !same {
        return Next::Run;
    }
    let address = GuestPhys::new(fault.address.as_u64() & !(PAGE_SIZE - 1) | offset);
    let mut read = u64::MAX;
    if instruction.reads_memory() {
        match platform.read_memory(address, width, now, services) {
            Some(value) => read = value,
            None => services.host.nothing_there(address),
        }
    }
    let flags_before = registers.1;
    let mut effect = None;
    if let Some(value) = instruction.execute(read, &mut registers) {
        match platform.write_memory(address, width, value, now, services) {
            Some(left) => effect = left,
            None => services.host.nothing_there(address),
        }
    }
    let flags = registers.1;
    if flags != flags_before {
        vcpu.set_rflags(flags);
    }
    vcpu.advance_to(instruction.next_rip(vcpu.rip()));
    serve_apic(effect, vcpu, platform, services)
}

/// Does what is left to do for the guest's local APIC after an access of the guest's: what it sent to itself and what is
/// no interrupt of the APIC's own reaches its processor here (SDM vol. 3, 11.6.1).
fn serve_apic<C: ConfigSpace, M: GuestMemoryAccess>(
    effect: Option<Effect>,
    vcpu: &mut dyn VirtualCpu,
    platform: &mut Platform<M>,
    services: &mut Services<'_, C>,
) -> Next {
    let Some(effect) = effect else { return Next::Run };
    if let Effect::InterProcessorInterrupt { destination, delivery_mode } = effect
        && platform.apic.is_destination(destination)
    {
        match delivery_mode {
            DeliveryMode::Nmi => vcpu.inject_nmi(),
            DeliveryMode::Init => {
                return Next::Stop("it reset its processor by an INIT, and has no firmware to start again".to_string());
            }
            // An SMI is the firmware's, of which there is none. Only a processor that waits for it takes a start-up IPI.
            DeliveryMode::Smi | DeliveryMode::StartUp(_) => {}
            // They have reached it.
            DeliveryMode::Fixed(_) | DeliveryMode::LowestPriority(_) => {}
        }
        if destination == Destination::Physical(platform.apic.id()) {
            return Next::Run;
        }
    }
    platform.apic_effect(effect, services.host);
    Next::Run
}
