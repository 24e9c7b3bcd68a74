//! What the unit has cached it uses, until the driver's invalidation, and not after it.
//!
//! Each case first shows the stale use, by a change that the unit is not told of: if QEMU did not cache, or the driver's
//! invalidation did nothing, the case would fail.

use crate::case::{Case, NO_LARGE, NO_MASK, NO_PAGES, NO_QUEUE, SCALABLE, Setting};
use addr::{DomainId, HostPhys, Iova, PAGE_SIZE, PageSize};
use paging::Permissions;
use qtest::memory::HIGH_MEMORY;
use qtest::tables::context_entry;
use qtest::{Bench, Mode, Space};
use vtd::{Batch, DeviceTlb, IotlbInvalidation, Levels};

const READ_WRITE: Permissions = Permissions::READ_WRITE;
const IOVA: u64 = 0x2468_a000;

const SETTINGS: [Setting; 10] = [
    Setting::new(39, Levels::Three, false),
    Setting::new(48, Levels::Four, false),
    Setting::new(48, Levels::Four, true),
    SCALABLE[1],
    SCALABLE[3],
    SCALABLE[4],
    NO_QUEUE,
    NO_PAGES,
    NO_MASK,
    NO_LARGE,
];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for setting in SETTINGS {
        cases.push(setting.case("stale: pages of every size that are unmapped", move |bench| {
            for size in PageSize::LARGEST_FIRST {
                // By 4 KiB pages, 1 GiB is a quarter of a million entries, each a line on the socket.
                if setting.without != NO_LARGE.without || size != PageSize::Size1G {
                    unmapped(bench, size);
                }
            }
        }));
        let mut case = |name: &str, body: fn(&mut Bench)| {
            cases.push(setting.case(&format!("stale: {name}"), body));
        };
        case("a page that moves", moved);
        case("a permission that is taken", lowered);
        case("a permission that is given", raised);
        case("permissions that change in place, of a part of a large page", protected);
        if setting.mode == Mode::Legacy {
            // In scalable mode it leads to a directory, which QEMU reads each time.
            case("a context entry that leads elsewhere", redirected);
        }
        case("a context entry that is cleared", withdrawn);
        case("a device that changes its space", changed_space);
        case("a domain id that is used again", reused);
        case("a space of two devices", shared);
        case("changes of two spaces, by one batch", batch);
    }
    for setting in [SETTINGS[1], SCALABLE[1], SCALABLE[3], NO_QUEUE, NO_PAGES, NO_MASK] {
        cases.push(setting.case("stale: every range of 8 pages", every_range));
    }
    let mut case = |name: &str, body: fn(&mut Bench)| {
        cases.push(SETTINGS[1].case(&format!("stale: {name}"), body));
    };
    case("an assignment that is replaced by one store", replaced);
    case("one domain goes, the other stays cached", domain_only);
    case("a range goes, what is far from it stays cached", range_only);
    case("more translations than the unit can cache", too_many);
    cases.push(Case::new("stale: a device that may keep translations itself", "device-iotlb=on", |machine| {
        device_tlb(&mut Bench::up(machine));
    }));
    cases
}

/// A space of the first edu with one page.
fn one_page(bench: &mut Bench) -> (Space, HostPhys) {
    let mut space = bench.preferred_space();
    let page = bench.memory.take_pages(PAGE_SIZE, PAGE_SIZE);
    bench.assign(bench.edus[0].bdf(), &space);
    bench.map(&mut space, IOVA, page, PAGE_SIZE, READ_WRITE);
    (space, page)
}

/// The first edu's write is translated by what the unit has cached of the page, and by nothing else.
fn hits(bench: &mut Bench, iova: u64, host: HostPhys) {
    let events = bench.expect_write(0, iova, host).events;
    assert_eq!((events.count("vtd_iotlb_page_hit"), events.count("vtd_iotlb_page_update")), (1, 0));
}

/// The first edu's write is translated by a walk.
fn misses(bench: &mut Bench, iova: u64, host: HostPhys) {
    let events = bench.expect_write(0, iova, host).events;
    assert_eq!((events.count("vtd_iotlb_page_hit"), events.count("vtd_iotlb_page_update")), (0, 1));
}

