//! The interrupt command register.

use addr::{ApicId, Vector};

use super::super::{DeliveryMode, Destination, Effect};
use super::{errors, vector, x2apic, xapic};

fn effect(destination: Destination, delivery_mode: DeliveryMode) -> Option<Effect> {
    Some(Effect::InterProcessorInterrupt { destination, delivery_mode })
}

const FIXED: DeliveryMode = DeliveryMode::Fixed(Vector(0x40));
const LOWEST: DeliveryMode = DeliveryMode::LowestPriority(Vector(0x40));

/// The shorthands and destination modes, each with fixed delivery of vector 0x40.
#[test]
fn an_ipi_reaches_the_sender_and_the_caller_as_it_is_addressed() {
    let all = Destination::AllIncludingSelf;
    for (icr, own, effect) in [
        (3 << 32 | 0x40, true, None),
        (5 << 32 | 0x40, false, effect(Destination::Physical(ApicId(5)), FIXED)),
        (0x1_0003 << 32 | 0x40, false, effect(Destination::Physical(ApicId(0x1_0003)), FIXED)),
        (0xffff_ffff << 32 | 0x40, true, effect(all, FIXED)),
        (0x4_0040, true, None),
        (0x8_0040, true, effect(all, FIXED)),
        (0xc_0040, false, effect(Destination::AllExcludingSelf, FIXED)),
        (0x9 << 32 | 0x840, true, effect(Destination::Logical(0x9), FIXED)),
        (0x7 << 32 | 0x840, false, effect(Destination::Logical(0x7), FIXED)),
        (0x1_0008 << 32 | 0x840, false, effect(Destination::Logical(0x1_0008), FIXED)),
        (0x9 << 32 | 0x940, true, None),
        (0x7 << 32 | 0x940, false, effect(Destination::Logical(0x7), LOWEST)),
    ] {
        let mut apic = x2apic();
        assert_eq!(apic.write_msr(0x830, icr, 0), Ok(effect), "{icr:#x}");
        assert_eq!(apic.pending(), vector(0x40).filter(|_| own), "{icr:#x}");
        assert_eq!(apic.read_msr(0x830, 0), Ok(icr));
    }
}

#[test]
fn other_delivery_modes_are_the_callers() {
    let other = Destination::Physical(ApicId(5));
    for (low, mode) in [
        (0x200, DeliveryMode::Smi),
        (0x400, DeliveryMode::Nmi),
        (0x4500, DeliveryMode::Init),
        (0xc500, DeliveryMode::Init),
        (0x608, DeliveryMode::StartUp(8)),
    ] {
        assert_eq!(x2apic().write_msr(0x830, 5 << 32 | low, 0), Ok(effect(other, mode)), "{low:#x}");
    }
    let own = Destination::Physical(ApicId(3));
    assert_eq!(x2apic().write_msr(0x830, 3 << 32 | 0x400, 0), Ok(effect(own, DeliveryMode::Nmi)));
}

#[test]
fn commands_that_mean_nothing_do_nothing() {
    // INIT level de-assert, the reserved delivery modes, NMI and lowest priority to the self shorthand.
    for low in [0x8500, 0x340, 0x740, 0x4_0400, 0x4_0140] {
        let mut apic = x2apic();
        assert_eq!(apic.write_msr(0x830, low, 0), Ok(None), "{low:#x}");
        assert_eq!((apic.pending(), errors(&mut apic)), (None, 0), "{low:#x}");
    }
}

#[test]
fn an_ipi_with_a_vector_below_16_is_an_error_of_the_sender() {
    for icr in [0x4_000f, 5 << 32 | 0xf, 0xc_0000] {
        let mut apic = x2apic();
        assert_eq!(apic.write_msr(0x830, icr, 0), Ok(None));
        assert_eq!((apic.pending(), errors(&mut apic)), (None, 1 << 5));
    }
}

#[test]
fn the_xapic_sends_when_the_low_half_is_written() {
    let mut apic = xapic();
    assert_eq!(apic.write_page(0x310, 0x0500_0000, 0), None);
    assert_eq!(apic.write_page(0x300, 0x40, 0), effect(Destination::Physical(ApicId(5)), FIXED));
    assert_eq!((apic.read_page(0x310, 0), apic.read_page(0x300, 0)), (0x0500_0000, 0x40));
    apic.write_page(0x310, 0x0300_0000, 0);
    assert_eq!((apic.write_page(0x300, 0x41, 0), apic.acknowledge()), (None, vector(0x41)));
    apic.write_page(0x310, 0xff00_0000, 0);
    assert_eq!(apic.write_page(0x300, 0x400, 0), effect(Destination::AllIncludingSelf, DeliveryMode::Nmi));
}

#[test]
fn xapic_logical_destinations_follow_the_destination_format() {
    let mut apic = xapic();
    apic.write_page(0xd0, 0x2400_0000, 0);
    for (destination, flat, cluster) in [
        (0x04, true, false),
        (0x20, true, false),
        (0x24, true, true),
        (0x2c, true, true),
        (0x28, true, false),
        (0x14, true, false),
        (0xdb, false, false),
        (0xff, true, true),
        (0x00, false, false),
    ] {
        apic.write_page(0xe0, 0xffff_ffff, 0);
        assert_eq!(apic.matches_logical(destination), flat, "{destination:#x} flat");
        apic.write_page(0xe0, 0x0fff_ffff, 0);
        assert_eq!(apic.matches_logical(destination), cluster, "{destination:#x} cluster");
    }
}

#[test]
fn x2apic_logical_destinations_are_cluster_and_bit() {
    let apic = x2apic();
    for (destination, matches) in
        [(0x8, true), (0xffff, true), (0xfff7, false), (0x1_0008, false), (u32::MAX, true), (0, false)]
    {
        assert_eq!(apic.matches_logical(destination), matches, "{destination:#x}");
    }
}
