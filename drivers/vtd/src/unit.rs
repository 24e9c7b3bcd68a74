//! A remapping unit, and how it is commanded.

use crate::device_tlb::DeviceTlbs;
use crate::error::{Error, Step};
use crate::interface::Interface;
use crate::interrupt_table::InterruptTable;
use crate::memory::DmaMemory;
use crate::memory::publish;
use crate::mode::{Scalable, TranslationMode};
use crate::page_request_queue::PageRequestQueue;
use crate::platform::Platform;
use crate::registers::Registers;
use crate::spec::capability::Capabilities;
use crate::spec::registers::*;
use crate::wait::{Clock, DEFAULT_TIMEOUT_US, read_present, wait_for};
use addr::{HostPhys, PAGE_SIZE};

/// One remapping unit. See the [crate documentation](crate) for the order of its methods.
#[derive(Debug)]
pub struct Unit<R, C> {
    pub(crate) registers: Window<R>,
    pub(crate) clock: C,
    pub(crate) capabilities: Capabilities,
    pub(crate) timeout_us: u64,
    pub(crate) firmware: Global,
    pub(crate) platform: Platform,
    /// What was on when the unit was taken over, and stays so until the driver's own takes its place.
    pub(crate) taken_over: Global,
    pub(crate) stopped: bool,
    pub(crate) faults_cleared: bool,
    /// How the unit is told to forget, once it can be.
    pub(crate) interface: Option<Interface>,
    /// Devices that cache translations themselves.
    pub(crate) device_tlbs: DeviceTlbs,
    pub(crate) root_table: Option<HostPhys>,
    /// Whether hardware uses `root_table`, so that a change of it needs an invalidation.
    pub(crate) root_table_set: bool,
    pub(crate) translation: bool,
    /// What is done otherwise in scalable mode; `None` in legacy mode.
    pub(crate) scalable: Option<Scalable<Self>>,
    pub(crate) interrupt_table: Option<InterruptTable>,
    pub(crate) interrupt_remapping: bool,
    pub(crate) page_requests: Option<PageRequestQueue>,
    pub(crate) poisoned: bool,
}

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Looks at a unit; changes nothing.
    ///
    /// # Errors
    /// [`Error::Absent`] when nothing answers, [`Error::Unsupported`] without a second stage of 3, 4 or 5 levels: such a
    /// unit is left alone and its devices stay unassigned.
    pub fn probe(registers: R, clock: C) -> Result<Self, Error> {
        let registers = Window::new(registers);
        read_present(&registers, VER, u32::MAX)?;
        let cap = read_present(&registers, CAP, u64::MAX)?;
        let ecap = read_present(&registers, ECAP, u64::MAX)?;
        let status = read_present(&registers, GSTS, u32::MAX)?;
        let capabilities = Capabilities { cap, ecap };
        if capabilities.second_stage_levels().is_none() {
            return Err(Error::Unsupported { capability: "a second stage (CAP.SAGAW)" });
        }
        Ok(Self {
            registers,
            clock,
            capabilities,
            timeout_us: DEFAULT_TIMEOUT_US,
            firmware: Global::from_bits_retain(status),
            platform: Platform::default(),
            taken_over: Global::empty(),
            stopped: false,
            faults_cleared: false,
            interface: None,
            device_tlbs: DeviceTlbs::EMPTY,
            root_table: None,
            root_table_set: false,
            translation: false,
            scalable: None,
            interrupt_table: None,
            interrupt_remapping: false,
            page_requests: None,
            poisoned: false,
        })
    }

    /// What the unit can do.
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// The global status as [`Self::probe`] found it: what firmware or a previous kernel left on.
    pub fn firmware_state(&self) -> Global {
        self.firmware
    }

    /// The global status now.
    pub fn read_status(&self) -> Global {
        Global::from_bits_retain(self.registers.read(GSTS))
    }

    /// VER_REG: the architecture version, major in 7:4 and minor in 3:0.
    pub fn read_version(&self) -> u32 {
        self.registers.read(VER)
    }

    /// How long hardware may take for a command, in microseconds; [`DEFAULT_TIMEOUT_US`] unless set.
    pub fn set_timeout_us(&mut self, timeout_us: u64) {
        self.timeout_us = timeout_us;
    }

    /// The mode that the unit is used in.
    pub fn translation_mode(&self) -> TranslationMode {
        if self.scalable.is_some() { TranslationMode::Scalable } else { TranslationMode::Legacy }
    }

    /// Whether hardware's walks of page tables are coherent with the processors' caches: otherwise whoever owns a table
    /// must write back each entry that it changes. In legacy mode ECAP.C says it of all tables; in scalable mode
    /// ECAP.SMPWC says it of page tables, and ECAP.C of the driver's own.
    pub fn page_walks_are_coherent(&self) -> bool {
        match self.translation_mode() {
            TranslationMode::Legacy => self.capabilities.coherent(),
            TranslationMode::Scalable => self.capabilities.scalable_page_walk_coherency(),
        }
    }

    /// Whether the driver has turned translation on.
    pub fn translation_enabled(&self) -> bool {
        self.translation
    }

    /// Whether the driver has turned interrupt remapping on.
    pub fn interrupt_remapping_enabled(&self) -> bool {
        self.interrupt_remapping
    }

    /// Whether an invalidation has failed, so that stale translations may exist and nothing more is assigned.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Refuses every further assignment, as after a failed invalidation.
    pub fn poison(&mut self) {
        self.poisoned = true;
    }

    /// The register window, for what this crate does not know.
    pub fn registers(&self) -> &R {
        self.registers.raw()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    pub(crate) fn refuse_if_poisoned(&self) -> Result<(), Error> {
        if self.poisoned { Err(Error::Poisoned) } else { Ok(()) }
    }

    /// Zeroed memory for hardware; the zeros too must have left the cache before hardware looks.
    pub(crate) fn allocate<M: DmaMemory>(
        &self,
        memory: &mut M,
        step: Step,
        pages: usize,
        alignment: u64,
    ) -> Result<HostPhys, Error> {
        let address = memory.allocate_contiguous(pages, alignment).ok_or(Error::OutOfMemory(step))?;
        publish(memory, self.capabilities, address, pages as u64 * PAGE_SIZE);
        Ok(address)
    }

    /// Flushes the write buffers of a unit that has them outside coherency (CAP.RWBF, section 6.8).
    pub(crate) fn flush_write_buffer(&mut self) -> Result<(), Error> {
        if !self.capabilities.required_write_buffer_flushing() {
            return Ok(());
        }
        let step = Step::FlushWriteBuffer;
        self.issue(Global::WRITE_BUFFER_FLUSH, true);
        let mask = Global::WRITE_BUFFER_FLUSH.bits();
        wait_for(&self.registers, &self.clock, self.timeout_us, step, GSTS, mask, 0)?;
        Ok(())
    }

    /// Gives one global command and waits until the status has followed.
    pub(crate) fn command(&mut self, step: Step, bit: Global, on: bool) -> Result<(), Error> {
        self.issue(bit, on);
        let expected = if on { bit.bits() } else { 0 };
        wait_for(&self.registers, &self.clock, self.timeout_us, step, GSTS, bit.bits(), expected)?;
        Ok(())
    }

    /// Writes the global command: what is on stays on, one bit changes. Nothing else may: a bit that is written 0 turns
    /// off what it stands for, and a one-shot bit that is written 1 repeats its command (section 11.4.4.1).
    fn issue(&mut self, bit: Global, on: bool) {
        let now = self.registers.read(GSTS) & GCMD_PERSISTENT;
        let value = if on { now | bit.bits() } else { now & !bit.bits() };
        self.registers.write(GCMD, value);
    }
}
