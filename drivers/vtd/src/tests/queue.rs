use super::fake::TestUnit;
use super::fake::{CAP, ECAP, Event, Fake};
use super::std::vec::Vec;
use crate::spec::invalidation::Descriptor;
use crate::{DescriptorWidth, QueueLayout};
use crate::{Error, IotlbInvalidation, QueueError};
use addr::{DomainId, Iova};

const DOMAIN: IotlbInvalidation = IotlbInvalidation::Domain(DomainId(5));

fn range(start: u64, bytes: u64) -> IotlbInvalidation {
    IotlbInvalidation::Range { domain: DomainId(5), start: Iova::new(start), bytes, leaves_only: false }
}

#[test]
fn the_ring_wraps_at_every_phase() {
    // 1, 2 and 33 descriptors and a wait each: the wrap falls on descriptors and on waits.
    for batch in [1, 2, 33] {
        let fake = Fake::new();
        let (mut unit, mut memory) = fake.up();
        for _ in 0..1000 {
            unit.invalidate_iotlb(&mut memory, (0..batch).map(|_| DOMAIN)).unwrap();
        }
        assert_eq!(Fake::executed(&fake.take_log()).len(), 1000 * batch);
    }
}

#[test]
fn a_batch_has_one_wait_and_one_tail_write() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    unit.invalidate_iotlb(&mut memory, [DOMAIN; 20]).unwrap();
    let log = fake.take_log();
    assert_eq!(log.iter().filter(|event| matches!(event, Event::Write64(0x88, _))).count(), 1);
    assert_eq!(log.iter().filter(|event| matches!(event, Event::Executed(low, _) if low & 0xf == 5)).count(), 1);
    unit.invalidate_iotlb(&mut memory, []).unwrap();
    unit.invalidate_iotlb(&mut memory, [range(0x1000, 0)]).unwrap();
    assert!(fake.take_log().is_empty(), "nothing to do is nothing done");
}

#[test]
fn a_range_is_invalidated_by_the_fewest_blocks_that_cover_it() {
    let caps = crate::Capabilities { cap: CAP, ecap: ECAP };
    let all = |caps, start, bytes| range(start, bytes).descriptors(caps).map(|d| (d.low, d.high)).collect::<Vec<_>>();
    let of = |start, bytes| all(caps, start, bytes).into_iter().map(|(_, high)| high).collect::<Vec<_>>();
    assert_eq!(of(0x1000, 0x1000), [0x1000]);
    assert_eq!(of(0x1000, 0x2000), [2], "pages 1 and 2 are in block 0 to 3 only");
    assert_eq!(of(0x2000, 0x2000), [0x2001]);
    assert_eq!(of(0x1fff, 2), [2], "a byte of each page");
    assert_eq!(of(0x20_0000, 0x20_0000), [0x20_0009]);
    assert_eq!(of(0x4000_0000, 0x4000_0000), [0x4000_0012], "262144 pages are one descriptor");
    assert_eq!(all(caps, 0x1000, 0x1000), [(0x5_00f2, 0x1000)], "page-selective, drained");
    assert_eq!(of(0, 0x4000_1000), [0x12, 0x4000_0000], "beyond MAMV: two blocks");
    assert_eq!(of(0x3fff_f000, 0x2000), [0x3fff_f000, 0x4000_0000], "across a boundary, two pages and no more");
}

