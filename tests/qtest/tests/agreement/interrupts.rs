//! Interrupt remapping: edu's MSI arrives where its entry says, from whom it says, and nowhere else.
//!
//! QEMU lets messages in the compatibility format pass whatever the unit is told, and does not check the source of messages
//! that a device writes by DMA or that the I/O APIC sends; none of that is judged here. It keeps no interrupt-entry cache:
//! a missing invalidation cannot show.

use crate::case::Case;
use addr::{ApicId, Bdf, Iova, PAGE_SIZE, Vector};
use paging::Permissions;
use qtest::bench::CONFIGURATION;
use qtest::glue::UNIT;
use qtest::memory::NOTHING;
use qtest::tables::interrupt_entry;
use qtest::{Bench, Version, trace};
use vtd::{Configuration, DestinationMode, FaultKind, FaultReason, Handle, Polarity, Route, Trigger, io_apic_entry};

/// Before it, QEMU drops the message and records nothing.
const RECORDS: Version = Version(10, 0, 0);
const NO_RECORDS: &str = "does not record faults of interrupts";

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |name: &str, body: fn(&mut Bench)| {
        cases.push(Case::new(format!("interrupts: {name}"), "", move |machine| body(&mut Bench::up(machine))));
    };
    case("every vector arrives", every_vector);
    case("every kind of destination", destinations);
    case("a live entry is retargeted", retargeted);
    case("a live entry is retargeted where 128 bits cannot be exchanged", |bench| {
        bench.memory.can_exchange = false;
        retargeted(bench);
    });
    case("what may not arrive does not", nothing_arrives);
    case("a block of 32 messages", block);
    case("handles of 16 bits", high_handle);
    case("the I/O APIC's pins", io_apic);
    let mut recorded = |name: &str, body: fn(&mut Bench)| {
        let case = Case::new(format!("interrupts: {name}"), "", move |machine| body(&mut Bench::up(machine)));
        cases.push(case.needs_version(RECORDS, NO_RECORDS));
    };
    recorded("0x20: reserved bits in the request", reserved_request);
    recorded("0x21: an index beyond the table", |bench| {
        refused(bench, bench.edus[0].bdf(), 0x8000, 0x21);
        refused(bench, bench.edus[0].bdf(), 256, 0x21);
    });
    recorded("0x22: an entry that is not present", |bench| {
        let handle = bench.interrupts(1).get(0).expect("one");
        refused(bench, bench.edus[0].bdf(), handle.index(), 0x22);
        refused(bench, bench.edus[0].bdf(), 0, 0x22);
        refused(bench, bench.edus[0].bdf(), 255, 0x22);
    });
    recorded("0x23: the table is no memory", |bench| {
        let handle = routed(bench, 0, 0x41);
        bench.machine.write64(UNIT + 0xb8, NOTHING.as_u64() | 7);
        let status = bench.machine.read32(UNIT + 0x1c);
        // Set the interrupt table pointer: what is on stays on, and bit 24.
        bench.machine.write32(UNIT + 0x18, status & 0x96ff_ffff | 1 << 24);
        refused(bench, bench.edus[0].bdf(), handle.index(), 0x23);
    });
    recorded("0x24: reserved bits in the entry", |bench| {
        let handle = routed(bench, 0, 0x41);
        let place = interrupt_entry(bench, handle.index());
        let right = bench.memory.load(place);
        bench.memory.store(place, right | 1 << 24);
        refused(bench, bench.edus[0].bdf(), handle.index(), 0x24);
        bench.memory.store(place, right);
        arrives(bench, 0, 0x41);
    });
    recorded("0x26: another source's entry", |bench| {
        let handle = routed(bench, 0, 0x41);
        refused(bench, bench.edus[1].bdf(), handle.index(), 0x26);
    });
    recorded("an entry that disables fault processing is silent", |bench| {
        let handle = routed(bench, 0, 0x41);
        let place = interrupt_entry(bench, handle.index());
        // FPD, bit 1; and not present.
        let right = bench.memory.load(place);
        bench.memory.store(place, right & !1 | 2);
        bench.edus[0].interrupt();
        let outcome = bench.outcome();
        assert_eq!((outcome.faults, outcome.events.interrupts()), (vec![], vec![]));
    });
    let x2apic = Case::new("interrupts: destinations of 32 bits", "eim=on", |machine| x2apic(&mut Bench::new(machine)));
    cases.push(x2apic.needs_version(RECORDS, "has eim=on with KVM only"));
    cases
}

