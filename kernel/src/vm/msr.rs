//! A guest's model-specific registers: a table of what there is. Everything else is a general-protection fault, as
//! on a processor that does not have the register. The registers of the engine's own state (IA32_EFER, segment
//! bases) are the engine's.

use crate::vm::local_apic::{Effect, GeneralProtection, LocalApic};
use crate::vm::speculation::Speculation;

const IA32_TIME_STAMP_COUNTER: u32 = 0x10;
const IA32_BIOS_SIGN_ID: u32 = 0x8b;
const IA32_MISC_ENABLE: u32 = 0x1a0;
/// Machine checks are shown with no bank to report them: the physical ones are the hypervisor's.
const IA32_MCG_CAP: u32 = 0x179;
const IA32_MCG_STATUS: u32 = 0x17a;
const IA32_MTRR_CAPABILITY: u32 = 0xfe;
const IA32_MTRR_DEFAULT_TYPE: u32 = 0x2ff;
const IA32_PAT: u32 = 0x277;

/// No memory type range: all memory has the default type. Guests take the page attribute table for granted only where
/// there are MTRRs.
const MTRR_CAPABILITY: u64 = 0;
/// MTRRs on (bit 11), and write-back. The nested tables have the last word on the type.
const MTRR_DEFAULT_TYPE_RESET: u64 = 1 << 11 | 6;
/// What can be set of the default type: MTRRs and fixed ranges on, and the type.
const MTRR_DEFAULT_TYPE_BITS: u64 = 3 << 10 | 0xff;

/// Registers of AMD processors that a kernel reads because the processor's model has them, and changes to work around a
/// model's errata: they read as zero, and what is written has no effect.
const WITHOUT_EFFECT: [u32; 7] = [
    0xc001_0015, // HWCR
    0xc001_001f, // NB_CFG
    0xc001_0055, // Interrupt Pending and CMP-Halt
    0xc001_1020, // LS_CFG
    0xc001_1022, // DC_CFG
    0xc001_1023, // TW_CFG
    0xc001_1029, // DE_CFG
];

/// The page attribute table after reset (SDM vol. 3, 13.12.4).
const PAT_RESET: u64 = 0x0007_0406_0007_0406;
/// Fast strings on: the only bit that is shown, and it cannot be cleared.
const MISC_ENABLE_FAST_STRINGS: u64 = 1;

/// The registers that have a state of their own.
#[derive(Debug, Clone)]
pub struct Msrs {
    page_attribute_table: u64,
    time_stamp_offset: u64,
    mtrr_default_type: u64,
    /// Speculation control.
    pub speculation: Speculation,
}

impl Default for Msrs {
    fn default() -> Self {
        Self {
            page_attribute_table: PAT_RESET,
            time_stamp_offset: 0,
            mtrr_default_type: MTRR_DEFAULT_TYPE_RESET,
            speculation: Speculation::default(),
        }
    }
}

impl Msrs {
    /// RDMSR at `now`, in ticks of the time-stamp counter.
    pub fn read(&self, msr: u32, apic: &mut LocalApic, now: u64) -> Result<u64, GeneralProtection> {
        match msr {
            _ if LocalApic::owns_msr(msr) => apic.read_msr(msr, now),
            IA32_TIME_STAMP_COUNTER => Ok(now.wrapping_add(self.time_stamp_offset)),
            IA32_BIOS_SIGN_ID => Ok(0),
            IA32_MISC_ENABLE => Ok(MISC_ENABLE_FAST_STRINGS),
            IA32_PAT => Ok(self.page_attribute_table),
            IA32_MCG_CAP | IA32_MCG_STATUS => Ok(0),
            IA32_MTRR_CAPABILITY => Ok(MTRR_CAPABILITY),
            IA32_MTRR_DEFAULT_TYPE => Ok(self.mtrr_default_type),
            _ if WITHOUT_EFFECT.contains(&msr) => Ok(0),
            _ => self.speculation.read(msr).ok_or(GeneralProtection),
        }
    }

