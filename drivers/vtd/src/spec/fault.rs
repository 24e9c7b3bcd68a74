//! Fault recording registers (section 11.4.7.6) and fault reasons (chapter 7, tables of fault conditions).

use addr::Bdf;
use core::fmt;

/// Bit 63 of the high half: a fault is recorded (F, RW1C).
pub const FAULT: u64 = 1 << 63;

/// Why hardware refused a request. Any value of the byte may occur; `Display` puts the known ones in words.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FaultReason(pub u8);

impl FaultReason {
    /// The device's root entry is not present.
    pub const ROOT_ENTRY_NOT_PRESENT: Self = Self(0x01);
    /// The device's context entry is not present.
    pub const CONTEXT_ENTRY_NOT_PRESENT: Self = Self(0x02);
    /// A write where the second stage does not permit it.
    pub const NO_WRITE_PERMISSION: Self = Self(0x05);
    /// A read where the second stage does not permit it.
    pub const NO_READ_PERMISSION: Self = Self(0x06);
    /// An interrupt message in the compatibility format.
    pub const COMPATIBILITY_FORMAT_BLOCKED: Self = Self(0x25);
    /// An interrupt message whose source may not use the entry.
    pub const SOURCE_ID_VERIFICATION: Self = Self(0x26);

    /// Whether the refused request was an interrupt message (reasons 0x20 to 0x2f).
    pub const fn is_interrupt(self) -> bool {
        self.0 & 0xf0 == 0x20
    }

    /// The reason in words, or `None` for a code that the specification does not define.
    pub const fn words(self) -> Option<&'static str> {
        Some(match self.0 {
            0x01 => "root entry not present",
            0x02 => "context entry not present",
            0x03 => "context entry is invalid",
            0x04 => "address beyond the maximum guest address width",
            0x05 => "no write permission in the second stage",
            0x06 => "no read permission in the second stage",
            0x07 => "error reading a second-stage paging entry",
            0x08 => "error reading the root entry",
            0x09 => "error reading the context entry",
            0x0a => "reserved field not zero in the root entry",
            0x0b => "reserved field not zero in the context entry",
            0x0c => "reserved field not zero in a second-stage paging entry",
            0x0d => "translation or translated request blocked by the context entry",
            0x0e => "address after translation is in the interrupt range",
            0x20 => "reserved field not zero in the interrupt request",
            0x21 => "interrupt index beyond the table",
            0x22 => "interrupt entry not present",
            0x23 => "error reading the interrupt entry",
            0x24 => "reserved field not zero in the interrupt entry",
            0x25 => "compatibility-format interrupt blocked",
            0x26 => "source-id verification of the interrupt failed",
            0x27 => "error accessing the posted-interrupt descriptor",
            0x28 => "reserved field not zero in the posted-interrupt descriptor",
            0x30 => "root table address is invalid",
            0x31 => "request with PASID in legacy mode",
            0x32 => "page request in legacy mode",
            0x38 => "error reading the scalable-mode root entry",
            0x39 => "scalable-mode root entry not present",
            0x3a => "reserved field not zero in the scalable-mode root entry",
            0x40 => "error reading the scalable-mode context entry",
            0x41 => "scalable-mode context entry not present",
            0x42 => "reserved field not zero in the scalable-mode context entry",
            0x43 => "scalable-mode context entry is invalid",
            0x44 => "translation request blocked by the scalable-mode context entry",
            0x45 => "request with PASID blocked by the scalable-mode context entry",
            0x46 => "PASID beyond the PASID directory",
            0x47 => "page request blocked by the scalable-mode context entry",
            0x48 => "RID_PASID beyond the PASID directory",
            0x50 => "error reading the PASID directory entry",
            0x51 => "PASID directory entry not present",
            0x52 => "reserved field not zero in the PASID directory entry",
            0x58 => "error reading the PASID table entry",
            0x59 => "PASID table entry not present",
            0x5a => "reserved field not zero in the PASID table entry",
            0x5b => "PASID table entry is invalid",
            0x5c => "execute request blocked by the PASID table entry",
            0x5d => "supervisor request blocked by the PASID table entry",
            0x70 => "error reading a first-stage paging entry",
            0x71 => "first-stage paging entry not present",
            0x72 => "reserved field not zero in a first-stage paging entry",
            0x73 => "error reading the first-stage root of a nested translation",
            0x74 => "first-stage entry beyond the address width of a nested translation",
            0x75 => "second stage denies reading the first-stage root",
            0x76 => "second stage denies reading a first-stage entry",
            0x77 => "second stage denies writing a first-stage entry",
            0x78 => "error reading a second-stage paging entry (scalable mode)",
            0x79 => "no permission in the second stage (scalable mode)",
            0x7a => "reserved field not zero in a second-stage paging entry (scalable mode)",
            0x7b => "second-stage table pointer is invalid (scalable mode)",
            0x7c => "accessed/dirty update of a second-stage entry needed without snooping",
            0x7d => "accessed/dirty update of a second-stage entry failed",
            0x80 => "address is not canonical in the first stage",
            0x81 => "user request to a supervisor page in the first stage",
            0x82 => "no execute permission in the first stage",
            0x83 => "address beyond the width of the hardware",
            0x84 => "address beyond the width of the second stage",
            0x85 => "no write permission (scalable mode)",
            0x86 => "no read permission (scalable mode)",
            0x87 => "address after translation is in the interrupt range (scalable mode)",
            0x90 => "accessed/dirty update of a first-stage entry needed without snooping",
            0x91 => "accessed/dirty update of a first-stage entry failed",
            _ => return None,
        })
    }
}