#[test]
fn a_range_of_many_blocks_is_the_domain() {
    let caps = crate::Capabilities { cap: CAP, ecap: ECAP };
    let all = |caps, start, bytes| range(start, bytes).descriptors(caps).map(|d| (d.low, d.high)).collect::<Vec<_>>();
    assert_eq!(all(caps, 0, 4 << 30).len(), 4);
    assert_eq!(all(caps, 0, (4 << 30) + 1), [(0x5_00e2, 0)]);
    assert_eq!(all(caps, u64::MAX - 10, u64::MAX), [(0x5_00f2, !0xfff)], "no overflow");
    assert_eq!(all(caps, 0x1000, 0), []);
    let without = crate::Capabilities { cap: CAP & !(1 << 39 | 3 << 54), ecap: ECAP };
    assert_eq!(all(without, 0x1000, 0x1000), [(0x5_0022, 0)], "no PSI, no draining");
    let small = crate::Capabilities { cap: CAP & !(0x3f << 48), ecap: ECAP };
    assert_eq!(
        all(small, 0x1000, 0x4000).iter().map(|&(_, high)| high).collect::<Vec<_>>(),
        [0x1000, 0x2000, 0x3000, 0x4000]
    );
    assert_eq!(all(small, 0x1000, 0x5000), [(0x5_00e2, 0)]);
    let large = crate::Capabilities { cap: CAP | 0x3f << 48, ecap: ECAP };
    assert_eq!(all(large, 0, u64::MAX), [(0x5_00f2, 52)]);
}

#[test]
fn hardware_that_executes_nothing_is_a_timeout_and_poisons() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.stalled = true);
    let result = unit.invalidate_iotlb(&mut memory, [DOMAIN]);
    let Err(Error::Invalidation(QueueError::Timeout { expected, last, .. })) = result else { panic!("{result:?}") };
    assert_eq!(expected, last + 1);
    assert!(unit.is_poisoned());
}

#[test]
fn a_stuck_queue_is_never_overrun() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| {
        inner.stalled = true;
        inner.max_in_flight = 0;
    });
    let full = (0..20).find_map(|_| match unit.invalidate_iotlb(&mut memory, [DOMAIN; 31]) {
        Err(Error::Invalidation(QueueError::Full { .. })) => Some(()),
        Err(Error::Invalidation(QueueError::Timeout { .. })) => None,
        other => panic!("{other:?}"),
    });
    assert!(full.is_some());
    fake.inner(|inner| assert!(inner.max_in_flight > 200 && inner.max_in_flight < 256, "{}", inner.max_in_flight));
    // However often it is tried, nothing that hardware has not fetched is written over.
    let in_flight = fake.inner(|inner| inner.max_in_flight);
    for _ in 0..300 {
        let full = unit.invalidate_iotlb(&mut memory, [DOMAIN]);
        assert!(matches!(full, Err(Error::Invalidation(QueueError::Full { .. } | QueueError::Timeout { .. }))));
    }
    fake.take_log();
    // Once hardware works again, it finds every descriptor that it was given, and then there is room.
    fake.inner(|inner| {
        inner.stalled = false;
        inner.run_queue();
    });
    let log = fake.take_log();
    let found =
        log.iter().filter(|event| matches!(event, Event::Executed(0x5_00e2, 0) | Event::Executed(_, 0x10_1000..)));
    assert!(found.count() as u64 >= in_flight, "each is the one that was given");
    let waits: Vec<_> = log
        .iter()
        .filter_map(|event| {
            if let Event::Executed(low, high) = event { (low & 0xf == 5).then_some((*high, low >> 32)) } else { None }
        })
        .collect();
    assert!(waits.is_sorted_by_key(|&(_, number)| number), "{waits:x?}");
    unit.invalidate_iotlb(&mut memory, [DOMAIN; 31]).unwrap();
}

/// A unit whose queue is laid out so, and that is otherwise not set up.
fn queue_of(fake: &Fake, layout: QueueLayout) -> (TestUnit, Fake) {
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    unit.stop_firmware().unwrap();
    unit.mask_and_clear_faults().unwrap();
    unit.enable_queue_with(&mut memory, layout).unwrap();
    fake.take_log();
    (unit, memory)
}

