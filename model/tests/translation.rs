//! Assignment and mapping as devices see them, between any two stores of the driver.

mod support;

use addr::{DomainId, PageSize};
use model::{Configuration, Eviction, Machine, Reason};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use support::random::Random;
use support::*;

const A: u64 = GUESTS;
const B: u64 = GUESTS + (8 << 20);

#[test]
fn a_device_reaches_its_mapping_and_nothing_else() {
    for (kind, configuration) in kinds() {
        let mut board = Board::up(configuration);
        let mut domain = board.domain(1);
        board.map(&mut domain, 0x20_0000, A, 0x40_3000);
        assert!(board.write(NIC, 0x20_0000).is_err(), "{kind}");
        board.assign(NIC, &domain);
        for (iova, expected) in [
            (0x1f_fffc, Err(Reason::WRITE)),
            (0x20_0000, Ok(A)),
            (0x3f_fffc, Ok(A + 0x1f_fffc)),
            (0x60_2ffc, Ok(A + 0x40_2ffc)),
            (0x60_3000, Err(Reason::WRITE)),
            (0, Err(Reason::WRITE)),
            (SECRET, Err(Reason::WRITE)),
            (1 << 57, Err(Reason::BEYOND_WIDTH)),
        ] {
            assert_eq!(board.write(NIC, iova), expected, "{kind}: {iova:#x}");
        }
        assert!(board.write(OTHER, 0x20_0000).is_err(), "{kind}: another device");
        board.unit.clear(&mut board.memory, NIC).unwrap();
        assert_eq!(board.write(NIC, 0x20_0000), Err(Reason::CONTEXT_NOT_PRESENT), "{kind}");
        board.done();
    }
}

#[test]
fn large_pages_are_used_and_walked() {
    let mut board = Board::up(Configuration::default());
    let mut domain = board.domain(1);
    board.map(&mut domain, 1 << 30, 0, 1 << 30);
    assert_eq!(board.capabilities().largest_page(), PageSize::Size1G);
    board.assign(NIC, &domain);
    assert_eq!(board.write(NIC, (1 << 30) + 0x12_3454), Ok(0x12_3454));
    // A hole in a large page, and its surroundings.
    board.unmap(&mut domain, (1 << 30) + 0x12_3000, 0x1000);
    assert_eq!(board.write(NIC, (1 << 30) + 0x12_3454), Err(Reason::WRITE));
    assert_eq!(board.write(NIC, (1 << 30) + 0x12_2ffc), Ok(0x12_2ffc));
    assert_eq!(board.write(NIC, (1 << 30) + 0x40_0000), Ok(0x40_0000));
    board.done();
}

#[test]
fn without_a_flush_an_unmapped_page_is_still_reached_and_with_it_not() {
    for (kind, configuration) in kinds() {
        let mut board = Board::up(configuration);
        let mut domain = board.domain(1);
        board.map(&mut domain, 0, A, 0x40_0000);
        board.map(&mut domain, 0x40_0000, A + 0x40_0000, 0x3000);
        board.assign(NIC, &domain);
        for iova in [0x1000, 0x40_1000] {
            assert_eq!(board.write(NIC, iova), Ok(A + iova), "{kind}");
            let flush = board.unmap_unflushed(&mut domain, iova, 0x1000);
            assert_eq!(board.write(NIC, iova), Ok(A + iova), "{kind}: the model remembers");
            board.flush(&domain, flush);
            assert_eq!(board.write(NIC, iova), Err(Reason::WRITE), "{kind}");
            assert_eq!(board.write(NIC, iova + 0x1000), Ok(A + iova + 0x1000), "{kind}");
        }
        board.done();
    }
}

#[test]
fn a_new_mapping_is_seen_where_its_absence_was_remembered() {
    for (kind, configuration) in kinds() {
        let mut board = Board::up(configuration);
        let mut domain = board.domain(1);
        board.assign(NIC, &domain);
        for iova in [0x1000, 0x2000, 0x20_0000, 0x4000_0000, 0x40_0000_0000 - 0x1000] {
            assert_eq!(board.write(NIC, iova), Err(Reason::WRITE), "{kind}");
            board.map(&mut domain, iova, A, 0x1000);
            assert_eq!(board.write(NIC, iova), Ok(A), "{kind}: {iova:#x}");
        }
        board.done();
    }
}

#[test]
fn a_device_that_was_refused_before_its_assignment_works_after_it() {
    for (kind, configuration) in kinds() {
        let mut board = Board::up(configuration);
        let mut domain = board.domain(1);
        board.map(&mut domain, 0x1000, A, 0x1000);
        board.assign(OTHER, &domain);
        assert!(board.write(NIC, 0x1000).is_err());
        board.assign(NIC, &domain);
        assert_eq!(board.write(NIC, 0x1000), Ok(A), "{kind}");
        board.done();
    }
}