impl fmt::Display for FaultReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.words() {
            Some(words) => write!(f, "{words} ({:#04x})", self.0),
            None => write!(f, "unknown fault reason {:#04x}", self.0),
        }
    }
}

/// What was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// A DMA read (T1 1, T2 0).
    Read,
    /// A DMA write (T1 0, T2 0).
    Write,
    /// An atomic operation (T1 1, T2 1).
    Atomic,
    /// A page request (T1 0, T2 1).
    PageRequest,
    /// An interrupt message that named this index of the table.
    Interrupt {
        /// Index into the interrupt remapping table.
        index: u16,
    },
}

/// One recorded fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultRecord {
    /// The requester id that the request carried.
    pub source: Bdf,
    /// The address that the device used, a multiple of 4096; 0 for an interrupt message.
    pub address: u64,
    /// What was refused.
    pub kind: FaultKind,
    /// Why.
    pub reason: FaultReason,
    /// The PASID of the request, where it had one.
    pub pasid: Option<u32>,
}

impl FaultRecord {
    /// From the two halves of a fault recording register, or `None` when its F bit is clear.
    pub fn decode(low: u64, high: u64) -> Option<Self> {
        if high & FAULT == 0 {
            return None;
        }
        let reason = FaultReason((high >> 32) as u8);
        let interrupt = reason.is_interrupt();
        let kind = match (interrupt, high >> 62 & 1, high >> 28 & 1) {
            (true, ..) => FaultKind::Interrupt { index: (low >> 48) as u16 },
            (false, 0, 0) => FaultKind::Write,
            (false, 0, _) => FaultKind::PageRequest,
            (false, _, 0) => FaultKind::Read,
            (false, ..) => FaultKind::Atomic,
        };
        Some(Self {
            source: Bdf::from_u16(high as u16),
            address: if interrupt { 0 } else { low & !0xfff },
            kind,
            reason,
            pasid: (high >> 31 & 1 != 0).then_some((high >> 40 & 0xf_ffff) as u32),
        })
    }
}

impl fmt::Display for FaultRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FaultKind::Interrupt { index } => write!(f, "{}: interrupt through entry {index}", self.source)?,
            FaultKind::Read => write!(f, "{}: DMA read at {:#x}", self.source, self.address)?,
            FaultKind::Write => write!(f, "{}: DMA write at {:#x}", self.source, self.address)?,
            FaultKind::Atomic => write!(f, "{}: DMA atomic operation at {:#x}", self.source, self.address)?,
            FaultKind::PageRequest => write!(f, "{}: page request at {:#x}", self.source, self.address)?,
        }
        if let Some(pasid) = self.pasid {
            write!(f, " with PASID {pasid:#x}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::format;
    use std::string::ToString;

    #[test]
    fn a_record_says_who_where_what_and_why() {
        let record = FaultRecord::decode(0xdead_b123, FAULT | 1 << 62 | 6 << 32 | 0x0010).unwrap();
        assert_eq!(record.address, 0xdead_b000);
        assert_eq!(record.kind, FaultKind::Read);
        assert_eq!(
            record.to_string(),
            "00:02.0: DMA read at 0xdeadb000: no read permission in the second stage (0x06)"
        );
        assert_eq!(FaultRecord::decode(0, FAULT | 5 << 32).unwrap().kind, FaultKind::Write);
        assert_eq!(FaultRecord::decode(0, FAULT | 1 << 62 | 1 << 28).unwrap().kind, FaultKind::Atomic);
        assert_eq!(FaultRecord::decode(0, FAULT | 1 << 28).unwrap().kind, FaultKind::PageRequest);
        assert_eq!(FaultRecord::decode(!0, !FAULT), None);
    }

    #[test]
    fn an_interrupt_fault_has_an_index_and_no_address() {
        let record = FaultRecord::decode(0x0123_0000_0000_0000, FAULT | 0x22 << 32).unwrap();
        assert_eq!((record.kind, record.address), (FaultKind::Interrupt { index: 0x123 }, 0));
    }

    #[test]
    fn a_pasid_is_reported_when_there_is_one() {
        assert_eq!(FaultRecord::decode(0, FAULT | 1 << 31 | 0xabcde << 40).unwrap().pasid, Some(0xabcde));
        assert_eq!(FaultRecord::decode(0, FAULT | 0xabcde << 40).unwrap().pasid, None);
    }

    #[test]
    fn every_reason_prints_and_unknown_ones_print_their_number() {
        for code in 0..=255u8 {
            let text = FaultReason(code).to_string();
            assert!(text.contains(&format!("{code:#04x}")), "{text}");
        }
        assert_eq!(FaultReason(0xee).to_string(), "unknown fault reason 0xee");
    }
}
