//! Devices that keep translations themselves, requests on their way, hardware that refuses, forgets and tarries.

mod support;

use addr::{Bdf, DomainId, HostPhys, Iova};
use model::registers::IQT;
use model::{Access, Configuration, Event, Latency, Machine, PageAsked, Reason};
use paging::Permissions;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use support::*;
use vtd::{Batch, DeviceTlb, Error, IotlbInvalidation, PageResponse, QueueError};

const A: u64 = GUESTS;
const B: u64 = GUESTS + (8 << 20);

fn device(source: Bdf) -> DeviceTlb {
    DeviceTlb { queue_depth: 4, physical_function: source }
}

fn assign_with_device_tlb(board: &mut Board, source: Bdf, domain: &Domain) {
    let levels = board.levels();
    let (id, root) = (domain.id, domain.table.root());
    board.unit.assign_with_device_tlb(&mut board.memory, source, id, root, levels, device(source)).unwrap();
}

fn access(machine: &Machine, source: Bdf, iova: u64) -> Result<u64, Reason> {
    machine.device_access(0, source.as_u16(), iova, Access::Write).map_err(|fault| fault.reason)
}

/// Units that make a driver of devices with device-TLBs behave otherwise, answering in order and in disorder.
fn with_device_tlbs() -> Vec<(&'static str, Configuration, Latency)> {
    let kinds =
        kinds().into_iter().map(|(kind, configuration)| (kind, Configuration { device_tlb: true, ..configuration }));
    kinds
        .flat_map(|(kind, configuration)| {
            [Latency::Looks(2), Latency::Disorder { seed: 77, one_in: 3 }]
                .map(|latency| (kind, configuration.clone(), latency))
        })
        .collect()
}

fn up(configuration: Configuration, latency: Latency) -> Board {
    let board = Board::up(configuration);
    board.machine.unit(0, |unit, _| unit.set_latency(latency));
    board
}

#[test]
fn what_a_device_was_told_is_forgotten_with_what_the_unit_holds() {
    for (kind, configuration, latency) in with_device_tlbs() {
        let mut board = up(configuration, latency);
        let mut domain = board.domain(1);
        board.map(&mut domain, 0x1000, A, 0x3000);
        board.assign(OTHER, &domain);
        assert_eq!(access(&board.machine, OTHER, 0x1000), Err(Reason::TRANSLATION_BLOCKED), "{kind}");
        assign_with_device_tlb(&mut board, NIC, &domain);
        for iova in [0x1000, 0x2000, 0x3000] {
            assert_eq!(access(&board.machine, NIC, iova), Ok(A + iova - 0x1000), "{kind}");
        }
        let flush = board.unmap_unflushed(&mut domain, 0x2000, 0x1000);
        assert_eq!(access(&board.machine, NIC, 0x2000), Ok(A + 0x1000), "{kind}: the device remembers");
        // The device asks again and again, at every step: what it is told last must be the truth.
        board.machine.on_event(|machine, _| {
            let _ = access(machine, NIC, 0x2000);
        });
        board.flush(&domain, flush);
        board.machine.clear_hook();
        assert_eq!(access(&board.machine, NIC, 0x2000), Err(Reason::WRITE), "{kind}");
        assert_eq!(access(&board.machine, NIC, 0x3000), Ok(A + 0x2000), "{kind}");

        // Moved and cleared, it has nothing of before.
        let mut new = board.domain(2);
        board.map(&mut new, 0x3000, B, 0x1000);
        board.machine.on_event(|machine, _| {
            let _ = access(machine, NIC, 0x1000);
            let _ = access(machine, NIC, 0x3000);
        });
        assign_with_device_tlb(&mut board, NIC, &new);
        board.machine.clear_hook();
        assert_eq!(access(&board.machine, NIC, 0x1000), Err(Reason::WRITE), "{kind}");
        assert_eq!(access(&board.machine, NIC, 0x3000), Ok(B), "{kind}");
        board.unit.clear(&mut board.memory, NIC).unwrap();
        assert!(access(&board.machine, NIC, 0x3000).is_err(), "{kind}");
        assign_with_device_tlb(&mut board, NIC, &domain);
        assert_eq!(access(&board.machine, NIC, 0x3000), Ok(A + 0x2000), "{kind}: nothing was left in the device");
        board.done();
    }
}

