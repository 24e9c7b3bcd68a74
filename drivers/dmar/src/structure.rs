//! The remapping structures, one type each (VT-d specification, sections 8.3 to 8.9).

use addr::{HostPhys, PAGE_SIZE};

use crate::bytes::{u8_at, u16_at, u32_at, u64_at};
use crate::scope::DeviceScopes;
use crate::spec::{andd, atsr, drhd, rhsa, rmrr, satc, sidp, structure};
use crate::unusable::StructureErrorKind;

/// A remapping structure whose content is usable. Its device scopes are checked when they are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Structure<'a> {
    /// DMA Remapping Hardware Unit Definition.
    Drhd(Drhd<'a>),
    /// Reserved Memory Region Reporting.
    Rmrr(Rmrr<'a>),
    /// Root Port ATS Capability Reporting.
    Atsr(Atsr<'a>),
    /// Remapping Hardware Static Affinity.
    Rhsa(Rhsa),
    /// ACPI Name-space Device Declaration.
    Andd(Andd<'a>),
    /// SoC Integrated Address Translation Cache.
    Satc(Satc<'a>),
    /// SoC Integrated Device Property.
    Sidp(Sidp<'a>),
    /// A type that this crate does not know; to be skipped with a word in the log.
    Unknown(UnknownStructure<'a>),
}

/// DMA Remapping Hardware Unit Definition (section 8.3): where a unit's registers are, and which devices it serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drhd<'a> {
    /// Where the structure begins, in bytes from the table's start.
    pub offset: usize,
    /// The flags as they stand; bit 0 is INCLUDE_PCI_ALL.
    pub flags: u8,
    /// The PCI segment of the unit's devices.
    pub segment: u16,
    /// Where the registers begin: not 0, and a multiple of 4 KiB.
    pub register_base: HostPhys,
    /// Length of the register window in bytes: 4 KiB to 128 MiB. The window does not wrap.
    pub register_size: u64,
    scopes: DeviceScopes<'a>,
}

impl<'a> Drhd<'a> {
    /// INCLUDE_PCI_ALL: the unit serves every PCI device of its segment that no other unit names.
    pub fn include_pci_all(&self) -> bool {
        self.flags & drhd::FLAG_INCLUDE_PCI_ALL != 0
    }

    /// The devices that the unit names. With INCLUDE_PCI_ALL these are its I/O APICs, HPETs and ACPI devices.
    pub fn scopes(&self) -> DeviceScopes<'a> {
        self.scopes
    }
}

/// Reserved Memory Region Reporting (section 8.4): memory that devices use without a driver's knowledge. It must stay
/// mapped, at the same address, for those devices at every moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rmrr<'a> {
    /// Where the structure begins, in bytes from the table's start.
    pub offset: usize,
    /// The PCI segment of the region's devices.
    pub segment: u16,
    /// The region's first byte: a multiple of 4 KiB. It may be 0 (seen on real machines).
    pub base: HostPhys,
    /// The region's last byte: one less than a multiple of 4 KiB, and above `base`.
    pub limit: HostPhys,
    scopes: DeviceScopes<'a>,
}

impl<'a> Rmrr<'a> {
    /// Length of the region in 4 KiB pages: 1 or more.
    pub fn pages(&self) -> u64 {
        (self.limit.as_u64() - self.base.as_u64()) / PAGE_SIZE + 1
    }

    /// The devices that use the region.
    pub fn scopes(&self) -> DeviceScopes<'a> {
        self.scopes
    }
}

/// Root Port ATS Capability Reporting (section 8.5): below which root ports a device-TLB may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Atsr<'a> {
    /// Where the structure begins, in bytes from the table's start.
    pub offset: usize,
    /// The flags as they stand; bit 0 is ALL_PORTS.
    pub flags: u8,
    /// The PCI segment of the root ports.
    pub segment: u16,
    scopes: DeviceScopes<'a>,
}

impl<'a> Atsr<'a> {
    /// ALL_PORTS: every root port of the segment; the scopes say nothing then.
    pub fn all_ports(&self) -> bool {
        self.flags & atsr::FLAG_ALL_PORTS != 0
    }

    /// The root ports that support ATS.
    pub fn scopes(&self) -> DeviceScopes<'a> {
        self.scopes
    }
}

