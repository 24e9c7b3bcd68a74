//! Device scopes: how a structure names devices (VT-d specification, section 8.3.1).

use core::fmt;

use crate::bytes::u8_at;
use crate::spec::scope;

/// What a device scope names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScopeType {
    /// A PCI endpoint.
    PciEndpoint,
    /// A PCI-PCI bridge and everything below it.
    PciSubHierarchy,
    /// An I/O APIC; the path gives the source-id of its interrupts.
    IoApic,
    /// An HPET that sends MSIs; the path gives the source-id of its interrupts.
    MsiCapableHpet,
    /// A device that an ANDD structure names; the path gives its requester id.
    AcpiNamespaceDevice,
    /// A type that this crate does not know.
    Unknown(u8),
}

/// Properties of a device in a SIDP structure (section 8.9). Without meaning in the other structures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SidpFlags(pub u8);

impl SidpFlags {
    /// Bit 0: requests without PASID must not use nested translation.
    pub fn nested_not_allowed(self) -> bool {
        self.0 & scope::FLAG_NESTED_NOT_ALLOWED != 0
    }

    /// Bit 1: the PASID table entry of requests without PASID must not set Page-Walk Snoop (PWSNP).
    pub fn page_walk_snoop_not_allowed(self) -> bool {
        self.0 & scope::FLAG_PAGE_WALK_SNOOP_NOT_ALLOWED != 0
    }

    /// Bit 2: the PASID table entry of requests without PASID must not set Page Snoop (PGSNP).
    pub fn page_snoop_not_allowed(self) -> bool {
        self.0 & scope::FLAG_PAGE_SNOOP_NOT_ALLOWED != 0
    }

    /// Bit 3: the device-TLB was hardened against a compromised driver.
    pub fn atc_hardened(self) -> bool {
        self.0 & scope::FLAG_ATC_HARDENED != 0
    }

    /// Bit 4: the device does not work unless its device-TLB is enabled.
    pub fn atc_required(self) -> bool {
        self.0 & scope::FLAG_ATC_REQUIRED != 0
    }
}

/// One device scope whose path is sound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceScope<'a> {
    /// Where the scope begins, in bytes from the table's start.
    pub offset: usize,
    /// What it names.
    pub scope_type: ScopeType,
    /// The flags byte; only a SIDP structure gives it meaning.
    pub flags: SidpFlags,
    /// For an I/O APIC its id, for an HPET its number, for an ACPI name-space device the ANDD's device number;
    /// otherwise without meaning.
    pub enumeration_id: u8,
    /// The bus that the path begins on.
    pub start_bus: u8,
    path: &'a [u8],
}

impl<'a> DeviceScope<'a> {
    /// The hops from the start bus to the device: (device 0 to 31, function 0 to 7), at least one.
    pub fn path(&self) -> Path<'a> {
        Path { bytes: self.path }
    }

    fn parse(bytes: &'a [u8], offset: usize) -> Result<Self, ScopeErrorKind> {
        let length = bytes.len();
        let short = ScopeErrorKind::TooShort { length };
        let path = bytes.get(scope::PATH..).filter(|path| path.len() >= scope::HOP).ok_or(short)?;
        if path.len() % scope::HOP != 0 {
            return Err(ScopeErrorKind::OddPath { length });
        }
        if let Some((device, function)) =
            (Path { bytes: path }).find(|(device, function)| *device > 31 || *function > 7)
        {
            return Err(ScopeErrorKind::NoSuchFunction { device, function });
        }
        Ok(Self {
            offset,
            scope_type: match u8_at(bytes, scope::TYPE).ok_or(short)? {
                scope::TYPE_PCI_ENDPOINT => ScopeType::PciEndpoint,
                scope::TYPE_PCI_SUB_HIERARCHY => ScopeType::PciSubHierarchy,
                scope::TYPE_IOAPIC => ScopeType::IoApic,
                scope::TYPE_MSI_CAPABLE_HPET => ScopeType::MsiCapableHpet,
                scope::TYPE_ACPI_NAMESPACE_DEVICE => ScopeType::AcpiNamespaceDevice,
                other => ScopeType::Unknown(other),
            },
            flags: SidpFlags(u8_at(bytes, scope::FLAGS).ok_or(short)?),
            enumeration_id: u8_at(bytes, scope::ENUMERATION_ID).ok_or(short)?,
            start_bus: u8_at(bytes, scope::START_BUS).ok_or(short)?,
            path,
        })
    }
}

/// The hops of a path; see [`DeviceScope::path`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Path<'a> {
    bytes: &'a [u8],
}

