//! What is refused, and that a refusal changes nothing.

use super::support::{Frames, TestFormat, at, for_each_format, look, table};
use crate::{Entry, Limits, MapError, PageTable, Permissions, SecondStage, SecondStageAttributes, TableMemory};
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
    a_malformed_page_is_never_passed_over,
    what_the_hardware_lacks_is_refused,
    memory_running_out_at_any_table_changes_nothing_of_a_use,
    pages_are_mapped_up_to_the_last_address,
    an_address_beyond_is_never_taken_for_one_within,
    a_page_larger_than_all_there_is_is_refused,
    a_malformed_entry_is_never_taken_for_a_table,
    memory_running_out_at_any_table_of_a_page_changes_nothing,
);

fn ranges_that_no_entry_can_hold_are_refused<F: TestFormat>() {
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    let (permissions, attributes) = F::uses()[0];
    let end = table.input_end();
    let bits = end.trailing_zeros();
    let before = memory.contents();
    for (input, host, len, error) in [
        (0, 0, 0, MapError::Empty),
        (0x800, 0, 0x1000, MapError::Misaligned),
        (0, 0x800, 0x1000, MapError::Misaligned),
        (0, 0, 0x1800, MapError::Misaligned),
        (0x800, 0, 0x800, MapError::Misaligned),
        (end, 0, 0x1000, MapError::InputOutOfRange { bits }),
        (end - 0x1000, 0, 0x2000, MapError::InputOutOfRange { bits }),
        (u64::MAX - 0xfff, 0, 0x1000, MapError::InputOutOfRange { bits }),
        (u64::MAX - 0xfff, 0, 0x2000, MapError::InputOutOfRange { bits }),
        (0x1000, 0, u64::MAX - 0xfff, MapError::InputOutOfRange { bits }),
        (0, 1 << 52, 0x1000, MapError::HostOutOfRange { bits: 52 }),
        (0, (1 << 52) - 0x1000, 0x2000, MapError::HostOutOfRange { bits: 52 }),
        (0, u64::MAX - 0xfff, 0x1000, MapError::HostOutOfRange { bits: 52 }),
        (0, u64::MAX - 0xfff, 0x2000, MapError::HostOutOfRange { bits: 52 }),
    ] {
        let refused = table.map(&mut memory, at::<F>(input), HostPhys::new(host), len, permissions, attributes);
        assert_eq!(refused.unwrap_err(), error, "{input:#x} {host:#x} {len:#x}");
        if host == 0 {
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
                assert_eq!(flush.detached_tables(&mut memory), u64::from(levels));
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
    let value = F::TABLE | 1 << 7;
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

fn a_malformed_page_is_never_passed_over<F: TestFormat>() {
    let (permissions, attributes) = F::uses()[0];
    let mut memory = Frames::default();
    let mut table = table::<F>(&mut memory);
    let _ = table.map(&mut memory, at::<F>(0), HostPhys::new(0x1000), M2, permissions, attributes).unwrap();
    let mut leaves = HostPhys::new(0);
    table.for_each_table(&memory, |at, level| leaves = if level == 1 { at } else { leaves });
    // Page 9 becomes something that is no page, and 7 too.
    for (index, level) in [(9, 1), (7, 1)] {
        let good = memory.read_entry(leaves, index);
        let bad = (0..64).map(|bit| good ^ 1 << bit).find(|bad| matches!(F::decode(*bad, level), Entry::Malformed));
        let Some(bad) = bad else { return };
        memory.write_entry(leaves, index, bad);
    }
    let value = memory.read_entry(leaves, 7);
    let error = MapError::Malformed { table: leaves, index: 7, value };
    let before = memory.contents();
    let (other, attributes) = F::uses()[1];
    let refused = table.protect(&mut memory, at::<F>(0), M2, other, attributes);
    assert_eq!(refused.unwrap_err(), error);
    let refused = table.map(&mut memory, at::<F>(0x7000), HostPhys::new(0), 0x1000, permissions, attributes);
    assert_eq!(refused.unwrap_err(), error);
    assert!(memory.contents() == before);
    assert_eq!(look(&table, &memory, 0x7000), None);
    // Outside of it a change is fine, and unmapping takes it out.
    let _ = table.protect(&mut memory, at::<F>(0xa000), 0x1000, other, attributes).unwrap();
    let flush = table.unmap(&mut memory, at::<F>(0x6000), 0x2000).unwrap();
    let change = *flush.invalidation().unwrap();
    assert_eq!((change.start, change.len, change.tables_changed), (at::<F>(0x6000), 0x2000, true));
    let flush = table.unmap(&mut memory, at::<F>(0x9000), 0x1000).unwrap();
    assert_eq!(flush.invalidation().unwrap().start, at::<F>(0x9000));
    assert_eq!([7, 9].map(|index| memory.read_entry(leaves, index)), [0, 0]);
    assert_eq!(look(&table, &memory, 0x8000).unwrap().0, 0x9000);
}

fn what_the_hardware_lacks_is_refused<F: TestFormat>() {
    let (permissions, attributes) = F::uses()[0];
    let limits = Limits::new(4, PageSize::Size1G).with_input_bits(39).with_host_bits(36);
    let mut memory = Frames::default();
    let mut table = PageTable::<F>::with_limits(limits, &mut memory).unwrap();
    assert_eq!(table.input_end(), 1 << 39);
    for len in [0x1000, 0x2000, M2, G1] {
        let before = memory.contents();
        let (input, host) = (at::<F>((1 << 39) - len), HostPhys::new((1 << 36) - len));
        let beyond = at::<F>((1 << 39) - len + 0x1000);
        let refused = table.map(&mut memory, beyond, host, len, permissions, attributes);
        assert_eq!(refused.unwrap_err(), MapError::InputOutOfRange { bits: 39 });
        let refused = table.map(&mut memory, at::<F>(1 << 39), host, len, permissions, attributes);
        assert_eq!(refused.unwrap_err(), MapError::InputOutOfRange { bits: 39 });
        let refused = table.unmap(&mut memory, at::<F>(1 << 39), len);
        assert_eq!(refused.unwrap_err(), MapError::InputOutOfRange { bits: 39 });
        for beyond in [(1 << 36) - len + 0x1000, 1 << 36, 1 << 51] {
            let refused = table.map(&mut memory, input, HostPhys::new(beyond), len, permissions, attributes);
            assert_eq!(refused.unwrap_err(), MapError::HostOutOfRange { bits: 36 }, "{beyond:#x}");
        }
        assert!(memory.contents() == before);
        let _ = table.map(&mut memory, input, host, len, permissions, attributes).unwrap();
        let _ = table.unmap(&mut memory, at::<F>(0), 1 << 39).unwrap();
    }
    // More bits than the format has change nothing.
    let limits = Limits::new(4, PageSize::Size4K).with_input_bits(64).with_host_bits(64);
    let table = PageTable::<F>::with_limits(limits, &mut memory).unwrap();
    assert_eq!(table.input_end(), 1 << F::input_bits(4));
}

fn memory_running_out_at_any_table_changes_nothing_of_a_use<F: TestFormat>() {
    let (first, second) = (F::uses()[0], F::uses()[1]);
    for allowed in 0.. {
        let mut memory = Frames::default();
        let mut table = table::<F>(&mut memory);
        let _ = table.map(&mut memory, at::<F>(0), HostPhys::new(0), 2 * G1, first.0, first.1).unwrap();
        let before = memory.contents();
        memory.left = Some(allowed);
        match table.protect(&mut memory, at::<F>(M2 + 0x1000), G1, second.0, second.1) {
            Ok(_flush) => {
                assert_eq!((allowed, memory.left), (4, Some(0)));
                return;
            }
            Err(error) => assert_eq!(error, MapError::OutOfMemory),
        }
        assert!(memory.contents() == before, "{allowed} tables");
    }
}

fn pages_are_mapped_up_to_the_last_address<F: TestFormat>() {
    let (permissions, attributes) = F::uses()[0];
    for levels in F::LEVELS {
        for len in [0x1000, 0x3000, M2, G1] {
            let mut memory = Frames::default();
            let mut table = PageTable::<F>::new(levels, PageSize::Size1G, &mut memory).unwrap();
            let last = table.input_end() - len;
            let host = HostPhys::new((1 << 52) - len);
            let _ = table.map(&mut memory, at::<F>(last), host, len, permissions, attributes).unwrap();
            assert_eq!(look(&table, &memory, table.input_end() - 1).unwrap().0, (1 << 52) - 1);
            let _ = table.unmap(&mut memory, at::<F>(last), len).unwrap();
            assert_eq!(look(&table, &memory, table.input_end() - 1), None);
        }
    }
}

fn an_address_beyond_is_never_taken_for_one_within<F: TestFormat>() {
    let (permissions, attributes) = F::uses()[0];
    for (levels, bits) in F::LEVELS.flat_map(|levels| [(levels, u8::MAX), (levels, 36)]) {
        for len in [0x1000, M2, G1] {
            let mut memory = Frames::default();
            let limits = Limits::new(levels, PageSize::Size1G).with_input_bits(bits);
            let mut table = PageTable::<F>::with_limits(limits, &mut memory).unwrap();
            let end = table.input_end();
            let error = MapError::InputOutOfRange { bits: end.trailing_zeros() };
            let _ = table.map(&mut memory, at::<F>(0), HostPhys::new(0), len, permissions, attributes).unwrap();
            let before = memory.contents();
            // The page that is there, and the free one beside it, if the bits beyond were dropped.
            for beyond in [end, 2 * end, 1 << 63] {
                assert_eq!(table.unmap(&mut memory, at::<F>(beyond), len).unwrap_err(), error);
                let beyond = at::<F>(beyond + len);
                let refused = table.map(&mut memory, beyond, HostPhys::new(0), len, permissions, attributes);
                assert_eq!(refused.unwrap_err(), error);
            }
            assert!(memory.contents() == before);
        }
    }
}

fn a_page_larger_than_all_there_is_is_refused<F: TestFormat>() {
    let (permissions, attributes) = F::uses()[0];
    for len in [M2, G1] {
        // Half a page of inputs, and half a page of host memory.
        let bits = len.trailing_zeros() - 1;
        let all = Limits::new(4, PageSize::Size1G);
        let mut memory = Frames::default();
        let mut table = PageTable::<F>::with_limits(all.with_input_bits(bits as u8), &mut memory).unwrap();
        let (start, host) = (at::<F>(0), HostPhys::new(0));
        let _ = table.map(&mut memory, start, host, 0x1000, permissions, attributes).unwrap();
        let refused = table.unmap(&mut memory, start, len);
        assert_eq!(refused.unwrap_err(), MapError::InputOutOfRange { bits });
        assert!(look(&table, &memory, 0).is_some());
        let _ = table.unmap(&mut memory, start, 0x1000).unwrap();
        let _ = table.release_empty_tables(&mut memory);
        let refused = table.map(&mut memory, start, host, len, permissions, attributes);
        assert_eq!(refused.unwrap_err(), MapError::InputOutOfRange { bits });
        let mut table = PageTable::<F>::with_limits(all.with_host_bits(bits as u8), &mut memory).unwrap();
        let refused = table.map(&mut memory, start, host, len, permissions, attributes);
        assert_eq!(refused.unwrap_err(), MapError::HostOutOfRange { bits });
        assert_eq!(look(&table, &memory, 0), None);
    }
}

fn a_malformed_entry_is_never_taken_for_a_table<F: TestFormat>() {
    let (permissions, attributes) = F::uses()[0];
    for (level, len) in [(2, M2), (3, G1)] {
        let mut memory = Frames::default();
        let mut table = table::<F>(&mut memory);
        // The table that holds the entry is there.
        let _ = table.map(&mut memory, at::<F>(len), HostPhys::new(0), len, permissions, attributes).unwrap();
        let mut holder = HostPhys::new(0);
        table.for_each_table(&memory, |at, l| holder = if l == level { at } else { holder });
        let no_page = |bit: u32| (F::TABLE | 0x7000) ^ 1_u64 << bit;
        let malformed = |entry: &u64| entry & 1 << 7 == 0 && F::decode(*entry, level) == Entry::Malformed;
        for value in (0..64).map(no_page).filter(malformed) {
            memory.write_entry(holder, 0, value);
            let refused = table.map(&mut memory, at::<F>(0), HostPhys::new(0), 0x1000, permissions, attributes);
            assert_eq!(refused.unwrap_err(), MapError::Malformed { table: holder, index: 0, value });
            let refused = table.map(&mut memory, at::<F>(0), HostPhys::new(0), len, permissions, attributes);
            assert_eq!(refused.unwrap_err(), MapError::Malformed { table: holder, index: 0, value });
            let flush = table.unmap(&mut memory, at::<F>(0), len).unwrap();
            assert!(!flush.has_detached_tables() && flush.invalidation().unwrap().tables_changed, "{value:#x}");
            assert_eq!(memory.read_entry(holder, 0), 0);
        }
    }
}

fn memory_running_out_at_any_table_of_a_page_changes_nothing<F: TestFormat>() {
    let (permissions, attributes) = F::uses()[0];
    for (len, tables) in [(0x1000, 3), (M2, 2), (G1, 1)] {
        for allowed in 0..=tables {
            let mut memory = Frames::default();
            let mut table = table::<F>(&mut memory);
            let before = memory.contents();
            memory.left = Some(allowed);
            let result = table.map(&mut memory, at::<F>(7 * G1), HostPhys::new(0), len, permissions, attributes);
            if allowed == tables {
                assert_eq!((result.is_ok(), memory.allocated()), (true, 1 + tables));
            } else {
                assert_eq!(result.unwrap_err(), MapError::OutOfMemory);
                assert!(memory.contents() == before, "{len:#x} with {allowed} tables");
            }
        }
    }
}

#[test]
fn a_unit_without_snoop_control_or_zero_length_reads_is_respected() {
    let mut memory = Frames::default();
    // What is taken away twice is not there again.
    let limits = Limits::new(3, PageSize::Size2M).without(SecondStage::SNOOP).without_write_only();
    let limits = limits.without(SecondStage::SNOOP);
    let mut table = PageTable::<SecondStage>::with_limits(limits, &mut memory).unwrap();
    let (snoop, plain) = (SecondStageAttributes { snoop: true }, SecondStageAttributes::default());
    let write = Permissions { read: false, write: true, execute: false };
    let both = Permissions::READ_WRITE;
    let mut map = |len, permissions, attributes| {
        let result = table.map(&mut memory, at::<SecondStage>(0), HostPhys::new(0), len, permissions, attributes);
        result.map(|_| ())
    };
    for len in [0x1000, 0x3000] {
        assert_eq!(map(len, both, snoop), Err(MapError::Unsupported));
        assert_eq!(map(len, write, plain), Err(MapError::WriteOnly));
    }
    assert_eq!(map(0x1000, both, plain), Ok(()));
    let at = at::<SecondStage>(0);
    assert_eq!(table.protect(&mut memory, at, 0x1000, write, plain).unwrap_err(), MapError::WriteOnly);
    assert_eq!(table.protect(&mut memory, at, 0x1000, both, snoop).unwrap_err(), MapError::Unsupported);
}

#[test]
fn every_error_says_what_to_do() {
    use std::string::ToString;
    type Error = MapError<addr::Iova>;
    let text = |error: Error| error.to_string();
    assert!(text(MapError::InputOutOfRange { bits: 39 }).contains("39 bits"));
    assert!(text(MapError::HostOutOfRange { bits: 46 }).contains("46 bits"));
    assert!(text(MapError::AlreadyMapped(addr::Iova::new(0x5000))).contains("0x5000: unmap it first"));
    assert!(text(MapError::WriteOnly).contains("CAP.ZLR"));
    let malformed = MapError::Malformed { table: HostPhys::new(0x7000), index: 3, value: 0x99 };
    assert!(text(malformed).contains("entry 3 of the table at 0x7000 holds 0x99"));
    assert!(text(MapError::UnsupportedLevels(2)).contains("2 levels"));
    assert!(text(MapError::OutOfMemory).contains("try again"));
    assert_eq!(text(MapError::Empty), "the range is empty");
    assert!(text(MapError::Misaligned).contains("4 KiB") && text(MapError::Unsupported).contains("choose others"));
}
