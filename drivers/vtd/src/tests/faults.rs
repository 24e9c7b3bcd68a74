use super::fake::{CAP, ECAP, Event, FAULT_RECORDS, Fake};
use super::std::vec::Vec;
use crate::{Error, FaultDrain, FaultInterrupt, FaultReason};
use addr::{ApicId, Vector};

/// CAP with eight fault records.
const EIGHT: u64 = CAP | 7 << 40;

fn fault(inner: &mut super::fake::Inner, index: usize, page: u64) {
    inner.record(index, page << 12, 6 << 32 | 1 << 62 | 0x10);
}

#[test]
fn faults_are_reported_oldest_first_with_a_wrap_to_record_zero() {
    let fake = Fake::with(EIGHT, ECAP);
    let (mut unit, _) = fake.up();
    fake.inner(|inner| (0..4).for_each(|i| fault(inner, (6 + i) % 8, i as u64)));
    let mut pages = Vec::new();
    let drain = unit.drain_faults(|record| {
        assert_eq!(record.reason, FaultReason::NO_READ_PERMISSION);
        pages.push(record.address >> 12);
    });
    assert_eq!(pages, [0, 1, 2, 3]);
    assert_eq!(drain, FaultDrain { records: 4, overflow: false, more: false });
    let clears: Vec<_> = fake.take_log();
    let record = |index: u16| Event::Write64(FAULT_RECORDS + index * 16 + 8, 1 << 63);
    assert_eq!(clears, [record(6), record(7), record(0), record(1)], "only F is written, and only where it was set");
    assert_eq!(unit.drain_faults(|_| panic!("drained")), FaultDrain::default());
}

#[test]
fn an_overflow_is_cleared_after_the_records_and_alone() {
    let fake = Fake::with(EIGHT, ECAP);
    let (mut unit, _) = fake.up();
    fake.inner(|inner| {
        fault(inner, 0, 1);
        inner.fsts |= 1 | 0x70;
    });
    assert!(unit.drain_faults(|_| ()).overflow);
    assert_eq!(fake.inner(|inner| inner.fsts) & 0x73, 0x70, "IQE, ICE and ITE are not lost");
    let log = fake.take_log();
    assert_eq!(log.last(), Some(&Event::Write32(0x34, 1)));
    assert_eq!(log.len(), 2);
}

#[test]
fn a_device_that_faults_without_end_does_not_hold_the_processor() {
    let fake = Fake::with(EIGHT, ECAP);
    let (mut unit, _) = fake.up();
    fake.inner(|inner| {
        (0..8).for_each(|i| fault(inner, i, 1));
        inner.new_fault_after_clear = usize::MAX;
    });
    let drain = unit.drain_faults(|_| ());
    assert_eq!(drain.records, 16);
    assert!(drain.more);
}

#[test]
fn an_index_that_names_no_record_is_not_followed() {
    let fake = Fake::with(EIGHT, ECAP);
    let (mut unit, _) = fake.up();
    fake.inner(|inner| {
        fault(inner, 3, 1);
        inner.fsts = 2 | 0xf3 << 8;
    });
    assert_eq!(unit.drain_faults(|_| ()).records, 1);
}

#[test]
fn a_unit_that_has_gone_reports_nothing() {
    let fake = Fake::with(EIGHT, ECAP);
    let (mut unit, _) = fake.up();
    fake.inner(|inner| inner.fsts = u32::MAX);
    assert_eq!(unit.drain_faults(|_| panic!("no record")), FaultDrain::default());
    fake.inner(|inner| {
        inner.fsts = 2;
        inner.records.fill((u64::MAX, u64::MAX));
    });
    assert_eq!(unit.drain_faults(|_| panic!("no record")), FaultDrain::default());
}

#[test]
fn what_firmware_left_is_cleared_bit_by_bit() {
    let fake = Fake::with(EIGHT, ECAP);
    fake.inner(|inner| {
        fault(inner, 5, 1);
        inner.fsts |= 0x71;
        inner.fectl = 1 << 30;
    });
    let mut unit = fake.probe().unwrap();
    unit.stop_firmware().unwrap();
    fake.take_log();
    unit.mask_and_clear_faults().unwrap();
    let expected = [
        Event::Write32(0x38, 1 << 31),
        Event::Write64(FAULT_RECORDS + 5 * 16 + 8, 1 << 63),
        Event::Write32(0x34, 1),
        Event::Write32(0x34, 0x10),
        Event::Write32(0x34, 0x20),
        Event::Write32(0x34, 0x40),
    ];
    assert_eq!(fake.take_log(), expected);
}

