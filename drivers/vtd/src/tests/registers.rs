use super::fake::{CAP, CONFIGURATION, ECAP, Event, Fake, TestUnit};
use super::std::vec::Vec;
use crate::{Configuration, DestinationMode, Error, IotlbInvalidation, Levels, QueueError};
use addr::{Bdf, DomainId, HostPhys, Iova};

const SOURCE: Bdf = Bdf::from_u16(0x0100);

/// A unit without a queue.
fn up() -> (Fake, TestUnit, Fake) {
    let fake = Fake::with(CAP, ECAP & !2);
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    unit.bring_up(&mut memory, &Configuration { interrupt_entries: None, ..CONFIGURATION }).unwrap();
    (fake, unit, memory)
}

/// What was written to the invalidation registers.
fn commands(log: &[Event]) -> Vec<(u16, u64)> {
    log.iter()
        .filter_map(|event| match *event {
            Event::Write64(offset @ (0x28 | 0xf0 | 0xf8), value) => Some((offset, value)),
            _ => None,
        })
        .collect()
}

#[test]
fn a_unit_without_a_queue_comes_up_and_is_told_by_registers() {
    let (fake, mut unit, mut memory) = up();
    let log = fake.take_log();
    assert_eq!(commands(&log), [(0x28, 0xa000_0000_0000_0000), (0xf0, 0), (0xf8, 0x9003_0000_0000_0000)]);
    assert!(!log.iter().any(|event| matches!(event, Event::Write64(0x80..=0x90, _))), "there are no such registers");
    unit.assign(&mut memory, SOURCE, DomainId(7), HostPhys::new(0x9000), Levels::Four).unwrap();
    fake.take_log();
    let range =
        IotlbInvalidation::Range { domain: DomainId(7), start: Iova::new(0x4000), bytes: 0x1000, leaves_only: true };
    unit.invalidate_iotlb(&mut memory, [range]).unwrap();
    assert_eq!(commands(&fake.take_log()), [(0xf0, 0x4040), (0xf8, 0xb003_0007_0000_0000)], "the address first");
    unit.clear(&mut memory, SOURCE).unwrap();
    let context_first = [(0x28, 0xe000_0000_0100_0007), (0xf0, 0), (0xf8, 0xa003_0007_0000_0000)];
    assert_eq!(commands(&fake.take_log()), context_first);
}

#[test]
fn a_command_that_does_nothing_or_takes_for_ever_is_an_error() {
    for (stalled, performs) in [(true, true), (false, false)] {
        let (fake, mut unit, mut memory) = up();
        fake.inner(|inner| (inner.stalled, inner.performs) = (stalled, performs));
        let result = unit.invalidate_iotlb(&mut memory, [IotlbInvalidation::Global]);
        let not_done = matches!(
            result,
            Err(Error::Invalidation(QueueError::NotPerformed { register: "IOTLB_REG", value })) if (value >> 63 != 0) == stalled
        );
        assert!(not_done, "{result:?}");
        assert!(unit.is_poisoned());
        fake.inner(|inner| (inner.stalled, inner.performs) = (false, true));
        unit.recover(&mut memory).unwrap();
        assert!(!unit.is_poisoned());
    }
    let (fake, mut unit, mut memory) = up();
    unit.assign(&mut memory, SOURCE, DomainId(7), HostPhys::new(0x9000), Levels::Four).unwrap();
    fake.take_log();
    fake.inner(|inner| inner.stalled = true);
    let result = unit.clear(&mut memory, SOURCE);
    assert!(
        matches!(result, Err(Error::Invalidation(QueueError::NotPerformed { register: "CCMD_REG", .. }))),
        "{result:?}"
    );
    assert_eq!(commands(&fake.take_log()).len(), 1, "no IOTLB command while one of the context cache is in progress");
}

#[test]
fn without_a_queue_interrupts_cannot_be_remapped() {
    let (_, mut unit, mut memory) = up();
    let result = unit.set_interrupt_table(&mut memory, 256, DestinationMode::XApic);
    assert!(matches!(result, Err(Error::Unsupported { capability }) if capability.contains("ECAP.QI")), "{result:?}");
}

#[test]
fn registers_that_no_offset_names_are_not_touched() {
    let fake = Fake::with(CAP, ECAP & !2 & !(0x3ff << 8) | 0x3ff << 8);
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    unit.stop_firmware().unwrap();
    unit.mask_and_clear_faults().unwrap();
    unit.enable_queue(&mut memory).unwrap();
    // 0x3ff0 and 0x3ff8 are still inside a window of 16 KiB.
    assert_eq!(unit.capabilities().iotlb_register_offset(), 0x3ff0);
}
