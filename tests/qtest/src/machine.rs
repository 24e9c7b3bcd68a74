//! A running machine, as all parts of a test share it.
//!
//! The driver's traits have no way to say that a register could not be read, so a QEMU that fails ends the test here.

use crate::ports::Ports;
use crate::protocol::{Client, ProtocolError};
use crate::qemu::Qemu;
use crate::trace::Events;
use addr::{Bdf, PciAddress};
use pci::ConfigSpace;
use pci::spec::header::INTERRUPT_LINE;
use std::cell::RefCell;
use std::rc::Rc;

/// A handle; all clones are of one machine, which ends with the last.
#[derive(Clone, Debug)]
pub struct Machine(Rc<RefCell<Qemu>>);

/// Accesses. Each panics with the command when QEMU does not answer as the protocol says.
impl Machine {
    /// A machine that has just been started.
    pub fn new(qemu: Qemu) -> Self {
        Self(Rc::new(RefCell::new(qemu)))
    }

    fn ask<T>(&self, command: impl FnOnce(&mut Client) -> Result<T, ProtocolError>) -> T {
        command(&mut self.0.borrow_mut().client).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Reads 32 bits at a physical address, by one access.
    pub fn read32(&self, address: u64) -> u32 {
        self.ask(|client| client.read32(address))
    }

    /// Reads 64 bits at a physical address, by one access.
    pub fn read64(&self, address: u64) -> u64 {
        self.ask(|client| client.read64(address))
    }

    /// Writes 32 bits at a physical address, by one access.
    pub fn write32(&self, address: u64, value: u32) {
        self.ask(|client| client.write32(address, value));
    }

    /// Writes 64 bits at a physical address, by one access.
    pub fn write64(&self, address: u64, value: u64) {
        self.ask(|client| client.write64(address, value));
    }

    /// Reads memory.
    pub fn read(&self, address: u64, bytes: usize) -> Vec<u8> {
        self.ask(|client| client.read(address, bytes))
    }

    /// Writes memory. Nothing of the machine runs meanwhile, so it is one store to whoever looks.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.ask(|client| client.write(address, bytes));
    }

    /// Fills memory with zeros.
    pub fn zero(&self, address: u64, bytes: u64) {
        self.ask(|client| client.fill(address, bytes, 0));
    }

    /// Reads a port by an access of 1, 2 or 4 bytes.
    pub fn port_in(&self, port: u16, bytes: u16) -> u32 {
        self.ask(|client| client.port_in(port, bytes))
    }

    /// Writes a port by an access of 1, 2 or 4 bytes.
    pub fn port_out(&self, port: u16, bytes: u16, value: u32) {
        self.ask(|client| client.port_out(port, bytes, value));
    }

    /// Raises or lowers a pin of the I/O APIC.
    pub fn set_io_apic_pin(&self, pin: u16, level: bool) {
        self.ask(|client| client.set_line("/machine/q35/ioapic", pin, level));
    }

    /// Resets the machine, by the reset control register of its chipset, and waits until that is done. Memory keeps what
    /// it holds.
    pub fn reset(&self) {
        const RESET_CONTROL: u16 = 0xcf9;
        // The interrupt line of function 00:1f.0, a note that nobody reads, and that a reset erases.
        let mark = PciAddress { segment: 0, bdf: Bdf::from_u16(0xf8) };
        let mut config = Ports(self.clone());
        config.write8(mark, INTERRUPT_LINE, 0x5a);
        assert_eq!(config.read8(mark, INTERRUPT_LINE), 0x5a);
        self.port_out(RESET_CONTROL, 1, 6);
        assert!((0..10_000).any(|_| config.read8(mark, INTERRUPT_LINE) != 0x5a), "the machine is not reset");
        self.events();
    }

    /// What QEMU has written down since the last call.
    pub fn events(&self) -> Events {
        self.ask(Client::settle);
        self.0.borrow_mut().trace.take()
    }

    /// How many commands QEMU was given.
    pub fn commands(&self) -> u64 {
        self.0.borrow().client.commands()
    }

    /// See [`Qemu::account`].
    pub fn account(&self) -> String {
        self.0.borrow_mut().account()
    }
}
