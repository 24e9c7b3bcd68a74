//! A unit in software that does what the driver's tests need: one-shot commands, a queue that executes descriptors, and
//! a record of everything that the driver did, in order. What is not written back is not there for it when its walks
//! are not coherent.

mod inner;
mod memory;
mod registers;

pub use inner::Inner;

use super::std::cell::{Cell, RefCell};
use super::std::collections::BTreeMap;
use super::std::rc::Rc;
use super::std::vec::Vec;
use crate::spec::registers::*;
use crate::{Clock, Configuration, DestinationMode, DmaMemory, Handover, Platform, Registers, Unit};
use addr::{HostPhys, PAGE_SIZE};
use paging::TableMemory;

/// CAP of QEMU's unit, and ECAP with C = 1 and EIM.
pub const CAP: u64 = 0x00d2_008c_222f_0606;
pub const ECAP: u64 = 0xf0_0f5b;
pub const FAULT_RECORDS: u16 = 0x220;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Write32(u16, u32),
    Write64(u16, u64),
    Store(u64, u64),
    Exchange(u64),
    Executed(u64, u64),
    /// A descriptor that hardware would not execute.
    Refused(u64, u64),
    /// A device did not answer.
    Silent(u16),
}

#[derive(Clone)]
pub struct Fake(pub Rc<RefCell<Inner>>);

pub struct FakeClock(Cell<u64>);

impl Clock for FakeClock {
    fn now_us(&self) -> u64 {
        self.0.get()
    }
    fn relax(&self) {
        self.0.set(self.0.get() + 1000);
    }
}

pub type TestUnit = Unit<Fake, FakeClock>;

impl Fake {
    pub fn new() -> Self {
        Self::with(CAP, ECAP)
    }

    pub fn with(cap: u64, ecap: u64) -> Self {
        let records = (cap >> 40 & 0xff) as usize + 1;
        Self(Rc::new(RefCell::new(Inner {
            cap,
            ecap,
            ver: 0x10,
            gsts: 0,
            fsts: 0,
            fectl: EVENT_CONTROL_MASKED,
            pmen: 0,
            iqh: 0,
            iqt: 0,
            iqa: 0,
            iqercd: 0,
            others: BTreeMap::new(),
            records: super::std::vec![(0, 0); records],
            ignored: 0,
            pmen_stuck: false,
            stalled: false,
            steps: None,
            rests: Vec::new(),
            resting: 0,
            refused: None,
            wants_tail: false,
            device_error: 0,
            waits_before_error: 0,
            more_errors: 0,
            writes_dropped: false,
            dropped: None,
            names_another: 0,
            silent: Vec::new(),
            names_silent: true,
            performs: true,
            late: None,
            memory: BTreeMap::new(),
            written_back: BTreeMap::new(),
            next_frame: 0x10_0000,
            frames_left: usize::MAX,
            exchanges: false,
            reads: 0,
            log: Vec::new(),
            max_in_flight: 0,
            new_fault_after_clear: 0,
        })))
    }

    pub fn probe(&self) -> Result<TestUnit, crate::Error> {
        Unit::probe(self.clone(), FakeClock(Cell::new(0)))
    }

    /// A unit that has been brought up with 256 interrupt entries.
    pub fn up(&self) -> (TestUnit, Fake) {
        let mut unit = self.probe().unwrap();
        let mut memory = self.clone();
        unit.bring_up(&mut memory, &CONFIGURATION).unwrap();
        self.0.borrow_mut().log.clear();
        (unit, memory)
    }

    pub fn inner<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.0.borrow_mut())
    }

    pub fn take_log(&self) -> Vec<Event> {
        core::mem::take(&mut self.0.borrow_mut().log)
    }

    /// The descriptors executed since the log was last taken, by their low halves, without waits.
    pub fn executed(log: &[Event]) -> Vec<u64> {
        log.iter()
            .filter_map(|event| match event {
                Event::Executed(low, _) if low & 0xf != 5 => Some(*low),
                _ => None,
            })
            .collect()
    }

    /// The stores to the 16 bytes at `entry`, as (half, value).
    pub fn stores(log: &[Event], entry: u64) -> Vec<(u64, u64)> {
        log.iter()
            .filter_map(|event| match event {
                Event::Store(address, value) if address & !15 == entry => Some((address - entry, *value)),
                _ => None,
            })
            .collect()
    }
}

pub const CONFIGURATION: Configuration = Configuration {
    interrupt_entries: Some(256),
    destination_mode: DestinationMode::X2Apic,
    fault_interrupt: None,
    handover: Handover::Stop,
    platform: Platform { dma_control_opt_in: false, x2apic_opt_out: false },
};
