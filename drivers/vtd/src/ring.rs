//! The ring of the invalidation queue and its status words: what lies where, and what must not be overwritten.

use crate::error::QueueError;
use crate::memory::DmaMemory;
use crate::memory::{at, publish};
use crate::registers::Registers;
use crate::spec::capability::Capabilities;
use crate::spec::invalidation::{Descriptor, DescriptorWidth};
use crate::spec::registers::{IQ_OFFSET_MASK, IQH, IQT, Window};
use addr::HostPhys;
use core::sync::atomic::{Ordering, fence};

/// Status words in the status page that generations take in turn; one more takes what nobody awaits.
const GENERATIONS: u16 = 511;

/// How a queue is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueLayout {
    /// 2 to the power of it pages of 4 KiB, 0 to 7 (IQA.QS); of a larger number the low three bits count.
    pub size: u8,
    /// The width of its places; [`DescriptorWidth::Wide`] for scalable mode.
    pub width: DescriptorWidth,
}

impl QueueLayout {
    /// One page of 128-bit descriptors.
    pub const LEGACY: Self = Self { size: 0, width: DescriptorWidth::Narrow };

    /// Two pages of 256-bit descriptors.
    pub const SCALABLE: Self = Self { size: 1, width: DescriptorWidth::Wide };

    /// Pages of the ring.
    pub const fn pages(self) -> usize {
        1 << (self.size & 7)
    }

    /// Places of the ring: 128 to 32768, all but one of which can be taken.
    pub const fn places(self) -> u16 {
        ((4096 << (self.size & 7)) / self.width.bytes()) as u16
    }
}

/// What of a unit the queue works with for one call.
pub(crate) struct Port<'a, R, C> {
    pub window: &'a mut Window<R>,
    pub clock: &'a C,
    pub timeout_us: u64,
    pub capabilities: Capabilities,
}

/// The ring and its status words.
#[derive(Debug)]
pub(crate) struct Ring {
    base: HostPhys,
    status: HostPhys,
    layout: QueueLayout,
    /// Index at which the next descriptor goes.
    tail: u16,
    /// The first place that must not be written: hardware may not have fetched it, or it may be needed again.
    keep: u16,
    /// The first place of what is under way: what is submitted again if hardware drops it.
    pending: u16,
    /// Which status word is awaited.
    generation: u16,
}

impl Ring {
    /// A ring over zeroed memory: [`QueueLayout::pages`] for it, a page for status words.
    pub(crate) fn new(base: HostPhys, status: HostPhys, layout: QueueLayout) -> Self {
        Self { base, status, layout, tail: 0, keep: 0, pending: 0, generation: 0 }
    }

    /// The value for IQA_REG: address, DW, QS.
    pub(crate) fn address_register(&self) -> u64 {
        self.base.as_u64() | self.layout.width.address_bit() | u64::from(self.layout.size & 7)
    }

    /// Where the status words are, in memory that no other unit has.
    pub(crate) fn status_page(&self) -> HostPhys {
        self.status
    }

    /// Where the next descriptor goes.
    pub(crate) fn tail(&self) -> u16 {
        self.tail
    }

    /// The first place of what is under way.
    pub(crate) fn pending(&self) -> u16 {
        self.pending
    }

    /// From here on, only what begins at `index` is submitted again.
    pub(crate) fn set_pending(&mut self, index: u16) {
        self.pending = index;
    }

    /// Everything that was submitted is done: the whole ring is free.
    pub(crate) fn all_done(&mut self) {
        (self.keep, self.pending) = (self.tail, self.tail);
    }

    /// Whether so many descriptors and a wait can be under way besides what is: at most half of the ring, so that it can
    /// be submitted again in the other half. One place of the ring stays empty.
    pub(crate) fn takes(&self, count: u16) -> bool {
        self.distance(self.pending, self.tail) + count < (self.layout.places() - 1) / 2
    }

