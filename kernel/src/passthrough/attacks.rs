//! Attempts that a test guest announces (`report: attack=NAME iova=0x... len=0x...`, then `report: attack-done=NAME`),
//! and what the hypervisor itself saw of each. The verdict does not rest on what the guest says: an attempt is blocked
//! only if the remapping hardware recorded it, and nothing passes if the hypervisor's memory has changed.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use vtd::{FaultKind, FaultRecord};

/// Attempts that are kept; a guest that announces more is not believed any more.
const MAXIMUM_ATTEMPTS: usize = 64;
/// The addresses at which a write is an interrupt message and not a memory access.
const INTERRUPT_RANGE: core::ops::Range<u64> = 0xfee0_0000..0xfef0_0000;

/// What became of one attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The remapping hardware refused it and recorded it.
    Blocked,
    /// A forged interrupt message that came to nothing: what arrived was logged and did no more, or nothing arrived.
    Harmless,
    /// An attempt on memory of which nothing was seen: it was not made, or it went where nobody looks.
    Unseen,
    /// The hypervisor's memory has changed.
    Breach,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Blocked => "blocked",
            Verdict::Harmless => "harmless",
            Verdict::Unseen => "unseen",
            Verdict::Breach => "BREACH",
        })
    }
}

/// The state of the machine that an attempt is judged by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Observation {
    /// Interrupts that nobody had asked for, since the start.
    pub stray_interrupts: u64,
    /// The checksum of the hypervisor's constant memory.
    pub checksum: u64,
}

struct Attempt {
    name: String,
    start: u64,
    length: u64,
    before: Observation,
    faults: u64,
}

impl Attempt {
    /// Whether it is on the addresses at which a write is an interrupt message.
    fn is_on_interrupts(&self) -> bool {
        let end = self.start.saturating_add(self.length);
        self.start < INTERRUPT_RANGE.end && end > INTERRUPT_RANGE.start
    }
}

/// All attempts of one guest.
#[derive(Default)]
pub struct Attacks {
    current: Option<Attempt>,
    verdicts: Vec<(String, Verdict)>,
}

impl Attacks {
    /// The guest announces an attempt on `length` bytes from `start` on.
    pub fn begin(&mut self, name: &str, start: u64, length: u64, before: Observation) {
        self.current = Some(Attempt { name: name.to_string(), start, length, before, faults: 0 });
    }

    /// The hardware recorded a fault of a device of this guest.
    pub fn fault(&mut self, record: &FaultRecord) {
        let Some(attempt) = &mut self.current else { return };
        let end = attempt.start.saturating_add(attempt.length);
        let on_interrupts = attempt.is_on_interrupts();
        // Records of DMA have the page, records of interrupts the index of an entry.
        let page = attempt.start & !0xfff..end.next_multiple_of(0x1000);
        let meant = match record.kind {
            FaultKind::Interrupt { .. } => on_interrupts,
            _ => page.contains(&record.address),
        };
        attempt.faults += u64::from(meant);
    }

    /// The guest says that the attempt is over; `after` is the state of the machine now. Returns its name and verdict.
    pub fn end(&mut self, after: Observation) -> Option<(&str, Verdict)> {
        let attempt = self.current.take()?;
        let verdict = if after.checksum != attempt.before.checksum {
            Verdict::Breach
        } else if attempt.faults > 0 {
            Verdict::Blocked
        } else if attempt.is_on_interrupts() || after.stray_interrupts > attempt.before.stray_interrupts {
            Verdict::Harmless
        } else {
            Verdict::Unseen
        };
        if self.verdicts.len() < MAXIMUM_ATTEMPTS {
            self.verdicts.push((attempt.name, verdict));
        }
        self.verdicts.last().map(|(name, verdict)| (name.as_str(), *verdict))
    }

    /// How many attempts were made.
    pub fn count(&self) -> usize {
        self.verdicts.len() + usize::from(self.current.is_some())
    }

    /// How many ended with `verdict`.
    pub fn with(&self, verdict: Verdict) -> usize {
        self.verdicts.iter().filter(|(_, found)| *found == verdict).count()
    }

    /// Whether every attempt was blocked or harmless, and ended.
    pub fn all_repelled(&self) -> bool {
        self.with(Verdict::Blocked) + self.with(Verdict::Harmless) == self.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use addr::Bdf;
    use vtd::FaultReason;

    const QUIET: Observation = Observation { stray_interrupts: 3, checksum: 7 };

    fn dma(address: u64) -> FaultRecord {
        FaultRecord {
            source: Bdf::from_u16(0x18),
            address,
            kind: FaultKind::Write,
            reason: FaultReason(5),
            pasid: None,
        }
    }

    #[test]
    fn an_attempt_is_blocked_only_if_the_hardware_says_so() {
        let mut attacks = Attacks::default();
        attacks.begin("write", 0x100_0000, 0x1000, QUIET);
        attacks.fault(&dma(0x200_0000));
        assert_eq!(attacks.end(QUIET), Some(("write", Verdict::Unseen)));
        attacks.begin("write", 0x100_0000, 0x1000, QUIET);
        attacks.fault(&dma(0x100_0000));
        assert_eq!(attacks.end(QUIET), Some(("write", Verdict::Blocked)));
        assert!(!attacks.all_repelled());
        assert_eq!((attacks.count(), attacks.with(Verdict::Blocked)), (2, 1));
        assert_eq!(attacks.end(QUIET), None);
    }

    #[test]
    fn changed_memory_is_a_breach_whatever_else_happened() {
        let mut attacks = Attacks::default();
        attacks.begin("write", 0x100_0000, 0x1000, QUIET);
        attacks.fault(&dma(0x100_0000));
        let verdict = attacks.end(Observation { checksum: 8, ..QUIET });
        assert_eq!(verdict, Some(("write", Verdict::Breach)));
        assert!(!attacks.all_repelled());
    }

    #[test]
    fn a_forged_message_is_harmless_if_it_was_logged_or_never_arrived() {
        let mut attacks = Attacks::default();
        attacks.begin("forge", 0xfee0_0000, 0x40, QUIET);
        let verdict = attacks.end(Observation { stray_interrupts: 4, ..QUIET });
        assert_eq!(verdict, Some(("forge", Verdict::Harmless)));
        assert!(attacks.all_repelled());
        attacks.begin("forge", 0xfee0_0000, 0x40, QUIET);
        assert_eq!(attacks.end(QUIET), Some(("forge", Verdict::Harmless)));
        attacks.begin("forge", 0xfee0_0000, 0x40, QUIET);
        assert_eq!(attacks.end(Observation { checksum: 8, ..QUIET }), Some(("forge", Verdict::Breach)));
        attacks = Attacks::default();
        attacks.begin("unfinished", 0, 1, QUIET);
        assert!(!attacks.all_repelled());
    }
}