#[test]
fn a_batch_reaches_device_tlbs_too() {
    for (kind, configuration, latency) in with_device_tlbs() {
        let mut board = up(configuration, latency);
        let mut domain = board.domain(1);
        board.map(&mut domain, 0, A, 0x4_0000);
        assign_with_device_tlb(&mut board, NIC, &domain);
        let mut batch = Batch::new();
        let mut flushes = Vec::new();
        for page in [1, 2, 9, 30] {
            assert_eq!(access(&board.machine, NIC, page << 12), Ok(A + (page << 12)), "{kind}");
            let flush = board.unmap_unflushed(&mut domain, page << 12, 0x1000);
            batch.add(domain.id, flush.invalidation().unwrap());
            flushes.push(flush);
        }
        let submitted = board.unit.submit_batch(&mut board.memory, batch).unwrap();
        let proof = board.unit.complete_batch(&mut board.memory, submitted).unwrap();
        for flush in flushes {
            flush.complete(&proof, &mut board.memory).unwrap();
        }
        for page in [1, 2, 9, 30] {
            assert_eq!(access(&board.machine, NIC, page << 12), Err(Reason::WRITE), "{kind}");
            assert_eq!(board.write(NIC, page << 12), Err(Reason::WRITE), "{kind}");
        }
        board.done();
    }
}

#[test]
fn a_silent_device_is_isolated_and_others_lose_nothing() {
    for names_silent_devices in [true, false] {
        for (kind, configuration, latency) in with_device_tlbs() {
            let mut board = up(Configuration { names_silent_devices, ..configuration }, latency);
            let mut domain = board.domain(1);
            board.map(&mut domain, 0x1000, A, 0x3000);
            board.assign(OTHER, &domain);
            // The silent one is asked between two that answer, whose invalidations hardware may drop with its own.
            let (first, last) = (Bdf::from_u16(0x0200), Bdf::from_u16(0x0208));
            for source in [first, NIC, last] {
                assign_with_device_tlb(&mut board, source, &domain);
                assert_eq!(access(&board.machine, source, 0x2000), Ok(A + 0x1000), "{kind}");
            }
            assert_eq!(board.write(OTHER, 0x2000), Ok(A + 0x1000), "{kind}");
            board.machine.unit(0, |unit, _| unit.set_silent(NIC.as_u16(), true));
            let flush = board.unmap_unflushed(&mut domain, 0x2000, 0x1000);
            let change = *flush.invalidation().unwrap();
            let result = board.unit.invalidate(&mut board.memory, domain.id, &change);
            // Where the unit does not say who was silent, each is asked alone.
            assert_eq!(result, Err(Error::DeviceIsolated(NIC)), "{kind}");
            for source in [first, last] {
                assert_eq!(access(&board.machine, source, 0x2000), Err(Reason::WRITE), "{kind}: {source}");
                assert_eq!(access(&board.machine, source, 0x1000), Ok(A), "{kind}: {source} goes on");
            }
            for iova in [0x1000, 0x2000, 0x3000] {
                assert!(access(&board.machine, NIC, iova).is_err(), "{kind}: what it was told is of no use");
                assert!(board.write(NIC, iova).is_err(), "{kind}");
            }
            assert_eq!(board.write(OTHER, 0x1000), Ok(A), "{kind}");
            assert_eq!(board.write(OTHER, 0x2000), Err(Reason::WRITE), "{kind}: the rest is done");
            // Asked again, the unit says so.
            let proof = board.unit.invalidate(&mut board.memory, domain.id, &change).unwrap();
            flush.complete(&proof, &mut board.memory).unwrap();
            assert!(!board.unit.is_poisoned(), "{kind}");
            board.unmap(&mut domain, 0x3000, 0x1000);
            board.done();
        }
    }
}

