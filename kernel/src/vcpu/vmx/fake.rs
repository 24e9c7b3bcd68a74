//! A processor that does what a test says.

#![expect(unsafe_code, reason = "frames for the engine under test")]

extern crate std;

use crate::vcpu::vmx::capability::{Allowed, Capabilities, FixedBits};
use crate::vcpu::vmx::processor::{EntryError, Processor};
use crate::vcpu::vmx::spec::field::*;
use crate::vcpu::vmx::spec::msr::{self, EptVpid};
use crate::vcpu::vmx::virtual_cpu::Plan;
use crate::vcpu::vmx::{Controls, HostState, VmxVirtualCpu};
use crate::vcpu::{FrameSource, Registers, Start, VirtualCpu};
use addr::{HostPhys, Vector};
use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed};
use std::boxed::Box;
use std::collections::{HashMap, VecDeque};
use std::vec::Vec;

type Fields = HashMap<u32, u64>;
/// What the processor does at one entry.
type Step = Box<dyn FnOnce(&mut Script, &mut Registers) -> Result<(), EntryError>>;

/// A processor that follows a script and keeps what it was given.
#[derive(Default)]
pub struct Script {
    fields: Fields,
    steps: VecDeque<Step>,
    /// The control structure at each entry.
    pub entries: Vec<Fields>,
    /// What was invalidated.
    pub invalidations: Vec<(u64, Option<u16>)>,
    /// The interrupts whose handlers ran.
    pub served: Vec<Option<Vector>>,
    /// How often the NMI handler ran.
    pub nmis: u32,
    /// DR6.
    pub debug_status: u64,
}

impl Processor for Script {
    fn read(&self, encoding: u32) -> u64 {
        self.fields.get(&encoding).copied().unwrap_or(0)
    }

    fn write(&mut self, encoding: u32, value: u64) {
        self.fields.insert(encoding, value);
    }

    fn enter(&mut self, registers: &mut Registers, _: &mut u64) -> Result<(), EntryError> {
        self.entries.push(self.fields.clone());
        let step = self.steps.pop_front().expect("one entry more than the script has");
        self.fields.insert(IDT_VECTORING_INFORMATION.encoding(), 0);
        let result = step(self, registers);
        if result.is_ok() && self.get(EXIT_REASON) >> 31 == 0 {
            // What the processor does at every exit.
            self.change(ENTRY_INTERRUPTION_INFORMATION, |information| information & !(1 << 31));
            let long = self.get(GUEST_EFER) & 1 << 10 != 0;
            self.change(ENTRY_CONTROLS, |controls| controls & !(1 << 9) | u32::from(long) << 9);
        }
        result
    }

    fn invalidate(&mut self, ept_pointer: u64, virtual_processor: Option<u16>) {
        self.invalidations.push((ept_pointer, virtual_processor));
    }

    fn serve_interrupt(&mut self, vector: Option<Vector>) {
        self.served.push(vector);
    }

    fn serve_nmi(&mut self) {
        self.nmis += 1;
    }

    fn debug_status(&self) -> u64 {
        self.debug_status
    }

    fn set_debug_status(&mut self, value: u64) {
        self.debug_status = value;
    }
}

impl Script {
    /// At the next entry, runs the guest and exits.
    pub fn then(mut self, step: impl FnOnce(&mut Script, &mut Registers) + 'static) -> Self {
        self.steps.push_back(Box::new(|script, registers| {
            step(script, registers);
            Ok(())
        }));
        self
    }

    /// At the next entry, exits with `reason` and nothing else changed.
    pub fn exits(self, reason: u16) -> Self {
        self.then(move |script, _| script.exit(reason))
    }

    /// At the next entry, refuses.
    pub fn refuses(mut self, error: EntryError) -> Self {
        self.steps.push_back(Box::new(move |_, _| Err(error)));
        self
    }

    /// What the processor writes at an exit.
    pub fn exit(&mut self, reason: u16) {
        self.fields.insert(EXIT_REASON.encoding(), reason.into());
    }

    /// Writes a field that only the processor writes.
    pub fn say<W: Width>(&mut self, field: Field<W, ReadOnly>, value: u64) {
        self.fields.insert(field.encoding(), value);
    }

    /// Changes a field.
    pub fn change<W: Width>(&mut self, field: Field<W>, change: impl FnOnce(W::Value) -> W::Value) {
        let value = change(self.get(field));
        self.set(field, value);
    }

