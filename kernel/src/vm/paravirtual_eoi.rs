//! Ends of interrupts without an exit, where software does everything for the local APIC: KVM's interface (the Linux
//! kernel's Documentation/virt/kvm/x86/msr.rst, MSR_KVM_PV_EOI_EN).
//!
//! The guest names a word of its memory. The hypervisor sets bit 0 there while the interrupt in service can end without
//! it: then the guest ends it by clearing the bit, and the hypervisor notices at the next exit. Nobody else writes
//! meanwhile: the guest has one processor, and the hypervisor runs on the same.

use crate::vm::local_apic::{GeneralProtection, LocalApic};
use crate::vm::memory::GuestMemoryAccess;
use addr::{GuestPhys, Vector};

/// KVM_FEATURE_PV_EOI, a bit of the features' leaf.
pub const FEATURE: u32 = 1 << 6;
/// MSR_KVM_PV_EOI_EN: the guest-physical address of the word, a multiple of 4, and bit 0 to switch it on.
const ENABLE_MSR: u32 = 0x4b56_4d04;
const ENABLE: u64 = 1;
const RESERVED: u64 = 2;

/// One guest's word.
#[derive(Debug, Default)]
pub struct ParavirtualEoi {
    register: u64,
    /// The bit is set in the guest's memory, unless the guest has cleared it since.
    offered: bool,
}

impl ParavirtualEoi {
    /// Whether a register is this one.
    pub fn owns_msr(msr: u32) -> bool {
        msr == ENABLE_MSR
    }

    /// RDMSR.
    pub fn read(&self) -> u64 {
        self.register
    }

    /// WRMSR.
    ///
    /// # Errors
    /// [`GeneralProtection`] where a reserved bit is set, or the address is not memory.
    pub fn write(&mut self, value: u64, memory: &mut impl GuestMemoryAccess) -> Result<(), GeneralProtection> {
        if value & RESERVED != 0 {
            return Err(GeneralProtection);
        }
        if value & ENABLE != 0 {
            memory.write(GuestPhys::new(value & !ENABLE), &[0; 4]).map_err(|_| GeneralProtection)?;
        }
        (self.register, self.offered) = (value, false);
        Ok(())
    }

    /// Does what the guest has done meanwhile: after an exit, and after what the processor delivered by itself is in
    /// service.
    #[inline(always)]
    pub fn after_exit(&mut self, apic: &mut LocalApic, memory: &impl GuestMemoryAccess) {
        // The look alone is what happens at almost every exit.
        if self.offered {
            self.look(apic, memory);
        }
    }

    fn look(&mut self, apic: &mut LocalApic, memory: &impl GuestMemoryAccess) {
        if memory.read_u32(self.word()).is_ok_and(|word| word & 1 == 0) {
            self.offered = false;
            // An edge: nobody else waits for its end.
            let _ = apic.end_of_interrupt();
        }
    }

    /// The last thing before an entry: sets or clears the bit. `offered` is the interrupt that the processor may deliver
    /// by itself, see [`LocalApic::can_end_silently`].
    #[inline(always)]
    pub fn before_entry(&mut self, apic: &LocalApic, offered: Option<Vector>, memory: &mut impl GuestMemoryAccess) {
        if self.register & ENABLE != 0 {
            self.update(apic, offered, memory);
        }
    }

    fn update(&mut self, apic: &LocalApic, offered: Option<Vector>, memory: &mut impl GuestMemoryAccess) {
        let offer = apic.can_end_silently(offered);
        // The word was memory when it was named, and still is.
        if offer != self.offered && memory.write(self.word(), &u32::from(offer).to_le_bytes()).is_ok() {
            self.offered = offer;
        }
    }

