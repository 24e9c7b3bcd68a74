//! Random changes against a reference that is obviously right.

use super::support::{Frames, Random, Reference, TestFormat, at, for_each_format, look, table};
use crate::{ENTRIES, Entry, Flush, InputAddress, MapError, NeverLoaded, PageTable, TableMemory};
use addr::HostPhys;
use std::collections::BTreeMap;

const M2: u64 = 0x20_0000;
const G1: u64 = 0x4000_0000;

for_each_format!(random_changes_agree_with_the_reference);

/// An address: mostly at or near the multiples where pages and tables begin.
fn address(random: &mut Random) -> u64 {
    let near = match random.below(4) {
        0 => random.below(12) * G1,
        1 => random.below(6) * G1 + random.below(6) * M2,
        2 => 508 * G1 + random.below(8) * G1,
        _ => G1 + random.below(4 * 512) * 0x1000,
    };
    near + [0, 0, 0, 0x1000, M2, M2 - 0x1000][random.below(6) as usize]
}

/// A length: of pages of one size, or nothing round.
fn length(random: &mut Random) -> u64 {
    match random.below(5) {
        0 => (1 + random.below(3)) * G1,
        1 => (1 + random.below(6)) * M2,
        2 => (1 + random.below(600)) * 0x1000,
        3 => (1 + random.below(2)) * G1 + random.below(3) * M2 + random.below(3) * 0x1000,
        _ => (1 + random.below(3)) * 0x1000,
    }
}

/// No present entry has a reserved bit set, an absent one is zero, no table is in the tree twice or lost. Returns how many
/// tables are empty, the root apart.
fn check_shape<F: TestFormat>(table: &PageTable<F>, memory: &Frames, pending: u64) -> u64 {
    let (mut tables, mut empty) = (0, 0);
    table.for_each_table(memory, |at, level| {
        tables += 1;
        let mut present = 0;
        for index in 0..ENTRIES {
            let value = memory.read_entry(at, index);
            let leaf = match F::decode(value, level) {
                Entry::Absent => {
                    assert_eq!(value, 0);
                    continue;
                }
                Entry::Leaf(_) => true,
                Entry::Table(_) => false,
                Entry::Malformed => panic!("{value:#x} at level {level}"),
            };
            present += 1;
            assert_eq!(value & F::reserved(level, leaf), 0, "{value:#x} at level {level}");
        }
        empty += u64::from(present == 0 && at != table.root());
    });
    assert_eq!(tables + pending, memory.allocated());
    empty
}

fn random_changes_agree_with_the_reference<F: TestFormat>() {
    let uses = F::uses();
    for seed in 0..3 {
        let mut random = Random(seed * 77 + 1);
        let mut memory = Frames::default();
        let mut table = table::<F>(&mut memory);
        let mut reference = Reference(BTreeMap::new());
        let mut pending: Flush<F::Input> = Flush::none(table.root());
        for step in 0..150 {
            let (start, len) = (address(&mut random), length(&mut random));
            let end = start + len;
            if random.below(5) < 3 {
                let (permissions, attributes) = uses[random.below(uses.len() as u64) as usize];
                // Where nothing larger than 4 KiB fits, only short ranges: each leaf is a store.
                let host = match random.below(3) {
                    0 if len < 4 * M2 => address(&mut random),
                    1 => random.below(1000) * M2 + (start & (M2 - 1)),
                    _ => random.below(1000) * G1 + (start & (G1 - 1)),
                };
                let result = table.map(&mut memory, at::<F>(start), HostPhys::new(host), len, permissions, attributes);
                if reference.overlaps(start, end) {
                    let Err(MapError::AlreadyMapped(conflict)) = result else { panic!("step {step}: {result:?}") };
                    assert!(reference.translate(conflict.to_u64()).is_some());
                    assert!(conflict.to_u64() == start || !reference.overlaps(start, conflict.to_u64()));
                } else {
                    reference.0.insert(start, (end, host, permissions, attributes));
                    let flush = result.unwrap();
                    let invalidation = *flush.invalidation().unwrap();
                    assert_eq!((invalidation.start, invalidation.len), (at::<F>(start), len));
                    pending.join(flush, &mut memory).unwrap();
                }
            } else if random.below(2) == 0 {
                let (permissions, attributes) = uses[random.below(uses.len() as u64) as usize];
                let flush = table.protect(&mut memory, at::<F>(start), len, permissions, attributes).unwrap();
                let before = reference.clone();
                reference.protect(start, end, permissions, attributes);
                assert!(
                    flush.invalidation().is_some()
                        || reference.0.iter().all(|(first, interval)| {
                            before.translate(*first) == Some((interval.1, interval.2, interval.3))
                        }),
                    "step {step}"
                );
                pending.join(flush, &mut memory).unwrap();
            } else {
                let flush = table.unmap(&mut memory, at::<F>(start), len).unwrap();
                // Empty tables may go too.
                assert!(flush.invalidation().is_some() || !reference.overlaps(start, end), "step {step}");
                reference.remove(start, end);
                pending.join(flush, &mut memory).unwrap();
            }
            if random.below(8) == 0 {
                pending.complete(&NeverLoaded, &mut memory).unwrap();
                pending = Flush::none(table.root());
            }
            for (first, interval) in &reference.0 {
                for input in [first.wrapping_sub(1), *first, first + 0x1000, interval.0 - 1, interval.0] {
                    assert_eq!(look(&table, &memory, input), reference.translate(input), "step {step}: {input:#x}");
                }
            }
            for _ in 0..20 {
                let input = address(&mut random) + random.below(M2);
                assert_eq!(look(&table, &memory, input), reference.translate(input), "step {step}: {input:#x}");
            }
            if step % 25 == 0 {
                let mut bytes = 0;
                table.for_each_leaf(&memory, |leaf| {
                    let page = (leaf.page.host.as_u64(), leaf.page.permissions, leaf.page.attributes);
                    assert_eq!(reference.translate(leaf.input.to_u64()), Some(page));
                    bytes += leaf.page.size.bytes();
                });
                assert_eq!(bytes, reference.bytes());
                let detached = pending.detached_tables(&mut memory);
                check_shape(&table, &memory, detached);
                pending.join(table.release_empty_tables(&mut memory), &mut memory).unwrap();
                let detached = pending.detached_tables(&mut memory);
                assert_eq!(check_shape(&table, &memory, detached), 0, "empty tables are left");
            }
        }
    }
}
