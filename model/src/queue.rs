//! The invalidation queue (6.5.2) and the invalidation completion event (11.4.9).

use crate::caches::{ContextScope, InterruptScope, PageScope};
use crate::descriptor::{Descriptor, Drain, QueueError};
use crate::device_tlb;
use crate::memory::{Memory, View};
use crate::page_requests;
use crate::pasid_queue;
use crate::registers::{FSTS, ICS, IEADDR, IECTL, IEDATA, IEUADDR, IM, IP, IQA, IQE, IQERCD, IQH, IQT, ITE, IWC, QIE};
use crate::registers::{GSTS, ICE};
use crate::unit::Unit;

impl Unit {
    /// Fetches what lies between head and tail. The head moves at the fetch; the work is done later, so a head that
    /// has reached the tail says nothing about completion.
    pub(crate) fn fetch_descriptors(&mut self, memory: &Memory) {
        while self.registers.get32(GSTS) & QIE != 0 && self.registers.get32(FSTS) & (IQE | ITE) == 0 {
            let (head, tail, queue) = (self.registers.get(IQH), self.registers.get(IQT), self.registers.get(IQA));
            let size = 4096u64 << (queue & 7);
            let wide = queue & 0x800 != 0;
            // Scalable mode has wide descriptors only, and a unit without it narrow ones only (11.4.9.3).
            if wide && !self.configuration.scalable_mode || !wide && self.root_table >> 10 & 3 == 1 {
                return self.queue_error(QueueError::Width);
            }
            let bytes = if wide { 32 } else { 16 };
            if tail >= size {
                return self.queue_error(QueueError::Tail);
            }
            if tail % bytes != 0 {
                return self.queue_error(QueueError::Alignment);
            }
            if head == tail {
                return;
            }
            let at = (queue & !0xfff) + head;
            let refused = match &mut self.refuse_after {
                Some(0) => {
                    self.refuse_after = None;
                    true
                }
                Some(left) => {
                    *left -= 1;
                    false
                }
                None => false,
            };
            let fetched = match refused || wide && memory.read_u128(at + 16, View::COHERENT) != Some(0) {
                true => Err(QueueError::Reserved),
                false => self.decode(memory.read_u128(at, View::COHERENT)),
            };
            match fetched {
                Ok(descriptor) => {
                    self.registers.set(IQH, (head + bytes) % size);
                    self.queue_work(descriptor);
                }
                // The head stays at the bad descriptor.
                Err(error) => return self.queue_error(error),
            }
        }
    }

    fn queue_error(&mut self, error: QueueError) {
        self.registers.set(IQERCD, self.registers.get(IQERCD) & !0xf | error as u64);
        self.raise_fault_status(IQE);
    }

    /// The descriptor that is fetched after `count` others is refused, whatever it says.
    pub fn refuse_after(&mut self, count: u32) {
        self.refuse_after = Some(count);
    }

    /// A device answers a device-TLB invalidation that nobody made (ICE). The queue goes on.
    pub fn inject_stray_answer(&mut self, source: u16) {
        self.registers.set(IQERCD, self.registers.get(IQERCD) & !(0xffff << 48) | u64::from(source) << 48);
        self.raise_fault_status(ICE);
    }

    /// A device did not answer a device-TLB invalidation in time (6.5.2.11): what was under way is dropped, its waits
    /// included, and nothing is fetched until ITE is cleared.
    pub fn inject_invalidation_timeout(&mut self, source: u16) {
        self.drop_descriptors();
        let named = if self.configuration.names_silent_devices { u64::from(source) << 32 } else { 0 };
        self.registers.set(IQERCD, self.registers.get(IQERCD) & !(0xffff << 32) | named);
        self.raise_fault_status(ITE);
    }