#[test]
fn whichever_descriptor_is_refused_nothing_is_lost() {
    for (kind, configuration) in kinds() {
        for refused in 0..12 {
            let mut board = Board::up(configuration.clone());
            let (mut one, mut two) = (board.domain(1), board.domain(2));
            board.map(&mut one, 0x1000, A, 0x3000);
            board.map(&mut two, 0x1000, B, 0x3000);
            board.assign(NIC, &one);
            board.assign(OTHER, &one);
            for iova in [0x1000, 0x2000, 0x3000] {
                assert!(board.write(NIC, iova).is_ok() && board.write(OTHER, iova).is_ok(), "{kind}");
            }
            board.machine.unit(0, |unit, _| unit.refuse_after(refused));
            // Waits are refused too: then an operation fails, says so, and its effect is not relied on.
            let flush = board.unmap_unflushed(&mut one, 0x2000, 0x1000);
            let change = *flush.invalidation().unwrap();
            let mut failures = 0;
            let proof = loop {
                match board.unit.invalidate(&mut board.memory, one.id, &change) {
                    Ok(proof) => break proof,
                    Err(Error::Invalidation(QueueError::Refused { .. })) => failures += 1,
                    Err(error) => panic!("{kind}: {error}"),
                }
                assert!(failures < 2, "{kind}: one descriptor was refused, once");
            };
            flush.complete(&proof, &mut board.memory).unwrap();
            assert_eq!(board.write(NIC, 0x2000), Err(Reason::WRITE), "{kind}: {refused}");
            if board.unit.is_poisoned() {
                board.unit.recover(&mut board.memory).unwrap();
            }
            let levels = board.levels();
            if board.unit.assign(&mut board.memory, NIC, two.id, two.table.root(), levels).is_err() {
                assert!(board.write(NIC, 0x1000).is_err() || board.unit.is_poisoned(), "{kind}");
                board.unit.recover(&mut board.memory).unwrap();
                board.unit.assign(&mut board.memory, NIC, two.id, two.table.root(), levels).unwrap();
            }
            assert_eq!(board.write(NIC, 0x1000), Ok(B), "{kind}: {refused}");
            assert_eq!(board.write(OTHER, 0x2000), Err(Reason::WRITE), "{kind}: {refused}");
            board.done();
        }
    }
}

#[test]
fn an_answer_to_nothing_isolates_its_device_and_loses_nothing() {
    let mut board = up(Configuration { device_tlb: true, ..Configuration::default() }, Latency::Looks(2));
    let mut domain = board.domain(1);
    board.map(&mut domain, 0x1000, A, 0x3000);
    board.assign(OTHER, &domain);
    assign_with_device_tlb(&mut board, NIC, &domain);
    assert_eq!(access(&board.machine, NIC, 0x2000), Ok(A + 0x1000));
    let injected = Cell::new(false);
    board.machine.on_event(move |machine, event| {
        if matches!(event, Event::Register { offset: IQT, .. }) && !injected.replace(true) {
            machine.unit(0, |unit, _| unit.inject_stray_answer(NIC.as_u16()));
        }
    });
    let flush = board.unmap_unflushed(&mut domain, 0x2000, 0x1000);
    let change = *flush.invalidation().unwrap();
    let result = board.unit.invalidate(&mut board.memory, domain.id, &change);
    board.machine.clear_hook();
    assert_eq!(result, Err(Error::DeviceIsolated(NIC)));
    assert!(access(&board.machine, NIC, 0x1000).is_err());
    assert_eq!(board.write(OTHER, 0x2000), Err(Reason::WRITE));
    board.flush(&domain, flush);
    board.done();
}

#[test]
fn what_is_on_its_way_has_arrived_when_an_invalidation_is_complete() {
    for (kind, configuration) in kinds() {
        for queued_invalidation in [true, false] {
            let drains = configuration.draining;
            let mut board =
                Board::up_without_interrupts(Configuration { queued_invalidation, ..configuration.clone() });
            let mut domain = board.domain(1);
            board.map(&mut domain, 0x1000, A, 0x3000);
            board.assign(NIC, &domain);
            let send = |board: &Board, iova| {
                board.machine.start_write(0, NIC.as_u16(), iova, &[0x77; 8]).unwrap();
                board.machine.start_read(0, NIC.as_u16(), iova).unwrap();
            };
            let left = |board: &Board| board.machine.unit(0, |unit, _| unit.in_flight());
            for round in 0..3 {
                send(&board, 0x1000);
                match round {
                    // A page is unmapped; the device moves to another table; the device is cleared.
                    0 => board.unmap(&mut domain, 0x3000, 0x1000),
                    1 => {
                        let new = board.domain(2);
                        board.assign(NIC, &new);
                        board.assign(NIC, &domain);
                    }
                    _ => board.unit.clear(&mut board.memory, NIC).unwrap(),
                }
                assert_eq!(left(&board) == 0, drains, "{kind}: {round}");
                board.machine.unit(0, |unit, memory| unit.arrive(memory));
            }
            board.done();
        }
    }
}

