//! Interrupt entries as devices see them, between any two stores of the driver, and the fault drain.

mod support;

use addr::{ApicId, Bdf, HostPhys, Vector};
use model::registers::{FSTS, PFO};
use model::{Configuration, Interrupt, Machine, Message, Notification, Reason};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use support::*;
use vtd::{FaultKind, Handle, PostedRoute, Route, Trigger};

const DESCRIPTOR: u64 = GUESTS + 0x40;

fn route(vector: u8, destination: u32, source: Bdf) -> Route {
    Route { vector: Vector(vector), destination: ApicId(destination), trigger: Trigger::Edge, source }
}

fn posted(vector: u8, source: Bdf) -> PostedRoute {
    PostedRoute { vector: Vector(vector), descriptor: HostPhys::new(DESCRIPTOR), urgent: false, source }
}

fn handle(board: &mut Board) -> Handle {
    board.unit.allocate_interrupts(&mut board.memory, 1).unwrap().get(0).unwrap()
}

/// (kind, vector, destination) of what arrives: kind 0 delivered, 1 posted; `None` if blocked.
fn arrives(interrupt: Interrupt) -> Option<(u8, u8, u64)> {
    match interrupt {
        Interrupt::Delivered(to) => Some((0, to.vector, to.destination.into())),
        Interrupt::Posted { descriptor, vector, .. } => Some((1, vector, descriptor)),
        Interrupt::Unremapped { .. } => panic!("an interrupt passed by the table"),
        Interrupt::Blocked(_) => None,
    }
}

fn make_descriptor(machine: &Machine) {
    for at in (DESCRIPTOR..DESCRIPTOR + 64).step_by(8) {
        machine.store_u64(at, 0);
    }
    machine.store_u64(DESCRIPTOR + 32, 7 << 32 | 0xf2 << 16);
}

#[test]
fn a_routed_interrupt_arrives_from_its_source_only() {
    for (kind, configuration) in kinds() {
        let mut board = Board::up(configuration);
        let handle = handle(&mut board);
        assert_eq!(arrives(interrupt(&board.machine, NIC, handle.message())), None, "{kind}");
        board.unit.route_interrupt(&mut board.memory, handle, &route(0x51, 3, NIC)).unwrap();
        assert_eq!(arrives(interrupt(&board.machine, NIC, handle.message())), Some((0, 0x51, 3)), "{kind}");
        let forged = interrupt(&board.machine, OTHER, handle.message());
        assert!(matches!(forged, Interrupt::Blocked(fault) if fault.reason == Reason::SOURCE_ID), "{kind}");
        board.unit.disable_interrupt(&mut board.memory, handle).unwrap();
        assert_eq!(arrives(interrupt(&board.machine, NIC, handle.message())), None, "{kind}");
        board.done();
    }
}

#[test]
fn a_block_of_messages_has_an_entry_each_and_leaves_nothing_when_freed() {
    for (kind, configuration) in kinds() {
        let mut board = Board::up(configuration);
        let block = board.unit.allocate_interrupts(&mut board.memory, 8).unwrap();
        for (number, handle) in block.handles().enumerate() {
            board.unit.route_interrupt(&mut board.memory, handle, &route(0x60 + number as u8, 1, NIC)).unwrap();
        }
        let send = |board: &Board, number: u32| {
            let message = block.message();
            arrives(interrupt(&board.machine, NIC, vtd::Message { data: message.data + number, ..message }))
        };
        for number in 0..8 {
            assert_eq!(send(&board, number), Some((0, 0x60 + number as u8, 1)), "{kind}");
        }
        assert_eq!(send(&board, 8), None, "{kind}");
        board.unit.free_interrupts(&mut board.memory, block).unwrap();
        for number in 0..8 {
            assert_eq!(send(&board, number), None, "{kind}");
        }
        board.done();
    }
}

/// What arrived: the device that asked, and as [`arrives`].
type Arrivals = BTreeSet<(u16, (u8, u8, u64))>;

/// What arrives from either device at any event.
fn watch(machine: &Machine, message: vtd::Message) -> Rc<RefCell<Arrivals>> {
    let seen = Rc::new(RefCell::new(BTreeSet::new()));
    let log = seen.clone();
    machine.on_event(move |machine, _| {
        for source in [NIC, OTHER] {
            let cold = machine.interrupt_cold(0, source.as_u16(), message.address, message.data);
            for arrived in [cold, interrupt(machine, source, message)].into_iter().filter_map(arrives) {
                log.borrow_mut().insert((source.as_u16(), arrived));
            }
        }
    });
    seen
}

