//! What the driver must find, found in another way: slowly, with lists, and straight from the bytes.

/// A structure whose extent is known, or why there is none.
pub struct Walk {
    /// Offset, type and bytes of each structure whose length can be trusted.
    pub structures: Vec<(usize, u16, Vec<u8>)>,
    /// Where a structure begins that ends the table.
    pub broken_at: Option<usize>,
}

/// The structures of a table whose header is good.
pub fn structures(table: &[u8]) -> Walk {
    let mut walk = Walk { structures: Vec::new(), broken_at: None };
    let mut offset = 48;
    while offset < table.len() {
        let length = match table[offset..] {
            [_, _, low, high, ..] => usize::from(low) + 256 * usize::from(high),
            _ => 0,
        };
        if length < 4 || length > table.len() - offset {
            walk.broken_at = Some(offset);
            break;
        }
        let structure_type = u16::from(table[offset]) + 256 * u16::from(table[offset + 1]);
        walk.structures.push((offset, structure_type, table[offset..offset + length].to_vec()));
        offset += length;
    }
    walk
}

/// A device scope that can be read.
pub struct Scope {
    pub scope_type: u8,
    pub id: u8,
    pub bus: u8,
    pub path: Vec<(u8, u8)>,
}

/// The scopes in these bytes, `None` for one that cannot be read.
pub fn scopes(mut bytes: &[u8]) -> Vec<Option<Scope>> {
    let mut scopes = Vec::new();
    while !bytes.is_empty() {
        if bytes.len() < 6 || bytes[1] < 6 || usize::from(bytes[1]) > bytes.len() {
            scopes.push(None);
            break;
        }
        let (scope, rest) = bytes.split_at(bytes[1].into());
        bytes = rest;
        let path: Vec<_> = scope[6..].chunks(2).map(|hop| (hop[0], hop.get(1).copied().unwrap_or(0xff))).collect();
        let good = !path.is_empty() && path.iter().all(|(device, function)| *device < 32 && *function < 8);
        scopes.push(good.then(|| Scope { scope_type: scope[0], id: scope[4], bus: scope[5], path }));
    }
    scopes
}

/// A PCI function: segment, bus, device, function.
pub type Function = (u16, u8, u8, u8);

/// Secondary and subordinate bus of a bridge.
pub type Bridges<'t> = &'t dyn Fn(Function) -> Option<(u8, u8)>;

impl Scope {
    /// The function at the path's end.
    pub fn end(&self, segment: u16, bridges: Bridges<'_>) -> Option<Function> {
        let mut at = (segment, self.bus, self.path[0].0, self.path[0].1);
        for (device, function) in &self.path[1..] {
            let (secondary, _) = bridges(at)?;
            if secondary == 0 {
                return None;
            }
            at = (segment, secondary, *device, *function);
        }
        Some(at)
    }
}

/// A number of `width` bytes at `offset`.
pub fn number(bytes: &[u8], offset: usize, width: usize) -> u64 {
    (0..width).map(|index| u64::from(bytes[offset + index]) << (8 * index)).sum()
}

/// Whether the scopes of a structure, which begin at `begin`, name a function, name a bridge above it, or cannot be read.
fn relation(bytes: &[u8], begin: usize, segment: u16, device: Function, bridges: Bridges<'_>) -> (bool, bool, bool) {
    let (mut named, mut below, mut doubt) = (false, false, false);
    if segment != device.0 {
        return (false, false, false);
    }
    for scope in scopes(bytes.get(begin..).unwrap_or(&[])) {
        let Some(scope) = scope else {
            doubt = true;
            continue;
        };
        if !matches!(scope.scope_type, 1 | 2 | 5) {
            continue;
        }
        let Some(end) = scope.end(segment, bridges) else { continue };
        named |= end == device;
        let behind = bridges(end).filter(|(secondary, _)| *secondary != 0 && scope.scope_type != 5);
        below |= behind.is_some_and(|(first, last)| first <= device.1 && device.1 <= last);
    }
    (named, below, doubt)
}