fn route(vector: u8, source: Bdf) -> Route {
    Route { vector: Vector(vector), destination: ApicId(0), trigger: Trigger::Edge, source }
}

/// An entry that an edu may use, and the edu told to.
fn routed(bench: &mut Bench, edu: usize, vector: u8) -> Handle {
    let handle = bench.interrupts(1).get(0).expect("one");
    let route = route(vector, bench.edus[edu].bdf());
    bench.unit.route_interrupt(&mut bench.memory, handle, &route).expect("the entry is routed");
    let message = handle.message();
    bench.edus[edu].program_msi(message.address, message.data as u16);
    bench.machine.events();
    handle
}

/// The edu's message reaches processor 0 on that vector.
fn arrives(bench: &mut Bench, edu: usize, vector: u8) {
    bench.edus[edu].interrupt();
    assert_eq!(bench.expect_no_fault().events.interrupts(), [(0, vector)]);
}

/// The edu's message does not arrive.
fn silent(bench: &mut Bench, edu: usize) {
    bench.edus[edu].interrupt();
    let outcome = bench.outcome();
    assert_eq!(outcome.events.interrupts(), []);
    assert_eq!(outcome.events.count("vtd_ir_remap"), 0);
}

/// A message for `index` from `source` is refused, and the driver reports it.
fn refused(bench: &mut Bench, source: Bdf, index: u16, reason: u8) {
    let edu = bench.edus.iter().position(|edu| edu.bdf() == source).expect("an edu");
    // Bits 14:0 of the index in 19:5, bit 15 in 2; the remappable format.
    let address = 0xfee0_0010 | u64::from(index & 0x7fff) << 5 | u64::from(index >> 15) << 2;
    bench.edus[edu].program_msi(address, 0);
    bench.edus[edu].interrupt();
    let outcome = bench.outcome();
    assert_eq!(outcome.events.interrupts(), []);
    let found: Vec<_> = outcome.faults.iter().map(|fault| (fault.source, fault.kind, fault.reason)).collect();
    assert_eq!(found, [(source, FaultKind::Interrupt { index }, FaultReason(reason))]);
}

fn every_vector(bench: &mut Bench) {
    let handle = routed(bench, 0, 16);
    for vector in 16..=255 {
        let route = route(vector, bench.edus[0].bdf());
        bench.unit.route_interrupt(&mut bench.memory, handle, &route).expect("the entry is routed");
        arrives(bench, 0, vector);
    }
}

fn destinations(bench: &mut Bench) {
    let handle = routed(bench, 0, 0x55);
    for destination in [0, 1, 2, 7, 0x80, 0xfe] {
        let route = Route { destination: ApicId(destination), ..route(0x55, bench.edus[0].bdf()) };
        bench.unit.route_interrupt(&mut bench.memory, handle, &route).expect("the entry is routed");
        bench.edus[0].interrupt();
        assert_eq!(bench.expect_no_fault().events.interrupts(), [(destination, 0x55)]);
    }
}

