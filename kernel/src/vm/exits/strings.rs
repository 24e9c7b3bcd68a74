//! String instructions that reach I/O ports or device registers: an element at a time, each with the checks that the
//! processor would have made, and only so many an exit. A guest with more of them executes the instruction again.

use super::{GENERAL_PROTECTION, Next, Registers, code_size, paging_of, serve_apic};
use crate::vcpu::VirtualCpu;
use crate::vm::guest_paging::{self, AccessError, DataAccess};
use crate::vm::instruction::{CodeSize, Instruction, Part, RegisterFile, StringKind, StringOperation};
use crate::vm::local_apic::Effect;
use crate::vm::memory::GuestMemoryAccess;
use crate::vm::platform::{Outcome, Platform, Services};
use addr::{GuestPhys, PAGE_SIZE};
use alloc::format;
use alloc::string::String;
use pci::ConfigSpace;

/// Most elements that one exit moves: enough that the exit costs little beside them, and few enough that nobody waits.
const MAXIMUM_ELEMENTS: u32 = 256;
/// The accumulator: AL, AX, EAX or RAX.
const ACCUMULATOR: Part = Part { number: 0, high: false };
/// DX: the port.
const PORT: u8 = 2;
/// RFLAGS.TF.
const RFLAGS_TRAP: u64 = 1 << 8;
/// RFLAGS.AC.
const RFLAGS_ALIGNMENT_CHECK: u64 = 1 << 18;
/// CR4.LA57: linear addresses have 57 bits.
const CR4_LA57: u64 = 1 << 12;

/// Why an element is not moved.
enum Trouble {
    /// The guest gets a page fault.
    PageFault { linear: u64, code: u32 },
    /// The guest gets a general-protection exception.
    GeneralProtection,
    /// The guest is stopped.
    Stop(String),
    /// What is there is not the instruction that exited: the guest has changed its code, and runs on.
    Changed,
}

/// Runs `instruction`, which is a string instruction, from where it stands. With `faulted`, its first element must reach
/// that page.
pub fn serve<C: ConfigSpace, M: GuestMemoryAccess>(
    instruction: &Instruction,
    string: &StringOperation,
    faulted: Option<GuestPhys>,
    vcpu: &mut dyn VirtualCpu,
    platform: &mut Platform<M>,
    now: u64,
    services: &mut Services<'_, C>,
) -> Next {
    let mut faulted = faulted;
    let flags = vcpu.control().rflags;
    let end = instruction.next_rip(vcpu.rip());
    for _ in 0..MAXIMUM_ELEMENTS {
        if instruction.elements_left(string, &Registers(vcpu, flags)) == 0 {
            vcpu.advance_to(end);
            return Next::Run;
        }
        let mut element = Element { instruction, string, vcpu, platform, now, services };
        let (outcome, effect) = match element.serve(faulted.take()) {
            Ok(done) => done,
            Err(Trouble::PageFault { linear, code }) => {
                vcpu.inject_page_fault(linear, code);
                return Next::Run;
            }
            Err(Trouble::GeneralProtection) => {
                vcpu.inject_exception(GENERAL_PROTECTION, Some(0));
                return Next::Run;
            }
            Err(Trouble::Stop(why)) => return Next::Stop(why),
            Err(Trouble::Changed) => return Next::Run,
        };
        let mut registers = Registers(vcpu, flags);
        instruction.next_element(string, &mut registers);
        let last = !string.repeat || instruction.elements_left(string, &registers) == 0;
        if last {
            vcpu.advance_to(end);
        } else if flags & RFLAGS_TRAP != 0 {
            // A guest that single-steps stops after each element, and comes back.
            vcpu.advance_to(vcpu.rip());
        }
        let next = match outcome {
            Outcome::Continue => serve_apic(effect, vcpu, platform, services),
            outcome => super::ended(outcome),
        };
        if last || next != Next::Run || vcpu.pending_event().is_some() {
            return next;
        }
    }
    Next::Run
}

/// One element.
struct Element<'a, 's, C, M> {
    instruction: &'a Instruction,
    string: &'a StringOperation,
    vcpu: &'a mut dyn VirtualCpu,
    platform: &'a mut Platform<M>,
    now: u64,
    services: &'a mut Services<'s, C>,
}

