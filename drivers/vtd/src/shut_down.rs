//! Turning a unit off: before the machine sleeps, or goes to a kernel that knows no remapping units.

use crate::device_tlb::DeviceTlbs;
use crate::error::{Error, Step};
use crate::memory::DmaMemory;
use crate::registers::Registers;
use crate::spec::invalidation::Descriptor;
use crate::spec::registers::Global;
use crate::unit::Unit;
use crate::wait::Clock;

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Turns off what is on, in the opposite order of bring-up: translation, interrupt remapping, and last, after the unit
    /// has forgotten everything, the queue. The unit is then as after [`Unit::probe`] of one that firmware has left
    /// alone, in legacy mode, and can be brought up again; no memory that it was given is used by hardware any more,
    /// and all of it may be given back.
    ///
    /// From here on devices reach all of memory, and their interrupts pass as they are: end bus mastering and device-TLBs
    /// of all devices first, and complete batches that are under way. Whoever hands the machine to a kernel that knows the unit leaves it on instead, and that
    /// kernel takes it over ([`Handover::TakeOver`](crate::Handover::TakeOver)).
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::Invalidation`]: what is still on stays so, and the memory must not be given back. The
    /// call may be repeated.
    pub fn shut_down<M: DmaMemory>(&mut self, memory: &mut M) -> Result<(), Error> {
        self.mask_fault_interrupt();
        let on = self.read_status();
        if on.contains(Global::TRANSLATION) {
            self.command(Step::StopTranslation, Global::TRANSLATION, false)?;
        }
        self.translation = false;
        if on.contains(Global::INTERRUPT_REMAPPING) {
            self.command(Step::StopInterruptRemapping, Global::INTERRUPT_REMAPPING, false)?;
        }
        self.interrupt_remapping = false;
        if self.interface.is_some() {
            self.device_tlbs = DeviceTlbs::EMPTY;
            self.invalidate_all_translations(memory)?;
            if self.interrupt_table.is_some() {
                self.submit(memory, &[Descriptor::interrupt_entry_cache_global()])?;
            }
        }
        if on.contains(Global::QUEUED_INVALIDATION) {
            self.drain_queue()?;
            self.command(Step::StopQueue, Global::QUEUED_INVALIDATION, false)?;
        }
        self.disable_page_requests();
        (self.interface, self.root_table, self.interrupt_table, self.scalable) = (None, None, None, None);
        (self.root_table_set, self.faults_cleared, self.stopped, self.poisoned) = (false, false, false, false);
        (self.firmware, self.taken_over) = (self.read_status(), Global::empty());
        Ok(())
    }
}
