//! Faults: reasons, recording registers and the fault event (chapter 7).

use crate::registers::{FAULT, FEADDR, FECTL, FEDATA, FEUADDR, FSTS, ICE, IM, IP, IQE, ITE, PFO, PPF};
use crate::unit::{Message, Unit};

/// What a request wanted of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// The device reads.
    Read,
    /// The device writes.
    Write,
}

/// A fault reason code (7.1, table of fault conditions).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Reason(pub u8);

impl Reason {
    /// Aborted without a record: not a code of the specification, which reserves 0.
    pub const ABORTED: Reason = Reason(0);
    /// The present bit of the root entry is clear.
    pub const ROOT_NOT_PRESENT: Reason = Reason(0x1);
    /// The present bit of the context entry is clear.
    pub const CONTEXT_NOT_PRESENT: Reason = Reason(0x2);
    /// AW or TT of the context entry is one that the unit has not.
    pub const CONTEXT_INVALID: Reason = Reason(0x3);
    /// The address is beyond the width of the domain or of the unit.
    pub const BEYOND_WIDTH: Reason = Reason(0x4);
    /// A write without write permission.
    pub const WRITE: Reason = Reason(0x5);
    /// A read without read permission.
    pub const READ: Reason = Reason(0x6);
    /// A paging entry could not be read.
    pub const PAGING_ACCESS: Reason = Reason(0x7);
    /// The root entry could not be read.
    pub const ROOT_ACCESS: Reason = Reason(0x8);
    /// The context entry could not be read.
    pub const CONTEXT_ACCESS: Reason = Reason(0x9);
    /// A reserved field of a present root entry is not 0.
    pub const ROOT_RESERVED: Reason = Reason(0xa);
    /// A reserved field of a present context entry is not 0.
    pub const CONTEXT_RESERVED: Reason = Reason(0xb);
    /// A reserved field of a present paging entry is not 0.
    pub const PAGING_RESERVED: Reason = Reason(0xc);
    /// The translated address lies in the interrupt range.
    pub const INTERRUPT_RANGE: Reason = Reason(0xe);
    /// Remappable interrupt request with a reserved field that is not 0.
    pub const INTERRUPT_RESERVED: Reason = Reason(0x20);
    /// Interrupt index beyond the table.
    pub const INDEX: Reason = Reason(0x21);
    /// The present bit of the interrupt-remapping entry is clear.
    pub const IRTE_NOT_PRESENT: Reason = Reason(0x22);
    /// The interrupt-remapping entry could not be read.
    pub const IRTE_ACCESS: Reason = Reason(0x23);
    /// A reserved field of a present interrupt-remapping entry is not 0.
    pub const IRTE_RESERVED: Reason = Reason(0x24);
    /// A compatibility-format interrupt while they are blocked.
    pub const COMPATIBILITY_BLOCKED: Reason = Reason(0x25);
    /// The source-id check failed.
    pub const SOURCE_ID: Reason = Reason(0x26);
    /// The posted-interrupt descriptor could not be read or written.
    pub const POSTED_ACCESS: Reason = Reason(0x27);
    /// A reserved field of the posted-interrupt descriptor is not 0.
    pub const POSTED_RESERVED: Reason = Reason(0x28);
    /// RTADDR.TTM names a mode that the unit has not.
    pub const TABLE_MODE: Reason = Reason(0x30);
    /// A request with PASID in legacy mode.
    pub const PASID_IN_LEGACY_MODE: Reason = Reason(0x31);
    /// Scalable mode: the root entry could not be read.
    pub const SCALABLE_ROOT_ACCESS: Reason = Reason(0x38);
    /// Scalable mode: the present bit of the root entry's half is clear.
    pub const SCALABLE_ROOT_NOT_PRESENT: Reason = Reason(0x39);
    /// Scalable mode: a reserved field of the present half of a root entry is not 0.
    pub const SCALABLE_ROOT_RESERVED: Reason = Reason(0x3a);
    /// Scalable mode: the context entry could not be read.
    pub const SCALABLE_CONTEXT_ACCESS: Reason = Reason(0x40);
    /// Scalable mode: the present bit of the context entry is clear.
    pub const SCALABLE_CONTEXT_NOT_PRESENT: Reason = Reason(0x41);
    /// Scalable mode: a reserved field of a present context entry is not 0.
    pub const SCALABLE_CONTEXT_RESERVED: Reason = Reason(0x42);
    /// A request with PASID where PASIDE of the context entry is clear.
    pub const PASID_DISABLED: Reason = Reason(0x45);
    /// A PASID beyond the directory or beyond what the unit has bits for.
    pub const PASID_BEYOND_DIRECTORY: Reason = Reason(0x46);
    /// RID_PASID is beyond the directory.
    pub const RID_PASID_BEYOND_DIRECTORY: Reason = Reason(0x48);
    /// The PASID directory entry could not be read.
    pub const PASID_DIRECTORY_ACCESS: Reason = Reason(0x50);
    /// The present bit of the PASID directory entry is clear.
    pub const PASID_DIRECTORY_NOT_PRESENT: Reason = Reason(0x51);
    /// A reserved field of a present PASID directory entry is not 0.
    pub const PASID_DIRECTORY_RESERVED: Reason = Reason(0x52);
    /// The PASID table entry could not be read.
    pub const PASID_TABLE_ACCESS: Reason = Reason(0x58);
    /// The present bit of the PASID table entry is clear.
    pub const PASID_NOT_PRESENT: Reason = Reason(0x59);
    /// A reserved field of a present PASID table entry is not 0.
    pub const PASID_RESERVED: Reason = Reason(0x5a);
    /// PGTT, AW or FSPM of a PASID table entry is one that the unit has not.
    pub const PASID_INVALID: Reason = Reason(0x5b);
    /// A supervisor request where SRE of the PASID table entry is clear.
    pub const SUPERVISOR: Reason = Reason(0x5d);
    /// A first-stage entry, not of the highest table, could not be read.
    pub const FIRST_STAGE_ACCESS: Reason = Reason(0x70);
    /// The present bit of a first-stage entry is clear.
    pub const FIRST_STAGE_ABSENT: Reason = Reason(0x71);
    /// A reserved field of a present first-stage entry is not 0.
    pub const FIRST_STAGE_RESERVED: Reason = Reason(0x72);
    /// An entry of the highest first-stage table could not be read.
    pub const FIRST_STAGE_ROOT_ACCESS: Reason = Reason(0x73);
    /// Nested: the address of a first-stage table is beyond the second stage.
    pub const FIRST_STAGE_BEYOND_WIDTH: Reason = Reason(0x74);
    /// Nested: the second stage does not let the highest first-stage table be read.
    pub const FIRST_STAGE_ROOT_READ: Reason = Reason(0x75);
    /// Nested: the second stage does not let a first-stage table be read.
    pub const FIRST_STAGE_READ: Reason = Reason(0x76);
    /// Nested: the second stage does not let accessed and dirty bits be written.
    pub const FIRST_STAGE_WRITE: Reason = Reason(0x77);
    /// Scalable mode: a second-stage entry, not of the highest table, could not be read.
    pub const SECOND_STAGE_ACCESS: Reason = Reason(0x78);
    /// Scalable mode: neither read nor write permission in the second stage.
    pub const SECOND_STAGE_ABSENT: Reason = Reason(0x79);
    /// Scalable mode: a reserved field of a present second-stage entry is not 0.
    pub const SECOND_STAGE_RESERVED: Reason = Reason(0x7a);
    /// Scalable mode: an entry of the highest second-stage table could not be read.
    pub const SECOND_STAGE_ROOT_ACCESS: Reason = Reason(0x7b);
    /// Accessed and dirty bits of a second-stage entry are to be set by walks that do not snoop.
    pub const SECOND_STAGE_UPDATE: Reason = Reason(0x7c);
    /// The address is not canonical for the first stage.
    pub const NOT_CANONICAL: Reason = Reason(0x80);
    /// A first-stage page for supervisor requests, and a request without that privilege.
    pub const FIRST_STAGE_USER: Reason = Reason(0x81);
    /// Pass-through in scalable mode: the address is beyond the host's width.
    pub const BEYOND_HOST_WIDTH: Reason = Reason(0x83);
    /// Scalable mode: the address is beyond the second stage.
    pub const SECOND_STAGE_BEYOND_WIDTH: Reason = Reason(0x84);
    /// Scalable mode: a write without write permission.
    pub const SCALABLE_WRITE: Reason = Reason(0x85);
    /// Scalable mode: a read without read permission.
    pub const SCALABLE_READ: Reason = Reason(0x86);
    /// Scalable mode: the translated address lies in the interrupt range.
    pub const SCALABLE_INTERRUPT_RANGE: Reason = Reason(0x87);
    /// Accessed and dirty bits of a first-stage entry are to be set by walks that do not snoop.
    pub const FIRST_STAGE_UPDATE: Reason = Reason(0x90);

