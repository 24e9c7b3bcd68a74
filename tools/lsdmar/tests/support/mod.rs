//! Tables for the tests, written out byte by byte, and real ones where there are some.

use std::path::PathBuf;
use std::{env, fs};

/// A table of these structures, its length and checksum right.
pub fn table(structures: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::from(*b"DMAR\0\0\0\0\x01\0OEMID OEMTABLE\x02\0\0\0TEST\x01\0\0\0");
    bytes.extend([38, 0b101]);
    bytes.extend([0; 10]);
    bytes.extend(structures.concat());
    let length = u32::try_from(bytes.len()).unwrap();
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    repair_checksum(&mut bytes);
    bytes
}

pub fn repair_checksum(bytes: &mut [u8]) {
    bytes[9] = 0;
    bytes[9] = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg();
}

/// A unit at 0xfed90000 that names 00:02.0.
pub const UNIT: &[u8] = b"\0\0\x18\0\0\0\0\0\0\0\xd9\xfe\0\0\0\0\x01\x08\0\0\0\0\x02\0";
/// A unit at 0xfed91000 with INCLUDE_PCI_ALL, an I/O APIC, an HPET, and the ACPI device 1.
pub const REST: &[u8] = b"\0\0\x28\0\x01\0\0\0\0\x10\xd9\xfe\0\0\0\0\x03\x08\0\0\x02\xf0\x1f\0\x04\x08\0\0\0\0\x1f\0\
    \x05\x08\0\0\x01\0\x15\0";
/// Reserved memory from 0x8000000 to 0x8ffffff for 00:1c.0 -> 00.0.
pub const REGION: &[u8] = b"\x01\0\x22\0\0\0\0\0\0\0\0\x08\0\0\0\0\xff\xff\xff\x08\0\0\0\0\x01\x0a\0\0\0\0\x1c\0\0\0";
/// ACPI device 1.
pub const NAME: &[u8] = b"\x04\0\x0c\0\0\0\0\x01\\_A\0";

/// Raw tables of real machines and what another decoder made of them, by name. None, said by name, where the folder is
/// not: `POSTERN_DMAR_TABLES`, or `shared/dmar-tables` beside the workspace.
pub fn real_tables(test: &str) -> Vec<(String, Vec<u8>, serde_json::Value)> {
    use std::io::Write;
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/dmar-tables");
    let folder = env::var_os("POSTERN_DMAR_TABLES").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let Ok(entries) = fs::read_dir(&folder) else {
        // Written past the test harness, which keeps what a test that passes prints to itself.
        let _ = writeln!(std::io::stdout(), "SKIPPED: {test}: no tables of real machines in {}", folder.display());
        return Vec::new();
    };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let tables = files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "bin"));
    let tables: Vec<_> = tables
        .map(|path| {
            let decoding = serde_json::from_slice(&fs::read(path.with_extension("json")).unwrap()).unwrap();
            (path.file_stem().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap(), decoding)
        })
        .collect();
    assert!(!tables.is_empty(), "{} is there and has no table in it", folder.display());
    tables
}
