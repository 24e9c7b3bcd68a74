use super::fake::{CAP, CONFIGURATION, ECAP, Event, Fake, TestUnit};
use crate::spec::invalidation::Descriptor;
use crate::{DeviceTlb, Error, IotlbInvalidation, Levels};
use addr::{Bdf, DomainId, HostPhys, Iova};

const SOURCE: Bdf = Bdf::from_u16(0x0100);
const DEVICE: DeviceTlb = DeviceTlb { queue_depth: 4, physical_function: SOURCE };
/// ECAP with DT and DIT.
const ATS: u64 = ECAP | 1 << 2 | 1 << 41;

fn assign(unit: &mut TestUnit, memory: &mut Fake, source: Bdf, domain: u16) -> Result<(), Error> {
    let table = HostPhys::new(0x1_0000 + (u64::from(domain) << 12));
    let device = DeviceTlb { physical_function: source, ..DEVICE };
    unit.assign_with_device_tlb(memory, source, DomainId(domain), table, Levels::Four, device)
}

fn pages(source: Bdf, address: u64, mask: u8) -> Descriptor {
    Descriptor::device_tlb_pages(source, source, 4, Iova::new(address), mask)
}

fn range(domain: u16, start: u64, bytes: u64) -> IotlbInvalidation {
    IotlbInvalidation::Range { domain: DomainId(domain), start: Iova::new(start), bytes, leaves_only: false }
}

/// The device-TLB descriptors that were executed, and whether each came after an IOTLB descriptor.
fn executed(fake: &Fake) -> super::std::vec::Vec<(Descriptor, bool)> {
    let mut after = false;
    let log = fake.take_log();
    let descriptors = log.iter().filter_map(|event| match *event {
        Event::Executed(low, high) => Some(Descriptor { low, high }),
        _ => None,
    });
    let mut seen = super::std::vec::Vec::new();
    for descriptor in descriptors {
        after |= descriptor.low & 0xf == 2;
        if descriptor.low & 0xf == 3 {
            seen.push((descriptor, after));
        }
    }
    seen
}

#[test]
fn the_physical_function_is_named_only_where_the_unit_throttles_by_it() {
    let fake = Fake::with(CAP, ATS & !(1 << 41));
    let (mut unit, mut memory) = fake.up();
    assign(&mut unit, &mut memory, SOURCE, 5).unwrap();
    fake.take_log();
    unit.invalidate_iotlb(&mut memory, [range(5, 0x3000, 0x1000)]).unwrap();
    let nobody = Descriptor::device_tlb_pages(SOURCE, Bdf::from_u16(0), 4, Iova::new(0x3000), 0);
    assert_eq!(executed(&fake), [(nobody, true)]);
}

#[test]
fn a_device_that_caches_is_told_what_its_domain_loses_and_nothing_else() {
    let fake = Fake::with(CAP, ATS);
    let (mut unit, mut memory) = fake.up();
    let (second, other) = (Bdf::from_u16(0x0108), Bdf::from_u16(0x0110));
    assign(&mut unit, &mut memory, SOURCE, 5).unwrap();
    assign(&mut unit, &mut memory, second, 5).unwrap();
    assign(&mut unit, &mut memory, other, 6).unwrap();
    fake.take_log();
    unit.invalidate_iotlb(&mut memory, [range(5, 0x3000, 0x2000)]).unwrap();
    assert_eq!(
        executed(&fake),
        [(pages(SOURCE, 0, 3), true), (pages(second, 0, 3), true)],
        "pages 3 and 4: block 0 to 7"
    );
    unit.invalidate_iotlb(&mut memory, [range(6, 0x8000, 0x1000)]).unwrap();
    assert_eq!(executed(&fake), [(pages(other, 0x8000, 0), true)]);
    unit.invalidate_iotlb(&mut memory, [range(6, 0x8000, 0)]).unwrap();
    assert_eq!(executed(&fake), []);
    unit.invalidate_iotlb(&mut memory, [IotlbInvalidation::Domain(DomainId(6))]).unwrap();
    assert_eq!(executed(&fake), [(pages(other, 0, 64), true)]);
    let everything = [SOURCE, second, other].map(|source| (pages(source, 0, 64), true));
    unit.invalidate_iotlb(&mut memory, [IotlbInvalidation::Global]).unwrap();
    assert_eq!(executed(&fake), everything);
    unit.invalidate_iotlb(&mut memory, [range(6, 0, u64::MAX)]).unwrap();
    assert_eq!(executed(&fake), [(pages(other, 0, 64), true)], "more than a device-TLB descriptor can name");
    unit.recover(&mut memory).unwrap();
    assert_eq!(executed(&fake), everything);
}

