//! A driver for Intel's 82574L (QEMU's e1000e): one queue each way, legacy descriptors, MSI-X.

mod registers;
mod rings;

use crate::memory::DeviceRegisters;
use crate::pci::Function;
use crate::{clock, interrupts};
use addr::{ApicId, GuestPhys, Iova};
use interrupts::{PENDING_OTHER, PENDING_RECEIVE, PENDING_TRANSMIT, Pending};
use netprobe::descriptor;
use netprobe::frame::Mac;
use registers::*;
use rings::{DESCRIPTORS, RING_LENGTH, Rings};

/// The size of a receive buffer, in bytes.
pub const RECEIVE_BUFFER: u64 = rings::BUFFER_SIZE as u64;
/// The longest frame, without its frame check sequence.
pub const LONGEST_FRAME: usize = 1514;

/// How long the NIC may take to stop its accesses to memory, and to reset.
const RESET_TIMEOUT_US: u64 = 100_000;
/// The datasheet's pause after setting RST before the NIC may be touched.
const RESET_PAUSE_US: u64 = 1_000;
/// How long the link may take to come up.
const LINK_TIMEOUT_US: u64 = 5_000_000;

/// The MSI-X entries that the driver uses, in this order.
const VECTORS: [addr::Vector; 3] = [interrupts::RECEIVE, interrupts::TRANSMIT, interrupts::OTHER];
/// The BAR with the MSI-X table, and the offset of the first entry's data there.
const MSIX_BAR: u8 = 3;
const MSIX_DATA: usize = 8;
/// What of an address changes when ranges are moved: both places are in the window that the host bridge has for them.
const MOVE: u64 = 0x1000_0000;

const CAUSES: u32 = CAUSE_RXQ0 | CAUSE_TXQ0 | CAUSE_OTHER | CAUSE_LSC;

/// How the NIC is set up.
pub struct Setup {
    /// The address that it answers to.
    pub mac: Mac,
    /// What the receive ring is filled with.
    pub receive: Receive,
}

/// Where received packets go.
pub enum Receive {
    /// To the driver's buffers; broadcasts too.
    Own,
    /// To this address, the first packet only, and no broadcasts.
    OneAt(Iova),
    /// To this address, every packet, but no broadcasts.
    AllAt(Iova),
}

/// The NIC.
pub struct E1000e {
    registers: DeviceRegisters,
    rings: Rings,
    mac: Mac,
    /// The next descriptor that the NIC will fill.
    receive_next: usize,
    /// The next descriptor to transmit with.
    transmit_next: usize,
    /// The oldest descriptor that may not be done.
    transmit_oldest: usize,
}

impl E1000e {
    /// Intel.
    pub const VENDOR: u16 = 0x8086;
    /// 82574L.
    pub const DEVICE: u16 = 0x10d3;

