//! The guest's command register, and what of it the real one gets.

use ::pci::spec::header::command::{
    BUS_MASTER, INTERRUPT_DISABLE, IO_SPACE, MEMORY_SPACE, PARITY_ERROR_RESPONSE, SERR_ENABLE,
};

/// The bits that a guest can set. System errors are not among them: the machine's owner hears of those, not the guest.
const GUEST_BITS: u16 = IO_SPACE | MEMORY_SPACE | BUS_MASTER | INTERRUPT_DISABLE;

/// The command register of an assigned function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct GuestCommand {
    guest: u16,
    /// The firmware's bits, which are kept.
    kept: u16,
    /// Bus mastering is not the guest's any more.
    pub quarantined: bool,
    /// A virtual function's, where the guest finds bus mastering and no other bit. The real one gets the others all the same: by
    /// the specification it does not have them, and QEMU lets it answer in memory space only with that bit set.
    pub is_virtual: bool,
}

impl GuestCommand {
    /// As after a reset for the guest; `real` is what the real register holds.
    pub fn new(real: u16) -> Self {
        Self { guest: 0, kept: real & (PARITY_ERROR_RESPONSE | SERR_ENABLE), quarantined: false, is_virtual: false }
    }

    /// What the guest reads.
    pub fn guest(self) -> u16 {
        self.guest
    }

    /// Sets what the guest wrote.
    pub fn set_guest(&mut self, value: u16) {
        self.guest = value & if self.is_virtual { BUS_MASTER } else { GUEST_BITS };
    }

    /// Whether the guest has all of these bits set.
    pub fn has(self, bits: u16) -> bool {
        self.guest & bits == bits
    }

    /// As after a reset for the guest; what was taken from it stays taken.
    pub fn reset(&mut self) {
        self.guest = 0;
    }

    /// What the real register is to hold: memory decoding always, because the hypervisor writes the MSI-X table through
    /// it, and INTx never, because nobody would end it.
    pub fn real(self) -> u16 {
        let follows = if self.quarantined { IO_SPACE } else { IO_SPACE | BUS_MASTER };
        self.kept | self.guest & follows | MEMORY_SPACE | INTERRUPT_DISABLE
    }
}
