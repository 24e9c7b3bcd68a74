//! Every reason for which QEMU's unit refuses DMA, as the driver's drain reports it; overflow, compression, and the fault
//! interrupt.
//!
//! Left out, because QEMU knows no way to it: 0x0d (its edu sends no translated request).

use crate::case::{Case, LEGACY, Setting};
use addr::{ApicId, DomainId, HostPhys, Iova, PAGE_SIZE, Vector};
use paging::Permissions;
use qtest::memory::NOTHING;
use qtest::tables::{context_entry, paging_entry, root_entry};
use qtest::{Bench, Space, glue};
use vtd::{FaultInterrupt, FaultKind, FaultReason, Levels};

/// What is mapped for the first edu in most cases.
const IOVA: u64 = 0x1234_5000;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |name: &str, body: fn(&mut Bench)| {
        cases.push(Case::new(name, "", move |machine| body(&mut Bench::up(machine))));
    };
    case("0x01: no root entry for the bus", |bench| {
        let page = bench.memory.take_pages(PAGE_SIZE, PAGE_SIZE);
        refused(bench, page, 0x01);
    });
    case("0x02: no context entry for the device, though one for its neighbour", |bench| {
        let space = bench.preferred_space();
        bench.assign(bench.edus[1].bdf(), &space);
        let page = bench.memory.take_pages(PAGE_SIZE, PAGE_SIZE);
        refused(bench, page, 0x02);
    });
    case("0x03: a translation type that is reserved", |bench| {
        spoilt_context(bench, 0x03, |low, high| (low | 3 << 2, high))
    });
    case("0x03: the second-stage table is no memory", |bench| {
        spoilt_context(bench, 0x03, |low, high| (low & 0xfff | NOTHING.as_u64(), high));
    });
    case("0x03: more levels than the unit has", |bench| spoilt_context(bench, 0x03, |low, high| (low, high & !7 | 3)));
    case("0x05 and 0x06: nothing is mapped", |bench| {
        let (_, page) = mapped(bench);
        let edu = bench.edus[0].clone();
        for iova in [0, IOVA - 8, IOVA + PAGE_SIZE, 0x7f_ffff_f000] {
            edu.write(Iova::new(iova));
            bench.expect_dma_fault(edu.bdf(), FaultKind::Write, iova, 0x05);
            edu.read(Iova::new(iova));
            bench.expect_dma_fault(edu.bdf(), FaultKind::Read, iova, 0x06);
        }
        bench.expect_write(0, IOVA, page);
    });
    case("0x07: a table in the middle is no memory", |bench| {
        spoilt_paging(bench, 2, 0x07, |entry| entry & 0xfff | NOTHING.as_u64())
    });
    case("0x08: the root table is no memory", |bench| {
        let (_, page) = mapped(bench);
        bench.machine.write64(glue::UNIT + 0x20, NOTHING.as_u64());
        // Set the root table pointer: what is on stays on, and bit 30.
        let status = bench.machine.read32(glue::UNIT + 0x1c);
        bench.machine.write32(glue::UNIT + 0x18, status & 0x96ff_ffff | 1 << 30);
        refused(bench, page, 0x08);
    });
    case("0x09: the context table is no memory", |bench| {
        spoilt_root(bench, 0x09, |low, high| (low & 0xfff | NOTHING.as_u64(), high))
    });
    case("0x0a: reserved bits in the low half of the root entry", |bench| {
        spoilt_root(bench, 0x0a, |low, high| (low | 1 << 11, high))
    });
    case("0x0a: reserved bits in the high half of the root entry", |bench| spoilt_root(bench, 0x0a, |low, _| (low, 1)));
    case("0x0b: reserved bits in the low half of the context entry", |bench| {
        spoilt_context(bench, 0x0b, |low, high| (low | 1 << 4, high))
    });
    case("0x0b: reserved bits in the high half of the context entry", |bench| {
        spoilt_context(bench, 0x0b, |low, high| (low, high | 1 << 24));
    });
    for level in 1..=3 {
        cases.push(Case::new(
            format!("0x0c: an address of too many bits at level {level}"),
            "aw-bits=39",
            move |machine| {
                spoilt_paging(&mut Bench::up(machine), level, 0x0c, |entry| entry | 1 << 40);
            },
        ));
    }
    cases.push(Case::new("0x0c: a large page that is not aligned", "", |machine| {
        let mut bench = Bench::up(machine);
        spoilt_paging(&mut bench, 2, 0x0c, |entry| entry | 1 << 7 | 1 << 13);
    }));
    cases.push(Case::new("0x0e: a page in the interrupt range", "", |machine| {
        let mut bench = Bench::up(machine);
        let (mut space, page) = mapped(&mut bench);
        let messages = HostPhys::new(0xfee0_0000);
        bench.map(&mut space, 0x5000, messages, PAGE_SIZE, Permissions::READ_WRITE);
        bench.edus[0].write(Iova::new(0x5000));
        let events = bench.expect_dma_fault(bench.edus[0].bdf(), FaultKind::Write, 0x5000, 0x0e).events;
        assert_eq!(events.interrupts(), [], "no message came of it");
        bench.expect_write(0, IOVA, page);
    }));
    cases.push(Case::new("0x03: pass-through on a unit without it", "pt=off", |machine| {
        spoilt_context(&mut Bench::up(machine), 0x03, |low, high| (low | 2 << 2, high));
    }));
    cases.push(Case::new("0x03: four levels on a unit of three", "aw-bits=39", |machine| {
        let mut bench = Bench::up(machine);
        // The driver refuses to.
        let space = bench.preferred_space();
        let source = bench.edus[0].bdf();
        let outcome = bench.unit.assign(&mut bench.memory, source, DomainId(9), space.root(), Levels::Four);
        assert_eq!(outcome, Err(vtd::Error::LevelsUnsupported(4)));
        spoilt_context(&mut bench, 0x03, |low, high| (low, high & !7 | 2));
    }));
    for setting in LEGACY {
        cases.push(setting.case("0x04: an address beyond the table", move |bench| beyond(bench, setting)));
    }
    let mut case = |name: &str, body: fn(&mut Bench)| {
        cases.push(Case::new(name, "", move |machine| body(&mut Bench::up(machine))));
    };
    case("a context entry that disables fault processing is silent", silent);
    case("faults of one source are compressed", compressed);
    case("a second source overflows the one record, and recording goes on after the drain", overflow);
    case("the fault interrupt comes once for each drain, and late when it was masked", fault_interrupt);
    cases.push(Case::new("faults that were left are cleared, and do not stop the bring-up", "", left_over));
    cases
}

