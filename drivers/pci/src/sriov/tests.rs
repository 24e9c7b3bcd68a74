use super::*;
use crate::fake::{Fake, at};
use crate::{FunctionDescription, FunctionInfo};
use std::boxed::Box;
use std::vec::Vec;

const CARD: fn() -> PciAddress = || at(0, 3, 0);
/// Where the capability is.
const CAPABILITY: u16 = 0x160;

/// A card like QEMU's igb: 8 virtual functions at 0x80 and every second place from there on, with two 64-bit ranges of 16 KiB.
fn card() -> Fake {
    let mut config = Fake::new();
    let card = config.add(CARD()).header(0x8086, 0x10C9, 0x02_0000, 0).express(0);
    card.dword(0x100, 0x1601_0001).dword(CAPABILITY, 0x0001_0010).dword(CAPABILITY + 4, 2);
    card.allow(CAPABILITY + CONTROL, 0x19, 2).word(CAPABILITY + INITIAL, 8).word(CAPABILITY + TOTAL_VFS, 8);
    card.allow(CAPABILITY + NUM_VFS, 0xFFFF, 2).word(CAPABILITY + FIRST_VF_OFFSET, 0x80);
    card.word(CAPABILITY + VF_STRIDE, 2).word(CAPABILITY + VF_DEVICE_ID, 0x10CA);
    card.dword(CAPABILITY + SUPPORTED_PAGE_SIZES, 0x553).dword(CAPABILITY + SYSTEM_PAGE_SIZE, 1);
    card.allow(CAPABILITY + SYSTEM_PAGE_SIZE, 0x553, 4);
    for register in [0, 3] {
        let offset = CAPABILITY + VF_BAR0 + 4 * register;
        card.dword(offset, 0xC).allow(offset, 0xFFFF_C000, 4).allow(offset + 4, u32::MAX, 4);
    }
    config
}
const INITIAL: u16 = crate::spec::sriov::INITIAL_VFS;

fn set(config: &mut Fake, register: u16, value: u16) {
    config.add(CARD()).word(CAPABILITY + register, value).allow(CAPABILITY + register, 0, 2);
}

fn prepare(config: &mut Fake, count: u16, routing: Routing) -> Result<Sriov, SriovError> {
    let mut found = Sriov::find(config, CARD()).unwrap();
    found.prepare(config, count, routing).map(|()| found)
}

fn prepared(config: &mut Fake, count: u16) -> Sriov {
    let mut found = prepare(config, count, Routing::Bus).unwrap();
    found.set_address(0, HostPhys::new(0x40_FE00_0000));
    found.set_address(3, HostPhys::new(0xFE02_0000));
    config.writes.clear();
    found
}

