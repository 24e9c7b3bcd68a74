//! Bring-up of every kind of unit, and out of every state that firmware leaves.

mod support;

use addr::{ApicId, Vector};
use model::registers::{GSTS, IQA, IQE, IQT, IRE, PMEN, QIE, SIRTP, SRTP, TE};
use model::{Access, Configuration, Interrupt, Latency, Machine, Reason};
use support::*;
use vtd::{DestinationMode, Error, FaultInterrupt};

#[test]
fn every_kind_of_unit_comes_up_and_denies_everything() {
    for (kind, configuration) in kinds() {
        let board = Board::up(configuration);
        let status = board.machine.read32(0, GSTS);
        assert_eq!(status, TE | SRTP | QIE | IRE | SIRTP, "{kind}");
        for iova in [0, 0x1000, GUESTS, SECRET] {
            assert_eq!(board.write(NIC, iova), Err(Reason::ROOT_NOT_PRESENT), "{kind}");
        }
        let forged = board.machine.interrupt(0, NIC.as_u16(), 0xfee0_0000, 0x80);
        assert!(matches!(forged, Interrupt::Blocked(fault) if fault.reason == Reason::COMPATIBILITY_BLOCKED), "{kind}");
        for index in 0..256 {
            let forged = board.machine.interrupt(0, NIC.as_u16(), 0xfee0_0010 | index << 5, 0);
            assert!(matches!(forged, Interrupt::Blocked(fault) if fault.reason == Reason::IRTE_NOT_PRESENT), "{kind}");
        }
        board.done();
    }
}

#[test]
fn translation_is_never_on_with_anything_reachable() {
    for (kind, configuration) in kinds() {
        let mut board = Board::probe(configuration);
        board.machine.on_event(move |machine, _| {
            if is_on(machine) {
                let answer = machine.dma_cold(0, NIC.as_u16(), 0x1000, 4, Access::Write);
                assert!(answer.is_err(), "{kind}");
            }
        });
        let settings = vtd::Configuration { interrupt_entries: None, ..SETTINGS };
        board.unit.bring_up(&mut board.memory, &settings).unwrap();
        board.done();
    }
}

#[test]
fn what_firmware_left_on_is_stopped_and_its_caches_are_forgotten() {
    for (kind, configuration) in kinds() {
        let mut board = Board::probe(Configuration { protected_regions: true, ..configuration });
        firmware::set_to_work(&board, SECRET);
        let machine = &board.machine;
        machine.unit(0, |unit, _| unit.set_latency(Latency::Immediate));
        machine.write32(0, PMEN, 1 << 31);
        assert_eq!(board.write(NIC, 0x1000), Ok(SECRET), "{kind}");
        assert_eq!(machine.violations(0), [], "{kind}");
        machine.unit(0, |unit, _| unit.set_latency(Latency::Looks(3)));

        // The domain id of firmware is the driver's too.
        let mut settings = SETTINGS;
        if !board.capabilities().extended_interrupt_mode() {
            settings.destination_mode = vtd::DestinationMode::XApic;
        }
        board.unit.bring_up(&mut board.memory, &settings).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(board.write(NIC, 0x1000), Err(Reason::ROOT_NOT_PRESENT), "{kind}");
        assert_eq!(board.machine.read32(0, PMEN), 0, "{kind}");
        assert_eq!(board.machine.violations(0), [], "{kind}");
    }
}

#[test]
fn a_unit_that_never_answers_is_an_error_and_not_a_hang() {
    let mut board = Board::probe(Configuration::default());
    board.machine.unit(0, |unit, _| unit.set_latency(Latency::Steps));
    let error = board.unit.bring_up(&mut board.memory, &SETTINGS).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert!(!board.unit.translation_enabled());
}

#[test]
fn an_invalidation_that_never_completes_poisons_the_unit_and_a_late_completion_changes_nothing() {
    let mut board = Board::up(Configuration::default());
    let mut domain = board.domain(3);
    board.map(&mut domain, 0x1000, GUESTS, 0x1000);
    board.assign(NIC, &domain);
    assert_eq!(board.write(NIC, 0x1000), Ok(GUESTS));

    board.machine.unit(0, |unit, _| unit.set_latency(Latency::Steps));
    let error = board.unit.clear(&mut board.memory, NIC).unwrap_err();
    assert!(matches!(error, Error::Invalidation(vtd::QueueError::Timeout { .. })), "{error}");
    assert!(board.unit.is_poisoned());
    assert_eq!(write_cold(&board.machine, NIC, 0x1000), Err(Reason::CONTEXT_NOT_PRESENT));

    // The next invalidation is not taken for complete because the first one completes now.
    let mut sneaked = false;
    let machine = board.machine.clone();
    board.machine.on_event(move |_, event| {
        if matches!(event, model::Event::Register { offset: IQT, .. }) && !sneaked {
            sneaked = true;
            // The work of the first call, with its wait, and no more.
            machine.step();
            machine.step();
        }
    });
    let what = [vtd::IotlbInvalidation::Global];
    let error = board.unit.invalidate_iotlb(&mut board.memory, what).unwrap_err();
    assert!(matches!(error, Error::Invalidation(vtd::QueueError::Timeout { .. })), "{error}");
}

