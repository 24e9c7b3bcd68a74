//! A card with four virtual functions on a guest's bus.

use super::*;
use ::pci::{Bar, BarSlot, Bars, FunctionDescription, FunctionInfo, HeaderType};

/// What the guest sees of virtual functions.
const CAPABILITY: u16 = 0x100;
const CONTROL: u16 = CAPABILITY + 0x08;
const NUM_VFS: u16 = CAPABILITY + 0x10;
const BAR: u16 = CAPABILITY + 0x24;
/// The first of them on the guest's bus.
const FIRST: Bdf = Bdf::from_u16(0x80);
const COUNT: u16 = 4;
/// Where the real ones have their two ranges.
const HOST_RANGES: [u64; 2] = [0x48_FE00_0000, 0xFE10_0000];
const SIZE: u64 = 0x4000;
/// What of the second one is the MSI-X table's.
const PAGE: u64 = 0x1000;

/// The real card. Its virtual functions answer while they are on.
struct Card {
    physical: Device,
    functions: Vec<Device>,
    on: bool,
}

impl Card {
    fn index(&self, function: PciAddress) -> Option<usize> {
        (0..COUNT).find(|index| host(*index) == function).map(usize::from).filter(|_| self.on)
    }
}

impl ConfigSpace for Card {
    fn read(&self, function: PciAddress, offset: u16, width: Width) -> u32 {
        match self.index(function) {
            Some(index) => self.functions[index].read(HOST, offset, width),
            None => self.physical.read(function, offset, width),
        }
    }

    fn write(&mut self, function: PciAddress, offset: u16, width: Width, value: u32) {
        match self.index(function) {
            Some(index) => self.functions[index].write(HOST, offset, width, value),
            None => self.physical.write(function, offset, width, value),
        }
    }
}

fn host(index: u16) -> PciAddress {
    PciAddress { bdf: Bdf::from_u16(HOST.bdf.as_u16() + 0x80 + 2 * index), ..HOST }
}

fn slot(index: u16) -> Bdf {
    Bdf::from_u16(FIRST.as_u16() + index)
}

fn ranges(index: u16) -> Bars {
    let range = |register: usize, prefetchable| {
        let address = HostPhys::new(HOST_RANGES[register] + u64::from(index) * SIZE);
        BarSlot::Range(Bar::Memory { address, size: SIZE, prefetchable, is_64_bit: register == 0 })
    };
    let none = BarSlot::Unimplemented;
    Bars::new([range(0, true), BarSlot::UpperHalf, none, range(1, false), none, none])
}

/// A card on a bus of its own.
fn card(physical: Device) -> (Card, GuestPciBus) {
    let mut bus = GuestPciBus::new(SPACE);
    let card = add(physical, &mut bus);
    (card, bus)
}

/// Puts a card on a bus.
fn add(mut physical: Device, bus: &mut GuestPciBus) -> Card {
    let description = physical.describe();
    let functions = (0..COUNT).map(|_| Device::igbvf()).collect();
    let mut card = Card { physical, functions, on: true };
    let mut shown = Vec::new();
    for index in 0..COUNT {
        let info = FunctionInfo { device_id: 0x10CA, ..description.info };
        let found = FunctionDescription::read_virtual(&card, host(index), &info, 0x10CA, ranges(index)).unwrap();
        assert_eq!((found.info.device_id, found.info.header_type), (0x10CA, HeaderType::Endpoint));
        let function = AssignedFunction::new(&card, &found, slot(index), None).unwrap().into_virtual(HOST, index);
        function.prepare(&mut card);
        shown.push(function);
    }
    let mut function = AssignedFunction::new(&card, &description, GUEST, Some(MESSAGE)).unwrap();
    function.prepare(&mut card);
    function.show_virtual_functions(&shown);
    bus.add(function).unwrap();
    for function in shown {
        bus.add(function).unwrap();
    }
    card.physical.writes.clear();
    card.functions.iter_mut().for_each(|function| function.writes.clear());
    card
}

