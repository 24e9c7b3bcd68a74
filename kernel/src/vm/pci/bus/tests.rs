use super::*;
use crate::vm::pci::effect::MappingEffect;
use crate::vm::pci::fake::{Device, GUEST, HOST};
use crate::vm::pci::{DeviceMessage, MsixEffect, PciEffect, PciEffectKind, Refusal};
use addr::HostPhys;
use std::collections::BTreeMap;

mod virtual_functions;

/// What the real function is to send by MSI.
const MESSAGE: DeviceMessage = DeviceMessage { address: 0xFEE0_0018, data: 0 };
const SPACE: GuestAddressSpace = GuestAddressSpace { memory_end: 0x1000_0000, address_bits: 40 };

fn bus() -> (Device, GuestPciBus) {
    with(Device::e1000e())
}

/// A bus with the function of a device.
fn with(mut nic: Device) -> (Device, GuestPciBus) {
    let description = nic.describe();
    let function = AssignedFunction::new(&nic, &description, GUEST, Some(MESSAGE)).unwrap();
    function.prepare(&mut nic);
    nic.writes.clear();
    let mut bus = GuestPciBus::new(SPACE);
    bus.add(function).unwrap();
    (nic, bus)
}

fn select(bus: &mut GuestPciBus, nic: &mut Device, address: u32) {
    bus.write_port(nic, 0xCF8, Width::Dword, address, &mut |_| panic!("an effect of the address"));
}

#[test]
fn a_scan_finds_the_host_bridge_and_the_function_and_nothing_else() {
    let (mut nic, mut bus) = bus();
    let mut found = Vec::new();
    for address in (0x8000_0000..0x8100_0000u32).step_by(0x100) {
        select(&mut bus, &mut nic, address);
        let id = bus.read_port(&nic, 0xCFC, Width::Dword);
        if id != u32::MAX {
            found.push((address, id));
        }
    }
    assert_eq!(found, [(0x8000_0000, 0x0D57_8086), (0x8000_1800, 0x10D3_8086)]);
}

#[test]
fn the_data_ports_reach_parts_of_a_dword() {
    let (mut nic, mut bus) = bus();
    select(&mut bus, &mut nic, 0x8000_1800);
    assert_eq!(bus.read_port(&nic, 0xCF8, Width::Dword), 0x8000_1800);
    assert_eq!(bus.read_port(&nic, 0xCFE, Width::Word), 0x10D3);
    assert_eq!(bus.read_port(&nic, 0xCFD, Width::Byte), 0x80);
    assert_eq!(bus.read_port(&nic, 0xCFF, Width::Word), 0xFFFF);
    assert_eq!(bus.read_port(&nic, 0xCFE, Width::Dword), u32::MAX);
    select(&mut bus, &mut nic, 0x8000_1804);
    let mut effects = Vec::new();
    bus.write_port(&mut nic, 0xCFC, Width::Byte, 0x06, &mut |effect| {
        effects.push(effect);
        true
    });
    assert_eq!(effects.len(), 4, "bus mastering, and three ranges");
    assert_eq!(nic.command() & 7, 6);
}

#[test]
fn nothing_is_reached_without_the_enable_bit_or_beyond_256_bytes() {
    let (mut nic, mut bus) = bus();
    select(&mut bus, &mut nic, 0x0000_1800);
    assert_eq!(bus.read_port(&nic, 0xCFC, Width::Dword), u32::MAX);
    select(&mut bus, &mut nic, 0x8100_1803);
    assert_eq!(bus.read_port(&nic, 0xCF8, Width::Dword), 0x8000_1800);
    assert_eq!(bus.read_port(&nic, 0xCF8, Width::Byte), 0xFF);
    bus.write_port(&mut nic, 0xCF9, Width::Byte, 0x06, &mut |_| panic!("the reset port is not there"));
    assert_eq!(bus.read_port(&nic, 0xCF8, Width::Dword), 0x8000_1800);
}

#[test]
fn slots_are_checked() {
    let (mut nic, mut bus) = bus();
    let description = nic.describe();
    let mut add = |slot| {
        let function = AssignedFunction::new(&nic, &description, slot, None).unwrap();
        bus.add(function)
    };
    assert_eq!(add(GUEST), Err(BusError::SlotTaken(GUEST)));
    for bad in [Bdf::from_u16(0), Bdf::new(1, 3, 0).unwrap(), Bdf::new(0, 3, 1).unwrap()] {
        assert_eq!(add(bad), Err(BusError::BadSlot(bad)));
    }
    for device in 10..17 {
        assert_eq!(add(Bdf::new(0, device, 0).unwrap()), Ok(()));
    }
    assert!(bus.remove(GUEST).is_some() && bus.remove(GUEST).is_none());
}

