//! Findings: what is suspicious about a table whose structures are each usable.

use addr::HostPhys;
use std::vec;
use std::vec::Vec;

use super::builder::{INCLUDE_PCI_ALL, drhd, endpoint, everything, rhsa, rmrr, table};
use crate::{Dmar, Finding};

fn findings(structures: &[Vec<u8>]) -> Vec<Finding> {
    let bytes = table(structures);
    Dmar::parse(&bytes).unwrap().findings().collect()
}

const A: HostPhys = HostPhys::new(0xfed9_0000);
const B: HostPhys = HostPhys::new(0xfed9_1000);

fn unit(flags: u8, segment: u16, base: HostPhys) -> Vec<u8> {
    drhd(flags, segment, base.as_u64(), &[endpoint(0, 2, 0)])
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
    let regions = |second| findings(&[unit(0, 0, A), rmrr(0, 0x1000, 0x2fff, &[]), rmrr(0, second, 0x3fff, &[])]);
    assert_eq!(regions(0x2000), [Finding::OverlappingRegions { first: 72, second: 96 }]);
    assert_eq!(regions(0), [Finding::OverlappingRegions { first: 72, second: 96 }]);
    assert_eq!(regions(0x3000), []);
    let descending = [unit(0, 0, A), rmrr(0, 0x3000, 0x3fff, &[]), rmrr(0, 0x1000, 0x2fff, &[])];
    assert_eq!(findings(&descending), []);
}

#[test]
fn what_lies_beyond_the_host_address_width_is_found() {
    // The builder's tables have 39 bits.
    let found = findings(&[unit(0, 0, HostPhys::new(1 << 39)), rmrr(0, (1 << 39) - 0x1000, (1 << 39) - 1, &[])]);
    assert_eq!(found, [Finding::BeyondHostAddressWidth { offset: 48 }]);
    let found = findings(&[unit(0, 0, A), rmrr(0, (1 << 39) - 0x1000, (1 << 39) + 0xfff, &[])]);
    assert_eq!(found, [Finding::BeyondHostAddressWidth { offset: 72 }]);
}

#[test]
fn an_affinity_of_a_unit_that_is_not_there_is_found() {
    let found = findings(&[unit(0, 0, A), rhsa(B.as_u64(), 0), rhsa(A.as_u64(), 0)]);
    assert_eq!(found, [Finding::AffinityOfUnknownUnit { register_base: B }]);
}
