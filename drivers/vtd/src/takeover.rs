//! Units that are found at work: firmware, or a kernel before this one, has left translation, interrupt remapping or a
//! queue on.
//!
//! Taking translation over, the old root table stays in force until [`Unit::set_root_table`] puts the driver's in its
//! place by one command, and likewise the old interrupt table; what was cached under them is forgotten right after. There
//! is no moment without protection. Stopping instead leaves devices to themselves from here to
//! [`Unit::enable_translation`], unless the protected memory regions hold them back.

use crate::error::{Error, Step};
use crate::platform::Platform;
use crate::registers::Registers;
use crate::spec::interrupt::DestinationMode;
use crate::spec::registers::*;
use crate::unit::Unit;
use crate::wait::{Clock, Deadline};

/// What becomes of a unit that is found at work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handover {
    /// What is on stays on until the driver's own takes its place. Devices reach what the old tables say until then,
    /// whoever wrote them.
    TakeOver,
    /// Protected memory regions over all memory, then off with what is on: no device reaches anything until the regions
    /// are [opened](Unit::disable_protected_memory), not even firmware's reserved memory.
    StopProtected,
    /// Off with what is on. Devices reach all memory until [`Unit::enable_translation`]: only where none can be active.
    Stop,
}

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Masks the fault interrupt and turns off what firmware left on: translation, compatibility format, interrupt
    /// remapping, and last, empty, the queue that serves them. As [`Self::take_over`] with [`Handover::Stop`], on a
    /// platform that demands nothing.
    ///
    /// # Errors
    /// Those of [`Self::take_over`].
    pub fn stop_firmware(&mut self) -> Result<(), Error> {
        self.take_over(Handover::Stop, Platform::default())
    }

    /// The first step: masks the fault interrupt, and takes over or stops what is on. The queue is stopped in any case,
    /// empty; it protects nothing, and the driver needs its own.
    ///
    /// Interrupts that go through the old interrupt table arrive until the driver's own is set, and then no more.
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::OutOfOrder`] once the driver's own queue is on;
    /// [`Error::Unsupported`] for [`Handover::StopProtected`] on a unit that has not both protected regions;
    /// [`Error::WindowRefused`] for [`Handover::Stop`] of a unit that translates, or has nothing to hold DMA back, where
    /// the platform asks for no moment without protection.
    pub fn take_over(&mut self, handover: Handover, platform: Platform) -> Result<(), Error> {
        if self.interface.is_some() {
            return Err(Error::OutOfOrder { step: Step::StopQueue, needs: "that the unit is not yet set up" });
        }
        let on = self.read_status();
        let translates = on.contains(Global::TRANSLATION);
        let both = self.capabilities.protected_low_memory() && self.capabilities.protected_high_memory();
        let mut protect = handover == Handover::StopProtected;
        if protect && !both {
            return Err(Error::Unsupported { capability: "both protected memory regions (CAP.PLMR, CAP.PHMR)" });
        }
        if platform.dma_control_opt_in && handover == Handover::Stop {
            if translates {
                return Err(Error::WindowRefused);
            }
            // Whatever firmware holds DMA back with, this does too.
            protect = both;
        }
        self.platform = platform;
        self.mask_fault_interrupt();
        // Where nothing translates, what firmware has closed stays as it is: to close more, it would have to be opened.
        if protect && (translates || !self.read_protected_memory().enabled) {
            self.protect_all_memory()?;
        }
        self.taken_over = Global::empty();
        if handover == Handover::TakeOver {
            self.taken_over = on & (Global::TRANSLATION | Global::INTERRUPT_REMAPPING);
        }
        if translates && handover != Handover::TakeOver {
            self.command(Step::StopTranslation, Global::TRANSLATION, false)?;
        }
        if on.contains(Global::COMPATIBILITY_FORMAT) {
            self.command(Step::BlockCompatibilityFormat, Global::COMPATIBILITY_FORMAT, false)?;
        }
        if on.contains(Global::INTERRUPT_REMAPPING) && handover != Handover::TakeOver {
            self.command(Step::StopInterruptRemapping, Global::INTERRUPT_REMAPPING, false)?;
        }
        if on.contains(Global::QUEUED_INVALIDATION) {
            self.drain_queue()?;
            self.command(Step::StopQueue, Global::QUEUED_INVALIDATION, false)?;
        }
        self.stopped = true;
        Ok(())
    }

    /// How to come by a unit with the least harm: taken over where hardware can change from what is in force to root tables
    /// of that mode and interrupt tables of that form, else stopped behind the protected regions, and only where there are
    /// none, just stopped. Where nothing is on, nothing is taken over.
    pub fn suggest_handover(&self, scalable: bool, destinations: DestinationMode) -> Handover {
        let on = self.read_status();
        let mode = self.registers.read(RTADDR) & RTADDR_TTM;
        let other_tables = on.contains(Global::TRANSLATION) && mode != if scalable { RTADDR_TTM_SCALABLE } else { 0 };
        let extended = self.registers.read(IRTA) & IRTA_EIME != 0;
        let other_destinations =
            on.contains(Global::INTERRUPT_REMAPPING) && extended != (destinations == DestinationMode::X2Apic);
        if !other_tables && !other_destinations {
            Handover::TakeOver
        } else if self.capabilities.protected_low_memory() && self.capabilities.protected_high_memory() {
            Handover::StopProtected
        } else {
            Handover::Stop
        }
    }

    /// Refuses to put a table in the place of one that is in force where hardware cannot change from one to the other:
    /// the mode of the tables (RTADDR.TTM) must not change while translation is on (section 11.4.5).
    pub(crate) fn refuse_other_table_mode(&self, address: u64) -> Result<(), Error> {
        let in_force = self.registers.read(RTADDR);
        let differs = (in_force ^ address) & RTADDR_TTM != 0;
        if self.taken_over.contains(Global::TRANSLATION) && differs {
            return Err(Error::OtherTableMode { in_force });
        }
        Ok(())
    }

    /// The same of the form of destinations (IRTA.EIME) while interrupts are remapped.
    pub(crate) fn refuse_other_destination_mode(&self, address: u64) -> Result<(), Error> {
        let in_force = self.registers.read(IRTA);
        let differs = (in_force ^ address) & IRTA_EIME != 0;
        if self.taken_over.contains(Global::INTERRUPT_REMAPPING) && differs {
            return Err(Error::OtherTableMode { in_force });
        }
        Ok(())
    }

    /// Waits until the queue is empty: turning it off while hardware works on it is undefined (section 6.5.2).
    pub(crate) fn drain_queue(&mut self) -> Result<(), Error> {
        let deadline = Deadline::new(&self.clock, self.timeout_us);
        loop {
            let late = deadline.passed(&self.clock);
            let (head, tail) = (self.registers.read(IQH), self.registers.read(IQT));
            // A queue that stands at a refused descriptor, or for a device that does not answer, will never be empty,
            // and is idle too.
            let stopped = FaultStatus::IQE | FaultStatus::ITE;
            if head == tail || self.registers.read(FSTS) & stopped.bits() != 0 {
                return Ok(());
            }
            if late {
                let register = IQH.name();
                return Err(Error::Timeout {
                    step: Step::DrainQueue,
                    register,
                    mask: u64::MAX,
                    expected: tail,
                    last: head,
                });
            }
            self.clock.relax();
        }
    }
}
