//! Findings: what is suspicious about a table whose structures are each usable.

use addr::HostPhys;
use std::vec;
use std::vec::Vec;

use super::builder::{
    INCLUDE_PCI_ALL, andd, drhd, endpoint, everything, repair_checksum, rhsa, rmrr, scope, structure, sub_hierarchy,
    table,
};
use crate::{Dmar, Finding};

fn findings(structures: &[Vec<u8>]) -> Vec<Finding> {
    let bytes = table(structures);
    Dmar::parse(&bytes).unwrap().findings().collect()
}

const A: HostPhys = HostPhys::new(0xfed9_0000);
const B: HostPhys = HostPhys::new(0xfed9_1000);

/// A unit with a device of its own.
fn unit(flags: u8, segment: u16, base: HostPhys) -> Vec<u8> {
    let device = u8::try_from(base.as_u64() >> 12 & 0x1f).unwrap();
    drhd(flags, segment, base.as_u64(), &[endpoint(0, device, 0)])
}

/// A reserved region that a device has.
fn region(base: u64, limit: u64) -> Vec<u8> {
    rmrr(0, base, limit, &[endpoint(0, 2, 0)])
}

#[test]
fn a_good_table_has_none() {
    let bytes = everything();
    assert_eq!(Dmar::parse(&bytes).unwrap().findings().collect::<Vec<_>>(), []);
}

#[test]
fn a_table_without_a_usable_unit_is_found() {
    assert_eq!(findings(&[]), [Finding::NoUnit]);
    assert_eq!(findings(&[drhd(1, 0, 0, &[])]), [Finding::NoUnit]);
}

#[test]
fn a_unit_described_twice_is_found() {
    let found = findings(&[unit(0, 0, A), unit(0, 0, B), unit(0, 1, A)]);
    assert_eq!(found, [Finding::DuplicateUnit { register_base: A }]);
    let found = findings(&[unit(INCLUDE_PCI_ALL, 0, A), unit(INCLUDE_PCI_ALL, 0, A)]);
    assert_eq!(found, [Finding::DuplicateUnit { register_base: A }]);
}

#[test]
fn overlapping_register_windows_are_found() {
    let mut wide = unit(0, 0, A);
    wide[5] = 1;
    let overlap = |first, second| vec![Finding::OverlappingUnits { first, second }];
    assert_eq!(findings(&[wide.clone(), unit(0, 0, B)]), overlap(A, B));
    assert_eq!(findings(&[unit(0, 0, B), wide.clone()]), overlap(B, A));
    assert_eq!(findings(&[unit(0, 0, HostPhys::new(0xfed9_2000)), wide]), []);
}

#[test]
fn two_include_pci_all_in_a_segment_are_found() {
    let found = findings(&[unit(INCLUDE_PCI_ALL, 4, A), unit(INCLUDE_PCI_ALL, 4, B)]);
    assert_eq!(found, [Finding::SecondIncludePciAll { segment: 4, first: A, second: B }]);
    assert_eq!(findings(&[unit(INCLUDE_PCI_ALL, 4, A), unit(INCLUDE_PCI_ALL, 5, B)]), []);
}

#[test]
fn include_pci_all_that_is_not_last_is_found() {
    let found = findings(&[unit(INCLUDE_PCI_ALL, 0, A), unit(0, 0, B)]);
    assert_eq!(found, [Finding::IncludePciAllNotLast { segment: 0, register_base: A }]);
    assert_eq!(findings(&[unit(INCLUDE_PCI_ALL, 0, A), unit(0, 1, B)]), []);
    assert_eq!(findings(&[unit(0, 0, B), unit(INCLUDE_PCI_ALL, 0, A)]), []);
}

#[test]
fn a_unit_without_devices_is_found() {
    let found = findings(&[drhd(0, 0, A.as_u64(), &[])]);
    assert_eq!(found, [Finding::UnitWithoutDevices { register_base: A }]);
}

