//! How a virtual CPU begins.

use crate::vcpu::{DescriptorTable, Registers, Segment, SegmentAttributes};

/// The ways in which a virtual CPU can begin to execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// As a boot loader leaves it to a kernel (PVH, Multiboot): 32-bit protected mode with flat segments, paging off.
    Protected {
        /// Guest-physical address of the entry point.
        entry: u32,
        /// EAX.
        rax: u32,
        /// EBX: guest-physical address of what the loader tells.
        information: u32,
    },
    /// As the Linux boot protocol's 64-bit entry wants it: 64-bit mode with flat segments of a table in memory.
    Long {
        /// Guest-physical address of the entry point, which the page tables map to itself.
        entry: u64,
        /// RSI: guest-physical address of what the loader tells.
        information: u64,
        /// CR3: the page tables.
        page_tables: u64,
        /// GDTR's base: a table in which [`LONG_CODE_SELECTOR`] and [`LONG_DATA_SELECTOR`] are 64-bit code and flat data.
        descriptor_table: u64,
        /// GDTR's limit.
        descriptor_table_limit: u16,
    },
    /// In real mode after a start-up inter-processor interrupt: at the 4 KiB page with the number `vector`.
    StartupInterrupt {
        /// The vector of the start-up interrupt: CS base = `vector` * 4096.
        vector: u8,
    },
}

/// The architectural state at the beginning, for an engine to put into its own form. What is not here is as after
/// reset (CR2, CR3 and the machine registers zero, DR6 = FFFF_0FF0h, DR7 = 400h, PAT = 0007_0406_0007_0406h).
#[derive(Clone, Copy, Debug)]
pub struct InitialState {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
    /// RFLAGS: interrupts disabled.
    pub rflags: u64,
    /// RIP.
    pub rip: u64,
    /// The general-purpose registers.
    pub registers: Registers,
    /// CS.
    pub code: Segment,
    /// SS, DS, ES, FS and GS.
    pub data: Segment,
    /// TR: a busy task state segment, as VM entry wants one even where there is none.
    pub task: Segment,
    /// LDTR.
    pub local_table: Segment,
    /// GDTR.
    pub global_table: DescriptorTable,
    /// IDTR.
    pub interrupt_table: DescriptorTable,
}

/// CS of a [long start](Start::Long), and the place of its descriptor: `__BOOT_CS` of the Linux boot protocol.
pub const LONG_CODE_SELECTOR: u16 = 0x10;
/// SS, DS and ES of a [long start](Start::Long): `__BOOT_DS`.
pub const LONG_DATA_SELECTOR: u16 = 0x18;

/// CR0.PE.
const PROTECTION_ENABLE: u64 = 1;
/// CR0.ET: always one.
const EXTENSION_TYPE: u64 = 1 << 4;
/// CR0.NW and CR0.CD, as set by reset and INIT.
const NOT_WRITE_THROUGH: u64 = 1 << 29;
const CACHE_DISABLE: u64 = 1 << 30;
/// CR0.PG.
const PAGING: u64 = 1 << 31;
/// CR4.PAE.
const PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
/// EFER.LME and EFER.LMA.
const LONG_MODE: u64 = 1 << 8 | 1 << 10;
/// RFLAGS bit 1: always one.
const RFLAGS_ONE: u64 = 1 << 1;
/// The limit of a 32-bit task state segment, which stands where there is none: "TR: base of '0' and limit of '0x67'",
/// says the PVH start ABI.
const TASK_LIMIT: u32 = 0x67;

