//! Descriptors to hardware, by the queue or by registers, and what becomes of devices that fail them.

use crate::error::{Error, QueueError, Step};
use crate::interface::Interface;
use crate::memory::DmaMemory;
use crate::queue::Submitted;
use crate::recovery::Sources;
use crate::register_invalidation;
use crate::registers::Registers;
use crate::ring::Port;
use crate::spec::invalidation::{Descriptor, Drain};
use crate::unit::Unit;
use crate::wait::Clock;
use addr::{Bdf, PAGE_SIZE};

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Submits a batch and waits until it is done.
    pub(crate) fn submit<M: DmaMemory>(&mut self, memory: &mut M, batch: &[Descriptor]) -> Result<(), Error> {
        let submitted = self.begin(memory, &mut batch.iter().copied())?;
        self.complete(memory, submitted)
    }

    /// Gives hardware a batch, which [`Self::complete`] waits for.
    pub(crate) fn begin<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        batch: &mut dyn Iterator<Item = Descriptor>,
    ) -> Result<Submitted, Error> {
        let begun = self.begin_quietly(memory, batch);
        self.judge(memory, begun)
    }

    /// Waits until a batch is done. A failure of the queue poisons the unit; one of a device isolates the device.
    pub(crate) fn complete<M: DmaMemory>(&mut self, memory: &mut M, submitted: Submitted) -> Result<(), Error> {
        let completed = self.complete_quietly(memory, submitted);
        self.judge(memory, completed)
    }

    fn begin_quietly<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        batch: &mut dyn Iterator<Item = Descriptor>,
    ) -> Result<Submitted, QueueError> {
        let Self { registers, clock, timeout_us, capabilities, .. } = self;
        let mut port = Port { window: registers, clock, timeout_us: *timeout_us, capabilities: *capabilities };
        match &mut self.interface {
            Some(Interface::Queue(queue)) => queue.begin(&mut port, memory, batch),
            Some(Interface::Registers) => {
                for descriptor in batch {
                    register_invalidation::perform(&mut port, descriptor)?;
                }
                Ok(Submitted::NOTHING)
            }
            None => Err(QueueError::Off),
        }
    }

    fn complete_quietly<M: DmaMemory>(&mut self, memory: &mut M, submitted: Submitted) -> Result<(), QueueError> {
        let Self { registers, clock, timeout_us, capabilities, .. } = self;
        let mut port = Port { window: registers, clock, timeout_us: *timeout_us, capabilities: *capabilities };
        match &mut self.interface {
            Some(Interface::Queue(queue)) => queue.complete(&mut port, memory, submitted),
            _ => Ok(()),
        }
    }

    /// What a call of the queue means for the unit and for devices.
    fn judge<M: DmaMemory, T: Default>(&mut self, memory: &mut M, outcome: Result<T, QueueError>) -> Result<T, Error> {
        let (mut suspects, unsure) = self.take_suspects();
        let mut forgiven = true;
        for source in unsure.iter() {
            // Each alone, and all that it keeps, which is what was asked of it and more.
            let alone = self.device_tlbs.all_of(source);
            let answered = alone.is_some()
                && self
                    .begin_quietly(memory, &mut alone.into_iter())
                    .and_then(|submitted| self.complete_quietly(memory, submitted))
                    .is_ok();
            if !answered {
                forgiven = false;
                suspects.add(source);
            }
        }
        if unsure.iter().next().is_some() {
            suspects.extend(&self.take_suspects().0);
        }
        let mut isolated = None;
        for source in suspects.iter() {
            self.device_tlbs.remove(source);
            if self.isolate(memory, source)? {
                isolated = Some(source);
            }
        }
        match (outcome, isolated) {
            (Err(QueueError::Off), _) => {
                Err(Error::OutOfOrder { step: Step::Invalidate, needs: "the invalidation queue" })
            }
            (Ok(_) | Err(QueueError::DeviceTimeout { .. }), Some(source)) => Err(Error::DeviceIsolated(source)),
            (Err(QueueError::DeviceTimeout { source: Some(_) }), None)
                if forgiven && unsure.iter().next().is_some() =>
            {
                Ok(T::default())
            }
            // It had nothing to take away.
            (Err(QueueError::DeviceTimeout { source: Some(source) }), None) => Err(Error::DeviceIsolated(source)),
            (Ok(done), None) => Ok(done),
            (Err(error), _) => {
                self.poisoned = true;
                Err(Error::Invalidation(error))
            }
        }
    }

    fn take_suspects(&mut self) -> (Sources, Sources) {
        match &mut self.interface {
            Some(Interface::Queue(queue)) => queue.take_suspects(),
            _ => Default::default(),
        }
    }

    /// Takes everything from a device whose device-TLB cannot be trusted; false, and nothing changed, for one that has no
    /// assignment.
    fn isolate<M: DmaMemory>(&mut self, memory: &mut M, source: Bdf) -> Result<bool, Error> {
        let Some(descriptors) = self.deny(memory, source) else { return Ok(false) };
        let outcome = self
            .begin_quietly(memory, &mut descriptors.into_iter().flatten())
            .and_then(|submitted| self.complete_quietly(memory, submitted));
        if let Err(error) = outcome {
            self.poisoned = true;
            return Err(Error::Invalidation(error));
        }
        Ok(true)
    }

    /// Takes everything from a device, without telling hardware; answers what invalidates it, in order, or `None` if there was
    /// nothing.
    fn deny<M: DmaMemory>(&mut self, memory: &mut M, source: Bdf) -> Option<[Option<Descriptor>; 3]> {
        let drain = Drain::of(self.capabilities);
        if let Some(scalable) = self.scalable {
            return (scalable.deny)(self, memory, source).then_some([
                Some(Descriptor::context_cache_global()),
                Some(Descriptor::pasid_cache_global()),
                Some(Descriptor::iotlb_global(drain)),
            ]);
        }
        let domain = self.deny_legacy(memory, source)?;
        let context = Descriptor::context_cache_device(domain, source);
        Some([Some(context), Some(Descriptor::iotlb_domain(domain, drain)), None])
    }

    /// Invalidates the whole context cache, the whole PASID cache if there is one, the whole IOTLB, all device-TLBs.
    pub(crate) fn invalidate_all_translations<M: DmaMemory>(&mut self, memory: &mut M) -> Result<(), Error> {
        let pasids = self.scalable.map(|_| Descriptor::pasid_cache_global());
        let pages = Descriptor::iotlb_global(Drain::of(self.capabilities));
        let unit = [Some(Descriptor::context_cache_global()), pasids, Some(pages)];
        let devices = self.device_tlbs.descriptors(None, 0, u64::MAX / PAGE_SIZE);
        let submitted = self.begin(memory, &mut unit.into_iter().flatten().chain(devices))?;
        self.complete(memory, submitted)
    }

    /// Makes a poisoned unit usable again, if it can be: it must forget all that it has cached. What was asked of it in
    /// vain is then done, and entries that could not be taken back are not cached any more.
    ///
    /// # Errors
    /// [`Error::Invalidation`]: the unit stays poisoned. [`Error::OutOfOrder`] before [`Unit::enable_queue`].
    pub fn recover<M: DmaMemory>(&mut self, memory: &mut M) -> Result<(), Error> {
        self.invalidate_all_translations(memory)?;
        if self.interrupt_table.is_some() {
            self.submit(memory, &[Descriptor::interrupt_entry_cache_global()])?;
        }
        self.poisoned = false;
        Ok(())
    }
}
