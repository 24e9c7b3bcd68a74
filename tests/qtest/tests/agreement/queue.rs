//! The invalidation queue: order, wrap, and what becomes of a descriptor that the unit refuses.

use crate::case::{Case, LEGACY, SCALABLE, Setting};
use addr::{DomainId, HostPhys, Iova, PAGE_SIZE};
use paging::Permissions;
use qtest::glue::UNIT;
use qtest::{Bench, Mode, Space};
use std::cell::Cell;
use std::rc::Rc;
use vtd::{Error, IotlbInvalidation, QueueError};

const IQH: u64 = UNIT + 0x80;
const IQT: u64 = UNIT + 0x88;
const IQA: u64 = UNIT + 0x90;
const FSTS: u64 = UNIT + 0x34;
const GCMD: u64 = UNIT + 0x18;
const GSTS: u64 = UNIT + 0x1c;
/// FSTS.IQE.
const QUEUE_ERROR: u32 = 1 << 4;
/// GCMD.QIE.
const QUEUE: u32 = 1 << 26;

const IOVA: u64 = 0x77_7000;

/// A descriptor that QEMU refuses, made of one that it would take.
struct Spoil {
    name: &'static str,
    /// Of which type: 1 context cache, 2 IOTLB, 5 wait, 6 PASID-based IOTLB.
    of_type: u64,
    /// What changes in its two halves.
    spoil: fn(u64, u64) -> (u64, u64),
    /// Whether the driver can still see what it was, and have the unit do that and more in its place.
    recovers: bool,
}

const SPOILT: [Spoil; 11] = [
    Spoil { name: "an unknown type", of_type: 2, spoil: |low, high| (low | 0xf, high), recovers: false },
    Spoil { name: "type 0", of_type: 2, spoil: |low, high| (low & !0xf, high), recovers: false },
    Spoil { name: "an IOTLB granularity of 0", of_type: 2, spoil: |low, high| (low & !0x30, high), recovers: true },
    Spoil {
        name: "reserved bits of an IOTLB descriptor",
        of_type: 2,
        spoil: |low, high| (low | 1 << 12, high),
        recovers: true,
    },
    Spoil {
        name: "an address mask beyond CAP.MAMV",
        of_type: 2,
        spoil: |low, high| (low | 0x30, high | 0x3f),
        recovers: true,
    },
    Spoil {
        name: "a context-cache granularity of 0",
        of_type: 1,
        spoil: |low, high| (low & !0x30, high),
        recovers: true,
    },
    Spoil {
        name: "reserved bits of a context-cache descriptor",
        of_type: 1,
        spoil: |low, high| (low | 1 << 12, high),
        recovers: true,
    },
    Spoil {
        name: "a PASID-based IOTLB granularity of 0",
        of_type: 6,
        spoil: |low, high| (low & !0x30, high),
        recovers: true,
    },
    Spoil {
        name: "reserved bits of a PASID-based IOTLB descriptor",
        of_type: 6,
        spoil: |low, high| (low | 1 << 12, high),
        recovers: true,
    },
    Spoil { name: "a wait that does nothing", of_type: 5, spoil: |low, high| (low & !0x30, high), recovers: false },
    Spoil { name: "reserved bits of a wait", of_type: 5, spoil: |low, high| (low | 1 << 12, high), recovers: false },
];

