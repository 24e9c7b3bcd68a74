//! Lookups: who serves whom, and that every doubt is an error.

use addr::{Bdf, HostPhys, PciAddress};
use std::vec;
use std::vec::Vec;

use super::builder::{INCLUDE_PCI_ALL, drhd, endpoint, rmrr, scope, structure, sub_hierarchy, table};
use crate::{Dmar, LookupError};

fn device(segment: u16, bus: u8, device: u8, function: u8) -> PciAddress {
    PciAddress { segment, bdf: Bdf::new(bus, device, function).unwrap() }
}

/// Bridges at 00:1c.0 (buses 1 to 3), 01:00.0 (buses 2 to 3) and 00:1d.0 (not configured), in segment 0.
fn bridges(bridge: PciAddress) -> Option<(u8, u8)> {
    match (bridge.segment, bridge.bdf.bus(), bridge.bdf.device(), bridge.bdf.function()) {
        (0, 0, 0x1c, 0) => Some((1, 3)),
        (0, 1, 0, 0) => Some((2, 3)),
        (0, 0, 0x1d, 0) => Some((0, 0)),
        _ => None,
    }
}

/// Register base of the unit that serves `address`, in a table of these structures.
fn unit(structures: &[Vec<u8>], address: PciAddress) -> Option<u64> {
    let bytes = table(structures);
    Dmar::parse(&bytes).unwrap().unit_for(address, &bridges).ok().map(|unit| unit.register_base.as_u64())
}

const A: u64 = 0xfed9_0000;
const B: u64 = 0xfed9_1000;

#[test]
fn a_named_endpoint_is_served_by_its_unit_and_the_rest_by_include_pci_all() {
    let structures = [drhd(0, 0, A, &[endpoint(0, 2, 0)]), drhd(INCLUDE_PCI_ALL, 0, B, &[])];
    assert_eq!(unit(&structures, device(0, 0, 2, 0)), Some(A));
    assert_eq!(unit(&structures, device(0, 0, 2, 1)), Some(B));
    assert_eq!(unit(&structures, device(0, 9, 2, 0)), Some(B));
}

#[test]
fn the_order_of_the_units_does_not_matter() {
    let structures = [drhd(INCLUDE_PCI_ALL, 0, B, &[]), drhd(0, 0, A, &[endpoint(0, 2, 0)])];
    assert_eq!(unit(&structures, device(0, 0, 2, 0)), Some(A));
    assert_eq!(unit(&structures, device(0, 0, 3, 0)), Some(B));
}

#[test]
fn a_segment_has_its_own_units() {
    let structures = [drhd(0, 1, A, &[endpoint(0, 2, 0)]), drhd(INCLUDE_PCI_ALL, 0, B, &[])];
    assert_eq!(unit(&structures, device(0, 0, 2, 0)), Some(B));
    assert_eq!(unit(&structures, device(1, 0, 2, 0)), Some(A));
    assert_eq!(unit(&structures, device(1, 0, 3, 0)), None);
    assert_eq!(unit(&structures, device(2, 0, 2, 0)), None);
}

#[test]
fn a_sub_hierarchy_is_its_bridge_and_all_that_is_below() {
    let structures = [drhd(0, 0, A, &[sub_hierarchy(0, 0x1c, 0)]), drhd(INCLUDE_PCI_ALL, 0, B, &[])];
    assert_eq!(unit(&structures, device(0, 0, 0x1c, 0)), Some(A));
    for bus in 1..=3 {
        assert_eq!(unit(&structures, device(0, bus, 31, 7)), Some(A), "bus {bus}");
    }
    assert_eq!(unit(&structures, device(0, 4, 0, 0)), Some(B));
    assert_eq!(unit(&structures, device(0, 0, 0x1c, 1)), Some(B));
}

#[test]
fn a_sub_hierarchy_ends_at_its_segment() {
    let bytes = table(&[drhd(0, 1, A, &[sub_hierarchy(0, 0x1c, 0)]), drhd(INCLUDE_PCI_ALL, 0, B, &[])]);
    let everywhere = |bridge: PciAddress| (bridge.bdf == device(0, 0, 0x1c, 0).bdf).then_some((1, 3));
    let dmar = Dmar::parse(&bytes).unwrap();
    let unit = |address| dmar.unit_for(address, &everywhere).unwrap().register_base.as_u64();
    assert_eq!((unit(device(1, 2, 0, 0)), unit(device(0, 2, 0, 0))), (A, B));
}

