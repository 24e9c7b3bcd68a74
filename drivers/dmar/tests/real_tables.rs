//! Tables of real machines, against what another decoder made of them.
//!
//! The folder is `POSTERN_DMAR_TABLES`, or `shared/dmar-tables` beside the workspace: `NAME.bin` is the table, `NAME.json`
//! its decoding. Without the folder the tests say so and pass.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use addr::{Bdf, PciAddress};
use dmar::{DeviceScopes, Dmar, LookupError, ScopeType, Structure};
use serde_json::{Value, json};

/// Every table of the folder by name, with its decoding.
fn tables(test: &str) -> BTreeMap<String, (Vec<u8>, Value)> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/dmar-tables");
    let folder = std::env::var_os("POSTERN_DMAR_TABLES").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        // Written past the test harness, which keeps what a test that passes prints to itself.
        let _ = writeln!(std::io::stdout(), "SKIPPED: {test}: no tables of real machines in {}", folder.display());
        return BTreeMap::new();
    };
    let files = entries.map(|entry| entry.unwrap().path());
    let tables: BTreeMap<_, _> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "bin"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let decoding = std::fs::read(path.with_extension("json")).unwrap();
            (name, (std::fs::read(&path).unwrap(), serde_json::from_slice(&decoding).unwrap()))
        })
        .collect();
    assert!(!tables.is_empty(), "{} is there and has no table in it", folder.display());
    tables
}

/// Scopes in the form of the decodings.
fn scopes_as_json(scopes: DeviceScopes<'_>) -> Value {
    let scopes = scopes.iter().map(|scope| {
        let scope = scope.unwrap();
        let scope_type = match scope.scope_type {
            ScopeType::PciEndpoint => 1,
            ScopeType::PciSubHierarchy => 2,
            ScopeType::IoApic => 3,
            ScopeType::MsiCapableHpet => 4,
            ScopeType::AcpiNamespaceDevice => 5,
            ScopeType::Unknown(other) => other,
        };
        json!({
            "offset": scope.offset, "type": scope_type, "flags": scope.flags.0, "enumeration_id": scope.enumeration_id,
            "start_bus": scope.start_bus, "path": scope.path().collect::<Vec<_>>(),
        })
    });
    Value::Array(scopes.collect())
}

/// A structure in the form of the decodings, without what this crate does not keep.
fn structure_as_json(structure: Structure<'_>) -> Value {
    match structure {
        Structure::Drhd(drhd) => json!({
            "type": 0, "offset": drhd.offset, "flags": drhd.flags, "segment": drhd.segment,
            "size_log2_pages": (drhd.register_size / 4096).ilog2(), "register_base": drhd.register_base.as_u64(),
            "scopes": scopes_as_json(drhd.scopes()),
        }),
        Structure::Rmrr(rmrr) => json!({
            "type": 1, "offset": rmrr.offset, "segment": rmrr.segment, "base": rmrr.base.as_u64(),
            "end": rmrr.limit.as_u64(), "scopes": scopes_as_json(rmrr.scopes()),
        }),
        Structure::Atsr(atsr) => json!({
            "type": 2, "offset": atsr.offset, "flags": atsr.flags, "segment": atsr.segment,
            "scopes": scopes_as_json(atsr.scopes()),
        }),
        Structure::Rhsa(rhsa) => json!({
            "type": 3, "offset": rhsa.offset, "base": rhsa.register_base.as_u64(),
            "proximity_domain": rhsa.proximity_domain,
        }),
        Structure::Andd(andd) => json!({
            "type": 4, "offset": andd.offset, "device_number": andd.device_number,
            "device_name": std::str::from_utf8(andd.name).unwrap(),
        }),
        Structure::Satc(satc) => json!({
            "type": 5, "offset": satc.offset, "flags": satc.flags, "segment": satc.segment,
            "scopes": scopes_as_json(satc.scopes()),
        }),
        Structure::Sidp(sidp) => json!({
            "type": 6, "offset": sidp.offset, "segment": sidp.segment, "scopes": scopes_as_json(sidp.scopes()),
        }),
        Structure::Unknown(unknown) => json!({ "type": unknown.structure_type, "offset": unknown.offset }),
    }
}

/// Takes from a decoding what [`structure_as_json`] has no counterpart of.
fn comparable(decoding: &Value) -> Value {
    let mut decoding = decoding.clone();
    let fields = decoding.as_object_mut().unwrap();
    for ignored in ["length", "reserved", "size"] {
        fields.remove(ignored);
    }
    for scope in fields.get_mut("scopes").into_iter().flat_map(|scopes| scopes.as_array_mut().unwrap()) {
        let scope = scope.as_object_mut().unwrap();
        scope.remove("length");
        scope.remove("reserved");
    }
    decoding
}

