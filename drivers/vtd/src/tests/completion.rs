//! Nothing is said to be done before hardware has said so. Hardware here executes everything and keeps its answer.

use super::fake::{CAP, CONFIGURATION, ECAP, Fake, TestUnit};
use crate::{
    Batch, Configuration, DestinationMode, DeviceTlb, Error, Handle, IotlbInvalidation, Levels, PageRequest,
    PageResponse, Pasid, PostedRoute, Route, Translation, Trigger,
};
use addr::{ApicId, Bdf, DomainId, HostPhys, Iova, Vector};
use paging::Invalidation;

/// Caching mode and posting; DT, PT, SC, NEST, PRS, PASID, DIT, SMTS, SSTS, FSTS.
const FULL_CAP: u64 = CAP | 1 << 7 | 1 << 59;
const FULL_ECAP: u64 = ECAP | 1 << 2 | 1 << 26 | 1 << 29 | 19 << 35 | 1 << 40 | 1 << 41 | 1 << 43 | 1 << 46 | 1 << 47;
const SOURCE: Bdf = Bdf::from_u16(0x1234);
const OTHER: Bdf = Bdf::from_u16(0x1238);
const TABLE: HostPhys = HostPhys::new(0x70_0000);
const SECOND: Translation = Translation::SecondStage { table: HostPhys::new(0x90_0000), levels: Levels::Four };
const FIRST: Translation = Translation::FirstStage { table: HostPhys::new(0x90_0000), levels: Levels::Four };
const DEVICE: DeviceTlb = DeviceTlb { queue_depth: 4, physical_function: SOURCE };
const ROUTE: Route =
    Route { vector: Vector(0x41), destination: ApicId(2), trigger: Trigger::Edge, source: Bdf::from_u16(0x0018) };

type Call = fn(&mut TestUnit, &mut Fake) -> Result<(), Error>;

fn change(only_added: bool) -> Invalidation<Iova> {
    Invalidation { root: TABLE, start: Iova::new(0x1000), len: 0x1000, tables_changed: true, only_added }
}

fn batch() -> Batch {
    let mut batch = Batch::new();
    batch.add(DomainId(7), &change(false));
    batch
}

fn handle(number: u16) -> Handle {
    Handle(number)
}

/// A unit with a device that something is attached to, and with interrupt entries 1 to 3, of which 1 is routed.
fn up(cap: u64, scalable: bool) -> (Fake, TestUnit, Fake) {
    let fake = Fake::with(cap, FULL_ECAP);
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    if scalable {
        unit.use_scalable_mode(Pasid::ZERO).unwrap();
    }
    unit.bring_up(&mut memory, &CONFIGURATION).unwrap();
    unit.enable_page_requests(&mut memory, 0).unwrap();
    unit.assign_with_device_tlb(&mut memory, SOURCE, DomainId(7), TABLE, Levels::Four, DEVICE).unwrap();
    for _ in 0..3 {
        unit.allocate_interrupts(&mut memory, 1).unwrap();
    }
    unit.route_interrupt(&mut memory, handle(1), &ROUTE).unwrap();
    (fake, unit, memory)
}

fn waits_for_hardware(what: &str, cap: u64, scalable: bool, call: Call) {
    let (fake, mut unit, mut memory) = up(cap, scalable);
    fake.inner(|inner| inner.late = Some(Default::default()));
    let result = call(&mut unit, &mut memory);
    assert!(matches!(result, Err(Error::Invalidation(_))), "{what}: {result:?}");
    assert!(unit.is_poisoned(), "{what}");
    // With an answer, all is well.
    let (_, mut unit, mut memory) = up(cap, scalable);
    assert_eq!(call(&mut unit, &mut memory), Ok(()), "{what}");
}

#[test]
fn every_call_that_makes_hardware_forget_waits_until_it_has() {
    let calls: [(&str, Call); 16] = [
        ("invalidate", |unit, memory| unit.invalidate(memory, DomainId(7), &change(false)).map(drop)),
        ("invalidate_iotlb", |unit, memory| unit.invalidate_iotlb(memory, [IotlbInvalidation::Global])),
        ("a batch", |unit, memory| {
            let submitted = unit.submit_batch(memory, batch())?;
            unit.complete_batch(memory, submitted).map(drop)
        }),
        ("assign", |unit, memory| unit.assign(memory, SOURCE, DomainId(8), TABLE, Levels::Four)),
        ("replace", |unit, memory| unit.replace(memory, SOURCE, DomainId(7), HostPhys::new(0x9000), Levels::Four)),
        ("assign_with_device_tlb", |unit, memory| {
            unit.assign_with_device_tlb(memory, SOURCE, DomainId(8), TABLE, Levels::Four, DEVICE)
        }),
        ("attach", |unit, memory| unit.attach(memory, SOURCE, None, DomainId(8), SECOND)),
        ("pass-through", |unit, memory| unit.attach(memory, SOURCE, None, DomainId(8), Translation::PassThrough)),
        ("reattach", |unit, memory| unit.reattach(memory, SOURCE, None, DomainId(7), SECOND)),
        ("detach", |unit, memory| unit.detach(memory, SOURCE, None)),
        ("clear", |unit, memory| unit.clear(memory, SOURCE)),
        ("route_interrupt", |unit, memory| {
            unit.route_interrupt(memory, handle(1), &Route { destination: ApicId(3), ..ROUTE })
        }),
        ("route_interrupt of another source", |unit, memory| {
            unit.route_interrupt(memory, handle(1), &Route { source: SOURCE, ..ROUTE })
        }),
        ("post_interrupt", |unit, memory| {
            let (vector, descriptor) = (Vector(0x55), HostPhys::new(0x1000));
            unit.post_interrupt(memory, handle(1), &PostedRoute { vector, descriptor, urgent: false, source: SOURCE })
        }),
        ("disable_interrupt", |unit, memory| unit.disable_interrupt(memory, handle(1))),
        ("respond_to_page_request", |unit, memory| {
            let request = PageRequest::decode(0x1234_0001, 0x5004).unwrap();
            unit.respond_to_page_request(memory, &request, PageResponse::Success)
        }),
    ];
    for (what, call) in calls {
        for scalable in [false, true] {
            waits_for_hardware(what, FULL_CAP & !(1 << 7), scalable, call);
            waits_for_hardware(what, FULL_CAP, scalable, call);
        }
    }
}