    /// Whether FPD of a context, PASID directory, PASID table or interrupt-remapping entry can silence this reason
    /// ("qualified", 7.1).
    pub(crate) const fn qualified(self) -> bool {
        matches!(self.0, 0x2..=0x7 | 0xb..=0xe | 0x22 | 0x24 | 0x26..=0x28
            | 0x41..=0x48 | 0x51..=0x52 | 0x59..=0x5d | 0x70..=0x7d | 0x80..=0x87 | 0x90..=0x91)
    }
}

/// A blocked request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Why.
    pub reason: Reason,
    /// Whose request: the requester id.
    pub source: u16,
    /// The PASID that the request carried.
    pub pasid: Option<u32>,
    /// The page's address for DMA (bits 63:12 of what was asked), the interrupt index in bits 63:48 for interrupts.
    pub info: u64,
    /// What the request wanted; an interrupt request is a write.
    pub access: Access,
    /// FPD was set: nothing is recorded.
    pub silenced: bool,
}

impl Unit {
    fn record_offset(&self, index: u16) -> u16 {
        self.configuration.fault_offset + 16 * index
    }

    fn pending(&self, index: u16) -> bool {
        self.registers.get(self.record_offset(index) + 8) & FAULT != 0
    }

    /// Primary fault logging (7.2.1).
    pub(crate) fn record(&mut self, fault: &Fault) {
        if fault.silenced || fault.reason == Reason::ABORTED {
            return;
        }
        if self.registers.get32(FSTS) & PFO != 0 {
            return;
        }
        let count = self.configuration.fault_records;
        let same_source = |index: u16| {
            self.pending(index) && self.registers.get(self.record_offset(index) + 8) & 0xffff == u64::from(fault.source)
        };
        if self.configuration.compress_faults && (0..count).any(same_source) {
            return;
        }
        let index = self.next_record;
        if self.pending(index) {
            self.raise_fault_status(PFO);
            return;
        }
        let offset = self.record_offset(index);
        let read = u64::from(fault.access == Access::Read) << 62;
        self.registers.set(offset, fault.info & !0xfff);
        // PP (bit 31) and PASID (59:40).
        let pasid = fault.pasid.map_or(0, |pasid| 1 << 31 | u64::from(pasid & 0xf_ffff) << 40);
        let reason = u64::from(fault.reason.0) << 32;
        self.registers.set(offset + 8, FAULT | read | pasid | reason | u64::from(fault.source));
        self.next_record = (index + 1) % count;
        if self.registers.get32(FSTS) & PPF == 0 {
            self.registers.update(FSTS, u64::from(index & 0xff) << 8, 0xff00);
        }
        self.raise_fault_status(PPF);
    }

