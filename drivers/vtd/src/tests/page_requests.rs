use super::fake::{CAP, ECAP, Event, Fake, TestUnit};
use super::std::vec::Vec;
use crate::{Error, FaultInterrupt, PageRequest, PageRequestDrain, PageResponse};
use addr::{ApicId, Bdf, Vector};

/// ECAP with PRS.
const PRS: u64 = ECAP | 1 << 29;
const SOURCE: Bdf = Bdf::from_u16(0x0100);
const STATUS: u16 = 0xdc;

fn up(size: u8) -> (Fake, TestUnit, Fake) {
    let fake = Fake::with(CAP, PRS);
    let (mut unit, mut memory) = fake.up();
    unit.enable_page_requests(&mut memory, size).unwrap();
    fake.take_log();
    (fake, unit, memory)
}

/// Hardware reports a request for page `page`, the last of group `group` if it is so.
fn ask(fake: &Fake, page: u64, group: u64, last: bool) {
    fake.inner(|inner| {
        let bytes = 4096 << (inner.others[&0xd0] & 7);
        let tail = inner.others[&0xc8];
        let place = (inner.others[&0xd0] & !0xfff) + tail;
        let words = [0x0100_0001, page << 12 | group << 3 | u64::from(last) << 2 | 1];
        for (number, word) in words.into_iter().enumerate() {
            inner.memory.insert(place + number as u64 * 8, word);
        }
        inner.others.insert(0xc8, (tail + 32) % bytes);
        *inner.others.entry(STATUS).or_default() |= 1;
    });
}

fn responses(log: &[Event]) -> Vec<(u64, u64)> {
    log.iter()
        .filter_map(|event| match *event {
            Event::Executed(low, high) if low & 0xf == 9 => Some((low, high)),
            _ => None,
        })
        .collect()
}

#[test]
fn requests_are_reported_in_order_and_each_group_is_answered_once() {
    let (fake, mut unit, mut memory) = up(0);
    for round in 0..30u64 {
        for number in 0..7 {
            ask(&fake, round * 100 + number, round, number == 6);
        }
        let mut pages = Vec::new();
        let drain = unit
            .drain_page_requests(&mut memory, |request| {
                assert_eq!(request.source, SOURCE);
                pages.push(request.address.as_u64() >> 12);
                Some(if round % 2 == 0 { PageResponse::Success } else { PageResponse::InvalidRequest })
            })
            .unwrap();
        assert_eq!(pages, (0..7).map(|number| round * 100 + number).collect::<Vec<_>>());
        assert_eq!(drain, PageRequestDrain { requests: 7, ..Default::default() });
        let log = fake.take_log();
        let code = (round % 2) << 12;
        assert_eq!(responses(&log), [(0x0100_0009 | code, round << 3 | 4)]);
        assert_eq!(fake.inner(|inner| (inner.others[&0xc0], inner.others[&STATUS])), ((round + 1) * 7 * 32 % 4096, 0));
        // The status is cleared before the tail is read, so that what comes after is pending.
        assert_eq!(log[0], Event::Write32(STATUS, 1));
    }
    assert_eq!(unit.drain_page_requests(&mut memory, |_| panic!("none")).unwrap(), PageRequestDrain::default());
}

#[test]
fn a_full_ring_is_drained_with_its_answers_in_few_batches_and_an_overflow_is_cleared_last() {
    let (fake, mut unit, mut memory) = up(1);
    // From every third place of a ring of 256.
    for _ in 0..5 {
        for number in 0..255 {
            ask(&fake, number, number, true);
        }
        fake.inner(|inner| *inner.others.get_mut(&STATUS).unwrap() |= 2);
        let drain = unit.drain_page_requests(&mut memory, |_| Some(PageResponse::Success)).unwrap();
        assert_eq!(drain, PageRequestDrain { requests: 255, overflow: true, ..Default::default() });
        let log = fake.take_log();
        assert_eq!(responses(&log).len(), 255);
        assert!(responses(&log).iter().enumerate().all(|(number, &(_, high))| high == (number as u64) << 3 | 4));
        assert_eq!(log.iter().filter(|event| matches!(event, Event::Write64(0x88, _))).count(), 8);
        let emptied = log.iter().rposition(|event| matches!(event, Event::Write64(0xc0, _))).unwrap();
        let cleared = log.iter().position(|&event| event == Event::Write32(STATUS, 2)).unwrap();
        assert!(emptied < cleared, "hardware drops requests until the ring is empty");
        assert_eq!(fake.inner(|inner| inner.others[&STATUS]), 0);
    }
}

#[test]
fn an_answer_may_come_later_and_what_is_no_request_is_passed_over() {
    let (fake, mut unit, mut memory) = up(0);
    ask(&fake, 5, 9, true);
    ask(&fake, 6, 9, true);
    fake.inner(|inner| {
        inner.memory.insert(inner.others[&0xd0] & !0xfff, 0x77);
    });
    let mut kept: Option<PageRequest> = None;
    let drain = unit
        .drain_page_requests(&mut memory, |request| {
            kept = Some(request);
            None
        })
        .unwrap();
    assert_eq!(drain, PageRequestDrain { requests: 1, unknown: 1, ..Default::default() });
    assert_eq!(responses(&fake.take_log()), []);
    unit.respond_to_page_request(&mut memory, &kept.unwrap(), PageResponse::Failure).unwrap();
    assert_eq!(responses(&fake.take_log()), [(0x0100_f009, 9 << 3 | 4)]);
}

