//! The tables that inputs are made of.

use std::fs;
use std::io;
use std::path::Path;

use crate::parts::Parts;

/// Tables with every type of structure and scope.
pub fn built_in() -> Vec<Parts> {
    let desktop: &[&[u8]] = &[
        // A unit for 00:02.0, and one for the rest with an I/O APIC, two source-ids of an HPET and an ACPI device.
        b"\0\0\x18\0\0\0\0\0\0\0\xd9\xfe\0\0\0\0\x01\x08\0\0\0\0\x02\0",
        b"\0\0\x30\0\x01\0\0\0\0\x10\xd9\xfe\0\0\0\0\x03\x08\0\0\x02\xf0\x1f\0\x04\x08\0\0\0\xf0\x0f\0\
          \x04\x08\0\0\0\xf0\x0f\x01\x05\x08\0\0\x01\0\x15\0",
        b"\x01\0\x20\0\0\0\0\0\0\0\0\x7b\0\0\0\0\xff\xff\xff\x7f\0\0\0\0\x01\x08\0\0\0\0\x02\0",
        b"\x01\0\x28\0\0\0\0\0\0\0\x0e\0\0\0\0\0\xff\x7f\x0e\0\0\0\0\0\x01\x08\0\0\0\0\x1d\0\x01\x08\0\0\0\0\x1a\0",
        b"\x04\0\x17\0\0\0\0\x01\\_SB.PCI0.I2C0\0",
        b"\x05\0\x10\0\x01\0\0\0\x01\x08\0\0\0\0\x02\0",
        b"\x06\0\x18\0\0\0\0\0\x01\x08\x1f\0\0\0\x02\0\x01\x08\x1c\0\0\0\x05\0",
    ];
    let server: &[&[u8]] = &[
        // Units of two segments, with bridges and a path over one; ports with ATS; affinities; a type to come.
        b"\0\0\x2a\0\0\x04\0\0\0\xc0\xff\xfb\0\0\0\0\x02\x08\0\0\0\x80\x02\0\x02\x08\0\0\0\x80\x03\0\
          \x01\x0a\0\0\0\x80\x1c\0\0\x04",
        b"\0\0\x18\0\x01\0\x01\0\0\xc0\xff\xc5\0\0\0\0\x01\x08\0\0\0\0\x02\0",
        b"\0\0\x18\0\x01\0\0\0\0\xc0\xff\x9b\0\0\0\0\x03\x08\0\0\x08\x01\x1e\x07",
        b"\x01\0\x24\0\0\0\x01\0\0\0\xf7\x6b\0\0\0\0\xff\xff\xf7\x6b\0\0\0\0\x01\x0c\0\0\0\0\x1c\0\0\0\x03\x01",
        b"\x02\0\x18\0\0\0\0\0\x02\x08\0\0\0\x80\x02\0\x02\x08\0\0\0\x80\x03\0",
        b"\x02\0\x08\0\x01\0\x01\0",
        b"\x03\0\x14\0\0\0\0\0\0\xc0\xff\xfb\0\0\0\0\x01\0\0\0",
        b"\x03\0\x14\0\0\0\0\0\0\xc0\xff\x9b\0\0\0\0\0\0\0\0",
        b"\x09\0\x09\0later",
    ];
    [desktop, server]
        .into_iter()
        .filter_map(|structures| Parts::of(&[&header(), structures.concat().as_slice()].concat()))
        .collect()
}

fn header() -> Vec<u8> {
    let mut header = Vec::from(*b"DMAR\0\0\0\0\x01\0OEMID OEMTABLE\x01\0\0\0FUZZ\x01\0\0\0");
    header.extend([38, 0b101]);
    header.resize(48, 0);
    header
}

/// The good tables among the files `*.bin` of a folder, in the order of their names.
pub fn from_folder(folder: &Path) -> io::Result<Vec<Parts>> {
    let mut files: Vec<_> =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "bin"));
    files.sort();
    let tables: Vec<_> = files.iter().map(fs::read).collect::<Result<_, _>>()?;
    Ok(tables.iter().filter_map(|table| Parts::of(table)).collect())
}