#[test]
fn an_exact_name_goes_before_a_bridge_above() {
    let structures =
        [drhd(0, 0, A, &[sub_hierarchy(0, 0x1c, 0)]), drhd(0, 0, B, &[scope(1, 0, 0, &[(0x1c, 0), (0, 0), (4, 0)])])];
    assert_eq!(unit(&structures, device(0, 2, 4, 0)), Some(B));
    assert_eq!(unit(&structures, device(0, 2, 5, 0)), Some(A));
}

#[test]
fn a_bridge_named_as_endpoint_covers_what_is_below_it() {
    let structures = [drhd(0, 0, A, &[endpoint(0, 0x1c, 0)]), drhd(INCLUDE_PCI_ALL, 0, B, &[])];
    assert_eq!(unit(&structures, device(0, 2, 0, 0)), Some(A));
}

#[test]
fn a_bridge_that_is_not_configured_has_nothing_below_it() {
    let structures = [drhd(0, 0, A, &[sub_hierarchy(0, 0x1d, 0)]), drhd(INCLUDE_PCI_ALL, 0, B, &[])];
    assert_eq!(unit(&structures, device(0, 0, 5, 0)), Some(B));
}

#[test]
fn the_source_id_of_an_io_apic_or_hpet_names_no_device() {
    let scopes = [scope(3, 2, 0, &[(31, 0)]), scope(4, 0, 0, &[(31, 0)]), scope(9, 0, 0, &[(31, 0)])];
    let structures = [drhd(0, 0, A, &scopes), drhd(INCLUDE_PCI_ALL, 0, B, &[])];
    assert_eq!(unit(&structures, device(0, 0, 31, 0)), Some(B));
}

#[test]
fn a_device_of_an_unusable_unit_does_not_fall_to_include_pci_all() {
    for base in [0, 0x800, u64::MAX - 0xfff] {
        let bytes = table(&[drhd(0, 0, base, &[endpoint(0, 2, 0)]), drhd(INCLUDE_PCI_ALL, 0, B, &[])]);
        let dmar = Dmar::parse(&bytes).unwrap();
        let answer = dmar.unit_for(device(0, 0, 2, 0), &bridges);
        assert!(matches!(answer, Err(LookupError::Unusable(error)) if error.offset == 48), "{answer:?}");
        assert_eq!(dmar.unit_for(device(0, 0, 3, 0), &bridges).unwrap().register_base, HostPhys::new(B));
    }
}

#[test]
fn an_unusable_include_pci_all_unit_serves_nobody() {
    let structures = [drhd(0, 0, A, &[endpoint(0, 2, 0)]), drhd(INCLUDE_PCI_ALL, 0, 0, &[])];
    assert_eq!(unit(&structures, device(0, 0, 2, 0)), Some(A));
    assert_eq!(unit(&structures, device(0, 0, 3, 0)), None);
}

#[test]
fn a_scope_that_cannot_be_read_makes_include_pci_all_doubtful() {
    let broken = vec![1, 9, 0, 0, 0, 0, 3, 0, 0];
    let structures = [drhd(0, 0, A, &[endpoint(0, 2, 0), broken]), drhd(INCLUDE_PCI_ALL, 0, B, &[endpoint(0, 4, 0)])];
    let bytes = table(&structures);
    let answer = Dmar::parse(&bytes).unwrap().unit_for(device(0, 0, 3, 0), &bridges);
    assert!(matches!(answer, Err(LookupError::ScopeUnreadable(error)) if error.offset == 72), "{answer:?}");
    assert_eq!(unit(&structures, device(0, 0, 2, 0)), Some(A));
    assert_eq!(unit(&structures, device(0, 0, 4, 0)), Some(B));
}

#[test]
fn a_scope_that_cannot_be_read_takes_nothing_from_those_that_can() {
    let broken = || vec![1, 9, 0, 0, 0, 0, 3, 0, 0];
    for scopes in [[sub_hierarchy(0, 0x1c, 0), broken()], [broken(), sub_hierarchy(0, 0x1c, 0)]] {
        let structures = [drhd(0, 0, A, &scopes), drhd(INCLUDE_PCI_ALL, 0, B, &[])];
        assert_eq!(unit(&structures, device(0, 2, 0, 0)), Some(A));
        assert_eq!(unit(&structures, device(0, 0, 0x1c, 0)), Some(A));
    }
}

