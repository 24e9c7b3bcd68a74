//! How the guest reaches the registers: MSRs, and in xAPIC mode a page of memory.
//!
//! The x2APIC raises #GP for whatever is not allowed (SDM section 11.12.1.3); the xAPIC ignores reserved bits and notes
//! accesses to registers that do not exist in its error status register.

use addr::Vector;

use super::registers::*;
use super::timer::{Settings, Timer};
use super::{Effect, GeneralProtection, LocalApic, Mode};

impl LocalApic {
    /// Whether this MSR is the local APIC's, so that [`Self::read_msr`] and [`Self::write_msr`] decide what it does.
    pub fn owns_msr(msr: u32) -> bool {
        matches!(msr, IA32_APIC_BASE | IA32_TSC_DEADLINE | X2APIC_FIRST..=X2APIC_LAST)
    }

    /// RDMSR at TSC `now`.
    pub fn read_msr(&mut self, msr: u32, now: u64) -> Result<u64, GeneralProtection> {
        self.settle_timer(now);
        match (self.x2apic_register(msr), msr) {
            (Some(ICR_LOW), _) => Ok(self.registers.icr()),
            (Some(EOI | SELF_IPI), _) => Err(GeneralProtection),
            (Some(offset), _) => self.read(offset, now).map(u64::from).ok_or(GeneralProtection),
            (None, IA32_APIC_BASE) => Ok(self.apic_base()),
            (None, IA32_TSC_DEADLINE) => {
                self.loan.recalled = false;
                self.update_timer_due();
                Ok(self.timer.tsc_deadline())
            }
            (None, _) => Err(GeneralProtection),
        }
    }

    /// WRMSR at TSC `now`. On success there may be something that the caller must do.
    pub fn write_msr(&mut self, msr: u32, value: u64, now: u64) -> Result<Option<Effect>, GeneralProtection> {
        self.settle_timer(now);
        let Some(offset) = self.x2apic_register(msr) else {
            match msr {
                IA32_APIC_BASE => self.set_apic_base(value)?,
                IA32_TSC_DEADLINE => self.set_tsc_deadline(value, now),
                _ => return Err(GeneralProtection),
            }
            return Ok(None);
        };
        if offset == ICR_LOW {
            let reserved = !(ICR_BITS | ICR_DELIVERY_STATUS);
            return if value as u32 & reserved == 0 { Ok(self.command(value)) } else { Err(GeneralProtection) };
        }
        let value = u32::try_from(value).map_err(|_| GeneralProtection)?;
        let allowed = match offset {
            SELF_IPI => 0xff,
            LDR => return Err(GeneralProtection),
            _ => writable(offset).ok_or(GeneralProtection)? | read_only(offset),
        };
        if value & !allowed != 0 || offset == LVT_TIMER && value & LVT_TIMER_MODE == LVT_TIMER_MODE {
            return Err(GeneralProtection);
        }
        if offset == SELF_IPI {
            self.self_ipi(Vector(value as u8));
            return Ok(None);
        }
        Ok(self.write(offset, value, now))
    }

    /// Reads 32 bits at this offset (0 to 0xfff) of the xAPIC page, at TSC `now`. All ones outside xAPIC mode: then
    /// nothing answers there.
    pub fn read_page(&mut self, offset: u16, now: u64) -> u32 {
        self.settle_timer(now);
        if self.mode != Mode::XApic {
            return u32::MAX;
        }
        match offset {
            ICR_LOW | ICR_HIGH | DFR => self.registers.read(offset),
            // Write only.
            EOI => 0,
            // Of processors that have an APIC bus; they still exist.
            APR | RRD => 0,
            _ => self.read(offset, now).unwrap_or_else(|| {
                self.signal_error(ESR_ILLEGAL_REGISTER_ADDRESS);
                0
            }),
        }
    }

    /// Writes 32 bits at this offset (0 to 0xfff) of the xAPIC page, at TSC `now`. There may be something that the
    /// caller must do. Ignored outside xAPIC mode.
    pub fn write_page(&mut self, offset: u16, value: u32, now: u64) -> Option<Effect> {
        self.settle_timer(now);
        if self.mode != Mode::XApic {
            return None;
        }
        match offset {
            ICR_LOW => return self.command(u64::from(self.registers.read(ICR_HIGH)) << 32 | u64::from(value)),
            // The destination is bits 63:56 alone.
            ICR_HIGH => self.registers.write(ICR_HIGH, value & 0xff00_0000),
            DFR => self.registers.write(DFR, value | !DFR_MODEL),
            EOI | ESR => return self.write(offset, 0, now),
            APR | RRD => {}
            _ => match writable(offset) {
                Some(bits) => {
                    // The reserved mode is not taken: the timer counts.
                    let reserved = offset == LVT_TIMER && value & LVT_TIMER_MODE == LVT_TIMER_MODE;
                    let value = if reserved { value & !LVT_TIMER_TSC_DEADLINE } else { value };
                    return self.write(offset, value & bits, now);
                }
                // Read-only registers ignore a write; what is no register is an error.
                None if self.read(offset, now).is_some() => {}
                None => self.signal_error(ESR_ILLEGAL_REGISTER_ADDRESS),
            },
        }
        None
    }