/// Bases of the reserved regions of a function, in order; `Err` for one that cannot be used, or may be its.
pub fn regions(table: &[u8], device: Function, bridges: Bridges<'_>) -> Vec<Result<u64, ()>> {
    let walk = structures(table);
    let mut regions = Vec::new();
    for (_, structure_type, bytes) in walk.structures {
        if structure_type != 1 {
            continue;
        }
        if bytes.len() < 8 {
            regions.push(Err(()));
            continue;
        }
        let segment = u16::try_from(number(&bytes, 6, 2)).unwrap_or(0);
        let (named, below, doubt) = relation(&bytes, 24, segment, device, bridges);
        let lost = bytes.len() < 24 && segment == device.0;
        if named || below {
            regions.push(if region_is_usable(&bytes) { Ok(number(&bytes, 8, 8)) } else { Err(()) });
        } else if doubt || lost {
            regions.push(Err(()));
        }
    }
    regions.extend(walk.broken_at.map(|_| Err(())));
    regions
}

/// Register base of the unit that serves a function; `Err` where the table leaves a doubt or names none.
pub fn unit_for(table: &[u8], device: Function, bridges: Bridges<'_>) -> Result<u64, ()> {
    let walk = structures(table);
    let mut doubt = walk.broken_at.is_some();
    // At each rank, the bases of the units; `None` for one that cannot be used.
    let (mut named, mut below, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    let cut = walk.broken_at.map(|offset| cut_structure(table, offset));
    let cut = cut.into_iter().flatten().map(|(structure_type, bytes)| (structure_type, bytes, true));
    let whole = walk.structures.into_iter().map(|(_, structure_type, bytes)| (structure_type, bytes, false));
    for (structure_type, bytes, is_cut) in whole.chain(cut) {
        if structure_type != 0 {
            continue;
        }
        let segment = if bytes.len() < 8 { None } else { u16::try_from(number(&bytes, 6, 2)).ok() };
        if bytes.len() < 16 {
            doubt = true;
        }
        let base = unit_base(&bytes).filter(|_| !is_cut);
        let Some(segment) = segment else { continue };
        let (is_named, is_below, is_doubtful) = relation(&bytes, 16, segment, device, bridges);
        doubt |= is_doubtful;
        if is_named {
            named.push(base);
        } else if is_below {
            below.push(base);
        }
        if segment == device.0 && bytes[4] & 1 != 0 {
            rest.push(base);
        }
    }
    let one = |bases: &[Option<u64>]| {
        let first = bases[0].ok_or(())?;
        if bases.iter().all(|base| *base == Some(first)) { Ok(first) } else { Err(()) }
    };
    if !named.is_empty() {
        one(&named)
    } else if !below.is_empty() {
        one(&below)
    } else if doubt || rest.is_empty() {
        Err(())
    } else {
        one(&rest)
    }
}

/// What is left of a structure that ends the table, if its length does not say that nothing is.
fn cut_structure(table: &[u8], offset: usize) -> Option<(u16, Vec<u8>)> {
    let bytes = table.get(offset..)?.to_vec();
    if bytes.len() < 2 {
        return None;
    }
    let structure_type = u16::try_from(number(&bytes, 0, 2)).ok()?;
    // With a length below 4 nothing says where the scopes end.
    let keep = if bytes.len() >= 4 && number(&bytes, 2, 2) < 4 { bytes.len().min(16) } else { bytes.len() };
    Some((structure_type, bytes[..keep].to_vec()))
}

/// The register base of a unit that can be used.
pub fn unit_base(drhd: &[u8]) -> Option<u64> {
    if drhd.len() < 16 {
        return None;
    }
    let base = number(drhd, 8, 8);
    let size = 4096u64 << (drhd[5] & 0xf);
    (unit_address(base) && base.checked_add(size).is_some()).then_some(base)
}

/// Whether a unit can be at this address.
pub fn unit_address(base: u64) -> bool {
    base != 0 && base & 0xfff == 0
}

/// Whether a whole RMRR can be used.
pub fn region_is_usable(rmrr: &[u8]) -> bool {
    if rmrr.len() < 24 {
        return false;
    }
    let (base, limit) = (number(rmrr, 8, 8), number(rmrr, 16, 8));
    base <= limit && base & 0xfff == 0 && limit & 0xfff == 0xfff
}
