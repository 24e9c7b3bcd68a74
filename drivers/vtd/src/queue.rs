//! The invalidation queue (section 6.5.2): batches of descriptors, one wait descriptor and one tail write each.
//!
//! A batch is complete when its wait descriptor has written the batch's sequence number to the status word of the
//! current generation. Head equal to tail would say *fetched*, not *done*. The status words are in a page that belongs
//! to the unit for ever; sequence numbers are never used twice, and a wait that was given up starts a new generation
//! with another word: a completion that comes late finds a word where nobody looks, or a number that is too small, and
//! never completes a later wait.
//!
//! What has been submitted and is not known to be done stays in the ring, so that it can be submitted again
//! ([`crate::recovery`]); so at most half of the ring is under way, and a batch that is longer is cut into several.

use crate::error::QueueError;
use crate::memory::DmaMemory;
use crate::recovery::{Recovery, Sources};
use crate::registers::Registers;
use crate::ring::{Port, Ring};
use crate::spec::invalidation::Descriptor;
use crate::spec::registers::{FSTS, FaultStatus, IQH, Window};
use crate::wait::{Clock, Deadline};
use addr::HostPhys;

/// A batch that hardware has been told of: which sequence numbers its waits write.
#[must_use = "nothing is done before the batch is complete"]
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Submitted {
    first: u32,
    last: u32,
}

impl Submitted {
    /// A batch of nothing, or one that is done already.
    pub(crate) const NOTHING: Self = Self { first: 1, last: 0 };
}

impl Default for Submitted {
    fn default() -> Self {
        Self::NOTHING
    }
}

/// The driver's side of the queue.
#[derive(Debug)]
pub(crate) struct Queue {
    ring: Ring,
    /// What the last wait descriptor writes to the status word.
    sequence: u32,
    /// Up to here everything is done or has failed.
    settled: u32,
    /// The failure of the sequence numbers from the first to the second.
    failure: Option<(u32, u32, QueueError)>,
    suspects: Sources,
    unsure: Sources,
}

/// Whether a status word that holds `last` says that `expected` is complete. Numbers wrap.
fn reached(last: u32, expected: u32) -> bool {
    last.wrapping_sub(expected) as i32 >= 0
}

impl Queue {
    /// A queue in an empty ring.
    pub(crate) fn new(ring: Ring) -> Self {
        Self { ring, sequence: 0, settled: 0, failure: None, suspects: Sources::default(), unsure: Sources::default() }
    }

    /// Gives hardware a batch, in several pieces if it is longer than half of the ring; all but the last are then
    /// awaited. An error means that not all of it was given.
    pub(crate) fn begin<R: Registers, C: Clock, M: DmaMemory>(
        &mut self,
        port: &mut Port<'_, R, C>,
        memory: &mut M,
        batch: &mut dyn Iterator<Item = Descriptor>,
    ) -> Result<Submitted, QueueError> {
        let first = self.sequence.wrapping_add(1);
        let mut open = false;
        for descriptor in batch {
            if !self.ring.takes(1) {
                if open {
                    self.close(port, memory);
                }
                // A device that does not answer is told of in the end, and keeps nothing else from being done.
                match self.settle(port, memory) {
                    Ok(()) | Err(QueueError::DeviceTimeout { source: Some(_) }) => {}
                    Err(error) => return Err(error),
                }
            }
            // This one and the wait.
            self.ring.reserve(port.window, 2)?;
            self.ring.push(memory, port.capabilities, descriptor);
            open = true;
        }
        if open {
            self.close(port, memory);
        }
        Ok(Submitted { first, last: self.sequence })
    }

