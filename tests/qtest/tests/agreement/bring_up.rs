//! From what QEMU or a previous kernel leaves to a unit that works.

use crate::case::Case;
use addr::{ApicId, PAGE_SIZE, Vector};
use paging::Permissions;
use qtest::bench::CONFIGURATION;
use qtest::glue::{Hidden, WallClock, Window};
use qtest::{Bench, Machine};
use vtd::{Configuration, DestinationMode, Error, Global, Handover, Levels, Route, Trigger, Unit};

const IOVA: u64 = 0x3000;

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("bring-up: no unit", "", no_unit).without_unit(),
        Case::new("bring-up: a unit without interrupt remapping", "intremap=off", no_interrupt_remapping),
        Case::new("bring-up: a unit that a previous kernel has left on is taken over", "", taken_over),
        Case::new("bring-up: there is no moment without protection when a unit is taken over", "", no_window),
        Case::new("bring-up: every step is what QEMU sees, in order", "", steps),
    ];
    let mut capabilities = |iommu: &str, check: fn(&Bench)| {
        cases.push(Case::new(format!("capabilities: {iommu}"), iommu, move |machine| check(&Bench::new(machine))));
    };
    capabilities("aw-bits=39", |bench| {
        let found = bench.unit.capabilities();
        assert_eq!((found.second_stage_levels(), found.maximum_guest_address_width()), (Some(Levels::Three), 39));
        assert!(
            !found.caching_mode() && !found.snoop_control() && found.write_draining() && found.interrupt_remapping()
        );
        assert!(found.page_selective_invalidation() && found.pages_1g() && found.pages_2m() && !found.coherent());
        assert_eq!((found.domains(), found.fault_records(), found.maximum_address_mask()), (65536, 1, 18));
    });
    capabilities("aw-bits=48", |bench| {
        let found = bench.unit.capabilities();
        assert_eq!((found.second_stage_levels(), found.maximum_guest_address_width()), (Some(Levels::Four), 48));
        assert!(found.supports_levels(Levels::Three) && !found.supports_levels(Levels::Five));
    });
    capabilities("caching-mode=on", |bench| assert!(bench.unit.capabilities().caching_mode()));
    capabilities("snoop-control=on", |bench| assert!(bench.unit.capabilities().snoop_control()));
    capabilities("device-iotlb=on", |bench| assert!(bench.unit.capabilities().device_tlb()));
    capabilities("pt=off", |bench| assert!(!bench.unit.capabilities().pass_through()));
    capabilities("dma-drain=off", |bench| {
        assert!(!bench.unit.capabilities().write_draining() && !bench.unit.capabilities().read_draining());
    });
    cases
}

fn no_unit(machine: &Machine) {
    let outcome =
        Unit::probe(Window::new(machine, Hidden::default()), WallClock::default()).map(|unit| unit.capabilities());
    assert!(matches!(outcome, Err(Error::Absent { .. } | Error::Unsupported { .. })), "{outcome:?}");
}

fn no_interrupt_remapping(machine: &Machine) {
    let mut bench = Bench::new(machine);
    let outcome = bench.unit.bring_up(&mut bench.memory, &CONFIGURATION);
    assert!(matches!(outcome, Err(Error::Unsupported { .. })), "{outcome:?}");
    let mut bench = Bench::new(machine);
    bench.bring_up(&Configuration { interrupt_entries: None, ..CONFIGURATION });
    assert!(!bench.unit.interrupt_remapping_enabled());
    let mut space = bench.preferred_space();
    let page = bench.memory.take_pages(PAGE_SIZE, PAGE_SIZE);
    bench.assign(bench.edus[0].bdf(), &space);
    bench.map(&mut space, IOVA, page, PAGE_SIZE, Permissions::READ_WRITE);
    bench.machine.events();
    bench.expect_write(0, IOVA, page);
}