#[test]
fn overlapping_regions_are_found() {
    let regions = |second| findings(&[unit(0, 0, A), region(0x1000, 0x2fff), region(second, 0x3fff)]);
    assert_eq!(regions(0x2000), [Finding::OverlappingRegions { first: 72, second: 104 }]);
    assert_eq!(regions(0), [Finding::OverlappingRegions { first: 72, second: 104 }]);
    assert_eq!(regions(0x3000), []);
    assert_eq!(findings(&[unit(0, 0, A), region(0x3000, 0x3fff), region(0x1000, 0x2fff)]), []);
    let touching = findings(&[unit(0, 0, A), region(0x1000, 0x1fff), region(0x1000, 0x1fff)]);
    assert_eq!(touching, [Finding::OverlappingRegions { first: 72, second: 104 }]);
}

#[test]
fn a_region_over_the_registers_of_a_unit_is_found() {
    let mut wide = unit(0, 0, A);
    wide[5] = 1;
    let over = |base, limit| findings(&[wide.clone(), region(base, limit)]);
    let found = [Finding::RegionCoversUnit { region: 72, register_base: A }];
    for page in [0xfed9_0000, 0xfed9_1000] {
        assert_eq!(over(page, page + 0xfff), found);
    }
    assert_eq!(over(0, 0xfedf_ffff), found);
    assert_eq!(over(0xfed8_f000, 0xfed8_ffff), []);
    assert_eq!(over(0xfed9_2000, 0xfed9_2fff), []);
}

#[test]
fn a_region_in_the_interrupt_addresses_is_found() {
    let at = |base, limit| findings(&[unit(0, 0, A), region(base, limit)]);
    let found = [Finding::RegionInInterruptRange { region: 72 }];
    for page in [0xfee0_0000, 0xfeef_f000] {
        assert_eq!(at(page, page + 0xfff), found);
    }
    assert_eq!(at(0xfedf_f000, 0xfedf_ffff), []);
    assert_eq!(at(0xfef0_0000, 0xfef0_0fff), []);
}

#[test]
fn a_region_for_no_device_is_found() {
    let found = findings(&[unit(0, 0, A), rmrr(0, 0x1000, 0x1fff, &[])]);
    assert_eq!(found, [Finding::RegionWithoutDevices { region: 72 }]);
}

#[test]
fn what_lies_beyond_the_host_address_width_is_found() {
    // The builder's tables have 39 bits.
    let found = findings(&[unit(0, 0, HostPhys::new(1 << 39)), region((1 << 39) - 0x1000, (1 << 39) - 1)]);
    assert_eq!(found, [Finding::BeyondHostAddressWidth { offset: 48 }]);
    let found = findings(&[unit(0, 0, A), region((1 << 39) - 0x1000, (1 << 39) + 0xfff)]);
    assert_eq!(found, [Finding::BeyondHostAddressWidth { offset: 72 }]);
    // The last byte of a window decides, not the first.
    let mut wide = unit(0, 0, HostPhys::new((1 << 39) - 0x1000));
    assert_eq!(findings(&[wide.clone()]), []);
    wide[5] = 1;
    assert_eq!(findings(&[wide]), [Finding::BeyondHostAddressWidth { offset: 48 }]);
    // 256 bits are more than any address has.
    let mut bytes = table(&[unit(0, 0, HostPhys::new(1 << 63))]);
    bytes[36] = 0xff;
    repair_checksum(&mut bytes);
    assert_eq!(Dmar::parse(&bytes).unwrap().findings().count(), 0);
}

#[test]
fn an_affinity_of_a_unit_that_is_not_there_is_found() {
    let found = findings(&[unit(0, 0, A), rhsa(B.as_u64(), 0), rhsa(A.as_u64(), 0)]);
    assert_eq!(found, [Finding::AffinityOfUnknownUnit { register_base: B }]);
}

#[test]
fn a_second_affinity_is_found() {
    let found =
        findings(&[unit(0, 0, A), unit(0, 0, B), rhsa(A.as_u64(), 0), rhsa(B.as_u64(), 0), rhsa(A.as_u64(), 1)]);
    assert_eq!(found, [Finding::SecondAffinity { register_base: A }]);
}