impl Iterator for Path<'_> {
    type Item = (u8, u8);

    fn next(&mut self) -> Option<(u8, u8)> {
        let (hop, rest) = self.bytes.split_first_chunk::<{ scope::HOP }>()?;
        self.bytes = rest;
        Some((hop[0], hop[1]))
    }
}

/// A device scope that cannot be read: nobody knows which device it names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScopeError {
    /// Where the scope begins, in bytes from the table's start.
    pub offset: usize,
    /// What is wrong.
    pub kind: ScopeErrorKind,
}

/// What is wrong with a device scope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScopeErrorKind {
    /// The scope has no complete header (6 bytes), by its length or because the structure ends: no scope after it can
    /// be found.
    HeaderCut {
        /// Bytes that there are, or that the length field gives.
        length: usize,
    },
    /// The scope reaches beyond the structure's end: no scope after it can be found.
    PastEnd {
        /// The length field, in bytes.
        length: usize,
        /// Bytes left in the structure.
        available: usize,
    },
    /// The scope has no room for one hop: below 8 bytes.
    TooShort {
        /// The length field, in bytes.
        length: usize,
    },
    /// The path is not a whole number of hops.
    OddPath {
        /// The length field, in bytes.
        length: usize,
    },
    /// A hop whose device is above 31 or whose function is above 7.
    NoSuchFunction {
        /// The device.
        device: u8,
        /// The function.
        function: u8,
    },
}

impl ScopeError {
    /// Whether no scope after this one can be found.
    pub fn ends_scopes(&self) -> bool {
        matches!(self.kind, ScopeErrorKind::HeaderCut { .. } | ScopeErrorKind::PastEnd { .. })
    }
}

impl fmt::Display for ScopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DMAR device scope at {:#x}: ", self.offset)?;
        match self.kind {
            ScopeErrorKind::HeaderCut { length } => write!(f, "{length} bytes cannot hold its header"),
            ScopeErrorKind::PastEnd { length, available } => {
                write!(f, "length {length}, but {available} bytes are left in the structure")
            }
            ScopeErrorKind::TooShort { length } => write!(f, "length {length} leaves no path"),
            ScopeErrorKind::OddPath { length } => write!(f, "length {length} leaves half a hop"),
            ScopeErrorKind::NoSuchFunction { device, function } => {
                write!(f, "no device {device:#x} or function {function:#x} exists")
            }
        }
    }
}

impl core::error::Error for ScopeError {}

/// The device scopes of one structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceScopes<'a> {
    bytes: &'a [u8],
    /// Where `bytes` begin, in bytes from the table's start.
    offset: usize,
}

impl<'a> DeviceScopes<'a> {
    pub(crate) fn new(bytes: &'a [u8], offset: usize) -> Self {
        Self { bytes, offset }
    }

    /// Whether the structure names nothing: not even a broken scope.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Every scope in order. One that cannot be read is an error by itself; one whose length cannot be trusted is the
    /// last item.
    pub fn iter(&self) -> DeviceScopeIter<'a> {
        DeviceScopeIter { scopes: *self }
    }
}

impl<'a> IntoIterator for DeviceScopes<'a> {
    type Item = Result<DeviceScope<'a>, ScopeError>;
    type IntoIter = DeviceScopeIter<'a>;

    fn into_iter(self) -> DeviceScopeIter<'a> {
        self.iter()
    }
}

/// The walk over a structure's device scopes; see [`DeviceScopes::iter`].
#[derive(Clone, Debug)]
pub struct DeviceScopeIter<'a> {
    /// The scopes that are left.
    scopes: DeviceScopes<'a>,
}

impl<'a> Iterator for DeviceScopeIter<'a> {
    type Item = Result<DeviceScope<'a>, ScopeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let DeviceScopes { bytes, offset } = self.scopes;
        if bytes.is_empty() {
            return None;
        }
        // Whatever is wrong with a length, the walk must not go on from it: 0 would be found here again for ever.
        self.scopes = DeviceScopes { bytes: &[], offset };
        let error = |kind| ScopeError { offset, kind };
        let Some(length) = u8_at(bytes, scope::LENGTH).filter(|_| bytes.len() >= scope::PATH) else {
            return Some(Err(error(ScopeErrorKind::HeaderCut { length: bytes.len() })));
        };
        let length = usize::from(length);
        if length < scope::PATH {
            return Some(Err(error(ScopeErrorKind::HeaderCut { length })));
        }
        let Some((scope, rest)) = bytes.split_at_checked(length) else {
            return Some(Err(error(ScopeErrorKind::PastEnd { length, available: bytes.len() })));
        };
        self.scopes = DeviceScopes { bytes: rest, offset: offset + length };
        Some(DeviceScope::parse(scope, offset).map_err(error))
    }
}

impl core::iter::FusedIterator for DeviceScopeIter<'_> {}
