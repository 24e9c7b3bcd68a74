//! Interrupt entries at the edges: of what a unit can, of the table, and of what is given away.

use super::fake::{CAP, CONFIGURATION, ECAP, Event, Fake};
use super::std::vec::Vec;
use crate::{Configuration, Error, Handle, Polarity, PostedRoute, Route, Trigger, io_apic_entry};
use addr::{ApicId, Bdf, HostPhys, PAGE_SIZE, Vector};

const ROUTE: Route =
    Route { vector: Vector(0x41), destination: ApicId(2), trigger: Trigger::Edge, source: Bdf::from_u16(0x0018) };

#[test]
fn a_block_that_one_descriptor_cannot_name_is_forgotten_with_everything() {
    for (maximum, count, descriptor) in [
        (0, 1, 0x1_0000_0014),
        (0, 2, 0x04),
        (1, 2, 0x2_0800_0014),
        (1, 4, 0x04),
        (4, 32, 0x04),
        (5, 32, 0x20_2800_0014),
    ] {
        let fake = Fake::with(CAP, ECAP & !(0xf << 20) | maximum << 20);
        let (mut unit, mut memory) = fake.up();
        let block = unit.allocate_interrupts(&mut memory, count).unwrap();
        // One entry that was in use is enough.
        unit.route_interrupt(&mut memory, block.get(count - 1).unwrap(), &ROUTE).unwrap();
        fake.take_log();
        unit.free_interrupts(&mut memory, block).unwrap();
        assert_eq!(Fake::executed(&fake.take_log()), [descriptor], "MHMV {maximum}, {count} entries");
        let unused = unit.allocate_interrupts(&mut memory, count).unwrap();
        fake.take_log();
        unit.free_interrupts(&mut memory, unused).unwrap();
        assert_eq!(Fake::executed(&fake.take_log()), [], "what was never present is not cached");
    }
}

#[test]
fn an_entry_that_is_given_again_says_nothing_of_before() {
    let (mut unit, mut memory) = Fake::new().up();
    let block = unit.allocate_interrupts(&mut memory, 2).unwrap();
    for handle in block.handles() {
        unit.route_interrupt(&mut memory, handle, &ROUTE).unwrap();
    }
    unit.free_interrupts(&mut memory, block).unwrap();
    assert_eq!(unit.allocate_interrupts(&mut memory, 2), Ok(block));
    for handle in block.handles() {
        assert_eq!(unit.read_interrupt_entry(&memory, handle), Ok((0, 0)));
    }
}

#[test]
fn a_posted_route_needs_a_vector_and_an_address_that_can_be_written_down() {
    let (mut unit, mut memory) = Fake::with(CAP | 1 << 59, ECAP).up();
    let handle = unit.allocate_interrupts(&mut memory, 1).unwrap().get(0).unwrap();
    let descriptor = HostPhys::new((1 << 52) - 64);
    let posted = PostedRoute { vector: Vector(16), descriptor, urgent: true, source: ROUTE.source };
    let low = PostedRoute { vector: Vector(15), ..posted };
    assert_eq!(unit.post_interrupt(&mut memory, handle, &low), Err(Error::BadVector(Vector(15))));
    let far = HostPhys::new(1 << 52);
    let result = unit.post_interrupt(&mut memory, handle, &PostedRoute { descriptor: far, ..posted });
    assert_eq!(result, Err(Error::BadDescriptor(far)));
    assert_eq!(unit.read_interrupt_entry(&memory, handle), Ok((0, 0)), "nothing has changed");
    unit.post_interrupt(&mut memory, handle, &posted).unwrap();
    let entry = (0xffff_ffc0_0010_c001, 0x000f_ffff_0004_0018);
    assert_eq!(unit.read_interrupt_entry(&memory, handle), Ok(entry));
    unit.route_interrupt(&mut memory, handle, &Route { vector: Vector(16), ..ROUTE }).unwrap();
}

#[test]
fn a_table_takes_the_memory_of_its_entries_and_of_a_bit_for_each() {
    for (entries, pages) in [(256, 1 + 1), (32768, 128 + 1), (65536, 256 + 2)] {
        let fake = Fake::new();
        let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
        unit.bring_up(&mut memory, &Configuration { interrupt_entries: None, ..CONFIGURATION }).unwrap();
        let before = fake.inner(|inner| inner.next_frame);
        unit.set_interrupt_table(&mut memory, entries, CONFIGURATION.destination_mode).unwrap();
        assert_eq!(fake.inner(|inner| inner.next_frame) - before, pages * PAGE_SIZE, "{entries} entries");
    }
}

