//! A unit that is turned off: nothing that it was given is used any more, and it comes up again.

mod support;

use addr::{ApicId, Vector};
use model::registers::{GSTS, IRE, QIE, TE};
use model::{Configuration, Interrupt, Latency};
use support::*;
use vtd::{DeviceTlb, Error, Pasid, Route, Translation, TranslationMode, Trigger};

/// Makes everything that a driver kept in memory lead to the secret.
fn overwrite(board: &Board) {
    assert!(board.memory.end() <= 2 << 20);
    let page: Vec<u8> = (SECRET | 0x67).to_le_bytes().repeat(512);
    board.machine.unit(0, |_, memory| {
        for at in (1 << 20..2 << 20).step_by(4096) {
            assert!(memory.store(at, &page));
        }
        memory.flush_all();
    });
}

/// Assigns a device, uses it, and sends an interrupt.
fn work(board: &mut Board, host: u64) {
    let mut domain = board.domain(3);
    board.map(&mut domain, 0x1000, host, 0x1000);
    board.assign(NIC, &domain);
    assert_eq!(board.write(NIC, 0x1000), Ok(host));
    assert!(board.write(NIC, SECRET).is_err());
    if board.unit.interrupt_remapping_enabled() {
        let handle = board.unit.allocate_interrupts(&mut board.memory, 1).unwrap().get(0).unwrap();
        let route = Route { vector: Vector(0x55), destination: ApicId(1), trigger: Trigger::Edge, source: NIC };
        board.unit.route_interrupt(&mut board.memory, handle, &route).unwrap();
        assert!(
            matches!(interrupt(&board.machine, NIC, handle.message()), Interrupt::Delivered(to) if to.vector == 0x55)
        );
    }
}

/// Nothing is on, and nothing of what was there is looked at.
fn is_off(board: &Board, kind: &str) {
    assert_eq!(board.machine.read32(0, GSTS) & (TE | IRE | QIE), 0, "{kind}");
    assert!(!board.unit.translation_enabled() && !board.unit.interrupt_remapping_enabled(), "{kind}");
    assert_eq!(board.write(NIC, SECRET), Ok(SECRET), "{kind}: an address is itself");
    let message = board.machine.interrupt(0, NIC.as_u16(), 0xfee0_0000, 0x80);
    assert!(matches!(message, Interrupt::Unremapped { .. }), "{kind}: {message:?}");
    assert_eq!(board.machine.violations(0), [], "{kind}");
}

/// No step is taken before those that it needs, as if the unit had never been up.
fn knows_nothing(board: &mut Board) {
    assert!(matches!(board.unit.enable_translation(), Err(Error::OutOfOrder { .. })));
    assert!(matches!(board.unit.enable_interrupt_remapping(), Err(Error::OutOfOrder { .. })));
    assert!(matches!(board.unit.mask_and_clear_faults(), Err(Error::OutOfOrder { .. })));
    assert!(matches!(board.unit.enable_queue(&mut board.memory), Err(Error::OutOfOrder { .. })));
}

#[test]
fn a_device_that_answers_no_more_does_not_keep_the_unit_on() {
    let mut board = Board::up(Configuration { device_tlb: true, ..Configuration::default() });
    let domain = board.domain(3);
    let (levels, device_tlb) = (board.levels(), DeviceTlb { queue_depth: 0, physical_function: NIC });
    let Board { unit, memory, .. } = &mut board;
    unit.assign_with_device_tlb(memory, NIC, domain.id, domain.table.root(), levels, device_tlb).unwrap();
    board.machine.unit(0, |unit, _| unit.set_silent(NIC.as_u16(), true));
    board.unit.shut_down(&mut board.memory).unwrap();
    is_off(&board, "silent");
    knows_nothing(&mut board);
}

#[test]
fn a_unit_that_was_shut_down_uses_nothing_of_the_drivers_and_comes_up_again() {
    for (kind, configuration) in kinds() {
        let drains = configuration.draining;
        let mut board = Board::up(configuration);
        let settings = board.settings();
        work(&mut board, GUESTS);
        board.machine.start_write(0, NIC.as_u16(), 0x1000, &[0x77; 8]).unwrap();
        board.unit.shut_down(&mut board.memory).unwrap_or_else(|error| panic!("{kind}: {error}"));
        // What the device sent before has arrived, where a unit can wait for it: the page may be given to another.
        assert_eq!(board.machine.unit(0, |unit, _| unit.in_flight()), usize::from(!drains), "{kind}");
        is_off(&board, kind);
        overwrite(&board);
        board.memory = Memory::new(&board.machine, board.memory.coherent);
        board.unit.bring_up(&mut board.memory, &settings).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert!(board.write(NIC, 0x1000).is_err() && board.write_cold(NIC, 0x1000).is_err(), "{kind}");
        work(&mut board, GUESTS + 0x1000);
        board.done();
    }
}

#[test]
fn a_unit_without_a_queue_is_shut_down_too() {
    let configuration =
        Configuration { queued_invalidation: false, interrupt_remapping: false, ..Configuration::default() };
    let mut board = Board::up_without_interrupts(configuration);
    work(&mut board, GUESTS);
    board.unit.shut_down(&mut board.memory).unwrap();
    is_off(&board, "registers");
    overwrite(&board);
}

#[test]
fn a_unit_in_scalable_mode_is_in_legacy_mode_after_it() {
    for (kind, configuration) in scalable::kinds() {
        let mut board = scalable::up(configuration, 0);
        let mut domain = board.domain(3);
        board.map_fresh(&mut domain, 0x1000, GUESTS, 0x1000);
        let translation = match board.capabilities().pass_through() {
            true => Translation::PassThrough,
            false => Translation::SecondStage { table: domain.table.root(), levels: board.levels() },
        };
        let attached = board.unit.attach(&mut board.memory, NIC, None, domain.id, translation);
        let settings = board.settings();
        board.unit.shut_down(&mut board.memory).unwrap_or_else(|error| panic!("{kind}: {error}"));
        is_off(&board, kind);
        assert_eq!(board.unit.translation_mode(), TranslationMode::Legacy, "{kind}");
        overwrite(&board);
        board.memory = Memory::new(&board.machine, board.memory.coherent);
        board.unit.use_scalable_mode(Pasid::ZERO).unwrap();
        board.unit.bring_up(&mut board.memory, &settings).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert!(board.write(NIC, SECRET).is_err(), "{kind}: {attached:?}");
        board.done();
    }
}

#[test]
fn a_unit_that_does_not_go_off_is_an_error_and_can_be_asked_again() {
    let mut board = Board::up(Configuration::default());
    work(&mut board, GUESTS);
    board.machine.unit(0, |unit, _| unit.set_latency(Latency::Steps));
    assert!(matches!(board.unit.shut_down(&mut board.memory), Err(Error::Timeout { .. })));
    while board.machine.step() {}
    board.machine.unit(0, |unit, _| unit.set_latency(Latency::Immediate));
    board.unit.shut_down(&mut board.memory).unwrap();
    is_off(&board, "late");
    knows_nothing(&mut board);
}
