//! Scalable mode: every reason for which QEMU's unit refuses DMA there, pass-through, and what only its queue has.
//!
//! QEMU keeps no cache of PASID entries: an invalidation of them that is missing cannot show. Its edu sends no request with
//! a PASID.

use crate::case::{Case, LEGACY, SCALABLE, Setting};
use addr::{DomainId, HostPhys, Iova, PAGE_SIZE};
use paging::Permissions;
use qtest::bench::CONFIGURATION;
use qtest::glue::UNIT;
use qtest::memory::{HIGH_MEMORY, NOTHING};
use qtest::tables::{context_entry, directory_entry, paging_entry, pasid_entry, root_entry};
use qtest::{Bench, Mode, Space, Version};
use vtd::{Configuration, Error, FaultKind, Global, Handover, QueueLayout, Translation, TranslationMode};

const IOVA: u64 = 0x1234_5000;
const SECOND: Setting = SCALABLE[1];
const FIRST: Setting = SCALABLE[3];

/// Before it, QEMU said 0x58 whatever was wrong with PASID tables.
const TELLS_PASID_FAULTS_APART: Version = Version(10, 0, 0);

/// What is spoilt, how, and the reason.
struct Spoilt {
    name: &'static str,
    place: fn(&Bench) -> HostPhys,
    spoil: fn(u64) -> u64,
    reason: u8,
}

const fn spoilt(name: &'static str, reason: u8, place: fn(&Bench) -> HostPhys, spoil: fn(u64) -> u64) -> Spoilt {
    Spoilt { name, place, spoil, reason }
}

fn root(bench: &Bench) -> HostPhys {
    root_entry(bench, bench.edus[0].bdf())
}

fn other_half_of_root(bench: &Bench) -> HostPhys {
    HostPhys::new(root(bench).as_u64() ^ 8)
}

fn context(bench: &Bench) -> HostPhys {
    context_entry(bench, bench.edus[0].bdf())
}

fn directory(bench: &Bench) -> HostPhys {
    directory_entry(bench, bench.edus[0].bdf())
}

fn pasid(bench: &Bench) -> HostPhys {
    pasid_entry(bench, bench.edus[0].bdf())
}

fn word(place: HostPhys, number: u64) -> HostPhys {
    HostPhys::new(place.as_u64() + 8 * number)
}

fn nowhere(entry: u64) -> u64 {
    entry & 0xfff | NOTHING.as_u64()
}

/// Above PASID tables; the codes are those of legacy mode, see [`qtest::bench::Reasons`].
const ABOVE: [Spoilt; 8] = [
    spoilt("0x01: no root entry", 0x01, root, |entry| entry & !1),
    spoilt("0x02: no context entry", 0x02, context, |entry| entry & !1),
    spoilt("0x09: the context table is no memory", 0x09, root, nowhere),
    spoilt("0x0a: reserved bits in the root entry", 0x0a, root, |entry| entry | 1 << 11),
    spoilt("0x0a: reserved bits in the other half of the root entry", 0x0a, other_half_of_root, |entry| {
        entry | 1 << 11
    }),
    spoilt("0x0b: reserved bits in the context entry", 0x0b, context, |entry| entry | 1 << 5),
    spoilt("0x0b: reserved bits in its second word", 0x0b, |bench| word(context(bench), 1), |entry| entry | 1 << 21),
    spoilt("0x0b: reserved bits in its last word", 0x0b, |bench| word(context(bench), 3), |entry| entry | 1),
];

const PASIDS: [Spoilt; 6] = [
    spoilt("0x50: the PASID directory is no memory", 0x50, context, nowhere),
    spoilt("0x51: no PASID directory entry", 0x51, directory, |entry| entry & !1),
    spoilt("0x58: the PASID table is no memory", 0x58, directory, nowhere),
    spoilt("0x59: no PASID table entry", 0x59, pasid, |entry| entry & !1),
    spoilt("0x5b: a reserved translation type", 0x5b, pasid, |entry| entry & !0x1c0 | 7 << 6),
    spoilt("0x5b: nested translation, which the unit has not", 0x5b, pasid, |entry| entry & !0x1c0 | 3 << 6),
];

const SECOND_ONLY: [Spoilt; 2] = [
    spoilt("0x5b: more levels than the unit has", 0x5b, pasid, |entry| entry & !0x1c | 3 << 2),
    spoilt("0x5b: the first stage, which the unit has not", 0x5b, pasid, |entry| entry & !0x1c0 | 1 << 6),
];

