//! Layout of the DMAR table and of its structures: offsets and lengths in bytes, fields little-endian (VT-d
//! specification, chapter 8). No logic.

/// The table's header (section 8.1; the first 36 bytes are those of every ACPI table).
pub mod table {
    /// 4 bytes: "DMAR".
    pub const SIGNATURE: usize = 0;
    /// 4 bytes: the whole table's length.
    pub const LENGTH: usize = 4;
    /// 1 byte: 1 or 2 on real machines.
    pub const REVISION: usize = 8;
    /// 1 byte: what makes the bytes of the whole table add up to 0, modulo 256.
    pub const CHECKSUM: usize = 9;
    /// 6 bytes.
    pub const OEM_ID: usize = 10;
    /// 8 bytes.
    pub const OEM_TABLE_ID: usize = 16;
    /// 4 bytes.
    pub const OEM_REVISION: usize = 24;
    /// 4 bytes: the vendor of the tool that made the table.
    pub const CREATOR_ID: usize = 28;
    /// 4 bytes: the revision of that tool.
    pub const CREATOR_REVISION: usize = 32;
    /// 1 byte: DMA address bits minus one.
    pub const HOST_ADDRESS_WIDTH: usize = 36;
    /// 1 byte: see the `FLAG_` constants.
    pub const FLAGS: usize = 37;
    /// Where the remapping structures begin.
    pub const STRUCTURES: usize = 48;

    /// INTR_REMAP: the platform supports interrupt remapping.
    pub const FLAG_INTR_REMAP: u8 = 0b001;
    /// X2APIC_OPT_OUT: firmware asks that x2APIC mode stays off; meaningful only with INTR_REMAP.
    pub const FLAG_X2APIC_OPT_OUT: u8 = 0b010;
    /// DMA_CTRL_PLATFORM_OPT_IN_FLAG: firmware left no way to do DMA around the remapping units.
    pub const FLAG_DMA_CTRL_PLATFORM_OPT_IN: u8 = 0b100;
}

/// What every remapping structure begins with (section 8.2).
pub mod structure {
    /// 2 bytes: one of the `TYPE_` constants.
    pub const TYPE: usize = 0;
    /// 2 bytes: the structure's length with this header.
    pub const LENGTH: usize = 2;
    /// Length of type and length.
    pub const HEADER: usize = 4;

    /// DMA Remapping Hardware Unit Definition, section 8.3.
    pub const TYPE_DRHD: u16 = 0;
    /// Reserved Memory Region Reporting, section 8.4.
    pub const TYPE_RMRR: u16 = 1;
    /// Root Port ATS Capability Reporting, section 8.5.
    pub const TYPE_ATSR: u16 = 2;
    /// Remapping Hardware Static Affinity, section 8.6.
    pub const TYPE_RHSA: u16 = 3;
    /// ACPI Name-space Device Declaration, section 8.7.
    pub const TYPE_ANDD: u16 = 4;
    /// SoC Integrated Address Translation Cache, section 8.8.
    pub const TYPE_SATC: u16 = 5;
    /// SoC Integrated Device Property, section 8.9.
    pub const TYPE_SIDP: u16 = 6;
}

/// DMA Remapping Hardware Unit Definition, section 8.3.
pub mod drhd {
    /// 1 byte; bit 0 is INCLUDE_PCI_ALL.
    pub const FLAGS: usize = 4;
    /// INCLUDE_PCI_ALL: the unit serves all of the segment's PCI devices that no other unit names.
    pub const FLAG_INCLUDE_PCI_ALL: u8 = 0b1;
    /// 1 byte; bits 3:0 are N, and the register window is 2^N pages of 4 KiB.
    pub const SIZE: usize = 5;
    /// N in [`SIZE`]; the bits above are reserved.
    pub const SIZE_MASK: u8 = 0xf;
    /// 2 bytes.
    pub const SEGMENT: usize = 6;
    /// 8 bytes.
    pub const REGISTER_BASE: usize = 8;
    /// Where the device scopes begin.
    pub const SCOPES: usize = 16;
}

/// Reserved Memory Region Reporting, section 8.4.
pub mod rmrr {
    /// 2 bytes.
    pub const RESERVED: usize = 4;
    /// 2 bytes.
    pub const SEGMENT: usize = 6;
    /// 8 bytes.
    pub const BASE: usize = 8;
    /// 8 bytes: the region's last byte.
    pub const LIMIT: usize = 16;
    /// Where the device scopes begin.
    pub const SCOPES: usize = 24;
}