/// A deterministic stream of numbers (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
    /// What a guest means to write at this place of the table, or anything.
    fn table_value(&mut self, place: u64) -> u64 {
        match (self.below(8), place % 16) {
            (0, _) => self.next(),
            (_, 0) => 0xFEE0_0000 | self.next() & 0xF_F00C,
            (_, 4) => 0,
            (_, 8) => 0x0000_0020 | self.next() & 0x1_0000_01FF,
            _ => self.next() & 1,
        }
    }
    /// Values that mean something in configuration space, and others.
    fn value(&mut self) -> u64 {
        match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 | 3 => 0x8000_8000,
            4 => self.next() & 0xFF,
            _ => self.next(),
        }
    }
}

/// Follows the effects as the hypervisor would: which real entries are unmasked, and what the guest reaches.
#[derive(Default)]
struct Shadow {
    live: [bool; 5],
    /// Guest and host page.
    pages: BTreeMap<u64, u64>,
    resets: usize,
}

impl Shadow {
    fn apply(&mut self, effect: PciEffect) -> bool {
        assert_eq!(effect.function, HOST);
        match effect.kind {
            PciEffectKind::Msix(MsixEffect::Route { entry, message }) => {
                assert!(message.vector.0 >= 16);
                self.live[usize::from(entry)] = true;
            }
            PciEffectKind::Msix(MsixEffect::Mask { entry }) => {
                assert!(self.live[usize::from(entry)], "masks a masked entry");
                self.live[usize::from(entry)] = false;
            }
            PciEffectKind::Msix(MsixEffect::Unroutable { entry, .. }) => assert!(!self.live[usize::from(entry)]),
            PciEffectKind::Mapping(MappingEffect::Map { guest, host, bytes }) => {
                assert!(bytes > 0 && (guest.as_u64() | host.as_u64() | bytes) % 4096 == 0);
                for page in (0..bytes).step_by(4096) {
                    let (guest, host) = (guest.as_u64() + page, host.as_u64() + page);
                    assert!(guest >= SPACE.memory_end && !(0xE000_0000..0xE010_0000).contains(&guest), "{guest:#x}");
                    assert!(!(0xFEC0_0000..0x1_0000_0000).contains(&guest) && guest < 1 << 40, "{guest:#x}");
                    let own = [0xFEB8_0000..0xFEBC_0000, 0xFEBD_1000..0xFEBD_4000];
                    assert!(own.iter().any(|range| range.contains(&host)), "{host:#x}");
                    assert_eq!(self.pages.insert(guest, host), None, "mapped twice");
                }
            }
            PciEffectKind::Mapping(MappingEffect::Unmap { guest, bytes }) => {
                for page in (0..bytes).step_by(4096) {
                    assert!(self.pages.remove(&(guest.as_u64() + page)).is_some(), "was not mapped");
                }
            }
            PciEffectKind::Reset => self.resets += 1,
            _ => {}
        }
        true
    }

    /// What the guest reaches must be what its registers say.
    fn check(&self, bus: &GuestPciBus) {
        let decoded = bus.functions().flat_map(AssignedFunction::ranges).filter(|range| range.is_memory());
        let pages: u64 = decoded.filter_map(|range| range.decoded.map(|_| range.size / 4096)).sum();
        let trapped = bus.functions().next().unwrap().range(3).unwrap().decoded.is_some();
        assert_eq!(self.pages.len() as u64, pages - u64::from(trapped));
    }
}

