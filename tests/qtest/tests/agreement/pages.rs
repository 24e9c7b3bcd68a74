//! What is mapped is reached, in every mode, with every page size and depth, and what is not is refused.

use crate::case::{Case, LEGACY, SCALABLE, Setting};
use addr::{HostPhys, Iova, PAGE_SIZE, PageSize};
use paging::Permissions;
use qtest::memory::HIGH_MEMORY;
use qtest::{Bench, Mode, Space};
use vtd::FaultKind;

const READ: Permissions = Permissions::READ;
const READ_WRITE: Permissions = Permissions::READ_WRITE;
const WRITE: Permissions = Permissions { read: false, write: true, execute: false };

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for setting in LEGACY.into_iter().chain(SCALABLE) {
        cases.push(setting.case("pages of every size translate", move |bench| {
            PageSize::LARGEST_FIRST.into_iter().for_each(|size| translates(bench, setting, size));
        }));
        cases.push(setting.case("permissions hold", move |bench| permissions(bench, setting)));
        cases.push(
            setting.case("the last page is reached, the address after it is not", move |bench| last(bench, setting)),
        );
        cases.push(setting.case("a range of all page sizes has no gap", move |bench| mixed(bench, setting)));
        cases.push(setting.case("a hole in a large page is a hole", move |bench| hole(bench, setting)));
    }
    cases.push(Case::new("two devices at one address reach their own memory", "", |machine| {
        separate(&mut Bench::up(machine))
    }));
    cases.push(Case::new("snooping leaves are accepted where ECAP.SC is", "snoop-control=on", |machine| {
        let mut bench = Bench::up(machine);
        assert!(bench.unit.capabilities().snoop_control());
        let (mut space, host) = snooping(&mut bench);
        bench.map(&mut space, 0x1000, host, PAGE_SIZE, READ_WRITE);
        bench.expect_write(0, 0x1000, host);
    }));
    cases.push(Case::new("snooping leaves fault where ECAP.SC is not", "", |machine| {
        let mut bench = Bench::up(machine);
        assert!(!bench.unit.capabilities().snoop_control());
        let (mut space, host) = snooping(&mut bench);
        bench.map(&mut space, 0x1000, host, PAGE_SIZE, READ_WRITE);
        bench.expect_no_write(0, 0x1000, host, 0x0c);
    }));
    cases
}

/// A space whose leaves snoop, the first edu's, and a page.
fn snooping(bench: &mut Bench) -> (Space, HostPhys) {
    let mut space = bench.preferred_space();
    space.snoop = true;
    bench.assign(bench.edus[0].bdf(), &space);
    (space, bench.memory.take_pages(PAGE_SIZE, PAGE_SIZE))
}

/// A space of the setting, the first edu's.
fn assigned(bench: &mut Bench, setting: Setting) -> Space {
    let space = bench.space(setting.levels);
    bench.assign(bench.edus[0].bdf(), &space);
    space
}

fn translates(bench: &mut Bench, setting: Setting, size: PageSize) {
    let mut space = assigned(bench, setting);
    // A 1 GiB page has all of high memory; a smaller one is not its first, so that every bit of the address counts.
    let host = HIGH_MEMORY.start + if size == PageSize::Size1G { 0 } else { 3 * size.bytes() };
    let iova = setting.end() / 2 + 5 * PageSize::Size1G.bytes() + (host & 0x3fff_ffff);
    bench.map(&mut space, iova, HostPhys::new(host), size.bytes(), READ_WRITE);
    bench.machine.events();

    let there = size.bytes().min(HIGH_MEMORY.end - host);
    let offsets = [0, there / 2, there - PAGE_SIZE + 0x7f8];
    for (number, offset) in offsets.into_iter().enumerate() {
        let events = bench.expect_write(0, iova + offset, HostPhys::new(host + offset)).events;
        // One entry of the unit's cache serves the whole page, whatever its size.
        let (updates, hits) = (events.count("vtd_iotlb_page_update"), events.count("vtd_iotlb_page_hit"));
        assert_eq!((updates, hits), if number == 0 { (1, 0) } else { (0, 1) });
    }
    // What the device reads there is what stands there.
    let secret = 0x5ec2_e700 + iova;
    bench.machine.write64(host + 0x10, secret);
    bench.edus[0].read(Iova::new(iova + 0x10));
    bench.edus[0].write_what_was_read(Iova::new(iova + 0x20));
    assert_eq!(bench.machine.read64(host + 0x20), secret);
    bench.expect_no_fault();

    for outside in [iova - PAGE_SIZE, iova + size.bytes()] {
        bench.expect_no_write(0, outside, HostPhys::new(host), bench.reasons().no_write);
        bench.edus[0].read(Iova::new(outside));
        bench.expect_dma_fault(bench.edus[0].bdf(), FaultKind::Read, outside, bench.reasons().no_read);
    }
}

