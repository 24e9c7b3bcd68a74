//! Level-triggered interrupts, and what a processor does in the page by itself.

use std::boxed::Box;

use addr::{ApicId, Vector};

use super::super::{Effect, LocalApic};
use super::{requests, vector, write, x2apic, xapic};
use crate::vcpu::{InterruptStatus, VirtualApicPage};

#[test]
fn the_eoi_of_a_level_triggered_interrupt_goes_back_to_its_source() {
    let mut apic = x2apic();
    apic.accept_level(Vector(0x51));
    assert_eq!((apic.level_triggered(), apic.acknowledge()), (requests(&[0x51]), vector(0x51)));
    assert_eq!(apic.read_msr(0x81a, 0), Ok(1 << 17));
    assert_eq!(apic.write_msr(0x80b, 0, 0), Ok(Some(Effect::EndOfInterrupt(Vector(0x51)))));
    assert_eq!(apic.write_msr(0x80b, 0, 0), Ok(None), "nothing is in service");
    let mut apic = xapic();
    apic.accept_level(Vector(0x51));
    apic.acknowledge();
    assert_eq!(apic.write_page(0xb0, 0, 0), Some(Effect::EndOfInterrupt(Vector(0x51))));
}

#[test]
fn the_last_way_in_which_a_vector_came_decides_about_its_eoi() {
    let mut apic = x2apic();
    apic.accept_level(Vector(0x51));
    apic.acknowledge();
    write(&mut apic, 0x80f, 0x1ff);
    assert_eq!(apic.write_msr(0x80b, 0, 0), Ok(Some(Effect::EndOfInterrupt(Vector(0x51)))));
    apic.accept(requests(&[0x51]));
    apic.acknowledge();
    assert_eq!((apic.level_triggered(), apic.write_msr(0x80b, 0, 0)), ([0; 4], Ok(None)));
}

#[test]
fn a_level_triggered_interrupt_that_is_not_accepted_leaves_no_trace() {
    let mut apic = LocalApic::new(ApicId(0), true, 40);
    apic.accept_level(Vector(0x51));
    assert_eq!((apic.level_triggered(), apic.pending()), ([0; 4], None));
}

/// An enabled local APIC in x2APIC mode over a page that the test, as the processor, also writes.
fn over_page() -> (LocalApic, &'static VirtualApicPage) {
    let page: &'static VirtualApicPage = Box::leak(Box::default());
    let mut apic = LocalApic::over_page(page, ApicId(3), true, 40);
    assert_eq!(apic.write_msr(0x1b, 0xfee0_0c00, 0), Ok(None));
    assert_eq!(apic.write_msr(0x80f, 0x1ff, 0), Ok(None));
    (apic, page)
}

#[test]
fn what_the_processor_changes_in_the_page_is_what_is_true() {
    let (mut apic, page) = over_page();
    apic.accept(requests(&[0x51]));
    // The processor delivers it, and the guest raises its task priority.
    page.write(0x220, 0);
    page.write(0x120, 1 << 17);
    page.write(0x80, 0x70);
    assert_eq!((apic.pending(), apic.tpr(), apic.ppr()), (None, 0x70, 0x70));
    assert_eq!(apic.interrupt_status(), InterruptStatus { requesting: None, servicing: vector(0x51) });
    page.write(0x80, 0);
    page.write(0x230, 1);
    assert_eq!(apic.pending(), vector(0x60));
    assert_eq!(apic.end_of_interrupt(), vector(0x51));
    assert_eq!(page.read(0x120), 0);
}

#[test]
fn a_guest_that_reads_the_page_reads_what_software_would_answer() {
    let (mut apic, page) = over_page();
    for (msr, value) in [(0x832, 0x2_0030), (0x837, 0x31), (0x838, 77), (0x83e, 0xb), (0x808, 0x20)] {
        assert_eq!(apic.write_msr(msr, value, 0), Ok(None));
    }
    apic.accept(requests(&[3, 0x99]));
    assert_eq!(apic.write_msr(0x828, 0, 0), Ok(None));
    let numbers = [0x02, 0x03, 0x08, 0x0d, 0x0f, 0x28, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x3e];
    for number in numbers.into_iter().chain(0x10..0x28) {
        // RDMSR takes 8 bytes.
        let offset = number as u16 * 16;
        let read = u64::from(page.read(offset + 4)) << 32 | u64::from(page.read(offset));
        assert_eq!(apic.read_msr(0x800 + number, 0), Ok(read), "{number:#x}");
    }
}

#[test]
fn a_self_ipi_that_the_processor_does_not_send_is_an_error() {
    let (mut apic, page) = over_page();
    page.write(0x3f0, 0x0f);
    assert_eq!(apic.written_by_processor(0x3f0, 0), None);
    assert_eq!((apic.write_msr(0x828, 0, 0), apic.read_msr(0x828, 0)), (Ok(None), Ok(1 << 5)));
}

#[test]
fn an_eoi_that_the_processor_has_made_is_passed_on_if_it_is_of_a_level() {
    let (mut apic, _) = over_page();
    apic.accept_level(Vector(0x51));
    assert_eq!(apic.ended_by_processor(Vector(0x51)), Some(Effect::EndOfInterrupt(Vector(0x51))));
    assert_eq!(apic.ended_by_processor(Vector(0x52)), None);
}

#[test]
fn changes_by_software_are_noticed_once() {
    let (mut apic, _) = over_page();
    assert!(apic.take_changed());
    assert!(!apic.take_changed());
    let changes: [fn(&mut LocalApic); 5] = [
        |apic| apic.accept([0, 0, 1, 0]),
        |apic| assert!(apic.acknowledge().is_some()),
        |apic| assert!(apic.end_of_interrupt().is_some()),
        |apic| apic.accept_level(Vector(0x51)),
        LocalApic::init,
    ];
    for change in changes {
        change(&mut apic);
        assert!(apic.take_changed());
        assert!(!apic.take_changed());
    }
    apic.accept([0; 4]);
    assert!(!apic.take_changed(), "nothing came");
}
