//! Bringing a unit up, step by step. Each step checks that the steps that it needs have been taken.

use crate::entry_map::EntryMap;
use crate::error::{Error, Step};
use crate::events::FaultInterrupt;
use crate::interface::Interface;
use crate::interrupt_table::InterruptTable;
use crate::memory::DmaMemory;
use crate::mode::TranslationMode;
use crate::platform::Platform;
use crate::queue::Queue;
use crate::registers::Registers;
use crate::ring::{QueueLayout, Ring};
use crate::spec::interrupt::DestinationMode;
use crate::spec::invalidation::{Descriptor, DescriptorWidth};
use crate::spec::registers::*;
use crate::takeover::Handover;
use crate::unit::Unit;
use crate::wait::Clock;
use addr::PAGE_SIZE;

/// What [`Unit::bring_up`] needs to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Configuration {
    /// Entries of the interrupt remapping table: a power of two from 256 to 65536. `None` leaves interrupt remapping
    /// off; then no device may be assigned, for it could send any interrupt to any processor.
    pub interrupt_entries: Option<usize>,
    /// The form of the processors' APIC ids. X2Apic only if every unit has ECAP.EIM and the processors are in x2APIC
    /// mode.
    pub destination_mode: DestinationMode,
    /// Where to report faults, if anywhere.
    pub fault_interrupt: Option<FaultInterrupt>,
    /// What becomes of a unit that is found at work.
    pub handover: Handover,
    /// What the machine's firmware demands.
    pub platform: Platform,
}

