use super::*;
use crate::vm::pci::fake::{GUEST, Nic, TABLE};
use crate::vm::pci::{MsixEffect, PciEffect, PciEffectKind};

fn bus() -> (Nic, GuestPciBus) {
    let mut nic = Nic::new();
    let description = nic.describe();
    let function = AssignedFunction::new(&nic, &description, GUEST).unwrap();
    function.prepare(&mut nic);
    nic.writes.clear();
    let mut bus = GuestPciBus::new();
    bus.add(function).unwrap();
    (nic, bus)
}

fn select(bus: &mut GuestPciBus, nic: &mut Nic, address: u32) {
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
    bus.write_port(&mut nic, 0xCFC, Width::Byte, 0x06, &mut |effect| effects.push(effect));
    assert_eq!(effects.len(), 2);
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
        let function = AssignedFunction::new(&nic, &description, slot).unwrap();
        bus.add(function)
    };
    assert_eq!(add(GUEST), Err(BusError::SlotTaken(GUEST)));
    for bad in [Bdf::from_u16(0), Bdf::new(1, 3, 0).unwrap(), Bdf::new(0, 3, 1).unwrap()] {
        assert_eq!(add(bad), Err(BusError::BadSlot(bad)));
    }
    for device in 10..17 {
        assert_eq!(add(Bdf::new(0, device, 0).unwrap()), Ok(()));
    }
    assert_eq!(add(Bdf::new(0, 20, 0).unwrap()), Err(BusError::Full));
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

/// Follows the effects as the hypervisor would: which real entries are unmasked.
#[derive(Default)]
struct Shadow {
    live: [bool; 5],
}

impl Shadow {
    fn apply(&mut self, effect: PciEffect) {
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
            _ => {}
        }
    }
}

#[test]
fn a_guest_that_does_anything_reaches_nothing_that_is_not_its_own() {
    let (mut nic, mut bus) = bus();
    let before = nic.bytes;
    let mut random = Random(0x0123_4567_89AB_CDEF);
    let mut shadow = Shadow::default();
    let (mut routed, mut wrote_command, mut wrote_control) = (0, 0, 0);
    for _ in 0..300_000 {
        let width = [Width::Byte, Width::Word, Width::Dword][random.below(3) as usize];
        let (bytes, place) = match random.below(4) {
            0 => ([1, 2, 3, 4, 8, 16][random.below(6) as usize], random.below(0x80)),
            1 => (8, random.below(0x10) * 8),
            _ => (4, random.below(0x20) * 4),
        };
        let address = GuestPhys::new(TABLE - 16 + place);
        match random.below(6) {
            0 => {
                let offset = [random.next() as u32 & 0xFC, 0x04, 0xA0, 0x10][random.below(4) as usize];
                let slot = if random.below(8) == 0 { random.next() as u32 } else { 0x8000_1800 };
                bus.write_port(&mut nic, 0xCF8, Width::Dword, slot & !0xFF | offset, &mut |_| {});
            }
            1 => {
                let got = bus.read_port(&nic, 0xCF8 + random.below(8) as u16, width);
                assert_eq!(got & !width.mask(), 0);
            }
            2 => {
                let _ = bus.read_memory(address, bytes, &mut |effect| shadow.apply(effect));
            }
            3 => {
                let value = random.table_value(place);
                let _ = bus.write_memory(address, bytes, value, &mut |effect| shadow.apply(effect));
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
                other => panic!("the real function was written at {other:x?}"),
            }
        }
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
    for (offset, byte) in nic.bytes.iter().enumerate() {
        assert!(*byte == before[offset] || [0x04, 0x05, 0xA3].contains(&offset), "byte {offset:#x} changed");
    }
}

#[test]
fn a_function_that_is_gone_is_all_ones_and_no_panic() {
    let (mut nic, mut bus) = bus();
    nic.bytes = [0xFF; 256];
    for offset in (0..256u32).step_by(4) {
        select(&mut bus, &mut nic, 0x8000_1800 | offset);
        bus.read_port(&nic, 0xCFC, Width::Dword);
        bus.write_port(&mut nic, 0xCFC, Width::Dword, u32::MAX, &mut |_| {});
    }
    select(&mut bus, &mut nic, 0x8000_1800);
    assert_eq!(bus.read_port(&nic, 0xCFC, Width::Dword), u32::MAX);
}