fn unmapped(bench: &mut Bench, size: PageSize) {
    let mut space = bench.preferred_space();
    bench.assign(bench.edus[0].bdf(), &space);
    let host = HostPhys::new(HIGH_MEMORY.start);
    let (iova, bytes) = (size.bytes() * 7, size.bytes());
    bench.map(&mut space, iova, host, bytes, READ_WRITE);
    bench.machine.events();
    misses(bench, iova, host);

    let freed = bench.memory.freed();
    let flush = bench.unmap_only(&mut space, iova, bytes);
    hits(bench, iova, host);
    assert_eq!(bench.memory.freed(), freed, "tables that the unit may still walk are kept");
    let detached = flush.has_detached_tables();
    bench.flush(&space, flush);
    bench.expect_no_write(0, iova, host, bench.reasons().no_write);
    assert_eq!(bench.memory.freed() > freed, detached, "they are freed once it cannot");
}

fn moved(bench: &mut Bench) {
    let (mut space, old) = one_page(bench);
    bench.expect_write(0, IOVA, old);
    let new = bench.memory.take_pages(PAGE_SIZE, PAGE_SIZE);
    let mut flush = bench.unmap_only(&mut space, IOVA, PAGE_SIZE);
    let added = bench.map_only(&mut space, IOVA, new, PAGE_SIZE, READ_WRITE);
    flush.join(added, &mut bench.memory).expect("one table");
    hits(bench, IOVA, old);
    bench.flush(&space, flush);
    misses(bench, IOVA, new);
}

fn lowered(bench: &mut Bench) {
    let (mut space, page) = one_page(bench);
    bench.expect_write(0, IOVA, page);
    let mut flush = bench.unmap_only(&mut space, IOVA, PAGE_SIZE);
    let added = bench.map_only(&mut space, IOVA, page, PAGE_SIZE, Permissions::READ);
    flush.join(added, &mut bench.memory).expect("one table");
    hits(bench, IOVA, page);
    bench.flush(&space, flush);
    bench.expect_no_write(0, IOVA, page, bench.reasons().read_only);
}

fn raised(bench: &mut Bench) {
    let (mut space, page) = one_page(bench);
    bench.unmap(&mut space, IOVA, PAGE_SIZE);
    bench.map(&mut space, IOVA, page, PAGE_SIZE, Permissions::READ);
    bench.edus[0].read(Iova::new(IOVA));
    let mut flush = bench.unmap_only(&mut space, IOVA, PAGE_SIZE);
    let added = bench.map_only(&mut space, IOVA, page, PAGE_SIZE, READ_WRITE);
    flush.join(added, &mut bench.memory).expect("one table");
    // The write is refused by the entry in the cache. Hardware would report that; QEMU does not.
    let before = bench.at(page, 0);
    bench.edus[0].write(Iova::new(IOVA));
    assert_eq!(bench.at(page, 0), before);
    bench.flush(&space, flush);
    bench.outcome();
    misses(bench, IOVA, page);
}

fn protected(bench: &mut Bench) {
    let mut space = bench.preferred_space();
    bench.assign(bench.edus[0].bdf(), &space);
    let host = HostPhys::new(HIGH_MEMORY.start);
    let (iova, bytes) = (0x6000_0000, PageSize::Size2M.bytes());
    bench.map(&mut space, iova, host, bytes, READ_WRITE);
    bench.expect_write(0, iova, host);
    let place = |page: u64| (iova + page * PAGE_SIZE, HostPhys::new(host.as_u64() + page * PAGE_SIZE));
    let set = |bench: &mut Bench, space: &mut Space, page: u64, count: u64, permissions| {
        let (memory, iova) = (&mut bench.memory, Iova::new(place(page).0));
        space.protect(memory, iova, count * PAGE_SIZE, permissions).expect("it can be said")
    };
    bench.expect_write(0, place(7).0, place(7).1);
    // The page is split, and one of its parts may only be read; what is cached is the whole.
    let flush = set(bench, &mut space, 7, 1, Permissions::READ);
    bench.expect_write(0, place(7).0, place(7).1);
    bench.flush(&space, flush);
    bench.expect_no_write(0, place(7).0, place(7).1, bench.reasons().read_only);
    bench.expect_write(0, place(6).0, place(6).1);
    bench.expect_write(0, place(8).0, place(8).1);
    // And back, by which the parts become one page again, where the unit has such pages.
    let flush = set(bench, &mut space, 7, 1, READ_WRITE);
    bench.flush(&space, flush);
    for page in [0, 6, 7, 8, 511] {
        bench.expect_write(0, place(page).0, place(page).1);
    }
    let flush = set(bench, &mut space, 0, 512, Permissions::READ);
    bench.flush(&space, flush);
    for page in [0, 7, 511] {
        bench.expect_no_write(0, place(page).0, place(page).1, bench.reasons().read_only);
    }
}