    /// A field at an entry.
    pub fn at<W: Width, A: Writability>(&self, entry: usize, field: Field<W, A>) -> W::Value {
        W::truncate(self.entries[entry].get(&field.encoding()).copied().unwrap_or(0))
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

/// Bochs's corei7_skylake_x.
pub fn skylake_msr(register: u32) -> u64 {
    match register {
        msr::FEATURE_CONTROL => 5,
        msr::VMX_BASIC => 0x00d8_1000_0000_0001 | msr::BASIC_TRUE_CONTROLS,
        msr::VMX_TRUE_PINBASED_CTLS => 0x0000_00ff_0000_0016,
        msr::VMX_TRUE_PROCBASED_CTLS => 0xfff9_fffe_0400_6172,
        msr::VMX_PROCBASED_CTLS2 => 0x0257_7fff_0000_0000,
        msr::VMX_TRUE_EXIT_CTLS => 0x007f_ffff_0003_6dfb,
        msr::VMX_TRUE_ENTRY_CTLS => 0x0000_ffff_0000_11fb,
        msr::VMX_MISC => 0x2004_01e0,
        msr::VMX_CR0_FIXED0 => 0x8000_0021,
        msr::VMX_CR0_FIXED1 => 0xffff_ffff,
        msr::VMX_CR4_FIXED0 => 0x2000,
        msr::VMX_CR4_FIXED1 => 0x0037_67ff,
        msr::VMX_EPT_VPID_CAP => 0x0f01_0673_4141,
        other => panic!("reading {other:#x} faults"),
    }
}

/// Its CPUID, EAX and ECX.
pub fn skylake_cpuid(leaf: u32) -> (u32, u32) {
    match leaf {
        1 => (0, 1 << 5),
        0x8000_0008 => (0x3028, 0),
        _ => (0, 0),
    }
}

/// What it can do.
pub const SKYLAKE: Capabilities = Capabilities {
    revision: 1,
    pin: Allowed { must: 0x16, may: 0xff },
    primary: Allowed { must: 0x0400_6172, may: 0xfff9_fffe },
    secondary: Allowed { must: 0, may: 0x0257_7fff },
    exit: Allowed { must: 0x0003_6dfb, may: 0x007f_ffff },
    entry: Allowed { must: 0x11fb, may: 0xffff },
    cr0: FixedBits { must: 0x8000_0021, may: 0xffff_ffff },
    cr4: FixedBits { must: 0x2000, may: 0x0037_67ff },
    ept_vpid: EptVpid::from_bits_retain(0x0f01_0673_4141),
    preemption_timer_rate: 0,
    physical_address_bits: 40,
};

/// A host that entry accepts.
pub const HOST: HostState = HostState {
    control: [0x8001_0033, 0x5000, 0x2020],
    selectors: [0x10, 0x08, 0x10, 0x10, 0, 0, 0x18],
    bases: [0, 0, 0xffff_8000_0000_1000, 0xffff_8000_0000_2000, 0xffff_8000_0000_3000],
    sysenter: [0, 0, 0],
    pat: 0x0007_0406_0007_0406,
    efer: 0xd00,
    rip: 0xffff_ffff_8100_0000,
    speculation_control: 4,
};

pub const ENTRY: u64 = 0x20_0000;
pub const ROOT: HostPhys = HostPhys::new(0x7000);

pub fn plan(capabilities: Capabilities) -> Plan {
    let (controls, _) = Controls::choose(&capabilities).unwrap();
    Plan { capabilities, controls, host: HOST, virtual_processor: Some(1), nested_root: ROOT }
}

pub fn cpu_with(capabilities: Capabilities, script: Script) -> VmxVirtualCpu<Script> {
    let mut frames = Frames { next: 0x100_0000, left: 100 };
    let mut cpu = VmxVirtualCpu::new(script, &mut frames, plan(capabilities)).unwrap();
    cpu.start(Start::Protected { entry: ENTRY as u32, rax: 0, information: 0x9000 });
    cpu
}

pub fn cpu(script: Script) -> VmxVirtualCpu<Script> {
    cpu_with(SKYLAKE, script)
}

/// A control structure that a processor would run.
pub fn runnable() -> Script {
    let mut cpu = cpu(Script::default().exits(12));
    cpu.run();
    cpu.into_processor()
}
