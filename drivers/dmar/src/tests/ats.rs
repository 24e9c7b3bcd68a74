//! Who may use a device-TLB, what integrated devices need, which domain a unit is near.

use addr::{Bdf, HostPhys, PciAddress};
use std::slice::from_ref;
use std::vec;
use std::vec::Vec;

use super::builder::{atsr, drhd, endpoint, rhsa, satc, sidp, structure, sub_hierarchy, table};
use crate::{Ats, Dmar, LookupError, SidpFlags};

fn device(segment: u16, bus: u8, device: u8, function: u8) -> PciAddress {
    PciAddress { segment, bdf: Bdf::new(bus, device, function).unwrap() }
}

/// No test here follows a path over a bridge but one.
fn no_bridges(_: PciAddress) -> Option<(u8, u8)> {
    None
}

const ALL_PORTS: u8 = 1;
const ATC_REQUIRED: u8 = 1;

/// What a table of these structures says about a device on the root bus.
fn integrated(structures: &[Vec<u8>], address: PciAddress) -> Option<Ats> {
    Dmar::parse(&table(structures)).unwrap().ats(address, None, &no_bridges).ok()
}

/// What a table of these structures says about a device below this root port.
fn below(structures: &[Vec<u8>], port: PciAddress) -> Option<Ats> {
    let address = device(port.segment, 1, 0, 0);
    Dmar::parse(&table(structures)).unwrap().ats(address, Some(port), &no_bridges).ok()
}

#[test]
fn below_a_named_root_port_it_is_supported() {
    let structures = [atsr(0, 0, &[sub_hierarchy(0, 0x1c, 0)]), atsr(0, 1, &[sub_hierarchy(0, 0x1d, 0)])];
    assert_eq!(below(&structures, device(0, 0, 0x1c, 0)), Some(Ats::Supported));
    assert_eq!(below(&structures, device(0, 0, 0x1c, 1)), Some(Ats::Unsupported));
    assert_eq!(below(&structures, device(0, 0, 0x1d, 0)), Some(Ats::Unsupported));
    assert_eq!(below(&structures, device(1, 0, 0x1d, 0)), Some(Ats::Supported));
    assert_eq!(below(&[], device(0, 0, 0x1c, 0)), Some(Ats::Unsupported));
}

#[test]
fn all_ports_are_the_root_ports_of_the_segment() {
    let structures = [atsr(ALL_PORTS, 1, &[]), atsr(ALL_PORTS, 2, &[])];
    for (segment, expected) in [(0, Ats::Unsupported), (1, Ats::Supported), (2, Ats::Supported)] {
        assert_eq!(below(&structures, device(segment, 0, 7, 0)), Some(expected));
    }
    // An integrated device is below none.
    assert_eq!(integrated(&structures, device(1, 0, 7, 0)), Some(Ats::Unlisted));
}

#[test]
fn an_integrated_device_is_named_by_a_satc() {
    let structures = [satc(0, 0, &[endpoint(0, 2, 0)]), satc(ATC_REQUIRED, 0, &[endpoint(0, 5, 0)])];
    assert_eq!(integrated(&structures, device(0, 0, 2, 0)), Some(Ats::Supported));
    assert_eq!(integrated(&structures, device(0, 0, 5, 0)), Some(Ats::Required));
    assert_eq!(integrated(&structures, device(0, 0, 5, 1)), Some(Ats::Unlisted));
    assert_eq!(integrated(&structures, device(1, 0, 5, 0)), Some(Ats::Unlisted));
    // An ATSR names root ports and no devices.
    assert_eq!(integrated(&[atsr(0, 0, &[endpoint(0, 2, 0)])], device(0, 0, 2, 0)), Some(Ats::Unlisted));
}

#[test]
fn required_by_one_structure_is_required() {
    let (supported, required) = (satc(0, 0, &[endpoint(0, 2, 0)]), satc(ATC_REQUIRED, 0, &[endpoint(0, 2, 0)]));
    for structures in [[supported.clone(), required.clone()], [required, supported.clone()]] {
        assert_eq!(integrated(&structures, device(0, 0, 2, 0)), Some(Ats::Required));
    }
    for (flags, expected) in [(1 << 4, Ats::Required), (0xef, Ats::Supported)] {
        let structures = [supported.clone(), sidp(0, 2, flags)];
        assert_eq!(integrated(&structures, device(0, 0, 2, 0)), Some(expected));
    }
    // Nor does ALL_PORTS take anything away.
    let structures = [satc(ATC_REQUIRED, 0, &[endpoint(1, 0, 0)]), atsr(ALL_PORTS, 0, &[])];
    assert_eq!(below(&structures, device(0, 0, 0x1c, 0)), Some(Ats::Required));
}

