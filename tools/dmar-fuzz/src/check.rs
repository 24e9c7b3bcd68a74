//! What must be true of every input. A violation panics; so does whatever is found broken on the way.

use std::collections::BTreeSet;

use addr::{Bdf, PciAddress};
use dmar::{DeviceScopes, Dmar, ScopeErrorKind, ScopeType, Structure, StructureErrorKind};

use crate::parts::{repair_checksum, scopes_begin};
use crate::reference::{self, Function};

/// What the inputs have reached: a fuzzer that is refused at the door finds nothing.
#[derive(Default)]
pub struct Reached {
    names: BTreeSet<&'static str>,
    /// How many tables were usable.
    pub tables: u64,
    /// How many structures and scopes were read.
    pub items: u64,
}

/// All that there is to reach.
const ALL: [&str; 29] = [
    "DRHD",
    "RMRR",
    "ATSR",
    "RHSA",
    "ANDD",
    "SATC",
    "SIDP",
    "unknown structure",
    "endpoint",
    "sub-hierarchy",
    "I/O APIC",
    "HPET",
    "ACPI device",
    "unknown scope",
    "bridge on a path",
    "structure: header cut",
    "structure: length below header",
    "structure: length past end",
    "structure: too short",
    "structure: base zero",
    "structure: base unaligned",
    "structure: window wraps",
    "structure: limit below base",
    "structure: region unaligned",
    "scope: header cut",
    "scope: past end",
    "scope: too short",
    "scope: odd path",
    "scope: no such function",
];

impl Reached {
    /// What no input has reached.
    pub fn missing(&self) -> Vec<&'static str> {
        ALL.into_iter().filter(|name| !self.names.contains(name)).collect()
    }

    fn note(&mut self, name: &'static str) {
        self.items += 1;
        self.names.insert(name);
    }
}

/// Bridges at 00:1c.0 (buses 1 to 3), 01:03.1 (2 to 3), 80:02.0 (0x81 to 0xff) and 00:1d.0 (not configured), in every
/// segment.
fn bridges((_, bus, device, function): Function) -> Option<(u8, u8)> {
    match (bus, device, function) {
        (0, 0x1c, 0) => Some((1, 3)),
        (1, 3, 1) => Some((2, 3)),
        (0x80, 2, 0) => Some((0x81, 0xff)),
        (0, 0x1d, 0) => Some((0, 0)),
        _ => None,
    }
}

fn topology(bridge: PciAddress) -> Option<(u8, u8)> {
    bridges(function(bridge))
}

fn function(address: PciAddress) -> Function {
    (address.segment, address.bdf.bus(), address.bdf.device(), address.bdf.function())
}

/// Reads the input in every way and compares with the reference. `thorough` adds what takes long.
pub fn check(bytes: &[u8], thorough: bool, reached: &mut Reached) {
    let damaged = Dmar::parse_damaged(bytes);
    match (Dmar::parse(bytes), damaged) {
        (Ok(dmar), Ok((same, None))) => assert_eq!(dmar, same),
        (Err(error), Ok((_, Some(damage)))) => assert_eq!(error, damage),
        (Err(error), Err(same)) => assert_eq!(error, same),
        (parsed, damaged) => panic!("{parsed:?} but {damaged:?}"),
    }
    let Ok((dmar, damage)) = damaged else { return };
    assert!(dmar.bytes().len() >= 48 && bytes.starts_with(dmar.bytes()));
    reached.tables += 1;
    check_walk(&dmar, reached);
    check_lookups(&dmar);
    assert!(dmar.findings().all(|finding| !finding.to_string().is_empty()));
    assert!(dmar.contradictory_scopes().all(|finding| !finding.to_string().is_empty()));
    assert!(dmar.oddities().all(|oddity| !oddity.to_string().is_empty()));
    if thorough {
        check_that_a_structure_voids_itself_only(&dmar);
        check_that_it_is_shown(&dmar, damage);
    }
}

/// The structures and scopes are those of the reference.
fn check_walk(dmar: &Dmar<'_>, reached: &mut Reached) {
    let table = dmar.bytes();
    let expected = reference::structures(table);
    let found: Vec<_> = dmar.structures().collect();
    assert_eq!(found.len(), expected.structures.len() + usize::from(expected.broken_at.is_some()));
    for (structure, (offset, structure_type, bytes)) in found.iter().zip(&expected.structures) {
        let scopes = match structure {
            Ok(structure) => {
                assert_eq!((structure.offset(), structure.structure_type()), (*offset, *structure_type));
                check_fields(structure, bytes, reached)
            }
            Err(error) => {
                assert_eq!(
                    (error.offset, error.structure_type(), error.bytes),
                    (*offset, Some(*structure_type), &bytes[..])
                );
                assert!(!error.ends_table());
                check_error(error, bytes, reached);
                Some(error.scopes())
            }
        };
        let begin = scopes_begin(*structure_type).unwrap_or(bytes.len());
        if let Some(scopes) = scopes {
            check_scopes(scopes, offset + begin, bytes.get(begin..).unwrap_or(&[]), reached);
        }
    }
    if let Some(offset) = expected.broken_at {
        let Some(Err(error)) = found.last() else { panic!("no error at {offset:#x}") };
        assert!(error.offset == offset && error.ends_table() && error.bytes == &table[offset..]);
        assert!(!error.to_string().is_empty());
        reached.note(match error.kind {
            StructureErrorKind::HeaderCut => "structure: header cut",
            StructureErrorKind::LengthBelowHeader => "structure: length below header",
            _ => "structure: length past end",
        });
        assert!(error.scopes().iter().count() <= error.bytes.len());
    }
}