const FIRST_ONLY: [Spoilt; 3] = [
    spoilt("0x73: the first-stage root is no memory", 0x73, |bench| word(pasid(bench), 2), nowhere),
    spoilt("0x5b: five levels, which the unit has not", 0x5b, |bench| word(pasid(bench), 2), |entry| entry | 1 << 2),
    spoilt("0x5b: the second stage, which the unit has not", 0x5b, pasid, |entry| entry & !0x1c0 | 2 << 6),
];

/// What is spoilt of the first-stage table at a level.
struct Walk {
    name: &'static str,
    level: u8,
    spoil: fn(u64) -> u64,
    reason: u8,
}

const WALK: [Walk; 6] = [
    Walk { name: "0x70: a table in the middle is no memory", level: 3, spoil: nowhere, reason: 0x70 },
    Walk { name: "0x71: an entry in the middle is not present", level: 2, spoil: |entry| entry & !1, reason: 0x71 },
    Walk { name: "0x71: the leaf is not present", level: 1, spoil: |entry| entry & !1, reason: 0x71 },
    Walk { name: "0x72: reserved bits in a leaf", level: 1, spoil: |entry| entry | 1 << 50, reason: 0x72 },
    Walk { name: "0x72: reserved bits at the top", level: 4, spoil: |entry| entry | 1 << 7, reason: 0x72 },
    Walk { name: "0x81: a page of the supervisor", level: 1, spoil: |entry| entry & !4, reason: 0x81 },
];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for setting in [SECOND, FIRST] {
        for entry in &ABOVE {
            cases.push(setting.case(&format!("scalable: {}", entry.name), move |bench| refused(bench, entry)));
        }
        let own = if setting.mode == Mode::ScalableFirst { FIRST_ONLY.as_slice() } else { SECOND_ONLY.as_slice() };
        for entry in const { &PASIDS }.iter().chain(own) {
            let case = setting.case(&format!("scalable: {}", entry.name), move |bench| refused(bench, entry));
            cases.push(case.needs_version(TELLS_PASID_FAULTS_APART, "gives one reason for all faults of PASID tables"));
        }
        let mut case = |name: &str, body: fn(&mut Bench)| {
            cases.push(setting.case(&format!("scalable: {name}"), body));
        };
        case("0x87: a page in the interrupt range", interrupt_range);
        case("entries that disable fault processing are silent", silent);
        case("pass-through, and back", pass_through);
        case("a PASID is detached", detached);
        case("what the unit has not is refused by the driver", unsupported);
        case("a range that is larger than any address mask", large_range);
        for size in [1, 2, 7] {
            let layout = QueueLayout { size, ..QueueLayout::SCALABLE };
            let name = format!("scalable: a ring of {} 256-bit descriptors", layout.places());
            cases.push(setting.unprepared_case(&name, move |bench| ring(bench, layout)));
        }
    }
    for Walk { name, level, spoil, reason } in WALK {
        cases.push(FIRST.case(&format!("scalable: {name}"), move |bench| {
            let (space, page) = mapped(bench);
            let place = paging_entry(bench, space.root(), 4, IOVA, level);
            spoil_and_mend(bench, page, place, spoil, reason);
        }));
    }
    cases.push(FIRST.case("scalable: 0x80: an address that is not canonical", |bench| {
        let (_, page) = mapped(bench);
        for iova in [1 << 47, 0xffff_7fff_ffff_f000, 1 << 63] {
            bench.expect_no_write(0, iova, page, 0x80);
        }
        // The upper half is canonical, and nothing is mapped there.
        bench.expect_no_write(0, 0xffff_8000_0000_0000, page, 0x71);
    }));
    for setting in LEGACY {
        cases.push(setting.case("pass-through, and back", pass_through));
    }
    for setting in [SECOND, FIRST] {
        cases.push(setting.unprepared_case("scalable: a unit that was left in legacy mode is taken over", from_legacy));
    }
    for size in [1, 3, 7] {
        let layout = QueueLayout { size, ..QueueLayout::LEGACY };
        let name = format!("queue: a ring of {} 128-bit descriptors", layout.places());
        cases.push(Case::new(name, "", move |machine| ring(&mut Bench::new(machine), layout)));
    }
    cases
}

/// A page at [`IOVA`] for the first edu.
fn mapped(bench: &mut Bench) -> (Space, HostPhys) {
    let mut space = bench.preferred_space();
    let page = bench.memory.take_pages(PAGE_SIZE, PAGE_SIZE);
    bench.assign(bench.edus[0].bdf(), &space);
    bench.map(&mut space, IOVA, page, PAGE_SIZE, Permissions::READ_WRITE);
    bench.machine.events();
    (space, page)
}