#[test]
fn a_root_port_is_followed_over_bridges() {
    let mut scope = sub_hierarchy(0, 3, 0);
    scope[1] = 10;
    scope.extend([4, 0]);
    let bytes = table(&[atsr(0, 0, &[scope])]);
    let bridges = |bridge: PciAddress| (bridge == device(0, 0, 3, 0)).then_some((9, 12));
    let answer = |port| Dmar::parse(&bytes).unwrap().ats(device(0, 10, 0, 0), Some(port), &bridges);
    assert_eq!(answer(device(0, 9, 4, 0)), Ok(Ats::Supported));
    assert_eq!(answer(device(0, 0, 3, 0)), Ok(Ats::Unsupported));
}

#[test]
fn what_cannot_be_read_is_an_error_where_nothing_else_says_yes() {
    let port = device(0, 0, 0x1c, 0);
    let broken_scope = vec![2, 9, 0, 0, 0, 0, 1, 0, 0];
    let named = atsr(0, 0, &[sub_hierarchy(0, 0x1c, 0)]);
    for broken in [atsr(0, 0, from_ref(&broken_scope)), structure(2, &[0, 0]), structure(2, &[0, 0, 0])] {
        assert_eq!(below(from_ref(&broken), port), None);
        assert_eq!(below(&[broken.clone(), named.clone()], port), Some(Ats::Supported));
        // An integrated device has nothing to do with root ports.
        assert_eq!(integrated(&[broken], device(0, 0, 2, 0)), Some(Ats::Unlisted));
    }
    for broken in [satc(0, 0, from_ref(&broken_scope)), structure(5, &[0])] {
        assert_eq!(integrated(from_ref(&broken), device(0, 0, 2, 0)), None);
        assert_eq!(below(&[broken], port), None);
    }
    // Another segment's scopes concern nobody here.
    assert_eq!(below(&[atsr(0, 1, from_ref(&broken_scope))], port), Some(Ats::Unsupported));
    assert_eq!(integrated(&[satc(0, 1, &[broken_scope])], device(0, 0, 2, 0)), Some(Ats::Unlisted));
    // A table that ends early may have meant anything.
    let bytes = table(&[named, vec![5, 0, 99, 0]]);
    let answer = Dmar::parse(&bytes).unwrap().ats(device(0, 1, 0, 0), Some(port), &no_bridges);
    assert!(matches!(answer, Err(LookupError::TableUnreadable(error)) if error.offset == 64), "{answer:?}");
}

#[test]
fn an_integrated_device_has_its_properties() {
    let bytes = table(&[sidp(0, 2, 0b1), sidp(0, 3, 0b10), sidp(1, 2, 0b100), sidp(0, 2, 0b1001)]);
    let dmar = Dmar::parse(&bytes).unwrap();
    let property = |address| dmar.integrated_device_property(address, &no_bridges).unwrap();
    assert_eq!(property(device(0, 0, 2, 0)), Some(SidpFlags(0b1001)));
    assert_eq!(property(device(0, 0, 3, 0)), Some(SidpFlags(0b10)));
    assert_eq!(property(device(1, 0, 2, 0)), Some(SidpFlags(0b100)));
    assert_eq!(property(device(0, 0, 2, 1)), None);
    assert_eq!(property(device(2, 0, 2, 0)), None);
}

#[test]
fn a_property_that_may_be_lost_is_an_error() {
    let error = |structures: &[Vec<u8>]| {
        let bytes = table(structures);
        let answer = Dmar::parse(&bytes).unwrap().integrated_device_property(device(0, 0, 2, 0), &no_bridges);
        answer.is_err()
    };
    let broken_scope = [1, 9, 0, 0, 0, 0, 1, 0, 0];
    assert!(error(&[sidp(0, 2, 1), structure(6, &[&[0; 4][..], &broken_scope].concat())]));
    assert!(!error(&[sidp(0, 2, 1), structure(6, &[&[0, 0, 1, 0][..], &broken_scope].concat())]));
    assert!(error(&[structure(6, &[])]));
    assert!(error(&[vec![6, 0, 1, 0]]));
    assert!(!error(&[structure(5, &[]), structure(2, &[]), structure(0, &[]), structure(1, &[])]));
}

#[test]
fn a_unit_is_near_its_proximity_domain() {
    let (a, b) = (0xfed9_0000, 0xfed9_1000);
    let bytes = table(&[drhd(0, 0, a, &[]), rhsa(b, 0x0403_0201), rhsa(a, 1)]);
    let dmar = Dmar::parse(&bytes).unwrap();
    assert_eq!(dmar.proximity_domain(HostPhys::new(a)), Some(1));
    assert_eq!(dmar.proximity_domain(HostPhys::new(b)), Some(0x0403_0201));
    assert_eq!(dmar.proximity_domain(HostPhys::new(0)), None);
}
