//! Faults: masking, clearing, reporting.
//!
//! Fault status bits are cleared by writing 1. Writing back what was read would clear IQE, ICE and ITE with the rest,
//! and an invalidation that is waiting would never learn that it failed; so each write names exactly what it clears.

use crate::error::{Error, Step};
use crate::events::{EventRegisters, FaultInterrupt};
use crate::registers::Registers;
use crate::spec::fault::{FAULT, FaultRecord};
use crate::spec::registers::*;
use crate::unit::Unit;
use crate::wait::Clock;

const FAULT_EVENT: EventRegisters =
    EventRegisters { control: FECTL, data: FEDATA, address: FEADDR, upper_address: FEUADDR };

/// What a call of [`Unit::drain_faults`] found.
#[must_use = "no interrupt comes for faults that are left"]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultDrain {
    /// Faults reported.
    pub records: u32,
    /// Whether more faults happened than the unit could record; those are lost.
    pub overflow: bool,
    /// Whether faults are left because they come faster than they are drained: time to stop their source, and to call
    /// again, for no interrupt will come for what is pending.
    pub more: bool,
}

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Masks the fault interrupt and clears every fault and error that firmware left, bit by bit.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] before [`Self::stop_firmware`] (what is on could fault again) and once the driver's own
    /// queue is on (its errors are not to be cleared by accident; use [`Self::drain_faults`]).
    pub fn mask_and_clear_faults(&mut self) -> Result<(), Error> {
        if !self.is_stopped() || self.interface.is_some() {
            return Err(Error::OutOfOrder { step: Step::ClearFaults, needs: "stop_firmware, and the queue off" });
        }
        self.mask_event(FAULT_EVENT, true);
        for index in 0..self.capabilities.fault_records() {
            if let Some(high) = fault_record_high(self.capabilities.fault_record_offset(), index)
                && self.registers.read(high) & FAULT != 0
            {
                self.registers.clear(high, FAULT);
            }
        }
        let status = FaultStatus::from_bits_retain(self.registers.read(FSTS));
        for bit in FaultStatus::CLEARABLE {
            if status.contains(bit) {
                self.registers.clear(FSTS, bit.bits());
            }
        }
        self.faults_cleared = true;
        Ok(())
    }

    /// Programs where the fault interrupt goes, then unmasks it. The message is not remapped, and in the form of the
    /// interrupt table's destinations.
    ///
    /// # Errors
    /// [`Error::BadVector`], [`Error::DestinationOutOfRange`].
    pub fn enable_fault_interrupt(&mut self, interrupt: FaultInterrupt) -> Result<(), Error> {
        self.direct_event(FAULT_EVENT, interrupt)
    }

    /// Masks the fault interrupt, for instance against a device that faults without end. Faults are recorded still.
    pub fn mask_fault_interrupt(&mut self) {
        self.mask_event(FAULT_EVENT, true);
    }

    /// Lets the fault interrupt through again where [`Self::enable_fault_interrupt`] sent it.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] when it was never sent anywhere.
    pub fn unmask_fault_interrupt(&mut self) -> Result<(), Error> {
        if self.registers.read(FEDATA) & 0xff < 16 {
            return Err(Error::OutOfOrder { step: Step::EnableFaultInterrupt, needs: "enable_fault_interrupt" });
        }
        self.mask_event(FAULT_EVENT, false);
        Ok(())
    }

    /// Reports all recorded faults, the oldest first, and makes room for new ones. Does a bounded amount of work
    /// however fast a device faults: at most twice as many records as the unit has.
    pub fn drain_faults(&mut self, mut report: impl FnMut(FaultRecord)) -> FaultDrain {
        let mut drain = FaultDrain::default();
        let (base, count) = (self.capabilities.fault_record_offset(), self.capabilities.fault_records());
        for _round in 0..2 {
            let Some(status) = self.read_fault_status() else { return drain };
            if !status.contains(FaultStatus::PPF) {
                break;
            }
            for step in 0..count {
                // FRI may name no record at all; hardware's word is not trusted with the window.
                let index = (status.first_record() + step) % count;
                let (Some(low), Some(high)) = (fault_record_low(base, index), fault_record_high(base, index)) else {
                    continue;
                };
                // The low half is valid once F is seen, and stays so until F is cleared.
                let high_value = self.registers.read(high);
                if high_value & FAULT == 0 {
                    break;
                }
                let low_value = self.registers.read(low);
                if high_value == u64::MAX && low_value == u64::MAX {
                    return drain;
                }
                if let Some(record) = FaultRecord::decode(low_value, high_value) {
                    drain.records += 1;
                    report(record);
                }
                self.registers.clear(high, FAULT);
            }
        }
        if let Some(status) = self.read_fault_status() {
            if status.contains(FaultStatus::PFO) {
                // After the records: nothing more is recorded while it is set, and it sets again at once while they
                // are full.
                drain.overflow = true;
                self.registers.clear(FSTS, FaultStatus::PFO.bits());
            }
            drain.more = self.read_fault_status().is_some_and(|status| status.contains(FaultStatus::PPF));
        }
        drain
    }

    /// FSTS_REG, or `None` when the unit does not answer any more.
    fn read_fault_status(&self) -> Option<FaultStatus> {
        let status = self.registers.read(FSTS);
        (status != u32::MAX).then_some(FaultStatus::from_bits_retain(status))
    }
}