#[test]
fn units_without_a_queue_forget_by_registers() {
    for (kind, configuration) in kinds() {
        let mut board = Board::up_without_interrupts(Configuration { queued_invalidation: false, ..configuration });
        let (mut one, mut two) = (board.domain(1), board.domain(2));
        board.map(&mut one, 0x1000, A, 0x3000);
        board.map(&mut two, 0x1000, B, 0x1000);
        board.assign(NIC, &one);
        for iova in [0x1000, 0x2000] {
            assert_eq!(board.write(NIC, iova), Ok(A + iova - 0x1000), "{kind}");
        }
        board.unmap(&mut one, 0x2000, 0x1000);
        assert_eq!(board.write(NIC, 0x2000), Err(Reason::WRITE), "{kind}");
        board.assign(NIC, &two);
        assert_eq!(board.write(NIC, 0x1000), Ok(B), "{kind}");
        assert_eq!(board.write(NIC, 0x3000), Err(Reason::WRITE), "{kind}");
        board.unit.invalidate_iotlb(&mut board.memory, [IotlbInvalidation::Global]).unwrap();
        board.unit.clear(&mut board.memory, NIC).unwrap();
        assert!(board.write(NIC, 0x1000).is_err(), "{kind}");
        board.done();
    }
}

#[test]
fn a_device_may_read_nothing_where_it_may_write() {
    for (kind, configuration) in kinds() {
        let mut board = Board::up(configuration);
        let mut domain = board.domain(1);
        let write_only = Permissions { read: false, write: true, execute: false };
        let (capabilities, start) = (board.capabilities(), Iova::new(0x1000));
        let permissions = capabilities.device_permissions(write_only);
        let attributes = capabilities.second_stage_attributes();
        let flush =
            domain.table.map(&mut board.memory, start, HostPhys::new(A), 0x1000, permissions, attributes).unwrap();
        board.flush(&domain, flush);
        board.assign(NIC, &domain);
        assert_eq!(board.write(NIC, 0x1000), Ok(A), "{kind}: the attributes are those of the unit");
        assert_eq!(board.machine.read_nothing(0, NIC.as_u16(), 0x1000), Ok(()), "{kind}");
        let reads = board.machine.dma(0, NIC.as_u16(), 0x1000, 4, Access::Read).is_ok();
        assert_eq!(reads, !capabilities.zero_length_read(), "{kind}: no more is permitted than must be");
        board.done();
    }
}

/// Everything that a device reaches at any event from now on; an error is address 0.
fn watch(machine: &Machine, torn: bool) -> Rc<RefCell<BTreeSet<(u64, u64)>>> {
    let seen = Rc::new(RefCell::new(BTreeSet::new()));
    let log = seen.clone();
    machine.on_event(move |machine, _| {
        for iova in [0x1000, 0x2000, 0x3000] {
            let mut answers = vec![write(machine, NIC, iova), write_cold(machine, NIC, iova)];
            if torn {
                let all = machine.dma_torn(0, NIC.as_u16(), iova, 4, Access::Write);
                answers.extend(all.into_iter().map(|one| one.map(|parts| parts[0].0).map_err(|fault| fault.reason)));
            }
            log.borrow_mut().extend(answers.into_iter().map(|answer| (iova, answer.unwrap_or(0))));
        }
    });
    seen
}

#[test]
fn reserved_memory_is_reached_at_every_store_of_a_move() {
    for (kind, configuration) in kinds() {
        // Another domain with an exchange of 128 bits; another table of the same domain without.
        for exchange in [true, false] {
            let mut board = Board::up(configuration.clone());
            board.memory.exchange = exchange;
            let (mut old, mut new) = (board.domain(1), board.domain(if exchange { 2 } else { 1 }));
            // 0x1000 is the reserved memory.
            board.map(&mut old, 0x1000, A, 0x2000);
            board.map(&mut new, 0x1000, A, 0x1000);
            board.map(&mut new, 0x3000, B, 0x1000);
            board.assign(NIC, &old);
            assert_eq!(board.write(NIC, 0x1000), Ok(A), "{kind}");
            let seen = watch(&board.machine, false);
            let levels = board.levels();
            let moved = board.unit.replace(&mut board.memory, NIC, new.id, new.table.root(), levels);
            moved.unwrap_or_else(|error| panic!("{kind}: {error}"));
            let lost = seen.borrow().contains(&(0x1000, 0));
            assert!(!lost, "{kind}: {:x?}", seen.borrow());
            board.machine.clear_hook();
            assert_eq!(board.write(NIC, 0x2000), Err(Reason::WRITE), "{kind}");
            assert_eq!(board.write(NIC, 0x3000), Ok(B), "{kind}");
            if exchange {
                board.done();
            }
        }
        // What cannot be done so is not done at all; and an assignment, which may have a gap, has one then.
        let mut board = Board::up(configuration.clone());
        let (mut old, mut new) = (board.domain(1), board.domain(2));
        board.map(&mut old, 0x1000, A, 0x1000);
        board.map(&mut new, 0x1000, A, 0x1000);
        board.assign(NIC, &old);
        let levels = board.levels();
        let seen = watch(&board.machine, false);
        let refused = board.unit.replace(&mut board.memory, NIC, new.id, new.table.root(), levels);
        assert_eq!(refused, Err(Error::NotAtomic(NIC)), "{kind}");
        assert!(!seen.borrow().contains(&(0x1000, 0)), "{kind}");
        board.assign(NIC, &new);
        assert!(seen.borrow().contains(&(0x1000, 0)), "{kind}");
        board.machine.clear_hook();
        board.done();
    }
}

