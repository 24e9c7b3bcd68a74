//! QEMU's `edu` device: a DMA engine that goes where it is told, and one MSI. Described in QEMU's `docs/specs/edu.rst`.

use crate::firmware::function;
use crate::machine::Machine;
use crate::ports::Ports;
use addr::{Bdf, HostPhys, Iova, PciAddress};
use pci::spec::capability::id;
use pci::spec::header::BAR0;
use pci::{ConfigSpace, MsiCapability, find_capability};
use std::cell::Cell;

/// `edu`'s ids, device in 31:16.
const ID: u32 = 0x11e8_1234;

const RAISE: u64 = 0x60;
const ACKNOWLEDGE: u64 = 0x64;
const DMA_SOURCE: u64 = 0x80;
const DMA_DESTINATION: u64 = 0x88;
const DMA_COUNT: u64 = 0x90;
const DMA_COMMAND: u64 = 0x98;
/// The command: start, and which way. The start bit stays 1 until it is done.
const START: u64 = 1;
const TO_MEMORY: u64 = 2;
/// Where the device's own memory of 4 KiB is, as DMA names it.
const BUFFER: u64 = 0x40000;
/// What of it is used: QEMU 7.2 dies of a transfer that reaches its very end.
const BUFFER_BYTES: u64 = 4096 - 8;
const SLOTS: u64 = BUFFER_BYTES / 8;
/// The last slot takes what is read.
const READ_SLOT: u64 = SLOTS - 1;
/// How often to ask whether a DMA is done: virtual time leaps, and a few times are enough.
const MAXIMUM_POLLS: u32 = 200_000;

/// One edu device.
#[derive(Clone, Debug)]
pub struct Edu {
    machine: Machine,
    registers: u64,
    msi: MsiCapability,
    next_slot: Cell<u64>,
    /// Its place on the bus.
    pub address: PciAddress,
}

impl Edu {
    /// The `-device` option for one that reaches every address, with more properties such as `bus=pcie.0,addr=4`.
    pub fn option(properties: &str) -> String {
        format!("edu,dma_mask=0xffffffffffffffff,{properties}")
    }

    /// Those on `bus`, once firmware has placed them.
    pub fn on(machine: &Machine, bus: u8) -> Vec<Self> {
        let config = Ports(machine.clone());
        let slots = (0..=u8::MAX).map(|devfn| function(Bdf::from_u16(u16::from(bus) << 8 | u16::from(devfn))));
        let found = slots.filter(|address| config.read32(*address, 0) == ID);
        found.map(|address| Self::at(machine, address)).collect()
    }

    fn at(machine: &Machine, address: PciAddress) -> Self {
        let config = Ports(machine.clone());
        let registers = u64::from(config.read32(address, BAR0) & !0xf);
        assert_ne!(registers, 0, "{address}: has a place");
        let capability = find_capability(&config, address, id::MSI).expect("edu has MSI");
        let msi = MsiCapability::read(&config, address, capability.offset).expect("its MSI capability makes sense");
        Self { machine: machine.clone(), registers, msi, next_slot: Cell::new(0), address }
    }

    /// The source-id, where no bridge changes it.
    pub fn bdf(&self) -> Bdf {
        self.address.bdf
    }

    /// Fills the device's buffer: each slot of 8 bytes with a value of its own. While translation is off, for that is a DMA
    /// read of `page`, which it overwrites.
    pub fn fill_buffer(&self, page: HostPhys) {
        let bytes: Vec<u8> = (0..SLOTS).flat_map(|slot| self.value(slot).to_le_bytes()).collect();
        self.machine.write(page.as_u64(), &bytes);
        self.transfer(page.as_u64(), BUFFER, BUFFER_BYTES, START);
    }

    /// What stands in a slot: told apart by device and slot, and nothing that memory holds by itself.
    fn value(&self, slot: u64) -> u64 {
        0xed00_0000_0000_0000 | u64::from(self.bdf().as_u16()) << 32 | slot
    }

    /// Writes 8 bytes by DMA; answers their value, which no write before had (until the slots are used up).
    pub fn write(&self, to: Iova) -> u64 {
        let slot = self.next_slot.replace((self.next_slot.get() + 1) % READ_SLOT);
        self.transfer(BUFFER + 8 * slot, to.as_u64(), 8, START | TO_MEMORY);
        self.value(slot)
    }

    /// Reads 8 bytes by DMA. They are in the device then, and [`Self::write_what_was_read`] shows them.
    pub fn read(&self, from: Iova) {
        self.transfer(from.as_u64(), BUFFER + 8 * READ_SLOT, 8, START);
    }

    /// Writes by DMA what the last read brought: the last slot's first value if there was none.
    pub fn write_what_was_read(&self, to: Iova) {
        self.transfer(BUFFER + 8 * READ_SLOT, to.as_u64(), 8, START | TO_MEMORY);
    }

    /// Writes 4 bytes by DMA: the low half of a value that was read before, if a message is to be forged.
    pub fn write_half_of_what_was_read(&self, to: Iova) {
        self.transfer(BUFFER + 8 * READ_SLOT, to.as_u64(), 4, START | TO_MEMORY);
    }

    fn transfer(&self, source: u64, destination: u64, bytes: u64, command: u64) {
        assert!(bytes <= BUFFER_BYTES, "the device's buffer is small");
        let write = |register, value| self.machine.write64(self.registers + register, value);
        write(DMA_SOURCE, source);
        write(DMA_DESTINATION, destination);
        write(DMA_COUNT, bytes);
        write(DMA_COMMAND, command);
        let done = || self.machine.read64(self.registers + DMA_COMMAND) & START == 0;
        assert!((0..MAXIMUM_POLLS).any(|_| done()), "{}: the DMA does not end", self.address);
    }

    /// Lets the device send its MSI with this address and data.
    pub fn program_msi(&self, address: u64, data: u16) {
        assert!(self.msi.program(&mut Ports(self.machine.clone()), self.address, address, data, 1));
    }

    /// Sends the MSI.
    pub fn interrupt(&self) {
        self.machine.write32(self.registers + RAISE, 1);
        self.machine.write32(self.registers + ACKNOWLEDGE, 1);
    }
}