#[test]
fn requests_that_come_meanwhile_are_left_for_the_next_call() {
    let (fake, mut unit, mut memory) = up(0);
    ask(&fake, 1, 1, true);
    let asks = fake.clone();
    let drain = unit
        .drain_page_requests(&mut memory, |_| {
            (0..100).for_each(|page| ask(&asks, page, 2, false));
            Some(PageResponse::Success)
        })
        .unwrap();
    assert_eq!(drain, PageRequestDrain { requests: 1, more: true, ..Default::default() });
    assert_eq!(unit.drain_page_requests(&mut memory, |_| None).unwrap().requests, 100);
}

#[test]
fn an_index_that_names_no_place_is_an_error() {
    for (register, value) in [(0xc8, 4096), (0xc8, 0x10), (0xc0, 4096), (0xc0, 0x10)] {
        let (fake, mut unit, mut memory) = up(0);
        fake.inner(|inner| {
            inner.others.insert(register, value);
        });
        let result = unit.drain_page_requests(&mut memory, |_| panic!("none"));
        assert!(matches!(result, Err(Error::BadPageRequestIndex { .. })), "{result:?}");
    }
    let (fake, mut unit, mut memory) = up(0);
    fake.inner(|inner| {
        inner.others.insert(STATUS, u64::from(u32::MAX));
    });
    assert_eq!(unit.drain_page_requests(&mut memory, |_| panic!("gone")).unwrap(), PageRequestDrain::default());
}

#[test]
fn the_ring_is_set_up_empty_and_its_interrupt_masked() {
    let fake = Fake::with(CAP, PRS);
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| {
        inner.others.extend([(0xc0, 0x40), (0xc8, 0x80), (STATUS, 3)]);
        inner.next_frame = inner.next_frame.next_multiple_of(0x4000) + 0x1000;
    });
    let interrupt = FaultInterrupt { vector: Vector(0x61), destination: ApicId(0x123) };
    assert!(matches!(unit.enable_page_request_interrupt(interrupt), Err(Error::OutOfOrder { .. })));
    assert!(matches!(unit.drain_page_requests(&mut memory, |_| None), Err(Error::OutOfOrder { .. })));
    unit.enable_page_requests(&mut memory, 2).unwrap();
    fake.inner(|inner| {
        assert_eq!((inner.others[&0xc0], inner.others[&0xc8], inner.others[&STATUS]), (0, 0, 0));
        assert_eq!(inner.others[&0xd0] & 0x3fff, 2, "four pages, aligned to them");
        assert_eq!(inner.others[&0xe0], 1 << 31);
    });
    assert!(matches!(unit.enable_page_requests(&mut memory, 0), Err(Error::OutOfOrder { .. })));
    fake.take_log();
    unit.enable_page_request_interrupt(interrupt).unwrap();
    let expected = [
        Event::Write32(0xe0, 1 << 31),
        Event::Write32(0xe4, 0x61),
        Event::Write32(0xe8, 0xfee2_3000),
        Event::Write32(0xec, 0x100),
        Event::Write32(0xe0, 0),
    ];
    assert_eq!(fake.take_log(), expected);
    unit.enable_page_request_interrupt(FaultInterrupt { vector: Vector(16), ..interrupt }).unwrap();
    let low = FaultInterrupt { vector: Vector(15), ..interrupt };
    assert_eq!(unit.enable_page_request_interrupt(low), Err(Error::BadVector(Vector(15))));
    let far = FaultInterrupt { destination: ApicId(u32::MAX), ..interrupt };
    assert_eq!(unit.enable_page_request_interrupt(far), Err(Error::DestinationOutOfRange(ApicId(u32::MAX))));
}

#[test]
fn units_without_page_requests_or_without_a_queue_are_refused() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    assert!(matches!(unit.enable_page_requests(&mut memory, 0), Err(Error::Unsupported { .. })));
    let fake = Fake::with(CAP, PRS);
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    assert!(matches!(unit.enable_page_requests(&mut memory, 0), Err(Error::OutOfOrder { .. })));
    let fake = Fake::with(CAP, PRS & !2);
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    unit.stop_firmware().unwrap();
    unit.mask_and_clear_faults().unwrap();
    unit.enable_queue(&mut memory).unwrap();
    assert!(matches!(unit.enable_page_requests(&mut memory, 0), Err(Error::Unsupported { .. })));
    let fake = Fake::with(CAP, PRS);
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.frames_left = 0);
    assert!(matches!(unit.enable_page_requests(&mut memory, 0), Err(Error::OutOfMemory(_))));
}

#[test]
fn requests_that_were_reported_are_not_reported_again_where_their_answer_failed() {
    let (fake, mut unit, mut memory) = up(1);
    (0..100).for_each(|number| ask(&fake, number, number, true));
    fake.inner(|inner| inner.stalled = true);
    let mut reported = 0;
    let result = unit.drain_page_requests(&mut memory, |_| {
        reported += 1;
        Some(PageResponse::Success)
    });
    assert!(matches!(result, Err(Error::Invalidation(_))), "{result:?}");
    assert_eq!((reported, fake.inner(|inner| inner.others[&0xc0])), (32, 32 * 32), "their places are free");
}
