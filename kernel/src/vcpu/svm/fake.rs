//! A processor that does what a test says.

#![expect(unsafe_code, reason = "frames for the engine under test")]

extern crate std;

use crate::vcpu::svm::machine::WorldSwitch;
use crate::vcpu::svm::region::Region;
use crate::vcpu::svm::spec::vmcb::Vmcb;
use crate::vcpu::svm::{Capabilities, SvmVirtualCpu, initial};
use crate::vcpu::{FrameSource, Registers, Start, VirtualCpu};
use addr::HostPhys;
use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed};
use std::boxed::Box;
use std::collections::VecDeque;
use std::vec::Vec;

/// What the processor does at one entry.
pub type Step = Box<dyn FnOnce(&mut Vmcb, &mut Registers)>;

/// A processor that follows a script and keeps what it was given.
#[derive(Default)]
pub struct Script {
    steps: VecDeque<Step>,
    /// The control block at each entry.
    pub entries: Vec<Vmcb>,
}

impl WorldSwitch for Script {
    fn enter(&mut self, vmcb: &mut Region<Vmcb>, registers: &mut Registers) {
        self.entries.push(Vmcb::clone(vmcb));
        let step = self.steps.pop_front().expect("one entry more than the script has");
        // What the processor does with these fields at every exit.
        vmcb.control.exit_interrupt_info = 0;
        vmcb.control.event_injection = 0;
        step(vmcb, registers);
    }
}

impl Script {
    pub fn then(mut self, step: impl FnOnce(&mut Vmcb, &mut Registers) + 'static) -> Self {
        self.steps.push_back(Box::new(step));
        self
    }
}

/// Frames of the host's own memory, at made-up physical addresses.
pub struct Frames {
    pub next: u64,
    pub left: usize,
}

// SAFETY: each allocation is zeroed memory of its own that is never freed.
unsafe impl FrameSource for Frames {
    fn allocate(&mut self, frames: usize) -> Option<(HostPhys, NonNull<u8>)> {
        self.left = self.left.checked_sub(frames)?;
        let address = HostPhys::new(self.next);
        self.next += frames as u64 * 4096;
        let layout = Layout::from_size_align(frames * 4096, 4096).ok()?;
        // SAFETY: the layout is not empty.
        NonNull::new(unsafe { alloc_zeroed(layout) }).map(|pointer| (address, pointer))
    }
}

pub const EMULATOR: Capabilities = Capabilities {
    address_spaces: 16,
    next_rip: false,
    flush_by_asid: false,
    physical_address_bits: 40,
    is_tcg: false,
};

pub const ENTRY: u64 = 0x20_0000;
pub const ROOT: HostPhys = HostPhys::new(0x7000);

pub fn cpu_with(capabilities: Capabilities, script: Script) -> SvmVirtualCpu<Script> {
    let mut frames = Frames { next: 0x100_0000, left: 100 };
    let mut cpu = SvmVirtualCpu::new(script, &mut frames, capabilities, 1, ROOT).unwrap();
    cpu.start(Start::Protected { entry: ENTRY as u32, rax: 0, information: 0x9000 });
    cpu
}

pub fn cpu(script: Script) -> SvmVirtualCpu<Script> {
    cpu_with(EMULATOR, script)
}

/// A control block that a processor would run.
pub fn runnable_vmcb() -> Vmcb {
    let mut frames = Frames { next: 0, left: 1 };
    let mut vmcb: Region<Vmcb> = Region::allocate(&mut frames, "").unwrap();
    initial::set_control(&mut vmcb.control, 1, HostPhys::new(0x1000), HostPhys::new(0x4000), ROOT);
    initial::set_state(
        &mut vmcb.save,
        &Start::Protected { entry: ENTRY as u32, rax: 0, information: 0 }.initial_state(),
    );
    Vmcb::clone(&vmcb)
}