fn refused(bench: &mut Bench, spoilt: &Spoilt) {
    let (_, page) = mapped(bench);
    let place = (spoilt.place)(bench);
    spoil_and_mend(bench, page, place, spoilt.spoil, spoilt.reason);
}

/// Replaces a word of the tables, and expects the reason; then the right one again, which works.
fn spoil_and_mend(bench: &mut Bench, page: HostPhys, place: HostPhys, spoil: fn(u64) -> u64, reason: u8) {
    let right = bench.memory.load(place);
    let wrong = spoil(right);
    assert_ne!(right, wrong);
    bench.memory.store(place, wrong);
    bench.expect_no_write(0, IOVA + 0x20, page, reason);
    bench.edus[0].read(Iova::new(IOVA + 0x28));
    bench.expect_dma_fault(bench.edus[0].bdf(), FaultKind::Read, IOVA + 0x28, reason);
    bench.memory.store(place, right);
    bench.unit.recover(&mut bench.memory).expect("everything is forgotten");
    bench.expect_write(0, IOVA, page);
}

fn interrupt_range(bench: &mut Bench) {
    let (mut space, page) = mapped(bench);
    bench.map(&mut space, 0x5000, HostPhys::new(0xfee0_0000), PAGE_SIZE, Permissions::READ_WRITE);
    let source = bench.edus[0].bdf();
    bench.edus[0].write(Iova::new(0x5000));
    let events = bench.expect_dma_fault(source, FaultKind::Write, 0x5000, 0x87).events;
    assert_eq!(events.interrupts(), [], "no message came of it");
    bench.expect_write(0, IOVA, page);
}

fn silent(bench: &mut Bench) {
    let (_, page) = mapped(bench);
    for place in [context(bench), directory(bench), pasid(bench)] {
        // FPD, bit 1 in each.
        let right = bench.memory.load(place);
        bench.memory.store(place, right | 2);
        bench.unit.recover(&mut bench.memory).expect("everything is forgotten");
        bench.machine.events();
        bench.edus[0].write(Iova::new(IOVA + PAGE_SIZE));
        let outcome = bench.expect_no_fault();
        assert!(outcome.events.count("vtd_fault_disabled") > 0, "QEMU refused it");
        bench.expect_write(0, IOVA, page);
        bench.memory.store(place, right);
    }
}

fn pass_through(bench: &mut Bench) {
    let (space, page) = mapped(bench);
    let source = bench.edus[0].bdf();
    bench.expect_write(0, IOVA, page);
    let domain = DomainId(77);
    bench.unit.attach(&mut bench.memory, source, None, domain, Translation::PassThrough).expect("the unit passes");
    assert_eq!(bench.unit.attachment(&bench.memory, source, None), Some((domain, Translation::PassThrough)));
    for host in [page.as_u64() + 8, HIGH_MEMORY.start + 0x5008] {
        bench.expect_write(0, host, HostPhys::new(host));
    }
    if bench.mode != Mode::Legacy {
        // QEMU notices that pass-through ends when a context entry is invalidated, and not by a PASID's: the device would go on
        // reaching everything. Hardware looks at the PASID table entry.
        bench.clear(source);
    }
    bench.assign(source, &space);
    bench.expect_write(0, IOVA, page);
    bench.expect_no_write(0, page.as_u64(), page, bench.reasons().no_write);
    bench.unit.attach(&mut bench.memory, source, None, domain, Translation::PassThrough).expect("the unit passes");
    bench.expect_write(0, page.as_u64(), page);
    bench.clear(source);
    bench.expect_no_write(0, page.as_u64(), page, bench.reasons().no_context);
}

fn detached(bench: &mut Bench) {
    let (space, page) = mapped(bench);
    let source = bench.edus[0].bdf();
    bench.expect_write(0, IOVA, page);
    bench.unit.detach(&mut bench.memory, source, None).expect("it is detached");
    assert_eq!(bench.unit.attachment(&bench.memory, source, None), None);
    // Hardware says 0x59 of an entry that is not present. QEMU looks at the type first, and says 0x5b (before 10.0, 0x58).
    let before = bench.at(page, 0);
    bench.edus[0].write(Iova::new(IOVA));
    assert_eq!(bench.at(page, 0), before);
    let reasons: Vec<_> = bench.outcome().faults.iter().map(|fault| fault.reason.0).collect();
    assert!(reasons == [0x5b] || reasons == [0x58], "{reasons:x?}");
    bench.assign(source, &space);
    bench.expect_write(0, IOVA, page);
}

