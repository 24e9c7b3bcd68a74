//! Structures: each type decoded, each way to be broken.

use addr::HostPhys;
use std::format;
use std::vec;
use std::vec::Vec;

use super::builder::{INCLUDE_PCI_ALL, drhd, endpoint, everything, rhsa, rmrr, structure, table};
use crate::{DeviceScopes, Dmar, ScopeErrorKind, Structure, StructureErrorKind};

/// What the walk over a table with these structures yields, as (offset, kind) for errors and offset for good ones.
fn walk(structures: &[Vec<u8>]) -> Vec<Result<usize, (usize, StructureErrorKind)>> {
    let bytes = table(structures);
    let dmar = Dmar::parse(&bytes).unwrap();
    dmar.structures()
        .map(|result| result.map(|structure| structure.offset()).map_err(|error| (error.offset, error.kind)))
        .collect()
}

fn first_hops(scopes: DeviceScopes<'_>) -> Vec<(u8, u8)> {
    scopes.iter().map(|scope| scope.unwrap().path().next().unwrap()).collect()
}

#[test]
fn every_type_is_decoded() {
    let bytes = everything();
    let structures: Vec<_> = Dmar::parse(&bytes).unwrap().structures().map(Result::unwrap).collect();
    assert_eq!(structures.len(), 10);
    let Structure::Drhd(unit) = structures[1] else { panic!("{:?}", structures[1]) };
    assert!(unit.include_pci_all());
    assert_eq!((unit.register_base, unit.register_size, unit.segment), (HostPhys::new(0xfed9_1000), 4096, 0));
    assert_eq!(unit.scopes().iter().count(), 3);
    let Structure::Drhd(unit) = structures[2] else { panic!("{:?}", structures[2]) };
    assert!(!unit.include_pci_all());
    assert_eq!(unit.segment, 1);
    let Structure::Rmrr(region) = structures[3] else { panic!("{:?}", structures[3]) };
    assert_eq!((region.base.as_u64(), region.limit.as_u64(), region.segment), (0x7b80_0000, 0x7fff_ffff, 0));
    assert_eq!(region.pages(), 0x4800);
    assert_eq!(first_hops(region.scopes()), [(2, 0)]);
    let Structure::Atsr(ports) = structures[4] else { panic!("{:?}", structures[4]) };
    assert!(ports.all_ports());
    assert_eq!(first_hops(ports.scopes()), [(1, 0)]);
    let Structure::Rhsa(affinity) = structures[5] else { panic!("{:?}", structures[5]) };
    assert_eq!((affinity.register_base.as_u64(), affinity.proximity_domain), (0xfed9_0000, 3));
    let Structure::Andd(name) = structures[6] else { panic!("{:?}", structures[6]) };
    assert_eq!((name.device_number, name.name), (1, &b"\\_SB.PCI0.I2C0"[..]));
    let Structure::Satc(caches) = structures[7] else { panic!("{:?}", structures[7]) };
    assert!(caches.atc_required());
    assert_eq!(first_hops(caches.scopes()), [(2, 0)]);
    let Structure::Sidp(properties) = structures[8] else { panic!("{:?}", structures[8]) };
    let flags = properties.scopes().iter().next().unwrap().unwrap().flags;
    assert!(flags.nested_not_allowed() && flags.page_walk_snoop_not_allowed() && flags.page_snoop_not_allowed());
    assert!(flags.atc_hardened() && flags.atc_required());
    let Structure::Unknown(unknown) = structures[9] else { panic!("{:?}", structures[9]) };
    assert_eq!((unknown.structure_type, unknown.bytes), (7, &b"\x07\0\x09\0later"[..]));
}

#[test]
fn the_register_window_has_two_to_the_size_pages() {
    for (size, bytes) in [(0, 4096), (4, 0x1_0000), (0xf4, 0x1_0000), (15, 0x800_0000)] {
        let mut unit = drhd(0, 0, 0x1000_0000, &[]);
        unit[5] = size;
        let table = table(&[unit]);
        assert_eq!(Dmar::parse(&table).unwrap().drhds().next().unwrap().register_size, bytes, "size byte {size:#x}");
    }
}

#[test]
fn a_length_below_the_header_is_one_error_and_the_end() {
    for length in 0..4 {
        for structure_type in [0, 1, 0xff] {
            let broken = vec![structure_type, 0, length, 0];
            let good = drhd(0, 0, 0x1000, &[]);
            let results = walk(&[good.clone(), broken, good]);
            assert_eq!(results, [Ok(48), Err((64, StructureErrorKind::LengthBelowHeader))]);
        }
    }
}