/// A page at [`IOVA`] for the first edu, that has not used it yet.
fn mapped(bench: &mut Bench) -> (Space, HostPhys) {
    let mut space = bench.preferred_space();
    let page = bench.memory.take_pages(PAGE_SIZE, PAGE_SIZE);
    bench.assign(bench.edus[0].bdf(), &space);
    bench.map(&mut space, IOVA, page, PAGE_SIZE, Permissions::READ_WRITE);
    bench.machine.events();
    (space, page)
}

/// A read and a write at [`IOVA`] are refused.
fn refused(bench: &mut Bench, page: HostPhys, reason: u8) {
    bench.expect_no_write(0, IOVA + 0x18, page, reason);
    bench.edus[0].read(Iova::new(IOVA + 0x18));
    bench.expect_dma_fault(bench.edus[0].bdf(), FaultKind::Read, IOVA + 0x18, reason);
}

/// Replaces the two halves of the entry at `place`, and expects the reason; then the right entry again, which works: it
/// was that change and nothing else.
fn spoilt(bench: &mut Bench, page: HostPhys, place: HostPhys, reason: u8, spoil: fn(u64, u64) -> (u64, u64)) {
    let high = HostPhys::new(place.as_u64() + 8);
    let right = (bench.memory.load(place), bench.memory.load(high));
    let wrong = spoil(right.0, right.1);
    assert_ne!(right, wrong);
    bench.memory.store(high, wrong.1);
    bench.memory.store(place, wrong.0);
    refused(bench, page, reason);
    bench.memory.store(high, right.1);
    bench.memory.store(place, right.0);
    bench.unit.recover(&mut bench.memory).expect("everything is forgotten");
    bench.expect_write(0, IOVA, page);
}

fn spoilt_context(bench: &mut Bench, reason: u8, spoil: fn(u64, u64) -> (u64, u64)) {
    let (_, page) = mapped(bench);
    let place = context_entry(bench, bench.edus[0].bdf());
    spoilt(bench, page, place, reason, spoil);
}

fn spoilt_root(bench: &mut Bench, reason: u8, spoil: fn(u64, u64) -> (u64, u64)) {
    let (_, page) = mapped(bench);
    let place = root_entry(bench, bench.edus[0].bdf());
    spoilt(bench, page, place, reason, spoil);
}

fn spoilt_paging(bench: &mut Bench, level: u8, reason: u8, spoil: fn(u64) -> u64) {
    let (space, page) = mapped(bench);
    let place = paging_entry(bench, space.root(), space.levels.count(), IOVA, level);
    let right = bench.memory.load(place);
    bench.memory.store(place, spoil(right));
    refused(bench, page, reason);
    // QEMU has cached nothing of it.
    bench.memory.store(place, right);
    bench.expect_write(0, IOVA, page);
}