impl Configuration {
    /// Refuses what no unit can do.
    fn check(&self) -> Result<(), Error> {
        let mode = match self.interrupt_entries {
            Some(entries) if InterruptTable::pages(entries).is_none() => return Err(Error::BadTableSize(entries)),
            Some(_) => self.destination_mode,
            None => DestinationMode::XApic,
        };
        self.fault_interrupt.map_or(Ok(()), |interrupt| interrupt.check(mode))
    }
}

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Turns the invalidation queue on: 256 places, of 128 bits in legacy mode and of 256 bits in scalable mode. A unit
    /// that has none (ECAP.QI = 0) is told to forget by registers from here on; it cannot remap interrupts.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] before [`Self::mask_and_clear_faults`] or a second time, [`Error::OutOfMemory`],
    /// [`Error::QueueHeadNotZero`], [`Error::Timeout`].
    pub fn enable_queue<M: DmaMemory>(&mut self, memory: &mut M) -> Result<(), Error> {
        let layout = match self.translation_mode() {
            TranslationMode::Legacy => QueueLayout::LEGACY,
            TranslationMode::Scalable => QueueLayout::SCALABLE,
        };
        self.enable_queue_with(memory, layout)
    }

    /// As [`Self::enable_queue`], with a ring of another size or with 256-bit descriptors.
    ///
    /// # Errors
    /// Those of [`Self::enable_queue`]; [`Error::Unsupported`] for 256-bit descriptors without ECAP.SMTS, and for 128-bit
    /// descriptors in scalable mode.
    pub fn enable_queue_with<M: DmaMemory>(&mut self, memory: &mut M, layout: QueueLayout) -> Result<(), Error> {
        let step = Step::EnableQueue;
        if !self.faults_cleared {
            // A queue error from before would keep the queue from starting.
            return Err(Error::OutOfOrder { step, needs: "mask_and_clear_faults" });
        }
        if self.interface.is_some() {
            return Err(Error::OutOfOrder { step, needs: "that the queue is off" });
        }
        if !self.capabilities.queued_invalidation() {
            self.interface = Some(Interface::Registers);
            return Ok(());
        }
        if layout.width == DescriptorWidth::Wide && !self.capabilities.scalable_mode() {
            return Err(Error::Unsupported { capability: "256-bit descriptors (ECAP.SMTS)" });
        }
        if layout.width == DescriptorWidth::Narrow && self.translation_mode() == TranslationMode::Scalable {
            return Err(Error::Unsupported { capability: "128-bit descriptors in scalable mode" });
        }
        let ring = self.allocate(memory, step, layout.pages(), PAGE_SIZE * layout.pages() as u64)?;
        let status = self.allocate(memory, step, 1, PAGE_SIZE)?;
        let ring = Ring::new(ring, status, layout);
        self.registers.write(IQT, 0u64);
        self.registers.write(IQA, ring.address_register());
        // With the head elsewhere, hardware would run through the empty ring as soon as the queue is on.
        let head = self.registers.read(IQH);
        if head != 0 {
            return Err(Error::QueueHeadNotZero(head));
        }
        self.command(step, Global::QUEUED_INVALIDATION, true)?;
        self.interface = Some(Interface::Queue(Queue::new(ring)));
        Ok(())
    }

    /// Makes an empty root table, in which no device may do anything, without telling hardware. Assignments that must
    /// stand from the first moment, such as reserved memory of firmware, are made between this and
    /// [`Self::set_root_table`].
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::OutOfOrder`] a second time.
    pub fn create_root_table<M: DmaMemory>(&mut self, memory: &mut M) -> Result<(), Error> {
        if self.root_table.is_some() {
            return Err(Error::OutOfOrder { step: Step::SetRootTable, needs: "that there is no root table yet" });
        }
        self.root_table = Some(self.allocate(memory, Step::SetRootTable, 1, PAGE_SIZE)?);
        Ok(())
    }

    /// Gives hardware the root table (made if there is none yet) and forgets all that was cached under another.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] before [`Self::enable_queue`], [`Error::OutOfMemory`], [`Error::Timeout`],
    /// [`Error::Invalidation`]; [`Error::OtherTableMode`] where translation was taken over and is in another mode.
    pub fn set_root_table<M: DmaMemory>(&mut self, memory: &mut M) -> Result<(), Error> {
        let step = Step::SetRootTable;
        if self.interface.is_none() {
            return Err(Error::OutOfOrder { step, needs: "the invalidation queue" });
        }
        if self.root_table.is_none() {
            self.create_root_table(memory)?;
        }
        let Some(root) = self.root_table else { return Err(Error::OutOfMemory(step)) };
        let mode = match self.translation_mode() {
            TranslationMode::Legacy => 0,
            TranslationMode::Scalable => RTADDR_TTM_SCALABLE,
        };
        let address = root.as_u64() | mode;
        self.refuse_other_table_mode(address)?;
        self.flush_write_buffer()?;
        self.registers.write(RTADDR, address);
        self.command(step, Global::ROOT_TABLE_POINTER, true)?;
        if !self.capabilities.enhanced_set_root_table_pointer() {
            // The context cache first and to the end: what is below may be filled again from it (section 6.2.2.1).
            self.invalidate_all_translations(memory)?;
        }
        self.root_table_set = true;
        Ok(())
    }

    /// Makes an interrupt remapping table of `entries` (a power of two, 256 to 65536) in which nothing is allowed,
    /// gives it to hardware, and forgets all that was cached under another.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without ECAP.IR or ECAP.QI, or for `X2Apic` without ECAP.EIM; [`Error::BadTableSize`];
    /// [`Error::OutOfOrder`] before [`Self::enable_queue`] or a second time; [`Error::OutOfMemory`];
    /// [`Error::Timeout`]; [`Error::Invalidation`]; [`Error::X2ApicOptOut`];
    /// [`Error::OtherTableMode`] where interrupt remapping was taken over with destinations of the other form.
    pub fn set_interrupt_table<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        entries: usize,
        mode: DestinationMode,
    ) -> Result<(), Error> {
        let step = Step::SetInterruptTable;
        if !self.capabilities.interrupt_remapping() {
            return Err(Error::Unsupported { capability: "interrupt remapping (ECAP.IR)" });
        }
        if mode == DestinationMode::X2Apic && self.platform.x2apic_opt_out {
            return Err(Error::X2ApicOptOut);
        }
        if mode == DestinationMode::X2Apic && !self.capabilities.extended_interrupt_mode() {
            return Err(Error::Unsupported { capability: "extended interrupt mode (ECAP.EIM)" });
        }
        match self.interface {
            None => return Err(Error::OutOfOrder { step, needs: "the invalidation queue" }),
            // Nothing else invalidates the interrupt entry cache.
            Some(Interface::Registers) => {
                return Err(Error::Unsupported { capability: "queued invalidation (ECAP.QI)" });
            }
            Some(Interface::Queue(_)) => {}
        }
        if self.interrupt_table.is_some() {
            return Err(Error::OutOfOrder { step, needs: "that there is no interrupt table yet" });
        }
        let pages = InterruptTable::pages(entries).ok_or(Error::BadTableSize(entries))?;
        let base = self.allocate(memory, step, pages, PAGE_SIZE)?;
        let map = self.allocate(memory, step, EntryMap::pages(entries), PAGE_SIZE)?;
        let table = InterruptTable::new(base, entries, mode, EntryMap::new(memory, map, entries));
        self.refuse_other_destination_mode(table.address_register())?;
        self.flush_write_buffer()?;
        self.registers.write(IRTA, table.address_register());
        self.command(step, Global::INTERRUPT_TABLE_POINTER, true)?;
        if !self.capabilities.enhanced_set_interrupt_table_pointer() {
            self.submit(memory, &[Descriptor::interrupt_entry_cache_global()])?;
        }
        self.interrupt_table = Some(table);
        Ok(())
    }

    /// Turns interrupt remapping on, and makes sure that messages in the compatibility format are blocked.
    ///
    /// Every interrupt source under the unit whose message is not in the remappable format is silent from here on.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] before [`Self::set_interrupt_table`], [`Error::Timeout`],
    /// [`Error::CompatibilityFormatNotBlocked`].
    pub fn enable_interrupt_remapping(&mut self) -> Result<(), Error> {
        let step = Step::EnableInterruptRemapping;
        if self.interrupt_table.is_none() {
            return Err(Error::OutOfOrder { step, needs: "the interrupt remapping table" });
        }
        self.refuse_if_poisoned()?;
        self.command(step, Global::INTERRUPT_REMAPPING, true)?;
        self.interrupt_remapping = true;
        let status = self.read_status();
        if status.contains(Global::COMPATIBILITY_FORMAT) {
            return Err(Error::CompatibilityFormatNotBlocked(status.bits()));
        }
        Ok(())
    }

    /// Turns translation on: from here on a device reaches what its context entry maps, and nothing otherwise.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] before [`Self::set_root_table`], [`Error::Timeout`].
    pub fn enable_translation(&mut self) -> Result<(), Error> {
        let step = Step::EnableTranslation;
        if !self.root_table_set {
            return Err(Error::OutOfOrder { step, needs: "the root table" });
        }
        self.refuse_if_poisoned()?;
        self.flush_write_buffer()?;
        self.command(step, Global::TRANSLATION, true)?;
        self.translation = true;
        Ok(())
    }

    /// Takes every step on one unit, in order. A machine with several units calls the steps instead. Devices with
    /// reserved memory of firmware are assigned before the call ([`Unit::create_root_table`]).
    ///
    /// # Errors
    /// Those of the steps. Where `configuration` is wrong in itself, nothing has changed; otherwise the steps before
    /// the one that failed are taken, and [`Unit::shut_down`] takes them back.
    pub fn bring_up<M: DmaMemory>(&mut self, memory: &mut M, configuration: &Configuration) -> Result<(), Error> {
        configuration.check()?;
        self.take_over(configuration.handover, configuration.platform)?;
        self.mask_and_clear_faults()?;
        self.enable_queue(memory)?;
        self.set_root_table(memory)?;
        if let Some(entries) = configuration.interrupt_entries {
            self.set_interrupt_table(memory, entries, configuration.destination_mode)?;
            self.enable_interrupt_remapping()?;
        }
        self.enable_translation()?;
        self.disable_protected_memory()?;
        if let Some(interrupt) = configuration.fault_interrupt {
            self.enable_fault_interrupt(interrupt)?;
        }
        Ok(())
    }
}
