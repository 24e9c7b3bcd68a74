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
mod attachment;
mod deny;
mod device_tlb;
mod iotlb;
mod pasid_entry;
mod tables;

use crate::error::{Error, Step};
use crate::mode::Scalable;
use crate::registers::Registers;
use crate::spec::pasid::Pasid;
use crate::unit::Unit;
use crate::wait::Clock;

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
            deny: deny::deny,
        });
        Ok(())
    }
}