#[test]
fn a_device_forgets_the_smallest_aligned_block_wherever_it_lies() {
    let fake = Fake::with(CAP, ATS);
    let (mut unit, mut memory) = fake.up();
    assign(&mut unit, &mut memory, SOURCE, 5).unwrap();
    for (start, bytes, block, mask) in [
        (0x12_3456_7000, 0x1000, 0x12_3456_7000, 0),
        (0x12_3456_7000, 0x2000, 0x12_3456_0000, 4),
        (0x12_3456_6000, 0x2000, 0x12_3456_6000, 1),
        (0x12_3456_7fff, 1, 0x12_3456_7000, 0),
        (0x12_3456_7fff, 2, 0x12_3456_0000, 4),
        (0x7f_ffff_f000, 0x2000, 0, 28),
        (1 << 62, 1 << 62, 1 << 62, 50),
        (0, 1 << 63, 0, 51),
        ((1 << 63) - 1, 2, 0, 64),
    ] {
        fake.take_log();
        unit.invalidate_iotlb(&mut memory, [range(5, start, bytes)]).unwrap();
        assert_eq!(executed(&fake), [(pages(SOURCE, block, mask), true)], "{bytes:#x} bytes at {start:#x}");
    }
}

#[test]
fn the_entry_says_that_the_device_may_cache_and_a_plain_assignment_takes_it_back() {
    let fake = Fake::with(CAP, ATS);
    let (mut unit, mut memory) = fake.up();
    let entry =
        |fake: &Fake| fake.inner(|inner| inner.memory[&(inner.memory[&(inner.others[&0x20] + 16)] & !0xfff)] & 0xfff);
    assign(&mut unit, &mut memory, SOURCE, 5).unwrap();
    assert_eq!(entry(&fake), 5, "TT = 01b");
    fake.take_log();
    unit.assign(&mut memory, SOURCE, DomainId(5), HostPhys::new(0x9000), Levels::Four).unwrap();
    assert_eq!(entry(&fake), 1);
    assert_eq!(executed(&fake), [(pages(SOURCE, 0, 64), true)], "what it kept is forgotten");
    unit.invalidate_iotlb(&mut memory, [IotlbInvalidation::Global]).unwrap();
    assert_eq!(executed(&fake), [], "it is not asked any more");
}

#[test]
fn a_device_that_is_cleared_forgets_and_is_not_asked_again() {
    let fake = Fake::with(CAP, ATS);
    let (mut unit, mut memory) = fake.up();
    assign(&mut unit, &mut memory, SOURCE, 5).unwrap();
    fake.take_log();
    unit.clear(&mut memory, SOURCE).unwrap();
    assert_eq!(executed(&fake), [(pages(SOURCE, 0, 64), true)]);
    unit.invalidate_iotlb(&mut memory, [IotlbInvalidation::Global]).unwrap();
    assert_eq!(executed(&fake), []);
}

#[test]
fn a_device_that_does_not_answer_loses_its_assignment_and_is_not_asked_again() {
    let fake = Fake::with(CAP, ATS);
    let (mut unit, mut memory) = fake.up();
    let second = Bdf::from_u16(0x0108);
    assign(&mut unit, &mut memory, SOURCE, 5).unwrap();
    assign(&mut unit, &mut memory, second, 5).unwrap();
    fake.inner(|inner| inner.silent.push(SOURCE.as_u16()));
    fake.take_log();
    let lost = unit.invalidate_iotlb(&mut memory, [range(5, 0x3000, 0x1000)]);
    assert_eq!(lost, Err(Error::DeviceIsolated(SOURCE)));
    assert_eq!(unit.assignment(&memory, SOURCE), None);
    assert!(executed(&fake).contains(&(pages(second, 0x3000, 0), true)), "the other one was told");
    unit.invalidate_iotlb(&mut memory, [range(5, 0x3000, 0x1000)]).unwrap();
    assert_eq!(executed(&fake), [(pages(second, 0x3000, 0), true)]);
    // One that is silent while it is cleared has lost what it had.
    fake.inner(|inner| inner.silent.push(second.as_u16()));
    assert_eq!(unit.clear(&mut memory, second), Err(Error::DeviceIsolated(second)));
    assert_eq!(unit.assignment(&memory, second), None);
    unit.clear(&mut memory, second).unwrap();
    unit.invalidate_iotlb(&mut memory, [range(5, 0x3000, 0x1000)]).unwrap();
    assert_eq!(executed(&fake), []);
    assign(&mut unit, &mut memory, Bdf::from_u16(0x0118), 5).unwrap();
}

