//! What a guest finds around its processor: ports, device registers in memory, and the lines that it prints.
//!
//! Everything here is driven by accesses that the guest made. What must happen to the machine for one of them (an
//! interrupt's way, a line on the console) is done through [`Host`], so that a platform is logic and runs anywhere.

use crate::vm::acpi;
use crate::vm::clock::Clock;
use crate::vm::extended_state::ExtendedState;
use crate::vm::io_apic::{IoApic, Request};
use crate::vm::local_apic::{self, LocalApic};
use crate::vm::memory::{GuestMemory, GuestMemoryAccess};
use crate::vm::memory_map::IO_APIC;
use crate::vm::msr::Msrs;
use crate::vm::paravirtual_eoi::ParavirtualEoi;
use crate::vm::pci::{GuestPciBus, PciEffect, TrappedRead, TrappedWrite};
use crate::vm::rom;
use crate::vm::serial::{self, SerialPort};
use addr::{ApicId, GuestPhys, HostPhys, PAGE_SIZE, Vector};
use alloc::string::String;
use core::ops::Range;
use pci::{ConfigSpace, Width};

/// The ACPI power management control port of the guest's platform (that of QEMU's q35): a guest ends by writing
/// [`SLEEP_ENABLE`] there.
const PM1A_CONTROL: u16 = 0x604;
/// SLP_EN with SLP_TYP 0, which is S5 on this platform (ACPI 4.8.3.2.1).
const SLEEP_ENABLE: u32 = 1 << 13;
const SLEEP_TYPE: u32 = 7 << 10;

/// What a port reads where nothing is, one byte of it.
const NOTHING: u8 = 0xff;

/// What is the local APIC's by default, and nothing else's where it is not (SDM vol. 3, 11.4.1): it reads as all ones, and
/// what is written there is lost.
const INTERRUPT_RANGE: Range<u64> = 0xfee0_0000..0xfef0_0000;

/// What a platform needs of the machine beside configuration space.
pub trait Host {
    /// Something that the guest asked of its PCI functions: to be done before the access goes on. Returns whether it could
    /// be done.
    fn pci_effect(&mut self, effect: PciEffect) -> bool;
    /// XCR0 of the processor that runs the guest, which has one.
    fn xcr0(&self) -> u64;
    /// It is to be this, which the guest may have.
    fn set_xcr0(&mut self, value: u64);
    /// The guest's local APIC asks for an interrupt elsewhere.
    fn apic_effect(&mut self, effect: local_apic::Effect);
    /// The guest has rung its doorbell: `vector` is to reach its processor on the way of a device's message.
    fn doorbell(&mut self, vector: Vector);
    /// The guest has printed a line.
    fn line(&mut self, line: String);
    /// A load or a store where nothing is: it reads as all ones, or is forgotten, as in a machine.
    fn nothing_there(&mut self, address: GuestPhys);
    /// A read of a function's registers in a page that the guest may not have whole.
    fn read_register(&mut self, address: HostPhys, bytes: u8) -> u64;
    /// A write of such a register.
    fn write_register(&mut self, address: HostPhys, bytes: u8, value: u64);
    /// A read of a port of a function.
    fn read_real_port(&mut self, port: u16, bytes: u8) -> u32;
    /// A write of such a port.
    fn write_real_port(&mut self, port: u16, bytes: u8, value: u32);
}

/// The machine, as one access of a guest reaches it.
pub struct Services<'a, C> {
    /// Its configuration space.
    pub config: &'a mut C,
    /// All else.
    pub host: &'a mut dyn Host,
}

/// What an access means for the guest's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Outcome {
    /// It goes on.
    Continue,
    /// It has switched itself off.
    PowerOff,
    /// It has ended with this status, which is not zero, by its debug-exit port.
    Failed(u32),
    /// It has asked to be started again.
    Reset,
}

/// The platform of one guest, with memory of kind `M`.
pub struct Platform<M = GuestMemory> {
    /// Its memory.
    pub memory: M,
    /// The local APIC of its processor.
    pub apic: LocalApic,
    /// Its PCI bus.
    pub pci: GuestPciBus,
    /// Its model-specific registers.
    pub msrs: Msrs,
    /// Its processor's extended state.
    pub extended_state: ExtendedState,
    /// Its clock.
    pub clock: Clock,
    /// Its ends of interrupts without an exit; `None` where its processor does them by itself.
    pub paravirtual_eoi: Option<ParavirtualEoi>,
    /// The port, if any, by which the guest ends with a status: the register of QEMU's isa-debug-exit.
    pub debug_exit_port: Option<u16>,
    /// The port, if any, where the guest asks for an interrupt that takes the way of a device's.
    pub doorbell_port: Option<u16>,
    serial: SerialPort,
    io_apic: IoApic,
}

