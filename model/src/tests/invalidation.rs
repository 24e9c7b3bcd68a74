use super::*;
use crate::{Eviction, Latency, Message, QueueError};

const GLOBAL_CONTEXT: (u64, u64) = (0x11, 0);
const GLOBAL_PAGES: (u64, u64) = (0x12, 0);

fn domain_pages(domain: u16) -> (u64, u64) {
    (u64::from(domain) << 16 | 0x22, 0)
}

fn page(domain: u16, operand: u64) -> (u64, u64) {
    (u64::from(domain) << 16 | 0x32, operand)
}

fn device(domain: u16, source: u16) -> (u64, u64) {
    (u64::from(source) << 32 | u64::from(domain) << 16 | 0x31, 0)
}

fn wait(data: u32) -> (u64, u64) {
    (u64::from(data) << 32 | 0x25, STATUS)
}

#[test]
fn a_leaf_is_stale_until_its_page_is_invalidated() {
    let machine = translating(Configuration::default());
    assert_eq!(read(&machine, 0x1000), Ok(0x7_7000));
    put(&machine, TABLES + 0x3008, 0);
    assert_eq!(read(&machine, 0x1000), Ok(0x7_7000));
    assert_eq!(only(machine.dma_cold(0, SOURCE, 0x1000, 4, Access::Read)), Err(Reason::READ));
    for useless in [GLOBAL_CONTEXT, domain_pages(6), page(6, 0x1000), page(DOMAIN, 0x2000), wait(1)] {
        submit(&machine, &[useless]);
        assert_eq!(read(&machine, 0x1000), Ok(0x7_7000), "{useless:x?}");
    }
    submit(&machine, &[page(DOMAIN, 0x1000)]);
    assert_eq!(read(&machine, 0x1000), Err(Reason::READ));
}

#[test]
fn a_table_pointer_is_stale_until_invalidated_without_the_hint() {
    let machine = translating(Configuration::default());
    assert_eq!(read(&machine, 0x1000), Ok(0x7_7000));
    make_tables(&machine, TABLES + 0x8000, 0x9_9000);
    put(&machine, TABLES + 0x2000, (TABLES + 0xb000) | 3);
    submit(&machine, &[page(DOMAIN, 0x1000 | 1 << 6)]);
    assert_eq!(read(&machine, 0x1000), Ok(0x7_7000), "IH keeps the paging-structure cache");
    submit(&machine, &[page(DOMAIN, 0x1000)]);
    assert_eq!(read(&machine, 0x1000), Ok(0x9_9000));
}

#[test]
fn a_context_is_stale_until_invalidated_and_pages_survive_it() {
    let machine = translating(Configuration::default());
    make_tables(&machine, TABLES + 0x8000, 0x9_9000);
    assert_eq!(read(&machine, 0x1000), Ok(0x7_7000));
    context(&machine, SOURCE, TABLES + 0x8000, 6, 2);
    for useless in [GLOBAL_PAGES, device(6, SOURCE), device(DOMAIN, SOURCE + 1)] {
        submit(&machine, &[useless]);
        assert_eq!(read(&machine, 0x1000), Ok(0x7_7000), "{useless:x?}");
    }
    submit(&machine, &[device(DOMAIN, SOURCE)]);
    assert_eq!(read(&machine, 0x1000), Ok(0x9_9000));
    // Back to the first table under the same id, with a page changed meanwhile: the IOTLB still has it.
    put(&machine, TABLES + 0x3008, 0x5_5000 | 3);
    context(&machine, SOURCE, TABLES, DOMAIN, 2);
    submit(&machine, &[device(6, SOURCE)]);
    assert_eq!(read(&machine, 0x1000), Ok(0x7_7000));
}