#[test]
fn a_changed_entry_is_the_old_or_the_new_one_at_every_store() {
    let (nic, other) = (NIC.as_u16(), OTHER.as_u16());
    for exchange in [false, true] {
        for (kind, configuration) in kinds() {
            let mut board = Board::up(configuration);
            board.memory.exchange = exchange;
            let handle = handle(&mut board);
            board.unit.route_interrupt(&mut board.memory, handle, &route(0x51, 3, NIC)).unwrap();
            for (new, expected) in [
                (route(0x52, 4, NIC), [(nic, (0, 0x51, 3)), (nic, (0, 0x52, 4))]),
                (route(0x53, 5, OTHER), [(nic, (0, 0x52, 4)), (other, (0, 0x53, 5))]),
                (route(0x53, 6, OTHER), [(other, (0, 0x53, 5)), (other, (0, 0x53, 6))]),
                (route(0x51, 3, NIC), [(other, (0, 0x53, 6)), (nic, (0, 0x51, 3))]),
            ] {
                let seen = watch(&board.machine, handle.message());
                board.unit.route_interrupt(&mut board.memory, handle, &new).unwrap();
                board.machine.clear_hook();
                assert!(seen.borrow().is_subset(&BTreeSet::from(expected)), "{kind}: {:x?}", seen.borrow());
                let to = (0, new.vector.0, new.destination.0.into());
                assert_eq!(arrives(interrupt(&board.machine, new.source, handle.message())), Some(to), "{kind}");
                let wrong = if new.source == NIC { OTHER } else { NIC };
                assert_eq!(arrives(interrupt(&board.machine, wrong, handle.message())), None, "{kind}");
            }
            board.done();
        }
    }
}

#[test]
fn an_interrupt_of_the_same_source_is_never_lost_while_its_route_changes() {
    for exchange in [false, true] {
        let mut board = Board::up(Configuration::default());
        board.memory.exchange = exchange;
        make_descriptor(&board.machine);
        let handle = handle(&mut board);
        board.unit.route_interrupt(&mut board.memory, handle, &route(0x51, 3, NIC)).unwrap();
        let message = handle.message();
        board.machine.on_event(move |machine, _| {
            let cold = machine.interrupt_cold(0, NIC.as_u16(), message.address, message.data);
            assert!(arrives(cold).is_some(), "lost: {cold:?}");
            assert!(arrives(interrupt(machine, NIC, message)).is_some(), "lost");
        });
        board.unit.route_interrupt(&mut board.memory, handle, &route(0x52, 9, NIC)).unwrap();
        board.unit.post_interrupt(&mut board.memory, handle, &posted(0x81, NIC)).unwrap();
        board.unit.post_interrupt(&mut board.memory, handle, &posted(0x82, NIC)).unwrap();
        board.unit.route_interrupt(&mut board.memory, handle, &route(0x51, 3, NIC)).unwrap();
        board.machine.clear_hook();
        board.done();
    }
}

#[test]
fn posting_and_delivery_change_into_each_other_without_a_third_thing() {
    let nic = NIC.as_u16();
    for caching_mode in [false, true] {
        for coherent in [false, true] {
            let mut board = Board::up(Configuration { caching_mode, coherent, ..Configuration::default() });
            make_descriptor(&board.machine);
            let handle = handle(&mut board);
            board.unit.post_interrupt(&mut board.memory, handle, &posted(0x81, NIC)).unwrap();
            let first = interrupt(&board.machine, NIC, handle.message());
            let notification = Some(Notification { vector: 0xf2, destination: 7 });
            assert_eq!(first, Interrupt::Posted { descriptor: DESCRIPTOR, vector: 0x81, notification });
            assert_eq!(board.machine.load(DESCRIPTOR + 16), 1 << 1);
            let seen = watch(&board.machine, handle.message());
            board.unit.route_interrupt(&mut board.memory, handle, &route(0x51, 3, NIC)).unwrap();
            board.unit.post_interrupt(&mut board.memory, handle, &posted(0x82, NIC)).unwrap();
            board.machine.clear_hook();
            let allowed =
                BTreeSet::from([(1, 0x81, DESCRIPTOR), (0, 0x51, 3), (1, 0x82, DESCRIPTOR)].map(|to| (nic, to)));
            assert!(seen.borrow().is_subset(&allowed), "{:x?}", seen.borrow());
            assert_eq!(
                arrives(interrupt(&board.machine, NIC, handle.message())),
                Some((1, 0x82, DESCRIPTOR)),
                "the last route stands"
            );
            board.done();
        }
    }
}

#[test]
fn faults_are_drained_in_order_and_the_next_one_interrupts_again() {
    for (kind, configuration) in kinds() {
        let records = u32::from(configuration.fault_records);
        let mut board = Board::up(configuration);
        let event = [Message { address: 0xfee0_1000, data: 0x31 }];
        for round in 0..20u64 {
            // More than fit, from every position of the ring.
            let faults = round % u64::from(records + 2);
            for number in 0..faults {
                let source = Bdf::from_u16(0x100 + number as u16);
                assert!(board.write(source, (number + 1) << 12).is_err());
            }
            assert_eq!(board.machine.take_messages(0), event[..faults.min(1) as usize], "{kind}");
            let mut seen = Vec::new();
            let drain = board.unit.drain_faults(|record| seen.push(record));
            let kept = faults.min(records.into());
            assert_eq!((drain.records, drain.overflow, drain.more), (kept as u32, faults > kept, false), "{kind}");
            for (number, record) in seen.iter().enumerate() {
                assert_eq!(record.source.as_u16(), 0x100 + number as u16, "{kind}");
                assert_eq!(record.address, (number as u64 + 1) << 12, "{kind}");
                assert_eq!((record.kind, record.reason.0), (FaultKind::Write, 1), "{kind}");
            }
            assert_eq!(board.machine.read32(0, FSTS) & 0xff, 0, "{kind}");
        }
        board.done();
    }
}

