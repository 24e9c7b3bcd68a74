//! How requests are translated.

use crate::spec::capability::Levels;
use crate::spec::pasid::Pasid;
use addr::{Bdf, DomainId, GuestPhys, HostPhys};

/// How the requests of a device, or of one PASID of it, are translated. The tables stay their owner's, and must live
/// until the translation is replaced or taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Translation {
    /// By a second-stage table: 3, 4 or 5 levels, as CAP.SAGAW allows.
    SecondStage {
        /// The root of the table.
        table: HostPhys,
        /// Its levels.
        levels: Levels,
    },
    /// By a first-stage table, in the format of a processor's own: 4 levels, or 5 with CAP.FS5LP. Scalable mode only.
    FirstStage {
        /// The root of the table.
        table: HostPhys,
        /// Its levels.
        levels: Levels,
    },
    /// By a guest's first-stage table and then by its second-stage table, which also says where the guest's table is.
    /// Scalable mode only.
    Nested {
        /// The root of the first-stage table, where the guest sees it.
        first: GuestPhys,
        /// Its levels: 4, or 5 with CAP.FS5LP.
        first_levels: Levels,
        /// The root of the second-stage table. All translations under one domain id must have the same.
        second: HostPhys,
        /// Its levels.
        second_levels: Levels,
    },
    /// An address is itself: the device reaches all of memory.
    PassThrough,
}

/// A translation, whose it is, and what it is cached under.
#[derive(Clone, Copy)]
pub(crate) struct Attachment {
    pub source: Bdf,
    /// `None`: requests without PASID.
    pub pasid: Option<Pasid>,
    pub domain: DomainId,
    pub translation: Translation,
}
