//! What is refused, and that a refusal changes nothing.

use super::support::{Frames, TestFormat, at, for_each_format, look, table};
use crate::{Format, MapError, PageTable, Permissions, TableMemory};
use addr::{HostPhys, PageSize};

const M2: u64 = 0x20_0000;
const G1: u64 = 0x4000_0000;

for_each_format!(
    ranges_that_no_entry_can_hold_are_refused,
    each_number_of_levels_has_its_width,
    permissions_that_a_format_cannot_say_are_refused,
    a_conflict_anywhere_changes_nothing,
    memory_running_out_at_any_table_of_a_map_changes_nothing,
    memory_running_out_at_any_table_of_a_split_changes_nothing,
    a_malformed_entry_is_reported_and_can_be_cleared,
);

fn ranges_that_no_entry_can_hold_are_refused<F: TestFormat>() {
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    let (permissions, attributes) = F::uses()[0];
    let end = table.input_end();
    let before = memory.contents();
    for (input, host, len, error) in [
        (0, 0, 0, MapError::Empty),
        (0x800, 0, 0x1000, MapError::Misaligned),
        (0, 0x800, 0x1000, MapError::Misaligned),
        (0, 0, 0x1800, MapError::Misaligned),
        (end, 0, 0x1000, MapError::InputOutOfRange),
        (end - 0x1000, 0, 0x2000, MapError::InputOutOfRange),
        (u64::MAX - 0xfff, 0, 0x1000, MapError::InputOutOfRange),
        (u64::MAX - 0xfff, 0, 0x2000, MapError::InputOutOfRange),
        (0x1000, 0, u64::MAX - 0xfff, MapError::InputOutOfRange),
        (0, 1 << 52, 0x1000, MapError::HostOutOfRange),
        (0, (1 << 52) - 0x1000, 0x2000, MapError::HostOutOfRange),
        (0, u64::MAX - 0xfff, 0x1000, MapError::HostOutOfRange),
        (0, u64::MAX - 0xfff, 0x2000, MapError::HostOutOfRange),
    ] {
        let refused = table.map(&mut memory, at::<F>(input), HostPhys::new(host), len, permissions, attributes);
        assert_eq!(refused.unwrap_err(), error, "{input:#x} {host:#x} {len:#x}");
        if error != MapError::HostOutOfRange && host == 0 {
            assert_eq!(table.unmap(&mut memory, at::<F>(input), len).unwrap_err(), error, "{input:#x} {len:#x}");
        }
    }
    assert!(memory.contents() == before);
    assert_eq!(look(&table, &memory, end), None);
    assert_eq!(look(&table, &memory, u64::MAX), None);
}

fn each_number_of_levels_has_its_width<F: TestFormat>() {
    let (permissions, attributes) = F::uses()[0];
    for levels in 0..=8 {
        let mut memory = Frames::default();
        match PageTable::<F>::new(levels, PageSize::Size1G, &mut memory) {
            Ok(mut table) => {
                assert!(F::LEVELS.contains(&levels));
                assert_eq!(table.levels(), levels);
                let last = at::<F>((1 << F::input_bits(levels)) - 0x1000);
                let _ = table.map(&mut memory, last, HostPhys::new(0), 0x1000, permissions, attributes).unwrap();
                assert_eq!(memory.allocated(), u64::from(levels));
                assert_eq!(table.translate(&memory, last).unwrap().host, HostPhys::new(0));
                let flush = table.destroy(&mut memory);
                assert_eq!(flush.detached_tables(), u64::from(levels));
                flush.complete(&crate::NeverLoaded, &mut memory).unwrap();
            }
            Err(error) => {
                assert_eq!(error, MapError::UnsupportedLevels(levels));
                assert!(!F::LEVELS.contains(&levels));
            }
        }
        assert_eq!(memory.allocated(), 0);
    }
    let mut memory = Frames::default();
    memory.left = Some(0);
    assert_eq!(PageTable::<F>::new(4, PageSize::Size4K, &mut memory).unwrap_err(), MapError::OutOfMemory);
}

fn permissions_that_a_format_cannot_say_are_refused<F: TestFormat>() {
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    let (_, attributes) = F::uses()[0];
    let nothing = Permissions { read: false, write: false, execute: false };
    let execute_only = Permissions { read: false, write: false, execute: true };
    for permissions in [nothing, execute_only] {
        let refused = table.map(&mut memory, at::<F>(0), HostPhys::new(0), 0x1000, permissions, attributes);
        assert_eq!(refused.unwrap_err(), MapError::Unsupported);
    }
    // Whatever is accepted can be read back.
    for bits in 0..8 {
        let permissions = Permissions { read: bits & 1 != 0, write: bits & 2 != 0, execute: bits & 4 != 0 };
        let input = at::<F>(bits << 21);
        if let Ok(_flush) = table.map(&mut memory, input, HostPhys::new(0), M2, permissions, attributes) {
            assert_eq!(table.translate(&memory, input).unwrap().permissions, permissions);
        }
    }
}

