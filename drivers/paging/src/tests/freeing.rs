//! Tables that go back when hardware has forgotten them: all of them, and nothing is read that need not be.

use super::support::{Frames, TestFormat, at, for_each_format, table};
use crate::{ENTRIES, NeverLoaded};
use addr::HostPhys;

const K4: u64 = 0x1000;
const M2: u64 = 0x20_0000;
const G1: u64 = 0x4000_0000;

for_each_format!(a_table_among_large_pages_goes_back_wherever_it_is, what_points_to_no_tables_is_hardly_read);

fn a_table_among_large_pages_goes_back_wherever_it_is<F: TestFormat>() {
    let (permissions, attributes) = F::uses()[0];
    for place in 0..ENTRIES as u64 {
        let mut memory = Frames::default();
        let mut table = table::<F>(&mut memory);
        // 2 MiB away from where a larger page could be.
        let _ = table.map(&mut memory, at::<F>(G1), HostPhys::new(M2), G1, permissions, attributes).unwrap();
        let _ = table.unmap(&mut memory, at::<F>(G1 + place * M2 + K4), K4).unwrap();
        assert_eq!(memory.allocated(), 4);
        let flush = table.unmap(&mut memory, at::<F>(G1), G1).unwrap();
        flush.complete(&NeverLoaded, &mut memory).unwrap();
        assert_eq!(memory.allocated(), 2, "a table at entry {place}");
    }
}

fn what_points_to_no_tables_is_hardly_read<F: TestFormat>() {
    let (permissions, attributes) = F::uses()[0];
    // Small pages are not read at all but for the link to the next table, and of large ones each once and the first of
    // eight twice.
    for (len, reads) in [(M2, 0), (3 * M2, 2 * 9), (G1, 64 * 9)] {
        let mut memory = Frames::default();
        let mut table = table::<F>(&mut memory);
        let host = HostPhys::new(if len == G1 { M2 } else { K4 });
        let _ = table.map(&mut memory, at::<F>(0), host, len, permissions, attributes).unwrap();
        let flush = table.unmap(&mut memory, at::<F>(0), len).unwrap();
        memory.reads.set(0);
        flush.complete(&NeverLoaded, &mut memory).unwrap();
        assert_eq!(memory.reads.get(), reads, "{len:#x}");
    }
}
