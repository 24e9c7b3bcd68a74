//! Every small change to a good table: everything must end, and nothing may panic.

use addr::{Bdf, PciAddress};
use std::format;
use std::vec::Vec;

use super::builder::{everything, repair_checksum, repair_length};
use crate::{Dmar, Structure};

/// Reads everything that can be read, in every way. Returns how many structures and scopes the walk met.
fn exercise(bytes: &[u8]) -> usize {
    let Ok(dmar) = Dmar::parse(bytes) else { return 0 };
    let mut met = 0;
    for structure in dmar.structures() {
        met += 1;
        let scopes = match structure {
            Ok(Structure::Drhd(structure)) => structure.scopes(),
            Ok(Structure::Rmrr(structure)) => {
                assert!(structure.pages() > 0);
                structure.scopes()
            }
            Ok(Structure::Atsr(structure)) => structure.scopes(),
            Ok(Structure::Satc(structure)) => structure.scopes(),
            Ok(Structure::Sidp(structure)) => structure.scopes(),
            Ok(Structure::Rhsa(_) | Structure::Andd(_) | Structure::Unknown(_)) => continue,
            Err(error) => {
                assert!(!format!("{error}").is_empty());
                error.scopes()
            }
        };
        for scope in scopes {
            met += 1;
            match scope {
                Ok(scope) => assert!(scope.path().count() > 0),
                Err(error) => assert!(!format!("{error}").is_empty()),
            }
        }
    }
    let topology = |bridge: PciAddress| (bridge.bdf.device() == 28).then_some((1, 0xff));
    for (bus, device) in [(0, 2), (0, 28), (5, 0)] {
        for segment in 0..2 {
            let address = PciAddress { segment, bdf: Bdf::new(bus, device, 0).unwrap() };
            let unit = dmar.unit_for(address, &topology).map(|unit| unit.register_base);
            assert!(!format!("{unit:?}").is_empty());
            met += dmar.reserved_regions(address, &topology).count();
        }
    }
    met += dmar.hpet(0, &topology).count() + usize::from(dmar.io_apic(2, &topology).is_ok());
    met + dmar.contradictory_scopes().count() + dmar.findings().count() + dmar.oddities().count()
}

/// A walk that does not end would not return; one that runs twice over the same bytes would exceed this.
fn assert_bounded(bytes: &[u8]) {
    let met = exercise(bytes);
    assert!(met <= bytes.len(), "{met} items in {} bytes", bytes.len());
}

#[test]
fn every_byte_replaced() {
    let good = everything();
    assert!(exercise(&good) > 20);
    for index in 0..good.len() {
        for value in [0, 1, 2, 4, 6, 8, 0x7f, 0xff, good[index].wrapping_add(1), good[index].wrapping_sub(1)] {
            let mut bytes = good.clone();
            bytes[index] = value;
            repair_checksum(&mut bytes);
            assert_bounded(&bytes);
        }
    }
}

#[test]
fn every_pair_of_neighbouring_bytes_replaced() {
    let good = everything();
    for index in 0..good.len() - 1 {
        for pair in [[0, 0], [1, 0], [3, 0], [0, 1], [0xff, 0xff], [0x10, 0x27]] {
            let mut bytes = good.clone();
            bytes[index..index + 2].copy_from_slice(&pair);
            repair_checksum(&mut bytes);
            assert_bounded(&bytes);
        }
    }
}

#[test]
fn every_byte_removed_or_doubled() {
    let good = everything();
    for index in 0..good.len() {
        let mut removed = good.clone();
        removed.remove(index);
        let mut doubled = good.clone();
        doubled.insert(index, good[index]);
        for mut bytes in [removed, doubled] {
            repair_length(&mut bytes);
            repair_checksum(&mut bytes);
            assert_bounded(&bytes);
        }
    }
}

#[test]
fn structures_of_one_repeated_byte() {
    for value in 0..=255u8 {
        let mut bytes: Vec<u8> = everything()[..48].to_vec();
        bytes.extend([value; 300]);
        repair_length(&mut bytes);
        repair_checksum(&mut bytes);
        assert_bounded(&bytes);
    }
}