#[test]
fn a_guest_that_does_anything_reaches_nothing_that_is_not_its_own() {
    let (mut nic, mut bus) = bus();
    let before = nic.bytes;
    let mut random = Random(0x0123_4567_89AB_CDEF);
    let mut shadow = Shadow::default();
    let (mut routed, mut wrote_command, mut wrote_control, mut moves) = (0, 0, 0, 0);
    for _ in 0..300_000 {
        let width = [Width::Byte, Width::Word, Width::Dword][random.below(3) as usize];
        let (bytes, place) = match random.below(4) {
            0 => ([1, 2, 3, 4, 8, 16][random.below(6) as usize], random.below(0x80)),
            1 => (8, random.below(0x10) * 8),
            _ => (4, random.below(0x20) * 4),
        };
        let table = bus.functions().next().unwrap().range(3).unwrap().decoded;
        let address = GuestPhys::new(table.unwrap_or(0xC004_0000) - 16 + place);
        match random.below(8) {
            0 => {
                let offset = [random.next() as u32 & 0xFC, 0x04, 0xA0, 0x10, 0xD0][random.below(5) as usize];
                let slot = if random.below(8) == 0 { random.next() as u32 } else { 0x8000_1800 };
                bus.write_port(&mut nic, 0xCF8, Width::Dword, slot & !0xFF | offset, &mut |_| true);
            }
            1 => {
                let got = bus.read_port(&nic, 0xCF8 + random.below(8) as u16, width);
                assert_eq!(got & !width.mask(), 0);
            }
            2 => {
                let _ = bus.read_memory(&nic, address, bytes, &mut |effect| shadow.apply(effect));
            }
            3 => {
                let value = random.table_value(place);
                let _ = bus.write_memory(&mut nic, address, bytes, value, &mut |effect| shadow.apply(effect));
            }
            4 => {
                // What a guest means to write into the function's registers, by memory.
                let (offset, value) = match random.below(16) {
                    0..4 => (0x10 + 4 * random.below(4), 0xC000_0000 + 0x1_0000 * random.below(16)),
                    4 => (0x10 + 4 * random.below(4), random.next() << random.below(64)),
                    5 => (random.below(0x1000), random.value()),
                    6 => (0xE8, 0xA810),
                    _ => (0x04, 0x0007),
                };
                let address = GuestPhys::new(0xE000_0000 | 3 << 15 | offset);
                let bytes = [4, 4, 4, 8, 2, 1][random.below(6) as usize];
                let _ = bus.write_memory(&mut nic, address, bytes, value, &mut |effect| shadow.apply(effect));
            }
            _ => {
                let port = 0xCF9 + random.below(7) as u16;
                let value = random.value() as u32;
                bus.write_port(&mut nic, port, width, value, &mut |effect| shadow.apply(effect));
            }
        }
        for (offset, width, value) in nic.writes.drain(..) {
            match (offset, width) {
                (0x04, Width::Word) => {
                    wrote_command += 1;
                    assert_eq!(value & !0x05, 0x0502, "the command register's other bits");
                }
                (0x06, Width::Word) => assert_eq!(value & !0xF900, 0, "status bits that are no errors"),
                (0xA2, Width::Word) => {
                    wrote_control += 1;
                    assert_eq!(value & !0xC000, 4, "message control's other bits");
                }
                (0xD2, Width::Word) => assert_eq!(value & !1, 0x80, "MSI's message control"),
                (0xD4, Width::Dword) => assert_eq!(value, 0xFEE0_0018, "MSI's address"),
                (0xD8, Width::Dword) | (0xDC, Width::Word) => assert_eq!(value, 0, "MSI's data"),
                (0xE8, Width::Word) => assert_eq!(value & !0x7010, 0x0800, "device control"),
                (0xEA, Width::Word) => assert_eq!(value & !0xF, 0, "device status"),
                other => panic!("the real function was written at {other:x?}"),
            }
        }
        shadow.check(&bus);
        moves += usize::from(table != bus.functions().next().unwrap().range(3).unwrap().decoded);
        // What is live by the effects is live by the guest's table, under the real enable and mask.
        let control = nic.bytes[0xA3] >> 6;
        let table = bus.functions().next().unwrap().msix_table().unwrap();
        for (entry, live) in shadow.live.into_iter().enumerate() {
            assert_eq!(table.route(entry as u16).is_some(), live);
            assert!(!live || control == 0b10);
            routed += usize::from(live);
        }
    }
    assert!(routed > 1000 && wrote_command > 100 && wrote_control > 100, "{routed} {wrote_command} {wrote_control}");
    assert!(moves > 1000 && shadow.resets > 100, "{moves} {}", shadow.resets);
    let may_change = [0x04, 0x05, 0xA3, 0xD2, 0xD4, 0xD5, 0xD6, 0xD7, 0xE8, 0xE9, 0xEA];
    for (offset, byte) in nic.bytes.iter().enumerate() {
        assert!(*byte == before[offset] || may_change.contains(&offset), "byte {offset:#x} changed");
    }
}