#[test]
fn a_timeout_of_a_device_that_nobody_asked_loses_nothing() {
    let mut board = Board::up(Configuration::default());
    let mut domain = board.domain(3);
    board.map(&mut domain, 0x1000, GUESTS, 0x1000);
    board.assign(NIC, &domain);
    assert_eq!(board.write(NIC, 0x1000), Ok(GUESTS));
    let flush = board.unmap_unflushed(&mut domain, 0x1000, 0x1000);
    let mut injected = false;
    board.machine.on_event(move |machine, event| {
        if matches!(event, model::Event::Register { offset: IQT, .. }) && !injected {
            injected = true;
            machine.unit(0, |unit, _| unit.inject_invalidation_timeout(OTHER.as_u16()));
        }
    });
    board.flush(&domain, flush);
    board.machine.clear_hook();
    assert_eq!(board.write(NIC, 0x1000), Err(Reason::WRITE), "what hardware dropped was asked again");
    board.done();
}

#[test]
fn a_refused_descriptor_is_reported_and_the_queue_goes_on() {
    let mut board = Board::up(Configuration::default());
    board.machine.on_event(|machine, event| {
        // What the driver has just put into the ring is damaged before hardware is told.
        if let model::Event::Store { address, .. } = event {
            let ring = machine.read64(0, IQA) & !0xfff;
            if address == ring + (machine.read64(0, IQT) & 0xff0) {
                machine.unit(0, |_, memory| assert!(memory.store(address, &[0xf, 0, 0, 0, 0, 0, 0, 0])));
            }
        }
    });
    let what = [vtd::IotlbInvalidation::Global];
    let error = board.unit.invalidate_iotlb(&mut board.memory, what).unwrap_err();
    assert!(matches!(error, Error::Invalidation(vtd::QueueError::Refused { record: 3, .. })), "{error}");
    board.machine.clear_hook();
    assert_eq!(board.machine.read32(0, model::registers::FSTS) & IQE, 0);
    for _ in 0..600 {
        board.unit.invalidate_iotlb(&mut board.memory, what).expect("the queue goes on");
    }
}

#[test]
fn what_is_assigned_before_bring_up_is_reached_from_the_first_moment() {
    let legacy = kinds().into_iter().map(|(kind, configuration)| (kind, Board::probe(configuration)));
    let scalable = scalable::kinds()
        .into_iter()
        .filter(|(_, configuration)| configuration.second_stage)
        .map(|(kind, configuration)| (kind, scalable::probe(configuration, 0)));
    for (kind, mut board) in legacy.chain(scalable) {
        let mut domain = board.domain(3);
        board.map_fresh(&mut domain, 0x1000, GUESTS, 0x1000);
        board.unit.create_root_table(&mut board.memory).unwrap();
        board.assign(NIC, &domain);
        board.machine.on_event(move |machine, _| {
            let reaches = |source, iova| machine.dma_cold(0, source, iova, 4, Access::Write).map(|parts| parts[0].0);
            assert_eq!(reaches(NIC.as_u16(), 0x1000), Ok(if is_on(machine) { GUESTS } else { 0x1000 }), "{kind}");
            assert_eq!(reaches(OTHER.as_u16(), 0x1000).is_err(), is_on(machine), "{kind}");
        });
        let settings = board.settings();
        board.unit.bring_up(&mut board.memory, &settings).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(board.write(NIC, 0x1000), Ok(GUESTS), "{kind}");
        board.done();
    }
}

/// Whether devices are translated.
fn is_on(machine: &Machine) -> bool {
    machine.unit(0, |unit, _| unit.peek(GSTS)) & u64::from(TE) != 0
}

#[test]
fn a_configuration_that_is_wrong_in_itself_changes_nothing() {
    let mut board = Board::probe(Configuration::default());
    let fault = |vector, destination| Some(FaultInterrupt { vector: Vector(vector), destination: ApicId(destination) });
    let wrong = [
        (vtd::Configuration { interrupt_entries: Some(100), ..SETTINGS }, Error::BadTableSize(100)),
        (vtd::Configuration { fault_interrupt: fault(15, 0), ..SETTINGS }, Error::BadVector(Vector(15))),
        (
            vtd::Configuration {
                fault_interrupt: fault(16, 0x100),
                destination_mode: DestinationMode::XApic,
                ..SETTINGS
            },
            Error::DestinationOutOfRange(ApicId(0x100)),
        ),
        // Without a table the form is that of the xAPIC.
        (
            vtd::Configuration { fault_interrupt: fault(16, 0x100), interrupt_entries: None, ..SETTINGS },
            Error::DestinationOutOfRange(ApicId(0x100)),
        ),
    ];
    board.machine.on_event(|_, event| panic!("{event:?}"));
    for (configuration, error) in wrong {
        assert_eq!(board.unit.bring_up(&mut board.memory, &configuration), Err(error));
    }
    board.machine.clear_hook();
    let right = vtd::Configuration { fault_interrupt: fault(16, 0x100), ..SETTINGS };
    board.unit.bring_up(&mut board.memory, &right).unwrap();
    board.done();
}