impl<M: GuestMemoryAccess> Platform<M> {
    /// The platform of a guest with `memory` and the functions of `pci`.
    pub fn new(memory: M, pci: GuestPciBus, physical_address_bits: u8) -> Self {
        let apic = LocalApic::new(ApicId(0), true, physical_address_bits);
        let serial = SerialPort::default();
        let io_apic = IoApic::new(acpi::IO_APIC_ID);
        let (msrs, clock, paravirtual_eoi) = (Msrs::default(), Clock::default(), None);
        Self {
            memory,
            apic,
            pci,
            msrs,
            extended_state: ExtendedState::default(),
            clock,
            paravirtual_eoi,
            debug_exit_port: None,
            doorbell_port: None,
            serial,
            io_apic,
        }
    }

    /// A read of `bytes` bytes (1, 2 or 4) from an I/O port. A port where nothing is reads as all ones.
    pub fn read_port<C: ConfigSpace>(&mut self, port: u16, bytes: u8, services: &mut Services<'_, C>) -> u32 {
        let Some(width) = Width::from_bytes(bytes.into()) else { return u32::MAX };
        if GuestPciBus::claims_port(port) {
            return self.pci.read_port(services.config, port, width);
        }
        if let Some(real) = self.pci.real_port(port, bytes.into()) {
            return services.host.read_real_port(real, bytes);
        }
        // An access of several bytes reaches that many 8-bit registers, as on the bus behind an LPC bridge.
        (0..bytes).rev().fold(0, |value, byte| value << 8 | u32::from(self.read_byte(port.wrapping_add(byte.into()))))
    }

    fn read_byte(&mut self, port: u16) -> u8 {
        let Some(offset) = serial_offset(port) else { return NOTHING };
        let value = self.serial.read(offset);
        self.update_serial_line();
        value
    }

    /// A write of `bytes` bytes (1, 2 or 4) to an I/O port. A port where nothing is takes it and forgets it.
    pub fn write_port<C: ConfigSpace>(
        &mut self,
        port: u16,
        bytes: u8,
        value: u32,
        services: &mut Services<'_, C>,
    ) -> Outcome {
        let Some(width) = Width::from_bytes(bytes.into()) else { return Outcome::Continue };
        if GuestPciBus::claims_port(port) {
            let host = &mut *services.host;
            self.pci.write_port(services.config, port, width, value, &mut |effect| host.pci_effect(effect));
            return Outcome::Continue;
        }
        if self.debug_exit_port == Some(port) {
            return if value == 0 { Outcome::PowerOff } else { Outcome::Failed(value) };
        }
        if port == PM1A_CONTROL && bytes >= 2 && value & (SLEEP_ENABLE | SLEEP_TYPE) == SLEEP_ENABLE {
            return Outcome::PowerOff;
        }
        if port == acpi::SLEEP_CONTROL && value as u8 == acpi::SLEEP_OFF {
            return Outcome::PowerOff;
        }
        if port == acpi::RESET_CONTROL && value as u8 & acpi::RESET == acpi::RESET {
            return Outcome::Reset;
        }
        if self.doorbell_port == Some(port) {
            services.host.doorbell(Vector(value as u8));
            return Outcome::Continue;
        }
        if let Some(real) = self.pci.real_port(port, bytes.into()) {
            services.host.write_real_port(real, bytes, value);
            return Outcome::Continue;
        }
        for byte in 0..u16::from(bytes) {
            let Some(offset) = serial_offset(port.wrapping_add(byte)) else { continue };
            if let Some(line) = self.serial.write(offset, (value >> (8 * byte)) as u8) {
                services.host.line(line);
            }
            self.update_serial_line();
        }
        Outcome::Continue
    }

    /// A read of `bytes` bytes (1, 2, 4 or 8) that the nested tables do not permit, at `now` in ticks; `None` where
    /// nothing is. It is of registers, or for a write to [`rom`].
    pub fn read_memory<C: ConfigSpace>(
        &mut self,
        address: GuestPhys,
        bytes: u8,
        now: u64,
        services: &mut Services<'_, C>,
    ) -> Option<u64> {
        // Registers are 32 bits; what another access does is undefined (SDM vol. 3, 12.4.1).
        if let Some(offset) = self.apic_page_offset(address) {
            return Some(if bytes == 4 { self.apic.read_page(offset, now).into() } else { u64::MAX });
        }
        if let Some(offset) = offset_in_page(address, IO_APIC) {
            return Some(if bytes == 4 { self.io_apic.read(offset).into() } else { u64::MAX });
        }
        if INTERRUPT_RANGE.contains(&address.as_u64()) {
            return Some(u64::MAX);
        }
        if rom::contains(address) {
            let mut value = [0; 8];
            self.memory.read(address, value.get_mut(..bytes.into())?).ok()?;
            return Some(u64::from_le_bytes(value));
        }
        let Services { config, host } = services;
        let read = self.pci.read_memory(*config, address, bytes.into(), &mut |effect| host.pci_effect(effect))?;
        Some(match read {
            TrappedRead::Value(value) => value,
            TrappedRead::Forward(address) => host.read_register(address, bytes),
        })
    }

