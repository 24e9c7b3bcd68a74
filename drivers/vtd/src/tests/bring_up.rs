use super::fake::{CAP, CONFIGURATION, ECAP, Event, Fake, TestUnit};
use super::std::vec::Vec;
use crate::spec::registers::Global;
use crate::{Configuration, DestinationMode, Error, FaultInterrupt, Step};
use addr::{ApicId, Vector};

fn commands(log: &[Event]) -> Vec<u32> {
    log.iter().filter_map(|event| if let Event::Write32(0x18, value) = event { Some(*value) } else { None }).collect()
}

fn timeout_of(result: Result<(), Error>) -> (Step, &'static str) {
    match result {
        Err(Error::Timeout { step, register, .. }) => (step, register),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_window_where_nothing_answers_is_no_unit() {
    for break_it in [
        |fake: &Fake| fake.inner(|inner| inner.ver = u32::MAX),
        |fake: &Fake| fake.inner(|inner| inner.cap = u64::MAX),
        |fake: &Fake| fake.inner(|inner| inner.ecap = u64::MAX),
        |fake: &Fake| fake.inner(|inner| inner.gsts = u32::MAX),
    ] {
        let fake = Fake::new();
        break_it(&fake);
        assert!(matches!(fake.probe(), Err(Error::Absent { .. })));
        assert!(fake.take_log().is_empty(), "it is left alone");
    }
}

#[test]
fn a_unit_that_lacks_the_necessary_is_left_alone() {
    let without_second_stage = Fake::with(CAP & !0x1f00, ECAP);
    assert!(matches!(without_second_stage.probe(), Err(Error::Unsupported { .. })));
}

#[test]
fn the_steps_come_in_the_order_of_the_specification() {
    let fake = Fake::new();
    fake.inner(|inner| inner.fsts = 0x10);
    let mut unit = fake.probe().unwrap();
    let fault_interrupt = Some(FaultInterrupt { vector: Vector(0x60), destination: ApicId(0x123) });
    unit.bring_up(&mut fake.clone(), &Configuration { fault_interrupt, ..CONFIGURATION }).unwrap();
    let log = fake.take_log();
    let at = |wanted: Event| log.iter().position(|&event| event == wanted).unwrap_or_else(|| panic!("{wanted:x?}"));
    let executed = |low: u64| {
        log.iter().position(|event| matches!(event, Event::Executed(l, _) if *l == low)).expect("descriptor")
    };
    let root = fake.inner(|inner| inner.others[&0x20]);
    let table = fake.inner(|inner| inner.others[&0xb8]);
    assert_eq!(root & 0xfff, 0, "legacy mode");
    assert_eq!(table & 0xfff, 0x807, "EIME, 256 entries");
    let order = [
        at(Event::Write32(0x38, 1 << 31)),
        at(Event::Write32(0x34, 0x10)),
        at(Event::Write64(0x88, 0)),
        at(Event::Write64(0x90, fake.inner(|inner| inner.iqa))),
        at(Event::Write32(0x18, 1 << 26)),
        at(Event::Write64(0x20, root)),
        at(Event::Write32(0x18, 1 << 30 | 1 << 26)),
        executed(0x11),
        executed(0xd2),
        at(Event::Write64(0xb8, table)),
        at(Event::Write32(0x18, 1 << 26 | 1 << 24)),
        executed(0x04),
        at(Event::Write32(0x18, 1 << 26 | 1 << 25)),
        at(Event::Write32(0x18, 1 << 31 | 1 << 26 | 1 << 25)),
        at(Event::Write32(0x3c, 0x60)),
        at(Event::Write32(0x40, 0xfee2_3000)),
        at(Event::Write32(0x44, 0x100)),
        at(Event::Write32(0x38, 0)),
    ];
    assert!(order.is_sorted(), "{order:?}");
    assert!(unit.translation_enabled() && unit.interrupt_remapping_enabled());
}

#[test]
fn a_command_repeats_no_one_shot_command_and_turns_nothing_else_off() {
    let fake = Fake::new();
    fake.up();
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    // What the first driver left on is stopped one by one, with all one-shot status bits still set.
    assert!(fake.inner(|inner| inner.gsts) & 0x4100_0000 == 0x4100_0000);
    unit.bring_up(&mut memory, &CONFIGURATION).unwrap();
    let log = fake.take_log();
    assert_eq!(
        commands(&log),
        [
            1 << 26 | 1 << 25,
            1 << 26,
            0,
            1 << 26,
            1 << 30 | 1 << 26,
            1 << 26 | 1 << 24,
            1 << 26 | 1 << 25,
            1 << 31 | 1 << 26 | 1 << 25
        ]
    );
}

#[test]
fn what_firmware_left_on_is_reported_and_stopped() {
    let fake = Fake::new();
    fake.inner(|inner| inner.gsts = 1 << 31 | 1 << 26 | 1 << 25 | 1 << 23);
    let mut unit = fake.probe().unwrap();
    assert!(unit.firmware_state().contains(Global::TRANSLATION | Global::COMPATIBILITY_FORMAT));
    unit.stop_firmware().unwrap();
    assert_eq!(fake.inner(|inner| inner.gsts), 0);
    assert_eq!(commands(&fake.take_log()), [1 << 26 | 1 << 25 | 1 << 23, 1 << 26 | 1 << 25, 1 << 26, 0]);
}

#[test]
fn firmwares_queue_is_emptied_before_it_is_stopped() {
    let fake = Fake::new();
    fake.inner(|inner| {
        inner.gsts = 1 << 26;
        inner.iqt = 0x20;
        inner.stalled = true;
    });
    assert_eq!(timeout_of(fake.probe().unwrap().stop_firmware()), (Step::DrainQueue, "IQH_REG"));
    fake.inner(|inner| inner.fsts = 1 << 4);
    fake.probe().unwrap().stop_firmware().unwrap();
}

#[test]
fn every_command_that_hardware_ignores_is_an_error_of_its_own() {
    for (bit, step) in [
        (26, Step::EnableQueue),
        (30, Step::SetRootTable),
        (24, Step::SetInterruptTable),
        (25, Step::EnableInterruptRemapping),
        (31, Step::EnableTranslation),
    ] {
        let fake = Fake::new();
        fake.inner(|inner| inner.ignored = 1 << bit);
        let result = fake.probe().unwrap().bring_up(&mut fake.clone(), &CONFIGURATION);
        assert_eq!(timeout_of(result), (step, "GSTS_REG"));
    }
    for (bit, step) in [
        (31, Step::StopTranslation),
        (25, Step::StopInterruptRemapping),
        (23, Step::BlockCompatibilityFormat),
        (26, Step::StopQueue),
    ] {
        let fake = Fake::new();
        fake.inner(|inner| (inner.ignored, inner.gsts) = (1 << bit, 1 << bit));
        assert_eq!(timeout_of(fake.probe().unwrap().stop_firmware()), (step, "GSTS_REG"));
    }
    let fake = Fake::with(CAP | 1 << 4, ECAP);
    fake.inner(|inner| inner.ignored = 1 << 27);
    let result = fake.probe().unwrap().bring_up(&mut fake.clone(), &CONFIGURATION);
    assert_eq!(timeout_of(result), (Step::FlushWriteBuffer, "GSTS_REG"));
    let fake = Fake::with(CAP | 1 << 5, ECAP);
    fake.inner(|inner| (inner.pmen, inner.pmen_stuck) = (1 << 31 | 1, true));
    let result = fake.probe().unwrap().bring_up(&mut fake.clone(), &CONFIGURATION);
    assert_eq!(timeout_of(result), (Step::DisableProtectedMemory, "PMEN_REG"));
}

#[test]
fn a_unit_that_disappears_has_not_obeyed() {
    let fake = Fake::new();
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    unit.stop_firmware().unwrap();
    unit.mask_and_clear_faults().unwrap();
    fake.inner(|inner| (inner.gsts, inner.ignored) = (u32::MAX, u32::MAX));
    // Every bit that is waited for reads 1.
    assert_eq!(timeout_of(unit.enable_queue(&mut memory)), (Step::EnableQueue, "GSTS_REG"));
}

#[test]
fn write_buffers_are_flushed_before_hardware_is_shown_a_table() {
    let fake = Fake::with(CAP | 1 << 4, ECAP);
    fake.probe().unwrap().bring_up(&mut fake.clone(), &CONFIGURATION).unwrap();
    let commands = commands(&fake.take_log());
    let flush = |value: u32| value & 1 << 27 != 0;
    assert_eq!(commands.iter().filter(|&&value| flush(value)).count(), 3);
    for bit in [30, 24, 31] {
        let at = commands.iter().position(|value| value >> bit & 1 != 0).unwrap();
        assert!(flush(commands[at - 1]), "{commands:x?}");
    }
}

#[test]
fn protected_memory_regions_come_off_after_translation_is_on() {
    let fake = Fake::with(CAP | 1 << 6, ECAP);
    fake.inner(|inner| inner.pmen = 1 << 31 | 1);
    let mut unit = fake.probe().unwrap();
    assert!(matches!(unit.disable_protected_memory(), Err(Error::OutOfOrder { .. })));
    let fault_interrupt = Some(FaultInterrupt { vector: Vector(0x60), destination: ApicId(1) });
    unit.bring_up(&mut fake.clone(), &Configuration { fault_interrupt, ..CONFIGURATION }).unwrap();
    assert_eq!(fake.inner(|inner| inner.pmen), 0);
    let log = fake.take_log();
    let off = log.iter().position(|&event| event == Event::Write32(0x64, 0)).unwrap();
    assert!(log.iter().position(|&event| event == Event::Write32(0x38, 0)).unwrap() > off, "faults are told of last");
    let on = log.iter().position(|event| matches!(event, Event::Write32(0x18, v) if v >> 31 == 1)).unwrap();
    assert!(on < off);
}

#[test]
fn a_step_before_the_one_that_it_needs_is_refused_and_touches_nothing() {
    let fake = Fake::new();
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    let refused = |result: Result<(), Error>| assert!(matches!(result, Err(Error::OutOfOrder { .. })), "{result:?}");
    refused(unit.mask_and_clear_faults());
    refused(unit.enable_queue(&mut memory));
    refused(unit.set_root_table(&mut memory));
    refused(unit.set_interrupt_table(&mut memory, 256, DestinationMode::X2Apic));
    refused(unit.enable_interrupt_remapping());
    refused(unit.enable_translation());
    assert!(fake.take_log().is_empty());
    unit.stop_firmware().unwrap();
    unit.mask_and_clear_faults().unwrap();
    unit.enable_queue(&mut memory).unwrap();
    refused(unit.enable_queue(&mut memory));
    refused(unit.stop_firmware());
    refused(unit.enable_translation());
}

#[test]
fn a_unit_that_promises_to_forget_is_not_told_to() {
    let fake = Fake::with(CAP | 3 << 62, ECAP);
    fake.probe().unwrap().bring_up(&mut fake.clone(), &CONFIGURATION).unwrap();
    assert!(Fake::executed(&fake.take_log()).is_empty());
    // The promise is in CAP; the same bits of ECAP say nothing.
    let fake = Fake::with(CAP, ECAP | 3 << 62);
    fake.probe().unwrap().bring_up(&mut fake.clone(), &CONFIGURATION).unwrap();
    assert_eq!(Fake::executed(&fake.take_log()), [0x11, 0xd2, 0x04]);
}

#[test]
fn extended_interrupt_mode_is_on_only_where_asked_and_possible() {
    let fake = Fake::with(CAP, ECAP & !0x10);
    let mut unit = fake.probe().unwrap();
    let result = unit.bring_up(&mut fake.clone(), &CONFIGURATION);
    assert!(matches!(result, Err(Error::Unsupported { .. })));
    let fake = Fake::new();
    let configuration =
        Configuration { destination_mode: DestinationMode::XApic, interrupt_entries: Some(1 << 16), ..CONFIGURATION };
    fake.probe().unwrap().bring_up(&mut fake.clone(), &configuration).unwrap();
    assert_eq!(fake.inner(|inner| inner.others[&0xb8]) & 0xfff, 0xf, "no EIME, 64K entries");
}

#[test]
fn impossible_table_sizes_are_refused() {
    for entries in [0, 1, 128, 300, 1 << 17] {
        let fake = Fake::new();
        let configuration = Configuration { interrupt_entries: Some(entries), ..CONFIGURATION };
        let result = fake.probe().unwrap().bring_up(&mut fake.clone(), &configuration);
        assert_eq!(result, Err(Error::BadTableSize(entries)));
    }
}

#[test]
fn compatibility_format_that_passes_is_an_error() {
    let fake = Fake::new();
    fake.inner(|inner| inner.gsts = 1 << 23);
    let mut unit: TestUnit = fake.probe().unwrap();
    unit.stop_firmware().unwrap();
    assert_eq!(fake.inner(|inner| inner.gsts), 0);
    unit.mask_and_clear_faults().unwrap();
    unit.enable_queue(&mut fake.clone()).unwrap();
    unit.set_interrupt_table(&mut fake.clone(), 256, DestinationMode::X2Apic).unwrap();
    fake.inner(|inner| (inner.gsts, inner.ignored) = (inner.gsts | 1 << 23, 1 << 23));
    assert!(matches!(unit.enable_interrupt_remapping(), Err(Error::CompatibilityFormatNotBlocked(_))));
}

#[test]
fn running_out_of_memory_at_any_step_is_an_error_and_not_a_panic() {
    for frames in 0..5 {
        let fake = Fake::new();
        fake.inner(|inner| inner.frames_left = frames);
        let result = fake.probe().unwrap().bring_up(&mut fake.clone(), &CONFIGURATION);
        assert!(matches!(result, Err(Error::OutOfMemory(_))), "{frames}: {result:?}");
    }
}

#[test]
fn a_queue_whose_head_is_elsewhere_is_not_turned_on() {
    let fake = Fake::new();
    fake.inner(|inner| inner.iqh = 0x20);
    let mut unit = fake.probe().unwrap();
    assert_eq!(unit.bring_up(&mut fake.clone(), &CONFIGURATION), Err(Error::QueueHeadNotZero(0x20)));
    assert_eq!(commands(&fake.take_log()), []);
}

#[test]
fn tables_are_made_once() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    assert!(matches!(unit.create_root_table(&mut memory), Err(Error::OutOfOrder { .. })));
    let again = unit.set_interrupt_table(&mut memory, 256, DestinationMode::X2Apic);
    assert!(matches!(again, Err(Error::OutOfOrder { .. })));
    assert!(fake.take_log().is_empty(), "nothing has changed");
}

#[test]
fn a_unit_that_does_not_remap_interrupts_gets_no_table_for_it() {
    let fake = Fake::with(CAP, ECAP & !(1 << 3));
    let result = fake.probe().unwrap().bring_up(&mut fake.clone(), &CONFIGURATION);
    assert!(matches!(result, Err(Error::Unsupported { capability }) if capability.contains("ECAP.IR")), "{result:?}");
    assert!(!commands(&fake.take_log()).iter().any(|value| value & 1 << 24 != 0));
}

#[test]
fn nothing_is_turned_on_after_an_invalidation_has_failed() {
    let fake = Fake::new();
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    unit.stop_firmware().unwrap();
    unit.mask_and_clear_faults().unwrap();
    unit.enable_queue(&mut memory).unwrap();
    unit.set_root_table(&mut memory).unwrap();
    unit.set_interrupt_table(&mut memory, 256, DestinationMode::X2Apic).unwrap();
    unit.poison();
    fake.take_log();
    assert_eq!(unit.enable_interrupt_remapping(), Err(Error::Poisoned));
    assert_eq!(unit.enable_translation(), Err(Error::Poisoned));
    assert!(fake.take_log().is_empty());
    assert!(!unit.translation_enabled() && !unit.interrupt_remapping_enabled());
}

#[test]
fn what_hardware_has_not_turned_on_is_not_said_to_be_on() {
    for (bit, enabled) in [(26, [false, false]), (25, [false, false]), (31, [true, false])] {
        let fake = Fake::new();
        fake.inner(|inner| inner.ignored = 1 << bit);
        let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
        unit.bring_up(&mut memory, &CONFIGURATION).unwrap_err();
        assert_eq!([unit.interrupt_remapping_enabled(), unit.translation_enabled()], enabled, "bit {bit}");
        let queue_is_on = !matches!(unit.set_root_table(&mut memory), Err(Error::OutOfOrder { .. }));
        assert_eq!(queue_is_on, bit != 26);
    }
}
