//! What reaches memory by which translation: requests of a device with a PASID, and those without, in either mode.

use crate::error::Error;
use crate::memory::DmaMemory;
use crate::mode::Gap;
use crate::registers::Registers;
use crate::spec::pasid::Pasid;
use crate::translation::{Attachment, Translation};
use crate::unit::Unit;
use crate::wait::Clock;
use addr::{Bdf, DomainId};

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Lets the requests of `source` with `pasid`, or those without PASID for `None`, reach memory as `translation`
    /// says. Replaces a translation that stands, by one store where that can be done (another first-stage table under
    /// the same domain id always can); otherwise, between the two, the requests reach nothing. When the call returns,
    /// nothing of the old one is cached, and DMA by it is over where the unit can drain.
    ///
    /// Second-stage translations are cached under `domain`, all others under `domain` and the PASID: two tables must
    /// never have the same. A table that is attached under several must be invalidated under each.
    ///
    /// In legacy mode `pasid` is `None`, and there is no first stage.
    ///
    /// ```
    /// # use vtd::*;
    /// # use addr::{Bdf, DomainId, HostPhys};
    /// # fn f<R: Registers, C: Clock, M: DmaMemory>(
    /// #     unit: &mut Unit<R, C>, memory: &mut M, nic: Bdf, host: HostPhys, guests: [HostPhys; 2],
    /// # ) -> Result<(), Error> {
    /// // The device itself stays the host's; each of its interfaces goes to a guest of its own (Scalable IOV).
    /// let levels = Levels::Four;
    /// unit.attach(memory, nic, None, DomainId(1), Translation::FirstStage { table: host, levels })?;
    /// for ((number, domain), table) in [(0x41, 2), (0x42, 3)].into_iter().zip(guests) {
    ///     let pasid = Pasid::new(number);
    ///     unit.attach(memory, nic, pasid, DomainId(domain), Translation::SecondStage { table, levels })?;
    /// }
    /// unit.detach(memory, nic, Pasid::new(0x41))
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::OutOfOrder`] before [`Unit::create_root_table`], [`Error::DomainOutOfRange`],
    /// [`Error::PasidOutOfRange`], [`Error::Unsupported`], [`Error::LevelsUnsupported`], [`Error::BadTable`],
    /// [`Error::BadFirstStageTable`], [`Error::OutOfMemory`]: nothing has changed.
    /// [`Error::Invalidation`], [`Error::Timeout`]: the requests reach nothing as far as the tables say.
    pub fn attach<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        pasid: Option<Pasid>,
        domain: DomainId,
        translation: Translation,
    ) -> Result<(), Error> {
        self.change_attachment(memory, Attachment { source, pasid, domain, translation }, Gap::Allowed)
    }

    /// As [`Self::attach`], but by one store or not at all: what both the old and the new translation map is reached at
    /// every moment. What has nothing attached gets its first translation.
    ///
    /// # Errors
    /// Those of [`Self::attach`]; [`Error::NotAtomic`], and nothing has changed: more of the entry differs than one
    /// store can change, which is 64 bits, or 128 where memory can exchange them ([`DmaMemory::exchange_u128`]).
    pub fn reattach<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        pasid: Option<Pasid>,
        domain: DomainId,
        translation: Translation,
    ) -> Result<(), Error> {
        self.change_attachment(memory, Attachment { source, pasid, domain, translation }, Gap::Forbidden)
    }

    fn change_attachment<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        attachment: Attachment,
        gap: Gap,
    ) -> Result<(), Error> {
        match self.scalable {
            Some(_) => self.attach_scalable(memory, attachment, gap),
            None => self.attach_legacy(memory, attachment, gap),
        }
    }

    /// Takes away what [`Self::attach`] gave: the requests reach nothing when the call returns, nothing of them is
    /// cached, and their DMA is over where the unit can drain. Does nothing where nothing is attached. Works on a
    /// poisoned unit too.
    ///
    /// # Errors
    /// [`Error::PasidOutOfRange`], [`Error::Unsupported`]: there is no such PASID. [`Error::Invalidation`]: translations
    /// may still be cached. Give neither the pages nor the domain id to anybody.
    pub fn detach<M: DmaMemory>(&mut self, memory: &mut M, source: Bdf, pasid: Option<Pasid>) -> Result<(), Error> {
        if self.scalable.is_none() && pasid.is_none() {
            return self.clear_legacy(memory, source);
        }
        self.detach_scalable(memory, source, pasid)
    }

    /// What is attached, with the domain id that it is cached under.
    pub fn attachment<M: DmaMemory>(
        &self,
        memory: &M,
        source: Bdf,
        pasid: Option<Pasid>,
    ) -> Option<(DomainId, Translation)> {
        if self.scalable.is_none() && pasid.is_none() {
            return self.legacy_attachment(memory, source);
        }
        self.scalable_attachment(memory, source, pasid)
    }
}
