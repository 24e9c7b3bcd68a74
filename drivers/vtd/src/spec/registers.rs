//! The register window of a remapping unit: offset, width and access of each register (section 11.4).
//!
//! Width and access are types, so that a 32-bit write to a 64-bit register, a write to a read-only register or a
//! read-modify-write of a write-1-to-clear register does not compile:
//!
//! ```compile_fail
//! # fn f<R: vtd::Registers>(window: &mut vtd::spec::registers::Window<R>) {
//! window.write(vtd::spec::registers::GSTS, 0u32); // the global status is read-only
//! # }
//! ```
//! ```compile_fail
//! # fn f<R: vtd::Registers>(window: &mut vtd::spec::registers::Window<R>) {
//! window.write(vtd::spec::registers::IQA, 0u32); // the queue address has 64 bits
//! # }
//! ```
//! ```compile_fail
//! # fn f<R: vtd::Registers>(window: &mut vtd::spec::registers::Window<R>) {
//! window.write(vtd::spec::registers::FSTS, 1u32); // write-1-to-clear: use `clear`
//! # }
//! ```
//! ```
//! # fn f<R: vtd::Registers>(window: &mut vtd::spec::registers::Window<R>) {
//! use vtd::spec::registers::{FSTS, FaultStatus, GSTS, IQA};
//! window.write(IQA, 0u64);
//! window.clear(FSTS, FaultStatus::PFO.bits());
//! let _: u32 = window.read(GSTS);
//! # }
//! ```

use crate::registers::Registers;
use bitflags::bitflags;
use core::marker::PhantomData;

/// Access of a register that hardware writes and software reads.
#[derive(Clone, Copy, Debug)]
pub struct ReadOnly;
/// Access of a register that software commands with; reading it says nothing.
#[derive(Clone, Copy, Debug)]
pub struct WriteOnly;
/// Access of a register that keeps what software wrote.
#[derive(Clone, Copy, Debug)]
pub struct ReadWrite;
/// Access of a register whose status bits are cleared by writing 1 to them.
#[derive(Clone, Copy, Debug)]
pub struct WriteOneToClear;

/// Accesses that allow [`Window::read`].
pub trait Readable {}
impl Readable for ReadOnly {}
impl Readable for ReadWrite {}
impl Readable for WriteOneToClear {}

/// Accesses that allow [`Window::write`].
pub trait Writable {}
impl Writable for WriteOnly {}
impl Writable for ReadWrite {}

/// A register: its offset in bytes, its width `W` (`u32` or `u64`) and its access `A`.
#[derive(Debug)]
pub struct Register<W, A> {
    offset: u16,
    name: &'static str,
    kind: PhantomData<(W, A)>,
}

impl<W, A> Clone for Register<W, A> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<W, A> Copy for Register<W, A> {}

impl<W, A> Register<W, A> {
    const fn at(offset: u16, name: &'static str) -> Self {
        Self { offset, name, kind: PhantomData }
    }

    /// The offset in the unit's window, in bytes.
    pub const fn offset(self) -> u16 {
        self.offset
    }

    /// The specification's name, for error messages.
    pub const fn name(self) -> &'static str {
        self.name
    }
}

/// The widths of a register access. Sealed by having no use outside `u32` and `u64`.
pub trait Width: Copy {
    /// Reads a register of this width.
    fn read<R: Registers>(registers: &R, offset: u16) -> Self;
    /// Writes a register of this width.
    fn write<R: Registers>(registers: &mut R, offset: u16, value: Self);
}

impl Width for u32 {
    fn read<R: Registers>(registers: &R, offset: u16) -> Self {
        registers.read32(offset)
    }
    fn write<R: Registers>(registers: &mut R, offset: u16, value: Self) {
        registers.write32(offset, value)
    }
}

impl Width for u64 {
    fn read<R: Registers>(registers: &R, offset: u16) -> Self {
        registers.read64(offset)
    }
    fn write<R: Registers>(registers: &mut R, offset: u16, value: Self) {
        registers.write64(offset, value)
    }
}

/// A unit's registers, accessed by [`Register`] only.
#[derive(Debug)]
pub struct Window<R> {
    registers: R,
}

impl<R: Registers> Window<R> {
    /// Wraps raw access to a unit's window.
    pub fn new(registers: R) -> Self {
        Self { registers }
    }

    /// Reads a register.
    pub fn read<W: Width, A: Readable>(&self, register: Register<W, A>) -> W {
        W::read(&self.registers, register.offset)
    }

    /// Writes a register.
    pub fn write<W: Width, A: Writable>(&mut self, register: Register<W, A>, value: W) {
        W::write(&mut self.registers, register.offset, value)
    }

    /// Clears the bits that are 1 in `bits`; leaves every other status bit as it is.
    pub fn clear<W: Width>(&mut self, register: Register<W, WriteOneToClear>, bits: W) {
        W::write(&mut self.registers, register.offset, bits)
    }