fn redirected(bench: &mut Bench) {
    let (space, old) = one_page(bench);
    let mut other = bench.preferred_space();
    let new = bench.memory.take_pages(PAGE_SIZE, PAGE_SIZE);
    bench.map(&mut other, IOVA, new, PAGE_SIZE, READ_WRITE);
    bench.expect_write(0, IOVA, old);

    // Only the root of the table changes in the entry, by one store, and nobody is told.
    let entry = context_entry(bench, bench.edus[0].bdf());
    let low = bench.memory.load(entry);
    bench.memory.store(entry, low & 0xfff | other.root().as_u64());
    hits(bench, IOVA, old);
    // Without the translations, the unit walks the old table from the context entry that it has cached.
    bench.unit.invalidate_iotlb(&mut bench.memory, [IotlbInvalidation::Global]).expect("it completes");
    misses(bench, IOVA, old);
    // The driver's way: the entry goes, then what is cached of it, and all of its domain.
    bench.memory.store(entry, low);
    bench.assign(bench.edus[0].bdf(), &other);
    misses(bench, IOVA, new);
    bench.assign(bench.edus[0].bdf(), &space);
    misses(bench, IOVA, old);
}

fn withdrawn(bench: &mut Bench) {
    let (_, page) = one_page(bench);
    bench.expect_write(0, IOVA, page);
    let source = bench.edus[0].bdf();
    let entry = context_entry(bench, source);
    let low = bench.memory.load(entry);
    bench.memory.store(entry, 0);
    hits(bench, IOVA, page);
    bench.unit.invalidate_iotlb(&mut bench.memory, [IotlbInvalidation::Global]).expect("it completes");
    misses(bench, IOVA, page);
    bench.memory.store(entry, low);
    bench.clear(source);
    bench.expect_no_write(0, IOVA, page, bench.reasons().no_context);
    assert_eq!(bench.unit.assignment(&bench.memory, source), None);
}

fn changed_space(bench: &mut Bench) {
    let mut pages = Vec::new();
    let source = bench.edus[0].bdf();
    for _ in 0..4 {
        let mut space = bench.preferred_space();
        let page = bench.memory.take_pages(PAGE_SIZE, PAGE_SIZE);
        bench.map(&mut space, IOVA, page, PAGE_SIZE, READ_WRITE);
        pages.push((space, page));
    }
    for _ in 0..3 {
        for (space, page) in &pages {
            bench.assign(source, space);
            assert_eq!(bench.unit.assignment(&bench.memory, source), Some((space.domain, space.root())));
            misses(bench, IOVA, *page);
            hits(bench, IOVA, *page);
        }
    }
}

fn reused(bench: &mut Bench) {
    let (space, old) = one_page(bench);
    let source = bench.edus[0].bdf();
    bench.expect_write(0, IOVA, old);
    bench.clear(source);
    let mut next = bench.preferred_space();
    next.domain = space.domain;
    let new = bench.memory.take_pages(PAGE_SIZE, PAGE_SIZE);
    bench.map(&mut next, IOVA, new, PAGE_SIZE, READ_WRITE);
    bench.assign(source, &next);
    misses(bench, IOVA, new);
}

fn shared(bench: &mut Bench) {
    let (mut space, page) = one_page(bench);
    bench.assign(bench.edus[1].bdf(), &space);
    bench.expect_write(0, IOVA, page);
    bench.expect_write(1, IOVA, page);
    let flush = bench.unmap_only(&mut space, IOVA, PAGE_SIZE);
    bench.expect_write(0, IOVA, page);
    bench.expect_write(1, IOVA, page);
    bench.flush(&space, flush);
    bench.expect_no_write(0, IOVA, page, bench.reasons().no_write);
    bench.expect_no_write(1, IOVA, page, bench.reasons().no_write);
    // One of them goes; the other stays.
    bench.map(&mut space, IOVA, page, PAGE_SIZE, READ_WRITE);
    bench.expect_write(1, IOVA, page);
    bench.clear(bench.edus[1].bdf());
    bench.expect_no_write(1, IOVA, page, bench.reasons().no_context);
    bench.expect_write(0, IOVA, page);
}