    /// Makes sure that `count` descriptors fit without overrunning what hardware has not fetched.
    pub(crate) fn reserve<R: Registers>(&mut self, window: &Window<R>, count: u16) -> Result<(), QueueError> {
        if self.free() < count {
            let head = self.head(window)?;
            let fetched = self.distance(self.keep, head) < self.distance(self.keep, self.pending);
            self.keep = if fetched { head } else { self.pending };
            if self.free() < count {
                return Err(QueueError::Full { head: window.read(IQH), tail: self.tail });
            }
        }
        Ok(())
    }

    /// Where hardware stands.
    pub(crate) fn head<R: Registers>(&self, window: &Window<R>) -> Result<u16, QueueError> {
        let head = window.read(IQH);
        let offset = head & IQ_OFFSET_MASK;
        let index = offset >> self.layout.width.shift();
        if !offset.is_multiple_of(self.layout.width.bytes()) || index >= u64::from(self.layout.places()) {
            return Err(QueueError::BadHead { head });
        }
        Ok(index as u16)
    }

    /// Places from one index up to another.
    fn distance(&self, from: u16, to: u16) -> u16 {
        if to >= from { to - from } else { to + (self.layout.places() - from) }
    }

    /// Whether `index` lies before `end`, as seen from what must be kept.
    pub(crate) fn is_before(&self, index: u16, end: u16) -> bool {
        self.distance(self.keep, index) < self.distance(self.keep, end)
    }

    /// Places between the tail and what must be kept, less the one that stays empty: a full ring would look empty
    /// (IQH = IQT).
    fn free(&self) -> u16 {
        self.layout.places() - 1 - self.distance(self.keep, self.tail)
    }

    /// The index after another.
    pub(crate) fn next(&self, index: u16) -> u16 {
        // The wrap belongs to the index that IQT gets as well: one past the ring is an invalid tail (IQE).
        if index + 1 == self.layout.places() { 0 } else { index + 1 }
    }

    /// The status word of this generation.
    pub(crate) fn status_word(&self) -> HostPhys {
        at(self.status, u64::from(self.generation) * 8)
    }

    /// Awaits another status word from here on.
    pub(crate) fn next_generation(&mut self) {
        self.generation = (self.generation + 1) % GENERATIONS;
    }

    /// A wait whose status nobody looks at.
    pub(crate) fn harmless(&self) -> Descriptor {
        Descriptor::wait(at(self.status, u64::from(GENERATIONS) * 8), 0)
    }

    fn place(&self, index: u16) -> HostPhys {
        at(self.base, u64::from(index) * self.layout.width.bytes())
    }

    /// Puts a descriptor at the tail, for which there must be room.
    pub(crate) fn push<M: DmaMemory>(&mut self, memory: &mut M, capabilities: Capabilities, descriptor: Descriptor) {
        self.write(memory, capabilities, self.tail, descriptor);
        self.tail = self.next(self.tail);
    }

    /// The descriptor at an index.
    pub(crate) fn read<M: DmaMemory>(&self, memory: &M, index: u16) -> Descriptor {
        let place = self.place(index);
        Descriptor { low: memory.read_u64(place), high: memory.read_u64(at(place, 8)) }
    }

    /// Writes a descriptor. Bits 255:128 of a wide place are 0 since the ring was made: every descriptor reserves them.
    pub(crate) fn write<M: DmaMemory>(
        &self,
        memory: &mut M,
        capabilities: Capabilities,
        index: u16,
        descriptor: Descriptor,
    ) {
        let place = self.place(index);
        memory.write_u64(place, descriptor.low);
        memory.write_u64(at(place, 8), descriptor.high);
        publish(memory, capabilities, place, self.layout.width.bytes());
    }

    /// Tells hardware of everything before the tail.
    pub(crate) fn tell<R: Registers>(&self, window: &mut Window<R>) {
        // The descriptors before the tail: a unit that fetches early would otherwise execute what was there before.
        fence(Ordering::SeqCst);
        window.write(IQT, u64::from(self.tail) << self.layout.width.shift());
    }
}