    /// What follows a write that the processor has already made in the virtual-APIC page, at TSC `now` (an APIC-write
    /// exit). With the x2APIC MSRs alone virtualized it is a SELF IPI of a vector below 16; any register of the xAPIC page
    /// is dealt with.
    pub fn written_by_processor(&mut self, offset: u16, now: u64) -> Option<Effect> {
        self.settle_timer(now);
        let value = self.registers.read(offset);
        if offset == SELF_IPI {
            self.self_ipi(Vector(value as u8));
            return None;
        }
        self.write_page(offset, value, now)
    }

    /// What follows an EOI that the processor has already made in the virtual-APIC page (an EOI-induced exit).
    pub fn ended_by_processor(&mut self, vector: Vector) -> Option<Effect> {
        self.registers.contains(TMR, vector).then_some(Effect::EndOfInterrupt(vector))
    }

    /// The offset of the register that an x2APIC MSR stands for; `None` if it is none or the mode is another. The
    /// register need not exist.
    fn x2apic_register(&self, msr: u32) -> Option<u16> {
        let index = msr.checked_sub(X2APIC_FIRST).filter(|index| *index < 0x100 && self.mode == Mode::X2Apic)?;
        u16::try_from(index * 16).ok()
    }

    /// A register that both modes have and that can be read, but the ICR.
    fn read(&self, offset: u16, now: u64) -> Option<u32> {
        match offset {
            _ if !offset.is_multiple_of(16) => None,
            // Made from others, and from time: what a store may hold there is not their value.
            PPR => Some(self.ppr().into()),
            TIMER_CURRENT_COUNT => Some(self.timer.current_count(Settings::of(&self.registers), now)),
            ID | VERSION | TPR | LDR | SVR | ISR..=ESR | LVT_TIMER..=TIMER_INITIAL_COUNT | TIMER_DIVIDE => {
                Some(self.registers.read(offset))
            }
            _ => None,
        }
    }

    /// A register that both modes have and that can be written, but the ICR. `value` has no reserved bits.
    fn write(&mut self, offset: u16, value: u32, now: u64) -> Option<Effect> {
        match offset {
            EOI => {
                let vector = self.end_of_interrupt()?;
                return self.registers.contains(TMR, vector).then_some(Effect::EndOfInterrupt(vector));
            }
            TPR => self.set_tpr(value as u8),
            SVR => {
                self.registers.write(SVR, value);
                self.changed = true;
                if value & SVR_ENABLE == 0 {
                    for lvt in (LVT_TIMER..=LVT_ERROR).step_by(16) {
                        self.registers.write(lvt, self.registers.read(lvt) | LVT_MASKED);
                    }
                }
                self.update_timer_due();
            }
            ESR => self.registers.write(ESR, core::mem::take(&mut self.errors)),
            LVT_TIMER..=LVT_ERROR => {
                // While the APIC is software-disabled the mask bits are stuck (section 11.4.7.2).
                let stuck = if self.is_software_enabled() { 0 } else { LVT_MASKED };
                let before = self.registers.read(offset);
                self.registers.write(offset, value & !LVT_READ_ONLY | stuck);
                if offset == LVT_TIMER && (before ^ value) & LVT_TIMER_TSC_DEADLINE != 0 {
                    // Into TSC-deadline mode and out of it, the timer is disarmed.
                    self.registers.write(TIMER_INITIAL_COUNT, 0);
                    self.timer = Timer::default();
                }
                self.update_timer_due();
            }
            // Its time is told in another way.
            TIMER_INITIAL_COUNT if Settings::of(&self.registers).has_deadline() => {}
            TIMER_INITIAL_COUNT => {
                self.registers.write(offset, value);
                self.timer.start(value, now);
                self.update_timer_due();
            }
            TIMER_DIVIDE => {
                self.timer.settle(Settings::of(&self.registers), now);
                self.registers.write(offset, value);
                self.update_timer_due();
            }
            _ => self.registers.write(offset, value),
        }
        None
    }

    fn self_ipi(&mut self, vector: Vector) {
        if vector.0 < 16 {
            self.signal_error(ESR_SEND_ILLEGAL_VECTOR);
        } else {
            self.receive(vector);
        }
    }
}

/// The bits of a register that both modes have that can be written; `None` for read-only and missing registers.
fn writable(offset: u16) -> Option<u32> {
    Some(match offset {
        TPR => 0xff,
        EOI | ESR => 0,
        LDR => 0xff00_0000,
        SVR => SVR_BITS,
        LVT_TIMER => LVT_VECTOR | LVT_MASKED | LVT_TIMER_MODE,
        LVT_THERMAL | LVT_PERFORMANCE => LVT_VECTOR | LVT_DELIVERY_MODE | LVT_MASKED,
        LVT_LINT0 | LVT_LINT1 => LVT_VECTOR | LVT_DELIVERY_MODE | LVT_PIN | LVT_MASKED,
        LVT_ERROR => LVT_VECTOR | LVT_MASKED,
        TIMER_INITIAL_COUNT => u32::MAX,
        TIMER_DIVIDE => TIMER_DIVIDE_BITS,
        _ => return None,
    })
}

/// The bits of a writable register that a write may have and that it does not change.
fn read_only(offset: u16) -> u32 {
    match offset {
        LVT_LINT0 | LVT_LINT1 => LVT_READ_ONLY,
        LVT_TIMER..=LVT_ERROR => LVT_READ_ONLY & !(1 << 14),
        _ => 0,
    }
}