#[test]
fn queues_of_every_size_and_width_work_through_batches_of_any_length() {
    for (size, width) in [
        (0, DescriptorWidth::Narrow),
        (0, DescriptorWidth::Wide),
        (3, DescriptorWidth::Wide),
        (7, DescriptorWidth::Narrow),
    ] {
        let layout = QueueLayout { size, width };
        let fake = Fake::with(CAP, ECAP | 1 << 43);
        let (mut unit, mut memory) = queue_of(&fake, layout);
        assert_eq!(
            fake.inner(|inner| inner.iqa & 0xfff),
            u64::from(size) | u64::from(width == DescriptorWidth::Wide) << 11
        );
        assert_eq!(
            fake.inner(|inner| inner.iqa) & !0xfff & (4096 * layout.pages() as u64 - 1),
            0,
            "aligned to its size"
        );
        assert_eq!(u64::from(layout.places()), (4096 << size) / width.bytes());
        let half = usize::from(layout.places()) / 2;
        for length in [1, half - 3, half - 2, half - 1, half, 3 * half + 7] {
            for _ in 0..if size == 7 { 1 } else { 5 } {
                unit.invalidate_iotlb(&mut memory, (0..length).map(|_| DOMAIN)).unwrap();
                let log = fake.take_log();
                assert_eq!(Fake::executed(&log).len(), length, "{layout:?}");
                let tails = log.iter().filter(|event| matches!(event, Event::Write64(0x88, _))).count();
                assert_eq!(tails, length.div_ceil(half - 2), "{layout:?}: {length}");
            }
        }
        fake.inner(|inner| assert!(inner.max_in_flight < u64::from(layout.places())));
    }
}

#[test]
fn wide_descriptors_need_scalable_mode() {
    let fake = Fake::new();
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    unit.stop_firmware().unwrap();
    unit.mask_and_clear_faults().unwrap();
    let layout = QueueLayout { size: 0, width: DescriptorWidth::Wide };
    assert!(matches!(unit.enable_queue_with(&mut memory, layout), Err(Error::Unsupported { .. })));
}

#[test]
fn a_completion_that_comes_late_completes_no_later_wait() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.late = Some(Default::default()));
    assert!(unit.invalidate_iotlb(&mut memory, [DOMAIN]).is_err());
    assert!(unit.invalidate_iotlb(&mut memory, [DOMAIN]).is_err());
    let late = fake.inner(|inner| inner.late.replace(Default::default())).unwrap();
    assert_ne!(late[0].0, late[1].0, "each generation has its own word");
    // All completions of the past arrive now; the next wait, whose own is held back, must still time out.
    fake.inner(|inner| late.iter().for_each(|&(address, data)| inner.status_write(address, data)));
    assert!(unit.invalidate_iotlb(&mut memory, [DOMAIN]).is_err());
    fake.inner(|inner| inner.late = None);
    unit.invalidate_iotlb(&mut memory, [DOMAIN]).unwrap();
}

#[test]
fn waits_without_end_that_time_out_end_when_hardware_answers_again() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.late = Some(Default::default()));
    let mut words = Vec::new();
    for _ in 0..1100 {
        let result = unit.invalidate_iotlb(&mut memory, [DOMAIN]);
        assert!(matches!(result, Err(Error::Invalidation(QueueError::Timeout { .. }))), "{result:?}");
        let (word, data) = fake.inner(|inner| inner.late.replace(Default::default())).unwrap()[0];
        assert!(!words.contains(&(word, data)), "a number is never used twice");
        assert!(!words.iter().rev().take(500).any(|&(earlier, _)| earlier == word), "words take turns");
        words.push((word, data));
    }
    // All completions of the past arrive, the last ones first.
    fake.inner(|inner| words.iter().rev().for_each(|&(address, data)| inner.status_write(address, data)));
    assert!(unit.invalidate_iotlb(&mut memory, [DOMAIN]).is_err());
    fake.inner(|inner| inner.late = None);
    unit.invalidate_iotlb(&mut memory, [DOMAIN]).unwrap();
}

#[test]
fn a_refused_descriptor_is_done_by_one_that_says_more() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| {
        // Page-selective IOTLB invalidations.
        inner.refused = Some((0x3f, 0x32));
        inner.fsts = 1;
    });
    unit.invalidate_iotlb(&mut memory, [DOMAIN, range(0x1000, 0x1000), DOMAIN]).unwrap();
    assert!(!unit.is_poisoned(), "all that was asked is done");
    let log = fake.take_log();
    assert_eq!(Fake::executed(&log), [0x5_00e2, 0xd2, 0x5_00e2], "in its place, and so in its order");
    let clear = log.iter().position(|&event| event == Event::Write32(0x34, 0x10)).expect("IQE alone is cleared");
    let replace = log.iter().rposition(|event| matches!(event, Event::Store(..))).unwrap();
    assert!(replace < clear, "clearing IQE makes hardware fetch again");
    assert_eq!(fake.inner(|inner| inner.fsts), 1, "PFO is not the queue's to clear");
}

