//! What the specification forbids to software and hardware need not survive.

/// One thing that software did and must not do. The unit goes on as harmlessly as it can; a test looks at the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// An access that is not aligned, not of 4 or 8 bytes, or 8 bytes wide on a 4-byte register (11.2).
    RegisterAccess {
        /// Offset of the access.
        offset: u16,
        /// Its width in bytes.
        width: u8,
    },
    /// A write to GCMD that changes more than one field (11.4.4.1): bits that changed.
    SeveralCommands(u32),
    /// A command (GCMD, CCMD, IOTLB) given while the previous one in the same register is in progress: the offset.
    CommandInProgress(u16),
    /// CCMD or IOTLB used while queued invalidation is on (6.5.1): the offset.
    RegisterInvalidationWithQueue(u16),
    /// GCMD.TE set with no root table set by SRTP before (11.4.4.1).
    TranslationWithoutRootTable,
    /// GCMD.IRE set with no interrupt-remapping table set by SIRTP before (11.4.4.1).
    RemappingWithoutTable,
    /// GCMD.IRE set while queued invalidation was off: the interrupt entry cache cannot be invalidated (6.5.2).
    RemappingWithoutQueue,
    /// GCMD.QIE set with IQT not 0, or cleared with descriptors left in the queue (6.5.2).
    QueueNotEmpty,
    /// IQA written while the queue is on (11.4.9.3), or a protected region while it is on (11.4.8): the offset.
    RegisterLocked(u16),
    /// A GCMD bit or a register for a capability that CAP and ECAP do not report: the offset.
    NotSupported(u16),
    /// A present context entry with domain id 0 while CAP.CM=1, which reserves it (6.1): the source-id.
    DomainZero(u16),
    /// Two present context entries of one domain id with different page tables, or in scalable mode two PASID table
    /// entries that would be cached under one tag (6.2.1): the domain id.
    DomainWithTwoTables(u16),
    /// SRTP with another translation-table mode (RTADDR.TTM) than before while translation is on (11.4.5).
    TableModeChanged,
    /// A pass-through context entry whose AW is not the largest that the unit has (9.3): the source-id.
    PassThroughWidth(u16),
    /// A global invalidation was due after SRTP or SIRTP (CAP.ESRTPS or CAP.ESIRTPS clear) and not made, contexts
    /// before pages, when TE or IRE was set (6.6): the offset of RTADDR or IRTA.
    InvalidationDue(u16),
}