    fn word(&self) -> GuestPhys {
        GuestPhys::new(self.register & !ENABLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use addr::ApicId;
    use alloc::vec;
    use alloc::vec::Vec;

    const WORD: usize = 0x800;

    fn ready() -> (ParavirtualEoi, LocalApic, Vec<u8>) {
        let mut apic = LocalApic::new(ApicId(0), true, 40);
        apic.write_page(0xf0, 0x1ff, 0);
        let (mut eoi, mut memory) = (ParavirtualEoi::default(), vec![0xff; 0x1000]);
        assert_eq!(eoi.write(WORD as u64 | 1, &mut memory), Ok(()));
        assert_eq!(memory[WORD..WORD + 5], [0, 0, 0, 0, 0xff]);
        (eoi, apic, memory)
    }

    #[test]
    fn an_interrupt_ends_by_the_word() {
        let (mut eoi, mut apic, mut memory) = ready();
        eoi.before_entry(&apic, None, &mut memory);
        assert_eq!(memory[WORD], 0, "nothing is in service");
        apic.accept_edge(Vector(0x41));
        apic.acknowledge();
        eoi.before_entry(&apic, None, &mut memory);
        assert_eq!(memory[WORD], 1);
        eoi.after_exit(&mut apic, &memory);
        assert_eq!(apic.ppr(), 0x40, "the guest is not done");
        memory[WORD] = 0;
        eoi.after_exit(&mut apic, &memory);
        assert_eq!(apic.ppr(), 0);
        eoi.after_exit(&mut apic, &memory);
        apic.accept_edge(Vector(0x31));
        apic.acknowledge();
        eoi.after_exit(&mut apic, &memory);
        assert_eq!(apic.ppr(), 0x30, "it ends once only");
    }

    #[test]
    fn what_waits_for_the_end_makes_it_an_exit() {
        let (mut eoi, mut apic, mut memory) = ready();
        apic.accept_edge(Vector(0x41));
        apic.acknowledge();
        eoi.before_entry(&apic, None, &mut memory);
        apic.accept_edge(Vector(0x31));
        eoi.before_entry(&apic, None, &mut memory);
        assert_eq!(memory[WORD], 0, "another is to be delivered then");
        eoi.after_exit(&mut apic, &memory);
        assert_eq!(apic.ppr(), 0x40, "the bit was taken back and not cleared by the guest");
        assert_eq!(apic.end_of_interrupt(), Some(Vector(0x41)));
        apic.acknowledge();
        apic.end_of_interrupt();
        apic.accept_level(Vector(0x51));
        apic.acknowledge();
        eoi.before_entry(&apic, None, &mut memory);
        assert_eq!(memory[WORD], 0, "the I/O APIC waits for it");
    }

    #[test]
    fn what_the_processor_may_deliver_by_itself_can_end_silently_if_it_is_alone() {
        let (mut eoi, mut apic, mut memory) = ready();
        let offered = Some(Vector(0x41));
        apic.accept_edge(Vector(0x41));
        eoi.before_entry(&apic, offered, &mut memory);
        assert_eq!(memory[WORD], 1);
        // The guest has cleared it although nothing was delivered: nothing ends.
        memory[WORD] = 0;
        eoi.after_exit(&mut apic, &memory);
        assert_eq!(apic.pending(), offered);
        eoi.before_entry(&apic, offered, &mut memory);
        assert_eq!(memory[WORD], 1);
        apic.acknowledge();
        memory[WORD] = 0;
        eoi.after_exit(&mut apic, &memory);
        assert_eq!(apic.ppr(), 0, "delivered and ended");

        apic.accept_edge(Vector(0x41));
        apic.accept_edge(Vector(0x31));
        eoi.before_entry(&apic, offered, &mut memory);
        assert_eq!(memory[WORD], 0, "another waits for its end");
        apic.acknowledge();
        apic.end_of_interrupt();
        apic.acknowledge();
        apic.accept_edge(Vector(0x41));
        eoi.before_entry(&apic, offered, &mut memory);
        assert_eq!(memory[WORD], 0, "which of the two would end?");
        apic.acknowledge();
        apic.end_of_interrupt();
        apic.end_of_interrupt();
        apic.accept_level(Vector(0x41));
        eoi.before_entry(&apic, offered, &mut memory);
        assert_eq!(memory[WORD], 0, "the I/O APIC waits for it");
    }

    #[test]
    fn a_bad_address_is_a_fault_and_off_is_off() {
        let (mut eoi, mut apic, mut memory) = ready();
        for bad in [0x802, 0x803, 0x1001, !2] {
            assert_eq!(eoi.write(bad, &mut memory), Err(GeneralProtection), "{bad:#x}");
        }
        assert_eq!(eoi.read(), WORD as u64 | 1);
        assert_eq!(eoi.write(0, &mut memory), Ok(()));
        apic.accept_edge(Vector(0x41));
        apic.acknowledge();
        eoi.before_entry(&apic, None, &mut memory);
        assert_eq!(memory[WORD], 0);
    }
}