#[test]
fn a_unit_that_goes_on_only_when_told_of_the_tail_is_told() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| {
        inner.refused = Some((0x3f, 0x32));
        inner.wants_tail = true;
    });
    unit.invalidate_iotlb(&mut memory, [DOMAIN, range(0x1000, 0x1000), DOMAIN]).unwrap();
    assert_eq!(Fake::executed(&fake.take_log()), [0x5_00e2, 0xd2, 0x5_00e2]);
    fake.inner(|inner| (inner.refused, inner.device_error) = (None, 1 << 6));
    unit.invalidate_iotlb(&mut memory, [DOMAIN]).unwrap();
    assert_eq!(Fake::executed(&fake.take_log()), [0x5_00e2; 2], "after a timeout too");
}

#[test]
fn every_type_of_descriptor_has_one_that_says_more() {
    let source = addr::Bdf::from_u16(0x1234);
    let (pages, drain) = (Iova::new(0x5000), crate::spec::invalidation::Drain { writes: true, reads: true });
    for (part, whole) in [
        (Descriptor::context_cache_device(DomainId(7), source), Descriptor::context_cache_global()),
        (Descriptor::context_cache_domain(DomainId(7)), Descriptor::context_cache_global()),
        (Descriptor::iotlb_pages(DomainId(7), pages, 0, true, drain), Descriptor::iotlb_global(drain)),
        (Descriptor::interrupt_entry_cache_index(5, 0), Descriptor::interrupt_entry_cache_global()),
        (
            Descriptor::device_tlb_pages(source, source, 1, pages, 0),
            Descriptor::device_tlb_pages(source, source, 1, pages, 64),
        ),
    ] {
        let fake = Fake::new();
        let (mut unit, mut memory) = fake.up();
        // What is refused is the part, by what tells it from the whole.
        let told_apart = part.low ^ whole.low;
        fake.inner(|inner| inner.refused = Some((0xf | told_apart, part.low & (0xf | told_apart))));
        if told_apart == 0 {
            // Device-TLB descriptors differ in their high halves, which the fake does not look at: both are refused.
            assert!(matches!(unit.submit(&mut memory, &[part]), Err(Error::Invalidation(QueueError::Refused { .. }))));
            let log = fake.take_log();
            assert!(
                log.contains(&Event::Refused(part.low, part.high))
                    && log.contains(&Event::Refused(whole.low, whole.high))
            );
            continue;
        }
        unit.submit(&mut memory, &[part]).unwrap();
        let log = fake.take_log();
        assert!(log.contains(&Event::Refused(part.low, part.high)));
        assert!(log.contains(&Event::Executed(whole.low, whole.high)), "{part:x?}");
    }
}

#[test]
fn what_is_refused_in_every_form_is_named_and_the_rest_is_done() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.refused = Some((0xf, 2)));
    let context = Descriptor::context_cache_global();
    let iotlb = Descriptor::iotlb_domain(DomainId(5), Default::default());
    let result = unit.submit(&mut memory, &[iotlb, context]);
    let Err(Error::Invalidation(QueueError::Refused { descriptor, record, .. })) = result else { panic!("{result:?}") };
    assert_eq!((descriptor, record), (Descriptor { low: 0xd2, high: 0 }, 4));
    let log = fake.take_log();
    assert_eq!(Fake::executed(&log), [context.low]);
    let status = log.iter().find_map(|event| match event {
        Event::Executed(low, high) if low & 0xf == 5 && low >> 32 != 0 => Some(high & !0xfff),
        _ => None,
    });
    let harmless = Event::Executed(0x65, status.unwrap() + 4088);
    assert!(log.contains(&harmless), "a wait that writes where nobody looks: {log:x?}");
    assert!(unit.is_poisoned());
    fake.inner(|inner| inner.refused = None);
    unit.invalidate_iotlb(&mut memory, [DOMAIN]).unwrap();
    fake.take_log();
    unit.recover(&mut memory).unwrap();
    assert_eq!(Fake::executed(&fake.take_log()), [0x11, 0xd2, 0x04]);
    assert!(!unit.is_poisoned());
}

