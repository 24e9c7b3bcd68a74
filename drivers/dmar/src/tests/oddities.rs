//! Oddities: what is strange and harms nobody.

use addr::HostPhys;
use std::vec::Vec;

use super::builder::{
    INCLUDE_PCI_ALL, andd, drhd, endpoint, everything, repair_checksum, rhsa, rmrr, scope, structure, table,
};
use crate::{Dmar, Oddity};

fn oddities(structures: &[Vec<u8>]) -> Vec<Oddity> {
    let bytes = table(structures);
    Dmar::parse(&bytes).unwrap().oddities().collect()
}

#[test]
fn a_good_table_has_none() {
    let bytes = everything();
    assert_eq!(Dmar::parse(&bytes).unwrap().oddities().collect::<Vec<_>>(), []);
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
fn include_pci_all_that_is_not_last_is_found() {
    let found = oddities(&[unit(INCLUDE_PCI_ALL, 0, A), unit(0, 0, B)]);
    assert_eq!(found, [Oddity::IncludePciAllNotLast { segment: 0, register_base: A }]);
    assert_eq!(oddities(&[unit(INCLUDE_PCI_ALL, 0, A), unit(0, 1, B)]), []);
    assert_eq!(oddities(&[unit(0, 0, B), unit(INCLUDE_PCI_ALL, 0, A)]), []);
}

#[test]
fn a_unit_without_devices_is_found() {
    let found = oddities(&[drhd(0, 0, A.as_u64(), &[])]);
    assert_eq!(found, [Oddity::UnitWithoutDevices { register_base: A }]);
}

#[test]
fn a_region_for_no_device_is_found() {
    let found = oddities(&[unit(0, 0, A), rmrr(0, 0x1000, 0x1fff, &[])]);
    assert_eq!(found, [Oddity::RegionWithoutDevices { region: 72 }]);
}

#[test]
fn an_affinity_of_a_unit_that_is_not_there_is_found() {
    let found = oddities(&[unit(0, 0, A), rhsa(B.as_u64(), 0), rhsa(A.as_u64(), 0)]);
    assert_eq!(found, [Oddity::AffinityOfUnknownUnit { register_base: B }]);
}

#[test]
fn a_second_affinity_is_found() {
    let found =
        oddities(&[unit(0, 0, A), unit(0, 0, B), rhsa(A.as_u64(), 0), rhsa(B.as_u64(), 0), rhsa(A.as_u64(), 1)]);
    assert_eq!(found, [Oddity::SecondAffinity { register_base: A }]);
}

#[test]
fn what_a_unit_names_twice_is_found() {
    let twice = |first: &[u8], second: &[u8]| {
        oddities(&[drhd(0, 0, A.as_u64(), &[first.to_vec(), second.to_vec()]), andd(1, b"A"), andd(2, b"B")])
            .into_iter()
            .filter(|finding| !matches!(finding, Oddity::AcpiDeviceWithoutUnit { .. }))
            .collect::<Vec<_>>()
    };
    let found = [Oddity::DuplicateScope { first: 64, second: 72 }];
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
    assert_eq!(oddities(&described_twice), []);
}

#[test]
fn acpi_devices_that_do_not_fit_their_declarations_are_found() {
    let unit = |devices: &[u8]| {
        let scopes: Vec<_> = devices.iter().map(|device| scope(5, *device, 0, &[(21, *device)])).collect();
        drhd(0, 0, A.as_u64(), &scopes)
    };
    assert_eq!(oddities(&[unit(&[1, 2]), andd(1, b"A"), andd(2, b"B")]), []);
    let found = oddities(&[unit(&[1]), andd(1, b"A"), andd(1, b"B")]);
    assert_eq!(found, [Oddity::SecondAcpiDevice { device_number: 1 }]);
    let found = oddities(&[unit(&[1, 2]), andd(1, b"A")]);
    assert_eq!(found, [Oddity::UndeclaredAcpiDevice { offset: 72, device_number: 2 }]);
    let found = oddities(&[unit(&[1]), andd(1, b"A"), andd(2, b"B")]);
    assert_eq!(found, [Oddity::AcpiDeviceWithoutUnit { device_number: 2 }]);
    // The numbers of I/O APICs are others.
    let found = oddities(&[drhd(0, 0, A.as_u64(), &[scope(3, 2, 0, &[(31, 0)])]), andd(2, b"B")]);
    assert_eq!(found, [Oddity::AcpiDeviceWithoutUnit { device_number: 2 }]);
}

#[test]
fn what_means_nothing_without_interrupt_remapping_is_found() {
    let with_flags = |flags, scope_type| {
        let scopes =
            [scope(1, 0, 0, &[(2, 0)]), scope(scope_type, 0, 0, &[(3, 0)]), scope(scope_type, 1, 0, &[(4, 0)])];
        let mut bytes = table(&[drhd(0, 0, A.as_u64(), &scopes)]);
        bytes[37] = flags;
        repair_checksum(&mut bytes);
        Dmar::parse(&bytes).unwrap().oddities().collect::<Vec<_>>()
    };
    for scope_type in [3, 4] {
        let source = Oddity::InterruptSourceWithoutRemapping { offset: 72 };
        assert_eq!(with_flags(0b00, scope_type), [source]);
        assert_eq!(with_flags(0b10, scope_type), [Oddity::X2apicOptOutAlone, source]);
        assert_eq!(with_flags(0b01, scope_type), []);
        assert_eq!(with_flags(0b11, scope_type), []);
    }
    assert_eq!(with_flags(0b00, 1), []);
}

#[test]
fn structures_out_of_order_are_found() {
    let found = oddities(&[unit(0, 0, A), region(0x1000, 0x1fff), unit(0, 0, B), region(0x2000, 0x2fff)]);
    assert_eq!(found, [Oddity::OutOfOrder { offset: 104 }]);
    let found = oddities(&[structure(6, &[0; 4]), structure(5, &[0; 4]), structure(5, &[0; 4]), unit(0, 0, A)]);
    assert_eq!(found, [56, 64, 72].map(|offset| Oddity::OutOfOrder { offset }));
    // Nobody knows where an unknown type belongs.
    assert_eq!(oddities(&[structure(7, &[]), unit(0, 0, A)]), []);
}

#[test]
fn an_oddity_says_what_and_where() {
    use std::string::ToString;
    for (oddity, expected) in [
        (
            Oddity::IncludePciAllNotLast { segment: 3, register_base: A },
            "DMAR: unit 0xfed90000 says INCLUDE_PCI_ALL and is not the last of segment 3",
        ),
        (Oddity::DuplicateScope { first: 0x40, second: 0x48 }, "DMAR: device scopes at 0x40 and 0x48 name the same"),
        (Oddity::AcpiDeviceWithoutUnit { device_number: 2 }, "DMAR: no unit serves ACPI device 2"),
        (Oddity::OutOfOrder { offset: 0x68 }, "DMAR: structure at 0x68 stands after a higher type"),
    ] {
        assert_eq!(oddity.to_string(), expected);
    }
}