fn read(bus: &GuestPciBus, card: &Card, slot: Bdf, offset: u16, width: Width) -> u32 {
    bus.read_config(card, slot, offset, width)
}

/// A write, and the effects that it has.
fn write(bus: &mut GuestPciBus, card: &mut Card, slot: Bdf, offset: u16, width: Width, value: u32) -> Vec<PciEffect> {
    let mut effects = Vec::new();
    bus.write_config(card, slot, offset, width, value, &mut |effect| {
        effects.push(effect);
        true
    });
    effects
}

/// Enables `count` virtual functions that answer.
fn enable(bus: &mut GuestPciBus, card: &mut Card, count: u32) -> Vec<PciEffect> {
    assert_eq!(write(bus, card, GUEST, NUM_VFS, Width::Word, count), []);
    write(bus, card, GUEST, CONTROL, Width::Word, 0x9)
}

/// What of [`PciEffectKind::Mapping`] there is: where, to what (0 for nothing), and how many bytes.
fn mappings(effects: &[PciEffect]) -> Vec<(u64, u64, u64)> {
    let of = |effect: &PciEffect| match effect.kind {
        PciEffectKind::Mapping(MappingEffect::Map { guest, host, bytes }) => {
            Some((guest.as_u64(), host.as_u64(), bytes))
        }
        PciEffectKind::Mapping(MappingEffect::Unmap { guest, bytes }) => Some((guest.as_u64(), 0, bytes)),
        _ => None,
    };
    effects.iter().filter_map(of).collect()
}

/// The address in the registers of a range, which are two for the first.
fn address(bus: &GuestPciBus, card: &Card, register: u16) -> u64 {
    let read = |index: u16| u64::from(read(bus, card, GUEST, BAR + 4 * index, Width::Dword));
    if register == 0 { read(0) & !0xF | read(1) << 32 } else { read(register) & !0xF }
}

fn counts(effects: &[PciEffect]) -> Vec<u16> {
    let of = |effect: &PciEffect| match effect.kind {
        PciEffectKind::VirtualFunctions { count } => {
            assert_eq!(effect.function, HOST);
            Some(count)
        }
        _ => None,
    };
    effects.iter().filter_map(of).collect()
}

#[test]
fn the_capability_says_what_the_hypervisor_wants() {
    let (card_, bus) = card(Device::igb());
    let read = |offset| read(&bus, &card_, GUEST, CAPABILITY + offset, Width::Dword);
    let fixed = [0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x18, 0x1C, 0x20].map(read);
    // 4 of 4; the card's own number as its dependency; the first at 0x80 - 0x18 from it, and one by one.
    let wanted = [0x0001_0010, 0, 0, 0x0004_0004, 0x0018_0000, 0x0001_0068, 0x10CA_0000, 1, 1];
    assert_eq!(fixed, wanted);
    assert_eq!([0x24, 0x30].map(|offset| read(offset) & 0xF), [0xC, 0]);
    assert_eq!([0x2C, 0x34, 0x38, 0x3C, 0x40].map(read), [0; 5]);
    // Places of their own, for all four, beside the card's.
    let (first, second) = (address(&bus, &card_, 0), address(&bus, &card_, 3));
    assert!(first.is_multiple_of(SIZE) && second.is_multiple_of(SIZE) && first.abs_diff(second) >= 4 * SIZE);
}