/// Who reached what, from which address.
type Reached = BTreeSet<(u16, u64, u64)>;

/// Everything that either device reaches at any store, flush or register write from now on, remembered and not.
fn watch(machine: &Machine) -> Rc<RefCell<Reached>> {
    let seen = Rc::new(RefCell::new(BTreeSet::new()));
    let log = seen.clone();
    machine.on_event(move |machine, _| {
        for source in [NIC, OTHER] {
            for iova in [0, 0x1000, 0x2000, 0x3000] {
                let answers = [write_cold(machine, source, iova), write(machine, source, iova)];
                log.borrow_mut().extend(answers.into_iter().flatten().map(|host| (source.as_u16(), iova, host)));
            }
        }
    });
    seen
}

#[test]
fn a_move_between_domains_gives_the_old_or_the_new_one_at_every_store() {
    let (nic, other) = (NIC.as_u16(), OTHER.as_u16());
    for (kind, configuration) in kinds() {
        let mut board = Board::up(configuration);
        let (mut old, mut new) = (board.domain(1), board.domain(2));
        board.map(&mut old, 0x1000, A, 0x2000);
        board.map(&mut new, 0x2000, B, 0x2000);
        board.assign(NIC, &old);
        // A device that stays behind: nothing of the new domain may be remembered under the old one's id.
        board.assign(OTHER, &old);
        assert_eq!((board.write(NIC, 0x1000), board.write(NIC, 0x2000)), (Ok(A), Ok(A + 0x1000)), "{kind}");
        let seen = watch(&board.machine);
        board.assign(NIC, &new);
        let stays = [(other, 0x1000, A), (other, 0x2000, A + 0x1000)];
        let moved = [(nic, 0x2000, B), (nic, 0x3000, B + 0x1000)];
        let mut allowed = BTreeSet::from([(nic, 0x1000, A), (nic, 0x2000, A + 0x1000)]);
        allowed.extend(stays.into_iter().chain(moved));
        assert!(seen.borrow().is_subset(&allowed), "{kind}: {:x?}", seen.borrow());
        assert_eq!(board.write(NIC, 0x1000), Err(Reason::WRITE), "{kind}");
        assert_eq!(board.write(NIC, 0x2000), Ok(B), "{kind}");

        // From here on there is nothing mixed, and what the new domain loses is lost.
        let seen = watch(&board.machine);
        board.map(&mut new, 0x4000, B + 0x2000, 0x1000);
        assert_eq!(*seen.borrow(), stays.into_iter().chain(moved).collect(), "{kind}");
        board.unmap(&mut new, 0x3000, 0x1000);
        assert_eq!(board.write(NIC, 0x3000), Err(Reason::WRITE), "{kind}");

        // Nothing of the old domain is left: its tables go back, and become traps.
        board.unit.clear(&mut board.memory, OTHER).unwrap();
        let seen = watch(&board.machine);
        let flush = old.table.destroy(&mut board.memory);
        let change = flush.invalidation().copied().unwrap();
        let proof = board.unit.invalidate(&mut board.memory, old.id, &change).unwrap();
        flush.complete(&proof, &mut board.memory).unwrap();
        assert_eq!(*seen.borrow(), BTreeSet::from([(nic, 0x2000, B)]), "{kind}");
        board.machine.clear_hook();
        board.done();
    }
}

#[test]
fn a_domain_id_that_is_used_again_brings_nothing_back() {
    for (kind, configuration) in kinds() {
        let mut board = Board::up(configuration);
        let mut old = board.domain(1);
        board.map(&mut old, 0x1000, A, 0x2000);
        board.assign(NIC, &old);
        assert_eq!(board.write(NIC, 0x1000), Ok(A));
        // The device goes on all the time: what is forgotten too early is remembered again.
        board.machine.on_event(|machine, _| {
            let _ = (write(machine, NIC, 0x1000), write(machine, NIC, 0x2000));
        });
        board.unit.clear(&mut board.memory, NIC).unwrap();
        board.machine.clear_hook();
        old.table.destroy(&mut board.memory).complete(&paging::NeverLoaded, &mut board.memory).unwrap();

        let mut new = board.domain(1);
        board.map(&mut new, 0x2000, B, 0x1000);
        board.assign(NIC, &new);
        assert_eq!(board.write(NIC, 0x1000), Err(Reason::WRITE), "{kind}");
        assert_eq!(board.write(NIC, 0x2000), Ok(B), "{kind}");
        board.done();
    }
}