#[test]
fn a_device_that_faults_while_faults_are_drained_is_neither_lost_nor_endless() {
    for fault_records in [1, 2, 3, 8] {
        for storm in [1, 2, 5] {
            let mut board = Board::up(Configuration { fault_records, ..Configuration::default() });
            assert!(board.write(NIC, 0x1000).is_err());
            let (machine, mut sent) = (board.machine.clone(), 0);
            let mut drained = 0;
            loop {
                let drain = board.unit.drain_faults(|_| {
                    if sent < 40 {
                        for _ in 0..storm {
                            assert!(write(&machine, OTHER, 0x2000).is_err());
                            sent += 1;
                        }
                    }
                });
                assert!(drain.records <= 2 * u32::from(fault_records));
                drained += drain.records;
                if !drain.more {
                    break;
                }
            }
            assert!(drained > 1 || fault_records == 1);
            assert_eq!(board.machine.read32(0, FSTS) & (PFO | 2), 0, "nothing is left behind");
            board.machine.take_messages(0);
            assert!(board.write(NIC, 0x1000).is_err());
            assert_eq!(board.machine.take_messages(0).len(), 1, "the next fault is heard of");
        }
    }
}

#[test]
fn an_interrupt_fault_names_its_entry() {
    let mut board = Board::up(Configuration::default());
    let handle = handle(&mut board);
    board.unit.route_interrupt(&mut board.memory, handle, &route(0x51, 3, NIC)).unwrap();
    interrupt(&board.machine, OTHER, handle.message());
    let mut seen = Vec::new();
    assert!(!board.unit.drain_faults(|record| seen.push(record)).more);
    let kind = FaultKind::Interrupt { index: handle.index() };
    assert_eq!((seen[0].source, seen[0].kind, seen[0].reason.0), (OTHER, kind, 0x26));
}

/// What an I/O APIC sends for a remappable redirection entry (5.1.5.1): index 14:0 in bits 63:49, format in bit 48,
/// index 15 in bit 11, vector in 7:0.
fn io_apic_message(entry: u64) -> vtd::Message {
    let address = 0xfee0_0000 | (entry >> 49) << 5 | (entry >> 48 & 1) << 4 | (entry >> 11 & 1) << 2;
    vtd::Message { address, data: entry as u32 & 0xff }
}

#[test]
fn an_io_apic_pin_arrives_through_its_entry() {
    for (kind, configuration) in kinds() {
        let mut board = Board::up(configuration);
        let io_apic = Bdf::from_u16(0xff00);
        let handle = handle(&mut board);
        let level = Route { trigger: Trigger::Level, ..route(0x41, 2, io_apic) };
        board.unit.route_interrupt(&mut board.memory, handle, &level).unwrap();
        let entry = vtd::io_apic_entry(handle, Vector(0x41), Trigger::Level, vtd::Polarity::ActiveLow);
        match interrupt(&board.machine, io_apic, io_apic_message(entry)) {
            Interrupt::Delivered(to) => assert_eq!((to.vector, to.destination, to.level), (0x41, 2, true), "{kind}"),
            other => panic!("{kind}: {other:?}"),
        }
        assert_eq!(arrives(interrupt(&board.machine, NIC, io_apic_message(entry))), None, "{kind}");
        board.done();
    }
}

#[test]
fn every_entry_of_the_largest_table_is_reached_by_its_message() {
    let mut board = Board::probe(Configuration::default());
    let settings = vtd::Configuration { interrupt_entries: Some(1 << 16), ..SETTINGS };
    board.unit.bring_up(&mut board.memory, &settings).unwrap();
    let mut sampled = 0;
    // The table is filled block by block; of some blocks the first entry is routed.
    while let Ok(block) = board.unit.allocate_interrupts(&mut board.memory, 32) {
        let handle = block.get(0).unwrap();
        if !handle.index().is_power_of_two() && handle.index() < 0xffe0 {
            continue;
        }
        board.unit.route_interrupt(&mut board.memory, handle, &route(0x51, 3, NIC)).unwrap();
        assert_eq!(arrives(interrupt(&board.machine, NIC, handle.message())), Some((0, 0x51, 3)));
        sampled += 1;
    }
    assert_eq!(sampled, 12, "32, 64, ... 32768 and the last block");
    board.done();
}

#[test]
fn the_fault_interrupt_reaches_a_processor_with_a_long_id() {
    let mut board = Board::probe(Configuration::default());
    let fault_interrupt = Some(vtd::FaultInterrupt { vector: Vector(0x31), destination: ApicId(0x0001_2345) });
    let settings = vtd::Configuration { fault_interrupt, ..SETTINGS };
    board.unit.bring_up(&mut board.memory, &settings).unwrap();
    assert!(board.write(NIC, 0x1000).is_err());
    assert_eq!(board.machine.take_messages(0), [Message { address: 0x0001_2300_fee4_5000, data: 0x31 }]);
}
