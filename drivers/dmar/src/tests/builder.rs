//! Builds tables, good ones and bad ones. Offsets and lengths are written out here and not taken from `spec`, so that a
//! mistake there shows.

use std::vec::Vec;

/// A table whose structures are these, with length and checksum right.
pub fn table(structures: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::from(*b"DMAR");
    bytes.extend([0, 0, 0, 0, 1, 0]);
    bytes.extend(b"OEMID OEMTABLE");
    bytes.extend([1, 0, 0, 0]);
    bytes.extend(b"TEST");
    bytes.extend([2, 0, 0, 0]);
    bytes.extend([38, 0b101]);
    bytes.extend([0; 10]);
    assert_eq!(bytes.len(), 48);
    bytes.extend(structures.iter().flatten());
    repair_length(&mut bytes);
    repair_checksum(&mut bytes);
    bytes
}

/// Makes the length field that of the slice.
pub fn repair_length(table: &mut [u8]) {
    let length = u32::try_from(table.len()).unwrap();
    table[4..8].copy_from_slice(&length.to_le_bytes());
}

/// Makes the bytes add up to 0.
pub fn repair_checksum(table: &mut [u8]) {
    table[9] = 0;
    table[9] = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg();
}

/// A structure of this type with this body, its length field right.
pub fn structure(structure_type: u16, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len() + 4).unwrap();
    [&structure_type.to_le_bytes(), &length.to_le_bytes(), body].concat()
}

pub const INCLUDE_PCI_ALL: u8 = 1;

pub fn drhd(flags: u8, segment: u16, base: u64, scopes: &[Vec<u8>]) -> Vec<u8> {
    let body = [&[flags, 0][..], &segment.to_le_bytes(), &base.to_le_bytes(), &scopes.concat()].concat();
    structure(0, &body)
}

pub fn rmrr(segment: u16, base: u64, limit: u64, scopes: &[Vec<u8>]) -> Vec<u8> {
    let body =
        [&[0, 0][..], &segment.to_le_bytes(), &base.to_le_bytes(), &limit.to_le_bytes(), &scopes.concat()].concat();
    structure(1, &body)
}

pub fn rhsa(base: u64, proximity_domain: u32) -> Vec<u8> {
    structure(3, &[&[0; 4][..], &base.to_le_bytes(), &proximity_domain.to_le_bytes()].concat())
}

pub fn atsr(flags: u8, segment: u16, scopes: &[Vec<u8>]) -> Vec<u8> {
    structure(2, &[&[flags, 0][..], &segment.to_le_bytes(), &scopes.concat()].concat())
}

pub fn andd(device_number: u8, name: &[u8]) -> Vec<u8> {
    structure(4, &[&[0, 0, 0, device_number], name, &[0]].concat())
}

pub fn satc(flags: u8, segment: u16, scopes: &[Vec<u8>]) -> Vec<u8> {
    structure(5, &[&[flags, 0][..], &segment.to_le_bytes(), &scopes.concat()].concat())
}

/// A SIDP with one endpoint on bus 0, function 0, that has these flags.
pub fn sidp(segment: u16, device: u8, flags: u8) -> Vec<u8> {
    structure(6, &[&[0, 0][..], &segment.to_le_bytes(), &[1, 8, flags, 0, 0, 0, device, 0]].concat())
}

/// A device scope of this type with its length field right.
pub fn scope(scope_type: u8, enumeration_id: u8, start_bus: u8, path: &[(u8, u8)]) -> Vec<u8> {
    let length = u8::try_from(6 + 2 * path.len()).unwrap();
    let mut bytes = Vec::from([scope_type, length, 0, 0, enumeration_id, start_bus]);
    bytes.extend(path.iter().flat_map(|(device, function)| [*device, *function]));
    bytes
}

pub fn endpoint(bus: u8, device: u8, function: u8) -> Vec<u8> {
    scope(1, 0, bus, &[(device, function)])
}

pub fn sub_hierarchy(bus: u8, device: u8, function: u8) -> Vec<u8> {
    scope(2, 0, bus, &[(device, function)])
}

/// A table with every structure type and every scope type, all of it good.
pub fn everything() -> Vec<u8> {
    table(&[
        drhd(0, 0, 0xfed9_0000, &[endpoint(0, 2, 0)]),
        drhd(
            INCLUDE_PCI_ALL,
            0,
            0xfed9_1000,
            &[scope(3, 2, 0xf0, &[(31, 0)]), scope(4, 0, 0, &[(31, 7)]), scope(5, 1, 0, &[(21, 0)])],
        ),
        drhd(
            0,
            1,
            0xfed9_2000,
            &[sub_hierarchy(0, 28, 0), scope(1, 0, 0, &[(28, 1), (0, 0)]), scope(9, 0, 0, &[(1, 0)])],
        ),
        rmrr(0, 0x7b80_0000, 0x7fff_ffff, &[endpoint(0, 2, 0)]),
        structure(2, &[&[1, 0, 0, 0][..], &sub_hierarchy(0, 1, 0)].concat()),
        rhsa(0xfed9_0000, 3),
        structure(4, b"\0\0\0\x01\\_SB.PCI0.I2C0\0\0\0"),
        structure(5, &[&[1, 0, 0, 0][..], &endpoint(0, 2, 0)].concat()),
        structure(6, &[&[0, 0, 0, 0][..], &[1, 8, 0x1f, 0, 0, 0, 2, 0]].concat()),
        structure(7, b"later"),
    ])
}