impl<C: ConfigSpace, M: GuestMemoryAccess> Element<'_, '_, C, M> {
    /// Moves it: nothing is read from a device before it is known that the guest can take it.
    fn serve(&mut self, faulted: Option<GuestPhys>) -> Result<(Outcome, Option<Effect>), Trouble> {
        let width = self.instruction.width();
        let bytes = width.bytes() as u8;
        let [source, destination] = self.instruction.elements(self.string, &Registers(self.vcpu, 0));
        let mut reached = faulted.is_none();
        for (element, write) in [(source, false), (destination, true)] {
            let Some(linear) = element else { continue };
            let at = self.translate(linear, write)?;
            reached |= faulted == Some(at.align_down(PAGE_SIZE));
            if linear % PAGE_SIZE + u64::from(bytes) > PAGE_SIZE {
                // The fault is at the first byte that is in the other page.
                self.translate((linear | (PAGE_SIZE - 1)).wrapping_add(1), write)?;
            }
        }
        if !reached {
            return Err(Trouble::Changed);
        }
        let port = Registers(self.vcpu, 0).general(PORT) as u16;
        let value = match (source, self.string.kind) {
            (Some(linear), _) => self.access(linear, None)?.0,
            (None, StringKind::Input) => self.platform.read_port(port, bytes, self.services).into(),
            _ => ACCUMULATOR.read(width, &Registers(self.vcpu, 0)),
        };
        let mut done = (Outcome::Continue, None);
        match (destination, self.string.kind) {
            (Some(linear), _) => done.1 = self.access(linear, Some(value))?.1,
            (None, StringKind::Output) => {
                done.0 = self.platform.write_port(port, bytes, value as u32, self.services);
            }
            _ => ACCUMULATOR.write(width, value, &mut Registers(self.vcpu, 0)),
        }
        Ok(done)
    }

    fn translate(&mut self, linear: u64, write: bool) -> Result<GuestPhys, Trouble> {
        let control = self.vcpu.control();
        let unused = if control.cr4 & CR4_LA57 != 0 { 7 } else { 16 };
        let canonical = ((linear << unused) as i64 >> unused) as u64 == linear;
        if code_size(self.vcpu) == CodeSize::Bits64 && !canonical {
            return Err(Trouble::GeneralProtection);
        }
        let user = control.privilege_level == 3;
        let access = DataAccess { write, user, alignment_check: control.rflags & RFLAGS_ALIGNMENT_CHECK != 0 };
        let paging = paging_of(self.vcpu);
        guest_paging::translate_access(linear, access, &paging, &mut self.platform.memory).map_err(
            |error| match error {
                AccessError::PageFault(code) => Trouble::PageFault { linear, code },
                AccessError::Table(out) => Trouble::Stop(format!("its page tables are where no memory is ({out})")),
            },
        )
    }

    /// Reads the element at `linear`, or writes it: whole, or byte by byte where it is in two pages. What was read, and
    /// what a write leaves to do.
    fn access(&mut self, linear: u64, write: Option<u64>) -> Result<(u64, Option<Effect>), Trouble> {
        let bytes = self.instruction.width().bytes();
        let piece = if linear % PAGE_SIZE + bytes as u64 > PAGE_SIZE { 1 } else { bytes };
        let (mut read, mut effect) = (0, None);
        for offset in (0..bytes).step_by(piece) {
            let at = self.translate(linear.wrapping_add(offset as u64), write.is_some())?;
            let mut memory = write.map_or(0, |value| value >> (8 * offset)).to_le_bytes();
            let part = memory.get_mut(..piece).unwrap_or_default();
            let (platform, services) = (&mut *self.platform, &mut *self.services);
            let is_there = match write {
                Some(value) => {
                    match platform.write_memory(at, piece as u8, value >> (8 * offset), self.now, services) {
                        Some(left) => {
                            effect = left;
                            true
                        }
                        None => platform.memory.write(at, part).is_ok(),
                    }
                }
                None => match platform.read_memory(at, piece as u8, self.now, services) {
                    Some(value) => {
                        memory = value.to_le_bytes();
                        true
                    }
                    None => platform.memory.read(at, part).is_ok(),
                },
            };
            if !is_there {
                memory = [0xff; 8];
                services.host.nothing_there(at);
            }
            read |= (u64::from_le_bytes(memory) & u64::MAX >> (64 - 8 * piece)) << (8 * offset);
        }
        Ok((read, effect))
    }
}
