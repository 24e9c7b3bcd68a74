//! By which descriptors a range is forgotten.

use super::*;

#[test]
fn a_range_is_invalidated_by_the_fewest_blocks_that_cover_it() {
    let caps = crate::Capabilities { cap: CAP, ecap: ECAP };
    let all = |caps, start, bytes| range(start, bytes).descriptors(caps).map(|d| (d.low, d.high)).collect::<Vec<_>>();
    let of = |start, bytes| all(caps, start, bytes).into_iter().map(|(_, high)| high).collect::<Vec<_>>();
    assert_eq!(of(0x1000, 0x1000), [0x1000]);
    assert_eq!(of(0x1000, 0x2000), [2], "pages 1 and 2 are in block 0 to 3 only");
    assert_eq!(of(0x2000, 0x2000), [0x2001]);
    assert_eq!(of(0x1fff, 2), [2], "a byte of each page");
    assert_eq!(of(0x20_0000, 0x20_0000), [0x20_0009]);
    assert_eq!(of(0x4000_0000, 0x4000_0000), [0x4000_0012], "262144 pages are one descriptor");
    assert_eq!(all(caps, 0x1000, 0x1000), [(0x5_00f2, 0x1000)], "page-selective, drained");
    assert_eq!(of(0, 0x4000_1000), [0x12, 0x4000_0000], "beyond MAMV: two blocks");
    assert_eq!(of(0x3fff_f000, 0x2000), [0x3fff_f000, 0x4000_0000], "across a boundary, two pages and no more");
}

#[test]
fn a_range_of_many_blocks_is_the_domain() {
    let caps = crate::Capabilities { cap: CAP, ecap: ECAP };
    let all = |caps, start, bytes| range(start, bytes).descriptors(caps).map(|d| (d.low, d.high)).collect::<Vec<_>>();
    assert_eq!(all(caps, 0, 4 << 30).len(), 4);
    assert_eq!(all(caps, 0, (4 << 30) + 1), [(0x5_00e2, 0)]);
    assert_eq!(all(caps, u64::MAX - 10, u64::MAX), [(0x5_00f2, !0xfff)], "no overflow");
    assert_eq!(all(caps, 0x1000, 0), []);
    let without = crate::Capabilities { cap: CAP & !(1 << 39 | 3 << 54), ecap: ECAP };
    assert_eq!(all(without, 0x1000, 0x1000), [(0x5_0022, 0)], "no PSI, no draining");
    let small = crate::Capabilities { cap: CAP & !(0x3f << 48), ecap: ECAP };
    assert_eq!(
        all(small, 0x1000, 0x4000).iter().map(|&(_, high)| high).collect::<Vec<_>>(),
        [0x1000, 0x2000, 0x3000, 0x4000]
    );
    assert_eq!(all(small, 0x1000, 0x5000), [(0x5_00e2, 0)]);
    let large = crate::Capabilities { cap: CAP | 0x3f << 48, ecap: ECAP };
    assert_eq!(all(large, 0, u64::MAX), [(0x5_00f2, 52)]);
}