fn taken_over(machine: &Machine) {
    let mut first = Bench::up(machine);
    let edu = first.edus[0].clone();
    let mut space = first.preferred_space();
    let old = first.memory.take_pages(PAGE_SIZE, PAGE_SIZE);
    first.assign(edu.bdf(), &space);
    first.map(&mut space, IOVA, old, PAGE_SIZE, Permissions::READ_WRITE);
    first.expect_write(0, IOVA, old);
    let handle = first.interrupts(1).get(0).expect("one");
    let route = Route { vector: Vector(0x41), destination: ApicId(0), trigger: Trigger::Edge, source: edu.bdf() };
    first.unit.route_interrupt(&mut first.memory, handle, &route).expect("the entry is routed");
    edu.program_msi(handle.message().address, 0);
    edu.interrupt();
    assert_eq!(first.machine.events().interrupts(), [(0, 0x41)]);

    first.probe_again();
    let mut second = first;
    let on = Global::TRANSLATION | Global::INTERRUPT_REMAPPING | Global::QUEUED_INVALIDATION;
    assert!(second.unit.firmware_state().contains(on));
    second.bring_up(&CONFIGURATION);
    assert!(second.unit.read_status().contains(on));
    second.machine.events();
    // Nothing of the old is left: neither cached nor in tables.
    second.expect_no_write(0, IOVA, old, 0x01);
    edu.interrupt();
    assert_eq!(second.outcome().events.interrupts(), []);
    let mut space = second.preferred_space();
    let new = second.memory.take_pages(PAGE_SIZE, PAGE_SIZE);
    second.assign(edu.bdf(), &space);
    second.map(&mut space, IOVA, new, PAGE_SIZE, Permissions::READ_WRITE);
    second.expect_write(0, IOVA, new);
}

fn no_window(machine: &Machine) {
    let mut bench = Bench::up(machine);
    let edu = bench.edus[0].clone();
    let mut space = bench.preferred_space();
    let old = bench.memory.take_pages(PAGE_SIZE, PAGE_SIZE);
    bench.assign(edu.bdf(), &space);
    bench.map(&mut space, IOVA, old, PAGE_SIZE, Permissions::READ_WRITE);
    bench.expect_write(0, IOVA, old);
    bench.probe_again();
    assert_eq!(bench.unit.suggest_handover(false, DestinationMode::XApic), Handover::TakeOver);

    // Memory at the address that the device uses, which it reaches as soon as nothing translates.
    let itself = addr::HostPhys::new(IOVA);
    let before = bench.at(itself, 0);
    let step = |bench: &mut Bench, still: bool, step: fn(&mut Bench) -> Result<(), Error>| {
        step(bench).expect("the step is taken");
        let value = edu.write(addr::Iova::new(IOVA));
        assert_eq!(bench.at(itself, 0), before, "no moment without translation");
        assert_eq!(bench.at(old, 0) == value, still, "by the old table, or not at all");
    };
    step(&mut bench, true, |bench| bench.unit.take_over(Handover::TakeOver, Default::default()));
    step(&mut bench, true, |bench| bench.unit.mask_and_clear_faults());
    step(&mut bench, true, |bench| bench.unit.enable_queue(&mut bench.memory));
    step(&mut bench, true, |bench| bench.unit.create_root_table(&mut bench.memory));
    step(&mut bench, false, |bench| bench.unit.set_root_table(&mut bench.memory));
    step(&mut bench, false, |bench| bench.unit.set_interrupt_table(&mut bench.memory, 256, DestinationMode::XApic));
    step(&mut bench, false, |bench| bench.unit.enable_interrupt_remapping());
    step(&mut bench, false, |bench| bench.unit.enable_translation());
    // Stopping instead is such a moment, and this test can see it.
    bench.probe_again();
    bench.unit.stop_firmware().expect("it is stopped");
    let value = edu.write(addr::Iova::new(IOVA));
    assert_eq!(bench.at(itself, 0), value);
}

fn steps(machine: &Machine) {
    let mut bench = Bench::new(machine);
    assert!((bench.unit.read_status() & (Global::TRANSLATION | Global::INTERRUPT_REMAPPING)).is_empty());
    machine.events();
    bench.bring_up(&Configuration { destination_mode: DestinationMode::XApic, ..CONFIGURATION });
    let events = machine.events();
    let commands: Vec<_> =
        events.of("vtd_reg_write_gcmd").filter_map(|text| qtest::trace::number(text, "value")).collect();
    let bits = [
        Global::QUEUED_INVALIDATION,
        Global::ROOT_TABLE_POINTER,
        Global::INTERRUPT_TABLE_POINTER,
        Global::INTERRUPT_REMAPPING,
        Global::TRANSLATION,
    ];
    // Each command is what is on already, and one bit more; the one-shot bits are not repeated.
    let mut on = 0;
    let mut expected = Vec::new();
    for bit in bits {
        expected.push(u64::from(on | bit.bits()));
        if bit != Global::ROOT_TABLE_POINTER && bit != Global::INTERRUPT_TABLE_POINTER {
            on |= bit.bits();
        }
    }
    assert_eq!(commands, expected, "{commands:#x?}");
    // QEMU empties its caches itself when the root table is set; what counts is that the driver asks for it, the context
    // cache first.
    let kinds: Vec<_> = events.descriptors().into_iter().map(|(kind, ..)| kind).filter(|kind| kind != "wait").collect();
    assert_eq!(kinds, ["context-cache", "iotlb", "iec"]);
}