fn unsupported(bench: &mut Bench) {
    let (space, _) = mapped(bench);
    let (source, table, levels) = (bench.edus[0].bdf(), space.root(), space.levels);
    let other = match bench.mode {
        Mode::ScalableFirst => Translation::SecondStage { table, levels },
        _ => Translation::FirstStage { table, levels },
    };
    let nested = Translation::Nested {
        first: addr::GuestPhys::new(0x1000),
        first_levels: levels,
        second: table,
        second_levels: levels,
    };
    for translation in [other, nested] {
        let outcome = bench.unit.attach(&mut bench.memory, source, None, space.domain, translation);
        assert!(matches!(outcome, Err(Error::Unsupported { .. })), "{outcome:?}");
    }
}

fn large_range(bench: &mut Bench) {
    let mut space = bench.preferred_space();
    bench.assign(bench.edus[0].bdf(), &space);
    // 64 pages of 1 GiB, of which the fourth begins in memory: a mask of 24 bits, where QEMU takes 18 at most. Hardware
    // must take any for the first stage.
    let (giga, start) = (1 << 30, 0x10_0000_0000);
    bench.map(&mut space, start, HostPhys::new(HIGH_MEMORY.start - 4 * giga), 64 * giga, Permissions::READ_WRITE);
    let (iova, host) = (start + 4 * giga, HostPhys::new(HIGH_MEMORY.start));
    bench.expect_write(0, iova, host);
    let flush = bench.unmap_only(&mut space, start, 64 * giga);
    bench.expect_write(0, iova, host);
    bench.flush(&space, flush);
    bench.expect_no_write(0, iova, host, bench.reasons().no_write);
    assert!(!bench.unit.is_poisoned());
}

/// Several times around a ring of another size.
fn ring(bench: &mut Bench, layout: QueueLayout) {
    if bench.mode != Mode::Legacy {
        bench.unit.use_scalable_mode(vtd::Pasid::ZERO).expect("the unit has scalable mode");
        assert_eq!(bench.unit.translation_mode(), TranslationMode::Scalable);
    }
    let (unit, memory) = (&mut bench.unit, &mut bench.memory);
    unit.take_over(Handover::TakeOver, Default::default()).expect("nothing is on");
    unit.mask_and_clear_faults().expect("nothing is left");
    unit.enable_queue_with(memory, layout).expect("QEMU takes every size");
    unit.set_root_table(memory).expect("the root table is set");
    unit.enable_translation().expect("translation is on");
    let (mut space, page) = mapped(bench);
    bench.expect_write(0, IOVA, page);
    let places = u64::from(layout.places());
    let mut descriptors = 0;
    while descriptors < 5 * places / 2 {
        let count = 1 + descriptors % 61;
        let invalidation = vtd::IotlbInvalidation::Domain(DomainId(0x7000));
        bench.unit.invalidate_iotlb(&mut bench.memory, (0..count).map(|_| invalidation)).expect("it completes");
        descriptors += count + 1;
    }
    let events = bench.machine.events();
    assert!(events.count("vtd_inv_desc") as u64 >= descriptors);
    bench.expect_write(0, IOVA, page);
    bench.unmap(&mut space, IOVA, PAGE_SIZE);
    bench.expect_no_write(0, IOVA, page, bench.reasons().no_write);
}

/// Another kernel has used the unit in legacy mode.
fn from_legacy(bench: &mut Bench) {
    let mode = std::mem::replace(&mut bench.mode, Mode::Legacy);
    let legacy_works = bench.unit.capabilities().second_stage_levels().is_some() && mode != Mode::ScalableFirst;
    bench.bring_up(&CONFIGURATION);
    let (_, page) = mapped(bench);
    if legacy_works {
        bench.expect_write(0, IOVA, page);
    }
    bench.probe_again();
    bench.mode = mode;
    assert!(bench.unit.firmware_state().contains(Global::TRANSLATION | Global::QUEUED_INVALIDATION));
    let handover = bench.unit.suggest_handover(true, CONFIGURATION.destination_mode);
    assert_eq!(handover, Handover::Stop, "tables of legacy mode cannot stay until others take their place");
    bench.bring_up(&Configuration { handover, ..CONFIGURATION });
    // The root table address's TTM, bits 11:10, is 01b.
    assert_eq!(bench.machine.read64(UNIT + 0x20) >> 10 & 3, 1);
    bench.machine.events();
    bench.expect_no_write(0, IOVA, page, bench.reasons().no_root);
    let (_, page) = mapped(bench);
    bench.expect_write(0, IOVA, page);
}
