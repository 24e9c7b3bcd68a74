//! Faults: what was asked, by whom, and why it was blocked (7.1).

/// What a request wanted of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// The device reads.
    Read,
    /// The device writes.
    Write,
}

/// A fault reason code (7.1, table of fault conditions).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Reason(pub u8);

impl Reason {
    /// Aborted without a record: not a code of the specification, which reserves 0.
    pub const ABORTED: Reason = Reason(0);
    /// The present bit of the root entry is clear.
    pub const ROOT_NOT_PRESENT: Reason = Reason(0x1);
    /// The present bit of the context entry is clear.
    pub const CONTEXT_NOT_PRESENT: Reason = Reason(0x2);
    /// AW or TT of the context entry is one that the unit has not.
    pub const CONTEXT_INVALID: Reason = Reason(0x3);
    /// The address is beyond the width of the domain or of the unit.
    pub const BEYOND_WIDTH: Reason = Reason(0x4);
    /// A write without write permission.
    pub const WRITE: Reason = Reason(0x5);
    /// A read without read permission.
    pub const READ: Reason = Reason(0x6);
    /// A paging entry could not be read.
    pub const PAGING_ACCESS: Reason = Reason(0x7);
    /// The root entry could not be read.
    pub const ROOT_ACCESS: Reason = Reason(0x8);
    /// The context entry could not be read.
    pub const CONTEXT_ACCESS: Reason = Reason(0x9);
    /// A reserved field of a present root entry is not 0.
    pub const ROOT_RESERVED: Reason = Reason(0xa);
    /// A reserved field of a present context entry is not 0.
    pub const CONTEXT_RESERVED: Reason = Reason(0xb);
    /// A reserved field of a present paging entry is not 0.
    pub const PAGING_RESERVED: Reason = Reason(0xc);
    /// A translation request or translated request of a device whose context does not let it through.
    pub const TRANSLATION_BLOCKED: Reason = Reason(0xd);
    /// The translated address lies in the interrupt range.
    pub const INTERRUPT_RANGE: Reason = Reason(0xe);
    /// Remappable interrupt request with a reserved field that is not 0.
    pub const INTERRUPT_RESERVED: Reason = Reason(0x20);
    /// Interrupt index beyond the table.
    pub const INDEX: Reason = Reason(0x21);
    /// The present bit of the interrupt-remapping entry is clear.
    pub const IRTE_NOT_PRESENT: Reason = Reason(0x22);
    /// The interrupt-remapping entry could not be read.
    pub const IRTE_ACCESS: Reason = Reason(0x23);
    /// A reserved field of a present interrupt-remapping entry is not 0.
    pub const IRTE_RESERVED: Reason = Reason(0x24);
    /// A compatibility-format interrupt while they are blocked.
    pub const COMPATIBILITY_BLOCKED: Reason = Reason(0x25);
    /// The source-id check failed.
    pub const SOURCE_ID: Reason = Reason(0x26);
    /// The posted-interrupt descriptor could not be read or written.
    pub const POSTED_ACCESS: Reason = Reason(0x27);
    /// A reserved field of the posted-interrupt descriptor is not 0.
    pub const POSTED_RESERVED: Reason = Reason(0x28);
    /// RTADDR.TTM names a mode that the unit has not.
    pub const TABLE_MODE: Reason = Reason(0x30);
    /// A request with PASID in legacy mode.
    pub const PASID_IN_LEGACY_MODE: Reason = Reason(0x31);
    /// Scalable mode: the root entry could not be read.
    pub const SCALABLE_ROOT_ACCESS: Reason = Reason(0x38);
    /// Scalable mode: the present bit of the root entry's half is clear.
    pub const SCALABLE_ROOT_NOT_PRESENT: Reason = Reason(0x39);
    /// Scalable mode: a reserved field of the present half of a root entry is not 0.
    pub const SCALABLE_ROOT_RESERVED: Reason = Reason(0x3a);
    /// Scalable mode: the context entry could not be read.
    pub const SCALABLE_CONTEXT_ACCESS: Reason = Reason(0x40);
    /// Scalable mode: the present bit of the context entry is clear.
    pub const SCALABLE_CONTEXT_NOT_PRESENT: Reason = Reason(0x41);
    /// Scalable mode: a reserved field of a present context entry is not 0.
    pub const SCALABLE_CONTEXT_RESERVED: Reason = Reason(0x42);
    /// A request with PASID where PASIDE of the context entry is clear.
    pub const PASID_DISABLED: Reason = Reason(0x45);
    /// A PASID beyond the directory or beyond what the unit has bits for.
    pub const PASID_BEYOND_DIRECTORY: Reason = Reason(0x46);
    /// RID_PASID is beyond the directory.
    pub const RID_PASID_BEYOND_DIRECTORY: Reason = Reason(0x48);
    /// The PASID directory entry could not be read.
    pub const PASID_DIRECTORY_ACCESS: Reason = Reason(0x50);
    /// The present bit of the PASID directory entry is clear.
    pub const PASID_DIRECTORY_NOT_PRESENT: Reason = Reason(0x51);
    /// A reserved field of a present PASID directory entry is not 0.
    pub const PASID_DIRECTORY_RESERVED: Reason = Reason(0x52);
    /// The PASID table entry could not be read.
    pub const PASID_TABLE_ACCESS: Reason = Reason(0x58);
    /// The present bit of the PASID table entry is clear.
    pub const PASID_NOT_PRESENT: Reason = Reason(0x59);
    /// A reserved field of a present PASID table entry is not 0.
    pub const PASID_RESERVED: Reason = Reason(0x5a);
    /// PGTT, AW or FSPM of a PASID table entry is one that the unit has not.
    pub const PASID_INVALID: Reason = Reason(0x5b);
    /// A supervisor request where SRE of the PASID table entry is clear.
    pub const SUPERVISOR: Reason = Reason(0x5d);
    /// A first-stage entry, not of the highest table, could not be read.
    pub const FIRST_STAGE_ACCESS: Reason = Reason(0x70);
    /// The present bit of a first-stage entry is clear.
    pub const FIRST_STAGE_ABSENT: Reason = Reason(0x71);
    /// A reserved field of a present first-stage entry is not 0.
    pub const FIRST_STAGE_RESERVED: Reason = Reason(0x72);
    /// An entry of the highest first-stage table could not be read.
    pub const FIRST_STAGE_ROOT_ACCESS: Reason = Reason(0x73);
    /// Nested: the address of a first-stage table is beyond the second stage.
    pub const FIRST_STAGE_BEYOND_WIDTH: Reason = Reason(0x74);
    /// Nested: the second stage does not let the highest first-stage table be read.
    pub const FIRST_STAGE_ROOT_READ: Reason = Reason(0x75);
    /// Nested: the second stage does not let a first-stage table be read.
    pub const FIRST_STAGE_READ: Reason = Reason(0x76);
    /// Nested: the second stage does not let accessed and dirty bits be written.
    pub const FIRST_STAGE_WRITE: Reason = Reason(0x77);
    /// Scalable mode: a second-stage entry, not of the highest table, could not be read.
    pub const SECOND_STAGE_ACCESS: Reason = Reason(0x78);
    /// Scalable mode: neither read nor write permission in the second stage.
    pub const SECOND_STAGE_ABSENT: Reason = Reason(0x79);
    /// Scalable mode: a reserved field of a present second-stage entry is not 0.
    pub const SECOND_STAGE_RESERVED: Reason = Reason(0x7a);
    /// Scalable mode: an entry of the highest second-stage table could not be read.
    pub const SECOND_STAGE_ROOT_ACCESS: Reason = Reason(0x7b);
    /// Accessed and dirty bits of a second-stage entry are to be set by walks that do not snoop.
    pub const SECOND_STAGE_UPDATE: Reason = Reason(0x7c);
    /// The address is not canonical for the first stage.
    pub const NOT_CANONICAL: Reason = Reason(0x80);
    /// A first-stage page for supervisor requests, and a request without that privilege.
    pub const FIRST_STAGE_USER: Reason = Reason(0x81);
    /// Pass-through in scalable mode: the address is beyond the host's width.
    pub const BEYOND_HOST_WIDTH: Reason = Reason(0x83);
    /// Scalable mode: the address is beyond the second stage.
    pub const SECOND_STAGE_BEYOND_WIDTH: Reason = Reason(0x84);
    /// Scalable mode: a write without write permission.
    pub const SCALABLE_WRITE: Reason = Reason(0x85);
    /// Scalable mode: a read without read permission.
    pub const SCALABLE_READ: Reason = Reason(0x86);
    /// Scalable mode: the translated address lies in the interrupt range.
    pub const SCALABLE_INTERRUPT_RANGE: Reason = Reason(0x87);
    /// Accessed and dirty bits of a first-stage entry are to be set by walks that do not snoop.
    pub const FIRST_STAGE_UPDATE: Reason = Reason(0x90);

    /// Whether FPD of a context, PASID directory, PASID table or interrupt-remapping entry can silence this reason
    /// ("qualified", 7.1).
    pub(crate) const fn qualified(self) -> bool {
        matches!(self.0, 0x2..=0x7 | 0xb..=0xe | 0x22 | 0x24 | 0x26..=0x28
            | 0x41..=0x48 | 0x51..=0x52 | 0x59..=0x5d | 0x70..=0x7d | 0x80..=0x87 | 0x90..=0x91)
    }
}

/// A blocked request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Why.
    pub reason: Reason,
    /// Whose request: the requester id.
    pub source: u16,
    /// The PASID that the request carried.
    pub pasid: Option<u32>,
    /// The page's address for DMA (bits 63:12 of what was asked), the interrupt index in bits 63:48 for interrupts.
    pub info: u64,
    /// What the request wanted; an interrupt request is a write.
    pub access: Access,
    /// FPD was set: nothing is recorded.
    pub silenced: bool,
}