/// Remapping Hardware Static Affinity (section 8.6): which proximity domain a unit is near.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rhsa {
    /// Where the structure begins, in bytes from the table's start.
    pub offset: usize,
    /// The register base of the unit that this is about.
    pub register_base: HostPhys,
    /// The proximity domain, as in the SRAT.
    pub proximity_domain: u32,
}

/// ACPI Name-space Device Declaration (section 8.7): the name of a device that does DMA and that PCI does not show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Andd<'a> {
    /// Where the structure begins, in bytes from the table's start.
    pub offset: usize,
    /// What a device scope of type ACPI Name-space Device gives as enumeration id.
    pub device_number: u8,
    /// The device's ACPI path up to the first NUL: firmware's bytes, not necessarily text.
    pub name: &'a [u8],
}

/// SoC Integrated Address Translation Cache (section 8.8): integrated devices that have a device-TLB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Satc<'a> {
    /// Where the structure begins, in bytes from the table's start.
    pub offset: usize,
    /// The flags as they stand; bit 0 is ATC_REQUIRED.
    pub flags: u8,
    /// The PCI segment of the devices.
    pub segment: u16,
    scopes: DeviceScopes<'a>,
}

impl<'a> Satc<'a> {
    /// ATC_REQUIRED: the devices do not work unless their device-TLB is enabled.
    pub fn atc_required(&self) -> bool {
        self.flags & satc::FLAG_ATC_REQUIRED != 0
    }

    /// The devices.
    pub fn scopes(&self) -> DeviceScopes<'a> {
        self.scopes
    }
}

/// SoC Integrated Device Property (section 8.9): what integrated devices need of their PASID table entries and
/// device-TLB; each scope carries [`crate::SidpFlags`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sidp<'a> {
    /// Where the structure begins, in bytes from the table's start.
    pub offset: usize,
    /// The PCI segment of the devices.
    pub segment: u16,
    scopes: DeviceScopes<'a>,
}

impl<'a> Sidp<'a> {
    /// The devices, each with its properties.
    pub fn scopes(&self) -> DeviceScopes<'a> {
        self.scopes
    }
}

/// A structure of an unknown type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownStructure<'a> {
    /// Where the structure begins, in bytes from the table's start.
    pub offset: usize,
    /// The type field: 7 or above.
    pub structure_type: u16,
    /// The whole structure, header included.
    pub bytes: &'a [u8],
}

impl<'a> Structure<'a> {
    /// `bytes` are the structure's own, header included, `offset` bytes from the table's start.
    pub(crate) fn parse(structure_type: u16, bytes: &'a [u8], offset: usize) -> Result<Self, StructureErrorKind> {
        Ok(match structure_type {
            structure::TYPE_DRHD => Self::Drhd(parse_drhd(bytes, offset)?),
            structure::TYPE_RMRR => Self::Rmrr(parse_rmrr(bytes, offset)?),
            structure::TYPE_ATSR => {
                let scopes = long_enough(bytes, atsr::SCOPES, offset)?;
                let (flags, segment) = (u8_at(bytes, atsr::FLAGS), u16_at(bytes, atsr::SEGMENT));
                Self::Atsr(Atsr { offset, flags: flags.unwrap_or(0), segment: segment.unwrap_or(0), scopes })
            }
            structure::TYPE_RHSA => Self::Rhsa(parse_rhsa(bytes, offset)?),
            structure::TYPE_ANDD => {
                long_enough(bytes, andd::NAME, offset)?;
                let name = bytes.get(andd::NAME..).unwrap_or(&[]);
                let name = name.split(|byte| *byte == 0).next().unwrap_or(name);
                Self::Andd(Andd { offset, device_number: u8_at(bytes, andd::DEVICE_NUMBER).unwrap_or(0), name })
            }
            structure::TYPE_SATC => {
                let scopes = long_enough(bytes, satc::SCOPES, offset)?;
                let (flags, segment) = (u8_at(bytes, satc::FLAGS), u16_at(bytes, satc::SEGMENT));
                Self::Satc(Satc { offset, flags: flags.unwrap_or(0), segment: segment.unwrap_or(0), scopes })
            }
            structure::TYPE_SIDP => {
                let scopes = long_enough(bytes, sidp::SCOPES, offset)?;
                Self::Sidp(Sidp { offset, segment: u16_at(bytes, sidp::SEGMENT).unwrap_or(0), scopes })
            }
            _ => Self::Unknown(UnknownStructure { offset, structure_type, bytes }),
        })
    }