/// Whether a decoded structure is one that this crate must refuse.
fn unusable(decoding: &Value) -> bool {
    match decoding["type"].as_u64() {
        Some(0) => decoding["register_base"] == 0,
        Some(1) => {
            let (base, end) = (decoding["base"].as_u64().unwrap(), decoding["end"].as_u64().unwrap());
            base % 4096 != 0 || end % 4096 != 4095 || end < base
        }
        _ => false,
    }
}

#[test]
fn every_table_decodes_as_another_decoder_does() {
    for (name, (bytes, decoding)) in tables("every_table_decodes_as_another_decoder_does") {
        let dmar = Dmar::parse(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(u64::from(dmar.host_address_width()), decoding["host_address_width"].as_u64().unwrap() + 1);
        assert_eq!(json!(dmar.flags()), decoding["flags"], "{name}");
        assert_eq!(json!(dmar.revision()), decoding["revision"], "{name}");
        let expected = decoding["structures"].as_array().unwrap();
        assert_eq!(dmar.structures().count(), expected.len(), "{name}");
        for (structure, expected) in dmar.structures().zip(expected) {
            let offset = &expected["offset"];
            match structure {
                Ok(structure) => {
                    assert_eq!(structure_as_json(structure), comparable(expected), "{name}");
                    assert!(!unusable(expected), "{name}: {offset}");
                }
                Err(error) => {
                    assert!(unusable(expected), "{name}: {error}");
                    assert_eq!(json!(error.offset), *offset, "{name}");
                    assert_eq!(json!(error.segment()), expected["segment"], "{name}");
                    assert_eq!(scopes_as_json(error.scopes()), comparable(expected)["scopes"], "{name}");
                }
            }
        }
    }
}

#[test]
fn every_named_device_has_one_answer() {
    // Firmware's own bus numbers are not in the tables: bridges are taken to be unconfigured.
    let no_bridges = |_: PciAddress| None;
    for (name, (bytes, _)) in tables("every_named_device_has_one_answer") {
        let dmar = Dmar::parse(&bytes).unwrap();
        for unit in dmar.drhds() {
            for scope in unit.scopes().iter().map(|scope| scope.unwrap()) {
                let Some(address) = scope.address(unit.segment, &no_bridges) else { continue };
                let answer = match scope.scope_type {
                    ScopeType::IoApic => {
                        let answer = dmar.io_apic(scope.enumeration_id, &no_bridges);
                        answer.map(|(unit, source)| {
                            assert_eq!(source, address.bdf, "{name}");
                            unit
                        })
                    }
                    ScopeType::MsiCapableHpet => {
                        let mut sources = dmar.hpet(scope.enumeration_id, &no_bridges);
                        assert!(sources.any(|source| source == Ok((unit, address.bdf))), "{name}");
                        continue;
                    }
                    _ => dmar.unit_for(address, &no_bridges),
                };
                // By register base: there is a machine that describes each unit twice.
                let answer = answer.map(|unit| unit.register_base);
                assert_eq!(answer, Ok(unit.register_base), "{name}: {address}");
            }
        }
        for region in dmar.rmrrs() {
            for scope in region.scopes().iter().map(|scope| scope.unwrap()) {
                let Some(address) = scope.address(region.segment, &no_bridges) else { continue };
                assert!(dmar.reserved_regions(address, &no_bridges).any(|found| found == Ok(region)), "{name}");
            }
        }
    }
}

#[test]
fn a_device_that_no_unit_names_falls_to_include_pci_all() {
    let unnamed = PciAddress { segment: 0, bdf: Bdf::new(0xee, 13, 5).unwrap() };
    for (name, (bytes, decoding)) in tables("a_device_that_no_unit_names_falls_to_include_pci_all") {
        // By register base: there is a machine that describes each unit twice.
        let all: BTreeMap<_, _> = decoding["structures"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|structure| structure["type"] == 0 && structure["flags"] == 1 && structure["segment"] == 0)
            .map(|structure| (structure["register_base"].as_u64(), structure))
            .collect();
        let all: Vec<_> = all.into_values().collect();
        let dmar = Dmar::parse(&bytes).unwrap();
        let answer = dmar.unit_for(unnamed, &|_: PciAddress| None);
        match all[..] {
            [] => assert_eq!(answer, Err(LookupError::NoUnit), "{name}"),
            [only] if unusable(only) => assert!(matches!(answer, Err(LookupError::Unusable(_))), "{name}: {answer:?}"),
            [only] => assert_eq!(json!(answer.unwrap().register_base.as_u64()), only["register_base"], "{name}"),
            _ => assert!(matches!(answer, Err(LookupError::Ambiguous { .. })), "{name}: {answer:?}"),
        }
        let findings: Vec<_> = dmar.findings().map(|finding| finding.to_string()).collect();
        if !findings.is_empty() {
            println!("{name}: {findings:?}");
        }
    }
}
