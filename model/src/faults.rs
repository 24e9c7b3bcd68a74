//! Faults: reasons, recording registers and the fault event (chapter 7).

use crate::registers::{FAULT, FEADDR, FECTL, FEDATA, FEUADDR, FSTS, ICE, IM, IP, IQE, ITE, PFO, PPF};
use crate::unit::{Message, Unit};

use crate::fault::{Access, Fault, Reason};

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