fn beyond(bench: &mut Bench, setting: Setting) {
    let space = bench.space(setting.levels);
    bench.assign(bench.edus[0].bdf(), &space);
    let edu = bench.edus[0].clone();
    for iova in [setting.end(), setting.end() << 1, 1 << 63, u64::MAX - 0xfff] {
        edu.write(Iova::new(iova));
        bench.expect_dma_fault(edu.bdf(), FaultKind::Write, iova, 0x04);
        edu.read(Iova::new(iova));
        bench.expect_dma_fault(edu.bdf(), FaultKind::Read, iova, 0x04);
    }
    edu.write(Iova::new(setting.end() - 8));
    bench.expect_dma_fault(edu.bdf(), FaultKind::Write, setting.end() - 8, 0x05);
}

fn silent(bench: &mut Bench) {
    let (_, page) = mapped(bench);
    let edu = bench.edus[0].clone();
    let place = context_entry(bench, edu.bdf());
    let right = bench.memory.load(place);
    // FPD, bit 1.
    bench.memory.store(place, right | 2);
    edu.write(Iova::new(IOVA + PAGE_SIZE));
    let outcome = bench.expect_no_fault();
    assert!(outcome.events.count("vtd_fault_disabled") > 0, "QEMU refused it");
    bench.expect_write(0, IOVA, page);
}

fn compressed(bench: &mut Bench) {
    let (_, page) = mapped(bench);
    let edu = bench.edus[0].clone();
    for iova in [0x1000, 0x2000, 0x3000] {
        edu.write(Iova::new(iova));
    }
    let outcome = bench.outcome();
    let seen = outcome.events.dma_faults();
    assert!([0x1000, 0x2000, 0x3000].iter().all(|iova| seen.iter().any(|fault| fault.address == *iova)));
    let reported: Vec<_> = outcome.faults.iter().map(|fault| fault.address).collect();
    assert_eq!(reported, [0x1000], "the first is recorded, the others are compressed into it");
    assert!(!outcome.drain.overflow && !outcome.drain.more);
    bench.expect_write(0, IOVA, page);
    bench.expect_no_write(0, 0x4000, page, 0x05);
}

fn overflow(bench: &mut Bench) {
    mapped(bench);
    let edus = bench.edus.clone();
    for _ in 0..3 {
        edus[0].write(Iova::new(0x1000));
        edus[1].write(Iova::new(0x2000));
        // Nothing is recorded any more, of no source.
        edus[0].write(Iova::new(0x3000));
        let outcome = bench.outcome();
        let reported: Vec<_> = outcome.faults.iter().map(|fault| (fault.source, fault.address)).collect();
        assert_eq!(reported, [(edus[0].bdf(), 0x1000)]);
        assert!(outcome.drain.overflow, "the second edu's fault was lost, and the drain says so");
        assert!(!outcome.drain.more);
        edus[1].write(Iova::new(0x4000));
        let outcome = bench.outcome();
        let reported: Vec<_> = outcome.faults.iter().map(|fault| (fault.source, fault.address)).collect();
        assert_eq!(reported, [(edus[1].bdf(), 0x4000)]);
        assert!(!outcome.drain.overflow);
    }
}

fn fault_interrupt(bench: &mut Bench) {
    mapped(bench);
    let (vector, destination) = (Vector(0x91), ApicId(0));
    bench
        .unit
        .enable_fault_interrupt(FaultInterrupt { vector, destination })
        .expect("vector and destination are right");
    let edu = bench.edus[0].clone();
    bench.expect_no_fault();
    for _ in 0..2 {
        edu.write(Iova::new(0x1000));
        assert_eq!(bench.machine.events().interrupts(), [(0, 0x91)]);
        edu.write(Iova::new(0x2000));
        assert_eq!(bench.machine.events().interrupts(), [], "one is pending already");
        let mut drained = Vec::new();
        assert!(!bench.unit.drain_faults(|record| drained.push(record.reason)).more);
        assert_eq!(drained, [FaultReason(0x05)]);
    }
    bench.unit.mask_fault_interrupt();
    edu.write(Iova::new(0x1000));
    assert_eq!(bench.machine.events().interrupts(), [], "it is masked");
    bench.unit.unmask_fault_interrupt().expect("it was sent somewhere");
    assert_eq!(bench.machine.events().interrupts(), [(0, 0x91)], "it comes late");
}

fn left_over(machine: &qtest::Machine) {
    let mut bench = Bench::up(machine);
    mapped(&mut bench);
    let edus = bench.edus.clone();
    edus[0].write(Iova::new(0x1000));
    edus[1].write(Iova::new(0x2000));
    let status = || machine.read32(glue::UNIT + 0x34);
    assert_eq!(status() & 3, 3, "a fault is pending, and one was lost");
    // Another driver comes, as after a warm start.
    bench.probe_again();
    bench.bring_up(&qtest::bench::CONFIGURATION);
    assert_eq!(status(), 0);
    assert_eq!(bench.unit.drain_faults(|_| ()).records, 0);
    machine.events();
    edus[1].write(Iova::new(0x2000));
    bench.expect_dma_fault(edus[1].bdf(), FaultKind::Write, 0x2000, 0x01);
}