/// The ECAM address of a register of the function.
fn register(offset: u64) -> GuestPhys {
    GuestPhys::new(0xE001_8000 | offset)
}

/// A write by memory, with its effects.
fn put(bus: &mut GuestPciBus, nic: &mut Device, offset: u64, bytes: usize, value: u64) -> Vec<PciEffectKind> {
    let mut kinds = Vec::new();
    let done = bus.write_memory(nic, register(offset), bytes, value, &mut |effect| {
        kinds.push(effect.kind);
        true
    });
    assert_eq!(done, Some(TrappedWrite::Done));
    kinds
}

fn get(bus: &GuestPciBus, nic: &Device, offset: u64, bytes: usize) -> u64 {
    match bus.read_memory(nic, register(offset), bytes, &mut |_| panic!("an effect of a read")) {
        Some(TrappedRead::Value(value)) => value,
        other => panic!("{other:?}"),
    }
}

fn map(guest: u64, host: u64, bytes: u64) -> PciEffectKind {
    let (guest, host) = (GuestPhys::new(guest), HostPhys::new(host));
    PciEffectKind::Mapping(MappingEffect::Map { guest, host, bytes })
}

fn unmap(guest: u64, bytes: u64) -> PciEffectKind {
    PciEffectKind::Mapping(MappingEffect::Unmap { guest: GuestPhys::new(guest), bytes })
}

fn refused(index: u8, requested: u64, obstacle: Obstacle) -> PciEffectKind {
    PciEffectKind::Refused(Refusal::BarMove { index, requested, obstacle })
}

#[test]
fn memory_reaches_the_same_configuration_space_as_the_ports() {
    let (mut nic, mut bus) = bus();
    for offset in (0..0x100).step_by(4) {
        select(&mut bus, &mut nic, 0x8000_1800 | offset);
        let by_port = bus.read_port(&nic, 0xCFC, Width::Dword);
        assert_eq!(get(&bus, &nic, offset.into(), 4), by_port.into(), "{offset:#x}");
    }
    assert_eq!((get(&bus, &nic, 0x02, 2), get(&bus, &nic, 0x03, 1)), (0x10D3, 0x10));
    assert_eq!(get(&bus, &nic, 0xA0, 8), 0x0000_0003_0004_0011);
    assert_eq!(get(&bus, &nic, 0x03, 2), 0xFFFF, "over two dwords");
    assert_eq!(get(&bus, &nic, 0x100, 4), 0x0001_0003);
    let read = |address| bus.read_memory(&nic, GuestPhys::new(address), 4, &mut |_| true);
    assert_eq!(read(0xE000_0000), Some(TrappedRead::Value(0x0D57_8086)), "host bridge");
    assert_eq!(read(0xE000_8000), Some(TrappedRead::Value(0xFFFF_FFFF)), "no function");
    assert_eq!(read(0xE010_0000), None, "behind the window");
    put(&mut bus, &mut nic, 0x3C, 1, 0x0B);
    assert_eq!(get(&bus, &nic, 0x3C, 4), 0x0B);
    put(&mut bus, &mut nic, 0x10, 8, 0xC600_0000_C500_0000);
    assert_eq!(get(&bus, &nic, 0x10, 8), 0xC600_0000_C500_0000);
}

#[test]
fn ranges_begin_at_places_of_their_own_and_are_reached_when_switched_on() {
    let (mut nic, mut bus) = bus();
    assert_eq!((get(&bus, &nic, 0x10, 8), get(&bus, &nic, 0x18, 8)), (0xC002_0000_C000_0000, 0xC004_0000_0000_C001));
    assert_eq!(bus.real_port(0xC004, 4), None);
    let kinds = put(&mut bus, &mut nic, 0x04, 2, 0x0003);
    let three = [
        map(0xC000_0000, 0xFEB8_0000, 0x2_0000),
        map(0xC002_0000, 0xFEBA_0000, 0x2_0000),
        map(0xC004_1000, 0xFEBD_1000, 0x3000),
    ];
    assert_eq!(kinds, three);
    assert_eq!(
        (bus.real_port(0xC004, 4), bus.real_port(0xC01D, 4), bus.real_port(0xBFFF, 1)),
        (Some(0xC044), None, None)
    );
    assert_eq!(put(&mut bus, &mut nic, 0x04, 2, 0x0003), []);
    let gone = [unmap(0xC000_0000, 0x2_0000), unmap(0xC002_0000, 0x2_0000), unmap(0xC004_1000, 0x3000)];
    assert_eq!(put(&mut bus, &mut nic, 0x04, 2, 0x0001), gone);
    let table = GuestPhys::new(0xC004_000C);
    assert_eq!(bus.read_memory(&nic, table, 4, &mut |_| true), Some(TrappedRead::Value(u64::MAX)), "not there");
}

