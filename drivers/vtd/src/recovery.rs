//! What becomes of a queue that hardware has stopped (section 6.5.2.10).
//!
//! - A descriptor that it refuses (IQE): one that says more takes its place, the whole cache instead of a part, so that
//!   what was asked is done and in its order. If that is refused too, a harmless one, and the batch has failed.
//! - A device that does not answer (ITE): hardware has dropped waits and perhaps more, so all that is under way is
//!   submitted again, except what is for that device. Who asked is told which device it is.

use crate::error::QueueError;
use crate::memory::DmaMemory;
use crate::registers::Registers;
use crate::ring::{Port, Ring};
use crate::spec::capability::Capabilities;
use crate::spec::invalidation::{Descriptor, DescriptorType, Drain};
use crate::spec::registers::{FSTS, FaultStatus, IQERCD, IQERCD_ICESID_SHIFT, IQERCD_ITESID_SHIFT};
use addr::Bdf;
use core::sync::atomic::{Ordering, fence};

/// How often what is under way is submitted again although no device is found that has not answered. Where one is found,
/// one less is asked the next time.
const ATTEMPTS: u8 = 8;
/// Devices that are told apart: as many as a unit keeps a list of.
const MAXIMUM: usize = 32;

/// Some devices.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Sources {
    list: [Option<Bdf>; MAXIMUM],
}

impl Sources {
    /// Adds a device; false, and nothing changed, where no more fit.
    pub(crate) fn add(&mut self, source: Bdf) -> bool {
        for place in &mut self.list {
            match place {
                Some(known) if *known == source => return true,
                Some(_) => {}
                None => {
                    *place = Some(source);
                    return true;
                }
            }
        }
        false
    }

    /// Adds others, as far as they fit.
    pub(crate) fn extend(&mut self, others: &Self) {
        for source in others.iter() {
            self.add(source);
        }
    }

    pub(crate) fn contains(&self, source: Bdf) -> bool {
        self.list.contains(&Some(source))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Bdf> {
        self.list.into_iter().flatten()
    }
}

/// What one wait has met so far.
#[derive(Default)]
pub(crate) struct Recovery {
    /// The first thing that was not done, and by [`Self::note`] the worst.
    pub failure: Option<QueueError>,
    /// Devices that did not answer, or answered what was not asked.
    pub suspects: Sources,
    /// Devices of which one did not answer, and the unit does not say which.
    pub unsure: Sources,
    /// Devices that are not asked again.
    silent: Sources,
    attempts: u8,
}

impl Recovery {
    /// Notes what was not done. A device that did not answer weighs least, for it says that all else is done.
    pub(crate) fn note(&mut self, failure: QueueError) {
        let is_least = |failure| matches!(failure, QueueError::DeviceTimeout { source: Some(_) });
        if self.failure.is_none_or(|known| is_least(known) && !is_least(failure)) {
            self.failure = Some(failure);
        }
    }

    /// A device has answered what was not asked (ICE). The queue goes on, and whatever it was that was answered, it was
    /// nothing that is awaited.
    pub(crate) fn note_stray_answer<R: Registers, C>(&mut self, port: &mut Port<'_, R, C>) {
        let source = (port.window.read(IQERCD) >> IQERCD_ICESID_SHIFT) as u16;
        port.window.clear(FSTS, FaultStatus::ICE.bits());
        if source != 0 {
            self.suspects.add(Bdf::from_u16(source));
        }
    }

    /// Replaces the descriptor at which hardware stands, then clears IQE. In this order: clearing IQE makes hardware
    /// fetch from its head again. An error means that there is no way on.
    pub(crate) fn replace_refused<R: Registers, C, M: DmaMemory>(
        &mut self,
        ring: &Ring,
        port: &mut Port<'_, R, C>,
        memory: &mut M,
    ) -> Result<(), QueueError> {
        let index = ring.head(port.window)?;
        let descriptor = ring.read(memory, index);
        let refused = QueueError::Refused { index, descriptor, record: port.window.read(IQERCD) };
        let awaited = !ring.is_before(index, ring.pending());
        let replacement = match wider(descriptor, port.capabilities) {
            Some(wider) => wider,
            None => {
                if awaited {
                    self.note(refused);
                }
                ring.harmless()
            }
        };
        ring.write(memory, port.capabilities, index, replacement);
        fence(Ordering::SeqCst);
        port.window.clear(FSTS, FaultStatus::IQE.bits());
        // Some units (QEMU's) fetch again only when they are told of the tail, be it the same.
        ring.tell(port.window);
        if awaited && descriptor.descriptor_type() == DescriptorType::Wait {
            // Nothing is gained by having waits refused again and again. This one is gone: the next batch will not find
            // the queue standing at it.
            return Err(refused);
        }
        Ok(())
    }