#[test]
fn a_scope_that_cannot_be_read_concerns_its_own_segment() {
    let structures = [drhd(0, 1, A, &[vec![1, 9, 0, 0, 0, 0, 3, 0, 0]]), drhd(INCLUDE_PCI_ALL, 0, B, &[])];
    assert_eq!(unit(&structures, device(0, 0, 3, 0)), Some(B));
}

#[test]
fn a_unit_too_short_for_its_scopes_makes_include_pci_all_doubtful() {
    for length in 0..12 {
        let structures = [drhd(INCLUDE_PCI_ALL, 0, B, &[endpoint(0, 4, 0)]), structure(0, &vec![0; length])];
        assert_eq!(unit(&structures, device(0, 0, 4, 0)), Some(B));
        assert_eq!(unit(&structures, device(0, 0, 3, 0)), None, "length {length}");
    }
}

#[test]
fn a_table_that_ends_early_makes_include_pci_all_doubtful() {
    let good = drhd(INCLUDE_PCI_ALL, 0, B, &[endpoint(0, 4, 0), scope(3, 1, 0, &[(31, 0)])]);
    for broken in [vec![2, 0, 0, 0], vec![2, 0, 99, 0], vec![2]] {
        let bytes = table(&[good.clone(), broken]);
        let dmar = Dmar::parse(&bytes).unwrap();
        let answer = dmar.unit_for(device(0, 0, 3, 0), &bridges);
        assert!(matches!(answer, Err(LookupError::TableUnreadable(_))), "{answer:?}");
        assert!(dmar.unit_for(device(0, 0, 4, 0), &bridges).is_ok());
        assert!(dmar.io_apic(1, &bridges).is_ok());
        assert!(matches!(dmar.io_apic(2, &bridges), Err(LookupError::TableUnreadable(_))));
        let regions: Vec<_> = dmar.reserved_regions(device(0, 0, 4, 0), &bridges).collect();
        assert!(matches!(regions[..], [Err(LookupError::TableUnreadable(_))]), "{regions:?}");
    }
}

#[test]
fn two_units_with_the_same_right_are_ambiguous() {
    let first = HostPhys::new(A);
    let second = HostPhys::new(B);
    for structures in [
        [drhd(0, 0, A, &[endpoint(0, 2, 0)]), drhd(0, 0, B, &[endpoint(0, 2, 0)])],
        [drhd(INCLUDE_PCI_ALL, 0, A, &[]), drhd(INCLUDE_PCI_ALL, 0, B, &[])],
    ] {
        let bytes = table(&structures);
        let answer = Dmar::parse(&bytes).unwrap().unit_for(device(0, 0, 2, 0), &bridges);
        assert_eq!(answer, Err(LookupError::Ambiguous { first, second }));
    }
    // The same unit twice is one unit.
    let structures = [drhd(INCLUDE_PCI_ALL, 0, A, &[]), drhd(INCLUDE_PCI_ALL, 0, A, &[])];
    assert_eq!(unit(&structures, device(0, 0, 2, 0)), Some(A));
}

#[test]
fn an_acpi_device_is_known_by_its_requester_id() {
    let structures = [drhd(0, 0, A, &[scope(5, 1, 0, &[(21, 0)])]), drhd(INCLUDE_PCI_ALL, 0, B, &[])];
    assert_eq!(unit(&structures, device(0, 0, 21, 0)), Some(A));
    assert_eq!(unit(&structures, device(0, 0, 21, 1)), Some(B));
    // It names one requester, and never a bridge.
    let structures = [drhd(0, 0, A, &[scope(5, 1, 0, &[(0x1c, 0)])]), drhd(INCLUDE_PCI_ALL, 0, B, &[])];
    assert_eq!(unit(&structures, device(0, 2, 0, 0)), Some(B));
}

