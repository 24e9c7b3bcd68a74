//! The two modes of a unit, and what the code above both asks of either.

use crate::device_tlb::DeviceTlb;
use crate::error::Error;
use crate::memory::DmaMemory;
use crate::spec::capability::Levels;
use crate::spec::pasid::Pasid;
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

/// What a device is to reach.
#[derive(Clone, Copy)]
pub(crate) struct Assignment {
    pub domain: DomainId,
    pub table: HostPhys,
    pub levels: Levels,
    pub device_tlb: Option<DeviceTlb>,
}

/// Whether a device may reach nothing while its assignment changes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gap {
    Allowed,
    Forbidden,
}

/// [`Unit::assign`](crate::Unit::assign) and its kin.
type Change<U> = fn(&mut U, &mut dyn DmaMemory, Bdf, Assignment, Gap) -> Result<(), Error>;
/// [`Unit::clear`](crate::Unit::clear).
type Clear<U> = fn(&mut U, &mut dyn DmaMemory, Bdf) -> Result<(), Error>;
/// [`Unit::assignment`](crate::Unit::assignment).
type Assigned<U> = fn(&U, &dyn DmaMemory, Bdf) -> Option<(DomainId, HostPhys)>;
/// `Unit::deny`: whether there was something to take away.
type Deny<U> = fn(&mut U, &mut dyn DmaMemory, Bdf) -> bool;

/// What a unit `U` in scalable mode does where legacy mode would do something else.
///
/// By pointers, which [`Unit::use_scalable_mode`](crate::Unit::use_scalable_mode) alone sets: the program of whoever
/// never calls it has nothing of scalable mode in it.
pub(crate) struct Scalable<U> {
    pub rid_pasid: Pasid,
    pub change: Change<U>,
    pub clear: Clear<U>,
    pub assignment: Assigned<U>,
    pub deny: Deny<U>,
}

impl<U> Clone for Scalable<U> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<U> Copy for Scalable<U> {}

impl<U> fmt::Debug for Scalable<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scalable(RID_PASID {})", self.rid_pasid)
    }
}
