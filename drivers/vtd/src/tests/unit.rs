//! What a unit says of itself, and what can be set of it.

use super::fake::{CONFIGURATION, Fake};
use crate::spec::registers::Global;
use crate::{Clock, DmaMemory, Error, Levels};
use addr::{Bdf, DomainId, HostPhys};
use core::cell::Cell;
use paging::TableMemory;

#[test]
fn a_unit_tells_its_version_and_what_the_driver_has_turned_on() {
    let fake = Fake::new();
    fake.inner(|inner| inner.ver = 0x47);
    let mut unit = fake.probe().unwrap();
    assert_eq!(unit.read_version(), 0x47);
    assert_eq!((unit.translation_enabled(), unit.interrupt_remapping_enabled()), (false, false));
    unit.bring_up(&mut fake.clone(), &CONFIGURATION).unwrap();
    assert_eq!((unit.translation_enabled(), unit.interrupt_remapping_enabled()), (true, true));
}

#[test]
fn waits_are_as_long_as_the_timeout_that_was_set() {
    for timeout_us in [5_000, 50_000] {
        let fake = Fake::new();
        fake.inner(|inner| (inner.gsts, inner.ignored) = (Global::TRANSLATION.bits(), Global::TRANSLATION.bits()));
        let mut unit = fake.probe().unwrap();
        unit.set_timeout_us(timeout_us);
        assert!(matches!(unit.stop_firmware(), Err(Error::Timeout { .. })));
        assert!(
            (timeout_us..timeout_us + 5_000).contains(&unit.clock.now_us()),
            "{timeout_us}: {}",
            unit.clock.now_us()
        );
    }
}

#[test]
fn a_unit_that_was_poisoned_assigns_nothing() {
    let (mut unit, mut memory) = Fake::new().up();
    assert!(!unit.is_poisoned());
    unit.poison();
    assert!(unit.is_poisoned());
    let levels = unit.capabilities().second_stage_levels().unwrap_or(Levels::Four);
    let assigned = unit.assign(&mut memory, Bdf::from_u16(8), DomainId(1), HostPhys::new(0x5000), levels);
    assert_eq!(assigned, Err(Error::Poisoned));
}

#[test]
fn a_clock_behind_a_reference_is_the_same_clock() {
    struct Steps(Cell<u64>);
    impl Clock for Steps {
        fn now_us(&self) -> u64 {
            self.0.get()
        }
        fn relax(&self) {
            self.0.set(self.0.get() + 3);
        }
    }
    fn after_a_pause(clock: impl Clock) -> u64 {
        clock.relax();
        clock.now_us()
    }
    let clock = Steps(Cell::new(7));
    assert_eq!((after_a_pause(&clock), clock.now_us()), (10, 10));
}

#[test]
fn memory_that_cannot_exchange_128_bits_says_so() {
    struct Plain;
    impl TableMemory for Plain {
        fn allocate_table(&mut self) -> Option<HostPhys> {
            None
        }
        fn free_table(&mut self, _: HostPhys) {}
        fn read_entry(&self, _: HostPhys, _: usize) -> u64 {
            0
        }
        fn write_entry(&mut self, _: HostPhys, _: usize, _: u64) {}
    }
    impl DmaMemory for Plain {
        fn allocate_contiguous(&mut self, _: usize, _: u64) -> Option<HostPhys> {
            None
        }
        fn read_u64(&self, _: HostPhys) -> u64 {
            0
        }
        fn write_u64(&mut self, _: HostPhys, _: u64) {}
        fn write_back(&mut self, _: HostPhys, _: u64) {}
    }
    assert!(!Plain.exchange_u128(HostPhys::new(0x1000), [0, 0], [1, 1]), "nothing has been exchanged");
}
