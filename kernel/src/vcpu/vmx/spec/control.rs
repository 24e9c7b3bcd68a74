//! The controls (SDM vol. 3, 25.6.1, 25.6.2, 25.7.1 and 25.8.1). Their names are printed where one is missing.

bitflags::bitflags! {
    /// Pin-based controls: what interrupts the guest.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PinBased: u32 {
        /// Physical interrupts exit.
        const EXTERNAL_INTERRUPT_EXITING = 1 << 0;
        /// Physical NMIs exit.
        const NMI_EXITING = 1 << 3;
        /// The guest's blocking of NMIs is its own.
        const VIRTUAL_NMIS = 1 << 5;
        /// The VMX-preemption timer counts.
        const ACTIVATE_PREEMPTION_TIMER = 1 << 6;
        /// The notification vector is processed without an exit.
        const PROCESS_POSTED_INTERRUPTS = 1 << 7;
    }
}

bitflags::bitflags! {
    /// Primary processor-based controls: which instructions exit.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Primary: u32 {
        /// Exit when the guest can take an interrupt.
        const INTERRUPT_WINDOW_EXITING = 1 << 2;
        /// The TSC offset is added.
        const USE_TSC_OFFSETTING = 1 << 3;
        /// HLT exits.
        const HLT_EXITING = 1 << 7;
        /// INVLPG exits.
        const INVLPG_EXITING = 1 << 9;
        /// MWAIT exits.
        const MWAIT_EXITING = 1 << 10;
        /// RDPMC exits.
        const RDPMC_EXITING = 1 << 11;
        /// RDTSC exits.
        const RDTSC_EXITING = 1 << 12;
        /// MOV to CR3 exits.
        const CR3_LOAD_EXITING = 1 << 15;
        /// MOV from CR3 exits.
        const CR3_STORE_EXITING = 1 << 16;
        /// There are tertiary controls.
        const ACTIVATE_TERTIARY_CONTROLS = 1 << 17;
        /// MOV to CR8 exits.
        const CR8_LOAD_EXITING = 1 << 19;
        /// MOV from CR8 exits.
        const CR8_STORE_EXITING = 1 << 20;
        /// CR8 is in the virtual-APIC page.
        const USE_TPR_SHADOW = 1 << 21;
        /// Exit when the guest can take an NMI.
        const NMI_WINDOW_EXITING = 1 << 22;
        /// MOV to and from debug registers exits.
        const MOV_DR_EXITING = 1 << 23;
        /// Every I/O instruction exits.
        const UNCONDITIONAL_IO_EXITING = 1 << 24;
        /// The I/O bitmaps say which ports exit.
        const USE_IO_BITMAPS = 1 << 25;
        /// A debug exception after each instruction.
        const MONITOR_TRAP_FLAG = 1 << 27;
        /// The MSR bitmaps say which registers exit.
        const USE_MSR_BITMAPS = 1 << 28;
        /// MONITOR exits.
        const MONITOR_EXITING = 1 << 29;
        /// PAUSE exits.
        const PAUSE_EXITING = 1 << 30;
        /// There are secondary controls.
        const ACTIVATE_SECONDARY_CONTROLS = 1 << 31;
    }
}

bitflags::bitflags! {
    /// Secondary processor-based controls.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Secondary: u32 {
        /// Accesses to the APIC-access page are virtualized.
        const VIRTUALIZE_APIC_ACCESSES = 1 << 0;
        /// Extended page tables.
        const ENABLE_EPT = 1 << 1;
        /// The APIC's model-specific registers are virtualized.
        const VIRTUALIZE_X2APIC_MODE = 1 << 4;
        /// Virtual-processor identifiers.
        const ENABLE_VPID = 1 << 5;
        /// Real mode and unpaged protected mode.
        const UNRESTRICTED_GUEST = 1 << 7;
        /// The processor reads and writes the APIC's registers in the virtual-APIC page.
        const APIC_REGISTER_VIRTUALIZATION = 1 << 8;
        /// The processor evaluates and delivers virtual interrupts.
        const VIRTUAL_INTERRUPT_DELIVERY = 1 << 9;
    }
}

bitflags::bitflags! {
    /// VM-exit controls.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ExitControls: u32 {
        /// DR7 and IA32_DEBUGCTL are stored.
        const SAVE_DEBUG_CONTROLS = 1 << 2;
        /// The host is in 64-bit mode.
        const HOST_ADDRESS_SPACE_SIZE = 1 << 9;
        /// The interrupt that exited is acknowledged, and its vector stored.
        const ACKNOWLEDGE_INTERRUPT_ON_EXIT = 1 << 15;
        /// IA32_PAT is stored.
        const SAVE_PAT = 1 << 18;
        /// The host's IA32_PAT is loaded.
        const LOAD_PAT = 1 << 19;
        /// IA32_EFER is stored.
        const SAVE_EFER = 1 << 20;
        /// The host's IA32_EFER is loaded.
        const LOAD_EFER = 1 << 21;
        /// The preemption timer's value is stored.
        const SAVE_PREEMPTION_TIMER = 1 << 22;
    }
}

bitflags::bitflags! {
    /// VM-entry controls.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EntryControls: u32 {
        /// DR7 and IA32_DEBUGCTL are loaded.
        const LOAD_DEBUG_CONTROLS = 1 << 2;
        /// The guest is in IA-32e mode.
        const IA32E_MODE_GUEST = 1 << 9;
        /// Entry to system-management mode.
        const ENTRY_TO_SMM = 1 << 10;
        /// IA32_PAT is loaded.
        const LOAD_PAT = 1 << 14;
        /// IA32_EFER is loaded.
        const LOAD_EFER = 1 << 15;
    }
}
