//! The protected memory regions (section 11.4.8): two ranges that no device reaches, whatever translation says. Firmware
//! may have left them on; until translation is on they are all that holds DMA back, and while they are on they block
//! what translation permits.

use crate::error::{Error, Step};
use crate::registers::Registers;
use crate::spec::registers::*;
use crate::unit::Unit;
use crate::wait::{Clock, wait_for};
use addr::HostPhys;

/// The regions as the registers have them; a region that the unit does not have is `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProtectedMemory {
    /// Whether hardware blocks DMA to them (PMEN.PRS).
    pub enabled: bool,
    /// The first and the last byte below 4 GiB (PLMBASE, PLMLIMIT).
    pub low: Option<(HostPhys, HostPhys)>,
    /// The first and the last byte of the other (PHMBASE, PHMLIMIT).
    pub high: Option<(HostPhys, HostPhys)>,
}

impl<R: Registers, C: Clock> Unit<R, C> {
    fn has_protected_memory(&self) -> bool {
        self.capabilities.protected_low_memory() || self.capabilities.protected_high_memory()
    }

    /// Reads the regions. Their granularity is the unit's: the low bits of a limit that are 0 in hardware count as 1.
    pub fn read_protected_memory(&self) -> ProtectedMemory {
        let region = |base: u64, limit: u64| (HostPhys::new(base), HostPhys::new(limit | PROTECTED_MEMORY_MINIMUM));
        let low = || region(self.registers.read(PLMBASE).into(), self.registers.read(PLMLIMIT).into());
        let high = || region(self.registers.read(PHMBASE), self.registers.read(PHMLIMIT));
        ProtectedMemory {
            enabled: self.has_protected_memory() && self.registers.read(PMEN) & PMEN_STATUS != 0,
            low: self.capabilities.protected_low_memory().then(low),
            high: self.capabilities.protected_high_memory().then(high),
        }
    }

    /// Holds all DMA back, from the first byte to the last. Call it while translation is on, or while the regions are off:
    /// they must not be written while they are on, and are opened for it.
    pub(crate) fn protect_all_memory(&mut self) -> Result<(), Error> {
        self.set_protected_memory(false, Step::ProtectMemory)?;
        self.registers.write(PLMBASE, 0u32);
        self.registers.write(PLMLIMIT, u32::MAX);
        // What is beyond the unit's addresses reads 0.
        self.registers.write(PHMBASE, 1u64 << 32);
        self.registers.write(PHMLIMIT, u64::MAX);
        self.set_protected_memory(true, Step::ProtectMemory)
    }

    /// Turns the protected memory regions off. They come off last.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] before [`Self::enable_translation`], [`Error::Timeout`].
    pub fn disable_protected_memory(&mut self) -> Result<(), Error> {
        let step = Step::DisableProtectedMemory;
        if !self.translation {
            return Err(Error::OutOfOrder { step, needs: "translation" });
        }
        self.set_protected_memory(false, step)
    }

    fn set_protected_memory(&mut self, on: bool, step: Step) -> Result<(), Error> {
        if !self.has_protected_memory() {
            return Ok(());
        }
        let value = self.registers.read(PMEN);
        if !on && value & (PMEN_ENABLE | PMEN_STATUS) == 0 {
            return Ok(());
        }
        let kept = value & !(PMEN_ENABLE | PMEN_STATUS);
        self.registers.write(PMEN, if on { kept | PMEN_ENABLE } else { kept });
        let expected = if on { PMEN_STATUS } else { 0 };
        wait_for(&self.registers, &self.clock, self.timeout_us, step, PMEN, PMEN_STATUS, expected)?;
        Ok(())
    }
}