/// The findings about a unit at A with the first scope and one at B with the second; both in this segment.
fn two_units(segments: (u16, u16), first: Vec<u8>, second: Vec<u8>) -> Vec<Finding> {
    let first = drhd(0, segments.0, A.as_u64(), &[first]);
    findings(&[first, drhd(0, segments.1, B.as_u64(), &[second]), andd(1, b"A"), andd(2, b"B")])
        .into_iter()
        .filter(|finding| !matches!(finding, Finding::AcpiDeviceWithoutUnit { .. }))
        .collect()
}

#[test]
fn what_two_units_name_is_found() {
    let found = [Finding::ContradictoryScopes { first: 64, second: 88 }];
    let device = || endpoint(1, 2, 3);
    for second in [endpoint(1, 2, 3), sub_hierarchy(1, 2, 3)] {
        assert_eq!(two_units((0, 0), device(), second.clone()), found);
        assert_eq!(two_units((0, 0), second.clone(), device()), found);
        assert_eq!(two_units((0, 1), device(), second), []);
    }
    for other in [endpoint(0, 2, 3), endpoint(1, 3, 3), endpoint(1, 2, 4), scope(3, 0, 1, &[(2, 3)])] {
        assert_eq!(two_units((0, 0), device(), other), []);
    }
    // What has a number is known by it, wherever its requests come from.
    for scope_type in [3, 4, 5] {
        let named = |id, device| scope(scope_type, id, 0xf0, &[(device, 0)]);
        assert_eq!(two_units((0, 1), named(1, 4), named(1, 5)), found, "type {scope_type}");
        assert_eq!(two_units((0, 0), named(1, 4), named(2, 4)), [], "type {scope_type}");
    }
    for unknown in [6, 0] {
        let named = || scope(unknown, 1, 0, &[(4, 0)]);
        assert_eq!(two_units((0, 0), named(), named()), []);
    }
}

#[test]
fn what_a_unit_names_twice_is_found() {
    let twice = |first: &[u8], second: &[u8]| {
        findings(&[drhd(0, 0, A.as_u64(), &[first.to_vec(), second.to_vec()]), andd(1, b"A"), andd(2, b"B")])
            .into_iter()
            .filter(|finding| !matches!(finding, Finding::AcpiDeviceWithoutUnit { .. }))
            .collect::<Vec<_>>()
    };
    let found = [Finding::DuplicateScope { first: 64, second: 72 }];
    assert_eq!(twice(&endpoint(0, 2, 0), &endpoint(0, 2, 0)), found);
    assert_eq!(twice(&endpoint(0, 2, 0), &endpoint(0, 2, 1)), []);
    for scope_type in [3, 5] {
        let named = |id, device| scope(scope_type, id, 0, &[(device, 0)]);
        assert_eq!(twice(&named(1, 4), &named(1, 5)), found, "type {scope_type}");
        assert_eq!(twice(&named(1, 4), &named(2, 4)), [], "type {scope_type}");
    }
    // An HPET may have a source-id for each of its comparators.
    let comparator = |number, function| scope(4, number, 0, &[(15, function)]);
    assert_eq!(twice(&comparator(0, 0), &comparator(0, 0)), found);
    assert_eq!(twice(&comparator(0, 0), &comparator(0, 1)), []);
    assert_eq!(twice(&comparator(0, 0), &comparator(1, 0)), []);
    // A unit described twice is one finding, not one for each of its scopes.
    let described_twice = [unit(0, 0, A), unit(0, 0, A)];
    assert_eq!(findings(&described_twice), [Finding::DuplicateUnit { register_base: A }]);
}

