//! The table's header, and the walk over its structures.

use core::fmt;

use crate::bytes::{array_at, u8_at, u16_at, u32_at};
use crate::spec::{structure, table};
use crate::structure::{Andd, Atsr, Drhd, Rhsa, Rmrr, Satc, Sidp, Structure};
use crate::unusable::{StructureError, StructureErrorKind};

/// A DMAR table whose header is sound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dmar<'a> {
    /// Exactly the table: its length field's worth of bytes, or what there is of a damaged one.
    bytes: &'a [u8],
    host_address_width: u8,
    flags: u8,
}

/// Why a table cannot be used at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DmarError {
    /// The slice cannot hold a DMAR header (48 bytes); this is its length in bytes.
    TooShort(usize),
    /// The signature is not "DMAR", but this.
    Signature([u8; 4]),
    /// The length field is below a header's length, or beyond the end of the slice (all in bytes).
    Length {
        /// What the table says.
        length: u32,
        /// What the slice holds.
        available: usize,
    },
    /// The bytes of the table add up to this, modulo 256, and not to 0.
    Checksum(u8),
}

impl fmt::Display for DmarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(length) => write!(f, "DMAR: {length} bytes cannot hold the 48-byte header"),
            Self::Signature(found) => write!(f, "DMAR: signature is {:02x?}", found),
            Self::Length { length, available } => {
                write!(f, "DMAR: length field is {length}, {available} bytes are there")
            }
            Self::Checksum(sum) => write!(f, "DMAR: bytes add up to {sum:#04x} instead of 0"),
        }
    }
}

impl core::error::Error for DmarError {}

