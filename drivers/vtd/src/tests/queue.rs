use super::fake::{CAP, ECAP, Event, Fake};
use crate::spec::invalidation::Descriptor;
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
fn a_range_is_invalidated_by_the_smallest_block_that_covers_it() {
    let caps = crate::Capabilities { cap: CAP, ecap: ECAP };
    let descriptor = |start, bytes| range(start, bytes).descriptor(caps).unwrap();
    assert_eq!(descriptor(0x1000, 0x1000).high, 0x1000);
    assert_eq!(descriptor(0x1000, 0x2000).high, 2, "pages 1 and 2 are in block 0 to 3 only");
    assert_eq!(descriptor(0x2000, 0x2000).high, 0x2001);
    assert_eq!(descriptor(0x1fff, 2).high, 2, "a byte of each page");
    assert_eq!(descriptor(0x20_0000, 0x20_0000).high, 0x20_0009);
    assert_eq!(descriptor(0x4000_0000, 0x4000_0000).high, 0x4000_0012);
    assert_eq!(descriptor(0x1000, 0x1000).low, 0x5_00f2, "page-selective, drained");
    assert_eq!(descriptor(0, 0x4000_1000).low, 0x5_00e2, "beyond MAMV: the domain");
    assert_eq!(descriptor(u64::MAX - 10, u64::MAX).low, 0x5_00f2, "no overflow");
    let without = crate::Capabilities { cap: CAP & !(1 << 39 | 3 << 54), ecap: ECAP };
    assert_eq!(range(0x1000, 0x1000).descriptor(without).unwrap().low, 0x5_0022, "no PSI, no draining");
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
fn waits_without_end_that_time_out_do_not_reuse_a_word() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.late = Some(Default::default()));
    for _ in 0..511 {
        let result = unit.invalidate_iotlb(&mut memory, [DOMAIN]);
        assert!(matches!(result, Err(Error::Invalidation(QueueError::Timeout { .. }))), "{result:?}");
    }
    let result = unit.invalidate_iotlb(&mut memory, [DOMAIN]);
    assert_eq!(result, Err(Error::Invalidation(QueueError::Exhausted)));
}

#[test]
fn a_refused_descriptor_is_named_and_replaced_and_the_queue_goes_on() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| {
        inner.refused_type = Some(2);
        inner.fsts = 1;
    });
    let result = unit.invalidate_iotlb(&mut memory, [DOMAIN]);
    let Err(Error::Invalidation(QueueError::Refused { descriptor, .. })) = result else { panic!("{result:?}") };
    assert_eq!(descriptor, Descriptor { low: 0x5_00e2, high: 0 });
    assert!(unit.is_poisoned());
    let log = fake.take_log();
    let clear = log.iter().position(|&event| event == Event::Write32(0x34, 0x10)).expect("IQE alone is cleared");
    let replace = log.iter().rposition(|event| matches!(event, Event::Store(..))).unwrap();
    assert!(replace < clear, "clearing IQE makes hardware fetch again");
    fake.inner(|inner| inner.refused_type = None);
    unit.invalidate_iotlb(&mut memory, [DOMAIN]).unwrap();
}

#[test]
fn a_refused_wait_ends_the_wait() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.refused_type = Some(5));
    let result = unit.invalidate_iotlb(&mut memory, [DOMAIN]);
    assert!(matches!(result, Err(Error::Invalidation(QueueError::Refused { .. }))), "{result:?}");
    let attempts = fake.take_log().iter().filter(|&&event| event == Event::Write32(0x34, 0x10)).count();
    assert_eq!(attempts, 1, "nothing is gained by having it refused again and again");
}

#[test]
fn errors_of_device_tlbs_are_cleared_one_by_one_and_reported() {
    for (bit, error) in [(1 << 6, QueueError::DeviceTimeout), (1 << 5, QueueError::DeviceCompletion)] {
        let fake = Fake::new();
        let (mut unit, mut memory) = fake.up();
        fake.inner(|inner| {
            inner.device_error = bit;
            inner.fsts |= 1;
        });
        assert_eq!(unit.invalidate_iotlb(&mut memory, [DOMAIN]), Err(Error::Invalidation(error)));
        assert_eq!(fake.inner(|inner| inner.fsts), 1, "PFO is not the queue's to clear");
        unit.invalidate_iotlb(&mut memory, [DOMAIN]).unwrap();
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
