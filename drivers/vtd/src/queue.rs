//! The invalidation queue: 256 descriptors of 128 bits, one wait descriptor and one tail write for a batch
//! (section 6.5.2).
//!
//! A batch is complete when its wait descriptor has written the batch's sequence number to the status word of the
//! current generation. Head equal to tail would say *fetched*, not *done*. The status words are in a page that
//! belongs to the unit for ever, and a wait that timed out starts a new generation with a word of its own: a
//! completion that comes late finds the old word, where nobody looks, and never completes a later wait.

use crate::error::QueueError;
use crate::memory::{at, publish};
use crate::spec::capability::Capabilities;
use crate::spec::invalidation::{DESCRIPTOR_BYTES, Descriptor};
use crate::spec::registers::{FSTS, FaultStatus, IQ_INDEX_MASK, IQ_INDEX_SHIFT, IQH, IQT, Window};
use crate::wait::{Clock, Deadline};
use crate::{DmaMemory, Registers};
use addr::HostPhys;
use core::sync::atomic::{Ordering, fence};

/// Descriptors in the queue: one page of them.
pub(crate) const ENTRIES: u16 = 256;
/// The most descriptors of one batch. One place holds the batch's wait, and one stays empty: a full ring would look
/// empty (IQH = IQT).
pub(crate) const MAX_BATCH: usize = ENTRIES as usize - 2;
/// Status words in the status page; the last takes what nobody awaits.
const GENERATIONS: u16 = 511;

/// The driver's side of the queue.
#[derive(Debug)]
pub(crate) struct Queue {
    ring: HostPhys,
    status: HostPhys,
    /// Index at which the next descriptor goes.
    tail: u16,
    /// Hardware's head as last known; it may be further.
    head: u16,
    /// Which status word is awaited.
    generation: u16,
    /// What the last wait descriptor writes to it.
    sequence: u32,
}

impl Queue {
    /// A queue over two zeroed pages.
    pub(crate) fn new(ring: HostPhys, status: HostPhys) -> Self {
        Self { ring, status, tail: 0, head: 0, generation: 0, sequence: 0 }
    }

    /// The value for IQA_REG: address, 128-bit descriptors (DW = 0), one page (QS = 0).
    pub(crate) fn address_register(&self) -> u64 {
        self.ring.as_u64()
    }