#[test]
fn devices_are_asked_alone_where_the_unit_does_not_say_who_was_silent() {
    for silent in [0, 1, 2, 3, 12] {
        let fake = Fake::with(CAP, ATS);
        let (mut unit, mut memory) = fake.up();
        let all: super::std::vec::Vec<_> = (0..12).map(|number| Bdf::from_u16(0x200 + number)).collect();
        for source in &all {
            assign(&mut unit, &mut memory, *source, 5).unwrap();
        }
        fake.inner(|inner| {
            inner.names_silent = false;
            inner.silent = all.iter().take(silent).map(|source| source.as_u16()).collect();
        });
        fake.take_log();
        let result = unit.invalidate_iotlb(&mut memory, [range(5, 0x3000, 0x1000)]);
        assert_eq!(result.is_err(), silent > 0, "{silent}: {result:?}");
        assert!(
            silent == 0
                || matches!(result, Err(Error::DeviceIsolated(source)) if source.as_u16() < 0x200 + silent as u16)
        );
        let told = executed(&fake);
        for (number, source) in all.iter().enumerate() {
            assert_eq!(unit.assignment(&memory, *source).is_some(), number >= silent, "{silent}: {source}");
            let forgot = told.iter().any(|(d, _)| *d == pages(*source, 0x3000, 0) || *d == pages(*source, 0, 64));
            assert_eq!(forgot, number >= silent, "{silent}: {source}");
        }
        assert!(!unit.is_poisoned());
        unit.invalidate_iotlb(&mut memory, [range(5, 0x3000, 0x1000)]).unwrap();
    }
    // A timeout that was nobody's: all answer when they are asked alone, and everything is done.
    let fake = Fake::with(CAP, ATS);
    let (mut unit, mut memory) = fake.up();
    for source in [SOURCE, Bdf::from_u16(0x0108)] {
        assign(&mut unit, &mut memory, source, 5).unwrap();
    }
    fake.inner(|inner| inner.device_error = 1 << 6);
    unit.invalidate_iotlb(&mut memory, [range(5, 0x3000, 0x1000)]).unwrap();
    assert!(unit.assignment(&memory, SOURCE).is_some());
    let told = executed(&fake);
    assert!(told.contains(&(pages(SOURCE, 0, 64), true)));
}

#[test]
fn a_device_that_cannot_be_asked_alone_is_isolated_where_it_may_have_been_silent() {
    let fake = Fake::with(CAP, ATS);
    let (mut unit, mut memory) = fake.up();
    let sources = [SOURCE, Bdf::from_u16(0x0108)];
    // Nor is it called done where none of them has anything to take away.
    fake.inner(|inner| (inner.names_silent, inner.silent) = (false, [SOURCE.as_u16()].into()));
    let result = unit.submit(&mut memory, &sources.map(|source| pages(source, 0, 64)));
    assert!(matches!(result, Err(Error::DeviceIsolated(_))), "{result:?}");
    fake.inner(|inner| inner.silent.clear());
    for source in sources {
        // It is asked, and yet the unit keeps no list of it.
        unit.assign(&mut memory, source, DomainId(5), HostPhys::new(0x9000), Levels::Four).unwrap();
    }
    fake.inner(|inner| (inner.names_silent, inner.silent) = (false, [SOURCE.as_u16()].into()));
    let result = unit.submit(&mut memory, &sources.map(|source| pages(source, 0, 64)));
    assert!(matches!(result, Err(Error::DeviceIsolated(_))), "{result:?}");
    assert_eq!(sources.map(|source| unit.assignment(&memory, source)), [None; 2]);
    assert!(!unit.is_poisoned());
}