#[test]
fn what_is_not_present_is_remembered_in_caching_mode_only() {
    for caching_mode in [false, true] {
        let machine = translating(Configuration { caching_mode, ..Configuration::default() });
        let empty = if caching_mode { Err(Reason::READ) } else { Ok(0x9_9000) };
        assert_eq!(read(&machine, 0x2000), Err(Reason::READ));
        put(&machine, TABLES + 0x3010, 0x9_9000 | 3);
        assert_eq!(read(&machine, 0x2000), empty);
        submit(&machine, &[page(DOMAIN, 0x2000)]);
        assert_eq!(read(&machine, 0x2000), Ok(0x9_9000));

        let other = 0x40;
        let ask = || only(machine.dma(0, other, 0x1000, 4, Access::Read));
        assert_eq!(ask(), Err(Reason::CONTEXT_NOT_PRESENT));
        context(&machine, other, TABLES, DOMAIN, 2);
        assert_eq!(ask().is_ok(), !caching_mode);
        submit(&machine, &[device(DOMAIN, other)]);
        assert_eq!(ask().is_ok(), !caching_mode, "what is not present is tagged with domain 0");
        submit(&machine, &[device(0, other)]);
        assert_eq!(ask(), Ok(0x7_7000));
    }
}

#[test]
fn a_missing_table_is_remembered_in_caching_mode_until_invalidated_without_the_hint() {
    let machine = translating(Configuration { caching_mode: true, ..Configuration::default() });
    assert_eq!(read(&machine, 0x20_0000), Err(Reason::READ));
    clear(&machine, TABLES + 0x8000);
    put(&machine, TABLES + 0x8000, 0x9_9000 | 3);
    put(&machine, TABLES + 0x2008, (TABLES + 0x8000) | 3);
    submit(&machine, &[page(DOMAIN, 0x20_0000 | 1 << 6)]);
    assert_eq!(read(&machine, 0x20_0000), Err(Reason::READ));
    submit(&machine, &[page(DOMAIN, 0x20_0000)]);
    assert_eq!(read(&machine, 0x20_0000), Ok(0x9_9000));
}

#[test]
fn a_large_page_where_nothing_was_needs_no_more_than_an_invalidation_of_all_of_it_with_the_hint() {
    let machine = translating(Configuration { caching_mode: true, ..Configuration::default() });
    assert_eq!(read(&machine, 0x20_1000), Err(Reason::READ));
    put(&machine, TABLES + 0x2008, 0x60_0000 | 0x83);
    submit(&machine, &[page(DOMAIN, 0x20_0000 | 1 << 6 | 8)]);
    assert_eq!(read(&machine, 0x20_1000), Err(Reason::READ), "1 MiB is not all of it");
    submit(&machine, &[page(DOMAIN, 0x20_0000 | 1 << 6 | 9)]);
    assert_eq!(read(&machine, 0x20_1000), Ok(0x60_1000));
}

#[test]
fn bad_descriptors_freeze_the_head_until_replaced_and_iqe_cleared() {
    let cases = [
        ((0xf, 0), QueueError::Type),
        ((0x3, 0), QueueError::Type),
        ((0x0, 0), QueueError::Type),
        ((0x01, 0), QueueError::Reserved),
        ((0x02, 0), QueueError::Reserved),
        ((0x11 | 1 << 6, 0), QueueError::Reserved),
        ((0x11, 1), QueueError::Reserved),
        ((0x12 | 1 << 8, 0), QueueError::Reserved),
        ((0x12, 1 << 7), QueueError::Reserved),
        ((0x32, 19), QueueError::Reserved),
        ((0x14 | 16 << 27, 0), QueueError::Reserved),
        ((0x04 | 1 << 5, 0), QueueError::Reserved),
        ((0x25, STATUS | 1), QueueError::Reserved),
        ((0x25 | 1 << 9, STATUS), QueueError::Type),
    ];
    for (bad, error) in cases {
        let machine = translating(Configuration::default());
        let head = machine.read64(0, IQH);
        submit(&machine, &[wait(1), bad, wait(2)]);
        assert_eq!(machine.read32(0, FSTS), IQE, "{bad:x?}");
        assert_eq!(machine.read64(0, IQERCD) & 0xf, error as u64, "{bad:x?}");
        assert_eq!(machine.read64(0, IQH), head + 16, "{bad:x?}");
        assert_eq!(machine.load(STATUS) as u32, 1);
        machine.write32(0, FSTS, IQE);
        assert_eq!(machine.read32(0, FSTS), IQE, "the same descriptor is fetched again");
        machine.store_u64(QUEUE + head + 16, 0x12);
        machine.store_u64(QUEUE + head + 24, 0);
        assert_eq!(machine.load(STATUS) as u32, 1);
        machine.write32(0, FSTS, IQE);
        assert_eq!((machine.read32(0, FSTS), machine.load(STATUS) as u32), (0, 2));
    }
}