    /// The raw access, for tests and for what this crate does not know.
    pub fn raw(&self) -> &R {
        &self.registers
    }
}

/// Version (0x00, 32-bit, RO). Section 11.4.1.
pub const VER: Register<u32, ReadOnly> = Register::at(0x00, "VER_REG");
/// Capabilities (0x08, 64-bit, RO). Section 11.4.2.
pub const CAP: Register<u64, ReadOnly> = Register::at(0x08, "CAP_REG");
/// Extended capabilities (0x10, 64-bit, RO). Section 11.4.3.
pub const ECAP: Register<u64, ReadOnly> = Register::at(0x10, "ECAP_REG");
/// Global command (0x18, 32-bit, WO). Section 11.4.4.1.
pub const GCMD: Register<u32, WriteOnly> = Register::at(0x18, "GCMD_REG");
/// Global status (0x1c, 32-bit, RO). Section 11.4.4.2.
pub const GSTS: Register<u32, ReadOnly> = Register::at(0x1c, "GSTS_REG");
/// Root table address (0x20, 64-bit, RW). Section 11.4.5.
pub const RTADDR: Register<u64, ReadWrite> = Register::at(0x20, "RTADDR_REG");
/// Context command (0x28, 64-bit, RW); ignored by hardware while queued invalidation is on. Section 11.4.6.1.
pub const CCMD: Register<u64, ReadWrite> = Register::at(0x28, "CCMD_REG");
/// Fault status (0x34, 32-bit, RW1C). Section 11.4.7.1.
pub const FSTS: Register<u32, WriteOneToClear> = Register::at(0x34, "FSTS_REG");
/// Fault event control (0x38, 32-bit, RW). Section 11.4.7.2.
pub const FECTL: Register<u32, ReadWrite> = Register::at(0x38, "FECTL_REG");
/// Fault event data (0x3c, 32-bit, RW). Section 11.4.7.3.
pub const FEDATA: Register<u32, ReadWrite> = Register::at(0x3c, "FEDATA_REG");
/// Fault event address (0x40, 32-bit, RW). Section 11.4.7.4.
pub const FEADDR: Register<u32, ReadWrite> = Register::at(0x40, "FEADDR_REG");
/// Fault event upper address (0x44, 32-bit, RW; exists with ECAP.EIM). Section 11.4.7.5.
pub const FEUADDR: Register<u32, ReadWrite> = Register::at(0x44, "FEUADDR_REG");
/// Protected memory enable (0x64, 32-bit, RW). Section 11.4.8.1.
pub const PMEN: Register<u32, ReadWrite> = Register::at(0x64, "PMEN_REG");
/// Protected low memory base (0x68, 32-bit, RW). Section 11.4.8.2.
pub const PLMBASE: Register<u32, ReadWrite> = Register::at(0x68, "PLMBASE_REG");
/// Protected low memory limit (0x6c, 32-bit, RW). Section 11.4.8.3.
pub const PLMLIMIT: Register<u32, ReadWrite> = Register::at(0x6c, "PLMLIMIT_REG");
/// Protected high memory base (0x70, 64-bit, RW). Section 11.4.8.4.
pub const PHMBASE: Register<u64, ReadWrite> = Register::at(0x70, "PHMBASE_REG");
/// Protected high memory limit (0x78, 64-bit, RW). Section 11.4.8.5.
pub const PHMLIMIT: Register<u64, ReadWrite> = Register::at(0x78, "PHMLIMIT_REG");
/// Invalidation queue head (0x80, 64-bit, RO). Section 11.4.9.1.
pub const IQH: Register<u64, ReadOnly> = Register::at(0x80, "IQH_REG");
/// Invalidation queue tail (0x88, 64-bit, RW). Section 11.4.9.2.
pub const IQT: Register<u64, ReadWrite> = Register::at(0x88, "IQT_REG");
/// Invalidation queue address (0x90, 64-bit, RW). Section 11.4.9.3.
pub const IQA: Register<u64, ReadWrite> = Register::at(0x90, "IQA_REG");
/// Invalidation completion status (0x9c, 32-bit, RW1C). Section 11.4.9.4.
pub const ICS: Register<u32, WriteOneToClear> = Register::at(0x9c, "ICS_REG");
/// Invalidation event control (0xa0, 32-bit, RW). Section 11.4.9.5.
pub const IECTL: Register<u32, ReadWrite> = Register::at(0xa0, "IECTL_REG");
/// Invalidation event data (0xa4, 32-bit, RW). Section 11.4.9.6.
pub const IEDATA: Register<u32, ReadWrite> = Register::at(0xa4, "IEDATA_REG");
/// Invalidation event address (0xa8, 32-bit, RW). Section 11.4.9.7.
pub const IEADDR: Register<u32, ReadWrite> = Register::at(0xa8, "IEADDR_REG");
/// Invalidation event upper address (0xac, 32-bit, RW). Section 11.4.9.8.
pub const IEUADDR: Register<u32, ReadWrite> = Register::at(0xac, "IEUADDR_REG");
/// Invalidation queue error record (0xb0, 64-bit, RO; reads 0 on units older than it): IQEI (3:0) why the queue stopped,
/// ITESID (47:32) which device did not answer, ICESID (63:48) which answered what was not asked. Section 11.4.9.9.
pub const IQERCD: Register<u64, ReadOnly> = Register::at(0xb0, "IQERCD_REG");
/// Interrupt remapping table address (0xb8, 64-bit, RW). Section 11.4.10.
pub const IRTA: Register<u64, ReadWrite> = Register::at(0xb8, "IRTA_REG");