fn x2apic(bench: &mut Bench) {
    bench.bring_up(&Configuration { destination_mode: DestinationMode::X2Apic, ..CONFIGURATION });
    let handle = routed(bench, 0, 0x55);
    arrives(bench, 0, 0x55);
    // QEMU's processors have ids of 8 bits here; what the unit made of the entry is all that can be seen.
    for destination in [1, 0xff, 0x100, 0x1234_5678] {
        let route = Route { destination: ApicId(destination), ..route(0x55, bench.edus[0].bdf()) };
        bench.unit.route_interrupt(&mut bench.memory, handle, &route).expect("the entry is routed");
        bench.edus[0].interrupt();
        let events = bench.expect_no_fault().events;
        let made: Vec<_> = events.of("vtd_ir_remap").filter_map(|text| trace::number(text, "dest")).collect();
        assert_eq!(made, [u64::from(destination)]);
    }
}

fn retargeted(bench: &mut Bench) {
    let handle = routed(bench, 0, 0x41);
    arrives(bench, 0, 0x41);
    let edus = bench.edus.clone();
    // Another vector; another source, and back. The devices are not touched but for the second's message.
    let message = handle.message();
    edus[1].program_msi(message.address, message.data as u16);
    for (vector, owner) in [(0x42, 0), (0x43, 1), (0x43, 0), (0x44, 1), (0x41, 0)] {
        let route = route(vector, edus[owner].bdf());
        bench.unit.route_interrupt(&mut bench.memory, handle, &route).expect("the entry is routed");
        arrives(bench, owner, vector);
        silent(bench, 1 - owner);
    }
}

fn nothing_arrives(bench: &mut Bench) {
    let handle = routed(bench, 0, 0x41);
    arrives(bench, 0, 0x41);
    // Another device with the same message.
    let message = handle.message();
    bench.edus[1].program_msi(message.address, message.data as u16);
    silent(bench, 1);
    // An entry that is not routed any more, and routed again.
    bench.unit.disable_interrupt(&mut bench.memory, handle).expect("it is disabled");
    silent(bench, 0);
    let again = route(0x42, bench.edus[0].bdf());
    bench.unit.route_interrupt(&mut bench.memory, handle, &again).expect("the entry is routed");
    arrives(bench, 0, 0x42);
    // An entry that was given back.
    let block = bench.interrupts(4);
    for handle in block.handles() {
        let route = route(0x60, bench.edus[0].bdf());
        bench.unit.route_interrupt(&mut bench.memory, handle, &route).expect("the entry is routed");
    }
    let last = block.get(3).expect("four").message();
    bench.edus[0].program_msi(last.address, last.data as u16);
    arrives(bench, 0, 0x60);
    bench.unit.free_interrupts(&mut bench.memory, block).expect("they are free");
    silent(bench, 0);
    // A message of zeros in the remappable format.
    bench.edus[0].program_msi(0xfee0_0010, 0);
    silent(bench, 0);
}

fn block(bench: &mut Bench) {
    let block = bench.interrupts(32);
    let edu = bench.edus[0].clone();
    for (number, handle) in block.handles().enumerate() {
        let route = route(0x80 + number as u8, edu.bdf());
        bench.unit.route_interrupt(&mut bench.memory, handle, &route).expect("the entry is routed");
    }
    let message = block.message();
    bench.machine.events();
    // edu has one message; a device with more puts their number into the low bits of the data.
    for number in 0..32 {
        edu.program_msi(message.address, message.data as u16 | number);
        arrives(bench, 0, 0x80 + number as u8);
    }
    edu.program_msi(message.address, message.data as u16 | 32);
    silent(bench, 0);
}