fn check_fields<'a>(structure: &Structure<'a>, bytes: &[u8], reached: &mut Reached) -> Option<DeviceScopes<'a>> {
    let number = |offset, width| reference::number(bytes, offset, width);
    match structure {
        Structure::Drhd(drhd) => {
            reached.note("DRHD");
            assert_eq!(Some(drhd.register_base.as_u64()), reference::unit_base(bytes));
            assert_eq!(drhd.register_size, 4096 << (bytes[5] & 0xf));
            assert_eq!((u64::from(drhd.flags), u64::from(drhd.segment)), (number(4, 1), number(6, 2)));
            Some(drhd.scopes())
        }
        Structure::Rmrr(rmrr) => {
            reached.note("RMRR");
            assert!(reference::region_is_usable(bytes));
            assert_eq!((rmrr.base.as_u64(), rmrr.limit.as_u64()), (number(8, 8), number(16, 8)));
            assert_eq!(u64::from(rmrr.segment), number(6, 2));
            assert!(rmrr.pages() > 0);
            Some(rmrr.scopes())
        }
        Structure::Atsr(atsr) => {
            reached.note("ATSR");
            assert_eq!((u64::from(atsr.flags), u64::from(atsr.segment)), (number(4, 1), number(6, 2)));
            Some(atsr.scopes())
        }
        Structure::Rhsa(rhsa) => {
            reached.note("RHSA");
            assert_eq!((rhsa.register_base.as_u64(), u64::from(rhsa.proximity_domain)), (number(8, 8), number(16, 4)));
            None
        }
        Structure::Andd(andd) => {
            reached.note("ANDD");
            assert!(u64::from(andd.device_number) == number(7, 1) && bytes[8..].starts_with(andd.name));
            assert!(!andd.name.contains(&0));
            None
        }
        Structure::Satc(satc) => {
            reached.note("SATC");
            assert_eq!((u64::from(satc.flags), u64::from(satc.segment)), (number(4, 1), number(6, 2)));
            Some(satc.scopes())
        }
        Structure::Sidp(sidp) => {
            reached.note("SIDP");
            assert_eq!(u64::from(sidp.segment), number(6, 2));
            Some(sidp.scopes())
        }
        Structure::Unknown(unknown) => {
            reached.note("unknown structure");
            assert_eq!(unknown.bytes, bytes);
            None
        }
    }
}

fn check_error(error: &dmar::StructureError<'_>, bytes: &[u8], reached: &mut Reached) {
    assert!(!error.to_string().is_empty());
    match error.kind {
        StructureErrorKind::TooShort { minimum } => {
            reached.note("structure: too short");
            assert!(bytes.len() < minimum && error.scopes_lost());
        }
        kind => {
            reached.note(match kind {
                StructureErrorKind::RegisterBaseZero => "structure: base zero",
                StructureErrorKind::RegisterBaseUnaligned { .. } => "structure: base unaligned",
                StructureErrorKind::RegisterWindowWraps { .. } => "structure: window wraps",
                StructureErrorKind::RegionLimitBelowBase { .. } => "structure: limit below base",
                _ => "structure: region unaligned",
            });
            let usable = match error.structure_type() {
                Some(0) => reference::unit_base(bytes).is_some(),
                Some(1) => reference::region_is_usable(bytes),
                _ => reference::unit_address(reference::number(bytes, 8, 8)),
            };
            assert!(!usable, "{error}");
        }
    }
}