#[test]
fn an_assignment_before_the_root_table_is_set_stands_from_the_first_moment() {
    for (kind, configuration) in kinds() {
        let mut board = Board::probe(configuration);
        let mut domain = board.domain(1);
        board.unit.stop_firmware().unwrap();
        board.unit.mask_and_clear_faults().unwrap();
        board.unit.enable_queue(&mut board.memory).unwrap();
        board.unit.create_root_table(&mut board.memory).unwrap();
        board.map(&mut domain, 0x1000, A, 0x1000);
        board.assign(NIC, &domain);
        board.unit.set_root_table(&mut board.memory).unwrap();
        board.unit.enable_translation().unwrap();
        assert_eq!(write_cold(&board.machine, NIC, 0x1000), Ok(A), "{kind}");
        assert_eq!(board.write(NIC, 0x1000), Ok(A), "{kind}");
        board.done();
    }
}

/// Maps, unmaps and moves at random; at every event the device writes somewhere, and what it reaches must be what
/// was mapped before or after the call under way.
fn churn(configuration: Configuration, seed: u64, eviction: Eviction) {
    let mut board = Board::up(configuration);
    board.machine.unit(0, |unit, _| unit.set_eviction(eviction));
    let mut random = Random(seed);
    let mut domain = board.domain(1);
    board.assign(NIC, &domain);
    // 12 MiB of addresses: parts of it mapped, each page to the host page with the same offset.
    const PAGES: u64 = 3 * 1024;
    let mut mapped = vec![false; PAGES as usize];
    let allowed = Rc::new(RefCell::new(mapped.clone()));
    let (watch, mut probes) = (allowed.clone(), Random(seed ^ 0x5555));
    board.machine.on_event(move |machine, _| {
        let page = probes.below(PAGES);
        for answer in [write_cold(machine, NIC, page << 12), write(machine, NIC, page << 12)].into_iter().flatten() {
            assert_eq!(answer, A + (page << 12));
            assert!(watch.borrow()[page as usize], "page {page:#x} is reached and not mapped");
        }
        if probes.below(8) == 0 {
            machine.unit(0, |_, memory| memory.evict(page));
        }
    });
    for _ in 0..40 {
        let (start, len) = match random.below(3) {
            0 => (random.below(6) * 512, 512),
            1 => (random.below(PAGES - 64), 1 + random.below(64)),
            _ => (random.below(PAGES - 1), 1),
        };
        let range = start as usize..(start + len).min(PAGES) as usize;
        let bytes = (range.len() as u64) << 12;
        if mapped[range.clone()].iter().all(|mapped| !mapped) {
            allowed.borrow_mut()[range.clone()].fill(true);
            board.map(&mut domain, start << 12, A + (start << 12), bytes);
            mapped[range].fill(true);
        } else {
            board.unmap(&mut domain, start << 12, bytes);
            mapped[range].fill(false);
        }
        allowed.borrow_mut().copy_from_slice(&mapped);
        for _ in 0..8 {
            let page = random.below(PAGES);
            let expected = if mapped[page as usize] { Ok(A + (page << 12)) } else { Err(Reason::WRITE) };
            assert_eq!(board.write(NIC, page << 12), expected, "page {page:#x}");
        }
    }
    board.machine.clear_hook();
    board.done();
}

#[test]
fn random_mapping_never_shows_a_page_that_is_not_mapped() {
    for (_, configuration) in kinds() {
        for seed in [1, 0xdead_beef] {
            churn(configuration.clone(), seed, Eviction::Never);
            churn(configuration.clone(), seed, Eviction::PseudoRandom { seed, one_in: 3 });
        }
    }
}

