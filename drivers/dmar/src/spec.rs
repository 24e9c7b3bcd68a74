//! Layout of the DMAR table and of its structures: offsets and lengths in bytes (VT-d specification, chapter 8).
//! No logic.

/// The table's header (section 8.1; the first 36 bytes are those of every ACPI table).
pub(crate) mod table {
    /// 4 bytes: "DMAR".
    pub(crate) const SIGNATURE: usize = 0;
    /// 4 bytes: the whole table's length.
    pub(crate) const LENGTH: usize = 4;
    /// 1 byte: 1 or 2 on real machines.
    pub(crate) const REVISION: usize = 8;
    /// 6 bytes.
    pub(crate) const OEM_ID: usize = 10;
    /// 8 bytes.
    pub(crate) const OEM_TABLE_ID: usize = 16;
    /// 1 byte: DMA address bits minus one.
    pub(crate) const HOST_ADDRESS_WIDTH: usize = 36;
    /// 1 byte: see the `FLAG_` constants.
    pub(crate) const FLAGS: usize = 37;
    /// Where the remapping structures begin.
    pub(crate) const STRUCTURES: usize = 48;

    /// INTR_REMAP: the platform supports interrupt remapping.
    pub(crate) const FLAG_INTR_REMAP: u8 = 1 << 0;
    /// X2APIC_OPT_OUT: firmware asks that x2APIC mode stays off; meaningful only with INTR_REMAP.
    pub(crate) const FLAG_X2APIC_OPT_OUT: u8 = 1 << 1;
    /// DMA_CTRL_PLATFORM_OPT_IN_FLAG: firmware left no way to do DMA around the remapping units.
    pub(crate) const FLAG_DMA_CTRL_PLATFORM_OPT_IN: u8 = 1 << 2;
}

/// What every remapping structure begins with (section 8.2).
pub(crate) mod structure {
    /// 2 bytes: one of the `TYPE_` constants.
    pub(crate) const TYPE: usize = 0;
    /// 2 bytes: the structure's length with this header.
    pub(crate) const LENGTH: usize = 2;
    /// Length of type and length.
    pub(crate) const HEADER: usize = 4;

    /// DMA Remapping Hardware Unit Definition, section 8.3.
    pub(crate) const TYPE_DRHD: u16 = 0;
    /// Reserved Memory Region Reporting, section 8.4.
    pub(crate) const TYPE_RMRR: u16 = 1;
    /// Root Port ATS Capability Reporting, section 8.5.
    pub(crate) const TYPE_ATSR: u16 = 2;
    /// Remapping Hardware Static Affinity, section 8.6.
    pub(crate) const TYPE_RHSA: u16 = 3;
    /// ACPI Name-space Device Declaration, section 8.7.
    pub(crate) const TYPE_ANDD: u16 = 4;
    /// SoC Integrated Address Translation Cache, section 8.8.
    pub(crate) const TYPE_SATC: u16 = 5;
    /// SoC Integrated Device Property, section 8.9.
    pub(crate) const TYPE_SIDP: u16 = 6;
}

/// Section 8.3.
pub(crate) mod drhd {
    /// 1 byte; bit 0 is INCLUDE_PCI_ALL.
    pub(crate) const FLAGS: usize = 4;
    pub(crate) const FLAG_INCLUDE_PCI_ALL: u8 = 1 << 0;
    /// 1 byte; bits 3:0 are N, and the register window is 2^N pages of 4 KiB.
    pub(crate) const SIZE: usize = 5;
    pub(crate) const SIZE_MASK: u8 = 0xf;
    /// 2 bytes.
    pub(crate) const SEGMENT: usize = 6;
    /// 8 bytes.
    pub(crate) const REGISTER_BASE: usize = 8;
    pub(crate) const SCOPES: usize = 16;
}

/// Section 8.4.
pub(crate) mod rmrr {
    /// 2 bytes.
    pub(crate) const SEGMENT: usize = 6;
    /// 8 bytes.
    pub(crate) const BASE: usize = 8;
    /// 8 bytes: the region's last byte.
    pub(crate) const LIMIT: usize = 16;
    pub(crate) const SCOPES: usize = 24;
}

/// Section 8.5.
pub(crate) mod atsr {
    /// 1 byte; bit 0 is ALL_PORTS.
    pub(crate) const FLAGS: usize = 4;
    pub(crate) const FLAG_ALL_PORTS: u8 = 1 << 0;
    /// 2 bytes.
    pub(crate) const SEGMENT: usize = 6;
    pub(crate) const SCOPES: usize = 8;
}

/// Section 8.6.
pub(crate) mod rhsa {
    /// 8 bytes: the register base of the unit that this is about.
    pub(crate) const REGISTER_BASE: usize = 8;
    /// 4 bytes.
    pub(crate) const PROXIMITY_DOMAIN: usize = 16;
    pub(crate) const LENGTH: usize = 20;
}

/// Section 8.7.
pub(crate) mod andd {
    /// 1 byte: what the device scopes of type 5 call enumeration id.
    pub(crate) const DEVICE_NUMBER: usize = 7;
    /// The ACPI path, ended by a NUL.
    pub(crate) const NAME: usize = 8;
}

/// Section 8.8.
pub(crate) mod satc {
    /// 1 byte; bit 0 is ATC_REQUIRED.
    pub(crate) const FLAGS: usize = 4;
    pub(crate) const FLAG_ATC_REQUIRED: u8 = 1 << 0;
    /// 2 bytes.
    pub(crate) const SEGMENT: usize = 6;
    pub(crate) const SCOPES: usize = 8;
}

/// Section 8.9.
pub(crate) mod sidp {
    /// 2 bytes.
    pub(crate) const SEGMENT: usize = 6;
    pub(crate) const SCOPES: usize = 8;
}

/// Device scope, section 8.3.1.
pub(crate) mod scope {
    /// 1 byte: one of the `TYPE_` constants.
    pub(crate) const TYPE: usize = 0;
    /// 1 byte: the scope's length with this header and the path.
    pub(crate) const LENGTH: usize = 1;
    /// 1 byte: properties, defined only inside a SIDP.
    pub(crate) const FLAGS: usize = 2;
    /// 1 byte: I/O APIC id, HPET number or ANDD device number, by type.
    pub(crate) const ENUMERATION_ID: usize = 4;
    /// 1 byte.
    pub(crate) const START_BUS: usize = 5;
    /// Pairs of device and function, one byte each, up to the scope's length.
    pub(crate) const PATH: usize = 6;
    /// Length of one pair.
    pub(crate) const HOP: usize = 2;

    pub(crate) const TYPE_PCI_ENDPOINT: u8 = 1;
    pub(crate) const TYPE_PCI_SUB_HIERARCHY: u8 = 2;
    pub(crate) const TYPE_IOAPIC: u8 = 3;
    pub(crate) const TYPE_MSI_CAPABLE_HPET: u8 = 4;
    pub(crate) const TYPE_ACPI_NAMESPACE_DEVICE: u8 = 5;
}