    /// WRMSR at `now`. On success there may be something to do for the local APIC.
    pub fn write(
        &mut self,
        msr: u32,
        value: u64,
        apic: &mut LocalApic,
        now: u64,
    ) -> Result<Option<Effect>, GeneralProtection> {
        match msr {
            _ if LocalApic::owns_msr(msr) => return apic.write_msr(msr, value, now),
            IA32_TIME_STAMP_COUNTER => {
                self.time_stamp_offset = value.wrapping_sub(now);
                apic.set_time_stamp_offset(self.time_stamp_offset, now);
            }
            // The update signature is cleared by software before it reads it.
            IA32_BIOS_SIGN_ID => {}
            IA32_MISC_ENABLE if value == MISC_ENABLE_FAST_STRINGS => {}
            IA32_MCG_STATUS if value == 0 => {}
            IA32_MTRR_DEFAULT_TYPE if value & !MTRR_DEFAULT_TYPE_BITS == 0 && is_memory_type(value as u8) => {
                self.mtrr_default_type = value;
            }
            _ if WITHOUT_EFFECT.contains(&msr) => {}
            IA32_PAT if is_page_attribute_table(value) => self.page_attribute_table = value,
            _ => return Err(GeneralProtection),
        }
        Ok(None)
    }

    /// What is added to the time-stamp counter, for the engine.
    pub fn time_stamp_offset(&self) -> u64 {
        self.time_stamp_offset
    }

    /// IA32_PAT, for the engine.
    pub fn page_attribute_table(&self) -> u64 {
        self.page_attribute_table
    }
}

/// Whether every byte is a memory type: 0, 1, 4, 5, 6 or 7 (SDM vol. 3, table 13-10).
fn is_page_attribute_table(value: u64) -> bool {
    value.to_le_bytes().into_iter().all(|kind| kind == 7 || is_memory_type(kind))
}

/// Uncacheable, write-combining, write-through, write-protected or write-back (SDM vol. 3, table 13-8).
fn is_memory_type(kind: u8) -> bool {
    matches!(kind, 0 | 1 | 4..=6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use addr::ApicId;

    #[test]
    fn what_is_not_in_the_table_is_a_fault() {
        let mut apic = LocalApic::new(ApicId(0), true, 40);
        let mut msrs = Msrs::default();
        // Feature control, MTRR capability, machine check, SVM and debug registers, and one that nobody has.
        for msr in [0x3a, 0x200, 0x17b, 0x400, 0x1d9, 0x480, 0xc001_0114, 0xc001_0117, 0xdead_beef] {
            assert_eq!(msrs.read(msr, &mut apic, 0), Err(GeneralProtection), "{msr:#x}");
            assert!(msrs.write(msr, 0, &mut apic, 0).is_err(), "{msr:#x}");
        }
    }

    #[test]
    fn memory_types_are_those_that_there_are() {
        let mut apic = LocalApic::new(ApicId(0), true, 40);
        let mut msrs = Msrs::default();
        assert_eq!((msrs.read(0xfe, &mut apic, 0), msrs.read(0x2ff, &mut apic, 0)), (Ok(0), Ok(0x806)));
        for (value, good) in
            [(0x800, true), (0xc05, true), (0x802, false), (0x807, false), (0x1806, false), (0x906, false)]
        {
            assert_eq!(msrs.write(0x2ff, value, &mut apic, 0).is_ok(), good, "{value:#x}");
        }
        assert_eq!(msrs.read(0x2ff, &mut apic, 0), Ok(0xc05));
        assert!(msrs.write(0xfe, 0, &mut apic, 0).is_err());
        assert!(msrs.write(0xc001_1029, 2, &mut apic, 0).is_ok());
        assert_eq!(msrs.read(0xc001_1029, &mut apic, 0), Ok(0));
    }

    #[test]
    fn the_page_attribute_table_holds_memory_types_only() {
        let mut apic = LocalApic::new(ApicId(0), true, 40);
        let mut msrs = Msrs::default();
        assert_eq!(msrs.read(IA32_PAT, &mut apic, 0), Ok(PAT_RESET));
        for bad in [2, 3, 8, 0xff00_0000_0000_0000] {
            assert!(msrs.write(IA32_PAT, bad, &mut apic, 0).is_err());
        }
        assert!(msrs.write(IA32_PAT, 0x0706_0504_0100_0606, &mut apic, 0).is_ok());
        assert_eq!(msrs.read(IA32_PAT, &mut apic, 0), Ok(0x0706_0504_0100_0606));
        assert_eq!(msrs.read(IA32_TIME_STAMP_COUNTER, &mut apic, 77), Ok(77));
        assert!(msrs.write(IA32_TIME_STAMP_COUNTER, u64::MAX, &mut apic, 77).is_ok());
        assert_eq!(msrs.read(IA32_TIME_STAMP_COUNTER, &mut apic, 87), Ok(9));
        assert_eq!(msrs.read(0x802, &mut apic, 0), Err(GeneralProtection), "not in x2APIC mode yet");
    }
}
