//! The fields of a virtual-machine control structure (SDM vol. 3, appendix B), each with the width that it has: a
//! value of another width does not compile, and neither does writing a field that only the processor writes.

use core::marker::PhantomData;

/// How wide a field is: bits 14:13 of its encoding.
pub trait Width: Copy {
    /// What bits 14:13 of the encoding are.
    const ENCODED: u32;
    /// A value of the field.
    type Value: Copy + Into<u64>;
    /// The field's value in what VMREAD gave.
    fn truncate(read: u64) -> Self::Value;
}

macro_rules! widths {
    ($($width:ty, $value:ty, $encoded:literal);* $(;)?) => {$(
        impl Width for $width {
            const ENCODED: u32 = $encoded;
            type Value = $value;
            fn truncate(read: u64) -> $value {
                read as $value
            }
        }
    )*};
}

/// As wide as a register: 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Natural;

widths!(u16, u16, 0; u64, u64, 1; u32, u32, 2; Natural, u64, 3);

/// Who writes a field: bits 11:10 of its encoding are 1 for those that only the processor writes.
pub trait Writability {
    /// Whether only the processor writes it.
    const READ_ONLY: bool;
}

/// A control, or state of the guest or the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writable;
/// What the processor says about an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOnly;

impl Writability for Writable {
    const READ_ONLY: bool = false;
}
impl Writability for ReadOnly {
    const READ_ONLY: bool = true;
}

/// A field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<W, A = Writable> {
    encoding: u32,
    kind: PhantomData<(W, A)>,
}

impl<W: Width, A: Writability> Field<W, A> {
    /// The field with `encoding`, which must have the width and the access that the type says.
    pub const fn new(encoding: u32) -> Self {
        assert!(encoding >> 13 & 3 == W::ENCODED, "the encoding is of another width");
        assert!((encoding >> 10 & 3 == 1) == A::READ_ONLY, "the encoding is of another access");
        assert!(encoding & 1 == 0 && encoding >> 15 == 0, "the encoding is of a field's upper half, or none");
        Self { encoding, kind: PhantomData }
    }

    /// What VMREAD and VMWRITE call it.
    pub const fn encoding(self) -> u32 {
        self.encoding
    }
}

