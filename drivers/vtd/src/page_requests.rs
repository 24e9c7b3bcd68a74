//! Page requests: devices with device-TLBs ask for pages that they found absent (section 7.4), and wait for an answer.
//!
//! Hardware puts requests into a ring of their own. Where it is full (PRO), requests are dropped until software has
//! emptied it and says so; the devices ask again.

use crate::error::{Error, Step};
use crate::events::{EventRegisters, FaultInterrupt};
use crate::interface::Interface;
use crate::memory::DmaMemory;
use crate::memory::at;
use crate::page_request_queue::PageRequestQueue;
use crate::registers::Registers;
use crate::spec::invalidation::Descriptor;
use crate::spec::page_request::{DESCRIPTOR_BYTES, PageRequest, PageResponse};
use crate::spec::registers::*;
use crate::unit::Unit;
use crate::wait::Clock;
use addr::PAGE_SIZE;

const PAGE_REQUEST_EVENT: EventRegisters =
    EventRegisters { control: PECTL, data: PEDATA, address: PEADDR, upper_address: PEUADDR };

/// Responses that are given to hardware at once.
const RESPONSES: usize = 32;

/// What a call of [`Unit::drain_page_requests`] found.
#[must_use = "no interrupt comes for requests that are left"]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PageRequestDrain {
    /// Requests reported.
    pub requests: u32,
    /// Descriptors of a kind that is not known, which were passed over.
    pub unknown: u32,
    /// Whether requests were dropped because the ring was full.
    pub overflow: bool,
    /// Whether requests are left because they come faster than they are drained: call again, for no interrupt will come
    /// for what is pending.
    pub more: bool,
}

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Lets hardware report page requests into a ring of 2^`size` pages (0 to 7, of a larger number the low three bits; 128
    /// requests each). Page requests exist in scalable mode only; a device's are let through by its context entry.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without ECAP.PRS or without an invalidation queue, which takes the responses;
    /// [`Error::OutOfOrder`] before [`Unit::enable_queue`] or a second time; [`Error::OutOfMemory`].
    pub fn enable_page_requests<M: DmaMemory>(&mut self, memory: &mut M, size: u8) -> Result<(), Error> {
        let step = Step::EnablePageRequests;
        if !self.capabilities.page_requests() {
            return Err(Error::Unsupported { capability: "page requests (ECAP.PRS)" });
        }
        match self.interface {
            Some(Interface::Queue(_)) => {}
            Some(Interface::Registers) => {
                return Err(Error::Unsupported { capability: "queued invalidation (ECAP.QI)" });
            }
            None => return Err(Error::OutOfOrder { step, needs: "the invalidation queue" }),
        }
        if self.page_requests.is_some() {
            return Err(Error::OutOfOrder { step, needs: "that page requests are off" });
        }
        let size = size & 7;
        let bytes = PAGE_SIZE << size;
        let base = self.allocate(memory, step, 1 << size, bytes)?;
        self.mask_event(PAGE_REQUEST_EVENT, true);
        self.registers.write(PQH, 0u64);
        self.registers.write(PQT, 0u64);
        self.registers.write(PQA, base.as_u64() | u64::from(size));
        self.registers.clear(PRS, PageRequestStatus::all().bits());
        self.page_requests = Some(PageRequestQueue { base, bytes });
        Ok(())
    }

    /// Programs where the interrupt for pending page requests goes, then unmasks it, as
    /// [`Unit::enable_fault_interrupt`] does for faults.
    ///
    /// # Errors
    /// [`Error::BadVector`], [`Error::DestinationOutOfRange`], [`Error::OutOfOrder`] before
    /// [`Self::enable_page_requests`].
    pub fn enable_page_request_interrupt(&mut self, interrupt: FaultInterrupt) -> Result<(), Error> {
        if self.page_requests.is_none() {
            return Err(Error::OutOfOrder { step: Step::EnablePageRequests, needs: "enable_page_requests" });
        }
        self.direct_event(PAGE_REQUEST_EVENT, interrupt)
    }

    /// Lets nothing of page requests reach software any more.
    pub(crate) fn disable_page_requests(&mut self) {
        if self.page_requests.take().is_some() {
            self.mask_event(PAGE_REQUEST_EVENT, true);
        }
    }

    /// Reports pending page requests, the oldest first, and answers every group whose last request was among them as
    /// `handle` says for that request; `None` leaves the answer to [`Self::respond_to_page_request`]. What `handle`
    /// answers for other requests of a group is not looked at. Does a bounded amount of work however fast devices ask: at most
    /// as many requests as the ring has.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] before [`Self::enable_page_requests`]; [`Error::BadPageRequestIndex`]: hardware's index is
    /// none of the ring; [`Error::Invalidation`]: a device may not have been answered.
    pub fn drain_page_requests<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        mut handle: impl FnMut(PageRequest) -> Option<PageResponse>,
    ) -> Result<PageRequestDrain, Error> {
        let needs = "enable_page_requests";
        let step = Step::EnablePageRequests;
        let PageRequestQueue { base, bytes } = self.page_requests.ok_or(Error::OutOfOrder { step, needs })?;
        let mut drain = PageRequestDrain::default();
        let status = self.registers.read(PRS);
        if status == u32::MAX {
            return Ok(drain);
        }
        // Before the tail is read: a request that comes after is pending again.
        self.registers.clear(PRS, PageRequestStatus::PPR.bits());
        let within = |offset: u64| offset.is_multiple_of(DESCRIPTOR_BYTES) && offset < bytes;
        let mut head = self.registers.read(PQH);
        let tail = self.registers.read(PQT);
        if !within(head) || !within(tail) {
            return Err(Error::BadPageRequestIndex { head, tail });
        }
        let mut responses = [None; RESPONSES];
        let mut count = 0;
        while head != tail {
            let place = at(base, head);
            // Hardware's writes are coherent with the processors' caches (section 7.4.1).
            match PageRequest::decode(memory.read_u64(place), memory.read_u64(at(place, 8))) {
                Some(request) => {
                    drain.requests += 1;
                    let response = handle(request).filter(|_| request.last_in_group);
                    if let (Some(response), Some(place)) = (response, responses.get_mut(count)) {
                        *place = Some(request.response(response));
                        count += 1;
                    }
                }
                None => drain.unknown += 1,
            }
            head = (head + DESCRIPTOR_BYTES) % bytes;
            if count == RESPONSES {
                // The places are free again before anything can fail.
                self.registers.write(PQH, head);
                self.respond(memory, &responses)?;
                count = 0;
            }
        }
        self.registers.write(PQH, head);
        if PageRequestStatus::from_bits_retain(status).contains(PageRequestStatus::PRO) {
            // After the ring is empty: hardware drops all requests while it is set.
            drain.overflow = true;
            self.registers.clear(PRS, PageRequestStatus::PRO.bits());
        }
        drain.more = self.registers.read(PQT) != head;
        self.respond(memory, responses.get(..count).unwrap_or(&responses))?;
        Ok(drain)
    }

    /// Answers a group, by its last request. Every group must be answered once, or its device waits for ever.
    ///
    /// # Errors
    /// [`Error::Invalidation`]: the device may not have been answered.
    pub fn respond_to_page_request<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        request: &PageRequest,
        response: PageResponse,
    ) -> Result<(), Error> {
        self.respond(memory, &[Some(request.response(response))])
    }

    fn respond<M: DmaMemory>(&mut self, memory: &mut M, responses: &[Option<Descriptor>]) -> Result<(), Error> {
        let submitted = self.begin(memory, &mut responses.iter().flatten().copied())?;
        self.complete(memory, submitted)
    }
}