#[test]
fn a_moved_range_is_unmapped_and_mapped_with_its_table() {
    let (mut nic, mut bus) = bus();
    put(&mut bus, &mut nic, 0x04, 2, 0x0002);
    let wanted = [unmap(0xC004_1000, 0x3000), map(0xD000_1000, 0xFEBD_1000, 0x3000)];
    assert_eq!(put(&mut bus, &mut nic, 0x1C, 4, 0xD000_0000), wanted);
    let read = |address| bus.read_memory(&nic, GuestPhys::new(address), 4, &mut |_| true);
    assert_eq!(read(0xD000_000C), Some(TrappedRead::Value(1)), "the table has not moved");
    assert_eq!(read(0xD000_0050), Some(TrappedRead::Forward(HostPhys::new(0xFEBD_0050))));
    assert_eq!(read(0xC004_000C), Some(TrappedRead::Value(u64::MAX)));
    // Sizing takes it away, and writing the address brings it back.
    assert_eq!(put(&mut bus, &mut nic, 0x1C, 4, 0xFFFF_FFFF), [unmap(0xD000_1000, 0x3000)]);
    assert_eq!(put(&mut bus, &mut nic, 0x1C, 4, 0xD000_0000), [map(0xD000_1000, 0xFEBD_1000, 0x3000)]);
}

#[test]
fn a_range_that_is_in_the_way_is_nowhere_until_its_place_is_free() {
    let (mut nic, mut bus) = bus();
    put(&mut bus, &mut nic, 0x04, 2, 0x0002);
    for (address, obstacle) in [
        (0x0FFE_0000, Obstacle::Memory),
        (0xE000_0000, Obstacle::ConfigurationSpace),
        (0xFEE0_0000, Obstacle::Platform),
        (0xC000_0000, Obstacle::Range),
    ] {
        let kinds = put(&mut bus, &mut nic, 0x14, 4, address);
        assert_eq!(kinds.last(), Some(&refused(1, address, obstacle)));
        assert_eq!(put(&mut bus, &mut nic, 0x04, 2, 0x0006).len(), 1, "said once");
        put(&mut bus, &mut nic, 0x04, 2, 0x0002);
    }
    let kinds = put(&mut bus, &mut nic, 0x10, 4, 0xC800_0000);
    let wanted = [
        unmap(0xC000_0000, 0x2_0000),
        map(0xC800_0000, 0xFEB8_0000, 0x2_0000),
        map(0xC000_0000, 0xFEBA_0000, 0x2_0000),
    ];
    assert_eq!(kinds, wanted, "the place is free, and the other takes it");
    // 0 is no address.
    assert_eq!(put(&mut bus, &mut nic, 0x10, 4, 0), [unmap(0xC800_0000, 0x2_0000)]);
}

#[test]
fn a_64_bit_range_is_moved_by_two_writes() {
    let (mut nvme, mut bus) = with(Device::nvme());
    assert_eq!(get(&bus, &nvme, 0x10, 8), 0xC000_0004, "a small one is below 4 GiB");
    assert_eq!(put(&mut bus, &mut nvme, 0x14, 4, 0x41), []);
    assert_eq!(put(&mut bus, &mut nvme, 0x10, 4, 0x8000_0000), []);
    let kinds = put(&mut bus, &mut nvme, 0x04, 2, 0x0002);
    let wanted = [map(0x41_8000_0000, 0x48_8000_0000, 0x2000), map(0x41_8000_3000, 0x48_8000_3000, 0x1000)];
    assert_eq!(kinds, wanted);
    assert_eq!(put(&mut bus, &mut nvme, 0x14, 4, 0xFFFF_FFFF).len(), 2, "sizing");
    assert_eq!(put(&mut bus, &mut nvme, 0x14, 4, 0x1_00), [refused(0, 0x100_8000_0000, Obstacle::BeyondAddresses)]);
}