#[test]
fn a_table_that_leaves_the_tree_is_not_given_back_before_hardware_forgets_it() {
    for (kind, configuration) in kinds() {
        // Emptied page by page; taken away whole; and with the tables above it.
        for (start, len) in [(0x2000, 0x1000), (0, 0x20_0000), (0, 1 << 30)] {
            let mut board = Board::up(configuration.clone());
            let mut domain = board.domain(1);
            // Neighbours keep the tables above, so that the invalidation is of a range and not of the domain.
            for (iova, host) in [(0x2000, A), (0x20_0000, B), (0x4000_0000, B)] {
                board.map(&mut domain, iova, host, 0x1000);
            }
            board.assign(NIC, &domain);
            assert_eq!(board.write(NIC, 0x2000), Ok(A), "{kind}");
            let before = board.memory.allocated();
            let reached = Rc::new(RefCell::new(BTreeSet::new()));
            let log = reached.clone();
            board.machine.on_event(move |machine, _| {
                for iova in [0, 0x1000, 0x2000, 0x1f_f000] {
                    let answers = [write_cold(machine, NIC, iova), write(machine, NIC, iova)];
                    log.borrow_mut().extend(answers.into_iter().flatten().map(|host| (iova, host)));
                }
            });
            board.unmap(&mut domain, start, len);
            // A table that is merely empty goes when it is asked for.
            let flush = domain.table.release_empty_tables(&mut board.memory);
            board.flush(&domain, flush);
            board.machine.clear_hook();
            assert_eq!(*reached.borrow(), BTreeSet::from([(0x2000, A)]), "{kind}");
            assert_eq!(board.write(NIC, 0x2000), Err(Reason::WRITE), "{kind}");
            assert!(board.memory.allocated() < before, "{kind}: the table comes back");
            board.done();
        }
    }
}

#[test]
fn one_flush_for_several_changes_covers_them_all() {
    for (kind, configuration) in kinds() {
        let mut board = Board::up(configuration);
        let mut domain = board.domain(1);
        board.map(&mut domain, 0x1000, A, 0x3000);
        board.assign(NIC, &domain);
        assert_eq!(board.write(NIC, 0x2000), Ok(A + 0x1000), "{kind}");
        assert_eq!(board.write(NIC, 0x4020_0000), Err(Reason::WRITE), "{kind}");
        let mut flush = board.map_unflushed(&mut domain, 0x4020_0000, B, 0x1000);
        let unmapped = board.unmap_unflushed(&mut domain, 0x2000, 0x1000);
        flush.join(unmapped, &mut board.memory).unwrap();
        board.flush(&domain, flush);
        assert_eq!(board.write(NIC, 0x2000), Err(Reason::WRITE), "{kind}");
        assert_eq!(board.write(NIC, 0x4020_0000), Ok(B), "{kind}");
        board.done();
    }
}

#[test]
fn two_domains_share_nothing() {
    let mut board = Board::up(Configuration { caching_mode: true, ..Configuration::default() });
    let (mut one, mut two) = (board.domain(1), board.domain(2));
    board.map(&mut one, 0x1000, A, 0x1000);
    board.map(&mut two, 0x1000, B, 0x1000);
    board.assign(NIC, &one);
    board.assign(OTHER, &two);
    assert_eq!((board.write(NIC, 0x1000), board.write(OTHER, 0x1000)), (Ok(A), Ok(B)));
    board.unmap(&mut one, 0x1000, 0x1000);
    assert_eq!((board.write(NIC, 0x1000), board.write(OTHER, 0x1000)), (Err(Reason::WRITE), Ok(B)));
    board.done();
}

#[test]
fn domain_zero_and_ids_that_the_unit_has_not_are_refused() {
    let mut board = Board::up(Configuration { domains: 2, ..Configuration::default() });
    let domain = board.domain(1);
    let levels = board.levels();
    for id in [0, 256] {
        assert!(board.unit.assign(&mut board.memory, NIC, DomainId(id), domain.table.root(), levels).is_err());
    }
    board.unit.assign(&mut board.memory, NIC, DomainId(255), domain.table.root(), levels).unwrap();
    assert_eq!(board.write(NIC, 0), Err(Reason::WRITE));
    board.done();
}

#[test]
fn a_proof_for_changed_leaves_does_not_free_tables() {
    let mut board = Board::up(Configuration::default());
    let mut domain = board.domain(1);
    // Not aligned to each other, so that all leaves are of 4 KiB, in two tables.
    board.map(&mut domain, 0, A + 0x1000, 0x40_0000);
    board.assign(NIC, &domain);
    assert_eq!(board.write(NIC, 0x1000), Ok(A + 0x2000));

    let mut leaves = board.unmap_unflushed(&mut domain, 0, 0x1000);
    let last = board.unmap_unflushed(&mut domain, 0x3f_f000, 0x1000);
    leaves.join(last, &mut board.memory).unwrap();
    let tables = board.unmap_unflushed(&mut domain, 0, 0x20_0000);

    let change = leaves.invalidation().copied().unwrap();
    let proof = board.unit.invalidate(&mut board.memory, domain.id, &change).unwrap();
    leaves.complete(&proof, &mut board.memory).unwrap();
    let freed = tables.complete(&proof, &mut board.memory).is_ok();
    // The invalidation kept cached pointers to tables (IH): what they lead to must still be a table of the domain.
    assert_ne!(board.write(NIC, 0x2000), Ok(SECRET), "a freed table is still walked");
    assert!(!freed);
}
