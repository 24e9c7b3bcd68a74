//! Firmware's reserved memory, from a DMAR table to a unit in software: what the named device reaches, and what a table
//! that lies can open.

#[path = "../../model/tests/support/mod.rs"]
mod support;

use addr::{Bdf, HostPhys, PciAddress};
use dmar::Dmar;
use model::Configuration;
use postern::passthrough::reserved_memory;
use postern::passthrough::selection::Bridges;
use support::{Board, NIC, OTHER, SETTINGS};

/// The unit's registers' address in the tables here.
const UNIT: u64 = 0xfed9_0000;
/// The memory that the map calls reserved: firmware's own, and where the machine's registers are.
const RESERVED: [std::ops::Range<u64>; 2] = [0x300_0000..0x380_0000, 0xfed0_0000..0xff00_0000];

/// A DMAR table with one unit for all devices, and reserved regions `(first byte, last byte, device)`.
fn table(regions: &[(u64, u64, Bdf)]) -> Vec<u8> {
    let mut structures = Vec::new();
    for (base, limit, device) in regions {
        structures.extend_from_slice(&[1, 0, 32, 0, 0, 0, 0, 0]);
        structures.extend_from_slice(&base.to_le_bytes());
        structures.extend_from_slice(&limit.to_le_bytes());
        structures.extend_from_slice(&[1, 8, 0, 0, 0, device.bus(), device.device(), device.function()]);
    }
    let mut bytes = b"DMAR".to_vec();
    bytes.extend_from_slice(&(64 + structures.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&[1, 0]);
    bytes.resize(36, b' ');
    bytes.extend_from_slice(&[47, 1]);
    bytes.resize(48, 0);
    bytes.extend_from_slice(&[0, 0, 16, 0, 1, 0, 0, 0]);
    bytes.extend_from_slice(&UNIT.to_le_bytes());
    bytes.extend_from_slice(&structures);
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[9] = bytes[9].wrapping_sub(sum);
    bytes
}

/// Brings a unit up with the table's reserved memory; returns it with the devices that got something.
fn up(configuration: Configuration, regions: &[(u64, u64, Bdf)]) -> (Board, Vec<PciAddress>) {
    let bytes = table(regions);
    let dmar = Dmar::parse(&bytes).unwrap();
    let mut board = Board::probe(configuration);
    let (unit, memory) = (&mut board.unit, &mut board.memory);
    unit.stop_firmware().unwrap();
    unit.mask_and_clear_faults().unwrap();
    unit.enable_queue(memory).unwrap();
    unit.create_root_table(memory).unwrap();
    let is_firmwares = |frame: HostPhys| RESERVED.iter().any(|range| range.contains(&frame.as_u64()));
    let mut next_domain = 1;
    let base = HostPhys::new(UNIT);
    let mapped = reserved_memory::map_all(unit, memory, base, &dmar, &Bridges(&[]), is_firmwares, &mut next_domain);
    assert_eq!(usize::from(next_domain), 1 + mapped.len(), "one domain id a device");
    unit.set_root_table(memory).unwrap();
    unit.set_interrupt_table(memory, 256, SETTINGS.destination_mode).unwrap();
    unit.enable_interrupt_remapping().unwrap();
    unit.enable_translation().unwrap();
    (board, mapped)
}

#[test]
fn a_named_device_keeps_all_its_regions_and_nobody_else_gets_them() {
    for (name, configuration) in support::kinds() {
        if !configuration.extended_interrupt_mode {
            continue;
        }
        let regions = [(0x300_0000, 0x300_1fff, NIC), (0x320_0000, 0x33f_ffff, NIC)];
        let (board, mapped) = up(configuration, &regions);
        assert_eq!(mapped, [PciAddress { segment: 0, bdf: NIC }], "{name}");
        for address in [0x300_0000, 0x300_1ffc, 0x320_0000, 0x33f_fffc] {
            assert_eq!(board.write(NIC, address), Ok(address), "{name} {address:#x}");
            assert!(board.write(OTHER, address).is_err(), "{name} {address:#x}");
        }
        for address in [0, 0x2ff_fffc, 0x300_2000, 0x340_0000, support::SECRET] {
            assert!(board.write(NIC, address).is_err(), "{name} {address:#x}");
        }
        board.done();
    }
}

#[test]
fn a_table_that_lies_opens_nothing() {
    let lies = [
        // The hypervisor's or a guest's memory, whole or in part; everything.
        (0, 0xfff),
        (0x2ff_f000, 0x300_0fff),
        (0x37f_f000, 0x380_0fff),
        (0, u64::MAX - 0xfff - 1),
        // A unit's registers, with which the device could switch it off, and the addresses of interrupts.
        (UNIT, UNIT),
        (UNIT - 0x1000, UNIT + 0x1000),
        (0xfee0_0000, 0xfee0_0000),
        (0xfedf_f000, 0xfee0_0000),
    ];
    for (base, limit) in lies {
        let (board, mapped) = up(Configuration::default(), &[(base, limit | 0xfff, NIC)]);
        assert_eq!(mapped, [], "{base:#x}");
        for address in [0, base, 0x300_0000, 0x37f_f000] {
            assert!(board.write(NIC, address).is_err(), "{base:#x}: {address:#x}");
        }
        board.done();
    }
}

#[test]
fn a_good_region_survives_a_bad_one_of_the_same_device() {
    let regions = [(0, 0xfff, NIC), (0x300_0000, 0x300_0fff, NIC), (0x300_0000, 0x300_0fff, NIC)];
    let (board, mapped) = up(Configuration::default(), &regions);
    assert_eq!(mapped.len(), 1);
    assert_eq!(board.write(NIC, 0x300_0000), Ok(0x300_0000));
    assert!(board.write(NIC, 0).is_err());
    board.done();
}
