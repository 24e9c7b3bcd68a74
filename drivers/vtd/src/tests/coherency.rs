//! A unit that does not look into the processors' caches (ECAP.C = 0). The fake reads what was written back and checks,
//! whenever it is told to look, that this is everything; here is that nothing is left when a call returns either.

use super::fake::{CAP, CONFIGURATION, ECAP, Fake, TestUnit};
use crate::{
    Batch, Configuration, DescriptorWidth, DeviceTlb, IotlbInvalidation, Levels, PageRequest, PageResponse,
    PostedRoute, QueueLayout, Route, Translation, Trigger,
};
use addr::{ApicId, Bdf, DomainId, HostPhys, Iova, Vector};
use paging::Invalidation;

/// ECAP with DT, DIT and PRS, and without C.
const INCOHERENT: u64 = ECAP & !1 | 1 << 2 | 1 << 29 | 1 << 41;
const SOURCE: Bdf = Bdf::from_u16(0x0108);
const TABLE: HostPhys = HostPhys::new(0x5000);
const OTHER: HostPhys = HostPhys::new(0x9000);
const ROUTE: Route = Route { vector: Vector(0x41), destination: ApicId(2), trigger: Trigger::Edge, source: SOURCE };

/// Takes a step of which nothing is left in the cache.
fn step<T>(fake: &Fake, what: &str, step: impl FnOnce() -> Result<T, crate::Error>) -> T {
    let done = step().unwrap_or_else(|error| panic!("{what}: {error}"));
    fake.inner(|inner| inner.check_written_back());
    done
}

fn up(cap: u64, exchanges: bool) -> (Fake, TestUnit, Fake) {
    let fake = Fake::with(cap, INCOHERENT);
    fake.inner(|inner| inner.exchanges = exchanges);
    let (unit, memory) = fake.up();
    (fake, unit, memory)
}

#[test]
fn every_change_of_an_assignment_is_written_back() {
    for (cap, exchanges) in [(CAP, false), (CAP, true), (CAP | 1 << 7, false), (CAP | 1 << 7, true)] {
        let (fake, mut unit, mut memory) = up(cap, exchanges);
        let device = DeviceTlb { queue_depth: 4, physical_function: SOURCE };
        let levels = Levels::Four;
        step(&fake, "a first entry", || unit.assign(&mut memory, SOURCE, DomainId(3), TABLE, levels));
        step(&fake, "another table", || unit.replace(&mut memory, SOURCE, DomainId(3), OTHER, levels));
        step(&fake, "another domain", || unit.replace(&mut memory, SOURCE, DomainId(4), OTHER, levels));
        step(&fake, "both", || unit.assign(&mut memory, SOURCE, DomainId(5), TABLE, levels));
        step(&fake, "a device-TLB", || {
            unit.assign_with_device_tlb(&mut memory, SOURCE, DomainId(6), OTHER, levels, device)
        });
        let through = Translation::PassThrough;
        step(&fake, "pass-through", || unit.attach(&mut memory, SOURCE, None, DomainId(7), through));
        step(&fake, "nothing", || unit.clear(&mut memory, SOURCE));
        // A device that does not answer is isolated, and what was to be forgotten is submitted again.
        step(&fake, "a device-TLB", || {
            unit.assign_with_device_tlb(&mut memory, SOURCE, DomainId(6), OTHER, levels, device)
        });
        fake.inner(|inner| inner.silent.push(SOURCE.as_u16()));
        let lost = unit.invalidate_iotlb(&mut memory, [IotlbInvalidation::Global]);
        assert_eq!(lost, Err(crate::Error::DeviceIsolated(SOURCE)));
        fake.inner(|inner| inner.check_written_back());
    }
}

#[test]
fn every_change_of_an_interrupt_entry_is_written_back() {
    for exchanges in [false, true] {
        let (fake, mut unit, mut memory) = up(CAP | 1 << 59, exchanges);
        let block = unit.allocate_interrupts(&mut memory, 2).unwrap();
        let handle = block.get(1).unwrap();
        let route = |unit: &mut TestUnit, memory: &mut Fake, route| unit.route_interrupt(memory, handle, &route);
        step(&fake, "a first route", || route(&mut unit, &mut memory, ROUTE));
        step(&fake, "another processor", || route(&mut unit, &mut memory, Route { destination: ApicId(3), ..ROUTE }));
        let source = Bdf::from_u16(0x110);
        step(&fake, "another source", || route(&mut unit, &mut memory, Route { source, ..ROUTE }));
        let descriptor = HostPhys::new(0x12_0000_0040);
        let posted = PostedRoute { vector: Vector(0x55), descriptor, urgent: false, source };
        step(&fake, "posted", || unit.post_interrupt(&mut memory, handle, &posted));
        step(&fake, "disabled", || unit.disable_interrupt(&mut memory, handle));
        step(&fake, "routed again", || route(&mut unit, &mut memory, ROUTE));
        step(&fake, "given back", || unit.free_interrupts(&mut memory, block));
    }
}

#[test]
fn every_descriptor_is_written_back_where_it_is_wide_and_where_it_is_submitted_again() {
    for width in [DescriptorWidth::Narrow, DescriptorWidth::Wide] {
        let fake = Fake::with(CAP, INCOHERENT | 1 << 43);
        let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
        unit.stop_firmware().unwrap();
        unit.mask_and_clear_faults().unwrap();
        unit.enable_queue_with(&mut memory, QueueLayout { size: 0, width }).unwrap();
        unit.set_root_table(&mut memory).unwrap();
        let domain = IotlbInvalidation::Domain(DomainId(5));
        for count in 1..40 {
            step(&fake, "a batch", || unit.invalidate_iotlb(&mut memory, [domain; 40].into_iter().take(count)));
        }
        // Refused: one that says more takes its place. Timed out for no reason: everything once more.
        fake.inner(|inner| inner.refused = Some((0x3f, 0x32)));
        let start = Iova::new(0x1000);
        let range = IotlbInvalidation::Range { domain: DomainId(5), start, bytes: 0x1000, leaves_only: true };
        step(&fake, "refused", || unit.invalidate_iotlb(&mut memory, [domain, range, domain]));
        fake.inner(|inner| (inner.refused, inner.device_error) = (None, 1 << 6));
        step(&fake, "timed out", || unit.invalidate_iotlb(&mut memory, [domain, domain]));
        fake.take_log();
        let change = Invalidation { root: TABLE, start, len: 0x1000, tables_changed: true, only_added: false };
        let mut batch = Batch::new();
        batch.add(DomainId(5), &change);
        let submitted = step(&fake, "submitted", || unit.submit_batch(&mut memory, batch));
        let _proof = step(&fake, "complete", || unit.complete_batch(&mut memory, submitted));
        assert_eq!(Fake::executed(&fake.take_log()), [0x5_00f2]);
    }
}

#[test]
fn an_answer_to_a_page_request_is_written_back() {
    let fake = Fake::with(CAP, INCOHERENT);
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    unit.bring_up(&mut memory, &Configuration { interrupt_entries: None, ..CONFIGURATION }).unwrap();
    step(&fake, "the ring", || unit.enable_page_requests(&mut memory, 1));
    let request = PageRequest::decode(0x0108_0001, 5 << 12 | 9 << 3 | 5).unwrap();
    step(&fake, "an answer", || unit.respond_to_page_request(&mut memory, &request, PageResponse::Success));
    assert!(Fake::executed(&fake.take_log()).contains(&0x0108_0009));
}
