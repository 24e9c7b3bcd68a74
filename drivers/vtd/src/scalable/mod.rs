//! Scalable mode (section 3.4.3): a requester id leads to a directory of PASIDs, and each PASID has a translation of its
//! own. Requests without PASID are translated as those of one PASID that software names once (RID_PASID).
//!
//! [`Unit::use_scalable_mode`] is the one choice, before the queue is turned on. Then [`Unit::assign`], [`Unit::clear`]
//! and [`Unit::invalidate`] do what they do in legacy mode, and [`Unit::attach`] and [`Unit::detach`] what only scalable
//! mode can: give each PASID of a device another translation, as a device with assignable interfaces (Scalable IOV) needs.
//!
//! The same rules as in legacy mode hold for its tables: what is not there denies; an entry is never changed while
//! present but by one store of 64 bits; it is made not present, hardware forgets it, contexts before PASIDs and PASIDs
//! before pages, and only then it is written anew, the word with the present bit last.

mod assignment;
mod attach;
mod device_tlb;
mod iotlb;
mod tables;
mod through;
mod translation;

pub use translation::Translation;

use crate::error::{Error, Step};
use crate::spec::pasid::Pasid;
use crate::tables::{Assignment, Gap};
use crate::wait::Clock;
use crate::{DmaMemory, Registers, Unit};
use addr::{Bdf, DomainId, HostPhys};
use core::fmt;

/// By which tables a unit finds a device's translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TranslationMode {
    /// Root and context entries; a requester id has one second-stage table.
    Legacy,
    /// Root and context entries, PASID directories and tables.
    Scalable,
}

/// [`Unit::assign`], [`Unit::assign_with_device_tlb`] and [`Unit::replace`].
type Change<R, C> = fn(&mut Unit<R, C>, &mut dyn DmaMemory, Bdf, Assignment, Gap) -> Result<(), Error>;
/// [`Unit::clear`].
type Clear<R, C> = fn(&mut Unit<R, C>, &mut dyn DmaMemory, Bdf) -> Result<(), Error>;
/// [`Unit::assignment`].
type Assigned<R, C> = fn(&Unit<R, C>, &dyn DmaMemory, Bdf) -> Option<(DomainId, HostPhys)>;
/// `Unit::deny`: whether there was something to take away.
type Deny<R, C> = fn(&mut Unit<R, C>, &mut dyn DmaMemory, Bdf) -> bool;

/// What a unit in scalable mode does where legacy mode would do something else.
///
/// By pointers, which [`Unit::use_scalable_mode`] alone sets: the program of whoever never calls it has nothing of
/// scalable mode in it.
pub(crate) struct Scalable<R, C> {
    pub rid_pasid: Pasid,
    pub change: Change<R, C>,
    pub clear: Clear<R, C>,
    pub assignment: Assigned<R, C>,
    pub deny: Deny<R, C>,
}

impl<R, C> Clone for Scalable<R, C> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R, C> Copy for Scalable<R, C> {}

impl<R, C> fmt::Debug for Scalable<R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scalable(RID_PASID {})", self.rid_pasid)
    }
}

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Uses the unit in scalable mode. Requests without PASID are translated as those of `rid_pasid`:
    /// [`Pasid::ZERO`], unless the unit lets software choose (ECAP.RPS).
    ///
    /// # Errors
    /// [`Error::Unsupported`] without ECAP.SMTS or without a stage to translate by, or for another `rid_pasid` than 0
    /// without ECAP.RPS; [`Error::OutOfOrder`] after [`Unit::enable_queue`] or [`Unit::create_root_table`]. The unit
    /// stays in legacy mode then.
    pub fn use_scalable_mode(&mut self, rid_pasid: Pasid) -> Result<(), Error> {
        let capabilities = self.capabilities;
        if !capabilities.scalable_mode() {
            return Err(Error::Unsupported { capability: "scalable mode (ECAP.SMTS)" });
        }
        if !capabilities.queued_invalidation() {
            return Err(Error::Unsupported { capability: "queued invalidation (ECAP.QI)" });
        }
        if !capabilities.scalable_second_stage() && !capabilities.first_stage() {
            return Err(Error::Unsupported { capability: "a stage in scalable mode (ECAP.SSTS, ECAP.FSTS)" });
        }
        if rid_pasid != Pasid::ZERO && !capabilities.rid_pasid() {
            return Err(Error::Unsupported { capability: "a choice of the PASID of requests without one (ECAP.RPS)" });
        }
        if self.interface.is_some() || self.root_table.is_some() {
            return Err(Error::OutOfOrder { step: Step::SetRootTable, needs: "that the unit is not yet set up" });
        }
        self.scalable = Some(Scalable {
            rid_pasid,
            change: assignment::change,
            clear: assignment::clear,
            assignment: assignment::assignment,
            deny: assignment::deny,
        });
        Ok(())
    }

    /// The mode that the unit is used in.
    pub fn translation_mode(&self) -> TranslationMode {
        if self.scalable.is_some() { TranslationMode::Scalable } else { TranslationMode::Legacy }
    }

    /// Whether hardware's walks of page tables are coherent with the processors' caches: otherwise whoever owns a table
    /// must write back each entry that it changes. In legacy mode ECAP.C says it of all tables; in scalable mode
    /// ECAP.SMPWC says it of page tables, and ECAP.C of the driver's own.
    pub fn page_walks_are_coherent(&self) -> bool {
        match self.translation_mode() {
            TranslationMode::Legacy => self.capabilities.coherent(),
            TranslationMode::Scalable => self.capabilities.scalable_page_walk_coherency(),
        }
    }
}
