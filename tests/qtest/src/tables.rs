//! The unit's tables as they stand in memory, to be spoilt: entries that the driver would not write.

use crate::bench::Bench;
use crate::glue::UNIT;
use crate::space::Mode;
use addr::{Bdf, HostPhys};

/// RTADDR_REG, and IRTA_REG.
const RTADDR: u64 = UNIT + 0x20;
const IRTA: u64 = UNIT + 0xb8;
/// Bits 63:12 of either, and of the entries below.
const ADDRESS: u64 = !0xfff;

/// Where the root entry of a source is: 16 bytes. In scalable mode it is where the half of 8 bytes is.
pub fn root_entry(bench: &Bench, source: Bdf) -> HostPhys {
    let half = if bench.mode == Mode::Legacy { 0 } else { 8 * u64::from(source.devfn() >> 7) };
    HostPhys::new((bench.machine.read64(RTADDR) & ADDRESS) + 16 * u64::from(source.bus()) + half)
}

/// Where the context entry of a source is: 16 bytes, in scalable mode 32.
pub fn context_entry(bench: &Bench, source: Bdf) -> HostPhys {
    let table = bench.memory.load(root_entry(bench, source)) & ADDRESS;
    let offset = match bench.mode {
        Mode::Legacy => 16 * u64::from(source.devfn()),
        _ => 32 * u64::from(source.devfn() & 0x7f),
    };
    HostPhys::new(table + offset)
}

/// Scalable mode: where the PASID directory entry of PASID 0 is: 8 bytes.
pub fn directory_entry(bench: &Bench, source: Bdf) -> HostPhys {
    HostPhys::new(bench.memory.load(context_entry(bench, source)) & ADDRESS)
}

/// Scalable mode: where the PASID table entry of PASID 0 is: 64 bytes.
pub fn pasid_entry(bench: &Bench, source: Bdf) -> HostPhys {
    HostPhys::new(bench.memory.load(directory_entry(bench, source)) & ADDRESS)
}

/// Where the entry of a table of either stage is that leads to `iova` at `level`.
pub fn paging_entry(bench: &Bench, root: HostPhys, levels: u8, iova: u64, level: u8) -> HostPhys {
    let mut table = root.as_u64();
    for above in (level + 1..=levels).rev() {
        table = bench.memory.load(slot(table, iova, above)) & 0x000f_ffff_ffff_f000;
    }
    slot(table, iova, level)
}

fn slot(table: u64, iova: u64, level: u8) -> HostPhys {
    HostPhys::new(table + 8 * (iova >> (12 + 9 * (level - 1)) & 511))
}

/// Where an interrupt remapping entry is: 16 bytes.
pub fn interrupt_entry(bench: &Bench, index: u16) -> HostPhys {
    HostPhys::new((bench.machine.read64(IRTA) & ADDRESS) + 16 * u64::from(index))
}