#[test]
fn who_answers_what_was_not_asked_while_another_is_asked_alone_is_isolated_too() {
    let fake = Fake::with(CAP, ATS);
    let (mut unit, mut memory) = fake.up();
    let sources = [SOURCE, Bdf::from_u16(0x0108), Bdf::from_u16(0x0110)];
    for (source, domain) in sources.into_iter().zip([5, 5, 6]) {
        assign(&mut unit, &mut memory, source, domain).unwrap();
    }
    // The first of two does not answer. The stray answer comes after the wait of the batch, and those that have taken the
    // place of the other device's descriptor and of the wait that hardware had not fetched: when one is asked alone.
    fake.inner(|inner| {
        (inner.names_silent, inner.silent) = (false, [SOURCE.as_u16()].into());
        (inner.device_error, inner.iqercd) = (1 << 5, u64::from(sources[2].as_u16()) << 48);
        inner.waits_before_error = 3;
    });
    fake.take_log();
    let result = unit.invalidate_iotlb(&mut memory, [range(5, 0x3000, 0x1000)]);
    assert!(matches!(result, Err(Error::DeviceIsolated(_))), "{result:?}");
    let log = fake.take_log();
    let asked_alone = log.iter().rposition(|&event| event == Event::Silent(SOURCE.as_u16())).unwrap();
    let stray = log.iter().position(|&event| event == Event::Write32(0x34, 0x20)).unwrap();
    assert!(asked_alone < stray, "{log:x?}");
    let assigned = sources.map(|source| unit.assignment(&memory, source).is_some());
    assert_eq!(assigned, [false, true, false]);
    assert!(!unit.is_poisoned());
}

#[test]
fn a_device_that_cannot_be_isolated_poisons_the_unit() {
    let fake = Fake::with(CAP, ATS);
    let (mut unit, mut memory) = fake.up();
    assign(&mut unit, &mut memory, SOURCE, 5).unwrap();
    // It does not answer, and hardware will not forget its context entry.
    fake.inner(|inner| (inner.silent, inner.refused) = ([SOURCE.as_u16()].into(), Some((0xf, 1))));
    let result = unit.invalidate_iotlb(&mut memory, [range(5, 0x3000, 0x1000)]);
    assert!(matches!(result, Err(Error::Invalidation(crate::QueueError::Refused { .. }))), "{result:?}");
    assert!(unit.is_poisoned());
    assert_eq!(unit.assignment(&memory, SOURCE), None);
    fake.inner(|inner| (inner.silent, inner.refused) = Default::default());
    unit.recover(&mut memory).unwrap();
    assign(&mut unit, &mut memory, SOURCE, 5).unwrap();
}

#[test]
fn a_silent_device_fails_the_move_that_it_was_in() {
    for exchanges in [false, true] {
        let fake = Fake::with(CAP, ATS);
        let (mut unit, mut memory) = fake.up();
        fake.inner(|inner| inner.exchanges = exchanges);
        assign(&mut unit, &mut memory, SOURCE, 5).unwrap();
        fake.inner(|inner| inner.silent.push(SOURCE.as_u16()));
        let moved = unit.assign(&mut memory, SOURCE, DomainId(6), HostPhys::new(0x9000), Levels::Four);
        assert_eq!(moved, Err(Error::DeviceIsolated(SOURCE)));
        assert_eq!(unit.assignment(&memory, SOURCE), None);
    }
}

#[test]
fn an_assignment_that_fails_for_anothers_sake_is_forgotten_again() {
    let fake = Fake::with(CAP, ATS);
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.exchanges = true);
    let other = Bdf::from_u16(0x0110);
    assign(&mut unit, &mut memory, SOURCE, 5).unwrap();
    unit.assign(&mut memory, other, DomainId(6), HostPhys::new(0x9000), Levels::Four).unwrap();
    // SOURCE answers what was not asked, and is isolated; meanwhile the new entry of the other may have been cached.
    fake.inner(|inner| (inner.device_error, inner.iqercd) = (1 << 5, u64::from(SOURCE.as_u16()) << 48));
    fake.take_log();
    let failed = unit.assign(&mut memory, other, DomainId(7), HostPhys::new(0xa000), Levels::Four);
    assert_eq!(failed, Err(Error::DeviceIsolated(SOURCE)));
    assert_eq!(unit.assignment(&memory, other), None);
    assert!(Fake::executed(&fake.take_log()).ends_with(&[0x0110_0007_0031, 0x7_00e2]));
    unit.assign(&mut memory, other, DomainId(7), HostPhys::new(0xa000), Levels::Four).unwrap();
}

