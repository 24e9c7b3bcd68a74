//! The clock that a guest reads without an exit: KVM's interface (the Linux kernel's Documentation/virt/kvm/x86/cpuid.rst
//! and msr.rst), which Linux and others find by CPUID, whoever the hypervisor is. It also tells them the frequency of the
//! time-stamp counter, for which they would otherwise look for timers that this platform does not have.

use crate::vm::local_apic::GeneralProtection;
use crate::vm::memory::GuestMemoryAccess;
use addr::GuestPhys;

/// The leaf where the interface is found: one of those that guests search, 0x100 apart.
pub const CPUID_BASE: u32 = 0x4000_0100;
/// The leaf with the features.
pub const CPUID_FEATURES: u32 = CPUID_BASE + 1;
/// The interface's name.
pub const NAME: [u8; 12] = *b"KVMKVMKVM\0\0\0";
/// KVM_FEATURE_CLOCKSOURCE2, and KVM_FEATURE_CLOCKSOURCE_STABLE_BIT: all processors' clocks are the same.
pub const FEATURES: u32 = 1 << 3 | 1 << 24;

/// MSR_KVM_WALL_CLOCK_NEW: the guest-physical address where the time of its start is to be written.
const WALL_CLOCK: u32 = 0x4b56_4d00;
/// MSR_KVM_SYSTEM_TIME_NEW: the guest-physical address of the clock, and bit 0 to switch it on.
const SYSTEM_TIME: u32 = 0x4b56_4d01;
const ENABLE: u64 = 1;
/// Bit 0 of the clock's flags: it never goes backwards between processors.
const STABLE: u8 = 1;

const NANOSECONDS: u64 = 1_000_000_000;

/// The time-stamp counter.
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    /// What it reads.
    pub now: u64,
    /// What is added to it where the guest reads it.
    pub offset: u64,
    /// Its frequency.
    pub khz: u32,
}

/// One guest's clock.
#[derive(Debug, Default)]
pub struct Clock {
    /// The time-stamp counter at the guest's start.
    pub start: u64,
    /// The time of day at its start, in seconds since 1970.
    pub wall_seconds: u32,
    system_time: u64,
}

impl Clock {
    /// Whether a register is the clock's.
    pub fn owns_msr(msr: u32) -> bool {
        matches!(msr, WALL_CLOCK | SYSTEM_TIME)
    }

    /// RDMSR.
    pub fn read(&self, msr: u32) -> u64 {
        if msr == SYSTEM_TIME { self.system_time } else { 0 }
    }

    /// WRMSR when the counter is at `counter`.
    ///
    /// # Errors
    /// [`GeneralProtection`] where the address is not memory, as with a register that is not there.
    pub fn write(
        &mut self,
        msr: u32,
        value: u64,
        counter: Counter,
        memory: &mut impl GuestMemoryAccess,
    ) -> Result<(), GeneralProtection> {
        // The version, odd while the rest changes, is even: nobody reads while the guest executes WRMSR.
        const VERSION: u32 = 2;
        let words = |memory: &mut dyn FnMut(u64, &[u8]) -> bool, parts: &[&[u8]]| {
            let mut at = value & !ENABLE;
            parts.iter().all(|part| {
                let done = memory(at, part);
                at = at.wrapping_add(part.len() as u64);
                done
            })
        };
        let mut put = |at: u64, part: &[u8]| memory.write(GuestPhys::new(at), part).is_ok();
        if msr == WALL_CLOCK {
            let parts = [&VERSION.to_le_bytes()[..], &self.wall_seconds.to_le_bytes(), &[0; 4]];
            return if words(&mut put, &parts) { Ok(()) } else { Err(GeneralProtection) };
        }
        if value & ENABLE != 0 {
            let Rate { multiplier, shift } = Rate::of(counter.khz);
            let time = nanoseconds(counter.now.saturating_sub(self.start), counter.khz);
            let parts = [
                &VERSION.to_le_bytes()[..],
                &[0; 4],
                &counter.now.wrapping_add(counter.offset).to_le_bytes(),
                &time.to_le_bytes(),
                &multiplier.to_le_bytes(),
                &[shift as u8, STABLE, 0, 0],
            ];
            if !words(&mut put, &parts) {
                return Err(GeneralProtection);
            }
        }
        self.system_time = value;
        Ok(())
    }
}