    /// Waits until a batch is done. With it is all that was begun before or since. An error means that it may not be.
    pub(crate) fn complete<R: Registers, C: Clock, M: DmaMemory>(
        &mut self,
        port: &mut Port<'_, R, C>,
        memory: &mut M,
        submitted: Submitted,
    ) -> Result<(), QueueError> {
        if submitted.first == submitted.last.wrapping_add(1) {
            return Ok(());
        }
        if !reached(self.settled, submitted.last) {
            // What fails is remembered below.
            let _ = self.settle(port, memory);
        }
        match self.failure {
            Some((first, last, error)) if reached(last, submitted.first) && reached(submitted.last, first) => {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// What tells this queue from every other.
    pub(crate) fn identity(&self) -> HostPhys {
        self.ring.status_page()
    }

    /// The devices that failed an invalidation since the last call, and those of which one has.
    pub(crate) fn take_suspects(&mut self) -> (Sources, Sources) {
        (core::mem::take(&mut self.suspects), core::mem::take(&mut self.unsure))
    }

    /// Ends a batch with its wait, and tells hardware.
    fn close<R: Registers, C, M: DmaMemory>(&mut self, port: &mut Port<'_, R, C>, memory: &mut M) {
        self.sequence = self.sequence.wrapping_add(1);
        let wait = Descriptor::wait(self.ring.status_word(), self.sequence);
        self.ring.push(memory, port.capabilities, wait);
        self.ring.tell(port.window);
    }

    /// Waits for what is under way, of which there is something, and remembers what failed.
    fn settle<R: Registers, C: Clock, M: DmaMemory>(
        &mut self,
        port: &mut Port<'_, R, C>,
        memory: &mut M,
    ) -> Result<(), QueueError> {
        let outcome = self.poll(port, memory);
        if let Err(error) = outcome {
            let first = match self.failure {
                // Whoever has not asked yet is told of the later failure too: once too often, never once too seldom.
                Some((first, last, _)) if last == self.settled => first,
                _ => self.settled.wrapping_add(1),
            };
            self.failure = Some((first, self.sequence, error));
        }
        self.settled = self.sequence;
        outcome
    }

    /// Polls the status word, and what can go wrong meanwhile.
    fn poll<R: Registers, C: Clock, M: DmaMemory>(
        &mut self,
        port: &mut Port<'_, R, C>,
        memory: &mut M,
    ) -> Result<(), QueueError> {
        let mut recovery = Recovery::default();
        let outcome = self.poll_with(&mut recovery, port, memory);
        self.suspects.extend(&recovery.suspects);
        self.unsure.extend(&recovery.unsure);
        if let Err(error) = outcome {
            // Whatever of this generation is still under way must never be taken for the completion of a later wait, and
            // is not submitted again.
            self.ring.next_generation();
            self.ring.set_pending(self.ring.tail());
            recovery.note(error);
        } else {
            // Everything before the wait is done.
            self.ring.all_done();
        }
        recovery.failure.map_or(Ok(()), Err)
    }

    fn poll_with<R: Registers, C: Clock, M: DmaMemory>(
        &mut self,
        recovery: &mut Recovery,
        port: &mut Port<'_, R, C>,
        memory: &mut M,
    ) -> Result<(), QueueError> {
        let mut deadline = Deadline::new(port.clock, port.timeout_us);
        loop {
            let late = deadline.passed(port.clock);
            // Hardware writes the 32 bits at the word's address.
            let last = memory.read_u64(self.ring.status_word()) as u32;
            let status = FaultStatus::from_bits_retain(port.window.read(FSTS));
            // All ones is a unit that has gone, and not seven errors at once.
            let gone = status.bits() == u32::MAX;
            if status.contains(FaultStatus::ICE) && !gone {
                recovery.note_stray_answer(port);
            }
            if reached(last, self.sequence) {
                return Ok(());
            }
            if late || gone {
                return Err(self.timeout(port.window, last));
            }
            if status.contains(FaultStatus::IQE) {
                recovery.replace_refused(&self.ring, port, memory)?;
            } else if status.contains(FaultStatus::ITE) {
                recovery.submit_again(&mut self.ring, port, memory)?;
                deadline = Deadline::new(port.clock, port.timeout_us);
            } else {
                port.clock.relax();
            }
        }
    }

    fn timeout<R: Registers>(&self, window: &Window<R>, last: u32) -> QueueError {
        QueueError::Timeout { expected: self.sequence, last, fault_status: window.read(FSTS), head: window.read(IQH) }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::interface::Interface;
    use crate::tests::fake::{Fake, TestUnit};
    use crate::{Batch, Error, IotlbInvalidation};
    use addr::{DomainId, HostPhys, Iova};
    use paging::Invalidation;

    #[test]
    fn numbers_wrap_and_half_of_them_are_ahead() {
        for expected in [0u32, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
            for ahead in [0u32, 1, 0x7fff_ffff] {
                assert!(reached(expected.wrapping_add(ahead), expected), "{expected:#x} {ahead:#x}");
            }
            for behind in [1u32, 0x7fff_ffff, 0x8000_0000] {
                assert!(!reached(expected.wrapping_sub(behind), expected), "{expected:#x} {behind:#x}");
            }
        }
    }

    /// A unit that has awaited so many batches.
    fn after(batches: u32) -> (Fake, TestUnit, Fake) {
        let fake = Fake::new();
        let (mut unit, mut memory) = fake.up();
        let Some(Interface::Queue(queue)) = &mut unit.interface else { panic!("a queue") };
        (queue.sequence, queue.settled) = (batches, batches);
        memory.write_u64(queue.ring.status_word(), batches.into());
        (fake, unit, memory)
    }

    #[test]
    fn batches_are_awaited_whatever_their_numbers_are() {
        let domain = IotlbInvalidation::Domain(DomainId(5));
        for batches in [0x7fff_fffc, 0x8000_0000, 0xffff_fffc] {
            let (fake, mut unit, mut memory) = after(batches);
            for _ in 0..8 {
                unit.invalidate_iotlb(&mut memory, [domain]).unwrap();
                // Nothing to do is nothing to wait for, and nothing that fails.
                unit.invalidate_iotlb(&mut memory, []).unwrap();
            }
            fake.inner(|inner| inner.stalled = true);
            let root = HostPhys::new(0x5000);
            let (start, len) = (Iova::new(0x1000), 0x1000);
            let change = Invalidation { root, start, len, tables_changed: false, only_added: false };
            let mut submitted = [(); 2].map(|()| {
                let mut batch = Batch::new();
                batch.add(DomainId(5), &change);
                Some(unit.submit_batch(&mut memory, batch).unwrap())
            });
            let start = unit.clock.now_us();
            let nothing = unit.submit_batch(&mut memory, Batch::new()).unwrap();
            assert!(unit.complete_batch(&mut memory, nothing).is_ok());
            assert_eq!(unit.clock.now_us(), start, "it waits for no other");
            assert!(!unit.is_poisoned());
            for batch in submitted.iter_mut().filter_map(Option::take) {
                let failed = unit.complete_batch(&mut memory, batch);
                assert!(matches!(failed, Err(Error::Invalidation(QueueError::Timeout { .. }))), "{failed:?}");
            }
            let nothing = unit.submit_batch(&mut memory, Batch::new()).unwrap();
            assert!(unit.complete_batch(&mut memory, nothing).is_ok());
        }
    }
}