fn a_conflict_anywhere_changes_nothing<F: TestFormat>() {
    let (permissions, attributes) = F::uses()[0];
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    for (start, len) in [(3 * G1 + 5 * 0x1000, 0x1000), (6 * G1, G1), (5 * G1 + 7 * M2, M2)] {
        let _ = table.map(&mut memory, at::<F>(start), HostPhys::new(start), len, permissions, attributes).unwrap();
    }
    let before = memory.contents();
    for (start, len, conflict) in [
        (3 * G1 + 5 * 0x1000, 0x1000, 3 * G1 + 5 * 0x1000),
        (G1, 4 * G1, 3 * G1 + 5 * 0x1000),
        (0x1000, 3 * G1 + 5 * 0x1000, 3 * G1 + 5 * 0x1000),
        (4 * G1, 4 * G1, 5 * G1 + 7 * M2),
        (5 * G1 + 7 * M2 + 0x1000, 0x1000, 5 * G1 + 7 * M2 + 0x1000),
        (6 * G1 + 0x5000, 0x1000, 6 * G1 + 0x5000),
        (7 * G1 - 0x1000, 2 * G1, 7 * G1 - 0x1000),
    ] {
        let refused = table.map(&mut memory, at::<F>(start), HostPhys::new(0), len, permissions, attributes);
        assert_eq!(refused.unwrap_err(), MapError::AlreadyMapped(at::<F>(conflict)), "{start:#x}");
        assert!(memory.contents() == before, "{start:#x}");
    }
}

fn memory_running_out_at_any_table_of_a_map_changes_nothing<F: TestFormat>() {
    let (permissions, attributes) = F::uses()[0];
    // From a 4 KiB page over 2 MiB and 1 GiB pages to a 4 KiB page: tables of every level at both ends.
    let (start, len) = (512 * G1 - G1 - M2 - 0x1000, 2 * G1 + 2 * M2 + 2 * 0x1000);
    for allowed in 0.. {
        let mut memory = Frames::default();
        let mut table = table::<F>(&mut memory);
        let _ = table.map(&mut memory, at::<F>(0), HostPhys::new(0), 0x1000, permissions, attributes).unwrap();
        let before = memory.contents();
        memory.left = Some(allowed);
        match table.map(&mut memory, at::<F>(start), HostPhys::new(G1 - M2 - 0x1000), len, permissions, attributes) {
            Ok(_flush) => {
                assert_eq!((allowed, memory.left), (5, Some(0)));
                return;
            }
            Err(error) => assert_eq!(error, MapError::OutOfMemory),
        }
        assert!(memory.contents() == before, "{allowed} tables");
        assert_eq!(look(&table, &memory, start), None);
    }
}

fn memory_running_out_at_any_table_of_a_split_changes_nothing<F: TestFormat>() {
    let (permissions, attributes) = F::uses()[0];
    for allowed in 0.. {
        let mut memory = Frames::default();
        let mut table = table::<F>(&mut memory);
        let _ = table.map(&mut memory, at::<F>(0), HostPhys::new(0), 3 * G1, permissions, attributes).unwrap();
        let before = memory.contents();
        memory.left = Some(allowed);
        // From within a 2 MiB part of the first page, over all of the second, into a 2 MiB part of the third.
        match table.unmap(&mut memory, at::<F>(M2 + 0x1000), 2 * G1) {
            Ok(_flush) => {
                assert_eq!((allowed, memory.left), (4, Some(0)));
                return;
            }
            Err(error) => assert_eq!(error, MapError::OutOfMemory),
        }
        assert!(memory.contents() == before, "{allowed} tables");
    }
}

fn a_malformed_entry_is_reported_and_can_be_cleared<F: TestFormat>() {
    let (permissions, attributes) = F::uses()[0];
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    // A leaf at level 4: there is none in any format.
    let value = <F as Format>::table(HostPhys::new(0)) | 1 << 7;
    memory.write_entry(table.root(), 2, value);
    let error = MapError::Malformed { table: table.root(), index: 2, value };
    let within = at::<F>(1024 * G1 + G1);
    assert_eq!(table.translate(&memory, within), None);
    let refused = table.map(&mut memory, within, HostPhys::new(0), 0x1000, permissions, attributes);
    assert_eq!(refused.unwrap_err(), error);
    assert_eq!(table.unmap(&mut memory, within, 0x1000).unwrap_err(), error);
    let flush = table.unmap(&mut memory, at::<F>(1024 * G1), 512 * G1).unwrap();
    assert!(flush.invalidation().unwrap().tables_changed);
    assert_eq!(memory.read_entry(table.root(), 2), 0);
}