/// Page request queue head (0xc0, 64-bit, RW). Section 11.4.11.1.
pub const PQH: Register<u64, ReadWrite> = Register::at(0xc0, "PQH_REG");
/// Page request queue tail (0xc8, 64-bit, RW; hardware's). Section 11.4.11.2.
pub const PQT: Register<u64, ReadWrite> = Register::at(0xc8, "PQT_REG");
/// Page request queue address (0xd0, 64-bit, RW): address (63:12), size (2:0). Section 11.4.11.3.
pub const PQA: Register<u64, ReadWrite> = Register::at(0xd0, "PQA_REG");
/// Page request status (0xdc, 32-bit, RW1C). Section 11.4.11.4.
pub const PRS: Register<u32, WriteOneToClear> = Register::at(0xdc, "PRS_REG");
/// Page request event control (0xe0, 32-bit, RW), as FECTL. Section 11.4.11.5.
pub const PECTL: Register<u32, ReadWrite> = Register::at(0xe0, "PECTL_REG");
/// Page request event data (0xe4, 32-bit, RW). Section 11.4.11.6.
pub const PEDATA: Register<u32, ReadWrite> = Register::at(0xe4, "PEDATA_REG");
/// Page request event address (0xe8, 32-bit, RW). Section 11.4.11.7.
pub const PEADDR: Register<u32, ReadWrite> = Register::at(0xe8, "PEADDR_REG");
/// Page request event upper address (0xec, 32-bit, RW). Section 11.4.11.8.
pub const PEUADDR: Register<u32, ReadWrite> = Register::at(0xec, "PEUADDR_REG");

/// Invalidate address (64-bit, WO) at ECAP.IRO. Section 11.4.6.3.
pub const fn iva(base: u16) -> Register<u64, WriteOnly> {
    Register::at(base, "IVA_REG")
}

/// IOTLB invalidate (64-bit, RW) eight bytes above it; ignored by hardware while queued invalidation is on. `None`
/// outside the 64 KiB that an offset can name. Section 11.4.6.2.
pub const fn iotlb(base: u16) -> Option<Register<u64, ReadWrite>> {
    match base.checked_add(8) {
        Some(offset) => Some(Register::at(offset, "IOTLB_REG")),
        None => None,
    }
}

/// The low half of the fault recording register `index`, at `base` bytes (CAP.FRO): the fault's address (64-bit,
/// RO). `None` outside the 64 KiB that an offset can name. Section 11.4.7.6.
pub const fn fault_record_low(base: u16, index: u16) -> Option<Register<u64, ReadOnly>> {
    match fault_record_offset(base, index, 0) {
        Some(offset) => Some(Register::at(offset, "FRCD_REG low")),
        None => None,
    }
}

/// The high half of the fault recording register `index`: source, reason, and the RW1C bit F (64-bit).
pub const fn fault_record_high(base: u16, index: u16) -> Option<Register<u64, WriteOneToClear>> {
    match fault_record_offset(base, index, 8) {
        Some(offset) => Some(Register::at(offset, "FRCD_REG high")),
        None => None,
    }
}

const fn fault_record_offset(base: u16, index: u16, half: u16) -> Option<u16> {
    match index.checked_mul(16) {
        Some(distance) => match base.checked_add(distance) {
            Some(record) => record.checked_add(half),
            None => None,
        },
        None => None,
    }
}