fn high_handle(bench: &mut Bench) {
    let machine = bench.machine.clone();
    // A second bring-up, as of another kernel, with the largest table.
    let mut bench = Bench::new(&machine);
    bench.bring_up(&Configuration { interrupt_entries: Some(65536), ..CONFIGURATION });
    // All below 0x7fe0 are given away.
    while bench.interrupts(32).get(31).expect("32").index() != 0x7fdf {}
    let edu = bench.edus[0].clone();
    for (start, vector) in [(0x7fe0, 0x40), (0x8000, 0x60)] {
        let block = bench.interrupts(32);
        for (handle, number) in block.handles().zip(0..) {
            assert_eq!(handle.index(), start + u16::from(number));
            let route = route(vector + number, edu.bdf());
            bench.unit.route_interrupt(&mut bench.memory, handle, &route).expect("the entry is routed");
        }
        bench.machine.events();
        for number in [0, 1, 30, 31] {
            let handle = block.get(number.into()).expect("32");
            edu.program_msi(handle.message().address, handle.message().data as u16);
            edu.interrupt();
            let events = bench.expect_no_fault().events;
            assert_eq!(events.interrupts(), [(0, vector + number)]);
            let used: Vec<_> = events.of("vtd_ir_remap").filter_map(|text| trace::number(text, "index")).collect();
            assert_eq!(used, [u64::from(handle.index())]);
        }
    }
}

fn io_apic(bench: &mut Bench) {
    const IO_APIC: u64 = 0xfec0_0000;
    struct Access(qtest::Machine);
    impl apic::IoApicAccess for Access {
        fn select(&mut self, index: u8) {
            self.0.write32(IO_APIC, index.into());
        }
        fn read_window(&mut self) -> u32 {
            self.0.read32(IO_APIC + 0x10)
        }
        fn write_window(&mut self, value: u32) {
            self.0.write32(IO_APIC + 0x10, value);
        }
    }
    let mut io_apic = apic::IoApic::new(Access(bench.machine.clone())).expect("an I/O APIC answers");
    // The I/O APIC's source-id is not checked by QEMU: any will do.
    let source = Bdf::from_u16(0xff00);
    for (pin, vector) in [(4, 0x51), (20, 0x52), (23, 0x53)] {
        let handle = bench.interrupts(1).get(0).expect("one");
        let route = route(vector, source);
        bench.unit.route_interrupt(&mut bench.memory, handle, &route).expect("the entry is routed");
        let entry = io_apic_entry(handle, Vector(vector), Trigger::Edge, Polarity::ActiveHigh);
        io_apic.write_entry(pin, entry).expect("the pin exists");
        bench.machine.events();
        bench.machine.set_io_apic_pin(pin, true);
        let events = bench.machine.events();
        assert_eq!(events.interrupts(), [(0, vector)]);
        let used: Vec<_> = events.of("vtd_ir_remap").filter_map(|text| trace::number(text, "index")).collect();
        assert_eq!(used, [u64::from(handle.index())], "by its entry");
        bench.machine.set_io_apic_pin(pin, false);
        bench.unit.disable_interrupt(&mut bench.memory, handle).expect("it is disabled");
        bench.machine.set_io_apic_pin(pin, true);
        assert_eq!(bench.machine.events().interrupts(), [], "a pin whose entry is not present");
    }
}

fn reserved_request(bench: &mut Bench) {
    let edu = bench.edus[0].clone();
    let block = bench.interrupts(2);
    for handle in block.handles() {
        let route = route(0x41, edu.bdf());
        bench.unit.route_interrupt(&mut bench.memory, handle, &route).expect("the entry is routed");
    }
    let mut space = bench.preferred_space();
    let page = bench.memory.take_pages(PAGE_SIZE, PAGE_SIZE);
    bench.assign(edu.bdf(), &space);
    bench.map(&mut space, 0x1000, page, PAGE_SIZE, Permissions::READ_WRITE);
    // A message with a subhandle in 15:0 of its data and something above, which only a forged one has: MSI data have 16
    // bits. QEMU takes a write by DMA into the interrupt range for a message from nobody, 0xffff.
    bench.machine.write32(page.as_u64(), 1 << 16);
    edu.read(Iova::new(0x1000));
    bench.machine.events();
    edu.write_half_of_what_was_read(Iova::new(block.message().address));
    let outcome = bench.outcome();
    assert_eq!(outcome.events.interrupts(), []);
    let found: Vec<_> = outcome.faults.iter().map(|fault| fault.reason).collect();
    assert_eq!(found, [FaultReason(0x20)]);
}
