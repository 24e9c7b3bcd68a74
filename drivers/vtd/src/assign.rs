//! What a device reaches: one second-stage table for all of its requests, in either mode.

use crate::device_tlb::DeviceTlb;
use crate::error::Error;
use crate::memory::DmaMemory;
use crate::mode::{Assignment, Gap};
use crate::registers::Registers;
use crate::spec::capability::Levels;
use crate::unit::Unit;
use crate::wait::Clock;
use addr::{Bdf, DomainId, HostPhys};

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Lets `source` reach memory by the second-stage table at `table`, and by nothing else. Replaces an assignment
    /// that stands, by one store where that can be done; otherwise, between the two, the device reaches nothing. When the
    /// call returns, no translation by the old one is cached, and DMA by it is over where the unit can drain.
    ///
    /// Translations are cached under `domain`: two tables must never have the same one. What `table` leads to stays the
    /// caller's, and must live until the assignment is replaced or cleared.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::OutOfOrder`] before [`Unit::create_root_table`], [`Error::DomainOutOfRange`],
    /// [`Error::LevelsUnsupported`], [`Error::BadTable`], [`Error::OutOfMemory`]: nothing has changed.
    /// [`Error::Invalidation`], [`Error::Timeout`]: the device reaches nothing as far as the tables say.
    pub fn assign<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        domain: DomainId,
        table: HostPhys,
        levels: Levels,
    ) -> Result<(), Error> {
        self.change(memory, source, Assignment { domain, table, levels, device_tlb: None }, Gap::Allowed)
    }

    /// As [`Self::assign`], and lets the device keep translations itself. Turn its ATS on after the call, and off after
    /// [`Self::clear`]: until then it answers invalidations. The device is then trusted with the addresses that it claims to
    /// have been told.
    ///
    /// # Errors
    /// Those of [`Self::assign`]; [`Error::Unsupported`] without ECAP.DT; [`Error::TooManyDeviceTlbs`].
    pub fn assign_with_device_tlb<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        domain: DomainId,
        table: HostPhys,
        levels: Levels,
        device_tlb: DeviceTlb,
    ) -> Result<(), Error> {
        self.change(memory, source, Assignment { domain, table, levels, device_tlb: Some(device_tlb) }, Gap::Allowed)
    }

    /// As [`Self::assign`], but by one store or not at all: what both the old and the new table map is reached at every
    /// moment. It is how a device with reserved memory of firmware (RMRR) moves: that memory is mapped in both. A
    /// device without an assignment gets its first one.
    ///
    /// # Errors
    /// Those of [`Self::assign`]; [`Error::NotAtomic`], and nothing has changed: memory cannot exchange 128 bits
    /// ([`DmaMemory::exchange_u128`]) and domain or levels differ as well as the table.
    pub fn replace<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        domain: DomainId,
        table: HostPhys,
        levels: Levels,
    ) -> Result<(), Error> {
        self.change(memory, source, Assignment { domain, table, levels, device_tlb: None }, Gap::Forbidden)
    }

    fn change<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        assignment: Assignment,
        gap: Gap,
    ) -> Result<(), Error> {
        if let Some(scalable) = self.scalable {
            return (scalable.change)(self, memory, source, assignment, gap);
        }
        self.change_legacy(memory, source, assignment, gap)
    }

    /// Takes everything from `source`: it reaches nothing when the call returns, nothing of it is cached, and its
    /// DMA is over where the unit can drain. Does nothing where nothing is assigned. Works on a poisoned unit too.
    ///
    /// # Errors
    /// [`Error::Invalidation`]: translations may still be cached. Give neither the pages nor the domain id to anybody.
    pub fn clear<M: DmaMemory>(&mut self, memory: &mut M, source: Bdf) -> Result<(), Error> {
        if let Some(scalable) = self.scalable {
            return (scalable.clear)(self, memory, source);
        }
        self.clear_legacy(memory, source)
    }

    /// The domain and second-stage table that `source` is assigned to, if any.
    pub fn assignment<M: DmaMemory>(&self, memory: &M, source: Bdf) -> Option<(DomainId, HostPhys)> {
        if let Some(scalable) = self.scalable {
            return (scalable.assignment)(self, memory, source);
        }
        self.legacy_assignment(memory, source)
    }
}