#[test]
fn a_device_forgets_an_assignment_that_failed_for_anothers_sake_too() {
    let fake = Fake::with(CAP, ATS);
    let (mut unit, mut memory) = fake.up();
    fake.inner(|inner| inner.exchanges = true);
    let other = Bdf::from_u16(0x0110);
    assign(&mut unit, &mut memory, SOURCE, 5).unwrap();
    assign(&mut unit, &mut memory, other, 6).unwrap();
    fake.inner(|inner| (inner.device_error, inner.iqercd) = (1 << 5, u64::from(SOURCE.as_u16()) << 48));
    fake.take_log();
    assert_eq!(assign(&mut unit, &mut memory, other, 7), Err(Error::DeviceIsolated(SOURCE)));
    assert_eq!(unit.assignment(&memory, other), None);
    // It may have been told translations by the new entry while that stood.
    let log = fake.take_log();
    let Descriptor { low, high } = pages(other, 0, 64);
    let entry = fake.inner(|inner| inner.memory[&(inner.others[&0x20] + 16)] & !0xfff) + 0x100;
    let withdrawn = log.iter().rposition(|&event| event == Event::Store(entry, 0)).unwrap();
    let context = log.iter().rposition(|&event| event == Event::Executed(0x0110_0007_0031, 0)).unwrap();
    let forgotten = log.iter().rposition(|&event| event == Event::Executed(low, high)).unwrap();
    assert!(withdrawn < context && context < forgotten, "{log:x?}");
    unit.invalidate_iotlb(&mut memory, [IotlbInvalidation::Global]).unwrap();
    assert_eq!(executed(&fake), [], "neither is asked any more");
}

#[test]
fn a_unit_that_answers_no_device_and_a_full_list_are_refused() {
    for ecap in [ECAP, ATS & !2] {
        let fake = Fake::with(CAP, ecap);
        let mut unit = fake.probe().unwrap();
        let mut memory = fake.clone();
        unit.bring_up(&mut memory, &crate::Configuration { interrupt_entries: None, ..CONFIGURATION }).unwrap();
        assert!(matches!(assign(&mut unit, &mut memory, SOURCE, 5), Err(Error::Unsupported { .. })));
        assert_eq!(unit.assignment(&memory, SOURCE), None);
    }
    let fake = Fake::with(CAP, ATS);
    let (mut unit, mut memory) = fake.up();
    for device in 0..32 {
        assign(&mut unit, &mut memory, Bdf::from_u16(device), 5).unwrap();
    }
    let full = assign(&mut unit, &mut memory, Bdf::from_u16(32), 5);
    assert_eq!(full, Err(Error::TooManyDeviceTlbs(Bdf::from_u16(32))));
    assign(&mut unit, &mut memory, Bdf::from_u16(31), 6).unwrap();
    unit.clear(&mut memory, Bdf::from_u16(3)).unwrap();
    assign(&mut unit, &mut memory, Bdf::from_u16(32), 5).unwrap();
}

#[test]
fn a_device_that_can_only_be_the_silent_one_is_not_asked_again() {
    let fake = Fake::with(CAP, ATS);
    let (mut unit, mut memory) = fake.up();
    assign(&mut unit, &mut memory, SOURCE, 5).unwrap();
    fake.inner(|inner| (inner.names_silent, inner.silent) = (false, [SOURCE.as_u16()].into()));
    fake.take_log();
    // It is asked of two ranges at once, and yet it is one device.
    let result = unit.invalidate_iotlb(&mut memory, [range(5, 0x3000, 0x1000), range(5, 0x9000, 0x1000)]);
    assert_eq!(result, Err(Error::DeviceIsolated(SOURCE)));
    let asked = fake.take_log().iter().filter(|&&event| event == Event::Silent(SOURCE.as_u16())).count();
    assert_eq!(asked, 1);
}