#[test]
fn large_ranges_are_above_4_gib_if_the_guest_reaches_there() {
    let large = |size_mask: u32| {
        let mut device = Device::nvme();
        device.allow(0x10, size_mask);
        device.allow(0x14, 0xFFFF_FFFF);
        device
    };
    let (nvme, bus) = with(large(0xC000_0000));
    assert_eq!(get(&bus, &nvme, 0x10, 8), 0x40_0000_0004);
    let mut device = large(0xF000_0000);
    let description = device.describe();
    let function = AssignedFunction::new(&device, &description, GUEST, None).unwrap();
    let mut narrow = GuestPciBus::new(GuestAddressSpace { memory_end: 0x1000_0000, address_bits: 36 });
    narrow.add(function).unwrap();
    assert_eq!(get(&narrow, &device, 0x10, 8), 0xC000_0004);
    let mut device = large(0xC000_0000);
    let description = device.describe();
    let function = AssignedFunction::new(&device, &description, GUEST, None).unwrap();
    let mut narrow = GuestPciBus::new(GuestAddressSpace { memory_end: 0x1000_0000, address_bits: 36 });
    assert_eq!(narrow.add(function), Err(BusError::NoRoom { register: 0, size: 0x4000_0000 }));
}

#[test]
fn ranges_are_not_placed_over_memory() {
    let mut nic = Device::e1000e();
    let description = nic.describe();
    for (memory_end, first) in [(0xC000_0000, Ok(0xC000_0000)), (0xD801_0000, Ok(0xD802_0000)), (0xDFFF_0000, Err(()))]
    {
        let function = AssignedFunction::new(&nic, &description, GUEST, None).unwrap();
        let mut bus = GuestPciBus::new(GuestAddressSpace { memory_end, address_bits: 40 });
        match (bus.add(function), first) {
            (Ok(()), Ok(first)) => assert_eq!(get(&bus, &nic, 0x10, 4), first),
            (Err(BusError::NoRoom { register: 0, .. }), Err(())) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_range_that_does_not_answer_reads_as_all_ones_wherever_it_is() {
    let (mut nic, mut bus) = bus();
    let read = |bus: &GuestPciBus, nic: &Device| bus.read_memory(nic, GuestPhys::new(0x9000_0010), 4, &mut |_| true);
    assert_eq!(read(&bus, &nic), None);
    put(&mut bus, &mut nic, 0x10, 4, 0x9000_0000);
    assert_eq!(read(&bus, &nic), Some(TrappedRead::Value(u64::MAX)));
    let write = bus.write_memory(&mut nic, GuestPhys::new(0x9000_0010), 4, 0, &mut |_| true);
    assert_eq!(write, Some(TrappedWrite::Done));
    put(&mut bus, &mut nic, 0x10, 4, 0x0100_0000);
    let memory = bus.read_memory(&nic, GuestPhys::new(0x0100_0010), 4, &mut |_| true);
    assert_eq!(memory, None, "the guest's memory is none of a function's");
}

#[test]
fn a_reset_function_is_reached_no_more() {
    let (mut nic, mut bus) = bus();
    put(&mut bus, &mut nic, 0x04, 2, 0x0002);
    let kinds = put(&mut bus, &mut nic, 0xE8, 2, 0xA810);
    let gone = [unmap(0xC000_0000, 0x2_0000), unmap(0xC002_0000, 0x2_0000), unmap(0xC004_1000, 0x3000)];
    assert_eq!(kinds, [&[PciEffectKind::Reset][..], &gone].concat());
}

#[test]
fn a_function_that_is_gone_is_all_ones_and_no_panic() {
    let (mut nic, mut bus) = bus();
    nic.bytes = [0xFF; 4096];
    for offset in (0..256u32).step_by(4) {
        select(&mut bus, &mut nic, 0x8000_1800 | offset);
        bus.read_port(&nic, 0xCFC, Width::Dword);
        bus.write_port(&mut nic, 0xCFC, Width::Dword, u32::MAX, &mut |_| true);
    }
    select(&mut bus, &mut nic, 0x8000_1800);
    assert_eq!(bus.read_port(&nic, 0xCFC, Width::Dword), u32::MAX);
}
