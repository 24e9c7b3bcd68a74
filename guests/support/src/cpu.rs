//! The processor: ports, model-specific registers, the time-stamp counter, and powering off.

use core::arch::x86_64::{__cpuid, _rdtsc};
use x86_64::instructions::port::Port;
use x86_64::registers::model_specific::Msr;

/// PM1a_CNT of the q35 machine, and of the hypervisor's virtual one.
const PM1A_CONTROL: u16 = 0x604;
/// SLP_EN with the sleep type 0, which that machine takes for "off".
const POWER_OFF: u16 = 0x2000;

/// Reads one byte from a port.
pub fn read_port8(port: u16) -> u8 {
    // SAFETY: a guest owns its whole machine, and the ports that it reads have no effect on memory.
    unsafe { Port::new(port).read() }
}

/// Writes one byte to a port.
pub fn write_port8(port: u16, value: u8) {
    // SAFETY: as above; no port that a guest writes makes a device write to memory that Rust knows of.
    unsafe { Port::new(port).write(value) }
}

/// Reads four bytes from a port.
pub fn read_port32(port: u16) -> u32 {
    // SAFETY: as for `read_port8`.
    unsafe { Port::new(port).read() }
}

/// Writes four bytes to a port.
pub fn write_port32(port: u16, value: u32) {
    // SAFETY: as for `write_port8`. A PCI command register is written through here: what the device then does to
    // memory is decided by the descriptors that its driver gives it.
    unsafe { Port::new(port).write(value) }
}

/// Reads a model-specific register, which must exist: else there is an exception.
pub fn read_msr(register: u32) -> u64 {
    // SAFETY: reading a register changes no memory; at worst there is an exception, which has a handler.
    unsafe { Msr::new(register).read() }
}

/// Writes a model-specific register, which must exist. For IA32_APIC_BASE and the x2APIC's registers only.
pub fn write_msr(register: u32, value: u64) {
    // SAFETY: these registers decide which vectors arrive, and every
    // vector has a handler.
    unsafe { Msr::new(register).write(value) }
}

/// EAX, EBX, ECX and EDX of a CPUID leaf.
pub fn cpuid(leaf: u32) -> [u32; 4] {
    let result = __cpuid(leaf);
    [result.eax, result.ebx, result.ecx, result.edx]
}

/// The time-stamp counter.
pub fn time_stamp() -> u64 {
    // SAFETY: every x86-64 processor has RDTSC, and guests run in ring 0.
    unsafe { _rdtsc() }
}

/// Powers the machine off; halts for ever if it stays on.
pub fn power_off() -> ! {
    x86_64::instructions::interrupts::disable();
    // SAFETY: the write ends the machine, and with it everything that could be unsound.
    unsafe { Port::new(PM1A_CONTROL).write(POWER_OFF) }
    loop {
        x86_64::instructions::hlt();
    }
}