fn permissions(bench: &mut Bench, setting: Setting) {
    let mut space = assigned(bench, setting);
    let host = bench.memory.take_pages(3 * PAGE_SIZE, PAGE_SIZE);
    let page = |number| HostPhys::new(host.as_u64() + number * PAGE_SIZE);
    let (read_only, write_only, both) = (0x10_0000, 0x20_0000, 0x30_0000);
    bench.map(&mut space, read_only, page(0), PAGE_SIZE, READ);
    if setting.mode != Mode::ScalableFirst {
        // The first stage has no pages that can only be written.
        bench.map(&mut space, write_only, page(1), PAGE_SIZE, WRITE);
    }
    bench.map(&mut space, both, page(2), PAGE_SIZE, READ_WRITE);
    let secret = 0x1234_5678_9abc_def0;
    let reasons = bench.reasons();
    bench.machine.write64(page(0).as_u64(), secret);
    bench.machine.write64(page(1).as_u64() + 8, secret + 1);

    // The write first: QEMU refuses a write through an entry that a read has cached, and does not report it, which no
    // hardware does.
    bench.expect_no_write(0, read_only, page(0), reasons.read_only);
    bench.edus[0].read(Iova::new(read_only));
    bench.edus[0].write_what_was_read(Iova::new(both));
    assert_eq!(bench.at(page(2), 0), secret, "a page that may be read is read");
    bench.expect_no_fault();

    if setting.mode == Mode::ScalableFirst {
        return;
    }
    bench.edus[0].read(Iova::new(write_only + 8));
    bench.expect_dma_fault(bench.edus[0].bdf(), FaultKind::Read, write_only + 8, reasons.no_read);
    bench.edus[0].write_what_was_read(Iova::new(both + 8));
    assert_ne!(bench.at(page(2), 8), secret + 1, "a page that may not be read is not");
    bench.expect_write(0, write_only, page(1));
}

fn last(bench: &mut Bench, setting: Setting) {
    let mut space = assigned(bench, setting);
    let host = bench.memory.take_pages(PAGE_SIZE, PAGE_SIZE);
    bench.map(&mut space, setting.end() - PAGE_SIZE, host, PAGE_SIZE, READ_WRITE);
    // The same page at 0, where an address whose upper bits are lost would lead.
    bench.map(&mut space, 0, host, PAGE_SIZE, READ_WRITE);
    bench.expect_write(0, setting.end() - 8, HostPhys::new(host.as_u64() + PAGE_SIZE - 8));
    for beyond in [setting.end(), 1 << 52, 1 << 63] {
        bench.expect_no_write(0, beyond, host, bench.reasons().beyond);
    }
}

fn mixed(bench: &mut Bench, setting: Setting) {
    let mut space = assigned(bench, setting);
    let (large, small) = (PageSize::Size2M.bytes(), PAGE_SIZE);
    // Two small pages, two large ones, three small ones.
    let (start, bytes) = (0x4000_0000 + large - 2 * small, 2 * small + 2 * large + 3 * small);
    let host = HIGH_MEMORY.start + large - 2 * small;
    bench.map(&mut space, start, HostPhys::new(host), bytes, READ_WRITE);
    let sizes = space.page_sizes(&bench.memory);
    assert_eq!(sizes, [small, small, large, large, small, small, small]);
    let mut offset = 0;
    for size in sizes {
        for place in [offset, offset + size - 8] {
            bench.expect_write(0, start + place, HostPhys::new(host + place));
        }
        offset += size;
    }
    bench.expect_no_write(0, start - 8, HostPhys::new(host - 8), bench.reasons().no_write);
    bench.expect_no_write(0, start + bytes, HostPhys::new(host + bytes), bench.reasons().no_write);
}

fn hole(bench: &mut Bench, setting: Setting) {
    let mut space = assigned(bench, setting);
    let giga = PageSize::Size1G.bytes();
    let (start, host) = (3 * giga, HIGH_MEMORY.start);
    bench.map(&mut space, start, HostPhys::new(host), giga, READ_WRITE);
    let hole = 0x123_4000;
    // The whole page is cached when the hole is made.
    bench.expect_write(0, start + hole, HostPhys::new(host + hole));
    bench.unmap(&mut space, start + hole, PAGE_SIZE);
    bench.expect_no_write(0, start + hole, HostPhys::new(host + hole), bench.reasons().no_write);
    bench.expect_no_write(
        0,
        start + hole + PAGE_SIZE - 8,
        HostPhys::new(host + hole + PAGE_SIZE - 8),
        bench.reasons().no_write,
    );
    for place in [0, hole - 8, hole + PAGE_SIZE, 0x3ff_fff8] {
        bench.expect_write(0, start + place, HostPhys::new(host + place));
    }
}

fn separate(bench: &mut Bench) {
    let iova = 0x8000_0000;
    let hosts = [0, 1].map(|edu: usize| {
        let mut space = bench.preferred_space();
        let host = bench.memory.take_pages(PAGE_SIZE, PAGE_SIZE);
        bench.assign(bench.edus[edu].bdf(), &space);
        bench.map(&mut space, iova, host, PAGE_SIZE, READ_WRITE);
        host
    });
    for _ in 0..3 {
        for (edu, host) in hosts.into_iter().enumerate() {
            let other = bench.at(hosts[1 - edu], 0);
            bench.expect_write(edu, iova, host);
            assert_eq!(bench.at(hosts[1 - edu], 0), other);
        }
    }
}
