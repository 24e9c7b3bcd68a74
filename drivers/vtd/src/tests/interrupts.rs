use super::fake::{CAP, CONFIGURATION, ECAP, Event, Fake};
use super::std::vec::Vec;
use crate::{
    Configuration, DestinationMode, Error, Handle, Message, PostedInterruptDescriptor, PostedRoute, Route, Trigger,
};
use addr::{ApicId, Bdf, HostPhys, Vector};

const ROUTE: Route =
    Route { vector: Vector(0x41), destination: ApicId(2), trigger: Trigger::Edge, source: Bdf::from_u16(0x0018) };

fn entry(fake: &Fake, handle: Handle) -> u64 {
    fake.inner(|inner| (inner.others[&0xb8] & !0xfff) + u64::from(handle.index()) * 16)
}

/// Replays the stores to an entry and answers every state in which hardware could have found it present.
fn present_states(log: &[Event], entry: u64, mut state: [u64; 2]) -> Vec<[u64; 2]> {
    let mut seen = Vec::new();
    for (half, value) in Fake::stores(log, entry) {
        state[(half / 8) as usize] = value;
        if state[0] & 1 != 0 {
            seen.push(state);
        }
    }
    seen
}

#[test]
fn entry_zero_is_nobodys_and_every_other_is_given_once() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    let mut indices = Vec::new();
    while let Ok(block) = unit.allocate_interrupts(&mut memory, 1) {
        indices.push(block.get(0).unwrap().index());
        assert!(indices.len() < 256);
    }
    indices.sort();
    assert_eq!(indices, (1..256).collect::<Vec<_>>());
}

/// A pseudo-random sequence.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn blocks_are_found_wherever_there_are_some_and_only_there() {
    for seed in 1..=20 {
        let fake = Fake::new();
        let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
        unit.bring_up(&mut memory, &Configuration { interrupt_entries: Some(512), ..CONFIGURATION }).unwrap();
        let (mut state, mut taken, mut blocks) = (seed, [false; 512], Vec::new());
        taken[0] = true;
        for _ in 0..2000 {
            let count = 1 << (random(&mut state) % 6);
            if random(&mut state) % 5 < 3 {
                let possible = taken.chunks(count).position(|block| block.iter().all(|taken| !taken));
                match unit.allocate_interrupts(&mut memory, count) {
                    Ok(block) => {
                        for handle in block.handles() {
                            assert!(!core::mem::replace(&mut taken[usize::from(handle.index())], true), "seed {seed}");
                        }
                        assert_eq!(usize::from(block.get(0).unwrap().index()) % count, 0);
                        blocks.push(block);
                    }
                    Err(error) => {
                        assert_eq!((error, possible), (Error::NoInterruptEntries(count), None), "seed {seed}")
                    }
                }
            } else if !blocks.is_empty() {
                let index = random(&mut state) as usize % blocks.len();
                let block = blocks.swap_remove(index);
                unit.free_interrupts(&mut memory, block).unwrap();
                assert_eq!(
                    unit.free_interrupts(&mut memory, block),
                    Err(Error::BadHandle(block.get(0).unwrap().index()))
                );
                block.handles().for_each(|handle| taken[usize::from(handle.index())] = false);
            }
        }
        for index in 0..512 {
            let given = unit.read_interrupt_entry(&memory, Handle(index)).is_ok();
            assert_eq!(given, taken[usize::from(index)] && index != 0, "seed {seed}");
        }
    }
}

