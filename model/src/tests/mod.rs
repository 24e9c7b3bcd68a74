//! The model judged by hand-made tables, before it judges anything.

mod commands;
mod interrupts;
mod invalidation;
mod scalable;
mod translation;

use crate::registers::*;
use crate::{Access, Configuration, Fault, Machine, Reason};

pub const ROOT: u64 = 0x1_0000;
pub const CONTEXTS: u64 = 0x1_1000;
pub const QUEUE: u64 = 0x1_2000;
pub const IRT: u64 = 0x1_3000;
pub const STATUS: u64 = 0x1_4000;
/// Four tables of domain 5: levels 4 to 1.
pub const TABLES: u64 = 0x2_0000;
pub const SOURCE: u16 = 0x0018;
pub const DOMAIN: u16 = 5;

/// Puts a value at an address, in memory and not only in the cache.
pub fn put(machine: &Machine, address: u64, value: u64) {
    machine.store_u64(address, value);
    machine.flush(address, 8);
    machine.unit(0, |_, memory| memory.drain_write_buffer());
}

pub fn clear(machine: &Machine, page: u64) {
    for at in (page..page + 4096).step_by(8) {
        put(machine, at, 0);
    }
}

/// A machine whose unit translates for [`SOURCE`] by a 4-level table in which 0x1000 maps to 0x7_7000, read and write.
pub fn translating(configuration: Configuration) -> Machine {
    let machine = Machine::with_unit(0x100_0000, configuration);
    for page in [ROOT, CONTEXTS, QUEUE, IRT, STATUS] {
        clear(&machine, page);
    }
    put(&machine, ROOT, CONTEXTS | 1);
    make_tables(&machine, TABLES, 0x7_7000);
    context(&machine, SOURCE, TABLES, DOMAIN, 2);
    machine.write64(0, RTADDR, ROOT);
    machine.write32(0, GCMD, SRTP);
    machine.write64(0, IQA, QUEUE);
    machine.write32(0, GCMD, QIE);
    submit(&machine, &[(0x11, 0), (0x12, 0)]);
    machine.write32(0, GCMD, QIE | TE);
    machine
}

/// Four levels from `tables` in which 0x1000 maps to `page`.
pub fn make_tables(machine: &Machine, tables: u64, page: u64) {
    for level in 0..4 {
        clear(machine, tables + level * 4096);
    }
    for level in 0..3 {
        put(machine, tables + level * 4096, (tables + (level + 1) * 4096) | 3);
    }
    put(machine, tables + 3 * 4096 + 8, page | 3);
}

pub fn context(machine: &Machine, source: u16, table: u64, domain: u16, width: u64) {
    let at = CONTEXTS + 16 * u64::from(source);
    put(machine, at, 0);
    put(machine, at + 8, u64::from(domain) << 8 | width);
    put(machine, at, table | 1);
}

/// Writes descriptors at the tail and moves it, as wide as IQA says.
pub fn submit(machine: &Machine, descriptors: &[(u64, u64)]) {
    let mut tail = machine.read64(0, IQT);
    let wide = machine.unit(0, |unit, _| unit.peek(IQA)) & 0x800 != 0;
    let bytes = if wide { 32 } else { 16 };
    for &(low, high) in descriptors {
        machine.store_u64(QUEUE + tail, low);
        machine.store_u64(QUEUE + tail + 8, high);
        tail = (tail + bytes) % 4096;
    }
    machine.write64(0, IQT, tail);
}

pub fn read(machine: &Machine, address: u64) -> Result<u64, Reason> {
    only(machine.dma(0, SOURCE, address, 4, Access::Read))
}

pub fn write(machine: &Machine, address: u64) -> Result<u64, Reason> {
    only(machine.dma(0, SOURCE, address, 4, Access::Write))
}

pub fn only(result: Result<Vec<(u64, u64)>, Fault>) -> Result<u64, Reason> {
    result.map(|parts| parts[0].0).map_err(|fault| fault.reason)
}

#[test]
fn the_helpers_break_no_rule() {
    let machine = translating(Configuration::default());
    assert_eq!(read(&machine, 0x1234), Ok(0x7_7234));
    assert_eq!(machine.violations(0), []);
}