const LEGACY_MODE: Setting = LEGACY[4];
const SECOND_STAGE: Setting = SCALABLE[1];
const FIRST_STAGE: Setting = SCALABLE[3];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for setting in [LEGACY_MODE, SECOND_STAGE, FIRST_STAGE] {
        // With the first stage, pages go by PASID-based descriptors, and with the second by others.
        let other = if setting.mode == Mode::ScalableFirst { 2 } else { 6 };
        for spoilt in const { &SPOILT }.iter().filter(|spoilt| spoilt.of_type != other) {
            let name = format!("queue: {} is refused, and the queue goes on", spoilt.name);
            cases.push(setting.case(&name, move |bench| refused(bench, spoilt)));
        }
        cases.push(setting.case("queue: a tail beyond the ring", bad_tail));
        cases.push(setting.case("queue: a unit that does nothing, and completes late", late));
    }
    for setting in [LEGACY_MODE, SECOND_STAGE] {
        cases.push(setting.case("queue: twenty times around the ring, in order", around));
        cases.push(setting.case("queue: batches of every size, at every place of the ring", sizes));
        cases.push(setting.case("queue: a descriptor in the middle of a batch is refused", middle));
    }
    cases.push(Case::new("queue: draining is asked for where the unit can", "dma-drain=on", |machine| {
        assert!(drain_bits(&mut Bench::up(machine)).into_iter().all(|bits| bits == 0xc0));
    }));
    cases.push(Case::new("queue: draining is not asked for where the unit cannot", "dma-drain=off", |machine| {
        assert!(drain_bits(&mut Bench::up(machine)).into_iter().all(|bits| bits == 0));
    }));
    cases
}

/// The bits DW and DR of the IOTLB descriptors of some work.
fn drain_bits(bench: &mut Bench) -> Vec<u64> {
    let (mut space, _) = warm(bench);
    bench.unmap(&mut space, IOVA, PAGE_SIZE);
    bench.clear(bench.edus[0].bdf());
    let descriptors = bench.machine.events().descriptors();
    let bits: Vec<_> = descriptors.iter().filter(|(kind, ..)| kind == "iotlb").map(|(_, _, low)| low & 0xc0).collect();
    assert!(bits.len() >= 2, "{descriptors:x?}");
    bits
}

/// A space of the first edu with a page that is cached.
fn warm(bench: &mut Bench) -> (Space, HostPhys) {
    let mut space = bench.preferred_space();
    let page = bench.memory.take_pages(PAGE_SIZE, PAGE_SIZE);
    bench.assign(bench.edus[0].bdf(), &space);
    bench.map(&mut space, IOVA, page, PAGE_SIZE, Permissions::READ_WRITE);
    bench.expect_write(0, IOVA, page);
    (space, page)
}

fn page(number: u64) -> IotlbInvalidation {
    let start = Iova::new(number * PAGE_SIZE);
    IotlbInvalidation::Range { domain: DomainId(1), start, bytes: PAGE_SIZE, leaves_only: false }
}

/// The addresses of the page-selective IOTLB descriptors that the unit took, as page numbers.
fn pages(bench: &Bench) -> Vec<u64> {
    let events = bench.machine.events();
    let taken = events.descriptors();
    taken.iter().filter(|(kind, ..)| kind == "iotlb").map(|(_, high, _)| high >> 12).collect()
}

fn around(bench: &mut Bench) {
    // Two descriptors each: one, and its wait.
    const COUNT: u64 = 20 * 128;
    bench.machine.events();
    let ring = Ring::of(bench);
    let mut tails = 0;
    for number in 0..COUNT {
        bench.unit.invalidate_iotlb(&mut bench.memory, [page(number)]).expect("it completes");
        if number % 100 == 99 || number + 1 == COUNT {
            let events = bench.machine.events();
            tails += events.count("vtd_inv_qi_tail");
            let taken = events.descriptors();
            let first = number - number % 100;
            let pages: Vec<_> =
                taken.iter().filter(|(kind, ..)| kind == "iotlb").map(|(_, high, _)| high >> 12).collect();
            assert!(pages.into_iter().eq(first..=number), "each once, in order");
        }
        let (head, tail) = (bench.machine.read64(IQH), bench.machine.read64(IQT));
        assert_eq!(head, tail, "all is done");
        assert!(tail < ring.bytes);
    }
    assert_eq!(tails as u64, COUNT, "one tail write a batch");
    assert_eq!(bench.machine.read32(FSTS), 0);
}

fn sizes(bench: &mut Bench) {
    bench.machine.events();
    for size in 0..=100 {
        bench.unit.invalidate_iotlb(&mut bench.memory, (0..size).map(page)).expect("it completes");
        assert!(pages(bench).into_iter().eq(0..size), "a batch of {size}");
    }
    // More than the ring holds.
    bench.unit.invalidate_iotlb(&mut bench.memory, (0..1000).map(page)).expect("it completes");
    assert!(pages(bench).into_iter().eq(0..1000));
    assert_eq!(bench.machine.read32(FSTS), 0);
}