impl<'a> Dmar<'a> {
    /// Checks signature, length and checksum. `bytes` begins with the table and may be longer than it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DmarError> {
        match Self::parse_damaged(bytes)? {
            (dmar, None) => Ok(dmar),
            (_, Some(damage)) => Err(damage),
        }
    }

    /// For tools that show tables: reads one whose length field or checksum is wrong as far as its bytes go, and says
    /// what is wrong with it. Without damage this is [`Dmar::parse`].
    ///
    /// A length beyond the slice ends at the slice's end; one below a header's length counts as unknown, and the table
    /// as long as the slice. No device may be handed out on the word of a damaged table.
    pub fn parse_damaged(bytes: &'a [u8]) -> Result<(Self, Option<DmarError>), DmarError> {
        let too_short = DmarError::TooShort(bytes.len());
        let signature: [u8; 4] = array_at(bytes, table::SIGNATURE).ok_or(too_short)?;
        if &signature != b"DMAR" {
            return Err(DmarError::Signature(signature));
        }
        let length = u32_at(bytes, table::LENGTH).ok_or(too_short)?;
        if bytes.len() < table::STRUCTURES {
            return Err(too_short);
        }
        let wrong_length = DmarError::Length { length, available: bytes.len() };
        let whole = usize::try_from(length).ok().and_then(|length| bytes.get(..length));
        let (bytes, damage) = match whole.filter(|whole| whole.len() >= table::STRUCTURES) {
            Some(whole) => {
                let sum = whole.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
                (whole, (sum != 0).then_some(DmarError::Checksum(sum)))
            }
            None => (bytes, Some(wrong_length)),
        };
        let host_address_width = u8_at(bytes, table::HOST_ADDRESS_WIDTH).ok_or(too_short)?;
        let flags = u8_at(bytes, table::FLAGS).ok_or(too_short)?;
        Ok((Self { bytes, host_address_width, flags }, damage))
    }

    /// The table's bytes, header included, and nothing after them.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The revision field.
    pub fn revision(&self) -> u8 {
        u8_at(self.bytes, table::REVISION).unwrap_or(0)
    }

    /// OEM ID and OEM Table ID, as they stand: real machines have unprintable bytes in them.
    pub fn oem_ids(&self) -> ([u8; 6], [u8; 8]) {
        (
            array_at(self.bytes, table::OEM_ID).unwrap_or_default(),
            array_at(self.bytes, table::OEM_TABLE_ID).unwrap_or_default(),
        )
    }

    /// How many bits a DMA address has on this platform, 1 to 256: the field plus one. Not checked against anything.
    pub fn host_address_width(&self) -> u16 {
        u16::from(self.host_address_width) + 1
    }

    /// The flags as they stand.
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// INTR_REMAP: the platform supports interrupt remapping. Without it a unit's own capability must not be used.
    pub fn interrupt_remapping(&self) -> bool {
        self.flags & table::FLAG_INTR_REMAP != 0
    }

    /// X2APIC_OPT_OUT: firmware asks that x2APIC mode stays off. Some machines set it without INTR_REMAP, where the
    /// specification gives it no meaning; that case is `false` here.
    pub fn x2apic_opt_out(&self) -> bool {
        self.interrupt_remapping() && self.flags & table::FLAG_X2APIC_OPT_OUT != 0
    }

    /// DMA_CTRL_PLATFORM_OPT_IN_FLAG: firmware says that no device did DMA around the units before the hand-over.
    pub fn dma_control_opt_in(&self) -> bool {
        self.flags & table::FLAG_DMA_CTRL_PLATFORM_OPT_IN != 0
    }

    /// Every remapping structure in the table's order, each by itself: a bad one does not end the walk unless its
    /// length cannot be trusted ([`StructureError::ends_table`]), and then it is the last item.
    pub fn structures(&self) -> Structures<'a> {
        Structures { table: self.bytes, offset: table::STRUCTURES }
    }

    /// The usable DRHD structures: one a remapping unit.
    pub fn drhds(&self) -> impl Iterator<Item = Drhd<'a>> + Clone + use<'a> {
        self.structures().filter_map(|structure| match structure {
            Ok(Structure::Drhd(drhd)) => Some(drhd),
            _ => None,
        })
    }

    /// The usable RMRR structures: one a reserved memory region.
    pub fn rmrrs(&self) -> impl Iterator<Item = Rmrr<'a>> + Clone + use<'a> {
        self.structures().filter_map(|structure| match structure {
            Ok(Structure::Rmrr(rmrr)) => Some(rmrr),
            _ => None,
        })
    }

    /// The usable ATSR structures: each some root ports below which a device-TLB may be used.
    pub fn atsrs(&self) -> impl Iterator<Item = Atsr<'a>> + Clone + use<'a> {
        self.structures().filter_map(|structure| match structure {
            Ok(Structure::Atsr(atsr)) => Some(atsr),
            _ => None,
        })
    }

    /// The usable RHSA structures: one an affinity of a unit to a proximity domain.
    pub fn rhsas(&self) -> impl Iterator<Item = Rhsa> + Clone + use<'a> {
        self.structures().filter_map(|structure| match structure {
            Ok(Structure::Rhsa(rhsa)) => Some(rhsa),
            _ => None,
        })
    }

    /// The usable ANDD structures: one the name of an ACPI device that does DMA.
    pub fn andds(&self) -> impl Iterator<Item = Andd<'a>> + Clone + use<'a> {
        self.structures().filter_map(|structure| match structure {
            Ok(Structure::Andd(andd)) => Some(andd),
            _ => None,
        })
    }

    /// The usable SATC structures: each some integrated devices that have a device-TLB.
    pub fn satcs(&self) -> impl Iterator<Item = Satc<'a>> + Clone + use<'a> {
        self.structures().filter_map(|structure| match structure {
            Ok(Structure::Satc(satc)) => Some(satc),
            _ => None,
        })
    }

    /// The usable SIDP structures: each the properties of some integrated devices.
    pub fn sidps(&self) -> impl Iterator<Item = Sidp<'a>> + Clone + use<'a> {
        self.structures().filter_map(|structure| match structure {
            Ok(Structure::Sidp(sidp)) => Some(sidp),
            _ => None,
        })
    }
}

/// The walk over a table's structures; see [`Dmar::structures`].
#[derive(Clone, Debug)]
pub struct Structures<'a> {
    table: &'a [u8],
    /// Where the next structure begins; at or beyond the end when there is none.
    offset: usize,
}

impl<'a> Iterator for Structures<'a> {
    type Item = Result<Structure<'a>, StructureError<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        let rest = self.table.get(offset..).filter(|rest| !rest.is_empty())?;
        // Whatever is wrong with a length, the walk must not go on from it: 0 would be found here again for ever.
        self.offset = self.table.len();
        let broken = |kind| Some(Err(StructureError { offset, kind, bytes: rest }));
        let (Some(structure_type), Some(length)) = (u16_at(rest, structure::TYPE), u16_at(rest, structure::LENGTH))
        else {
            return broken(StructureErrorKind::HeaderCut);
        };
        let length = usize::from(length);
        if length < structure::HEADER {
            return broken(StructureErrorKind::LengthBelowHeader);
        }
        let Some(bytes) = rest.get(..length) else {
            return broken(StructureErrorKind::LengthPastEnd);
        };
        self.offset = offset + length;
        Some(Structure::parse(structure_type, bytes, offset).map_err(|kind| StructureError { offset, kind, bytes }))
    }
}

impl core::iter::FusedIterator for Structures<'_> {}