#[test]
fn no_fetch_by_halves_finds_half_of_one_assignment_and_half_of_another() {
    for (kind, configuration) in kinds().into_iter().filter(|(_, kind)| kind.coherent && !kind.write_buffer) {
        let mut board = Board::up(configuration);
        let (mut old, mut new) = (board.domain(1), board.domain(2));
        board.map(&mut old, 0x1000, A, 0x2000);
        board.map(&mut new, 0x2000, B, 0x2000);
        // A device that stays in the old domain: nothing of the new one may be cached under its id.
        board.assign(OTHER, &old);
        assert_eq!(board.write(OTHER, 0x1000), Ok(A), "{kind}");
        let seen = watch(&board.machine, true);
        board.assign(NIC, &old);
        board.assign(NIC, &new);
        for domain in [&old, &new] {
            board.unit.clear(&mut board.memory, NIC).unwrap();
            // What was cached with the other half's domain id would be left now.
            let left = [0x1000, 0x2000, 0x3000].map(|iova| board.write(NIC, iova));
            assert_eq!(left, [Err(Reason::CONTEXT_NOT_PRESENT); 3], "{kind}");
            board.assign(NIC, domain);
        }
        board.machine.clear_hook();
        assert_eq!(
            (board.write(NIC, 0x1000), board.write(NIC, 0x3000)),
            (Err(Reason::WRITE), Ok(B + 0x1000)),
            "{kind}"
        );
        let allowed = BTreeSet::from([(0x1000, A), (0x2000, A + 0x1000), (0x2000, B), (0x3000, B + 0x1000)]);
        let reached: BTreeSet<_> = seen.take().into_iter().filter(|&(_, host)| host != 0).collect();
        assert_eq!(reached, allowed, "{kind}");
        // A half of each would be cached under the wrong domain id, which the unit notices as two tables of one.
        board.done();
    }
}