#[test]
fn a_unit_that_forgets_nothing_stays_poisoned() {
    for refused in [1, 2, 4] {
        let fake = Fake::new();
        let (mut unit, mut memory) = fake.up();
        unit.poison();
        fake.inner(|inner| inner.refused = Some((0xf, refused)));
        assert!(unit.recover(&mut memory).is_err());
        assert!(unit.is_poisoned());
    }
}

#[test]
fn a_refused_wait_ends_the_wait() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.refused = Some((0xf, 5)));
    let result = unit.invalidate_iotlb(&mut memory, [DOMAIN]);
    assert!(matches!(result, Err(Error::Invalidation(QueueError::Refused { .. }))), "{result:?}");
    let attempts = fake.take_log().iter().filter(|&&event| event == Event::Write32(0x34, 0x10)).count();
    assert_eq!(attempts, 1, "nothing is gained by having it refused again and again");
    // It does not stand in the way for ever.
    for wants_tail in [false, true] {
        fake.inner(|inner| {
            inner.refused = None;
            inner.wants_tail = wants_tail;
        });
        unit.invalidate_iotlb(&mut memory, [DOMAIN]).unwrap();
        fake.inner(|inner| inner.refused = Some((0xf, 5)));
        unit.invalidate_iotlb(&mut memory, [DOMAIN]).unwrap_err();
    }
}

/// A device-TLB invalidation of a device.
fn device_tlb(source: u16) -> Descriptor {
    let source = addr::Bdf::from_u16(source);
    Descriptor::device_tlb_pages(source, source, 0, Iova::new(0x1000), 0)
}

#[test]
fn a_device_that_does_not_answer_keeps_nothing_else_from_being_done() {
    for named in [true, false] {
        for before in 0..120 {
            let fake = Fake::new();
            let (mut unit, mut memory) = fake.up();
            // The window falls on every place of the ring.
            for _ in 0..before {
                unit.submit(&mut memory, &[Descriptor::context_cache_global()]).unwrap();
            }
            unit.assign(
                &mut memory,
                addr::Bdf::from_u16(0x20),
                DomainId(9),
                addr::HostPhys::new(0x9000),
                crate::Levels::Four,
            )
            .unwrap();
            fake.take_log();
            fake.inner(|inner| (inner.silent, inner.names_silent, inner.fsts) = ([0x20].into(), named, 1));
            let iotlb = Descriptor::iotlb_domain(DomainId(5), Default::default());
            let batch = [device_tlb(0x20), device_tlb(0x30), iotlb, device_tlb(0x20)];
            let batch = if named { &batch[..] } else { &batch[2..] };
            assert_eq!(unit.submit(&mut memory, batch), Err(Error::DeviceIsolated(addr::Bdf::from_u16(0x20))));
            let log = fake.take_log();
            let asked = log.iter().filter(|&&event| event == Event::Silent(0x20)).count();
            assert_eq!(asked, 1, "who does not answer is not asked again");
            let executed = Fake::executed(&log);
            assert!(executed.contains(&iotlb.low), "{executed:x?}");
            assert!(!named || executed.contains(&device_tlb(0x30).low), "{executed:x?}");
            // The device reaches nothing any more, and hardware has forgotten it.
            assert_eq!(unit.assignment(&memory, addr::Bdf::from_u16(0x20)), None);
            assert!(executed.ends_with(&[0x20_0009_0031, 0x9_00e2]), "{executed:x?}");
            assert!(!unit.is_poisoned(), "others are not concerned");
            assert_eq!(fake.inner(|inner| inner.fsts), 1, "ITE alone is cleared");
            unit.submit(&mut memory, &[device_tlb(0x30), iotlb]).unwrap();
        }
    }
}