#[test]
fn the_fault_interrupt_is_masked_while_it_is_programmed_and_keeps_reserved_bits() {
    let fake = Fake::new();
    let (mut unit, _) = fake.up();
    fake.inner(|inner| inner.fectl = 1 << 30 | 0x55);
    unit.enable_fault_interrupt(FaultInterrupt { vector: Vector(0x61), destination: ApicId(1) }).unwrap();
    let expected = [
        Event::Write32(0x38, 1 << 31 | 0x55),
        Event::Write32(0x3c, 0x61),
        Event::Write32(0x40, 0xfee0_1000),
        Event::Write32(0x44, 0),
        Event::Write32(0x38, 0x55),
    ];
    assert_eq!(fake.take_log(), expected);
}

#[test]
fn a_fault_interrupt_that_cannot_arrive_is_refused() {
    let fake = Fake::with(CAP, ECAP & !0x10);
    let mut unit = fake.probe().unwrap();
    assert!(matches!(unit.unmask_fault_interrupt(), Err(Error::OutOfOrder { .. })));
    let far = FaultInterrupt { vector: Vector(0x61), destination: ApicId(0x100) };
    assert_eq!(unit.enable_fault_interrupt(far), Err(Error::DestinationOutOfRange(ApicId(0x100))));
    let low = FaultInterrupt { vector: Vector(3), destination: ApicId(0) };
    assert_eq!(unit.enable_fault_interrupt(low), Err(Error::BadVector(Vector(3))));
    unit.enable_fault_interrupt(FaultInterrupt { vector: Vector(0x61), destination: ApicId(1) }).unwrap();
    let log = fake.take_log();
    assert!(!log.iter().any(|event| matches!(event, Event::Write32(0x44, _))), "FEUADDR comes with EIM");
    unit.mask_fault_interrupt();
    assert_eq!(fake.inner(|inner| inner.fectl), 1 << 31);
    unit.unmask_fault_interrupt().unwrap();
    assert_eq!(fake.inner(|inner| inner.fectl), 0);
}

#[test]
fn the_least_vector_that_can_be_delivered_is_16() {
    let (mut unit, _) = Fake::new().up();
    for (number, deliverable) in [(15, false), (16, true), (255, true)] {
        let interrupt = FaultInterrupt { vector: Vector(number), destination: ApicId(1) };
        let refused = Err(Error::BadVector(Vector(number)));
        assert_eq!(unit.enable_fault_interrupt(interrupt), if deliverable { Ok(()) } else { refused });
        assert_eq!(unit.unmask_fault_interrupt().is_ok(), deliverable, "{number}");
    }
}

#[test]
fn a_record_of_which_one_half_is_all_ones_is_a_record() {
    for (low, high) in [(u64::MAX, 6 << 32 | 1 << 62 | 0x10), (0x5000, u64::MAX)] {
        let fake = Fake::with(EIGHT, ECAP);
        let (mut unit, _) = fake.up();
        fake.inner(|inner| inner.record(2, low, high));
        let mut addresses = Vec::new();
        assert_eq!(unit.drain_faults(|record| addresses.push(record.address)).records, 1);
        assert_eq!(addresses, [low & !0xfff]);
    }
}

#[test]
fn whatever_record_hardware_names_all_that_are_pending_are_reported_once() {
    for first in [0, 1, 127, 254, 255] {
        let fake = Fake::with(CAP & !(0xff << 40) | 255 << 40, ECAP);
        let (mut unit, _) = fake.up();
        fake.inner(|inner| {
            (0..256).for_each(|index| fault(inner, index, index as u64));
            inner.fsts = 2 | first << 8;
        });
        let mut pages = Vec::new();
        assert_eq!(unit.drain_faults(|record| pages.push(record.address >> 12)).records, 256);
        let expected: Vec<_> = (0..256).map(|step| (u64::from(first) + step) % 256).collect();
        assert_eq!(pages, expected);
    }
}