#[test]
fn completions_that_come_late_and_in_disorder_never_complete_what_they_are_not_of() {
    for seed in 1..=40 {
        let mut board = Board::up(Configuration { device_tlb: true, ..Configuration::default() });
        let mut domain = board.domain(1);
        board.map(&mut domain, 0, A, 0x20_0000);
        board.assign(NIC, &domain);
        let latency = Latency::Disorder { seed, one_in: 4 };
        board.machine.unit(0, |unit, _| unit.set_latency(latency));
        // Hardware takes longer than it is given, most of the time.
        board.unit.set_timeout_us(6);
        let (mut failed, mut done) = (0, 0);
        for page in 0..100 {
            assert_eq!(board.write(NIC, page << 12), Ok(A + (page << 12)));
            let flush = board.unmap_unflushed(&mut domain, page << 12, 0x1000);
            let change = *flush.invalidation().unwrap();
            match board.unit.invalidate(&mut board.memory, domain.id, &change) {
                Ok(proof) => {
                    done += 1;
                    assert_eq!(board.write(NIC, page << 12), Err(Reason::WRITE), "seed {seed}: page {page}");
                    flush.complete(&proof, &mut board.memory).unwrap();
                }
                Err(Error::Invalidation(QueueError::Timeout { .. } | QueueError::Full { .. })) => {
                    failed += 1;
                    // The tables that wait are lost, and the page stays whoever's it was.
                    drop(flush);
                }
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
        assert!(failed > 0 && done > 0, "seed {seed}: {failed} failed, {done} done");
        board.unit.set_timeout_us(1_000_000);
        board.unit.recover(&mut board.memory).unwrap();
        board.done();
    }
}

#[test]
fn several_units_that_walk_one_table_forget_together() {
    let machine = Machine::new(MEMORY);
    let configurations = kinds().into_iter().map(|(_, kind)| Configuration { coherent: true, ..kind });
    let same = |kind: &Configuration| kind.sagaw & 0b0100 != 0 && kind.pages_2m && kind.queued_invalidation;
    let mut memory = Memory::new(&machine, true);
    let mut units: Vec<_> = configurations
        .filter(same)
        .map(|kind| {
            let number = machine.add_unit(kind);
            machine.unit(number, |unit, _| unit.set_latency(Latency::Looks(3)));
            let mut unit = vtd::Unit::probe(UnitWindow(machine.clone(), number), Ticks(machine.clone())).unwrap();
            let settings = vtd::Configuration { interrupt_entries: None, ..SETTINGS };
            unit.bring_up(&mut memory, &settings).unwrap();
            unit
        })
        .collect();
    assert!(units.len() > 4);
    let mut table: paging::PageTable<paging::SecondStage> =
        paging::PageTable::new(4, addr::PageSize::Size2M, &mut memory).unwrap();
    let attributes = Default::default();
    let (start, host) = (Iova::new(0), HostPhys::new(A));
    let flush = table.map(&mut memory, start, host, 0x40_0000, Permissions::READ_WRITE, attributes).unwrap();
    flush.complete(&paging::NeverLoaded, &mut memory).unwrap();
    for unit in &mut units {
        unit.assign(&mut memory, NIC, DomainId(1), table.root(), vtd::Levels::Four).unwrap();
    }
    let reach = |number, iova| machine.dma(number, NIC.as_u16(), iova, 4, Access::Write).is_ok();
    for page in 0..20 {
        let iova = page << 13;
        assert!((0..units.len()).all(|number| reach(number, iova)));
        let mut flush = table.unmap(&mut memory, Iova::new(iova), 0x1000).unwrap();
        let again = table.unmap(&mut memory, Iova::new(0x20_0000 + iova), 0x1000).unwrap();
        let submitted: Vec<_> = units
            .iter_mut()
            .map(|unit| {
                let mut batch = Batch::new();
                batch.add(DomainId(1), flush.invalidation().unwrap());
                batch.add(DomainId(1), again.invalidation().unwrap());
                unit.submit_batch(&mut memory, batch).unwrap()
            })
            .collect();
        let mut proofs = Vec::new();
        for (unit, submitted) in units.iter_mut().zip(submitted) {
            proofs.push(unit.complete_batch(&mut memory, submitted).unwrap());
        }
        assert!((0..units.len()).all(|number| !reach(number, iova) && !reach(number, 0x20_0000 + iova)));
        again.complete(proofs.last().unwrap(), &mut memory).unwrap();
        let nothing = paging::Flush::none(table.root());
        std::mem::replace(&mut flush, nothing).complete(proofs.last().unwrap(), &mut memory).unwrap();
        flush.complete(&paging::NeverLoaded, &mut memory).unwrap();
    }
    (0..units.len()).for_each(|number| assert_eq!(machine.violations(number), []));
}

#[test]
fn page_requests_are_answered_and_an_overflow_is_survived() {
    let mut board = Board::up(Configuration { page_requests: true, device_tlb: true, ..Configuration::scalable() });
    board.unit.enable_page_requests(&mut board.memory, 0).unwrap();
    let ask = |board: &Board, page: u64, group, last| {
        let asked = PageAsked { source: NIC.as_u16(), pasid: Some(5), address: page << 12, write: true, last, group };
        board.machine.unit(0, |unit, memory| unit.page_request(memory, asked))
    };
    let mut page = 0;
    for round in 0..40u16 {
        // More than fit, sometimes.
        let count = u64::from(round * 7 % 150);
        let queued = (0..count).filter(|number| ask(&board, page + number, round, number % 5 == 4)).count() as u64;
        let mut expected = page;
        let drain = board
            .unit
            .drain_page_requests(&mut board.memory, |request| {
                assert_eq!((request.source, request.pasid, request.write, request.read), (NIC, Some(5), true, false));
                assert_eq!((request.address.as_u64() >> 12, request.group), (expected, round));
                expected += 1;
                Some(PageResponse::Success)
            })
            .unwrap();
        assert_eq!((u64::from(drain.requests), drain.overflow), (queued, queued < count), "round {round}");
        let responses = board.machine.unit(0, |unit, _| unit.take_page_responses());
        assert_eq!(responses.len() as u64, queued / 5);
        for response in responses {
            let expected = (NIC.as_u16(), Some(5), round, 0);
            assert_eq!((response.source, response.pasid, response.group, response.code), expected);
        }
        page += count;
    }
    board.done();
}