#[test]
fn a_table_that_is_almost_full_costs_no_more_than_an_empty_one() {
    let fake = Fake::new();
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    unit.bring_up(&mut memory, &Configuration { interrupt_entries: Some(1 << 16), ..CONFIGURATION }).unwrap();
    let reads = |fake: &Fake| fake.inner(|inner| core::mem::take(&mut inner.reads));
    reads(&fake);
    let (mut count, mut last) = (0, None);
    while let Ok(block) = unit.allocate_interrupts(&mut memory, 1) {
        (count, last) = (count + 1, Some(block));
        assert!(count < 65536 && reads(&fake) <= 2, "one word to look, one to change");
    }
    assert_eq!(count, 65535);
    for count in [1, 32] {
        assert!(unit.allocate_interrupts(&mut memory, count).is_err());
        assert_eq!(reads(&fake), 0);
    }
    unit.free_interrupts(&mut memory, last.unwrap()).unwrap();
    reads(&fake);
    // A block that is not there is looked for once, in words that are not full.
    assert!(unit.allocate_interrupts(&mut memory, 2).is_err());
    assert_eq!(reads(&fake), 1);
    assert!(unit.allocate_interrupts(&mut memory, 2).is_err());
    assert_eq!(reads(&fake), 0);
    assert_eq!(unit.allocate_interrupts(&mut memory, 1), Ok(last.unwrap()));
    assert!(reads(&fake) <= 2);
}

#[test]
fn all_interrupts_of_a_processor_move_with_one_wait() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    let handles: Vec<_> = (0..3).flat_map(|_| unit.allocate_interrupts(&mut memory, 32).unwrap().handles()).collect();
    unit.route_interrupts(&mut memory, handles.iter().map(|&handle| (handle, ROUTE))).unwrap();
    let waits = |log: &[Event]| log.iter().filter(|e| matches!(e, Event::Executed(low, _) if low & 0xf == 5)).count();
    assert_eq!(waits(&fake.take_log()), 0, "absent entries are not cached");
    let to = Route { destination: ApicId(9), ..ROUTE };
    unit.route_interrupts(&mut memory, handles.iter().take(32).map(|&handle| (handle, to))).unwrap();
    let log = fake.take_log();
    assert_eq!((Fake::executed(&log).len(), waits(&log)), (32, 1));
    // More than that, in pieces; one that cannot be does not keep those before it from being told of.
    let bad = [(Handle(0), to)];
    let some = handles.iter().map(|&handle| (handle, Route { vector: Vector(0x77), ..to }));
    assert_eq!(unit.route_interrupts(&mut memory, some.chain(bad)), Err(Error::BadHandle(0)));
    let log = fake.take_log();
    assert_eq!((Fake::executed(&log).len(), waits(&log)), (96, 3));
    for handle in handles {
        assert_eq!(unit.read_interrupt_entry(&memory, handle).unwrap().0 >> 16 & 0xff, 0x77);
    }
}

#[test]
fn an_hpet_takes_the_message_in_one_register() {
    let message = Handle(0x8001).message();
    assert_eq!(message.hpet_route(), 0xfee0_0034_0000_0000);
    assert_eq!(Message { data: 5, ..message }.hpet_route(), 0xfee0_0034_0000_0005);
}

#[test]
fn blocks_are_aligned_and_do_not_overlap() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    let mut taken = [false; 256];
    for count in [1, 32, 2, 16, 8, 32, 4] {
        let block = unit.allocate_interrupts(&mut memory, count).unwrap();
        assert_eq!(usize::from(block.get(0).unwrap().index()) % count, 0);
        assert_eq!(block.get(count), None);
        for handle in block.handles() {
            assert!(!core::mem::replace(&mut taken[usize::from(handle.index())], true));
        }
    }
    for count in [0, 3, 64] {
        assert_eq!(unit.allocate_interrupts(&mut memory, count), Err(Error::NoInterruptEntries(count)));
    }
}

#[test]
fn a_message_names_the_entry_and_multi_message_msi_adds_to_it() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    let single = unit.allocate_interrupts(&mut memory, 1).unwrap();
    assert_eq!(single.message(), Message { address: 0xfee0_0030, data: 0 });
    assert_eq!(single.message(), single.get(0).unwrap().message());
    let block = unit.allocate_interrupts(&mut memory, 4).unwrap();
    assert_eq!(block.message(), Message { address: 0xfee0_0098, data: 0 }, "SHV");
    assert_eq!(block.get(1).unwrap().message().address, 0xfee0_00b0, "MSI-X names each entry");
}