#[test]
fn an_io_apic_is_found_by_its_id() {
    let bytes = table(&[
        drhd(0, 0, A, &[scope(3, 1, 0xf0, &[(31, 7)]), scope(1, 2, 0, &[(2, 0)])]),
        drhd(
            INCLUDE_PCI_ALL,
            0,
            B,
            &[scope(3, 2, 0, &[(0x1c, 0), (0, 0), (30, 7)]), scope(3, 3, 0, &[(9, 0), (1, 0)])],
        ),
        drhd(0, 1, 0, &[scope(3, 4, 0, &[(30, 7)])]),
    ]);
    let dmar = Dmar::parse(&bytes).unwrap();
    let source = |id| dmar.io_apic(id, &bridges).map(|(unit, bdf)| (unit.register_base.as_u64(), bdf));
    assert_eq!(source(1), Ok((A, Bdf::new(0xf0, 31, 7).unwrap())));
    assert_eq!(source(2), Ok((B, Bdf::new(2, 30, 7).unwrap())));
    assert!(matches!(source(3), Err(LookupError::PathUnresolved { .. })));
    assert!(matches!(source(4), Err(LookupError::Unusable(_))));
    assert_eq!(source(5), Err(LookupError::NoUnit));
}

#[test]
fn an_io_apic_at_two_units_is_ambiguous() {
    let bytes =
        table(&[drhd(0, 0, A, &[scope(3, 1, 0xf0, &[(31, 7)])]), drhd(0, 0, B, &[scope(3, 1, 0xf0, &[(31, 7)])])]);
    let answer = Dmar::parse(&bytes).unwrap().io_apic(1, &bridges);
    assert!(matches!(answer, Err(LookupError::Ambiguous { .. })), "{answer:?}");
}

#[test]
fn an_hpet_has_all_of_its_source_ids() {
    let scopes: Vec<_> = (0..8).map(|function| scope(4, 0, 0xf0, &[(15, function)])).collect();
    let bytes = table(&[drhd(0, 0, A, &scopes)]);
    let dmar = Dmar::parse(&bytes).unwrap();
    let sources: Vec<_> = dmar.hpet(0, &bridges).map(|source| source.unwrap().1.as_u16()).collect();
    assert_eq!(sources, (0xf078..=0xf07f).collect::<Vec<_>>());
    assert_eq!(dmar.hpet(1, &bridges).count(), 0);
}

#[test]
fn the_regions_of_a_device_are_those_that_name_it_or_a_bridge_above() {
    let bytes = table(&[
        rmrr(0, 0x1000, 0x1fff, &[endpoint(0, 2, 0)]),
        rmrr(0, 0x3000, 0x3fff, &[endpoint(0, 3, 0), sub_hierarchy(0, 0x1c, 0)]),
        rmrr(1, 0x5000, 0x5fff, &[endpoint(0, 2, 0)]),
        rmrr(0, 0x7000, 0x7fff, &[endpoint(0, 2, 0)]),
    ]);
    let dmar = Dmar::parse(&bytes).unwrap();
    let bases = |address| {
        dmar.reserved_regions(address, &bridges).map(|region| region.unwrap().base.as_u64()).collect::<Vec<_>>()
    };
    assert_eq!(bases(device(0, 0, 2, 0)), [0x1000, 0x7000]);
    assert_eq!(bases(device(0, 3, 0, 0)), [0x3000]);
    assert_eq!(bases(device(1, 0, 2, 0)), [0x5000]);
    assert_eq!(bases(device(0, 0, 4, 0)), []);
}

#[test]
fn an_unusable_region_is_an_error_for_the_devices_that_it_names() {
    let bytes = table(&[rmrr(0, 0x2000, 0x1fff, &[endpoint(0, 2, 0)]), rmrr(0, 0x3000, 0x3fff, &[endpoint(0, 3, 0)])]);
    let dmar = Dmar::parse(&bytes).unwrap();
    let regions: Vec<_> = dmar.reserved_regions(device(0, 0, 2, 0), &bridges).collect();
    assert!(matches!(regions[..], [Err(LookupError::Unusable(_))]), "{regions:?}");
    assert!(dmar.reserved_regions(device(0, 0, 3, 0), &bridges).all(|region| region.is_ok()));
}

#[test]
fn a_region_that_may_name_a_device_is_an_error_for_it() {
    for region in
        [rmrr(0, 0x1000, 0x1fff, &[endpoint(0, 3, 0), vec![1, 3, 0, 0]]), structure(1, &[0; 4]), structure(1, &[])]
    {
        let bytes = table(&[region]);
        let dmar = Dmar::parse(&bytes).unwrap();
        let regions: Vec<_> = dmar.reserved_regions(device(0, 0, 2, 0), &bridges).collect();
        assert!(matches!(regions[..], [Err(_)]), "{regions:?}");
    }
}