#[test]
fn several_devices_that_do_not_answer_are_found_one_by_one() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    let silent: Vec<u16> = (1..=6).map(|number| number << 3).collect();
    for (number, source) in silent.iter().enumerate() {
        let (domain, table) = (DomainId(number as u16 + 1), addr::HostPhys::new((number as u64 + 1) << 12));
        unit.assign(&mut memory, addr::Bdf::from_u16(*source), domain, table, crate::Levels::Four).unwrap();
    }
    fake.take_log();
    fake.inner(|inner| inner.silent = silent.clone());
    let batch: Vec<_> = (1..=20).map(|number| device_tlb(number << 3)).collect();
    assert!(matches!(unit.submit(&mut memory, &batch), Err(Error::DeviceIsolated(_))));
    let executed = Fake::executed(&fake.take_log());
    for source in 1..=20 {
        let answered = executed.contains(&device_tlb(source << 3).low);
        assert_eq!(answered, source > 6, "{source}");
        assert!(source > 6 || unit.assignment(&memory, addr::Bdf::from_u16(source << 3)).is_none());
    }
    assert!(!unit.is_poisoned());
}

#[test]
fn hardware_that_times_out_without_end_is_given_up() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| (inner.device_error, inner.more_errors) = (1 << 6, usize::MAX));
    let result = unit.submit(&mut memory, &[Descriptor::context_cache_global()]);
    assert_eq!(result, Err(Error::Invalidation(QueueError::DeviceTimeout { source: None })));
    assert!(unit.is_poisoned());
    let tried = Fake::executed(&fake.take_log());
    assert_eq!(tried, [0x11; 9], "once, and eight times again");
    assert_eq!(fake.inner(|inner| inner.fsts) & 0x40, 0, "the queue does not stand still for it");
}

#[test]
fn a_timeout_for_no_reason_loses_nothing() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| {
        inner.device_error = 1 << 6;
        inner.fsts |= 1;
    });
    unit.invalidate_iotlb(&mut memory, [DOMAIN]).unwrap();
    assert_eq!(Fake::executed(&fake.take_log()), [0x5_00e2; 2]);
    assert_eq!(fake.inner(|inner| inner.fsts), 1, "PFO is not the queue's to clear");
}

#[test]
fn an_answer_to_nothing_isolates_who_gave_it() {
    for (source, known) in [(0x20, true), (0x30, false), (0, false)] {
        let fake = Fake::new();
        let (mut unit, mut memory) = fake.up();
        unit.assign(
            &mut memory,
            addr::Bdf::from_u16(0x20),
            DomainId(9),
            addr::HostPhys::new(0x9000),
            crate::Levels::Four,
        )
        .unwrap();
        fake.inner(|inner| {
            inner.device_error = 1 << 5;
            inner.iqercd = source << 48;
            inner.fsts |= 1;
        });
        let result = unit.invalidate_iotlb(&mut memory, [DOMAIN]);
        let expected = if known { Err(Error::DeviceIsolated(addr::Bdf::from_u16(source as u16))) } else { Ok(()) };
        assert_eq!(result, expected);
        assert_eq!(unit.assignment(&memory, addr::Bdf::from_u16(0x20)).is_none(), known);
        assert_eq!(fake.inner(|inner| inner.fsts), 1, "ICE is cleared, PFO is not the queue's to clear");
        unit.invalidate_iotlb(&mut memory, [DOMAIN]).unwrap();
        assert!(!unit.is_poisoned());
    }
}

#[test]
fn a_head_outside_the_queue_is_an_error() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| {
        inner.stalled = true;
        inner.iqh = 0x7_fff0;
        inner.fsts = 1 << 4;
    });
    let result = unit.invalidate_iotlb(&mut memory, [DOMAIN]);
    assert_eq!(result, Err(Error::Invalidation(QueueError::BadHead { head: 0x7_fff0 })));
}