    /// One descriptor (6.5.2).
    fn decode(&self, raw: Option<u128>) -> Result<Descriptor, QueueError> {
        let raw = raw.ok_or(QueueError::Fetch)?;
        let (low, high) = (raw as u64, (raw >> 64) as u64);
        let zero = |low_mask: u64, high_mask: u64| match low & low_mask == 0 && high & high_mask == 0 {
            true => Ok(()),
            false => Err(QueueError::Reserved),
        };
        let granularity = low >> 4 & 3;
        let domain = (low >> 16) as u16;
        // The type is bits 3:0 with bits 11:9 above them.
        match low & 0xf | low >> 5 & 0x70 {
            1 => {
                // Type 3:0, G 5:4, DID 31:16, SID 47:32, FM 49:48.
                zero(!0x0003_ffff_ffff_003f, !0)?;
                Ok(Descriptor::Context(match granularity {
                    1 => ContextScope::Global,
                    2 => ContextScope::Domain(domain),
                    3 => ContextScope::Device {
                        domain,
                        source: (low >> 32) as u16,
                        function_mask: (low >> 48) as u8 & 3,
                    },
                    _ => return Err(QueueError::Reserved),
                }))
            }
            2 => {
                // Type 3:0, G 5:4, DW 6, DR 7, DID 31:16; AM 5:0, IH 6, ADDR 63:12.
                zero(!0xffff_00ff, 0xf80)?;
                let drain = Drain { writes: low >> 6 & 1 != 0, reads: low >> 7 & 1 != 0 };
                let scope = match granularity {
                    1 => PageScope::Global,
                    2 => PageScope::Domain(domain),
                    3 => self.page_scope(domain, high).ok_or(QueueError::Reserved)?,
                    _ => return Err(QueueError::Reserved),
                };
                Ok(Descriptor::Pages(scope, drain))
            }
            3 if self.configuration.device_tlb => device_tlb::decode(low, high),
            9 if self.configuration.page_requests => page_requests::decode_response(low, high),
            4 if self.configuration.interrupt_remapping => {
                // Type 3:0, G 4, IM 31:27, IIDX 47:32.
                zero(!0xffff_f800_001f, !0)?;
                let mask = (low >> 27) as u8 & 0x1f;
                match low >> 4 & 1 {
                    0 => Ok(Descriptor::Interrupts(InterruptScope::Global)),
                    _ if mask > self.configuration.max_handle_mask => Err(QueueError::Reserved),
                    _ => Ok(Descriptor::Interrupts(InterruptScope::Index { first: (low >> 32) as u16, mask })),
                }
            }
            5 => {
                // Type 3:0, IF 4, SW 5, FN 6, PD 7 (page requests only), status data 63:32; status address 63:2.
                zero(0xffff_ff80, 3)?;
                let status = (low >> 5 & 1 != 0).then_some((high, (low >> 32) as u32));
                Ok(Descriptor::Wait { status, interrupt: low >> 4 & 1 != 0, fence: low >> 6 & 1 != 0 })
            }
            // Scalable mode's, and only in it.
            6 if self.root_table >> 10 & 3 == 1 => pasid_queue::pasid_iotlb(low, high),
            7 if self.root_table >> 10 & 3 == 1 => pasid_queue::pasid_cache(low, high),
            8 if self.root_table >> 10 & 3 == 1 && self.configuration.device_tlb => {
                device_tlb::decode_with_pasid(low, high)
            }
            _ => Err(QueueError::Type),
        }
    }

    /// The pages of a page-selective invalidation: `operand` as in IVA and in the descriptor (AM 5:0, IH 6, address
    /// 63:12), or `None` where CAP does not allow it.
    pub(crate) fn page_scope(&self, domain: u16, operand: u64) -> Option<PageScope> {
        let mask = operand as u8 & 0x3f;
        (self.configuration.page_selective && mask <= self.configuration.max_address_mask).then_some(PageScope::Pages {
            domain,
            address: operand & !0xfff,
            mask,
            leaves_only: operand >> 6 & 1 != 0,
        })
    }

    /// A fetched descriptor takes effect.
    pub(crate) fn execute(&mut self, memory: &mut Memory, descriptor: Descriptor) {
        // An invalidation drains the write buffer before it starts (6.8).
        match descriptor {
            Descriptor::Context(scope) => {
                memory.drain_write_buffer();
                self.contexts_invalidated(scope);
            }
            Descriptor::Pages(scope, drain) => {
                memory.drain_write_buffer();
                self.pages_invalidated(scope);
                self.drain(memory, drain);
            }
            Descriptor::DeviceTlb(scope) => self.device_tlb_invalidated(scope),
            Descriptor::PageResponse(response) => self.page_responses.push(response),
            Descriptor::Pasids(scope) => {
                memory.drain_write_buffer();
                self.pasids_invalidated(scope);
            }
            Descriptor::PasidPages(scope) => {
                memory.drain_write_buffer();
                self.caches.invalidate_pasid_pages(scope);
            }
            Descriptor::Interrupts(scope) => {
                memory.drain_write_buffer();
                self.interrupts_invalidated(scope);
            }
            Descriptor::Wait { status, interrupt, .. } => {
                // What was being fetched while the stores before were made is not used any more.
                memory.forget_history();
                if let Some((address, data)) = status {
                    self.write_status(memory, address & !3, data);
                }
                if interrupt && self.registers.get32(ICS) & IWC == 0 {
                    self.registers.update(ICS, IWC.into(), 0);
                    match self.registers.get32(IECTL) & IM {
                        0 => self.send_completion_event(),
                        _ => self.registers.update(IECTL, IP.into(), 0),
                    }
                }
            }
        }
    }

    fn send_completion_event(&mut self) {
        self.registers.update(IECTL, 0, IP.into());
        let message = self.message(IEADDR, IEUADDR, IEDATA);
        self.messages.push(message);
    }

    /// Software wrote IECTL.
    pub(crate) fn completion_control_written(&mut self) {
        let control = self.registers.get32(IECTL);
        if control & IM == 0 && control & IP != 0 {
            self.send_completion_event();
        }
    }

    /// Software wrote ICS: a held event goes with IWC.
    pub(crate) fn completion_status_written(&mut self) {
        if self.registers.get32(ICS) & IWC == 0 {
            self.registers.update(IECTL, 0, IP.into());
        }
    }
}