#[test]
fn acpi_devices_that_do_not_fit_their_declarations_are_found() {
    let unit = |devices: &[u8]| {
        let scopes: Vec<_> = devices.iter().map(|device| scope(5, *device, 0, &[(21, *device)])).collect();
        drhd(0, 0, A.as_u64(), &scopes)
    };
    assert_eq!(findings(&[unit(&[1, 2]), andd(1, b"A"), andd(2, b"B")]), []);
    let found = findings(&[unit(&[1]), andd(1, b"A"), andd(1, b"B")]);
    assert_eq!(found, [Finding::SecondAcpiDevice { device_number: 1 }]);
    let found = findings(&[unit(&[1, 2]), andd(1, b"A")]);
    assert_eq!(found, [Finding::UndeclaredAcpiDevice { offset: 72, device_number: 2 }]);
    let found = findings(&[unit(&[1]), andd(1, b"A"), andd(2, b"B")]);
    assert_eq!(found, [Finding::AcpiDeviceWithoutUnit { device_number: 2 }]);
    // The numbers of I/O APICs are others.
    let found = findings(&[drhd(0, 0, A.as_u64(), &[scope(3, 2, 0, &[(31, 0)])]), andd(2, b"B")]);
    assert_eq!(found, [Finding::AcpiDeviceWithoutUnit { device_number: 2 }]);
}

#[test]
fn what_means_nothing_without_interrupt_remapping_is_found() {
    let with_flags = |flags, scope_type| {
        let scopes =
            [scope(1, 0, 0, &[(2, 0)]), scope(scope_type, 0, 0, &[(3, 0)]), scope(scope_type, 1, 0, &[(4, 0)])];
        let mut bytes = table(&[drhd(0, 0, A.as_u64(), &scopes)]);
        bytes[37] = flags;
        repair_checksum(&mut bytes);
        Dmar::parse(&bytes).unwrap().findings().collect::<Vec<_>>()
    };
    for scope_type in [3, 4] {
        let source = Finding::InterruptSourceWithoutRemapping { offset: 72 };
        assert_eq!(with_flags(0b00, scope_type), [source]);
        assert_eq!(with_flags(0b10, scope_type), [Finding::X2apicOptOutAlone, source]);
        assert_eq!(with_flags(0b01, scope_type), []);
        assert_eq!(with_flags(0b11, scope_type), []);
    }
    assert_eq!(with_flags(0b00, 1), []);
}

#[test]
fn structures_out_of_order_are_found() {
    let found = findings(&[unit(0, 0, A), region(0x1000, 0x1fff), unit(0, 0, B), region(0x2000, 0x2fff)]);
    assert_eq!(found, [Finding::OutOfOrder { offset: 104 }]);
    let found = findings(&[structure(6, &[0; 4]), structure(5, &[0; 4]), structure(5, &[0; 4]), unit(0, 0, A)]);
    assert_eq!(found, [56, 64, 72].map(|offset| Finding::OutOfOrder { offset }));
    // Nobody knows where an unknown type belongs.
    assert_eq!(findings(&[structure(7, &[]), unit(0, 0, A)]), []);
}

#[test]
fn a_finding_says_what_and_where() {
    use std::string::ToString;
    let region = 0x48;
    for (finding, expected) in [
        (Finding::NoUnit, "DMAR: no usable remapping unit"),
        (Finding::DuplicateUnit { register_base: A }, "DMAR: unit 0xfed90000 is described twice"),
        (Finding::OverlappingUnits { first: A, second: B }, "DMAR: units 0xfed90000 and 0xfed91000 overlap"),
        (
            Finding::SecondIncludePciAll { segment: 3, first: A, second: B },
            "DMAR: units 0xfed90000 and 0xfed91000 both say INCLUDE_PCI_ALL for segment 3",
        ),
        (
            Finding::RegionCoversUnit { region, register_base: A },
            "DMAR: reserved region at 0x48 covers registers of the unit 0xfed90000",
        ),
        (Finding::RegionInInterruptRange { region }, "DMAR: reserved region at 0x48 overlaps the interrupt addresses"),
        (
            Finding::ContradictoryScopes { first: 0x40, second: 0x58 },
            "DMAR: device scopes at 0x40 and 0x58 give one device to two units",
        ),
        (Finding::AcpiDeviceWithoutUnit { device_number: 2 }, "DMAR: no unit serves ACPI device 2"),
    ] {
        assert_eq!(finding.to_string(), expected);
    }
}