macro_rules! fields {
    ($kind:ty: $($(#[$doc:meta])* $name:ident = $encoding:literal;)*) => {
        $($(#[$doc])* pub const $name: $kind = <$kind>::new($encoding);)*
    };
}

fields! { Field<u16>:
    /// The virtual-processor identifier; 0 is the host's.
    VIRTUAL_PROCESSOR_IDENTIFIER = 0x0000;
    /// The posted-interrupt notification vector.
    POSTED_INTERRUPT_NOTIFICATION_VECTOR = 0x0002;
    /// Guest interrupt status: RVI below, SVI above.
    GUEST_INTERRUPT_STATUS = 0x0810;
    /// Host ES selector.
    HOST_ES_SELECTOR = 0x0c00;
    /// Host CS selector.
    HOST_CS_SELECTOR = 0x0c02;
    /// Host SS selector.
    HOST_SS_SELECTOR = 0x0c04;
    /// Host DS selector.
    HOST_DS_SELECTOR = 0x0c06;
    /// Host FS selector.
    HOST_FS_SELECTOR = 0x0c08;
    /// Host GS selector.
    HOST_GS_SELECTOR = 0x0c0a;
    /// Host TR selector.
    HOST_TR_SELECTOR = 0x0c0c;
}

fields! { Field<u64>:
    /// Address of I/O bitmap A: ports 0 to 7FFFh.
    IO_BITMAP_A = 0x2000;
    /// Address of I/O bitmap B: ports 8000h to FFFFh.
    IO_BITMAP_B = 0x2002;
    /// Address of the MSR bitmaps.
    MSR_BITMAPS = 0x2004;
    /// Address of the VM-exit MSR-store area.
    EXIT_MSR_STORE_ADDRESS = 0x2006;
    /// Address of the VM-exit MSR-load area.
    EXIT_MSR_LOAD_ADDRESS = 0x2008;
    /// Address of the VM-entry MSR-load area.
    ENTRY_MSR_LOAD_ADDRESS = 0x200a;
    /// Added to the time-stamp counter that the guest reads.
    TSC_OFFSET = 0x2010;
    /// Address of the virtual-APIC page.
    VIRTUAL_APIC_ADDRESS = 0x2012;
    /// Address of the APIC-access page.
    APIC_ACCESS_ADDRESS = 0x2014;
    /// Address of the posted-interrupt descriptor.
    POSTED_INTERRUPT_DESCRIPTOR_ADDRESS = 0x2016;
    /// The extended-page-table pointer.
    EPT_POINTER = 0x201a;
    /// EOI-exit bitmap 0: vectors 0 to 63.
    EOI_EXIT_BITMAP_0 = 0x201c;
    /// EOI-exit bitmap 1.
    EOI_EXIT_BITMAP_1 = 0x201e;
    /// EOI-exit bitmap 2.
    EOI_EXIT_BITMAP_2 = 0x2020;
    /// EOI-exit bitmap 3.
    EOI_EXIT_BITMAP_3 = 0x2022;
    /// The VMCS link pointer: all ones without shadowing.
    VMCS_LINK_POINTER = 0x2800;
    /// Guest IA32_DEBUGCTL.
    GUEST_DEBUGCTL = 0x2802;
    /// Guest IA32_PAT.
    GUEST_PAT = 0x2804;
    /// Guest IA32_EFER.
    GUEST_EFER = 0x2806;
    /// Guest page-directory-pointer entries, for PAE paging.
    GUEST_PDPTE_0 = 0x280a;
    /// The second.
    GUEST_PDPTE_1 = 0x280c;
    /// The third.
    GUEST_PDPTE_2 = 0x280e;
    /// The fourth.
    GUEST_PDPTE_3 = 0x2810;
    /// Host IA32_PAT.
    HOST_PAT = 0x2c00;
    /// Host IA32_EFER.
    HOST_EFER = 0x2c02;
}

fields! { Field<u64, ReadOnly>:
    /// The guest-physical address of an EPT violation or misconfiguration.
    GUEST_PHYSICAL_ADDRESS = 0x2400;
}

fields! { Field<u32>:
    /// Pin-based controls.
    PIN_BASED_CONTROLS = 0x4000;
    /// Primary processor-based controls.
    PRIMARY_CONTROLS = 0x4002;
    /// Exceptions that exit, one bit a vector.
    EXCEPTION_BITMAP = 0x4004;
    /// Page-fault error-code mask.
    PAGE_FAULT_ERROR_CODE_MASK = 0x4006;
    /// Page-fault error-code match.
    PAGE_FAULT_ERROR_CODE_MATCH = 0x4008;
    /// How many values CR3 can take without an exit.
    CR3_TARGET_COUNT = 0x400a;
    /// VM-exit controls.
    EXIT_CONTROLS = 0x400c;
    /// How many registers exits store.
    EXIT_MSR_STORE_COUNT = 0x400e;
    /// How many registers exits load.
    EXIT_MSR_LOAD_COUNT = 0x4010;
    /// VM-entry controls.
    ENTRY_CONTROLS = 0x4012;
    /// How many registers entries load.
    ENTRY_MSR_LOAD_COUNT = 0x4014;
    /// The event that entry delivers, see [`interruption`](super::interruption).
    ENTRY_INTERRUPTION_INFORMATION = 0x4016;
    /// Its error code.
    ENTRY_EXCEPTION_ERROR_CODE = 0x4018;
    /// The length of the instruction that raised it, for software events.
    ENTRY_INSTRUCTION_LENGTH = 0x401a;
    /// TPR threshold.
    TPR_THRESHOLD = 0x401c;
    /// Secondary processor-based controls.
    SECONDARY_CONTROLS = 0x401e;
    /// Guest GDTR limit.
    GUEST_GDTR_LIMIT = 0x4810;
    /// Guest IDTR limit.
    GUEST_IDTR_LIMIT = 0x4812;
    /// Guest interruptibility state, see the constants below.
    GUEST_INTERRUPTIBILITY = 0x4824;
    /// Guest activity state: 0, active.
    GUEST_ACTIVITY = 0x4826;
    /// Guest IA32_SYSENTER_CS.
    GUEST_SYSENTER_CS = 0x482a;
    /// VMX-preemption timer value.
    PREEMPTION_TIMER = 0x482e;
    /// Host IA32_SYSENTER_CS.
    HOST_SYSENTER_CS = 0x4c00;
}

fields! { Field<u32, ReadOnly>:
    /// Why the last VMX instruction failed.
    INSTRUCTION_ERROR = 0x4400;
    /// Why the guest exited, see [`exit_reason`](super::exit_reason).
    EXIT_REASON = 0x4402;
    /// The event that exited, see [`interruption`](super::interruption).
    EXIT_INTERRUPTION_INFORMATION = 0x4404;
    /// Its error code.
    EXIT_INTERRUPTION_ERROR_CODE = 0x4406;
    /// The event whose delivery the exit interrupted.
    IDT_VECTORING_INFORMATION = 0x4408;
    /// Its error code.
    IDT_VECTORING_ERROR_CODE = 0x440a;
    /// The length of the instruction that exited.
    EXIT_INSTRUCTION_LENGTH = 0x440c;
}

fields! { Field<Natural>:
    /// CR0 bits that are the host's.
    CR0_MASK = 0x6000;
    /// CR4 bits that are the host's.
    CR4_MASK = 0x6002;
    /// What the guest reads of the host's CR0 bits.
    CR0_READ_SHADOW = 0x6004;
    /// What the guest reads of the host's CR4 bits.
    CR4_READ_SHADOW = 0x6006;
    /// Guest CR0.
    GUEST_CR0 = 0x6800;
    /// Guest CR3.
    GUEST_CR3 = 0x6802;
    /// Guest CR4.
    GUEST_CR4 = 0x6804;
    /// Guest GDTR base.
    GUEST_GDTR_BASE = 0x6816;
    /// Guest IDTR base.
    GUEST_IDTR_BASE = 0x6818;
    /// Guest DR7.
    GUEST_DR7 = 0x681a;
    /// Guest RSP.
    GUEST_RSP = 0x681c;
    /// Guest RIP.
    GUEST_RIP = 0x681e;
    /// Guest RFLAGS.
    GUEST_RFLAGS = 0x6820;
    /// Debug exceptions that wait to be delivered, see the constants below.
    GUEST_PENDING_DEBUG_EXCEPTIONS = 0x6822;
    /// Guest IA32_SYSENTER_ESP.
    GUEST_SYSENTER_ESP = 0x6824;
    /// Guest IA32_SYSENTER_EIP.
    GUEST_SYSENTER_EIP = 0x6826;
    /// Host CR0.
    HOST_CR0 = 0x6c00;
    /// Host CR3.
    HOST_CR3 = 0x6c02;
    /// Host CR4.
    HOST_CR4 = 0x6c04;
    /// Host FS base.
    HOST_FS_BASE = 0x6c06;
    /// Host GS base.
    HOST_GS_BASE = 0x6c08;
    /// Host TR base.
    HOST_TR_BASE = 0x6c0a;
    /// Host GDTR base.
    HOST_GDTR_BASE = 0x6c0c;
    /// Host IDTR base.
    HOST_IDTR_BASE = 0x6c0e;
    /// Host IA32_SYSENTER_ESP.
    HOST_SYSENTER_ESP = 0x6c10;
    /// Host IA32_SYSENTER_EIP.
    HOST_SYSENTER_EIP = 0x6c12;
    /// Host RSP.
    HOST_RSP = 0x6c14;
    /// Host RIP.
    HOST_RIP = 0x6c16;
}

fields! { Field<Natural, ReadOnly>:
    /// What else there is to say about the exit, see [`qualification`](super::qualification).
    EXIT_QUALIFICATION = 0x6400;
}

/// The four fields of a guest segment register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFields {
    /// The selector.
    pub selector: Field<u16>,
    /// The limit in bytes.
    pub limit: Field<u32>,
    /// The access rights, see the constants below.
    pub access_rights: Field<u32>,
    /// The base.
    pub base: Field<Natural>,
}

impl SegmentFields {
    /// Those of register `number`: ES, CS, SS, DS, FS, GS, LDTR, TR.
    const fn new(number: u32) -> Self {
        assert!(number < 8);
        Self {
            selector: Field::new(0x0800 + 2 * number),
            limit: Field::new(0x4800 + 2 * number),
            access_rights: Field::new(0x4814 + 2 * number),
            base: Field::new(0x6806 + 2 * number),
        }
    }
}

/// Guest ES.
pub const GUEST_ES: SegmentFields = SegmentFields::new(0);
/// Guest CS.
pub const GUEST_CS: SegmentFields = SegmentFields::new(1);
/// Guest SS.
pub const GUEST_SS: SegmentFields = SegmentFields::new(2);
/// Guest DS.
pub const GUEST_DS: SegmentFields = SegmentFields::new(3);
/// Guest FS.
pub const GUEST_FS: SegmentFields = SegmentFields::new(4);
/// Guest GS.
pub const GUEST_GS: SegmentFields = SegmentFields::new(5);
/// Guest LDTR.
pub const GUEST_LDTR: SegmentFields = SegmentFields::new(6);
/// Guest TR.
pub const GUEST_TR: SegmentFields = SegmentFields::new(7);

/// Access rights: the register was loaded with a null selector.
pub const ACCESS_RIGHTS_UNUSABLE: u32 = 1 << 16;

/// Interruptibility: one instruction more after STI, then interrupts.
pub const BLOCKING_BY_STI: u32 = 1 << 0;
/// Interruptibility: one instruction more after MOV or POP to SS.
pub const BLOCKING_BY_MOV_SS: u32 = 1 << 1;
/// Interruptibility: an NMI handler runs.
pub const BLOCKING_BY_NMI: u32 = 1 << 3;

/// Pending debug exceptions: a single step.
pub const PENDING_SINGLE_STEP: u64 = 1 << 14;
