//! A structure that cannot be used, and what can still be read of it.

use core::fmt;

use crate::bytes::{u8_at, u16_at};
use crate::scope::DeviceScopes;
use crate::spec::{atsr, drhd, rmrr, satc, sidp, structure};

/// A structure that cannot be used. The devices that it names ([`Self::scopes`], in [`Self::segment`]) must not be
/// handed out: for a DRHD nobody knows which unit isolates them, for an RMRR nobody knows which memory they need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StructureError<'a> {
    /// Where the structure begins, in bytes from the table's start.
    pub offset: usize,
    /// What is wrong.
    pub kind: StructureErrorKind,
    /// The structure's bytes, cut at the table's end, or all that is left of the table where its length is not usable.
    pub bytes: &'a [u8],
}

/// What is wrong with a structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StructureErrorKind {
    /// Fewer bytes are left in the table than type and length need. Ends the table.
    HeaderCut,
    /// The length field is below 4, the length of type and length. Ends the table.
    LengthBelowHeader,
    /// The structure reaches beyond the table's end. Ends the table.
    LengthPastEnd,
    /// The structure is shorter than the fixed part of its type.
    TooShort {
        /// Length of that fixed part, in bytes.
        minimum: usize,
    },
    /// A DRHD or RHSA has the register base 0: firmware switched the unit off and left its structure.
    RegisterBaseZero,
    /// A DRHD or RHSA has a register base that is not a multiple of 4 KiB.
    RegisterBaseUnaligned {
        /// The register base.
        base: u64,
    },
    /// A DRHD's register window reaches beyond the end of the 64-bit space.
    RegisterWindowWraps {
        /// The register base.
        base: u64,
    },
    /// An RMRR's last byte is below its first.
    RegionLimitBelowBase {
        /// The first byte.
        base: u64,
        /// The last byte.
        limit: u64,
    },
    /// An RMRR does not consist of whole 4 KiB pages.
    RegionUnaligned {
        /// The first byte.
        base: u64,
        /// The last byte.
        limit: u64,
    },
}

impl<'a> StructureError<'a> {
    /// Whether nothing after this structure can be found. There may then be units and reserved regions that nobody knows.
    pub fn ends_table(&self) -> bool {
        use StructureErrorKind::{HeaderCut, LengthBelowHeader, LengthPastEnd};
        matches!(self.kind, HeaderCut | LengthBelowHeader | LengthPastEnd)
    }

    /// The type field, if it can be read.
    pub fn structure_type(&self) -> Option<u16> {
        u16_at(self.bytes, structure::TYPE)
    }

    /// Whether this is a DMA Remapping Hardware Unit Definition.
    pub fn is_drhd(&self) -> bool {
        self.structure_type() == Some(structure::TYPE_DRHD)
    }

    /// Whether this is a Reserved Memory Region Reporting structure.
    pub fn is_rmrr(&self) -> bool {
        self.structure_type() == Some(structure::TYPE_RMRR)
    }

    /// Whether this is a Root Port ATS Capability Reporting structure.
    pub fn is_atsr(&self) -> bool {
        self.structure_type() == Some(structure::TYPE_ATSR)
    }

    /// Whether this is a SoC Integrated Address Translation Cache structure.
    pub fn is_satc(&self) -> bool {
        self.structure_type() == Some(structure::TYPE_SATC)
    }

    /// Whether this is a SoC Integrated Device Property structure.
    pub fn is_sidp(&self) -> bool {
        self.structure_type() == Some(structure::TYPE_SIDP)
    }

    /// The PCI segment, if the type has one and it can be read.
    pub fn segment(&self) -> Option<u16> {
        let offset = match self.structure_type()? {
            structure::TYPE_DRHD => drhd::SEGMENT,
            structure::TYPE_RMRR => rmrr::SEGMENT,
            structure::TYPE_ATSR => atsr::SEGMENT,
            structure::TYPE_SATC => satc::SEGMENT,
            structure::TYPE_SIDP => sidp::SEGMENT,
            _ => return None,
        };
        u16_at(self.bytes, offset)
    }

    /// For a DRHD, INCLUDE_PCI_ALL if it can be read: all the devices of the segment that no other unit names are
    /// without a unit then.
    pub fn include_pci_all(&self) -> Option<bool> {
        self.is_drhd().then(|| u8_at(self.bytes, drhd::FLAGS))?.map(|flags| flags & drhd::FLAG_INCLUDE_PCI_ALL != 0)
    }

    /// Whether the structure is too short to have the device scopes that its type has: nobody knows which devices it
    /// was meant to name.
    pub fn scopes_lost(&self) -> bool {
        matches!(self.kind, StructureErrorKind::TooShort { .. })
    }

    /// The device scopes that can still be read; empty where the type has none or they cannot be found.
    pub fn scopes(&self) -> DeviceScopes<'a> {
        let fixed = match self.structure_type() {
            Some(structure::TYPE_DRHD) => drhd::SCOPES,
            Some(structure::TYPE_RMRR) => rmrr::SCOPES,
            Some(structure::TYPE_ATSR) => atsr::SCOPES,
            Some(structure::TYPE_SATC) => satc::SCOPES,
            Some(structure::TYPE_SIDP) => sidp::SCOPES,
            _ => usize::MAX,
        };
        // With a length below the header nothing says where the scopes end: what follows may be other structures.
        let bytes = match self.kind {
            StructureErrorKind::LengthBelowHeader => &[],
            _ => self.bytes.get(fixed..).unwrap_or(&[]),
        };
        DeviceScopes::new(bytes, self.offset.saturating_add(fixed))
    }
}

impl fmt::Display for StructureError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DMAR structure at {:#x}", self.offset)?;
        if let Some(structure_type) = self.structure_type() {
            write!(f, " of type {structure_type}")?;
        }
        match self.kind {
            StructureErrorKind::HeaderCut => write!(f, ": {} bytes are left in the table", self.bytes.len()),
            StructureErrorKind::LengthBelowHeader => write!(f, ": length below 4"),
            StructureErrorKind::LengthPastEnd => {
                let length = u16_at(self.bytes, structure::LENGTH).unwrap_or(0);
                write!(f, ": length {length}, but {} bytes are left in the table", self.bytes.len())
            }
            StructureErrorKind::TooShort { minimum } => {
                write!(f, ": {} bytes, its type needs {minimum}", self.bytes.len())
            }
            StructureErrorKind::RegisterBaseZero => write!(f, ": register base 0"),
            StructureErrorKind::RegisterBaseUnaligned { base } => write!(f, ": register base {base:#x} is not aligned"),
            StructureErrorKind::RegisterWindowWraps { base } => write!(f, ": registers at {base:#x} wrap"),
            StructureErrorKind::RegionLimitBelowBase { base, limit } => write!(f, ": limit {limit:#x} below {base:#x}"),
            StructureErrorKind::RegionUnaligned { base, limit } => {
                write!(f, ": {base:#x} to {limit:#x} is not whole pages")
            }
        }
    }
}

impl core::error::Error for StructureError<'_> {}
