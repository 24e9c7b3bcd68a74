//! What the second stage of a large guest takes.

use crate::arena::{self, Frames};
use addr::{HostPhys, Iova, PageSize};
use paging::{NeverLoaded, PageTable, Permissions, SecondStage, SecondStageAttributes};
use std::time::Instant;

/// The tables (pages of 4 KiB) and the nanoseconds for mapping `bytes` with pages of a size. The frames are there and
/// were touched before.
pub fn build(bytes: u64, largest: PageSize) -> (usize, f64) {
    // One table for 512 entries of each level, rounded up generously.
    arena::provide((bytes >> largest.shift()) as usize / 511 + 16);
    let before = arena::in_stock();
    let mut table: PageTable<SecondStage> = PageTable::new(4, largest, &mut Frames).expect("there are frames");
    let start = Instant::now();
    let attributes = SecondStageAttributes::default();
    let flush = table
        .map(&mut Frames, Iova::new(0), HostPhys::new(0), bytes, Permissions::READ_WRITE, attributes)
        .expect("there are frames");
    let nanoseconds = start.elapsed().as_nanos() as f64;
    let tables = before - arena::in_stock();
    flush.complete(&NeverLoaded, &mut Frames).expect("nobody has looked");
    table.destroy(&mut Frames).complete(&NeverLoaded, &mut Frames).expect("nobody has looked");
    (tables, nanoseconds)
}