    /// Submits all that is under way again, except what is for devices that do not answer, then clears ITE. An error
    /// means that there is no way on.
    pub(crate) fn submit_again<R: Registers, C, M: DmaMemory>(
        &mut self,
        ring: &mut Ring,
        port: &mut Port<'_, R, C>,
        memory: &mut M,
    ) -> Result<(), QueueError> {
        let (first, end) = (ring.pending(), ring.tail());
        let named = (port.window.read(IQERCD) >> IQERCD_ITESID_SHIFT) as u16;
        let before = self.silent;
        if named != 0 {
            self.silent.add(Bdf::from_u16(named));
            self.suspects.add(Bdf::from_u16(named));
        } else {
            // A unit that does not say which: one of those that were asked.
            let (asked, with_pasid) = self.asked(ring, memory);
            // Asked alone, a device forgets what it keeps for requests without PASID, and nothing else.
            let known = asked.iter().nth(1).is_none() || with_pasid;
            for source in asked.iter() {
                self.silent.add(source);
                if known {
                    self.suspects.add(source)
                } else {
                    self.unsure.add(source)
                };
            }
        }
        if self.silent == before {
            self.attempts += 1;
        }
        if self.attempts > ATTEMPTS {
            port.window.clear(FSTS, FaultStatus::ITE.bits());
            return Err(QueueError::DeviceTimeout { source: None });
        }
        // The waits of before may complete yet, without all that was before them: nobody looks at their word any more.
        ring.next_generation();
        let mut index = first;
        while index != end {
            if let Some(again) = self.again(ring.read(memory, index), ring) {
                ring.reserve(port.window, 1)?;
                ring.push(memory, port.capabilities, again);
            }
            index = ring.next(index);
        }
        // What hardware has not fetched of the first time is not to be done twice: it might not be answered again.
        let head = ring.head(port.window)?;
        let mut index = if ring.is_before(head, first) { first } else { head };
        while ring.is_before(head, end) && index != end {
            ring.write(memory, port.capabilities, index, ring.harmless());
            index = ring.next(index);
        }
        ring.set_pending(end);
        fence(Ordering::SeqCst);
        port.window.clear(FSTS, FaultStatus::ITE.bits());
        ring.tell(port.window);
        Ok(())
    }

    /// What is submitted in the place of a descriptor that may have been dropped.
    fn again(&mut self, descriptor: Descriptor, ring: &Ring) -> Option<Descriptor> {
        if descriptor.descriptor_type() == DescriptorType::Wait {
            return Some(Descriptor::wait(ring.status_word(), descriptor.status_data()));
        }
        match descriptor.device_tlb_source().filter(|source| self.silent.contains(*source)) {
            Some(source) => {
                self.note(QueueError::DeviceTimeout { source: Some(source) });
                None
            }
            None => Some(descriptor),
        }
    }

    /// The devices that what is under way asks, and that are still asked; and whether any is asked for a PASID.
    fn asked<M: DmaMemory>(&self, ring: &Ring, memory: &M) -> (Sources, bool) {
        let (mut asked, mut with_pasid) = (Sources::default(), false);
        let mut index = ring.pending();
        while index != ring.tail() {
            let descriptor = ring.read(memory, index);
            let source = descriptor.device_tlb_source();
            if let Some(source) = source.filter(|source| !self.silent.contains(*source)) {
                asked.add(source);
                with_pasid |= descriptor.descriptor_type() == DescriptorType::PasidDeviceTlb;
            }
            index = ring.next(index);
        }
        (asked, with_pasid)
    }
}

/// A descriptor that invalidates more than this one, and what this one does.
fn wider(descriptor: Descriptor, capabilities: Capabilities) -> Option<Descriptor> {
    let drain = Drain::of(capabilities);
    let wider = match descriptor.descriptor_type() {
        DescriptorType::ContextCache => Descriptor::context_cache_global(),
        DescriptorType::Iotlb => Descriptor::iotlb_global(drain),
        DescriptorType::PasidCache => Descriptor::pasid_cache_global(),
        DescriptorType::PasidIotlb => Descriptor::iotlb_global(drain),
        DescriptorType::InterruptEntryCache => Descriptor::interrupt_entry_cache_global(),
        _ => descriptor.whole_device_tlb()?,
    };
    (wider != descriptor).then_some(wider)
}