    /// A write of `bytes` bytes (1, 2, 4 or 8) that the nested tables do not permit, at `now` in ticks; what is then to do
    /// for the local APIC, or `None` where nothing is.
    pub fn write_memory<C: ConfigSpace>(
        &mut self,
        address: GuestPhys,
        bytes: u8,
        value: u64,
        now: u64,
        services: &mut Services<'_, C>,
    ) -> Option<Option<local_apic::Effect>> {
        if let Some(offset) = self.apic_page_offset(address) {
            return Some(if bytes == 4 { self.apic.write_page(offset, value as u32, now) } else { None });
        }
        if let Some(offset) = offset_in_page(address, IO_APIC) {
            if bytes == 4 {
                let request = self.io_apic.write(offset, value as u32);
                self.raise(request);
            }
            return Some(None);
        }
        if rom::contains(address) || INTERRUPT_RANGE.contains(&address.as_u64()) {
            return Some(None);
        }
        let Services { config, host } = services;
        let mut effects = |effect| host.pci_effect(effect);
        match self.pci.write_memory(*config, address, bytes.into(), value, &mut effects) {
            None => return None,
            Some(TrappedWrite::Done) => {}
            Some(TrappedWrite::Forward(address)) => host.write_register(address, bytes, value),
        }
        Some(None)
    }

    /// What the guest's local APIC asks for: an end of interrupt goes to the I/O APIC, all else is the machine's.
    pub fn apic_effect(&mut self, effect: local_apic::Effect, host: &mut dyn Host) {
        match effect {
            local_apic::Effect::EndOfInterrupt(vector) => {
                let request = self.io_apic.end_of_interrupt(vector);
                self.raise(request);
            }
            effect => host.apic_effect(effect),
        }
    }

    /// The last thing before the guest runs. `offered` is the interrupt that the processor may deliver by itself.
    pub fn before_entry(&mut self, offered: Option<Vector>) {
        if let Some(eoi) = &mut self.paravirtual_eoi {
            eoi.before_entry(&self.apic, offered, &mut self.memory);
        }
    }

    /// After it ran, and after what the processor delivered by itself is in service.
    pub fn after_exit(&mut self) {
        if let Some(eoi) = &mut self.paravirtual_eoi {
            eoi.after_exit(&mut self.apic, &self.memory);
        }
    }

    /// Something was typed for the guest.
    pub fn receive(&mut self, byte: u8) {
        self.serial.receive(byte);
        self.update_serial_line();
    }

    /// Whether the guest waits for something to be typed.
    pub fn listens(&self) -> bool {
        self.serial.listens()
    }

    fn update_serial_line(&mut self) {
        let request = self.io_apic.set_line(serial::LINE, self.serial.interrupts());
        self.raise(request);
    }

    /// Brings an interrupt of the I/O APIC's to the guest's processor, if it is meant.
    fn raise(&mut self, request: Option<Request>) {
        let Some(Request { vector, level, destination, logical }) = request else { return };
        let meant = match logical {
            true => self.apic.matches_logical(destination.0),
            false => destination == self.apic.id() || destination.0 == 0xff,
        };
        match (meant, level) {
            (false, _) => {}
            (true, true) => self.apic.accept_level(vector),
            (true, false) => self.apic.accept_edge(vector),
        }
    }

    /// The offset in the local APIC's page, if `address` is there and the page is.
    fn apic_page_offset(&self, address: GuestPhys) -> Option<u16> {
        offset_in_page(address, self.apic.page()?)
    }

    /// What the guest printed without an end of line so far.
    pub fn line(&self) -> &str {
        self.serial.line()
    }

    /// Ends the guest's output: what it printed without an end of line.
    pub fn take_rest_of_line(&mut self) -> Option<String> {
        self.serial.take_rest()
    }
}

fn offset_in_page(address: GuestPhys, page: GuestPhys) -> Option<u16> {
    let offset = address.as_u64().checked_sub(page.as_u64()).filter(|offset| *offset < PAGE_SIZE)?;
    u16::try_from(offset).ok()
}

fn serial_offset(port: u16) -> Option<u16> {
    port.checked_sub(serial::FIRST_PORT).filter(|offset| *offset < serial::PORTS)
}