/// The ring as the unit has it: where it begins, its length, and the length of a descriptor, in bytes (IQA: QS in 2:0;
/// QEMU 7.2 does not show DW).
struct Ring {
    start: u64,
    bytes: u64,
    stride: u64,
}

impl Ring {
    fn of(bench: &Bench) -> Self {
        let register = bench.machine.read64(IQA);
        Self {
            start: register & !0xfff,
            bytes: PAGE_SIZE << (register & 7),
            stride: if bench.mode == Mode::Legacy { 16 } else { 32 },
        }
    }

    /// The index of the descriptor that begins at `address`, if one does.
    fn index(&self, address: HostPhys) -> Option<u64> {
        let offset = address.as_u64().checked_sub(self.start)?;
        (offset < self.bytes && offset % self.stride == 0).then_some(offset / self.stride)
    }
}

/// Spoils the next descriptor that the driver writes to the ring and `which` accepts, by its low half. Answers whether it
/// has.
fn spoil_next(
    bench: &mut Bench,
    which: impl Fn(u64, u64) -> bool + 'static,
    spoil: fn(u64, u64) -> (u64, u64),
) -> Rc<Cell<Option<HostPhys>>> {
    let ring = Ring::of(bench);
    let place = Rc::new(Cell::new(None));
    let spoilt = place.clone();
    // The low half is written before the high half, so the high half must be guessed: it decides nothing that is spoilt in
    // the low one.
    bench.memory.tamper(move |address, value| match (spoilt.get(), ring.index(address)) {
        (None, Some(index)) if which(value, index) => {
            spoilt.set(Some(address));
            spoil(value, 0).0
        }
        (Some(low), _) if address.as_u64() == low.as_u64() + 8 => spoil(0, value).1,
        _ => value,
    });
    place
}

fn refused(bench: &mut Bench, spoilt: &Spoil) {
    let (mut space, host) = warm(bench);
    let source = bench.edus[0].bdf();
    let of_type = spoilt.of_type;
    let place = spoil_next(bench, move |low, _| low & 0xf == of_type, spoilt.spoil);
    let outcome = if of_type == 1 {
        bench.unit.clear(&mut bench.memory, source)
    } else {
        let flush = bench.unmap_only(&mut space, IOVA, PAGE_SIZE);
        let change = *flush.invalidation().expect("a page went");
        bench.invalidate(&space, &change).map(drop)
    };
    // Once: in its place stands a harmless one now, at which the unit goes on.
    bench.memory.stop_tampering();
    let place = place.get().expect("a descriptor was spoilt");
    let index = Ring::of(bench).index(place).expect("a descriptor");
    assert_eq!(bench.machine.read32(FSTS) & QUEUE_ERROR, 0, "the error is cleared");
    if spoilt.recovers {
        assert_eq!(outcome, Ok(()));
        let reasons = bench.reasons();
        bench.expect_no_write(0, IOVA, host, if of_type == 1 { reasons.no_context } else { reasons.no_write });
        bench.unit.invalidate_iotlb(&mut bench.memory, (0..300).map(page)).expect("the queue goes on");
        return;
    }
    match outcome {
        Err(Error::Invalidation(QueueError::Refused { index: found, .. })) => assert_eq!(u64::from(found), index),
        other => panic!("{other:?}"),
    }
    assert!(bench.unit.is_poisoned());
    if of_type != 5 {
        // What should have been invalidated is still in use: the driver's error is no false alarm.
        bench.expect_write(0, IOVA, host);
    }
    // The unit lets go of the device, with all that is cached, and when it has forgotten everything, it takes it again.
    bench.clear(source);
    bench.expect_no_write(0, IOVA, host, bench.reasons().no_context);
    bench.unit.recover(&mut bench.memory).expect("everything is forgotten");
    bench.map(&mut space, IOVA + 8 * PAGE_SIZE, host, PAGE_SIZE, Permissions::READ_WRITE);
    bench.assign(source, &space);
    bench.expect_write(0, IOVA + 8 * PAGE_SIZE, host);
    bench.unit.invalidate_iotlb(&mut bench.memory, (0..300).map(page)).expect("the queue goes on");
}

