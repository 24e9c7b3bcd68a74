//! Findings: what is suspicious about a table whose structures are each usable.

use addr::HostPhys;
use std::vec;
use std::vec::Vec;

use super::builder::{INCLUDE_PCI_ALL, drhd, endpoint, everything, repair_checksum, rmrr, scope, sub_hierarchy, table};
use crate::{Dmar, Finding};

fn findings(structures: &[Vec<u8>]) -> Vec<Finding> {
    let bytes = table(structures);
    let dmar = Dmar::parse(&bytes).unwrap();
    dmar.findings().chain(dmar.contradictory_scopes()).collect()
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
    let dmar = Dmar::parse(&bytes).unwrap();
    assert_eq!(dmar.findings().chain(dmar.contradictory_scopes()).collect::<Vec<_>>(), []);
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

/// The findings about a unit at A with the first scope and one at B with the second; both in this segment.
fn two_units(segments: (u16, u16), first: Vec<u8>, second: Vec<u8>) -> Vec<Finding> {
    let first = drhd(0, segments.0, A.as_u64(), &[first]);
    findings(&[first, drhd(0, segments.1, B.as_u64(), &[second])])
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
    ] {
        assert_eq!(finding.to_string(), expected);
    }
}
