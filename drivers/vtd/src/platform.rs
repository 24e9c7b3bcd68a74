//! What firmware demands of whoever takes the machine over.

/// What the machine's firmware demands, by the flags of its DMAR table (section 8.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Platform {
    /// DMA_CTRL_PLATFORM_OPT_IN_FLAG: firmware has held DMA back from the start and asks for no moment without.
    /// [`Handover::Stop`](crate::Handover::Stop) of a unit that translates is refused, and of one that does not, its regions are closed.
    pub dma_control_opt_in: bool,
    /// X2APIC_OPT_OUT: the processors are not to be in x2APIC mode. An interrupt table for it is refused.
    pub x2apic_opt_out: bool,
}