fn middle(bench: &mut Bench) {
    let mut space = bench.preferred_space();
    let host = bench.memory.take_pages(20 * PAGE_SIZE, PAGE_SIZE).as_u64();
    bench.assign(bench.edus[0].bdf(), &space);
    bench.map(&mut space, 0, HostPhys::new(host), 20 * PAGE_SIZE, Permissions::READ_WRITE);
    for number in 0..20 {
        bench.expect_write(0, number * PAGE_SIZE, HostPhys::new(host + number * PAGE_SIZE));
    }
    let _flush = bench.unmap_only(&mut space, 0, 20 * PAGE_SIZE);
    // The eighth descriptor from here: page 7.
    let ring = Ring::of(bench);
    let (first, places) = (bench.machine.read64(IQT) / ring.stride, ring.bytes / ring.stride);
    spoil_next(bench, move |_, index| index == (first + 7) % places, |low, high| (low & !0x30, high));
    bench.unit.invalidate_iotlb(&mut bench.memory, (0..20).map(page)).expect("it completes");
    bench.memory.stop_tampering();
    // Not one of the others is lost, and what was refused is done in another way.
    for number in 0..20 {
        bench.expect_no_write(
            0,
            number * PAGE_SIZE,
            HostPhys::new(host + number * PAGE_SIZE),
            bench.reasons().no_write,
        );
    }
}

fn bad_tail(bench: &mut Bench) {
    let (mut space, host) = warm(bench);
    let beyond = Ring::of(bench).bytes;
    bench.machine.write64(IQT, beyond);
    assert_ne!(bench.machine.read32(FSTS) & QUEUE_ERROR, 0);
    let flush = bench.unmap_only(&mut space, IOVA, PAGE_SIZE);
    let change = *flush.invalidation().expect("a page went");
    let outcome = bench.invalidate(&space, &change);
    // Whether the driver could do it or not: if it says so, it is done.
    match outcome {
        Ok(_) => drop(bench.expect_no_write(0, IOVA, host, bench.reasons().no_write)),
        Err(error) => assert!(matches!(error, Error::Invalidation(_)) && bench.unit.is_poisoned(), "{error}"),
    }
    bench.clear(bench.edus[0].bdf());
    bench.expect_no_write(0, IOVA, host, bench.reasons().no_context);
    assert_eq!(bench.machine.read32(FSTS) & QUEUE_ERROR, 0);
}

fn late(bench: &mut Bench) {
    let (mut space, host) = warm(bench);
    let on = bench.machine.read32(GSTS) & 0x96ff_ffff;
    bench.machine.write32(GCMD, on & !QUEUE);
    assert_eq!(bench.machine.read32(GSTS) & QUEUE, 0, "the queue is off");
    bench.unit.set_timeout_us(20_000);
    let flush = bench.unmap_only(&mut space, IOVA, PAGE_SIZE);
    let change = *flush.invalidation().expect("a page went");
    let outcome = bench.invalidate(&space, &change);
    assert!(matches!(outcome, Err(Error::Invalidation(QueueError::Timeout { .. }))), "{outcome:?}");
    assert!(bench.unit.is_poisoned());
    bench.expect_write(0, IOVA, host);
    // Now it works off all that stands in the ring, from its beginning, and with it the wait that nobody awaits.
    bench.machine.write32(GCMD, on);
    assert_eq!(bench.machine.read64(IQH), bench.machine.read64(IQT));
    bench.unit.set_timeout_us(vtd::DEFAULT_TIMEOUT_US);
    bench.expect_no_write(0, IOVA, host, bench.reasons().no_write);
    bench.clear(bench.edus[0].bdf());
    bench.expect_no_write(0, IOVA, host, bench.reasons().no_context);
}