fn batch(bench: &mut Bench) {
    let places = [0, 1].map(|edu: usize| {
        let mut space = bench.preferred_space();
        let host = bench.memory.take_pages(4 * PAGE_SIZE, PAGE_SIZE);
        bench.assign(bench.edus[edu].bdf(), &space);
        bench.map(&mut space, IOVA, host, 4 * PAGE_SIZE, READ_WRITE);
        (edu, space, host.as_u64())
    });
    let reached = |bench: &mut Bench, edu: usize, host: u64, pages: &[u64]| {
        for page in 0..4 {
            let (iova, host) = (IOVA + page * PAGE_SIZE, HostPhys::new(host + page * PAGE_SIZE));
            if pages.contains(&page) {
                bench.expect_write(edu, iova, host);
            } else {
                bench.expect_no_write(edu, iova, host, bench.reasons().no_write);
            }
        }
    };
    places.iter().for_each(|(edu, _, host)| reached(bench, *edu, *host, &[0, 1, 2, 3]));
    if places.iter().any(|(_, space, _)| space.is_first_stage()) {
        // Batches are of second-stage changes.
        return;
    }
    let mut batch = Batch::new();
    let mut flushes = Vec::new();
    let mut spaces = Vec::new();
    for (edu, mut space, host) in places {
        for page in [0, 2] {
            let flush = bench.unmap_only(&mut space, IOVA + page * PAGE_SIZE, PAGE_SIZE);
            batch.add(space.domain, flush.invalidation().expect("a page went"));
            flushes.push(flush);
        }
        reached(bench, edu, host, &[0, 1, 2, 3]);
        spaces.push((edu, space, host));
    }
    bench.machine.events();
    let submitted = bench.unit.submit_batch(&mut bench.memory, batch).expect("it is submitted");
    let proof = bench.unit.complete_batch(&mut bench.memory, submitted).expect("it completes");
    if bench.unit.capabilities().queued_invalidation() {
        let events = bench.machine.events();
        let waits = events.descriptors().iter().filter(|(kind, ..)| kind == "wait").count();
        assert_eq!((events.count("vtd_inv_qi_tail"), waits), (1, 1), "one wait and one tail write for all");
    }
    for flush in flushes {
        flush.complete(&proof, &mut bench.memory).expect("the proof covers the change");
    }
    spaces.iter().for_each(|(edu, _, host)| reached(bench, *edu, *host, &[1, 3]));
}

/// QEMU's edu keeps nothing; what this judges is that the unit takes the context entry and the descriptors for it.
fn device_tlb(bench: &mut Bench) {
    let (mut space, page) = one_page(bench);
    let source = bench.edus[0].bdf();
    let device_tlb = DeviceTlb { queue_depth: 0, physical_function: source };
    let (unit, memory) = (&mut bench.unit, &mut bench.memory);
    let outcome = unit.assign_with_device_tlb(memory, source, space.domain, space.root(), space.levels, device_tlb);
    outcome.expect("the unit has device-TLBs");
    bench.expect_write(0, IOVA, page);
    bench.unmap(&mut space, IOVA, PAGE_SIZE);
    bench.expect_no_write(0, IOVA, page, bench.reasons().no_write);
    bench.map(&mut space, IOVA, page, PAGE_SIZE, READ_WRITE);
    bench.expect_write(0, IOVA, page);
    bench.machine.events();
    bench.clear(source);
    let taken = bench.machine.events().descriptors();
    assert!(taken.iter().any(|(kind, _, low)| kind == "device" && low >> 32 & 0xffff == u64::from(source.as_u16())));
    bench.expect_no_write(0, IOVA, page, bench.reasons().no_context);
    assert!(!bench.unit.is_poisoned());
}

fn replaced(bench: &mut Bench) {
    let (space, old) = one_page(bench);
    let source = bench.edus[0].bdf();
    let mut other = bench.preferred_space();
    let new = bench.memory.take_pages(PAGE_SIZE, PAGE_SIZE);
    bench.map(&mut other, IOVA, new, PAGE_SIZE, READ_WRITE);
    bench.expect_write(0, IOVA, old);
    let replace = |bench: &mut Bench, space: &Space| {
        bench.unit.replace(&mut bench.memory, source, space.domain, space.root(), space.levels)
    };
    replace(bench, &other).expect("128 bits can be exchanged");
    misses(bench, IOVA, new);
    bench.memory.can_exchange = false;
    assert_eq!(replace(bench, &space), Err(vtd::Error::NotAtomic(source)));
    hits(bench, IOVA, new);
}