#[test]
fn places_and_ranges_follow_from_the_first() {
    let mut config = card();
    let found = prepared(&mut config, 8);
    assert_eq!(found.device_id, 0x10CA);
    let places: Vec<_> = (0..8).map(|index| found.place(index).unwrap().bdf.as_u16()).collect();
    assert_eq!(places, [0x98, 0x9A, 0x9C, 0x9E, 0xA0, 0xA2, 0xA4, 0xA6]);
    assert_eq!(found.place(52).map(|place| place.bdf), None, "the next bus");
    assert_eq!(found.place(51).unwrap().bdf.as_u16(), 0xFE);
    assert_eq!(found.place(u16::MAX), None);
    let of = |index, register| match found.bars(index).range(register) {
        Some(Bar::Memory { address, size, is_64_bit, prefetchable }) => {
            assert!((size, is_64_bit, prefetchable) == (0x4000, true, true));
            address.as_u64()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!([of(0, 0), of(7, 0), of(0, 3), of(1, 3)], [0x40_FE00_0000, 0x40_FE01_C000, 0xFE02_0000, 0xFE02_4000]);
    assert_eq!((found.bars(1).iter().count(), found.bars(1).slot(1)), (2, BarSlot::UpperHalf));
}

#[test]
fn ranges_of_the_firmware_are_kept_over_a_reset() {
    let mut config = card();
    config.add(CARD()).dword(CAPABILITY + VF_BAR0, 0xFE00_000C);
    let mut found = Sriov::find(&config, CARD()).unwrap();
    assert!(config.writes.is_empty(), "before the reset only reads");
    config.add(CARD()).dword(CAPABILITY + VF_BAR0, 0xC);
    found.prepare(&mut config, 1, Routing::Bus).unwrap();
    let Some(Bar::Memory { address, .. }) = found.bars(0).range(0) else { panic!() };
    assert_eq!(address.as_u64(), 0xFE00_0000);
}

#[test]
fn they_are_enabled_last_and_with_what_was_asked() {
    let mut config = card();
    // As firmware or an earlier owner may have left it.
    config.add(CARD()).word(CAPABILITY + CONTROL, 9);
    let found = prepared(&mut config, 8);
    assert_eq!(config.read16(CARD(), CAPABILITY + CONTROL), 0);
    assert_eq!(found.enable(&mut config, 2), Ok(()));
    let first = config.writes.first().unwrap();
    assert_eq!((first.offset, first.value), (CAPABILITY + CONTROL, 0), "the ranges must not move while they are on");
    let last = config.writes.last().unwrap();
    assert_eq!((last.offset, last.value), (CAPABILITY + CONTROL, 9));
    let read = |config: &Fake, register| config.read32(CARD(), CAPABILITY + register);
    assert_eq!(read(&config, NUM_VFS) as u16, 2);
    assert_eq!((read(&config, VF_BAR0), read(&config, VF_BAR0 + 4)), (0xFE00_000C, 0x40));
    assert_eq!((read(&config, VF_BAR0 + 12), read(&config, SYSTEM_PAGE_SIZE)), (0xFE02_000C, 1));
    found.disable(&mut config);
    assert_eq!(read(&config, CONTROL) as u16, 0);
}

#[test]
fn alternative_routing_is_told_to_the_device_before_it_says_its_places() {
    let mut config = card();
    config.add(CARD()).on_write = Some(Box::new(|card, offset, value| {
        if offset == CAPABILITY + CONTROL {
            card.word(CAPABILITY + FIRST_VF_OFFSET, if value & 0x10 != 0 { 0x80 } else { 0x180 });
        }
    }));
    let found = prepare(&mut config, 8, Routing::Alternative).unwrap();
    found.enable(&mut config, 8).unwrap();
    assert_eq!(config.read16(CARD(), CAPABILITY + CONTROL), 0x19);
    assert_eq!(prepare(&mut config, 8, Routing::DeviceZero), Err(SriovError::Place(0)), "the next bus");
}

#[test]
fn what_cannot_be_reached_or_told_apart_is_refused() {
    let with = |first: u16, stride: u16, count, routing| {
        let mut config = card();
        set(&mut config, FIRST_VF_OFFSET, first);
        set(&mut config, VF_STRIDE, stride);
        prepare(&mut config, count, routing).map(|_| ())
    };
    assert_eq!(with(0x80, 2, 8, Routing::DeviceZero), Err(SriovError::Place(0)));
    assert_eq!(with(0x80, 2, 8, Routing::Alternative), Ok(()));
    assert_eq!(with(0, 2, 8, Routing::Bus), Err(SriovError::Place(0)), "the physical function itself");
    assert_eq!(with(1, 0, 8, Routing::Bus), Err(SriovError::Place(1)), "twice the same");
    assert_eq!(with(1, 0, 1, Routing::Bus), Ok(()));
    assert_eq!(with(0xE0, 1, 8, Routing::Bus), Ok(()));
    assert_eq!(with(0xE1, 1, 8, Routing::Bus), Err(SriovError::Place(7)), "beyond the bus");
    assert_eq!(with(0xFFFF, 1, 8, Routing::Bus), Err(SriovError::Place(0)));
    assert_eq!(with(1, 0xFFFF, 8, Routing::Bus), Err(SriovError::Place(1)));
    assert_eq!(with(0x80, 2, 9, Routing::Bus), Err(SriovError::TooFew { total: 8 }));
}

#[test]
fn page_sizes_and_ranges_without_sense_are_refused() {
    let mut config = card();
    config.add(CARD()).dword(CAPABILITY + SUPPORTED_PAGE_SIZES, 0x552);
    assert_eq!(prepare(&mut config, 8, Routing::Bus), Err(SriovError::PageSize));
    // Value, what can be written, and whether that is sound: ports; below a page; a hole in the size; one page.
    for (value, mask, sound) in
        [(1, 0xFFFF_FFE0, false), (0, 0xFFFF_F800, false), (0, 0xFF0F_C000, false), (0, 0xFFFF_F000, true)]
    {
        let mut config = card();
        let offset = CAPABILITY + VF_BAR0 + 20;
        config.add(CARD()).dword(offset, value).allow(offset, mask, 4).allow(offset - 4, 0, 4).allow(offset - 8, 0, 4);
        config.add(CARD()).dword(offset - 8, 0);
        let wanted = if sound { Ok(()) } else { Err(SriovError::InvalidBar(5)) };
        assert_eq!(prepare(&mut config, 8, Routing::Bus).map(|_| ()), wanted, "{mask:#x}");
    }
}

#[test]
fn a_device_that_does_not_do_what_it_is_told_stays_off() {
    let registers = [
        (NUM_VFS, 8),
        (FIRST_VF_OFFSET, 0x81),
        (VF_STRIDE, 1),
        (VF_BAR0, 0xC),
        (VF_BAR0 + 4, 0x41),
        (VF_BAR0 + 12, 0xFE04_000C),
    ];
    for (register, value) in registers {
        let mut config = card();
        let found = prepared(&mut config, 8);
        config.add(CARD()).dword(CAPABILITY + register, value).allow(CAPABILITY + register, 0, 4);
        assert_eq!(found.enable(&mut config, 2), Err(SriovError::NotAsWritten(register)));
        assert_eq!(config.read16(CARD(), CAPABILITY + CONTROL), 0);
    }
    let mut config = card();
    let found = prepared(&mut config, 8);
    config.add(CARD()).allow(CAPABILITY + CONTROL, 0x11, 2);
    assert_eq!(found.enable(&mut config, 2), Err(SriovError::NotAsWritten(CONTROL)));
    assert_eq!(config.read16(CARD(), CAPABILITY + CONTROL), 0);
}

#[test]
fn capabilities_that_are_absent_or_do_not_fit_are_none() {
    let mut config = card();
    config.add(CARD()).dword(0x100, 0x0001_0001);
    assert_eq!(Sriov::find(&config, CARD()), None);
    config.add(CARD()).dword(0x100, 0xFC41_0001).dword(0xFC4, 0x0001_0010);
    assert_eq!(Sriov::find(&config, CARD()), None);
    config.add(CARD()).dword(0x100, 0xFC01_0001).dword(0xFC0, 0x0001_0010);
    assert!(Sriov::find(&config, CARD()).is_some());
    assert_eq!(Sriov::find(&Fake::new(), CARD()), None);
}

#[test]
fn random_answers_end_in_words_or_in_places_on_the_bus() {
    let mut state = 0x1234_5678_9ABC_DEF1_u64;
    let mut sound = 0;
    for round in 0..20_000 {
        let mut config = card();
        let function = config.add(CARD());
        for index in usize::from(CAPABILITY + 8)..usize::from(CAPABILITY + LENGTH) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if state >> 60 == 0 {
                function.bytes[index] = state as u8;
                function.writable[index] = (state >> 8) as u8;
            }
        }
        let count = (state >> 40) as u16 & 0xF;
        let Ok(found) = prepare(&mut config, count, Routing::Bus) else { continue };
        sound += 1;
        for index in 0..count {
            let place = found.place(index).unwrap();
            assert!(place != CARD() && place.bdf.bus() == 0, "round {round}");
        }
        found.bars(u16::MAX);
        let _ = found.enable(&mut config, count);
    }
    assert!(sound > 1000);
}

#[test]
fn a_virtual_function_is_described_by_its_own_capabilities_and_the_ids_of_its_card() {
    let mut config = card();
    let found = prepared(&mut config, 8);
    let physical = FunctionInfo::read(&config, CARD()).unwrap();
    let place = found.place(1).unwrap();
    let read =
        |config: &Fake| FunctionDescription::read_virtual(config, place, &physical, found.device_id, found.bars(1));
    assert_eq!(read(&config), None);
    config
        .add(place)
        .header(0xFFFF, 0xFFFF, 0x02_0000, 0)
        .capability(0x70, 0x11)
        .word(0x72, 2)
        .dword(0x74, 3)
        .dword(0x78, 0x2003);
    config.add(place).express(0).dword(0x44, 1 << 28);
    config.writes.clear();
    let described = read(&config).unwrap();
    assert_eq!((described.info.vendor_id, described.info.device_id), (0x8086, 0x10CA));
    let table = described.msix.unwrap().unwrap().table;
    assert_eq!(table.locate(&described.bars), Ok(HostPhys::new(0xFE02_4000)));
    assert!(config.writes.is_empty());
}
