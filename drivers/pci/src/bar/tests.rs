use super::*;
use crate::fake::{Fake, at};
use std::vec::Vec;

const NIC: fn() -> PciAddress = || at(0, 3, 0);

fn nic() -> Fake {
    let mut config = Fake::new();
    config
        .add(NIC())
        .header(0x8086, 0x10D3, 0x02_0000, 0)
        .word(0x04, 0x0507)
        .word(0x06, 0xF910)
        .bar(0, 0xFEB8_0000, 0xFFFE_0000)
        .bar(2, 0xC001, 0xFFFF_FFE0)
        .bar(4, 0x2000_000C, 0xF000_0000)
        .bar(5, 0x0000_0010, 0xFFFF_FFFF);
    config
}

#[test]
fn ranges_are_sized_and_everything_is_as_before() {
    let mut config = nic();
    let before = config.functions[&NIC()].bytes.clone();
    let bars = read_bars(&mut config, NIC(), HeaderType::Endpoint);
    let memory = |address, size, prefetchable, is_64_bit| Bar::Memory {
        address: HostPhys::new(address),
        size,
        prefetchable,
        is_64_bit,
    };
    let found: Vec<_> = bars.iter().collect();
    assert_eq!(
        found,
        [
            (0, memory(0xFEB8_0000, 0x2_0000, false, false)),
            (2, Bar::Io { port: 0xC000, size: 32 }),
            (4, memory(0x10_2000_0000, 0x1000_0000, true, true)),
        ]
    );
    assert_eq!(
        (bars.slot(1), bars.slot(5), bars.slot(6)),
        (BarSlot::Unimplemented, BarSlot::UpperHalf, BarSlot::Unimplemented)
    );
    assert_eq!(bars.invalid(), None);
    assert_eq!(config.functions[&NIC()].bytes, before);
}

#[test]
fn decoding_is_off_while_registers_hold_ones_and_status_is_never_written() {
    let mut config = nic();
    read_bars(&mut config, NIC(), HeaderType::Endpoint);
    let (first, last) = (config.writes[0], *config.writes.last().unwrap());
    assert_eq!((first.offset, first.width, first.value), (4, crate::Width::Word, 0x0504));
    assert_eq!((last.offset, last.width, last.value), (4, crate::Width::Word, 0x0507));
    let between = &config.writes[1..config.writes.len() - 1];
    assert!(between.iter().all(|write| (0x10..0x28).contains(&write.offset)));
}

#[test]
fn answers_without_sense_are_invalid_and_void_only_themselves() {
    let mut config = nic();
    config
        .add(NIC())
        .bar(0, 0xFFFF_FFFF, 0) // all ones: I/O with the reserved bit
        .bar(1, 0x0000_0002, 0xFFFF_0000) // reserved type 01
        .bar(2, 0x0000_0000, 0xFF0F_0000) // a hole in the mask
        .bar(3, 0x0000_0006, 0xFFFF_0000) // reserved type 11
        .bar(4, 0x0000_1001, 0x0000_FFF0) // 16 bits of port only
        .bar(5, 0x0000_0004, 0xFFFF_0000); // 64 bits in the last register
    let bars = read_bars(&mut config, NIC(), HeaderType::Endpoint);
    for index in [0, 1, 2, 3, 5] {
        assert!(matches!(bars.slot(index), BarSlot::Invalid { .. }), "{index}");
    }
    assert_eq!(bars.range(4), Some(Bar::Io { port: 0x1000, size: 16 }));
    assert_eq!(bars.invalid(), Some(0));
}

#[test]
fn a_function_that_is_gone_has_no_ranges() {
    for nothing in [0, u32::MAX] {
        let mut config = Fake::new();
        config.nothing = nothing;
        assert_eq!(read_bars(&mut config, NIC(), HeaderType::Endpoint).iter().count(), 0);
    }
}

#[test]
fn a_range_above_four_gigabytes_is_sized_by_its_upper_half() {
    let mut config = Fake::new();
    let gpu = config.add(NIC()).header(0x10DE, 1, 0x03_0000, 0);
    gpu.bar(0, 0x0000_000C, 0).bar(1, 0x0000_0040, 0xFFFF_FFFC);
    let bars = read_bars(&mut config, NIC(), HeaderType::Endpoint);
    let Some(Bar::Memory { address, size, .. }) = bars.range(0) else { panic!("{bars:?}") };
    assert_eq!((address, size), (HostPhys::new(0x40_0000_0000), 4 << 32));
}

#[test]
fn a_bridge_has_two_registers() {
    let mut config = Fake::new();
    config.add(NIC()).header(1, 1, 0x06_0400, 1).buses(0, 5, 5);
    read_bars(&mut config, NIC(), HeaderType::Bridge { secondary: 5, subordinate: 5 });
    assert!(config.writes.iter().all(|write| write.offset != 0x18), "the bus numbers were written");
}