    /// Sets bits of FSTS. It is an interrupt condition only if no status was set before (11.4.7.2, IP): software
    /// that leaves one bit behind hears of no further fault.
    pub(crate) fn raise_fault_status(&mut self, bits: u32) {
        let before = self.registers.get32(FSTS) & (PFO | PPF | IQE | ICE | ITE);
        self.registers.update(FSTS, bits.into(), 0);
        if before == 0 {
            if self.registers.get32(FECTL) & IM != 0 {
                self.registers.update(FECTL, IP.into(), 0);
            } else {
                self.send_fault_event();
            }
        }
    }

    fn send_fault_event(&mut self) {
        self.registers.update(FECTL, 0, IP.into());
        let message = self.message(FEADDR, FEUADDR, FEDATA);
        self.messages.push(message);
    }

    pub(crate) fn message(&self, address: u16, upper: u16, data: u16) -> Message {
        Message {
            address: self.registers.get(upper) << 32 | self.registers.get(address),
            data: self.registers.get32(data),
        }
    }

    /// Software wrote FECTL: a held event goes out when the mask goes.
    pub(crate) fn fault_control_written(&mut self) {
        let control = self.registers.get32(FECTL);
        if control & IM == 0 && control & IP != 0 {
            self.send_fault_event();
        }
    }