#[test]
fn a_length_past_the_end_is_one_error_and_the_end() {
    let mut broken = drhd(0, 0, 0x1000, &[endpoint(0, 3, 0)]);
    broken[2] += 1;
    let good = drhd(0, 0, 0x2000, &[]);
    let bytes = table(&[good, broken]);
    let mut structures = Dmar::parse(&bytes).unwrap().structures();
    assert!(structures.next().unwrap().is_ok());
    let error = structures.next().unwrap().unwrap_err();
    assert_eq!((error.kind, error.ends_table()), (StructureErrorKind::LengthPastEnd, true));
    assert_eq!(error.segment(), Some(0));
    assert_eq!(first_hops(error.scopes()), [(3, 0)]);
    assert!(structures.next().is_none() && structures.next().is_none());
}

#[test]
fn bytes_too_few_for_a_header_are_one_error_and_the_end() {
    for left in 1..4 {
        let results = walk(&[drhd(0, 0, 0x1000, &[]), vec![0; left]]);
        assert_eq!(results, [Ok(48), Err((64, StructureErrorKind::HeaderCut))]);
    }
}

#[test]
fn a_structure_too_short_for_its_type_voids_itself_only() {
    for (structure_type, minimum) in [(0, 16), (1, 24), (2, 8), (3, 20), (4, 8), (5, 8), (6, 8)] {
        for length in 4..minimum {
            let good = drhd(0, 0, 0x1000, &[]);
            let results = walk(&[structure(structure_type, &vec![0x10; length - 4]), good]);
            let expected = [Err((48, StructureErrorKind::TooShort { minimum })), Ok(48 + length)];
            assert_eq!(results, expected, "type {structure_type}, length {length}");
        }
    }
}

#[test]
fn an_unusable_unit_still_names_its_devices() {
    for (base, kind) in [
        (0, StructureErrorKind::RegisterBaseZero),
        (0xfed9_0800, StructureErrorKind::RegisterBaseUnaligned { base: 0xfed9_0800 }),
        (0xffff_ffff_ffff_f000, StructureErrorKind::RegisterWindowWraps { base: 0xffff_ffff_ffff_f000 }),
    ] {
        let bytes = table(&[drhd(INCLUDE_PCI_ALL, 7, base, &[endpoint(0, 3, 1)]), drhd(0, 0, 0x1000, &[])]);
        let results: Vec<_> = Dmar::parse(&bytes).unwrap().structures().collect();
        let error = results[0].unwrap_err();
        assert_eq!((error.kind, error.ends_table(), error.is_drhd()), (kind, false, true));
        assert_eq!((error.segment(), error.include_pci_all()), (Some(7), Some(true)));
        assert_eq!(first_hops(error.scopes()), [(3, 1)]);
        assert!(results[1].is_ok());
    }
}

#[test]
fn an_unusable_region_still_names_its_devices() {
    for (base, limit, kind) in [
        (0x2000, 0x1fff, StructureErrorKind::RegionLimitBelowBase { base: 0x2000, limit: 0x1fff }),
        (0, 0, StructureErrorKind::RegionUnaligned { base: 0, limit: 0 }),
        (0x1800, 0x2fff, StructureErrorKind::RegionUnaligned { base: 0x1800, limit: 0x2fff }),
        (0x1000, 0x2000, StructureErrorKind::RegionUnaligned { base: 0x1000, limit: 0x2000 }),
    ] {
        let bytes = table(&[rmrr(2, base, limit, &[endpoint(0, 29, 7)]), rmrr(0, 0, 0xfff, &[])]);
        let results: Vec<_> = Dmar::parse(&bytes).unwrap().structures().collect();
        let error = results[0].unwrap_err();
        assert_eq!((error.kind, error.segment(), error.is_rmrr()), (kind, Some(2), true));
        assert_eq!(first_hops(error.scopes()), [(29, 7)]);
        assert!(results[1].is_ok());
    }
}

#[test]
fn a_region_may_reach_the_end_of_the_address_space() {
    let bytes = table(&[rmrr(0, 0, u64::MAX, &[])]);
    assert_eq!(Dmar::parse(&bytes).unwrap().rmrrs().next().unwrap().pages(), 1 << 52);
}

#[test]
fn an_affinity_without_a_register_base_is_an_error() {
    assert_eq!(walk(&[rhsa(0, 1)]), [Err((48, StructureErrorKind::RegisterBaseZero))]);
}

#[test]
fn the_scopes_of_a_structure_with_length_zero_are_not_guessed() {
    let mut broken = drhd(0, 0, 0x1000, &[endpoint(0, 3, 0)]);
    broken[2] = 0;
    let bytes = table(&[broken]);
    let error = Dmar::parse(&bytes).unwrap().structures().next().unwrap().unwrap_err();
    assert!(error.scopes().is_empty());
}

