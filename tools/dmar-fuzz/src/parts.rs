//! A table taken apart, so that a change of one part leaves the others readable.

/// A table's header and structures.
#[derive(Clone)]
pub struct Parts {
    /// The first 48 bytes.
    pub header: Vec<u8>,
    /// The remapping structures.
    pub structures: Vec<Structure>,
}

/// A structure: what stands before its scopes, and the scopes.
#[derive(Clone)]
pub struct Structure {
    /// Type, length and fixed fields; the whole structure where the type has no scopes.
    pub fixed: Vec<u8>,
    /// The device scopes.
    pub scopes: Vec<Vec<u8>>,
}

/// Where scopes begin in a structure of this type.
pub fn scopes_begin(structure_type: u16) -> Option<usize> {
    match structure_type {
        0 => Some(16),
        1 => Some(24),
        2 | 5 | 6 => Some(8),
        _ => None,
    }
}

impl Parts {
    /// Takes a good table apart; `None` for one that is not good.
    pub fn of(table: &[u8]) -> Option<Self> {
        let (header, mut rest) = table.split_at_checked(48)?;
        let mut structures = Vec::new();
        while let [a, b, c, d, ..] = *rest {
            let length = usize::from(u16::from_le_bytes([c, d]));
            let (structure, others) = rest.split_at_checked(length).filter(|(structure, _)| structure.len() >= 4)?;
            rest = others;
            let begin = scopes_begin(u16::from_le_bytes([a, b])).unwrap_or(length);
            let (fixed, mut scope_bytes) = structure.split_at_checked(begin)?;
            let mut scopes = Vec::new();
            while let [_, length, ..] = *scope_bytes {
                let (scope, others) =
                    scope_bytes.split_at_checked(length.into()).filter(|(scope, _)| scope.len() >= 6)?;
                scopes.push(scope.to_vec());
                scope_bytes = others;
            }
            structures.push(Structure { fixed: fixed.to_vec(), scopes });
        }
        rest.is_empty().then(|| Self { header: header.to_vec(), structures })
    }

    /// Puts the table together, length fields as they stand.
    pub fn bytes(&self) -> Vec<u8> {
        let structures = self.structures.iter().flat_map(|part| [&part.fixed].into_iter().chain(&part.scopes));
        [&self.header].into_iter().chain(structures).flatten().copied().collect()
    }
}

/// Makes signature, length and checksum right, so that a parser reads on.
pub fn repair(table: &mut [u8]) {
    if let Some(signature) = table.get_mut(..4) {
        signature.copy_from_slice(b"DMAR");
    }
    repair_length(table);
    repair_checksum(table);
}

/// Makes the length field that of the table.
pub fn repair_length(table: &mut [u8]) {
    let length = u32::try_from(table.len()).unwrap_or(u32::MAX);
    if let Some(field) = table.get_mut(4..8) {
        field.copy_from_slice(&length.to_le_bytes());
    }
}

/// Makes the bytes that the length field covers add up to 0.
pub fn repair_checksum(table: &mut [u8]) {
    let Some(length) = table.get(4..8).and_then(|field| field.try_into().ok()).map(u32::from_le_bytes) else { return };
    let length = usize::try_from(length).map_or(table.len(), |length| length.min(table.len()));
    let sum = table.iter().take(length).fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(checksum) = table.get_mut(9) {
        *checksum = checksum.wrapping_sub(sum);
    }
}