#[test]
fn there_is_room_for_all_of_them_beside_everything_else() {
    let mut nic = Device::e1000e();
    let description = nic.describe();
    let mut bus = GuestPciBus::new(SPACE);
    let neighbour = |bus: &mut GuestPciBus, slot| {
        bus.add(AssignedFunction::new(&nic, &description, Bdf::new(0, slot, 0).unwrap(), None).unwrap()).unwrap();
    };
    neighbour(&mut bus, 1);
    let card = add(Device::igb(), &mut bus);
    for slot in 9..13 {
        neighbour(&mut bus, slot);
    }
    let mut taken = [0, 3].map(|register| (address(&bus, &card, register), 4 * SIZE)).to_vec();
    for function in bus.functions().filter(|function| function.physical().is_none()) {
        let memory = function.ranges().filter(|range| range.is_memory());
        taken.extend(memory.map(|range| (function.bars.address(range).unwrap(), range.size)));
    }
    taken.sort();
    assert_eq!(taken.len(), 2 + 2 + 5 * 3);
    assert!(taken.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{taken:#x?}");
    let mut virtual_ones = bus.functions().filter(|function| function.physical().is_some());
    assert!(virtual_ones.all(|function| function.ranges().all(|range| function.bars.address(range) == Some(0))));
}

#[test]
fn those_of_another_card_are_its_own() {
    let (mut card, mut bus) = card(Device::igb());
    let other = PciAddress { bdf: Bdf::from_u16(0x0100), ..HOST };
    let description = *bus.functions().last().unwrap().description();
    let place = slot(0x40);
    bus.add(AssignedFunction::new(&card, &description, place, None).unwrap().into_virtual(other, 0)).unwrap();
    enable(&mut bus, &mut card, 4);
    assert_eq!(read(&bus, &card, place, 4, Width::Dword), u32::MAX);
    assert_ne!(read(&bus, &card, slot(3), 4, Width::Dword), u32::MAX);
}

#[test]
fn it_stands_behind_the_serial_number_where_there_is_one() {
    let (card_, bus) = card(Device::e1000e());
    let read = |offset| read(&bus, &card_, GUEST, offset, Width::Dword);
    assert_eq!(
        (read(0x100), read(0x108), read(0x10C), read(0x118)),
        (0x10C1_0003, 0x5254_00FF, 0x0001_0010, 0x0004_0004)
    );
    // Without virtual functions, the serial number is the last.
    let (nic, bus) = with(Device::e1000e());
    assert_eq!(bus.read_config(&nic, GUEST, 0x100, Width::Dword), 0x0001_0003);
    assert_eq!(bus.read_config(&nic, GUEST, 0x10C, Width::Dword), 0);
}

#[test]
fn virtual_functions_are_there_while_they_are_enabled() {
    let (mut card, mut bus) = card(Device::igb());
    let there = |bus: &GuestPciBus, card: &Card| {
        (0..256).filter(|devfn| read(bus, card, Bdf::from_u16(*devfn), 4, Width::Dword) != u32::MAX).count()
    };
    assert_eq!(there(&bus, &card), 2, "the host bridge and the card");
    assert_eq!(write(&mut bus, &mut card, slot(0), 4, Width::Word, 4), []);
    let effects = enable(&mut bus, &mut card, 2);
    assert_eq!(counts(&effects), [2]);
    assert_eq!(effects[0].kind, PciEffectKind::VirtualFunctions { count: 2 }, "before they are mapped");
    assert_eq!(there(&bus, &card), 4);
    assert_eq!(read(&bus, &card, slot(1), 0, Width::Dword), u32::MAX, "no ids of their own");
    assert_eq!(read(&bus, &card, slot(2), 0x34, Width::Byte), 0xFF);
    assert!(card.physical.writes.is_empty(), "the real capability is not the guest's");
    let effects = write(&mut bus, &mut card, GUEST, CONTROL, Width::Byte, 0);
    assert_eq!(counts(&effects), [0]);
    assert_eq!(there(&bus, &card), 2);
    assert!(card.physical.writes.is_empty());
}

#[test]
fn their_ranges_are_where_the_card_says_and_the_table_is_left_out() {
    let (mut card, mut bus) = card(Device::igb());
    let (first, second) = (address(&bus, &card, 0), address(&bus, &card, 3));
    let of = |first: u64, second: u64, index: u64| {
        let (own, table) = (index * SIZE, second + index * SIZE + PAGE);
        [(first + own, HOST_RANGES[0] + own, SIZE), (table, HOST_RANGES[1] + own + PAGE, SIZE - PAGE)]
    };
    let all = |first, second| (0..3).flat_map(|index| of(first, second, index)).collect::<Vec<_>>();
    let gone =
        |list: Vec<(u64, u64, u64)>| list.into_iter().map(|(guest, _, bytes)| (guest, 0, bytes)).collect::<Vec<_>>();
    assert_eq!(mappings(&enable(&mut bus, &mut card, 3)), all(first, second));
    // Memory space off and on again: they stay, and do not answer.
    assert_eq!(mappings(&write(&mut bus, &mut card, GUEST, CONTROL, Width::Word, 1)), gone(all(first, second)));
    assert_ne!(read(&bus, &card, slot(0), 4, Width::Dword), u32::MAX);
    assert_eq!(mappings(&write(&mut bus, &mut card, GUEST, CONTROL, Width::Word, 9)), all(first, second));
    // Moved, as far as one range goes; all ones ask for the size of one.
    let before = read(&bus, &card, GUEST, BAR + 12, Width::Dword);
    let moved = write(&mut bus, &mut card, GUEST, BAR + 12, Width::Dword, u32::MAX);
    assert_eq!(read(&bus, &card, GUEST, BAR + 12, Width::Dword), 0xFFFF_C000);
    assert_eq!(mappings(&moved), gone((0..3).map(|index| of(first, second, index)[1]).collect()));
    let to = u64::from(before) + 0x10_0000;
    let moved = write(&mut bus, &mut card, GUEST, BAR + 12, Width::Dword, to as u32);
    assert_eq!(mappings(&moved), (0..3).map(|index| of(first, to, index)[1]).collect::<Vec<_>>());
    let off = write(&mut bus, &mut card, GUEST, CONTROL, Width::Word, 0);
    assert_eq!(mappings(&off), gone(all(first, to)));
    assert!(card.physical.writes.is_empty());
}

#[test]
fn what_is_not_the_guests_to_choose_stays() {
    let (mut card, mut bus) = card(Device::igb());
    let dword = |bus: &GuestPciBus, card: &Card, offset| read(bus, card, GUEST, CAPABILITY + offset, Width::Dword);
    for offset in [0x00, 0x04, 0x0C, 0x14, 0x18, 0x1C, 0x20, 0x3C] {
        let before = dword(&bus, &card, offset);
        write(&mut bus, &mut card, GUEST, CAPABILITY + offset, Width::Dword, u32::MAX);
        assert_eq!(dword(&bus, &card, offset), before, "{offset:#x}");
    }
    // Routing, migration and its interrupt.
    write(&mut bus, &mut card, GUEST, CONTROL, Width::Word, 0x16);
    assert_eq!(dword(&bus, &card, 0x08), 0);
    for count in [5, 0xFFFF] {
        assert_eq!(enable(&mut bus, &mut card, count), [], "more than there are");
        assert_eq!(dword(&bus, &card, 0x10), 0x0018_0000);
        write(&mut bus, &mut card, GUEST, CONTROL, Width::Word, 0);
    }
    enable(&mut bus, &mut card, 1);
    assert_eq!(write(&mut bus, &mut card, GUEST, NUM_VFS, Width::Word, 4), []);
    assert_eq!(dword(&bus, &card, 0x10), 0x0018_0001, "their number stays while they are on");
    assert!(card.physical.writes.is_empty());
}

#[test]
fn a_virtual_function_has_bus_mastering_and_messages_and_no_registers_of_ranges() {
    let (mut card, mut bus) = card(Device::igb());
    let second = address(&bus, &card, 3);
    enable(&mut bus, &mut card, 2);
    let one = slot(1);
    for offset in (0x10..0x28).step_by(4) {
        assert_eq!(write(&mut bus, &mut card, one, offset, Width::Dword, 0xFFFF_FFFF), []);
        assert_eq!(read(&bus, &card, one, offset, Width::Dword), 0);
    }
    let effects = write(&mut bus, &mut card, one, 4, Width::Word, 0x407);
    assert_eq!(effects, [PciEffect { function: host(1), kind: PciEffectKind::BusMaster { enabled: true } }]);
    assert_eq!(read(&bus, &card, one, 4, Width::Word), 4);
    assert_eq!(card.functions[1].writes, [(4, Width::Word, 0x406)]);
    assert_eq!(write(&mut bus, &mut card, one, 4, Width::Word, 4), [], "no range is switched off by it");
    // Its table: entry 2, then MSI-X on.
    let table = GuestPhys::new(second + SIZE + 2 * 16);
    let mut effects = Vec::new();
    let mut put = |bus: &mut GuestPciBus, card: &mut Card, offset: u64, value| {
        let address = GuestPhys::new(table.as_u64() + offset);
        let done = bus.write_memory(card, address, 4, value, &mut |effect| {
            effects.push(effect);
            true
        });
        assert_eq!(done, Some(TrappedWrite::Done));
    };
    for (offset, value) in [(0, 0xFEE0_0000), (8, 0x41), (12, 0)] {
        put(&mut bus, &mut card, offset, value);
    }
    assert_eq!(effects, []);
    let effects = write(&mut bus, &mut card, one, 0x72, Width::Word, 0x8000);
    let [PciEffect { function, kind: PciEffectKind::Msix(MsixEffect::Route { entry: 2, .. }) }] = effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(function, host(1));
    // Gone: masked, and nothing of it left when it comes back.
    let effects = write(&mut bus, &mut card, GUEST, CONTROL, Width::Word, 0);
    let mask = PciEffect { function: host(1), kind: PciEffectKind::Msix(MsixEffect::Mask { entry: 2 }) };
    assert!(effects.contains(&mask), "{effects:?}");
    assert_eq!((card.functions[1].command(), card.functions[1].bytes[0x73] & 0x80), (0, 0), "the real one is stopped");
    enable(&mut bus, &mut card, 2);
    assert_eq!((read(&bus, &card, one, 4, Width::Word), read(&bus, &card, one, 0x72, Width::Word)), (0, 2));
}

#[test]
fn resets_take_what_they_reset() {
    let (mut card, mut bus) = card(Device::igb());
    enable(&mut bus, &mut card, 2);
    write(&mut bus, &mut card, slot(0), 4, Width::Word, 4);
    // A virtual function's own reset: its ranges stay.
    let effects = write(&mut bus, &mut card, slot(0), 0xA8, Width::Word, 0x8000);
    assert_eq!(effects, [PciEffect { function: host(0), kind: PciEffectKind::Reset }]);
    assert_eq!(read(&bus, &card, slot(0), 4, Width::Word), 0);
    // The card's: they are switched off before it, and their ranges have no address after it.
    let effects = write(&mut bus, &mut card, GUEST, 0xA8, Width::Word, 0x8000);
    let kinds: Vec<_> =
        effects.iter().map(|effect| effect.kind).filter(|kind| !matches!(kind, PciEffectKind::Mapping(_))).collect();
    assert_eq!(kinds, [PciEffectKind::VirtualFunctions { count: 0 }, PciEffectKind::Reset]);
    assert_eq!(mappings(&effects).len(), 4, "two ranges of two");
    assert_eq!(read(&bus, &card, slot(0), 4, Width::Dword), u32::MAX);
    assert_eq!((address(&bus, &card, 0), address(&bus, &card, 3)), (0, 0));
    assert_eq!(read(&bus, &card, GUEST, CONTROL, Width::Dword), 0);
    let effects = write(&mut bus, &mut card, GUEST, 0xA8, Width::Word, 0x8000);
    assert_eq!(effects, [PciEffect { function: HOST, kind: PciEffectKind::Reset }], "none to switch off");
    let effects = enable(&mut bus, &mut card, 2);
    assert_eq!((counts(&effects), effects.len()), (Vec::from([2]), 1), "{effects:?}");
}

#[test]
fn a_quarantined_card_has_no_virtual_functions_and_a_quarantined_one_no_bus_mastering() {
    let quarantine = |bus: &mut GuestPciBus, card: &mut Card, host| {
        let mut effects = Vec::new();
        bus.quarantine(host, card, &mut |effect| {
            effects.push(effect);
            true
        });
        effects
    };
    let (mut card, mut bus) = card(Device::igb());
    enable(&mut bus, &mut card, 2);
    assert_eq!(counts(&quarantine(&mut bus, &mut card, host(0))), []);
    let effects = write(&mut bus, &mut card, slot(0), 4, Width::Word, 4);
    assert!(matches!(effects[..], [PciEffect { kind: PciEffectKind::Refused(Refusal::Quarantined { .. }), .. }]));
    // Not by coming back either.
    write(&mut bus, &mut card, GUEST, CONTROL, Width::Word, 0);
    write(&mut bus, &mut card, GUEST, CONTROL, Width::Word, 9);
    write(&mut bus, &mut card, slot(0), 4, Width::Word, 4);
    assert_eq!(card.functions[0].command() & 4, 0);

    let effects = quarantine(&mut bus, &mut card, HOST);
    assert_eq!((counts(&effects), mappings(&effects).len()), (Vec::from([0]), 4));
    let effects = write(&mut bus, &mut card, GUEST, CONTROL, Width::Word, 9);
    assert!(matches!(effects[..], [PciEffect { kind: PciEffectKind::Refused(Refusal::Quarantined { .. }), .. }]));
    assert_eq!(read(&bus, &card, slot(1), 4, Width::Dword), u32::MAX);
}

#[test]
fn random_writes_never_reach_the_real_capability_and_nothing_is_mapped_twice() {
    let mut state = 0x5151_AAAA_0F0F_3333_u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % below
    };
    let (mut card, mut bus) = card(Device::igb());
    let mut mapped: BTreeMap<u64, u64> = BTreeMap::new();
    for round in 0..20_000 {
        let (offset, width, value) = match random(6) {
            0 => (CONTROL, Width::Word, random(32)),
            1 => (NUM_VFS, Width::Word, random(6)),
            2 => (BAR + 4 * random(6) as u16, Width::Dword, 0xC000_0000 + (random(64) << 14)),
            3 => (BAR + 4, Width::Dword, random(2)),
            4 => (0x04, Width::Word, random(8)),
            _ => (CAPABILITY + (random(0x10) * 4) as u16, Width::Dword, random(1 << 32)),
        };
        for effect in write(&mut bus, &mut card, GUEST, offset, width, value as u32) {
            match effect.kind {
                PciEffectKind::Mapping(MappingEffect::Map { guest, bytes, .. }) => {
                    let (start, end) = (guest.as_u64(), guest.as_u64() + bytes);
                    let other = mapped.range(..end).next_back().filter(|(_, other)| **other > start);
                    assert_eq!(other, None, "round {round}: {start:#x} is mapped");
                    mapped.insert(start, end);
                }
                PciEffectKind::Mapping(MappingEffect::Unmap { guest, bytes }) => {
                    assert_eq!(mapped.remove(&guest.as_u64()), Some(guest.as_u64() + bytes), "round {round}");
                }
                _ => {}
            }
        }
        assert!(card.physical.writes.iter().all(|(offset, ..)| *offset == 4), "round {round}");
    }
    assert_eq!(
        mapped.is_empty(),
        bus.functions().all(|function| function.ranges().all(|range| range.decoded.is_none()))
    );
}