impl Start {
    /// The state that this start means. Selectors of a protected start are 0: its segments are in no table, and the
    /// guest must load a table of its own before it loads a segment register.
    pub fn initial_state(self) -> InitialState {
        match self {
            Start::Protected { entry, rax, information } => InitialState {
                cr0: PROTECTION_ENABLE | EXTENSION_TYPE,
                rip: entry.into(),
                registers: Registers { rax: rax.into(), rbx: information.into(), ..Default::default() },
                code: Segment::flat(0, SegmentAttributes::CODE_32),
                data: Segment::flat(0, SegmentAttributes::DATA_32),
                task: Segment { limit: TASK_LIMIT, ..Segment::flat(0, SegmentAttributes::BUSY_TASK_32) },
                local_table: Segment { limit: 0, ..Segment::flat(0, SegmentAttributes::LOCAL_DESCRIPTOR_TABLE) },
                ..RESET
            },
            Start::Long { entry, information, page_tables, descriptor_table, descriptor_table_limit } => InitialState {
                cr0: PROTECTION_ENABLE | EXTENSION_TYPE | PAGING,
                cr3: page_tables,
                cr4: PHYSICAL_ADDRESS_EXTENSION,
                efer: LONG_MODE,
                rip: entry,
                registers: Registers { rsi: information, ..Default::default() },
                code: Segment::flat(LONG_CODE_SELECTOR, SegmentAttributes::CODE_64),
                data: Segment::flat(LONG_DATA_SELECTOR, SegmentAttributes::DATA_32),
                task: Segment { limit: TASK_LIMIT, ..Segment::flat(0, SegmentAttributes::BUSY_TASK_32) },
                local_table: Segment { limit: 0, ..Segment::flat(0, SegmentAttributes::LOCAL_DESCRIPTOR_TABLE) },
                global_table: DescriptorTable { base: descriptor_table, limit: descriptor_table_limit },
                ..RESET
            },
            Start::StartupInterrupt { vector } => InitialState {
                code: Segment::real(u16::from(vector) << 8, SegmentAttributes::CODE_16),
                global_table: DescriptorTable { base: 0, limit: 0xffff },
                interrupt_table: DescriptorTable { base: 0, limit: 0xffff },
                ..RESET
            },
        }
    }
}

/// As after INIT, but for CS and for the tables, which begin empty.
const RESET: InitialState = InitialState {
    cr0: CACHE_DISABLE | NOT_WRITE_THROUGH | EXTENSION_TYPE,
    cr3: 0,
    cr4: 0,
    efer: 0,
    rflags: RFLAGS_ONE,
    rip: 0,
    registers: Registers::ZERO,
    code: Segment::real(0, SegmentAttributes::CODE_16),
    data: Segment::real(0, SegmentAttributes::DATA_16),
    task: Segment { limit: 0xffff, ..Segment::flat(0, SegmentAttributes::BUSY_TASK_32) },
    local_table: Segment { limit: 0xffff, ..Segment::flat(0, SegmentAttributes::LOCAL_DESCRIPTOR_TABLE) },
    global_table: DescriptorTable { base: 0, limit: 0 },
    interrupt_table: DescriptorTable { base: 0, limit: 0 },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protected_start_is_flat_with_the_information_in_ebx() {
        let state = Start::Protected { entry: 0x20_0000, rax: 7, information: 0x9000 }.initial_state();
        assert_eq!((state.cr0, state.rip, state.rflags), (0x11, 0x20_0000, 2));
        assert_eq!((state.registers.rax, state.registers.rbx), (7, 0x9000));
        assert_eq!((state.code.base, state.code.limit, state.data.limit), (0, u32::MAX, u32::MAX));
        assert!(state.code.attributes.default_big() && !state.code.attributes.long());
        assert_eq!(state.task.limit, 0x67);
    }

    #[test]
    fn a_long_start_is_in_64_bit_mode_with_the_information_in_rsi() {
        let start = Start::Long {
            entry: 0x100_0200,
            information: 0x7000,
            page_tables: 0x9000,
            descriptor_table: 0x6000,
            descriptor_table_limit: 0x1f,
        };
        let state = start.initial_state();
        assert_eq!((state.cr0, state.cr3, state.cr4, state.efer), (0x8000_0011, 0x9000, 0x20, 0x500));
        assert_eq!((state.rip, state.registers.rsi, state.rflags), (0x100_0200, 0x7000, 2));
        assert!(state.code.attributes.long() && !state.code.attributes.default_big());
        assert_eq!((state.code.selector, state.data.selector), (0x10, 0x18));
        assert_eq!((state.global_table.base, state.global_table.limit, state.interrupt_table.limit), (0x6000, 0x1f, 0));
    }

    #[test]
    fn a_startup_interrupt_begins_at_its_page_in_real_mode() {
        let state = Start::StartupInterrupt { vector: 0x9a }.initial_state();
        assert_eq!((state.code.selector, state.code.base, state.rip), (0x9a00, 0x9a000, 0));
        assert_eq!(state.cr0 & PROTECTION_ENABLE, 0);
    }
}