fn check_scopes(scopes: DeviceScopes<'_>, mut offset: usize, bytes: &[u8], reached: &mut Reached) {
    let expected = reference::scopes(bytes);
    let found: Vec<_> = scopes.iter().collect();
    assert_eq!(found.len(), expected.len());
    let mut rest = bytes;
    for (found, expected) in found.iter().zip(&expected) {
        match (found, expected) {
            (Ok(found), Some(expected)) => {
                assert_eq!(found.offset, offset);
                assert_eq!((found.enumeration_id, found.start_bus), (expected.id, expected.bus));
                assert_eq!(found.path().collect::<Vec<_>>(), expected.path);
                reached.note(match found.scope_type {
                    ScopeType::PciEndpoint => "endpoint",
                    ScopeType::PciSubHierarchy => "sub-hierarchy",
                    ScopeType::IoApic => "I/O APIC",
                    ScopeType::MsiCapableHpet => "HPET",
                    ScopeType::AcpiNamespaceDevice => "ACPI device",
                    ScopeType::Unknown(_) => "unknown scope",
                });
                let end = found.address(7, &topology).map(function);
                assert_eq!(end, expected.end(7, &bridges));
                if expected.path.len() > 1 && end.is_some() {
                    reached.note("bridge on a path");
                }
            }
            (Err(error), None) => {
                assert_eq!(error.offset, offset);
                assert!(!error.to_string().is_empty());
                reached.note(match error.kind {
                    ScopeErrorKind::HeaderCut { .. } => "scope: header cut",
                    ScopeErrorKind::PastEnd { .. } => "scope: past end",
                    ScopeErrorKind::TooShort { .. } => "scope: too short",
                    ScopeErrorKind::OddPath { .. } => "scope: odd path",
                    ScopeErrorKind::NoSuchFunction { .. } => "scope: no such function",
                });
            }
            (found, _) => panic!("scope at {offset:#x}: {found:?}"),
        }
        let length = rest.get(1).map_or(rest.len(), |length| usize::from(*length)).min(rest.len());
        rest = &rest[length..];
        offset += length;
    }
}

/// Every lookup of some functions gives what the reference gives, or ends at least.
fn check_lookups(dmar: &Dmar<'_>) {
    let functions = [
        (0, 2, 0),
        (0, 0x15, 0),
        (0, 0x1c, 0),
        (1, 0, 0),
        (2, 3, 1),
        (0x80, 2, 0),
        (0x81, 0, 0),
        (0xff, 0x1f, 7),
        (3, 0, 0),
        (4, 0, 0),
    ];
    for segment in 0..2 {
        for (bus, device, function_number) in functions {
            let Some(bdf) = Bdf::new(bus, device, function_number) else { continue };
            let address = PciAddress { segment, bdf };
            let unit = dmar.unit_for(address, &topology);
            if let Err(error) = &unit {
                assert!(!error.to_string().is_empty());
            }
            let unit = unit.map(|unit| unit.register_base.as_u64()).map_err(|_| ());
            assert_eq!(unit, reference::unit_for(dmar.bytes(), function(address), &bridges), "{address}");
            let regions = dmar.reserved_regions(address, &topology);
            let regions: Vec<_> =
                regions.map(|region| region.map(|region| region.base.as_u64()).map_err(|_| ())).collect();
            assert_eq!(regions, reference::regions(dmar.bytes(), function(address), &bridges), "{address}");
            for port in [None, Some(address)] {
                let _ = dmar.ats(address, port, &topology);
            }
            let _ = dmar.integrated_device_property(address, &topology);
        }
    }
    for number in 0..4 {
        let _ = (dmar.io_apic(number, &topology), dmar.acpi_device(number, &topology));
        assert!(dmar.hpet(number, &topology).count() <= dmar.bytes().len());
    }
}

/// With rubbish in one structure the others are read as before.
fn check_that_a_structure_voids_itself_only(dmar: &Dmar<'_>) {
    let before: Vec<_> = dmar.structures().collect();
    for (index, structure) in before.iter().enumerate() {
        let (offset, ends) = match structure {
            Ok(structure) => (structure.offset(), false),
            Err(error) => (error.offset, error.ends_table()),
        };
        if ends {
            continue;
        }
        let mut table = dmar.bytes().to_vec();
        let length = usize::from(u16::from_le_bytes([table[offset + 2], table[offset + 3]]));
        table[offset + 4..offset + length].fill(0xa5);
        crate::parts::repair_length(&mut table);
        repair_checksum(&mut table);
        let Ok(changed) = Dmar::parse(&table) else { panic!("the header is not good any more") };
        let after: Vec<_> = changed.structures().collect();
        assert_eq!(after.len(), before.len());
        for other in (0..before.len()).filter(|other| *other != index) {
            assert_eq!(before[other], after[other], "a change of structure {index}");
        }
    }
}

/// lsdmar shows it: a tree, JSON with every structure, a picture that is sound XML.
fn check_that_it_is_shown(dmar: &Dmar<'_>, damage: Option<dmar::DmarError>) {
    let structures = reference::structures(dmar.bytes()).structures.len();
    let json = lsdmar::to_json(dmar, damage);
    assert_eq!(json["structures"].as_array().map(Vec::len), Some(structures));
    let damages = lsdmar::damages(dmar, damage);
    assert_eq!(json["errors"].as_array().map_or(0, Vec::len), damages.len());
    let tree = lsdmar::to_tree(dmar, damage, 0, None);
    assert!(tree.lines().count() > structures);
    assert!(!tree.chars().any(|character| character.is_control() && character != '\n'));
    let svg = lsdmar::to_svg(dmar, damage, None);
    if let Err(error) = roxmltree::Document::parse(&svg) {
        panic!("the picture is no XML: {error}");
    }
}
