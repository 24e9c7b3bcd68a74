//! Page requests of devices and the answers to them (7.4 to 7.6).

use crate::descriptor::{Descriptor, PageResponse, QueueError};
use crate::memory::Memory;
use crate::registers::{IM, IP, PEADDR, PECTL, PEDATA, PEUADDR, PPR, PQA, PQH, PQT, PRO, PRS};
use crate::unit::Unit;

/// What a device asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageAsked {
    /// The requester id.
    pub source: u16,
    /// The PASID, if the request has one.
    pub pasid: Option<u32>,
    /// The page.
    pub address: u64,
    /// It wants to write; else to read.
    pub write: bool,
    /// The last of its group.
    pub last: bool,
    /// The group's index, 9 bits.
    pub group: u16,
}

/// Type 9: type 3:0, PASID present 4, code 15:12, source 31:16, PASID 51:32; LPIG 2, PRGI 11:3 of the other half.
pub(crate) fn decode_response(low: u64, high: u64) -> Result<Descriptor, QueueError> {
    if low & 0xfff0_0000_0000_0fe0 != 0 || high & !0xffc != 0 {
        return Err(QueueError::Reserved);
    }
    Ok(Descriptor::PageResponse(PageResponse {
        source: (low >> 16) as u16,
        pasid: (low >> 4 & 1 != 0).then_some((low >> 32) as u32 & 0xf_ffff),
        group: (high >> 3) as u16 & 0x1ff,
        code: (low >> 12) as u8 & 0xf,
    }))
}

impl Unit {
    /// A device asks for a page; `false` if the request is dropped, because page requests are off or the ring is full.
    pub fn page_request(&mut self, memory: &mut Memory, asked: PageAsked) -> bool {
        let address = self.registers.get(PQA);
        let bytes = 4096u64 << (address & 7);
        let (head, tail) = (self.registers.get(PQH), self.registers.get(PQT));
        if !self.configuration.page_requests || address & !0xfff == 0 || self.registers.get32(PRS) & PRO != 0 {
            return false;
        }
        let next = (tail + 32) % bytes;
        if next == head {
            self.raise_page_status(PRO);
            return false;
        }
        let PageAsked { source, pasid, address: page, write, last, group } = asked;
        let pasid = pasid.map_or(0, |pasid| 1 << 8 | u64::from(pasid) << 32);
        let words = [
            1 | pasid | u64::from(source) << 16,
            page & !0xfff | u64::from(group & 0x1ff) << 3 | u64::from(last) << 2 | if write { 2 } else { 1 },
            0,
            0,
        ];
        for (at, word) in ((address & !0xfff) + tail..).step_by(8).zip(words) {
            memory.device_write(at, &word.to_le_bytes());
        }
        self.registers.set(PQT, next);
        self.raise_page_status(PPR);
        true
    }

    fn raise_page_status(&mut self, bits: u32) {
        let before = self.registers.get32(PRS) & (PPR | PRO);
        self.registers.update(PRS, bits.into(), 0);
        if before == 0 {
            match self.registers.get32(PECTL) & IM {
                0 => self.send_page_event(),
                _ => self.registers.update(PECTL, IP.into(), 0),
            }
        }
    }

    fn send_page_event(&mut self) {
        self.registers.update(PECTL, 0, IP.into());
        let message = self.message(PEADDR, PEUADDR, PEDATA);
        self.messages.push(message);
    }

    /// Software wrote PECTL: a held event goes out when the mask goes.
    pub(crate) fn page_control_written(&mut self) {
        let control = self.registers.get32(PECTL);
        if control & IM == 0 && control & IP != 0 {
            self.send_page_event();
        }
    }

    /// Software wrote PRS: a held event goes with the status.
    pub(crate) fn page_status_written(&mut self) {
        if self.registers.get32(PRS) & (PPR | PRO) == 0 {
            self.registers.update(PECTL, 0, IP.into());
        }
    }

    /// The groups that were answered since the last call.
    pub fn take_page_responses(&mut self) -> Vec<PageResponse> {
        std::mem::take(&mut self.page_responses)
    }
}