    /// Software wrote FSTS or a fault record: PPF follows the records' F bits, and a held event goes when all status
    /// is serviced.
    pub(crate) fn fault_status_written(&mut self) {
        if !(0..self.configuration.fault_records).any(|index| self.pending(index)) {
            self.registers.update(FSTS, 0, PPF.into());
        }
        if self.registers.get32(FSTS) & (PFO | PPF | IQE | ICE | ITE) == 0 {
            self.registers.update(FECTL, 0, IP.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Configuration, Memory};

    fn unit(fault_records: u16) -> (Unit, Memory) {
        (Unit::new(Configuration { fault_records, ..Configuration::default() }), Memory::new(0x10_0000, 0))
    }

    fn fault(source: u16) -> Fault {
        Fault { reason: Reason::WRITE, source, pasid: None, info: 0x5000, access: Access::Write, silenced: false }
    }

    #[test]
    fn records_are_filled_in_turn_and_overflow_stops_recording() {
        let (mut unit, mut memory) = unit(2);
        unit.record(&fault(1));
        unit.record(&fault(2));
        assert_eq!(unit.read64(&mut memory, 0x418) & 0xff_0000_ffff, 0x5_0000_0002);
        unit.record(&fault(3));
        assert_eq!(unit.registers.get32(FSTS), PFO | PPF);
        // Freed records stay unused until PFO is cleared too.
        unit.write64(&mut memory, 0x408, FAULT);
        unit.write64(&mut memory, 0x418, FAULT);
        assert_eq!(unit.registers.get32(FSTS), PFO);
        unit.record(&fault(4));
        assert_eq!(unit.registers.get32(FSTS), PFO);
        unit.write32(&mut memory, FSTS, PFO);
        unit.record(&fault(5));
        assert_eq!(unit.registers.get(0x408) & 0xffff, 5);
    }

    #[test]
    fn fri_names_the_first_pending_record_after_a_wrap() {
        let (mut unit, mut memory) = unit(2);
        unit.record(&fault(1));
        unit.write64(&mut memory, 0x408, FAULT);
        unit.record(&fault(2));
        assert_eq!(unit.registers.get32(FSTS) >> 8, 1);
        unit.record(&fault(3));
        assert_eq!(unit.registers.get32(FSTS) >> 8, 1, "FRI stays at the first");
        assert_eq!(unit.registers.get(0x408) & 0xffff, 3);
    }

    #[test]
    fn the_event_is_held_while_masked_and_sent_once() {
        let (mut unit, mut memory) = unit(4);
        unit.write32(&mut memory, FEDATA, 0x31);
        unit.write32(&mut memory, FEADDR, 0xfee0_1000);
        unit.record(&fault(1));
        assert_eq!(unit.read32(&mut memory, FECTL), IM | IP);
        assert!(unit.messages.is_empty());
        unit.write32(&mut memory, FECTL, 0);
        assert_eq!(unit.messages, [Message { address: 0xfee0_1000, data: 0x31 }]);
        assert_eq!(unit.read32(&mut memory, FECTL), 0);
        unit.record(&fault(2));
        assert_eq!(unit.messages.len(), 1, "status was not serviced: no new event");
        for record in [0x408, 0x418] {
            unit.write64(&mut memory, record, FAULT);
        }
        unit.record(&fault(3));
        assert_eq!(unit.messages.len(), 2);
    }

    #[test]
    fn a_held_event_is_dropped_when_the_status_is_serviced() {
        let (mut unit, mut memory) = unit(4);
        unit.record(&fault(1));
        unit.write64(&mut memory, 0x408, FAULT);
        assert_eq!(unit.read32(&mut memory, FECTL), IM);
        unit.write32(&mut memory, FECTL, 0);
        assert!(unit.messages.is_empty());
    }

    #[test]
    fn compression_keeps_one_record_of_a_source() {
        let (mut unit, _) = unit(2);
        unit.configuration.compress_faults = true;
        for source in [1, 1, 1, 2] {
            unit.record(&fault(source));
        }
        assert_eq!(unit.registers.get32(FSTS), PPF);
        assert_eq!(unit.registers.get(0x418) & 0xffff, 2);
    }
}