#[test]
fn a_tail_beyond_the_queue_is_an_error() {
    let machine = translating(Configuration::default());
    machine.write64(0, IQT, 4096);
    assert_eq!(machine.read32(0, FSTS), IQE);
    assert_eq!(machine.read64(0, IQERCD) & 0xf, QueueError::Tail as u64);
}

#[test]
fn the_queue_wraps() {
    let machine = translating(Configuration::default());
    for round in 1..600 {
        submit(&machine, &[wait(round)]);
        assert_eq!(machine.load(STATUS) as u32, round);
    }
    assert_eq!(machine.read64(0, IQH), (2 + 599) * 16 % 4096);
}

#[test]
fn the_head_arrives_before_the_work_is_done() {
    let machine = translating(Configuration::default());
    assert_eq!(read(&machine, 0x1000), Ok(0x7_7000));
    put(&machine, TABLES + 0x3008, 0);
    machine.unit(0, |unit, _| unit.set_latency(Latency::Steps));
    submit(&machine, &[GLOBAL_PAGES, wait(7)]);
    assert_eq!(machine.read64(0, IQH), machine.read64(0, IQT));
    assert_eq!(read(&machine, 0x1000), Ok(0x7_7000));
    assert!(machine.step());
    assert_eq!(read(&machine, 0x1000), Err(Reason::READ));
    assert_ne!(machine.load(STATUS) as u32, 7);
    assert!(machine.step());
    assert_eq!(machine.load(STATUS) as u32, 7);
    assert!(!machine.step());
}

#[test]
fn work_can_be_done_after_a_number_of_looks() {
    let machine = translating(Configuration::default());
    machine.unit(0, |unit, _| unit.set_latency(Latency::Looks(3)));
    submit(&machine, &[wait(9)]);
    let looks = (1..).find(|_| machine.load(STATUS) as u32 == 9);
    assert_eq!(looks, Some(2), "the read of IQT was the first look");
}

#[test]
fn a_time_out_drops_what_is_under_way_and_stops_the_queue() {
    let machine = translating(Configuration::default());
    machine.unit(0, |unit, _| unit.set_latency(Latency::Steps));
    submit(&machine, &[GLOBAL_PAGES, wait(7)]);
    machine.unit(0, |unit, _| unit.inject_invalidation_timeout(SOURCE));
    submit(&machine, &[wait(8)]);
    assert!(!machine.step());
    assert_eq!(machine.read32(0, FSTS), ITE);
    machine.write32(0, FSTS, ITE);
    assert!(machine.step());
    assert_eq!(machine.load(STATUS) as u32, 8);
}

#[test]
fn the_completion_event_is_sent_once_until_served() {
    let machine = translating(Configuration::default());
    machine.write32(0, IEDATA, 0x42);
    machine.write32(0, IEADDR, 0xfee0_2000);
    submit(&machine, &[(0x15, 0)]);
    assert_eq!((machine.read32(0, ICS), machine.read32(0, IECTL)), (IWC, IM | IP));
    machine.write32(0, IECTL, 0);
    assert_eq!(machine.take_messages(0), [Message { address: 0xfee0_2000, data: 0x42 }]);
    submit(&machine, &[(0x15, 0)]);
    assert_eq!(machine.take_messages(0), []);
    machine.write32(0, ICS, IWC);
    submit(&machine, &[(0x15, 0)]);
    assert_eq!(machine.take_messages(0).len(), 1);
}

#[test]
fn eviction_can_show_the_tables_before_any_invalidation() {
    let machine = translating(Configuration::default());
    machine.unit(0, |unit, _| unit.set_eviction(Eviction::PseudoRandom { seed: 3, one_in: 2 }));
    assert_eq!(read(&machine, 0x1000), Ok(0x7_7000));
    put(&machine, TABLES + 0x3008, 0x9_9000 | 3);
    let seen: Vec<_> = (0..8).map(|_| read(&machine, 0x1000).unwrap()).collect();
    assert_eq!(seen.last(), Some(&0x9_9000));
}
