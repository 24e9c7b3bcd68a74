//! Device scopes: decoded, broken, and followed over bridges.

use addr::{Bdf, PciAddress};
use std::vec;
use std::vec::Vec;

use super::builder::{drhd, endpoint, scope, table};
use crate::{Dmar, ScopeErrorKind, ScopeType};

type Decoded = (ScopeType, u8, u8, Vec<(u8, u8)>);

/// The scopes of a unit that has these bytes as scopes.
fn walk(scopes: &[Vec<u8>]) -> Vec<Result<Decoded, (usize, ScopeErrorKind)>> {
    let bytes = table(&[drhd(0, 0, 0x1000, scopes)]);
    let unit = Dmar::parse(&bytes).unwrap().drhds().next().unwrap();
    let decode = |scope: crate::DeviceScope<'_>| {
        (scope.scope_type, scope.enumeration_id, scope.start_bus, scope.path().collect())
    };
    unit.scopes().iter().map(|scope| scope.map(decode).map_err(|error| (error.offset, error.kind))).collect()
}

#[test]
fn every_type_is_decoded() {
    let types = [
        (1, ScopeType::PciEndpoint),
        (2, ScopeType::PciSubHierarchy),
        (3, ScopeType::IoApic),
        (4, ScopeType::MsiCapableHpet),
        (5, ScopeType::AcpiNamespaceDevice),
        (6, ScopeType::Unknown(6)),
        (0, ScopeType::Unknown(0)),
    ];
    for (byte, scope_type) in types {
        let hops = [(1, 2), (31, 7), (0, 0)];
        assert_eq!(walk(&[scope(byte, 9, 0xf0, &hops)]), [Ok((scope_type, 9, 0xf0, hops.to_vec()))]);
    }
}

#[test]
fn a_path_of_no_hop_or_half_a_hop_voids_its_scope_only() {
    let good = (ScopeType::PciEndpoint, 0, 0, vec![(4, 0)]);
    for (broken, kind) in [
        (vec![1, 6, 0, 0, 0, 0], ScopeErrorKind::TooShort { length: 6 }),
        (vec![1, 7, 0, 0, 0, 0, 2], ScopeErrorKind::TooShort { length: 7 }),
        (vec![1, 9, 0, 0, 0, 0, 2, 0, 1], ScopeErrorKind::OddPath { length: 9 }),
    ] {
        assert_eq!(walk(&[broken, endpoint(0, 4, 0)]), [Err((64, kind)), Ok(good.clone())]);
    }
}

#[test]
fn a_hop_to_no_device_or_function_voids_its_scope_only() {
    for (device, function) in [(32, 0), (0, 8), (255, 255)] {
        let results = walk(&[scope(1, 0, 0, &[(1, 0), (device, function)]), endpoint(0, 4, 0)]);
        assert_eq!(results[0], Err((64, ScopeErrorKind::NoSuchFunction { device, function })));
        assert!(results[1].is_ok());
    }
}

#[test]
fn a_length_below_the_header_is_one_error_and_the_end() {
    for length in 0..6 {
        let broken = vec![1, length, 0, 0, 0, 0, 2, 0];
        let kind = ScopeErrorKind::HeaderCut { length: length.into() };
        let results = walk(&[endpoint(0, 3, 0), broken, endpoint(0, 4, 0)]);
        assert_eq!(results.len(), 2);
        assert_eq!(results[1], Err((72, kind)));
    }
}

#[test]
fn bytes_too_few_for_a_scope_are_one_error_and_the_end() {
    for left in 1..6 {
        let results = walk(&[endpoint(0, 3, 0), vec![1; left]]);
        assert_eq!(results.len(), 2);
        assert_eq!(results[1], Err((72, ScopeErrorKind::HeaderCut { length: left })));
    }
}

#[test]
fn a_length_past_the_structure_is_one_error_and_the_end() {
    let results = walk(&[vec![1, 10, 0, 0, 0, 0, 2, 0]]);
    assert_eq!(results, [Err((64, ScopeErrorKind::PastEnd { length: 10, available: 8 }))]);
}

#[test]
fn a_path_is_followed_over_the_secondary_buses_of_its_bridges() {
    let bytes = table(&[drhd(0, 3, 0x1000, &[scope(1, 0, 0x10, &[(28, 1), (2, 0), (5, 6)])])]);
    let unit = Dmar::parse(&bytes).unwrap().drhds().next().unwrap();
    let scope = unit.scopes().iter().next().unwrap().unwrap();
    let address = |bus, device, function| PciAddress { segment: 3, bdf: Bdf::new(bus, device, function).unwrap() };
    let bridges = |bridge| match bridge {
        bridge if bridge == address(0x10, 28, 1) => Some((0x20, 0x2f)),
        bridge if bridge == address(0x20, 2, 0) => Some((0x21, 0x21)),
        _ => None,
    };
    assert_eq!(scope.address(3, &bridges), Some(address(0x21, 5, 6)));
    let first_only = |bridge| (bridge == address(0x10, 28, 1)).then_some((0x20, 0x2f));
    assert_eq!(scope.address(3, &first_only), None);
    let unconfigured = |_| Some((0, 0));
    assert_eq!(scope.address(3, &unconfigured), None);
}

#[test]
fn each_property_is_a_bit() {
    let properties = |flags: u8| {
        let flags = crate::SidpFlags(flags);
        let first = [flags.nested_not_allowed(), flags.page_walk_snoop_not_allowed(), flags.page_snoop_not_allowed()];
        let last = [flags.atc_hardened(), flags.atc_required()];
        first.into_iter().chain(last).collect::<Vec<_>>()
    };
    for bit in 0..8 {
        let expected: Vec<_> = (0..5).map(|property| property == bit).collect();
        assert_eq!(properties(1 << bit), expected);
        assert_eq!(properties(!(1 << bit)), expected.iter().map(|set| !set).collect::<Vec<_>>());
    }
}

#[test]
fn an_error_ends_the_scopes_if_its_length_is_wrong() {
    for (broken, ends) in [
        (vec![1, 5, 0, 0, 0, 0, 2, 0], true),
        (vec![1, 18, 0, 0, 0, 0, 2, 0], true),
        (vec![1, 6, 0, 0, 0, 0], false),
        (vec![1, 9, 0, 0, 0, 0, 2, 0, 1], false),
        (scope(1, 0, 0, &[(32, 0)]), false),
    ] {
        let bytes = table(&[drhd(0, 0, 0x1000, &[broken, endpoint(0, 4, 0)])]);
        let unit = Dmar::parse(&bytes).unwrap().drhds().next().unwrap();
        let results: Vec<_> = unit.scopes().iter().collect();
        assert_eq!((results[0].unwrap_err().ends_scopes(), results.len() == 1), (ends, ends));
    }
}
