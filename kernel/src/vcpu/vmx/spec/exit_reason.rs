//! Why a guest exited: basic exit reasons (SDM vol. 3, appendix C). New processors have new ones, so this is a number
//! with names, not an enumeration.

/// The exit-reason field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct ExitReason(pub u32);

impl ExitReason {
    /// The basic exit reason, bits 15:0.
    pub const fn basic(self) -> u16 {
        self.0 as u16
    }

    /// Bit 31: the entry failed after the processor had begun to load the guest's state.
    pub const fn is_entry_failure(self) -> bool {
        self.0 >> 31 != 0
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        $($(#[$doc])* pub const $name: u16 = $value;)*
    };
}

reasons! {
    /// An exception that the exception bitmap names, or an NMI.
    EXCEPTION_OR_NMI = 0;
    /// A physical interrupt.
    EXTERNAL_INTERRUPT = 1;
    /// Triple fault.
    TRIPLE_FAULT = 2;
    /// INIT signal.
    INIT = 3;
    /// SMI after an I/O instruction.
    IO_SMI = 5;
    /// Another SMI.
    OTHER_SMI = 6;
    /// The guest can take an interrupt.
    INTERRUPT_WINDOW = 7;
    /// The guest can take an NMI.
    NMI_WINDOW = 8;
    /// Task switch.
    TASK_SWITCH = 9;
    /// CPUID.
    CPUID = 10;
    /// GETSEC.
    GETSEC = 11;
    /// HLT.
    HLT = 12;
    /// INVD.
    INVD = 13;
    /// RDPMC.
    RDPMC = 15;
    /// RSM.
    RSM = 17;
    /// VMCALL.
    VMCALL = 18;
    /// VMCLEAR; up to 27, VMXON, the extension's own instructions.
    VMCLEAR = 19;
    /// VMXON.
    VMXON = 27;
    /// Access to a control register.
    CONTROL_REGISTER = 28;
    /// IN, OUT, INS, OUTS.
    IO = 30;
    /// RDMSR.
    RDMSR = 31;
    /// WRMSR.
    WRMSR = 32;
    /// Entry failure: the guest's state breaks a rule.
    INVALID_GUEST_STATE = 33;
    /// Entry failure: a register of the MSR-load area could not be loaded.
    MSR_LOADING = 34;
    /// MWAIT.
    MWAIT = 36;
    /// MONITOR.
    MONITOR = 39;
    /// Entry failure: a machine check while entering.
    MACHINE_CHECK_AT_ENTRY = 41;
    /// The task priority fell below the threshold.
    TPR_BELOW_THRESHOLD = 43;
    /// An end of interrupt for a vector of the EOI-exit bitmap.
    VIRTUALIZED_EOI = 45;
    /// EPT violation.
    EPT_VIOLATION = 48;
    /// EPT misconfiguration.
    EPT_MISCONFIGURATION = 49;
    /// INVEPT.
    INVEPT = 50;
    /// The VMX-preemption timer is at zero.
    PREEMPTION_TIMER_EXPIRED = 52;
    /// INVVPID.
    INVVPID = 53;
    /// XSETBV.
    XSETBV = 55;
    /// A write to the virtual-APIC page that the processor does not complete.
    APIC_WRITE = 56;
    /// INVPCID.
    INVPCID = 58;
    /// VMFUNC.
    VMFUNC = 59;
    /// ENCLS.
    ENCLS = 60;
    /// XSAVES.
    XSAVES = 63;
    /// XRSTORS.
    XRSTORS = 64;
    /// PCONFIG.
    PCONFIG = 65;
    /// UMWAIT.
    UMWAIT = 67;
    /// TPAUSE.
    TPAUSE = 68;
    /// LOADIWKEY.
    LOADIWKEY = 69;
    /// ENCLV.
    ENCLV = 70;
}
