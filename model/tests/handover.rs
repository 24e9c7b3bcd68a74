//! Units that firmware or another kernel left at work: what devices reach at every step of the way to the driver's own
//! tables.

mod support;

use model::{Access, Configuration, Event, Interrupt, Machine};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use support::*;
use vtd::{Error, Handover, Platform};

/// Firmware's page: the device reaches it at 0x1000, and nothing else.
const FIRMWARES: u64 = GUESTS;
/// Where the driver's own table leads at 0x1000.
const OWN: u64 = GUESTS + 0x10_0000;

/// Firmware sets the unit to work: the device reaches one page, and one interrupt arrives.
fn firmware(board: &Board) {
    firmware::set_to_work(board, FIRMWARES);
    assert_eq!(board.write(NIC, 0x1000), Ok(FIRMWARES));
    assert!(matches!(arrival(&board.machine), Interrupt::Delivered(to) if to.vector == 0x66));
    assert_eq!(board.machine.violations(0), []);
}

fn arrival(machine: &Machine) -> Interrupt {
    machine.interrupt(0, NIC.as_u16(), 0xfee0_0010 | 5 << 5, 0)
}

/// What devices get at any event from now on: (source, address, what is reached), and vectors that arrive (0: as sent).
#[derive(Default)]
struct Seen {
    reached: BTreeSet<(u16, u64, u64)>,
    vectors: BTreeSet<u8>,
    refused: usize,
}

fn watch(machine: &Machine) -> Rc<RefCell<Seen>> {
    let seen = Rc::new(RefCell::new(Seen::default()));
    let log = seen.clone();
    machine.on_event(move |machine, _: Event| {
        let mut log = log.borrow_mut();
        for source in [NIC, OTHER] {
            for iova in [0x1000, 0x2000, SECRET] {
                for answer in [write(machine, source, iova), write_cold(machine, source, iova)] {
                    match answer {
                        Ok(host) => drop(log.reached.insert((source.as_u16(), iova, host))),
                        Err(_) if source == NIC && iova == 0x1000 => log.refused += 1,
                        Err(_) => {}
                    }
                }
            }
        }
        let cold = machine.interrupt_cold(0, NIC.as_u16(), 0xfee0_0010 | 5 << 5, 0);
        for interrupt in [cold, arrival(machine)] {
            match interrupt {
                Interrupt::Delivered(to) => drop(log.vectors.insert(to.vector)),
                Interrupt::Unremapped { .. } => drop(log.vectors.insert(0)),
                _ => {}
            }
        }
    });
    seen
}

/// Takes every step with a table of the driver's that the device has from the first moment.
fn bring_up(board: &mut Board, handover: Handover) -> Result<(), Error> {
    let mode = match board.capabilities().extended_interrupt_mode() {
        true => vtd::DestinationMode::X2Apic,
        false => vtd::DestinationMode::XApic,
    };
    let mut domain = board.domain(7);
    board.map_fresh(&mut domain, 0x1000, OWN, 0x1000);
    let Board { unit, memory, .. } = board;
    unit.take_over(handover, Platform::default())?;
    unit.mask_and_clear_faults()?;
    unit.enable_queue(memory)?;
    unit.create_root_table(memory)?;
    unit.assign(memory, NIC, domain.id, domain.table.root(), unit.capabilities().second_stage_levels().unwrap())?;
    unit.set_root_table(memory)?;
    unit.set_interrupt_table(memory, 256, mode)?;
    unit.enable_interrupt_remapping()?;
    unit.enable_translation()?;
    unit.disable_protected_memory()
}

fn remapping_kinds() -> Vec<(&'static str, Configuration)> {
    kinds().into_iter().filter(|(_, configuration)| configuration.interrupt_remapping).collect()
}

#[test]
fn taken_over_a_device_reaches_what_the_old_or_the_new_tables_say_at_every_step() {
    for (kind, configuration) in remapping_kinds() {
        let mut board = Board::probe(configuration);
        firmware(&board);
        let seen = watch(&board.machine);
        bring_up(&mut board, Handover::TakeOver).unwrap_or_else(|error| panic!("{kind}: {error}"));
        board.machine.clear_hook();
        let nic = NIC.as_u16();
        let seen = seen.take();
        assert_eq!(seen.reached, BTreeSet::from([(nic, 0x1000, FIRMWARES), (nic, 0x1000, OWN)]), "{kind}");
        assert_eq!(seen.refused, 0, "{kind}: there is no moment in which it reaches neither");
        assert_eq!(seen.vectors, BTreeSet::from([0x66]), "{kind}");
        assert_eq!(board.write(NIC, 0x1000), Ok(OWN), "{kind}: the old one is forgotten");
        assert!(matches!(arrival(&board.machine), Interrupt::Blocked(_)), "{kind}");
        board.done();
    }
}

#[test]
fn stopped_behind_protected_regions_a_device_reaches_nothing_in_between() {
    for (kind, configuration) in remapping_kinds() {
        let mut board = Board::probe(Configuration { protected_regions: true, ..configuration });
        firmware(&board);
        let seen = watch(&board.machine);
        bring_up(&mut board, Handover::StopProtected).unwrap_or_else(|error| panic!("{kind}: {error}"));
        board.machine.clear_hook();
        let nic = NIC.as_u16();
        let seen = seen.take();
        assert_eq!(seen.reached, BTreeSet::from([(nic, 0x1000, FIRMWARES), (nic, 0x1000, OWN)]), "{kind}");
        assert!(seen.refused > 0, "{kind}");
        assert_eq!(board.write(NIC, 0x1000), Ok(OWN), "{kind}");
        board.done();
    }
}

#[test]
fn just_stopped_a_device_reaches_all_memory_for_a_while() {
    // What the two others are for; and the proof that they could fail.
    let mut board = Board::probe(Configuration::default());
    firmware(&board);
    let seen = watch(&board.machine);
    bring_up(&mut board, Handover::Stop).unwrap();
    board.machine.clear_hook();
    assert!(seen.borrow().reached.contains(&(OTHER.as_u16(), SECRET, SECRET)));
    assert!(seen.borrow().vectors.contains(&0), "messages arrive as they are sent");
    board.done();
}

#[test]
fn a_platform_that_opts_in_keeps_memory_closed_while_nothing_translates() {
    let mut board = Board::probe(Configuration { protected_regions: true, ..Configuration::default() });
    let opt_in = Platform { dma_control_opt_in: true, ..Platform::default() };
    assert_eq!(board.write(NIC, SECRET), Ok(SECRET), "nothing is on");
    board.unit.take_over(Handover::Stop, opt_in).unwrap();
    for address in [0, SECRET, 0xffff_f000, 1 << 32, (1 << 39) - 0x1000] {
        let answer = board.machine.dma(0, NIC.as_u16(), address, 4, Access::Write);
        assert!(answer.is_err(), "{address:#x}");
    }
    board.done();
}