#[test]
fn a_new_route_has_its_source_before_it_is_present() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    let handle = unit.allocate_interrupts(&mut memory, 1).unwrap().get(0).unwrap();
    fake.take_log();
    unit.route_interrupt(&mut memory, handle, &ROUTE).unwrap();
    let log = fake.take_log();
    assert_eq!(Fake::stores(&log, entry(&fake, handle)), [(8, 0x4_0018), (0, 0x2_0041_0001)]);
    assert!(Fake::executed(&log).is_empty());
}

#[test]
fn in_caching_mode_a_new_route_is_announced() {
    let fake = Fake::with(CAP | 1 << 7, ECAP);
    let (mut unit, mut memory) = fake.up();
    let handle = unit.allocate_interrupts(&mut memory, 1).unwrap().get(0).unwrap();
    unit.route_interrupt(&mut memory, handle, &ROUTE).unwrap();
    assert_eq!(Fake::executed(&fake.take_log()), [0x1_0000_0014]);
}

#[test]
fn moving_an_interrupt_is_one_store_and_loses_nothing() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    let handle = unit.allocate_interrupts(&mut memory, 1).unwrap().get(0).unwrap();
    unit.route_interrupt(&mut memory, handle, &ROUTE).unwrap();
    fake.take_log();
    unit.route_interrupt(&mut memory, handle, &Route { destination: ApicId(3), ..ROUTE }).unwrap();
    let log = fake.take_log();
    assert_eq!(Fake::stores(&log, entry(&fake, handle)), [(0, 0x3_0041_0001)]);
    assert_eq!(Fake::executed(&log), [0x1_0000_0014]);
    unit.route_interrupt(&mut memory, handle, &Route { destination: ApicId(3), ..ROUTE }).unwrap();
    assert!(fake.take_log().is_empty(), "the same again is nothing");
}

#[test]
fn no_store_leaves_a_present_entry_with_the_half_of_another() {
    for exchanges in [false, true] {
        let fake = Fake::with(CAP | 1 << 59, ECAP);
        let (mut unit, mut memory) = fake.up();
        fake.inner(|inner| inner.exchanges = exchanges);
        let handle = unit.allocate_interrupts(&mut memory, 1).unwrap().get(0).unwrap();
        unit.route_interrupt(&mut memory, handle, &ROUTE).unwrap();
        let posted = PostedRoute {
            vector: Vector(0x55),
            descriptor: HostPhys::new(0x12_0000_0040),
            urgent: false,
            source: ROUTE.source,
        };
        let other = Route { source: Bdf::from_u16(0x0020), ..ROUTE };
        let place = entry(&fake, handle);
        for change in 0..3 {
            fake.take_log();
            let (low, high) = unit.read_interrupt_entry(&memory, handle).unwrap();
            match change {
                0 => unit.post_interrupt(&mut memory, handle, &posted),
                1 => unit.route_interrupt(&mut memory, handle, &other),
                _ => unit.route_interrupt(&mut memory, handle, &ROUTE),
            }
            .unwrap();
            let now = unit.read_interrupt_entry(&memory, handle).unwrap();
            let log = fake.take_log();
            let seen = present_states(&log, place, [low, high]);
            assert!(seen.iter().all(|&[l, h]| (l, h) == now), "{seen:x?}");
            assert_eq!(Fake::executed(&log), [0x1_0000_0014]);
            if exchanges {
                assert!(log.contains(&Event::Exchange(place)) && Fake::stores(&log, place).is_empty());
            } else {
                let withdrawn = log.iter().position(|&event| event == Event::Store(place, 0)).unwrap();
                let forgotten = log.iter().position(|e| matches!(e, Event::Executed(0x1_0000_0014, _))).unwrap();
                let rewritten = log.iter().position(|&event| event == Event::Store(place + 8, now.1)).unwrap();
                assert!(withdrawn < forgotten && forgotten < rewritten);
            }
        }
    }
}