#[test]
fn a_unit_that_disappears_during_a_wait_is_an_error_at_once() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| (inner.stalled, inner.fsts) = (true, u32::MAX));
    assert!(unit.invalidate_iotlb(&mut memory, [DOMAIN]).is_err());
}

#[test]
fn what_is_submitted_again_has_all_of_the_time_once_more() {
    for (rests, in_time) in [([700, 700], true), ([700, 1100], false), ([1100, 1], false)] {
        let fake = Fake::new();
        let (mut unit, mut memory) = fake.up();
        // A look is a millisecond, and a second is all that there is.
        fake.inner(|inner| {
            inner.rests = rests.into_iter().rev().collect();
            inner.device_error = 1 << 6;
        });
        let result = unit.invalidate_iotlb(&mut memory, [DOMAIN]);
        assert_eq!(result.is_ok(), in_time, "{rests:?}: {result:?}");
        assert_eq!(unit.is_poisoned(), !in_time);
    }
}

#[test]
fn a_ring_that_nobody_empties_is_filled_but_for_one_place() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| (inner.stalled, inner.max_in_flight) = (true, 0));
    // 85 batches of two descriptors and a wait.
    for number in 0..90 {
        let result = unit.invalidate_iotlb(&mut memory, [DOMAIN; 2]);
        let full = matches!(result, Err(Error::Invalidation(QueueError::Full { tail: _, head: _ })));
        assert_eq!(full, number >= 85, "{number}: {result:?}");
    }
    assert_eq!(fake.inner(|inner| inner.max_in_flight), 255);
}

#[test]
fn a_completion_of_before_does_not_complete_what_is_submitted_again() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    // The wait is dropped with a timeout, and its status is written after all, while the second attempt rests for ever.
    fake.inner(|inner| {
        inner.rests = [5000, 0].into();
        (inner.device_error, inner.writes_dropped) = (1 << 6, true);
    });
    let result = unit.invalidate_iotlb(&mut memory, [DOMAIN]);
    assert!(matches!(result, Err(Error::Invalidation(QueueError::Timeout { .. }))), "{result:?}");
}

#[test]
fn timeouts_without_end_of_ever_other_devices_do_not_overrun_the_ring() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    // Hardware consumes nothing and names another device each time.
    fake.inner(|inner| {
        (inner.stalled, inner.names_another) = (true, 100);
        (inner.fsts, inner.iqercd) = (1 << 6, 0x500 << 32);
    });
    let batch: Vec<_> = (1..=100).map(|number| device_tlb(number << 3)).collect();
    let result = unit.submit(&mut memory, &batch);
    assert!(matches!(result, Err(Error::Invalidation(QueueError::Full { .. }))), "{result:?}");
    fake.inner(|inner| assert!(inner.max_in_flight < 256));
}

#[test]
fn room_that_hardware_has_made_is_used_to_the_last_place() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.stalled = true);
    while let Err(Error::Invalidation(QueueError::Timeout { .. })) = unit.invalidate_iotlb(&mut memory, [DOMAIN; 2]) {}
    // Hardware fetches as much as one more descriptor and its wait take, and stands still again.
    for (steps, fits) in [(1, false), (1, true), (1, false), (1, true)] {
        fake.inner(|inner| {
            (inner.stalled, inner.steps) = (false, Some(steps));
            inner.run_queue();
            (inner.stalled, inner.steps) = (true, None);
        });
        let result = unit.invalidate_iotlb(&mut memory, [DOMAIN]);
        let full = matches!(result, Err(Error::Invalidation(QueueError::Full { .. })));
        assert_eq!(full, !fits, "{steps}: {result:?}");
    }
}

#[test]
fn what_hardware_has_not_fetched_for_a_silent_device_is_not_fetched_later() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.silent.push(0x20));
    let iotlb = Descriptor::iotlb_domain(DomainId(5), Default::default());
    let batch = [device_tlb(0x20), device_tlb(0x20), device_tlb(0x30), iotlb];
    let result = unit.submit(&mut memory, &batch);
    assert_eq!(result, Err(Error::DeviceIsolated(addr::Bdf::from_u16(0x20))));
    let log = fake.take_log();
    assert_eq!(log.iter().filter(|&&event| event == Event::Silent(0x20)).count(), 1);
    assert_eq!(Fake::executed(&log), [device_tlb(0x30).low, iotlb.low], "each once");
}

