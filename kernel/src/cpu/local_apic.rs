//! This processor's local APIC: which way its registers are reached, its id, and what handlers do with it.

#![expect(unsafe_code, reason = "the local APIC's registers")]

use crate::memory::address_space::{self, MappingError};
use crate::vcpu::notification::Processor;
use addr::{ApicId, HostPhys, PAGE_SIZE, Vector};
use apic::spec::local_apic::{Register, apic_base};
use apic::{ApicMode, Destination, InterruptCommand, LocalApic, LocalApicAccess, LocalApicError};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use spin::{Mutex, Once};
use vtd::DestinationMode;
use x86_64::registers::model_specific::Msr;

const CPUID_X2APIC: u32 = 1 << 21;
/// The spurious vector: it has no in-service bit, so it is not acknowledged.
pub const SPURIOUS: Vector = Vector(0xf0);

/// Why the local APIC cannot be used.
#[derive(Debug)]
pub enum StartError {
    /// Its registers could not be mapped.
    Mapping(MappingError),
    /// It refused.
    Apic(LocalApicError),
    /// No vector is left for its timer.
    NoVector,
}

impl core::fmt::Display for StartError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Mapping(error) => write!(f, "its registers: {error}"),
            Self::Apic(error) => write!(f, "{error}"),
            Self::NoVector => f.write_str("no interrupt vector is left for its timer"),
        }
    }
}

/// How the registers are reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    /// Where they are in xAPIC mode; 0 in x2APIC mode, in which they are model-specific registers.
    registers: u64,
}

impl LocalApicAccess for Access {
    fn mode(&self) -> ApicMode {
        if self.registers == 0 { ApicMode::X2Apic } else { ApicMode::XApic }
    }

    fn read(&self, register: Register) -> u32 {
        match self.mode() {
            // SAFETY: the page at `registers` is the local APIC's, mapped uncached; offsets are inside it.
            ApicMode::XApic => unsafe {
                ((self.registers + register.xapic_offset() as u64) as *const u32).read_volatile()
            },
            // SAFETY: the processor is in x2APIC mode, and the driver reads only registers that exist in it.
            ApicMode::X2Apic => unsafe { Msr::new(register.x2apic_msr()).read() as u32 },
        }
    }

    fn write(&mut self, register: Register, value: u32) {
        match self.mode() {
            // SAFETY: as for `read`; nothing that is written here makes the APIC touch memory.
            ApicMode::XApic => unsafe {
                ((self.registers + register.xapic_offset() as u64) as *mut u32).write_volatile(value);
            },
            // SAFETY: as for `read`.
            ApicMode::X2Apic => unsafe { Msr::new(register.x2apic_msr()).write(value.into()) },
        }
    }

    fn write_icr(&mut self, value: u64) {
        match self.mode() {
            ApicMode::XApic => {
                self.write(Register::INTERRUPT_COMMAND_HIGH, (value >> 32) as u32);
                self.write(Register::INTERRUPT_COMMAND, value as u32);
            }
            // SAFETY: the register exists in x2APIC mode. The fence makes memory written for the receiver visible
            // before the interrupt: WRMSR to an x2APIC register does not wait for earlier stores (SDM 12.12.3).
            ApicMode::X2Apic => unsafe {
                core::arch::asm!("mfence", "lfence", options(nostack, preserves_flags));
                Msr::new(Register::INTERRUPT_COMMAND.x2apic_msr()).write(value);
            },
        }
    }
}

pub(super) static APIC: Once<Mutex<LocalApic<Access>>> = Once::new();
/// For the handlers: [`Access::registers`], or all ones before the APIC is there.
static REGISTERS: AtomicU64 = AtomicU64::new(u64::MAX);
static ID: AtomicU32 = AtomicU32::new(0);

/// Whether the processor has x2APIC mode.
pub fn has_x2apic() -> bool {
    core::arch::x86_64::__cpuid(1).ecx & CPUID_X2APIC != 0
}

/// Takes over the local APIC: in x2APIC mode if `x2apic`, else in xAPIC mode. Everything that firmware left armed is
/// masked, and priority class 1 and below is blocked, so that no forged message reaches an exception handler.
pub fn start(x2apic: bool) -> Result<ApicMode, StartError> {
    let mut base = Msr::new(apic_base::MSR);
    // SAFETY: every x86-64 processor has the register. The transitions are those that SDM 12.12.5 allows: x2APIC mode
    // is entered from enabled xAPIC mode, and left by way of disabled only.
    let registers = unsafe {
        let value = base.read();
        if value & apic_base::X2APIC_ENABLE != 0 && !x2apic {
            base.write(value & !(apic_base::X2APIC_ENABLE | apic_base::GLOBAL_ENABLE));
        }
        let value = base.read() | apic_base::GLOBAL_ENABLE;
        base.write(value);
        if x2apic {
            base.write(value | apic_base::X2APIC_ENABLE);
            0
        } else {
            let page = HostPhys::new(value & apic_base::ADDRESS);
            address_space::map_device(page, PAGE_SIZE).map_err(StartError::Mapping)?.as_ptr() as u64
        }
    };
    let mut apic = LocalApic::new(Access { registers });
    apic.enable(SPURIOUS).map_err(StartError::Apic)?;
    ID.store(apic.read_id().0, Ordering::Relaxed);
    REGISTERS.store(registers, Ordering::Release);
    let mode = apic.mode();
    APIC.call_once(|| Mutex::new(apic));
    Ok(mode)
}

/// This processor's APIC id.
pub fn id() -> ApicId {
    ApicId(ID.load(Ordering::Relaxed))
}

/// This processor, as a destination of notifications. `None` before the local APIC is there.
pub fn processor() -> Option<Processor> {
    let mode = match REGISTERS.load(Ordering::Acquire) {
        u64::MAX => return None,
        0 => DestinationMode::X2Apic,
        _ => DestinationMode::XApic,
    };
    Processor::new(id(), mode)
}

/// Sends a notification to a processor. Takes no lock: it is called by handlers, which nothing interrupts.
pub fn notify(processor: ApicId, vector: Vector) {
    let registers = REGISTERS.load(Ordering::Acquire);
    if registers != u64::MAX {
        let to = Destination::Physical(processor);
        // It cannot fail for a processor that runs a vCPU: its id was one that the mode can address.
        let _ = LocalApic::new(Access { registers }).send(InterruptCommand::Fixed(vector), to);
    }
}

/// Ends the interrupt in service. Takes no lock: it is called by handlers.
pub fn end_of_interrupt() {
    let registers = REGISTERS.load(Ordering::Acquire);
    if registers != u64::MAX {
        LocalApic::new(Access { registers }).end_of_interrupt();
    }
}