#[test]
fn a_freed_entry_is_forgotten_before_it_can_be_given_again() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    let block = unit.allocate_interrupts(&mut memory, 4).unwrap();
    for handle in block.handles() {
        unit.route_interrupt(&mut memory, handle, &ROUTE).unwrap();
    }
    fake.take_log();
    unit.free_interrupts(&mut memory, block).unwrap();
    let log = fake.take_log();
    assert_eq!(Fake::executed(&log), [0x4_1000_0014], "one invalidation of 2^2 entries from 4");
    let executed = log.iter().position(|event| matches!(event, Event::Executed(..))).unwrap();
    let place = entry(&fake, block.get(0).unwrap());
    let withdrawn = log.iter().position(|&event| event == Event::Store(place, 0)).unwrap();
    // The map of given entries is nothing that hardware sees: the last store is to it.
    let freed = log.iter().rposition(|event| matches!(event, Event::Store(..))).unwrap();
    assert!(withdrawn < executed && executed < freed);
    assert_eq!(unit.disable_interrupt(&mut memory, block.get(0).unwrap()), Err(Error::BadHandle(4)));
    assert_eq!(unit.allocate_interrupts(&mut memory, 4), Ok(block));
}

#[test]
fn an_entry_that_hardware_may_still_hold_is_not_given_again() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    let block = unit.allocate_interrupts(&mut memory, 1).unwrap();
    unit.route_interrupt(&mut memory, block.get(0).unwrap(), &ROUTE).unwrap();
    fake.inner(|inner| inner.stalled = true);
    assert!(matches!(unit.free_interrupts(&mut memory, block), Err(Error::Invalidation(_))));
    assert!(unit.free_interrupts(&mut memory, block).is_err(), "the entry is clear, the cache is not");
    assert!(unit.disable_interrupt(&mut memory, block.get(0).unwrap()).is_err());
    assert_ne!(unit.allocate_interrupts(&mut memory, 1), Ok(block));
    assert_eq!(unit.route_interrupt(&mut memory, block.get(0).unwrap(), &ROUTE), Err(Error::Poisoned));
    fake.inner(|inner| inner.stalled = false);
    unit.free_interrupts(&mut memory, block).unwrap();
    assert_eq!(unit.allocate_interrupts(&mut memory, 1), Ok(block));
}

#[test]
fn destinations_follow_the_mode() {
    let fake = Fake::new();
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    let configuration = Configuration { destination_mode: DestinationMode::XApic, ..CONFIGURATION };
    unit.bring_up(&mut memory, &configuration).unwrap();
    let handle = unit.allocate_interrupts(&mut memory, 1).unwrap().get(0).unwrap();
    unit.route_interrupt(&mut memory, handle, &ROUTE).unwrap();
    assert_eq!(unit.read_interrupt_entry(&memory, handle).unwrap().0 >> 40, 2, "bits 47:40");
    let far = Route { destination: ApicId(256), ..ROUTE };
    let result = unit.route_interrupt(&mut memory, handle, &far);
    assert_eq!(result, Err(Error::DestinationOutOfRange(ApicId(256))));
}

#[test]
fn impossible_routes_are_refused() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    let handle = unit.allocate_interrupts(&mut memory, 1).unwrap().get(0).unwrap();
    let low = Route { vector: Vector(15), ..ROUTE };
    assert_eq!(unit.route_interrupt(&mut memory, handle, &low), Err(Error::BadVector(Vector(15))));
    assert_eq!(unit.route_interrupt(&mut memory, Handle(9), &ROUTE), Err(Error::BadHandle(9)));
    assert_eq!(unit.route_interrupt(&mut memory, Handle(256), &ROUTE), Err(Error::BadHandle(256)));
    let descriptor = HostPhys::new(0x1000);
    let posted = PostedRoute { vector: Vector(0x55), descriptor, urgent: false, source: ROUTE.source };
    let result = unit.post_interrupt(&mut memory, handle, &posted);
    assert!(matches!(result, Err(Error::Unsupported { .. })), "no CAP.PI");
    let fake = Fake::with(CAP | 1 << 59, ECAP);
    let (mut unit, mut memory) = fake.up();
    let handle = unit.allocate_interrupts(&mut memory, 1).unwrap().get(0).unwrap();
    let crooked = PostedRoute { descriptor: HostPhys::new(0x1020), ..posted };
    assert!(matches!(unit.post_interrupt(&mut memory, handle, &crooked), Err(Error::BadDescriptor(_))));
    assert_eq!(align_of::<PostedInterruptDescriptor>(), 64);
}