#[test]
fn nothing_is_submitted_again_into_a_ring_that_is_full() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.stalled = true);
    for _ in 0..84 {
        unit.invalidate_iotlb(&mut memory, [DOMAIN; 2]).unwrap_err();
    }
    let in_flight = |fake: &Fake| fake.inner(|inner| (inner.iqt + 4096 - inner.iqh) % 4096 / 16);
    assert_eq!(in_flight(&fake), 252);
    // The last three places; then a device does not answer, and hardware fetches nothing.
    fake.inner(|inner| (inner.fsts, inner.iqercd) = (1 << 6, 0x20 << 32));
    let result = unit.submit(&mut memory, &[device_tlb(0x20), Descriptor::context_cache_global()]);
    assert!(matches!(result, Err(Error::Invalidation(QueueError::Full { .. }))), "{result:?}");
    assert_eq!(in_flight(&fake), 255);
}

#[test]
fn a_silent_device_hides_nothing_that_was_not_done() {
    // A device that has nothing to take away does not answer. Besides, hardware refuses the rest, or rests for ever.
    let context = Descriptor::context_cache_global();
    for first in [true, false] {
        let fake = Fake::new();
        let (mut unit, mut memory) = fake.up();
        fake.inner(|inner| (inner.silent, inner.refused) = ([0x20].into(), Some((0xf, 1))));
        let batch = if first { [device_tlb(0x20), context] } else { [context, device_tlb(0x20)] };
        let result = unit.submit(&mut memory, &batch);
        assert!(matches!(result, Err(Error::Invalidation(QueueError::Refused { .. }))), "{result:?}");
        assert!(unit.is_poisoned());
        let fake = Fake::new();
        let (mut unit, mut memory) = fake.up();
        fake.inner(|inner| (inner.silent, inner.rests) = ([0x20].into(), [5000, 0].into()));
        let result = unit.submit(&mut memory, &batch);
        assert!(matches!(result, Err(Error::Invalidation(QueueError::Timeout { .. }))), "{result:?}");
        assert!(unit.is_poisoned());
        // Or it is given up, for timeouts have no end.
        let fake = Fake::new();
        let (mut unit, mut memory) = fake.up();
        fake.inner(|inner| {
            (inner.silent, inner.device_error, inner.more_errors) = ([0x20].into(), 1 << 6, usize::MAX);
        });
        let result = unit.submit(&mut memory, &batch);
        assert_eq!(result, Err(Error::Invalidation(QueueError::DeviceTimeout { source: None })));
        assert!(unit.is_poisoned());
    }
}

#[test]
fn the_longest_piece_of_a_batch_can_be_submitted_again() {
    for length in 120..=130 {
        for times in [1, 2, 8] {
            let fake = Fake::new();
            let (mut unit, mut memory) = fake.up();
            fake.inner(|inner| (inner.device_error, inner.more_errors) = (1 << 6, times - 1));
            unit.invalidate_iotlb(&mut memory, (0..length).map(|_| DOMAIN)).unwrap();
            assert!(!unit.is_poisoned(), "{length}, {times} times");
        }
    }
}

#[test]
fn a_piece_of_a_batch_that_was_given_up_is_not_forgotten_for_a_later_one() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    // The first piece times out until it is given up. All is well then, but for a device at the end.
    fake.inner(|inner| (inner.device_error, inner.more_errors, inner.silent) = (1 << 6, 8, [0x20].into()));
    let mut batch: Vec<_> = (0..300).map(|_| Descriptor::context_cache_global()).collect();
    batch.push(device_tlb(0x20));
    let result = unit.submit(&mut memory, &batch);
    assert_eq!(result, Err(Error::Invalidation(QueueError::DeviceTimeout { source: None })));
    assert!(unit.is_poisoned());
}
