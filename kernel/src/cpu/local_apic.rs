//! This processor's local APIC: which way its registers are reached, its id, its timer.

#![expect(unsafe_code, reason = "the local APIC's registers")]

use crate::cpu::interrupts;
use crate::memory::address_space::{self, MappingError};
use crate::time;
use crate::vcpu::notification::Processor;
use addr::{ApicId, HostPhys, PAGE_SIZE, Vector};
use apic::spec::local_apic::{IA32_TSC_DEADLINE, Register, TimerDivide, apic_base};
use apic::{ApicMode, Destination, InterruptCommand, LocalApic, LocalApicAccess, LocalApicError};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use spin::{Mutex, Once};
use vtd::DestinationMode;
use x86_64::registers::model_specific::Msr;

const CPUID_X2APIC: u32 = 1 << 21;
const CPUID_TSC_DEADLINE: u32 = 1 << 24;
/// How long the timer's rate is measured, in microseconds.
const MEASUREMENT_US: u64 = 5_000;

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
struct Access {
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

static APIC: Once<Mutex<LocalApic<Access>>> = Once::new();
/// For the handlers: [`Access::registers`], or all ones before the APIC is there.
static REGISTERS: AtomicU64 = AtomicU64::new(u64::MAX);
static ID: AtomicU32 = AtomicU32::new(0);
static TIMER_VECTOR: AtomicU32 = AtomicU32::new(0);
/// The deadline that the timer runs for, or 0.
static STARTED_FOR: AtomicU64 = AtomicU64::new(0);
/// The timer is in TSC-deadline mode, and stays in it.
static HAS_DEADLINE: AtomicBool = AtomicBool::new(false);
/// Timer ticks in 2^20 ticks of the time-stamp counter. Not measured where there is TSC-deadline mode.
static TIMER_RATE: AtomicU64 = AtomicU64::new(0);

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
    apic.enable(interrupts::SPURIOUS).map_err(StartError::Apic)?;
    let vector = interrupts::allocate(interrupts::Source::Timer).ok_or(StartError::NoVector)?;
    ID.store(apic.read_id().0, Ordering::Relaxed);
    TIMER_VECTOR.store(vector.0.into(), Ordering::Relaxed);
    REGISTERS.store(registers, Ordering::Release);
    if core::arch::x86_64::__cpuid(1).ecx & CPUID_TSC_DEADLINE != 0 {
        apic.set_timer_deadline_mode(vector).map_err(StartError::Apic)?;
        // The write of the entry may be one to memory, and WRMSR would not wait for it.
        // SAFETY: a fence changes nothing.
        unsafe { core::arch::asm!("mfence", options(nostack, preserves_flags)) };
        HAS_DEADLINE.store(true, Ordering::Relaxed);
    } else {
        measure_timer(&mut apic);
    }
    let mode = apic.mode();
    APIC.call_once(|| Mutex::new(apic));
    Ok(mode)
}

fn measure_timer(apic: &mut LocalApic<Access>) {
    apic.start_timer_masked(TimerDivide::By1, u32::MAX);
    let start = time::ticks();
    time::wait_until(MEASUREMENT_US, || false);
    let elapsed = time::ticks().wrapping_sub(start).max(1);
    let counted = u64::from(u32::MAX - apic.read_timer_count());
    let rate = (u128::from(counted) << 20) / u128::from(elapsed);
    TIMER_RATE.store((rate as u64).max(1), Ordering::Relaxed);
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

/// Lets the timer interrupt once when the time-stamp counter has reached about `deadline`. A deadline further away
/// than the timer can count makes it interrupt earlier; the caller looks at the time anyway. Called at every exit with
/// a deadline that is usually the same: the timer that runs for it already is left alone, for each of its registers
/// costs as much as the rest of an exit, and under another hypervisor an exit of its own.
pub fn start_timer(deadline: u64) {
    let Some(apic) = APIC.get() else { return };
    if interrupts::take_timer() {
        STARTED_FOR.store(0, Ordering::Relaxed);
    }
    if STARTED_FOR.swap(deadline, Ordering::Relaxed) == deadline {
        return;
    }
    if has_deadline() {
        return write_deadline(deadline);
    }
    let remaining = deadline.saturating_sub(time::ticks());
    let ticks = (u128::from(remaining) * u128::from(TIMER_RATE.load(Ordering::Relaxed))) >> 20;
    // Zero would stop the timer instead of letting it fire at once.
    let ticks = ticks.clamp(1, u32::MAX.into()) as u32;
    let vector = Vector(TIMER_VECTOR.load(Ordering::Relaxed) as u8);
    // Fails for an illegal vector only, and this one was allocated.
    let _ = apic.lock().start_timer_one_shot(vector, TimerDivide::By1, ticks);
}

/// Whether the timer is in TSC-deadline mode, in which it can be lent to a guest.
pub fn has_deadline() -> bool {
    HAS_DEADLINE.load(Ordering::Relaxed)
}

/// Lends the timer to a guest, which sets its deadline by writing IA32_TSC_DEADLINE itself; it begins with `deadline`, 0 for
/// none. Until [`take_back`] nobody may call [`start_timer`].
pub fn lend(deadline: u64) {
    stop_deadline();
    write_deadline(deadline);
}

/// Whether the deadline of the guest that has the timer is reached, or none is set; asked after an interrupt, for which the
/// guest may have set another since, or which somebody forged. The guest is to be told then: the deadline is no more.
pub fn take_deadline_reached() -> bool {
    let deadline = read_deadline();
    if deadline > time::ticks() {
        return false;
    }
    if deadline != 0 {
        // Not every processor clears the register when the deadline is reached.
        write_deadline(0);
    }
    true
}

/// Takes the timer back. The deadline that the guest has set last and was not told of, 0 for none, which may be over; and
/// whether one before was reached of which it was not told.
pub fn take_back() -> (u64, bool) {
    let deadline = read_deadline();
    let interrupted = stop_deadline();
    // An interrupt of this deadline's says no more than that it is over, and one that has nothing to do with it nothing.
    (deadline, interrupted && deadline == 0)
}

/// Stops the timer. Whether it had interrupted, or was about to.
fn stop_deadline() -> bool {
    write_deadline(0);
    interrupts::take_pending();
    STARTED_FOR.store(0, Ordering::Relaxed);
    interrupts::take_timer()
}

fn read_deadline() -> u64 {
    // SAFETY: the processor has the register: `has_deadline`. Reading it has no effect.
    unsafe { Msr::new(IA32_TSC_DEADLINE).read() }
}

fn write_deadline(deadline: u64) {
    // SAFETY: as above; the timer's interrupt has a handler.
    unsafe { Msr::new(IA32_TSC_DEADLINE).write(deadline) }
}