/// Root Port ATS Capability Reporting, section 8.5.
pub mod atsr {
    /// 1 byte; bit 0 is ALL_PORTS.
    pub const FLAGS: usize = 4;
    /// ALL_PORTS: every root port of the segment.
    pub const FLAG_ALL_PORTS: u8 = 0b1;
    /// 1 byte.
    pub const RESERVED: usize = 5;
    /// 2 bytes.
    pub const SEGMENT: usize = 6;
    /// Where the device scopes begin.
    pub const SCOPES: usize = 8;
}

/// Remapping Hardware Static Affinity, section 8.6.
pub mod rhsa {
    /// 4 bytes.
    pub const RESERVED: usize = 4;
    /// 8 bytes: the register base of the unit that this is about.
    pub const REGISTER_BASE: usize = 8;
    /// 4 bytes.
    pub const PROXIMITY_DOMAIN: usize = 16;
    /// Length of the whole structure.
    pub const LENGTH: usize = 20;
}

/// ACPI Name-space Device Declaration, section 8.7.
pub mod andd {
    /// 3 bytes.
    pub const RESERVED: usize = 4;
    /// 1 byte: what the device scopes of type 5 call enumeration id.
    pub const DEVICE_NUMBER: usize = 7;
    /// The ACPI path, ended by a NUL.
    pub const NAME: usize = 8;
}

/// SoC Integrated Address Translation Cache, section 8.8.
pub mod satc {
    /// 1 byte; bit 0 is ATC_REQUIRED.
    pub const FLAGS: usize = 4;
    /// ATC_REQUIRED: the devices do not work unless their device-TLB is enabled.
    pub const FLAG_ATC_REQUIRED: u8 = 0b1;
    /// 1 byte.
    pub const RESERVED: usize = 5;
    /// 2 bytes.
    pub const SEGMENT: usize = 6;
    /// Where the device scopes begin.
    pub const SCOPES: usize = 8;
}

/// SoC Integrated Device Property, section 8.9.
pub mod sidp {
    /// 2 bytes.
    pub const RESERVED: usize = 4;
    /// 2 bytes.
    pub const SEGMENT: usize = 6;
    /// Where the device scopes begin.
    pub const SCOPES: usize = 8;
}

/// Device scope, section 8.3.1.
pub mod scope {
    /// 1 byte: one of the `TYPE_` constants.
    pub const TYPE: usize = 0;
    /// 1 byte: the scope's length with this header and the path.
    pub const LENGTH: usize = 1;
    /// 1 byte: properties, defined only inside a SIDP (section 8.9): see the `FLAG_` constants.
    pub const FLAGS: usize = 2;
    /// Requests without PASID must not use nested translation.
    pub const FLAG_NESTED_NOT_ALLOWED: u8 = 0b0_0001;
    /// PWSNP must not be set for requests without PASID.
    pub const FLAG_PAGE_WALK_SNOOP_NOT_ALLOWED: u8 = 0b0_0010;
    /// PGSNP must not be set for requests without PASID.
    pub const FLAG_PAGE_SNOOP_NOT_ALLOWED: u8 = 0b0_0100;
    /// The device-TLB was hardened against a compromised driver.
    pub const FLAG_ATC_HARDENED: u8 = 0b0_1000;
    /// The device does not work unless its device-TLB is enabled.
    pub const FLAG_ATC_REQUIRED: u8 = 0b1_0000;
    /// 1 byte: reserved; part of a 2-byte reserved field in older specifications.
    pub const RESERVED: usize = 3;
    /// 1 byte: I/O APIC id, HPET number or ANDD device number, by type.
    pub const ENUMERATION_ID: usize = 4;
    /// 1 byte.
    pub const START_BUS: usize = 5;
    /// Pairs of device and function, one byte each, up to the scope's length.
    pub const PATH: usize = 6;
    /// Length of one pair.
    pub const HOP: usize = 2;

    /// A PCI endpoint.
    pub const TYPE_PCI_ENDPOINT: u8 = 1;
    /// A PCI-PCI bridge and all that is below it.
    pub const TYPE_PCI_SUB_HIERARCHY: u8 = 2;
    /// An I/O APIC.
    pub const TYPE_IOAPIC: u8 = 3;
    /// A timer block that sends MSIs.
    pub const TYPE_MSI_CAPABLE_HPET: u8 = 4;
    /// A device that an ANDD names.
    pub const TYPE_ACPI_NAMESPACE_DEVICE: u8 = 5;
}