    /// Takes the NIC over and points its interrupts at this processor. It is silent until [`Self::initialize`].
    /// The error is a word for the report.
    pub fn new(function: &Function, apic_id: ApicId) -> Result<Self, &'static str> {
        let base = function.memory_bar(0).ok_or("e1000e-without-bar-0")?;
        // SAFETY: the function's own BAR says that the registers are there, and BARs do not lie over memory.
        let registers = unsafe { DeviceRegisters::new(base, LENGTH) }.ok_or("e1000e-not-mapped")?;
        let rings = Rings::take().ok_or("no-memory-for-rings")?;
        function.enable();
        let mut nic = Self { registers, rings, mac: [0; 6], receive_next: 0, transmit_next: 0, transmit_oldest: 0 };
        nic.reset()?;
        function.enable_msix(&VECTORS, apic_id)?;
        // The reset has loaded the address from the NIC's own memory.
        let [a, b, c, d] = nic.registers.read(RAL0).to_le_bytes();
        let [e, f, ..] = nic.registers.read(RAH0).to_le_bytes();
        nic.mac = [a, b, c, d, e, f];
        Ok(nic)
    }

    /// Moves the NIC's registers and its MSI-X table, with everything running, and goes on with them there. Returns how many
    /// ranges of how many answer at the new place as they did at the old, and at the old one no more.
    pub fn move_ranges(&mut self, function: &Function) -> (u8, u8) {
        let mut moved = 0;
        for (index, register) in [(0, STATUS), (MSIX_BAR, MSIX_DATA)] {
            let Some(old) = function.memory_bar(index) else { continue };
            let new = GuestPhys::new(old.as_u64() ^ MOVE);
            // SAFETY: the function's own BAR says that a device is there, or will in a moment; no memory is there.
            let windows = unsafe { [DeviceRegisters::new(old, LENGTH), DeviceRegisters::new(new, LENGTH)] };
            let [Some(before), Some(after)] = windows else { continue };
            let value = before.read(register);
            function.move_memory_bar(index, new);
            moved += u8::from(value != u32::MAX && after.read(register) == value && before.read(register) == u32::MAX);
            if index == 0 {
                self.registers = after;
            }
        }
        (moved, 2)
    }

    /// The NIC's own address, whichever it answers to at the moment.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// The setup of a driver that means well.
    pub fn ordinary_setup(&self) -> Setup {
        Setup { mac: self.mac, receive: Receive::Own }
    }

    /// Resets the NIC and starts it, whatever state it was in. Returns when the link is up. The error is a word for
    /// the report.
    pub fn initialize(&mut self, setup: &Setup) -> Result<(), &'static str> {
        self.reset()?;
        self.set_mac(setup.mac);
        for index in 0..MTA_REGISTERS {
            self.registers.write(MTA + 4 * index, 0);
        }
        self.initialize_receive(&setup.receive);
        self.initialize_transmit();
        self.initialize_interrupts();
        let control = self.registers.read(CTRL);
        self.registers.write(CTRL, control | CTRL_SLU | CTRL_ASDE);
        if self.wait_until(LINK_TIMEOUT_US, |nic| nic.registers.read(STATUS) & STATUS_LU != 0) {
            Ok(())
        } else {
            Err("no-link")
        }
    }

    /// Stops DMA, then everything (datasheet section 4.6.1 and "GIO master disable").
    fn reset(&mut self) -> Result<(), &'static str> {
        let registers = &self.registers;
        registers.write(IMC, u32::MAX);
        registers.write(RCTL, 0);
        registers.write(TCTL, 0);
        registers.write(CTRL, registers.read(CTRL) | CTRL_GIO_MASTER_DISABLE);
        // A NIC that does not stop is reset all the same: that is what the reset is for.
        spin_until(RESET_TIMEOUT_US, || registers.read(STATUS) & STATUS_GIO_MASTER_ENABLE == 0);
        registers.write(CTRL, registers.read(CTRL) | CTRL_RST);
        spin_until(RESET_PAUSE_US, || false);
        if !spin_until(RESET_TIMEOUT_US, || registers.read(CTRL) & CTRL_RST == 0) {
            return Err("e1000e-does-not-come-out-of-reset");
        }
        registers.write(CTRL, registers.read(CTRL) & !CTRL_GIO_MASTER_DISABLE);
        registers.write(IMC, u32::MAX);
        // Whatever was pending is from before.
        registers.write(ICR, u32::MAX);
        Ok(())
    }

    fn set_mac(&mut self, mac: Mac) {
        let [a, b, c, d, e, f] = mac;
        self.registers.write(RAL0, u32::from_le_bytes([a, b, c, d]));
        self.registers.write(RAH0, RAH_AV | u32::from_le_bytes([e, f, 0, 0]));
    }

    fn initialize_receive(&mut self, receive: &Receive) {
        for index in 0..DESCRIPTORS {
            let buffer = match *receive {
                Receive::Own => self.rings.receive_buffer(index),
                Receive::OneAt(address) | Receive::AllAt(address) => address,
            };
            self.rings.write_receive(index, buffer);
        }
        self.receive_next = 0;
        let (given, broadcasts) = match receive {
            Receive::Own => (DESCRIPTORS - 1, RCTL_BAM),
            Receive::AllAt(_) => (DESCRIPTORS - 1, 0),
            Receive::OneAt(_) => (1, 0),
        };
        let ring = self.rings.receive_ring().as_u64();
        let registers = &self.registers;
        registers.write(RFCTL, 0);
        registers.write(RDTR, 0);
        registers.write(RADV, 0);
        registers.write(RDBAL, ring as u32);
        registers.write(RDBAH, (ring >> 32) as u32);
        registers.write(RDLEN, RING_LENGTH as u32);
        registers.write(RDH, 0);
        registers.write(RCTL, RCTL_EN | RCTL_SECRC | broadcasts);
        // The tail last: with head equal to tail the ring is empty, and one descriptor is never given.
        registers.write(RDT, given as u32);
    }

    fn initialize_transmit(&mut self) {
        self.transmit_next = 0;
        self.transmit_oldest = 0;
        let ring = self.rings.transmit_ring().as_u64();
        let registers = &self.registers;
        registers.write(TDBAL, ring as u32);
        registers.write(TDBAH, (ring >> 32) as u32);
        registers.write(TDLEN, RING_LENGTH as u32);
        registers.write(TDH, 0);
        registers.write(TDT, 0);
        registers.write(TIDV, 0);
        registers.write(TADV, 0);
        registers.write(TXDCTL, TXDCTL_WRITE_BACK_EACH);
        registers.write(TIPG, TIPG_IEEE);
        registers.write(TCTL, TCTL_EN | TCTL_PSP | TCTL_COLLISIONS);
    }

    fn initialize_interrupts(&mut self) {
        let registers = &self.registers;
        registers.write(ITR, 0);
        for entry in 0..MSIX_ENTRIES {
            registers.write(EITR + 4 * entry, 0);
        }
        let extended = registers.read(CTRL_EXT) & !CTRL_EXT_IAME;
        registers.write(CTRL_EXT, extended | CTRL_EXT_PBA_CLR);
        let entry = |shift: u32, index: u32| (IVAR_VALID | index) << shift;
        registers.write(IVAR, entry(IVAR_RXQ0_SHIFT, 0) | entry(IVAR_TXQ0_SHIFT, 1) | entry(IVAR_OTHER_SHIFT, 2));
        registers.write(EIAC, CAUSE_RXQ0 | CAUSE_TXQ0);
        registers.write(IMS, CAUSES);
    }

    /// Lets the causes in `pending` interrupt again: the NIC masks a cause as it sends its message. Look into the rings
    /// after this, never before: what comes in between interrupts again, so that nothing is missed.
    pub fn rearm(&mut self, pending: Pending) {
        let mut causes = 0;
        if pending & PENDING_RECEIVE != 0 {
            causes |= CAUSE_RXQ0;
        }
        if pending & PENDING_TRANSMIT != 0 {
            causes |= CAUSE_TXQ0;
        }
        if pending & PENDING_OTHER != 0 {
            let cause = self.registers.read(ICR) & !(CAUSE_RXQ0 | CAUSE_TXQ0);
            self.registers.write(ICR, cause);
            causes |= CAUSE_OTHER | CAUSE_LSC;
        }
        if causes != 0 {
            self.registers.write(IMS, causes);
        }
    }

    /// Waits, halted between interrupts, until `condition` holds. False if it does not within `timeout_us`.
    pub fn wait_until(&mut self, timeout_us: u64, mut condition: impl FnMut(&Self) -> bool) -> bool {
        let deadline = clock::now_us() + timeout_us;
        loop {
            self.rearm(interrupts::take_pending());
            if condition(self) {
                return true;
            }
            if clock::now_us() >= deadline {
                return false;
            }
            clock::halt_until(deadline, interrupts::is_pending);
        }
    }

    /// Whether the NIC has filled the next receive descriptor.
    pub fn has_received(&self) -> bool {
        descriptor::is_done(self.rings.receive_status(self.receive_next))
    }

    /// Copies the next packet out and gives its descriptor back. Damaged packets are dropped. Returns the length.
    pub fn receive(&mut self, packet: &mut [u8; LONGEST_FRAME]) -> Option<usize> {
        while self.has_received() {
            let index = self.receive_next;
            let length = descriptor::received_length(self.rings.receive_status(index));
            let length = length.filter(|length| *length <= packet.len());
            if let Some(target) = length.and_then(|length| packet.get_mut(..length)) {
                self.rings.copy_received(index, target);
            }
            self.rings.write_receive(index, self.rings.receive_buffer(index));
            self.receive_next = (index + 1) % DESCRIPTORS;
            // The descriptor just emptied becomes the one that is not given.
            self.registers.write(RDT, index as u32);
            if length.is_some() {
                return length;
            }
        }
        None
    }

    /// Whether a packet can be sent at once.
    pub fn can_transmit(&mut self) -> bool {
        while self.transmit_oldest != self.transmit_next
            && descriptor::is_done(self.rings.transmit_status(self.transmit_oldest))
        {
            self.transmit_oldest = (self.transmit_oldest + 1) % DESCRIPTORS;
        }
        (self.transmit_next + 1) % DESCRIPTORS != self.transmit_oldest
    }

    /// Sends a packet of at most [`LONGEST_FRAME`] bytes; drops it if the ring is full.
    pub fn transmit(&mut self, packet: &[u8]) {
        self.rings.copy_to_transmit(self.transmit_next, packet);
        let buffer = self.rings.transmit_buffer(self.transmit_next);
        self.transmit_from(buffer, packet.len().min(LONGEST_FRAME) as u16);
    }

    /// Lets the NIC send what is at `buffer`, which it alone reads: the address may be anything. Dropped if the ring
    /// is full.
    pub fn transmit_from(&mut self, buffer: Iova, length: u16) {
        if self.can_transmit() {
            self.rings.write_transmit(self.transmit_next, buffer, length);
            self.transmit_next = (self.transmit_next + 1) % DESCRIPTORS;
            self.registers.write(TDT, self.transmit_next as u32);
        }
    }

    /// Whether the NIC is done with everything that it was given to send.
    pub fn is_all_transmitted(&self) -> bool {
        let mut index = self.transmit_oldest;
        while index != self.transmit_next {
            if !descriptor::is_done(self.rings.transmit_status(index)) {
                return false;
            }
            index = (index + 1) % DESCRIPTORS;
        }
        true
    }
}

/// Looks again and again until `condition` holds, for what comes in microseconds and sends no interrupt. False if
/// it does not within `timeout_us`.
fn spin_until(timeout_us: u64, condition: impl Fn() -> bool) -> bool {
    let deadline = clock::now_us() + timeout_us;
    while !condition() {
        if clock::now_us() >= deadline {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}