#[test]
fn nothing_beyond_the_table_is_an_entry_whatever_is_in_memory_there() {
    let fake = Fake::new();
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    unit.bring_up(&mut memory, &Configuration { interrupt_entries: Some(32768), ..CONFIGURATION }).unwrap();
    // Right behind the map, which fills its page.
    fake.inner(|inner| {
        let behind = inner.next_frame;
        inner.memory.extend((behind..behind + PAGE_SIZE).step_by(8).map(|word| (word, u64::MAX)));
    });
    for index in [32768, 32831, 65535] {
        assert_eq!(unit.read_interrupt_entry(&memory, Handle(index)), Err(Error::BadHandle(index)));
        assert_eq!(unit.route_interrupt(&mut memory, Handle(index), &ROUTE), Err(Error::BadHandle(index)));
    }
}

#[test]
fn write_buffers_are_flushed_after_a_new_route_and_not_for_one_that_is_announced() {
    let fake = Fake::with(CAP | 1 << 4 | 1 << 59, ECAP);
    let (mut unit, mut memory) = fake.up();
    let block = unit.allocate_interrupts(&mut memory, 2).unwrap();
    let (first, second) = (block.get(0).unwrap(), block.get(1).unwrap());
    let posted =
        PostedRoute { vector: Vector(0x55), descriptor: HostPhys::new(0x1000), urgent: false, source: ROUTE.source };
    for post in [false, true] {
        fake.take_log();
        match post {
            true => unit.post_interrupt(&mut memory, first, &posted),
            false => unit.route_interrupt(&mut memory, second, &ROUTE),
        }
        .unwrap();
        let log = fake.take_log();
        assert!(
            matches!(log[..], [.., Event::Store(..), Event::Write32(0x18, value)] if value & 1 << 27 != 0),
            "{log:x?}"
        );
    }
    // An invalidation flushes by itself (section 6.8).
    unit.route_interrupt(&mut memory, second, &Route { destination: ApicId(3), ..ROUTE }).unwrap();
    let log = fake.take_log();
    assert_eq!(Fake::executed(&log).len(), 1);
    assert!(!log.iter().any(|event| matches!(event, Event::Write32(0x18, _))));
}

#[test]
fn an_io_apic_pin_refers_to_its_entry() {
    let entry = io_apic_entry(Handle(0x8003), Vector(0x31), Trigger::Level, Polarity::ActiveLow);
    assert_eq!(entry, 0x0007_0000_0000_a831, "handle in 63:49 and 11, format in 48, level, low, vector");
    let entry = io_apic_entry(Handle(1), Vector(0x41), Trigger::Edge, Polarity::ActiveHigh);
    assert_eq!(entry, 0x0003_0000_0000_0041);
}

#[test]
fn a_block_says_how_many_entries_it_has() {
    let (mut unit, mut memory) = Fake::new().up();
    for count in [1, 2, 4, 8, 16, 32] {
        let block = unit.allocate_interrupts(&mut memory, count).unwrap();
        assert_eq!((block.count(), block.handles().count()), (count, count));
        assert_eq!((block.get(count - 1).is_some(), block.get(count)), (true, None));
    }
}

#[test]
fn a_free_block_is_found_behind_words_that_are_full_and_words_that_are_in_pieces() {
    let fake = Fake::new();
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    unit.bring_up(&mut memory, &Configuration { interrupt_entries: Some(8192), ..CONFIGURATION }).unwrap();
    let first = |block: crate::HandleBlock| block.get(0).unwrap().index();
    // All blocks of 32: entry 0 is nobody's, and so its block is not given.
    let blocks: Vec<_> = (0..255).map(|_| unit.allocate_interrupts(&mut memory, 32).unwrap()).collect();
    assert!(unit.allocate_interrupts(&mut memory, 32).is_err());
    for number in [1, 2, 64, 65, 100, 127] {
        let freed = *blocks.iter().find(|block| first(**block) == number * 64).unwrap();
        unit.free_interrupts(&mut memory, freed).unwrap();
        if number == 1 {
            // The first word in pieces: something of each half of it is given away.
            unit.free_interrupts(&mut memory, blocks[0]).unwrap();
            let single: Vec<_> = (0..32).map(|_| unit.allocate_interrupts(&mut memory, 1).unwrap()).collect();
            assert_eq!(first(single[31]), 32);
            single[..31].iter().for_each(|block| unit.free_interrupts(&mut memory, *block).unwrap());
        }
        assert_eq!(unit.allocate_interrupts(&mut memory, 32), Ok(freed));
        assert!(unit.allocate_interrupts(&mut memory, 32).is_err());
    }
}