#[test]
fn in_caching_mode_what_is_added_waits_too() {
    let calls: [(&str, Call); 5] = [
        ("invalidate", |unit, memory| unit.invalidate(memory, DomainId(7), &change(true)).map(drop)),
        ("assign", |unit, memory| unit.assign(memory, OTHER, DomainId(8), TABLE, Levels::Four)),
        ("attach", |unit, memory| unit.attach(memory, OTHER, None, DomainId(8), SECOND)),
        ("route_interrupt", |unit, memory| unit.route_interrupt(memory, handle(2), &ROUTE)),
        ("post_interrupt", |unit, memory| {
            let (vector, descriptor) = (Vector(0x55), HostPhys::new(0x1000));
            unit.post_interrupt(memory, handle(2), &PostedRoute { vector, descriptor, urgent: false, source: SOURCE })
        }),
    ];
    for (what, call) in calls {
        for scalable in [false, true] {
            waits_for_hardware(what, FULL_CAP, scalable, call);
        }
    }
}

#[test]
fn what_only_scalable_mode_has_waits_too() {
    let calls: [(&str, Call); 6] = [
        ("invalidate_first_stage", |unit, memory| {
            unit.invalidate_first_stage(memory, DomainId(7), Pasid::new(5), &change(false)).map(drop)
        }),
        ("use_device_tlb, no more", |unit, memory| unit.use_device_tlb(memory, SOURCE, None)),
        ("use_device_tlb of another", |unit, memory| {
            unit.assign(memory, OTHER, DomainId(7), TABLE, Levels::Four)?;
            unit.use_device_tlb(memory, OTHER, Some(DEVICE))
        }),
        ("attach a first stage", |unit, memory| unit.attach(memory, SOURCE, None, DomainId(7), FIRST)),
        ("a larger directory", |unit, memory| unit.attach(memory, SOURCE, Pasid::new(0x8000), DomainId(8), FIRST)),
        ("a PASID, and without it", |unit, memory| {
            unit.attach(memory, SOURCE, Pasid::new(5), DomainId(8), FIRST)?;
            unit.detach(memory, SOURCE, Pasid::new(5))
        }),
    ];
    for (what, call) in calls {
        waits_for_hardware(what, FULL_CAP & !(1 << 7), true, call);
        waits_for_hardware(what, FULL_CAP, true, call);
    }
}

#[test]
fn tables_are_in_force_only_after_what_was_cached_under_others_is_forgotten() {
    let fake = Fake::with(CAP, FULL_ECAP);
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    unit.stop_firmware().unwrap();
    unit.mask_and_clear_faults().unwrap();
    unit.enable_queue(&mut memory).unwrap();
    let keep = |keeps: bool| fake.inner(|inner| inner.late = keeps.then(Default::default));
    keep(true);
    assert!(matches!(unit.set_root_table(&mut memory), Err(Error::Invalidation(_))));
    assert!(matches!(unit.enable_translation(), Err(Error::OutOfOrder { .. })));
    keep(false);
    unit.recover(&mut memory).unwrap();
    unit.set_root_table(&mut memory).unwrap();
    keep(true);
    let refused = unit.set_interrupt_table(&mut memory, 256, DestinationMode::X2Apic);
    assert!(matches!(refused, Err(Error::Invalidation(_))));
    assert!(matches!(unit.enable_interrupt_remapping(), Err(Error::OutOfOrder { .. })));
    keep(false);
    unit.recover(&mut memory).unwrap();
    unit.set_interrupt_table(&mut memory, 256, DestinationMode::X2Apic).unwrap();
    unit.enable_interrupt_remapping().unwrap();
    unit.enable_translation().unwrap();
    // A unit that cannot recover stays poisoned.
    unit.poison();
    keep(true);
    assert!(unit.recover(&mut memory).is_err() && unit.is_poisoned());
    let configuration = Configuration { interrupt_entries: None, ..CONFIGURATION };
    let fake = Fake::new();
    fake.inner(|inner| inner.late = Some(Default::default()));
    let result = fake.probe().unwrap().bring_up(&mut fake.clone(), &configuration);
    assert!(matches!(result, Err(Error::Invalidation(_))), "{result:?}");
}