#[test]
fn an_acpi_device_is_found_by_its_number() {
    let bytes = table(&[
        drhd(0, 0, A, &[scope(5, 1, 0xf0, &[(21, 0)]), scope(3, 2, 0xf0, &[(31, 7)])]),
        drhd(INCLUDE_PCI_ALL, 3, B, &[scope(5, 2, 0, &[(21, 1)]), scope(5, 3, 0, &[(9, 0), (1, 0)])]),
        drhd(0, 0, 0, &[scope(5, 4, 0, &[(21, 4)])]),
        rmrr(3, 0x1000, 0x1fff, &[scope(5, 2, 0, &[(21, 1)])]),
    ]);
    let dmar = Dmar::parse(&bytes).unwrap();
    let found = |number| {
        let answer = dmar.acpi_device(number, &bridges);
        answer.map(|(unit, requester)| (unit.register_base.as_u64(), requester))
    };
    assert_eq!(found(1), Ok((A, device(0, 0xf0, 21, 0))));
    assert_eq!(found(2), Ok((B, device(3, 0, 21, 1))));
    assert!(matches!(found(3), Err(LookupError::PathUnresolved { .. })));
    assert!(matches!(found(4), Err(LookupError::Unusable(_))));
    assert_eq!(found(5), Err(LookupError::NoUnit));
    assert_eq!(dmar.reserved_regions(device(3, 0, 21, 1), &bridges).count(), 1);
}

#[test]
fn an_acpi_device_at_two_units_is_ambiguous() {
    let named = || [scope(5, 1, 0, &[(21, 0)])];
    let bytes = table(&[drhd(0, 0, A, &named()), drhd(0, 0, B, &named())]);
    let answer = Dmar::parse(&bytes).unwrap().acpi_device(1, &bridges);
    assert_eq!(answer, Err(LookupError::Ambiguous { first: HostPhys::new(A), second: HostPhys::new(B) }));
}

#[test]
fn an_unusable_name_beside_a_usable_one_is_an_error() {
    let good = drhd(0, 0, A, &[scope(3, 1, 0xf0, &[(31, 7)]), endpoint(0, 2, 0)]);
    let off = drhd(0, 0, 0, &[scope(3, 1, 0xf0, &[(31, 7)]), endpoint(0, 2, 0)]);
    for structures in [[good.clone(), off.clone()], [off, good]] {
        let bytes = table(&structures);
        let dmar = Dmar::parse(&bytes).unwrap();
        assert!(matches!(dmar.io_apic(1, &bridges), Err(LookupError::Unusable(_))));
        assert!(matches!(dmar.unit_for(device(0, 0, 2, 0), &bridges), Err(LookupError::Unusable(_))));
    }
}

#[test]
fn an_unusable_unit_is_no_region() {
    for structures in [drhd(0, 0, 0, &[endpoint(0, 2, 0)]), structure(0, &[]), structure(2, &[])] {
        let bytes = table(&[structures]);
        let dmar = Dmar::parse(&bytes).unwrap();
        assert_eq!(dmar.reserved_regions(device(0, 0, 2, 0), &bridges).count(), 0);
    }
}

#[test]
fn an_error_says_why() {
    use std::string::ToString;
    let (first, second) = (HostPhys::new(A), HostPhys::new(B));
    let broken = table(&[drhd(0, 0, 0, &[])]);
    let unusable = Dmar::parse(&broken).unwrap().structures().next().unwrap().unwrap_err();
    let scope_error = crate::ScopeError { offset: 0x40, kind: crate::ScopeErrorKind::TooShort { length: 6 } };
    for (error, expected) in [
        (LookupError::NoUnit, "no remapping unit serves it"),
        (
            LookupError::Unusable(unusable),
            "named by an unusable structure: DMAR structure at 0x30 of type 0: register base 0",
        ),
        (LookupError::Ambiguous { first, second }, "served by two remapping units, 0xfed90000 and 0xfed91000"),
        (
            LookupError::ScopeUnreadable(scope_error),
            "perhaps named by an unreadable scope: DMAR device scope at 0x40: length 6 leaves no path",
        ),
        (LookupError::PathUnresolved { offset: 0x40 }, "the path of the DMAR device scope at 0x40 leads nowhere"),
    ] {
        assert_eq!(error.to_string(), expected);
    }
}