bitflags! {
    /// Bits of the global command register, and of the global status register at the same places.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Global: u32 {
        /// Translation enable / enabled (TE, TES).
        const TRANSLATION = 1 << 31;
        /// Set root table pointer (SRTP: one-shot) / set (RTPS).
        const ROOT_TABLE_POINTER = 1 << 30;
        /// Set fault log (SFL: one-shot) / set (FLS).
        const FAULT_LOG = 1 << 29;
        /// Advanced fault logging (EAFL, AFLS).
        const ADVANCED_FAULT_LOGGING = 1 << 28;
        /// Write buffer flush (WBF: one-shot) / in progress (WBFS).
        const WRITE_BUFFER_FLUSH = 1 << 27;
        /// Queued invalidation (QIE, QIES).
        const QUEUED_INVALIDATION = 1 << 26;
        /// Interrupt remapping (IRE, IRES).
        const INTERRUPT_REMAPPING = 1 << 25;
        /// Set interrupt remap table pointer (SIRTP: one-shot) / set (IRTPS).
        const INTERRUPT_TABLE_POINTER = 1 << 24;
        /// Compatibility format interrupts pass (CFI, CFIS).
        const COMPATIBILITY_FORMAT = 1 << 23;
        const _ = !0;
    }
}

/// What of the global status may be written back to the global command: everything but the one-shot commands SRTP,
/// SFL, WBF and SIRTP, whose status bits stay 1 for ever and would repeat the command (section 11.4.4.1).
pub const GCMD_PERSISTENT: u32 = 0x96ff_ffff;

bitflags! {
    /// Bits of the fault status register.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct FaultStatus: u32 {
        /// Primary fault overflow: nothing more is recorded until it is cleared (RW1C).
        const PFO = 1 << 0;
        /// Primary pending fault: the OR of all records' F (RO).
        const PPF = 1 << 1;
        /// Advanced fault overflow (RW1C).
        const AFO = 1 << 2;
        /// Advanced pending fault (RW1C).
        const APF = 1 << 3;
        /// Invalidation queue error: the queue stands still at a descriptor that hardware refuses (RW1C).
        const IQE = 1 << 4;
        /// Invalidation completion error: a device answered what was not asked (RW1C).
        const ICE = 1 << 5;
        /// Invalidation time-out error: a device did not answer (RW1C).
        const ITE = 1 << 6;
        /// Page request overflow (RW1C; deprecated).
        const PRO = 1 << 7;
        const _ = !0;
    }
}

impl FaultStatus {
    /// Every bit that is cleared by writing 1, in ascending order.
    pub const CLEARABLE: [FaultStatus; 7] =
        [Self::PFO, Self::AFO, Self::APF, Self::IQE, Self::ICE, Self::ITE, Self::PRO];

    /// FRI (bits 15:8): the record at which pending faults begin; meaningful with PPF only.
    pub const fn first_record(self) -> u16 {
        (self.bits() >> 8 & 0xff) as u16
    }
}

bitflags! {
    /// Bits of the page request status register.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct PageRequestStatus: u32 {
        /// Pending page request (RW1C).
        const PPR = 1 << 0;
        /// Page request overflow: requests are dropped until it is cleared (RW1C).
        const PRO = 1 << 1;
    }
}

/// FECTL and IECTL: interrupt mask (bit 31, RW; 1 after reset).
pub const EVENT_CONTROL_MASKED: u32 = 1 << 31;
/// FECTL and IECTL: interrupt pending (bit 30, RO).
pub const EVENT_CONTROL_PENDING: u32 = 1 << 30;
/// RTADDR: translation table mode (TTM, bits 11:10): 00b legacy, 01b scalable, 11b abort.
pub const RTADDR_TTM: u64 = 3 << 10;
/// RTADDR.TTM: scalable mode.
pub const RTADDR_TTM_SCALABLE: u64 = 1 << 10;
/// The low bits of a protected region's limit that count as 1 in every unit: no region ends within 2 MiB (section
/// 11.4.8.3).
pub const PROTECTED_MEMORY_MINIMUM: u64 = 0x1f_ffff;
/// PMEN: enable protected memory (bit 31, RW).
pub const PMEN_ENABLE: u32 = 1 << 31;
/// PMEN: protected region status (bit 0, RO).
pub const PMEN_STATUS: u32 = 1 << 0;
/// IQH and IQT: a byte offset into the queue, in bits 18:4.
pub const IQ_OFFSET_MASK: u64 = 0x7_fff0;
/// IQERCD: where ITESID begins.
pub const IQERCD_ITESID_SHIFT: u32 = 32;
/// IQERCD: where ICESID begins.
pub const IQERCD_ICESID_SHIFT: u32 = 48;
/// CCMD: command in progress (ICC, bit 63).
pub const CCMD_BUSY: u64 = 1 << 63;
/// CCMD: what was done (CAIG, bits 60:59); 0 is nothing.
pub const CCMD_DONE: u64 = 3 << 59;
/// IOTLB: command in progress (IVT, bit 63).
pub const IOTLB_BUSY: u64 = 1 << 63;
/// IOTLB: what was done (IAIG, bits 58:57); 0 is nothing.
pub const IOTLB_DONE: u64 = 3 << 57;
/// IRTA: extended interrupt mode enable (bit 11): destinations are 32-bit x2APIC ids.
pub const IRTA_EIME: u64 = 1 << 11;