#[test]
fn a_name_without_an_end_goes_to_the_end_of_its_structure() {
    let bytes = table(&[structure(4, b"\0\0\0\x02ABC"), structure(4, b"\0\0\0\x03")]);
    let names: Vec<_> = Dmar::parse(&bytes).unwrap().andds().map(|andd| (andd.device_number, andd.name)).collect();
    assert_eq!(names, [(2, &b"ABC"[..]), (3, &b""[..])]);
}

#[test]
fn an_error_says_where_and_what() {
    let bytes = table(&[rmrr(0, 0x2000, 0x1fff, &[])]);
    let error = Dmar::parse(&bytes).unwrap().structures().next().unwrap().unwrap_err();
    assert_eq!(format!("{error}"), "DMAR structure at 0x30 of type 1: limit 0x1fff below 0x2000");
    let bytes = table(&[drhd(0, 0, 0x1000, &[vec![1, 9, 0, 0, 0, 0, 2, 0]])]);
    let error = Dmar::parse(&bytes).unwrap().drhds().next().unwrap().scopes().iter().next().unwrap().unwrap_err();
    assert_eq!(error.kind, ScopeErrorKind::PastEnd { length: 9, available: 8 });
    assert_eq!(format!("{error}"), "DMAR device scope at 0x40: length 9, but 8 bytes are left in the structure");
}

#[test]
fn an_error_says_of_which_type_the_structure_is() {
    for structure_type in 0..=6 {
        let bytes = table(&[structure(structure_type, &[])]);
        let error = Dmar::parse(&bytes).unwrap().structures().next().unwrap().unwrap_err();
        let types = [error.is_drhd(), error.is_rmrr(), error.is_atsr(), error.is_satc(), error.is_sidp()];
        assert_eq!(types, [0, 1, 2, 5, 6].map(|expected| structure_type == expected));
        assert_eq!(error.structure_type(), Some(structure_type));
        assert_eq!((error.scopes_lost(), error.include_pci_all()), (true, None));
    }
}

#[test]
fn what_a_cut_structure_still_says_is_read() {
    let segments = |bytes: &[u8]| {
        let table = table(&[bytes.to_vec()]);
        let error = Dmar::parse(&table).unwrap().structures().next().unwrap().unwrap_err();
        assert!(error.ends_table());
        (error.segment(), error.include_pci_all(), error.scopes().iter().count())
    };
    let scope = [1, 8, 0, 0, 0, 0, 2, 0];
    let cut = |structure_type: u8, fixed: usize| {
        let mut bytes = vec![structure_type, 0, 99, 0, 1, 0, 7, 0];
        bytes.resize(fixed, 0);
        bytes.extend(scope);
        bytes
    };
    for (structure_type, fixed, include_pci_all) in
        [(0, 16, Some(true)), (1, 24, None), (2, 8, None), (5, 8, None), (6, 8, None)]
    {
        assert_eq!(segments(&cut(structure_type, fixed)), (Some(7), include_pci_all, 1), "type {structure_type}");
        assert_eq!(segments(&cut(structure_type, fixed)[..7]).0, None);
    }
    for without_scopes in [3, 4, 7] {
        assert_eq!(segments(&cut(without_scopes, 24)), (None, None, 0), "type {without_scopes}");
    }
}

#[test]
fn each_error_of_a_structure_says_what() {
    let text = |bytes: Vec<u8>| {
        let table = table(&[bytes]);
        let error = Dmar::parse(&table).unwrap().structures().next().unwrap().unwrap_err();
        format!("{error}")
    };
    for (structure, expected) in [
        (vec![1], "DMAR structure at 0x30: 1 bytes are left in the table"),
        (vec![1, 0, 3, 0], "DMAR structure at 0x30 of type 1: length below 4"),
        (vec![1, 0, 5, 0], "DMAR structure at 0x30 of type 1: length 5, but 4 bytes are left in the table"),
        (vec![1, 0, 4, 0], "DMAR structure at 0x30 of type 1: 4 bytes, its type needs 24"),
        (drhd(0, 0, 0, &[]), "DMAR structure at 0x30 of type 0: register base 0"),
        (drhd(0, 0, 0x800, &[]), "DMAR structure at 0x30 of type 0: register base 0x800 is not aligned"),
        (
            drhd(0, 0, 0xffff_ffff_ffff_f000, &[]),
            "DMAR structure at 0x30 of type 0: registers at 0xfffffffffffff000 wrap",
        ),
        (rmrr(0, 0, 0, &[]), "DMAR structure at 0x30 of type 1: 0x0 to 0x0 is not whole pages"),
    ] {
        assert_eq!(text(structure), expected);
    }
}
