//! The changes.

use fastrand::Rng;

use crate::parts::{Parts, Structure, repair_checksum, repair_length, scopes_begin};

/// Longest input, in bytes: checks of everything against everything would take too long beyond.
const LONGEST: usize = 4096;

/// Numbers at which something changes: lengths, types, flags, and the ends of their ranges.
const INTERESTING: [u8; 20] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 16, 20, 24, 31, 32, 0x7f, 0x80, 0xff];

/// An input made of one of these tables, with parts of others.
pub fn mutate(seeds: &[Parts], random: &mut Rng) -> Vec<u8> {
    let Some(mut parts) = random.choice(seeds).cloned() else { return Vec::new() };
    for _ in 0..random.u8(1..8) {
        change_parts(&mut parts, seeds, random);
    }
    repair_lengths(&mut parts, random);
    let mut bytes = parts.bytes();
    if random.u8(..4) == 0 {
        for _ in 0..random.u8(1..5) {
            change_bytes(&mut bytes, random);
        }
    }
    bytes.truncate(LONGEST);
    match random.u8(..32) {
        0 => {}
        1 => {
            // A length beyond the bytes, or bytes beyond the length.
            repair_length(&mut bytes);
            if let Some(low) = bytes.get_mut(4) {
                *low = low.wrapping_add(random.u8(..)).wrapping_sub(128);
            }
        }
        _ => repair_length(&mut bytes),
    }
    if random.u8(..32) != 0 {
        repair_checksum(&mut bytes);
    }
    bytes
}

fn change_parts(parts: &mut Parts, seeds: &[Parts], random: &mut Rng) {
    let structures = &mut parts.structures;
    let index = random.usize(..structures.len().max(1));
    let other = random.usize(..structures.len().max(1));
    match random.u8(..12) {
        0 if structures.len() > 1 => {
            structures.remove(index);
        }
        1 if !structures.is_empty() => {
            let copy = structures[index].clone();
            structures.insert(other, copy);
        }
        2 if !structures.is_empty() => structures.swap(index, other),
        3 => {
            let foreign = random.choice(seeds).and_then(|seed| random.choice(&seed.structures));
            structures.extend(foreign.cloned());
        }
        4 => structures.insert(index.min(structures.len()), random_structure(random)),
        5 if !structures.is_empty() => {
            // A scope of one structure in another, be it of that kind or not.
            let scope = random.choice(&structures[index].scopes).cloned();
            structures[other].scopes.extend(scope);
        }
        6 => {
            if let Some(structure) = structures.get_mut(index) {
                change_scopes(&mut structure.scopes, random);
            }
        }
        7 => change_byte(&mut parts.header[36..38], random),
        _ => {
            if let Some(structure) = structures.get_mut(index) {
                if structure.scopes.is_empty() || random.bool() {
                    change_byte(&mut structure.fixed, random);
                } else {
                    let scope = random.usize(..structure.scopes.len());
                    change_byte(&mut structure.scopes[scope], random);
                }
            }
        }
    }
}

/// A structure of any type with the length that its type needs, or nearly.
fn random_structure(random: &mut Rng) -> Structure {
    let structure_type = random.u16(..9);
    let needed = scopes_begin(structure_type).unwrap_or(20);
    let length = if random.u8(..4) == 0 { random.usize(4..40) } else { needed };
    let mut fixed = vec![0; length];
    fixed[..2].copy_from_slice(&structure_type.to_le_bytes());
    for byte in &mut fixed[4..] {
        *byte = if random.u8(..4) == 0 { random.u8(..) } else { 0 };
    }
    let scopes = if scopes_begin(structure_type).is_some() { random.usize(..4) } else { 0 };
    Structure { fixed, scopes: (0..scopes).map(|_| random_scope(random)).collect() }
}

fn random_scope(random: &mut Rng) -> Vec<u8> {
    let mut scope = vec![random.u8(..7), 0, random.u8(..32), 0, random.u8(..4), random.u8(..3)];
    for _ in 0..random.u8(..4) {
        scope.extend([random.u8(..33), random.u8(..9)]);
    }
    scope
}

fn change_scopes(scopes: &mut Vec<Vec<u8>>, random: &mut Rng) {
    let index = random.usize(..scopes.len().max(1));
    match random.u8(..5) {
        0 if !scopes.is_empty() => {
            scopes.remove(index);
        }
        1 if !scopes.is_empty() => {
            let copy = scopes[index].clone();
            scopes.insert(index, copy);
        }
        2 if !scopes.is_empty() => scopes[index].extend([random.u8(..32), random.u8(..8)]),
        3 if !scopes.is_empty() => {
            scopes[index].pop();
        }
        _ => scopes.push(random_scope(random)),
    }
}

fn change_byte(bytes: &mut [u8], random: &mut Rng) {
    if bytes.is_empty() {
        return;
    }
    let index = random.usize(..bytes.len());
    if random.u8(..8) == 0 {
        // An address at the end of its range, or near it.
        let bytes = &mut bytes[index..];
        let longest = random.usize(..8).min(bytes.len());
        bytes[..longest].fill(if random.bool() { 0xff } else { 0 });
        return;
    }
    let byte = &mut bytes[index];
    *byte = match random.u8(..4) {
        0 => *byte ^ 1 << random.u8(..8),
        1 => byte.wrapping_add(random.u8(..3)).wrapping_sub(1),
        2 => random.u8(..),
        _ => random.choice(INTERESTING).unwrap_or(0),
    };
}

/// Bytes come and go without regard to what they are part of.
fn change_bytes(bytes: &mut Vec<u8>, random: &mut Rng) {
    let index = random.usize(..=bytes.len());
    match random.u8(..5) {
        0 => bytes.truncate(index),
        1 => bytes.extend((0..random.u8(..64)).map(|_| random.u8(..))),
        2 if index < bytes.len() => {
            bytes.remove(index);
        }
        3 => bytes.insert(index, random.choice(INTERESTING).unwrap_or(0)),
        _ => change_byte(bytes, random),
    }
}

/// Makes the lengths of structures and scopes right, but for a few.
fn repair_lengths(parts: &mut Parts, random: &mut Rng) {
    for structure in &mut parts.structures {
        for scope in &mut structure.scopes {
            if random.u8(..64) != 0
                && let (Ok(length), Some(field)) = (u8::try_from(scope.len()), scope.get_mut(1))
            {
                *field = length;
            }
        }
        let length = structure.fixed.len() + structure.scopes.iter().map(Vec::len).sum::<usize>();
        if random.u8(..64) != 0
            && let (Ok(length), Some(field)) = (u16::try_from(length), structure.fixed.get_mut(2..4))
        {
            field.copy_from_slice(&length.to_le_bytes());
        }
    }
}
