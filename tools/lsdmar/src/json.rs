//! The table as JSON: every field as it stands, numbers in decimal, offsets in bytes from the table's start.
//!
//! A structure or scope is listed if its length can be trusted, with the fields that it has room for; what cannot be read
//! is in `errors`, which only a damaged table has.

use dmar::spec::{andd, atsr, drhd, rhsa, rmrr, satc, scope, sidp, structure, table};
use dmar::{DeviceScopes, Dmar, DmarError};
use serde_json::{Map, Value};

use crate::damage::{damages, scopes};

/// A field: its name, offset and width in bytes.
type Field = (&'static str, usize, usize);

/// The fields of each structure type after type and length.
const STRUCTURES: [(u16, &[Field]); 7] = [
    (
        structure::TYPE_DRHD,
        &[
            ("flags", drhd::FLAGS, 1),
            ("size", drhd::SIZE, 1),
            ("size_log2_pages", drhd::SIZE, 1),
            ("segment", drhd::SEGMENT, 2),
            ("register_base", drhd::REGISTER_BASE, 8),
        ],
    ),
    (
        structure::TYPE_RMRR,
        &[
            ("reserved", rmrr::RESERVED, 2),
            ("segment", rmrr::SEGMENT, 2),
            ("base", rmrr::BASE, 8),
            ("end", rmrr::LIMIT, 8),
        ],
    ),
    (
        structure::TYPE_ATSR,
        &[("flags", atsr::FLAGS, 1), ("reserved", atsr::RESERVED, 1), ("segment", atsr::SEGMENT, 2)],
    ),
    (
        structure::TYPE_RHSA,
        &[
            ("reserved", rhsa::RESERVED, 4),
            ("base", rhsa::REGISTER_BASE, 8),
            ("proximity_domain", rhsa::PROXIMITY_DOMAIN, 4),
        ],
    ),
    (structure::TYPE_ANDD, &[("reserved", andd::RESERVED, 3), ("device_number", andd::DEVICE_NUMBER, 1)]),
    (
        structure::TYPE_SATC,
        &[("flags", satc::FLAGS, 1), ("reserved", satc::RESERVED, 1), ("segment", satc::SEGMENT, 2)],
    ),
    (structure::TYPE_SIDP, &[("reserved", sidp::RESERVED, 2), ("segment", sidp::SEGMENT, 2)]),
];

/// The fields of a device scope after type and path.
const SCOPE: [Field; 5] = [
    ("length", scope::LENGTH, 1),
    ("flags", scope::FLAGS, 1),
    ("reserved", scope::RESERVED, 1),
    ("enumeration_id", scope::ENUMERATION_ID, 1),
    ("start_bus", scope::START_BUS, 1),
];

/// The whole table. `damage` is what [`Dmar::parse_damaged`] said.
pub fn to_json(dmar: &Dmar<'_>, damage: Option<DmarError>) -> Value {
    let bytes = dmar.bytes();
    let mut fields = Map::new();
    insert(&mut fields, bytes, &[("length", table::LENGTH, 4), ("revision", table::REVISION, 1)]);
    fields.insert("checksum_ok".into(), damage.is_none().into());
    insert(
        &mut fields,
        bytes,
        &[
            ("oem_revision", table::OEM_REVISION, 4),
            ("host_address_width", table::HOST_ADDRESS_WIDTH, 1),
            ("flags", table::FLAGS, 1),
        ],
    );
    let structures = dmar.structures().filter_map(|structure| match structure {
        Ok(structure) => Some(structure_as_json(bytes, structure.offset(), scopes(&structure))),
        Err(error) if error.ends_table() => None,
        Err(error) => {
            let scopes = (!error.scopes_lost()).then(|| error.scopes()).filter(|_| error.segment().is_some());
            Some(structure_as_json(bytes, error.offset, scopes))
        }
    });
    fields.insert("structures".into(), structures.collect());
    let errors = damages(dmar, damage);
    if !errors.is_empty() {
        fields.insert("errors".into(), errors.into());
    }
    fields.into()
}

/// The structure at `offset`, whose length is known to be good.
fn structure_as_json(table: &[u8], offset: usize, scopes: Option<DeviceScopes<'_>>) -> Value {
    let rest = table.get(offset..).unwrap_or(&[]);
    let length = number(rest, structure::LENGTH, 2).and_then(|length| usize::try_from(length).ok());
    let bytes = length.and_then(|length| rest.get(..length)).unwrap_or(rest);
    let mut fields = Map::new();
    fields.insert("offset".into(), offset.into());
    insert(&mut fields, bytes, &[("type", structure::TYPE, 2), ("length", structure::LENGTH, 2)]);
    let structure_type = number(bytes, structure::TYPE, 2);
    let known = STRUCTURES.iter().find(|(known, _)| Some(u64::from(*known)) == structure_type);
    insert(&mut fields, bytes, known.map_or(&[], |(_, fields)| fields));
    if let Some(size) = fields.get_mut("size_log2_pages") {
        *size = (size.as_u64().unwrap_or(0) & u64::from(drhd::SIZE_MASK)).into();
    }
    if structure_type == Some(structure::TYPE_ANDD.into())
        && let Some(name) = bytes.get(andd::NAME..)
    {
        let name = name.split(|byte| *byte == 0).next().unwrap_or(name);
        fields.insert("device_name".into(), String::from_utf8_lossy(name).into());
    }
    if let Some(scopes) = scopes {
        fields.insert("scopes".into(), scopes_as_json(table, scopes));
    }
    fields.into()
}

fn scopes_as_json(table: &[u8], scopes: DeviceScopes<'_>) -> Value {
    let scopes = scopes.iter().filter_map(|scope| {
        let offset = match scope {
            Ok(scope) => scope.offset,
            Err(error) if error.ends_scopes() => return None,
            Err(error) => error.offset,
        };
        let rest = table.get(offset..)?;
        let bytes = rest.get(..usize::from(*rest.get(scope::LENGTH)?))?;
        let mut fields = Map::new();
        fields.insert("offset".into(), offset.into());
        insert(&mut fields, bytes, &[("type", scope::TYPE, 1)]);
        let (hops, _) = bytes.get(scope::PATH..)?.as_chunks::<{ scope::HOP }>();
        fields.insert("path".into(), hops.iter().map(|hop| hop.to_vec()).collect());
        insert(&mut fields, bytes, &SCOPE);
        Some(Value::Object(fields))
    });
    scopes.collect()
}

/// Puts in those fields that end before the bytes do.
fn insert(into: &mut Map<String, Value>, bytes: &[u8], fields: &[Field]) {
    for (name, offset, width) in fields {
        if let Some(number) = number(bytes, *offset, *width) {
            into.insert((*name).into(), number.into());
        }
    }
}

/// A little-endian number of up to 8 bytes; `None` where the bytes end before it does.
fn number(bytes: &[u8], offset: usize, width: usize) -> Option<u64> {
    let field = bytes.get(offset..offset.checked_add(width)?)?;
    Some(field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}