fn domain_only(bench: &mut Bench) {
    let (first, page) = one_page(bench);
    let mut second = bench.preferred_space();
    let other = bench.memory.take_pages(PAGE_SIZE, PAGE_SIZE);
    bench.assign(bench.edus[1].bdf(), &second);
    bench.map(&mut second, IOVA, other, PAGE_SIZE, READ_WRITE);
    let kept = |bench: &mut Bench, domain: DomainId| {
        bench.expect_write(0, IOVA, page);
        bench.expect_write(1, IOVA, other);
        bench.unit.invalidate_iotlb(&mut bench.memory, [IotlbInvalidation::Domain(domain)]).expect("it completes");
        bench.machine.events();
        [(0, page), (1, other)]
            .map(|(edu, host)| bench.expect_write(edu, IOVA, host).events.count("vtd_iotlb_page_hit"))
    };
    assert_eq!(kept(bench, first.domain), [0, 1]);
    assert_eq!(kept(bench, second.domain), [1, 0]);
    assert_eq!(kept(bench, DomainId(0x7fff)), [1, 1]);
}

/// A space of the first edu with so many pages, from an address that is aligned to more.
fn pages(bench: &mut Bench, count: u64) -> (Space, u64) {
    let mut space = bench.preferred_space();
    let host = bench.memory.take_pages(count * PAGE_SIZE, PAGE_SIZE);
    bench.assign(bench.edus[0].bdf(), &space);
    bench.map(&mut space, 0x4000_0000, host, count * PAGE_SIZE, READ_WRITE);
    (space, host.as_u64())
}

fn range_only(bench: &mut Bench) {
    let (mut space, host) = pages(bench, 64);
    let place = |page| (0x4000_0000 + page * PAGE_SIZE, HostPhys::new(host + page * PAGE_SIZE));
    for page in 0..64 {
        bench.expect_write(0, place(page).0, place(page).1);
    }
    // The smallest aligned block that covers pages 19 to 28 is 16 to 31.
    bench.unmap(&mut space, place(19).0, 10 * PAGE_SIZE);
    for page in 0..64 {
        let (iova, host) = place(page);
        match page {
            19..29 => drop(bench.expect_no_write(0, iova, host, bench.reasons().no_write)),
            16..32 => misses(bench, iova, host),
            _ => hits(bench, iova, host),
        }
    }
}

fn every_range(bench: &mut Bench) {
    let (mut space, host) = pages(bench, 8);
    let place = |page| (0x4000_0000 + page * PAGE_SIZE, HostPhys::new(host + page * PAGE_SIZE));
    for start in 0..8 {
        for end in start + 1..=8 {
            for page in 0..8 {
                bench.expect_write(0, place(page).0, place(page).1);
            }
            bench.unmap(&mut space, place(start).0, (end - start) * PAGE_SIZE);
            for page in 0..8 {
                let (iova, host) = place(page);
                if (start..end).contains(&page) {
                    bench.expect_no_write(0, iova, host, bench.reasons().no_write);
                } else {
                    bench.expect_write(0, iova, host);
                }
            }
            bench.map(&mut space, place(start).0, place(start).1, (end - start) * PAGE_SIZE, READ_WRITE);
        }
    }
}

fn too_many(bench: &mut Bench) {
    // QEMU's IOTLB has 1024 entries, and forgets all of them when it is full.
    const COUNT: u64 = 1100;
    let (mut space, host) = pages(bench, COUNT);
    let place = |page| (0x4000_0000 + page * PAGE_SIZE, HostPhys::new(host + page * PAGE_SIZE));
    let mut resets = 0;
    for page in 0..COUNT {
        resets += bench.expect_write(0, place(page).0, place(page).1).events.count("vtd_iotlb_reset");
    }
    assert_eq!(resets, 1);
    bench.unmap(&mut space, place(0).0, COUNT * PAGE_SIZE);
    for page in [0, 1, 511, 512, 1023, 1024, COUNT - 1] {
        bench.expect_no_write(0, place(page).0, place(page).1, bench.reasons().no_write);
    }
}