fn nanoseconds(ticks: u64, khz: u32) -> u64 {
    (u128::from(ticks) * 1_000_000 / u128::from(khz.max(1))) as u64
}

/// How ticks become nanoseconds: shifted left by `shift` (right where it is negative), times `multiplier`, divided by
/// 2 to the power of 32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rate {
    multiplier: u32,
    shift: i8,
}

impl Rate {
    /// Of a counter with this frequency: the multiplier has all 32 bits.
    fn of(khz: u32) -> Self {
        let mut frequency = u64::from(khz.max(1)) * 1000;
        let mut shift = 0;
        while frequency > NANOSECONDS * 2 {
            frequency >>= 1;
            shift -= 1;
        }
        while frequency <= NANOSECONDS {
            frequency <<= 1;
            shift += 1;
        }
        Self { multiplier: ((NANOSECONDS << 32) / frequency) as u32, shift }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const EARLY: Counter = Counter { now: 5, offset: 0, khz: 1000 };

    #[test]
    fn a_second_of_ticks_is_a_second() {
        for khz in [1, 100_000, 999_999, 1_000_000, 1_000_001, 2_000_000, 2_445_071, 5_000_000, u32::MAX] {
            let Rate { multiplier, shift } = Rate::of(khz);
            let ticks = u64::from(khz) * 1000;
            let shifted = if shift < 0 { ticks >> -shift } else { ticks << shift };
            let time = ((u128::from(shifted) * u128::from(multiplier)) >> 32) as u64;
            assert!(time.abs_diff(NANOSECONDS) <= 2, "{khz}: {time}");
            assert!(multiplier >= 1 << 31, "{khz}: all bits are used");
        }
    }

    #[test]
    fn the_clock_is_written_where_the_guest_wants_it() {
        let mut memory = vec![0xff; 0x3000];
        let mut clock = Clock { start: 1000, wall_seconds: 0x1234_5678, ..Clock::default() };
        assert_eq!(
            clock.write(SYSTEM_TIME, 0x2001, Counter { now: 2_001_000, offset: 7, khz: 2_000_000 }, &mut memory),
            Ok(())
        );
        assert_eq!(clock.read(SYSTEM_TIME), 0x2001);
        let word = |at: usize| u64::from_le_bytes(memory[at..at + 8].try_into().unwrap());
        assert_eq!((word(0x2000), word(0x2008), word(0x2010)), (2, 2_001_007, 1_000_000));
        // 2 GHz: half a nanosecond a tick, and nothing to shift.
        assert_eq!((word(0x2018) as u32, &memory[0x201c..0x2020]), (1 << 31, &[0, 1, 0, 0][..]));
        assert_eq!(memory[0x2020], 0xff);
        assert_eq!(clock.write(WALL_CLOCK, 0x1000, EARLY, &mut memory), Ok(()));
        assert_eq!(memory[0x1000..0x100d], [2, 0, 0, 0, 0x78, 0x56, 0x34, 0x12, 0, 0, 0, 0, 0xff]);
    }

    #[test]
    fn what_is_switched_off_or_no_memory_is_not_written() {
        let mut memory = vec![0xff; 0x1000];
        let mut clock = Clock::default();
        assert_eq!(clock.write(SYSTEM_TIME, 0x800, EARLY, &mut memory), Ok(()));
        assert!(memory.iter().all(|byte| *byte == 0xff));
        for address in [0xff0u64, 0x1000, u64::MAX - 7] {
            assert_eq!(clock.write(SYSTEM_TIME, address | 1, EARLY, &mut memory), Err(GeneralProtection));
            assert_eq!(clock.write(WALL_CLOCK, address | 6, EARLY, &mut memory), Err(GeneralProtection));
        }
        assert_eq!(clock.read(SYSTEM_TIME), 0x800);
    }
}