    /// The type field.
    pub fn structure_type(&self) -> u16 {
        match self {
            Self::Drhd(_) => structure::TYPE_DRHD,
            Self::Rmrr(_) => structure::TYPE_RMRR,
            Self::Atsr(_) => structure::TYPE_ATSR,
            Self::Rhsa(_) => structure::TYPE_RHSA,
            Self::Andd(_) => structure::TYPE_ANDD,
            Self::Satc(_) => structure::TYPE_SATC,
            Self::Sidp(_) => structure::TYPE_SIDP,
            Self::Unknown(structure) => structure.structure_type,
        }
    }

    /// Where the structure begins, in bytes from the table's start.
    pub fn offset(&self) -> usize {
        match self {
            Self::Drhd(structure) => structure.offset,
            Self::Rmrr(structure) => structure.offset,
            Self::Atsr(structure) => structure.offset,
            Self::Rhsa(structure) => structure.offset,
            Self::Andd(structure) => structure.offset,
            Self::Satc(structure) => structure.offset,
            Self::Sidp(structure) => structure.offset,
            Self::Unknown(structure) => structure.offset,
        }
    }
}

/// The scopes of a structure whose fixed part is `fixed` bytes long, or the error that it is shorter than that.
fn long_enough(bytes: &[u8], fixed: usize, offset: usize) -> Result<DeviceScopes<'_>, StructureErrorKind> {
    match bytes.get(fixed..) {
        Some(rest) => Ok(DeviceScopes::new(rest, offset + fixed)),
        None => Err(StructureErrorKind::TooShort { minimum: fixed }),
    }
}

fn parse_drhd(bytes: &[u8], offset: usize) -> Result<Drhd<'_>, StructureErrorKind> {
    let too_short = StructureErrorKind::TooShort { minimum: drhd::SCOPES };
    let scopes = long_enough(bytes, drhd::SCOPES, offset)?;
    let flags = u8_at(bytes, drhd::FLAGS).ok_or(too_short)?;
    let size = u8_at(bytes, drhd::SIZE).ok_or(too_short)?;
    let segment = u16_at(bytes, drhd::SEGMENT).ok_or(too_short)?;
    let base = u64_at(bytes, drhd::REGISTER_BASE).ok_or(too_short)?;
    let register_base = checked_register_base(base)?;
    let register_size = PAGE_SIZE << (size & drhd::SIZE_MASK);
    register_base.checked_add(register_size).ok_or(StructureErrorKind::RegisterWindowWraps { base })?;
    Ok(Drhd { offset, flags, segment, register_base, register_size, scopes })
}

fn parse_rmrr(bytes: &[u8], offset: usize) -> Result<Rmrr<'_>, StructureErrorKind> {
    let too_short = StructureErrorKind::TooShort { minimum: rmrr::SCOPES };
    let scopes = long_enough(bytes, rmrr::SCOPES, offset)?;
    let segment = u16_at(bytes, rmrr::SEGMENT).ok_or(too_short)?;
    let base = u64_at(bytes, rmrr::BASE).ok_or(too_short)?;
    let limit = u64_at(bytes, rmrr::LIMIT).ok_or(too_short)?;
    if limit < base {
        return Err(StructureErrorKind::RegionLimitBelowBase { base, limit });
    }
    if !base.is_multiple_of(PAGE_SIZE) || limit % PAGE_SIZE != PAGE_SIZE - 1 {
        return Err(StructureErrorKind::RegionUnaligned { base, limit });
    }
    Ok(Rmrr { offset, segment, base: HostPhys::new(base), limit: HostPhys::new(limit), scopes })
}

fn parse_rhsa(bytes: &[u8], offset: usize) -> Result<Rhsa, StructureErrorKind> {
    let too_short = StructureErrorKind::TooShort { minimum: rhsa::LENGTH };
    let base = u64_at(bytes, rhsa::REGISTER_BASE).ok_or(too_short)?;
    let proximity_domain = u32_at(bytes, rhsa::PROXIMITY_DOMAIN).ok_or(too_short)?;
    Ok(Rhsa { offset, register_base: checked_register_base(base)?, proximity_domain })
}

fn checked_register_base(base: u64) -> Result<HostPhys, StructureErrorKind> {
    if base == 0 {
        return Err(StructureErrorKind::RegisterBaseZero);
    }
    if !base.is_multiple_of(PAGE_SIZE) {
        return Err(StructureErrorKind::RegisterBaseUnaligned { base });
    }
    Ok(HostPhys::new(base))
}
