//! IA32_APIC_BASE: the mode of the local APIC and how it may change (SDM sections 11.4.4 and 11.12.5).

use addr::{GuestPhys, PAGE_SIZE};

use super::registers::{APIC_BASE_BSP, APIC_BASE_EN, APIC_BASE_EXTD, ID, LDR};
use super::{GeneralProtection, LocalApic};

/// How the local APIC is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Not at all: CPUID must say that there is none.
    Disabled,
    /// Through a page of memory.
    XApic,
    /// Through MSRs.
    X2Apic,
}

impl LocalApic {
    /// The mode. CPUID.01H:EDX\[9\] must be 0 to the guest in [`Mode::Disabled`].
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The guest-physical address of the page through which the registers are reached; `None` outside xAPIC mode,
    /// where that page is memory like any other.
    pub fn page(&self) -> Option<GuestPhys> {
        (self.mode == Mode::XApic).then_some(GuestPhys::new(self.page))
    }

    pub(super) fn apic_base(&self) -> u64 {
        let mode = match self.mode {
            Mode::Disabled => 0,
            Mode::XApic => APIC_BASE_EN,
            Mode::X2Apic => APIC_BASE_EN | APIC_BASE_EXTD,
        };
        self.page | mode | if self.bootstrap_processor { APIC_BASE_BSP } else { 0 }
    }

    pub(super) fn set_apic_base(&mut self, value: u64) -> Result<(), GeneralProtection> {
        let address_bits = 1u64.checked_shl(self.physical_address_bits.into()).map_or(u64::MAX, |limit| limit - 1);
        let page = value & !(PAGE_SIZE - 1);
        let known = APIC_BASE_BSP | APIC_BASE_EXTD | APIC_BASE_EN;
        if page & !address_bits != 0 || value & (PAGE_SIZE - 1) & !known != 0 {
            return Err(GeneralProtection);
        }
        let new = match (value & APIC_BASE_EN != 0, value & APIC_BASE_EXTD != 0) {
            (false, false) => Mode::Disabled,
            (true, false) => Mode::XApic,
            (true, true) => Mode::X2Apic,
            (false, true) => return Err(GeneralProtection),
        };
        match (self.mode, new) {
            (Mode::Disabled, Mode::X2Apic) | (Mode::X2Apic, Mode::XApic) => return Err(GeneralProtection),
            _ => {}
        }
        let old = core::mem::replace(&mut self.mode, new);
        self.page = page;
        if old != Mode::Disabled && new == Mode::Disabled {
            // An APIC that is switched off forgets; it comes back as after reset.
            self.init();
        } else {
            self.identify();
        }
        self.changed = true;
        self.update_timer_due();
        // BSP is what the processor says of itself: a write does not change it.
        Ok(())
    }

    /// Writes the registers that say who this is, in the form that the mode has.
    pub(super) fn identify(&mut self) {
        match self.mode {
            Mode::X2Apic => {
                self.registers.write(ID, self.id.0);
                // The cluster in bits 31:16, one bit of it in bits 15:0 (section 11.12.10.2).
                self.registers.write(LDR, (self.id.0 >> 4) << 16 | 1 << (self.id.0 & 0xf));
            }
            Mode::XApic | Mode::Disabled => self.registers.write(ID, self.id.0 << 24),
        }
    }
}
