//! Rings that are full, and nearly so.

use super::*;

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