    /// Submits a batch and waits until all of it is done. An error means that some of it may not be.
    pub(crate) fn submit<R: Registers, C: Clock, M: DmaMemory>(
        &mut self,
        window: &mut Window<R>,
        clock: &C,
        timeout_us: u64,
        capabilities: Capabilities,
        memory: &mut M,
        batch: &[Descriptor],
    ) -> Result<(), QueueError> {
        if batch.len() > MAX_BATCH {
            return Err(QueueError::Full { head: window.read(IQH), tail: self.tail });
        }
        if self.generation >= GENERATIONS {
            return Err(QueueError::Exhausted);
        }
        self.reserve(window, batch.len() as u16 + 1)?;
        for &descriptor in batch {
            self.push(memory, capabilities, descriptor);
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.push(memory, capabilities, Descriptor::wait(self.word(self.generation), self.sequence));
        // The descriptors before the tail: a unit that fetches early would otherwise execute what was there before.
        fence(Ordering::SeqCst);
        window.write(IQT, u64::from(self.tail) << IQ_INDEX_SHIFT);

        let outcome = self.complete(window, clock, timeout_us, capabilities, memory);
        if outcome.is_err() {
            // Whatever of this generation is still under way must never be taken for the completion of a later wait.
            self.generation += 1;
            self.sequence = 0;
        }
        outcome
    }

    /// Makes sure that `count` descriptors fit without overrunning hardware's head.
    fn reserve<R: Registers>(&mut self, window: &Window<R>, count: u16) -> Result<(), QueueError> {
        if self.free() < count {
            let head = window.read(IQH);
            self.head = Self::index(head).ok_or(QueueError::BadHead { head })?;
            if self.free() < count {
                return Err(QueueError::Full { head, tail: self.tail });
            }
        }
        Ok(())
    }

    /// Places between tail and head, less the one that stays empty.
    fn free(&self) -> u16 {
        (self.head + ENTRIES - self.tail - 1) % ENTRIES
    }

    fn index(register: u64) -> Option<u16> {
        let index = register >> IQ_INDEX_SHIFT & IQ_INDEX_MASK;
        (index < u64::from(ENTRIES)).then_some(index as u16)
    }

    fn word(&self, generation: u16) -> HostPhys {
        at(self.status, u64::from(generation) * 8)
    }

    fn place(&self, index: u16) -> HostPhys {
        at(self.ring, u64::from(index) * DESCRIPTOR_BYTES)
    }

    fn push<M: DmaMemory>(&mut self, memory: &mut M, capabilities: Capabilities, descriptor: Descriptor) {
        self.write(memory, capabilities, self.tail, descriptor);
        // The wrap belongs to the index that IQT gets as well: one past the ring is an invalid tail (IQE).
        self.tail = (self.tail + 1) % ENTRIES;
    }

    fn write<M: DmaMemory>(&self, memory: &mut M, capabilities: Capabilities, index: u16, descriptor: Descriptor) {
        let place = self.place(index);
        memory.write_u64(place, descriptor.low);
        memory.write_u64(at(place, 8), descriptor.high);
        publish(memory, capabilities, place, DESCRIPTOR_BYTES);
    }

    /// Polls the status word, and what can go wrong meanwhile.
    fn complete<R: Registers, C: Clock, M: DmaMemory>(
        &mut self,
        window: &mut Window<R>,
        clock: &C,
        timeout_us: u64,
        capabilities: Capabilities,
        memory: &mut M,
    ) -> Result<(), QueueError> {
        let deadline = Deadline::new(clock, timeout_us);
        let wait = (self.tail + ENTRIES - 1) % ENTRIES;
        let mut failure = None;
        loop {
            let late = deadline.passed(clock);
            // Hardware writes the 32 bits at the word's address.
            let last = memory.read_u64(self.word(self.generation)) as u32;
            let done = last == self.sequence;
            let status = FaultStatus::from_bits_retain(window.read(FSTS));
            // All ones is a unit that has gone, and not seven errors at once.
            if status.bits() == u32::MAX {
                return Err(self.timeout(window, last));
            }
            if status.contains(FaultStatus::IQE) && !done {
                let refused = self.replace_refused(window, capabilities, memory)?;
                let own_wait = matches!(refused, QueueError::Refused { index, .. } if index == wait);
                failure.get_or_insert(refused);
                if own_wait {
                    break;
                }
            }
            if status.contains(FaultStatus::ICE) {
                window.clear(FSTS, FaultStatus::ICE.bits());
                failure.get_or_insert(QueueError::DeviceCompletion);
            }
            if status.contains(FaultStatus::ITE) {
                // Hardware drops the waits that are under way when a device does not answer (section 6.5.2.10):
                // waiting on would only burn the time.
                window.clear(FSTS, FaultStatus::ITE.bits());
                failure.get_or_insert(QueueError::DeviceTimeout);
                break;
            }
            if done {
                // Everything before the wait is done, so the whole ring is free.
                self.head = self.tail;
                break;
            }
            if late {
                let timeout = self.timeout(window, last);
                failure.get_or_insert(timeout);
                break;
            }
            clock.relax();
        }
        failure.map_or(Ok(()), Err)
    }

    fn timeout<R: Registers>(&self, window: &Window<R>, last: u32) -> QueueError {
        QueueError::Timeout { expected: self.sequence, last, fault_status: window.read(FSTS), head: window.read(IQH) }
    }

    /// Puts a harmless wait in the place of the descriptor at which hardware stands, then clears IQE. In this order:
    /// clearing IQE makes hardware fetch from its head again.
    fn replace_refused<R: Registers, M: DmaMemory>(
        &mut self,
        window: &mut Window<R>,
        capabilities: Capabilities,
        memory: &mut M,
    ) -> Result<QueueError, QueueError> {
        let head = window.read(IQH);
        let index = Self::index(head).ok_or(QueueError::BadHead { head })?;
        let place = self.place(index);
        let descriptor = Descriptor { low: memory.read_u64(place), high: memory.read_u64(at(place, 8)) };
        self.write(memory, capabilities, index, Descriptor::wait(self.word(GENERATIONS), 0));
        fence(Ordering::SeqCst);
        window.clear(FSTS, FaultStatus::IQE.bits());
        Ok(QueueError::Refused { index, descriptor })
    }
}
