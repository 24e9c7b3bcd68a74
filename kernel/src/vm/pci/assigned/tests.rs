use super::*;
use crate::vm::pci::effect::{MappingEffect, MsiEffect};
use crate::vm::pci::fake::{Device, GUEST, HOST};
use crate::vm::pci::{GuestMessage, MessageError};
use addr::GuestPhys;

/// Where the guest reaches the MSI-X table.
const TABLE: u64 = 0xC123_0000;
/// Where it is.
const REAL_TABLE: u64 = 0xFEBD_0000;
/// What the real function is to send by MSI.
const MESSAGE: DeviceMessage = DeviceMessage { address: 0xFEE0_0018, data: 0 };

fn assigned() -> (Device, AssignedFunction) {
    of(Device::e1000e())
}

/// The function of a device, with the range of register 3, if it has one, at [`TABLE`].
fn of(mut device: Device) -> (Device, AssignedFunction) {
    let description = device.describe();
    let mut function = AssignedFunction::new(&device, &description, GUEST, Some(MESSAGE)).unwrap();
    function.prepare(&mut device);
    device.writes.clear();
    function.set_address(3, TABLE);
    function.give(3, TABLE, Ok(()), &mut |_| true);
    (device, function)
}

fn write(
    nic: &mut Device,
    function: &mut AssignedFunction,
    offset: u16,
    width: Width,
    value: u32,
) -> Vec<PciEffectKind> {
    let mut kinds = Vec::new();
    function.write(nic, offset, width, value, &mut |effect| {
        assert_eq!(effect.function, HOST);
        kinds.push(effect.kind);
        true
    });
    kinds
}

fn write_table(function: &mut AssignedFunction, offset: u64, value: u64) -> Vec<PciEffectKind> {
    let mut kinds = Vec::new();
    let address = GuestPhys::new(TABLE + offset);
    let done = function.write_trapped(address, 8, value, &mut |effect| {
        kinds.push(effect.kind);
        true
    });
    assert_eq!(done, Some(TrappedWrite::Done));
    kinds
}

#[test]
fn identity_passes_and_the_rest_of_the_header_is_filtered() {
    let (nic, function) = assigned();
    let read = |offset| function.read(&nic, offset, Width::Dword);
    assert_eq!((read(0x00), read(0x08), read(0x2C)), (0x10D3_8086, 0x0200_0000, 0x0000_8086));
    assert_eq!(read(0x0C), 0x0000_4010, "multi-function bit or self test shown");
    assert_eq!((read(0x30), read(0x3C)), (0, 0xFF), "expansion ROM or interrupt pin shown");
    assert_eq!(function.read(&nic, 0x03, Width::Byte), 0x10);
    assert_eq!(function.read(&nic, 0x02, Width::Word), 0x10D3);
    assert_eq!(function.read(&nic, 0x03, Width::Word), 0xFFFF);
}

#[test]
fn preparing_leaves_memory_decoding_and_takes_everything_else() {
    let mut nic = Device::e1000e();
    nic.set(0x04, 0x0010_0107);
    let description = nic.describe();
    AssignedFunction::new(&nic, &description, GUEST, Some(MESSAGE)).unwrap().prepare(&mut nic);
    assert_eq!(nic.command(), 0x0502, "memory, INTx off, the firmware's SERR");
}

#[test]
fn the_list_shows_power_management_express_and_messages_only() {
    let (nic, function) = assigned();
    assert_eq!(function.read(&nic, 0x06, Width::Word) & 0x10, 0x10);
    let mut offset = function.read(&nic, 0x34, Width::Byte) as u8;
    let mut list = Vec::new();
    while offset != 0 {
        list.push((function.read(&nic, offset.into(), Width::Byte), offset));
        offset = function.read(&nic, u16::from(offset) + 1, Width::Byte) as u8;
    }
    assert_eq!(list, [(0x01, 0xC8), (0x05, 0xD0), (0x10, 0xE0), (0x11, 0xA0)]);
    let read = |offset| function.read(&nic, offset, Width::Dword);
    assert_eq!((read(0xD0), read(0xD4)), (0x0080_E005, 0), "the real MSI shown");
    assert_eq!(read(0xF4), 0, "what is behind a version 1 capability shown");
    assert_eq!((read(0xC8), read(0xCC)), (0x0003_D001, 0x0008), "power management offers more than D0");
    assert_eq!((read(0xE4), read(0xE8)), (0x1000_8001, 0x0010_2810));
    assert_eq!((read(0xA0), read(0xA4), read(0xA8)), (0x0004_0011, 3, 0x2003));
}

#[test]
fn a_function_without_a_list_shows_none() {
    let mut nic = Device::e1000e();
    nic.set(0x34, 0xD0);
    nic.set(0xD0, 0x0080_0005);
    let description = nic.describe();
    let function = AssignedFunction::new(&nic, &description, GUEST, None).unwrap();
    assert_eq!(function.read(&nic, 0x06, Width::Word) & 0x10, 0);
    assert_eq!(function.read(&nic, 0x34, Width::Byte), 0);
}

#[test]
fn command_bits_pass_as_far_as_they_may() {
    let (mut nic, mut function) = assigned();
    let kinds = write(&mut nic, &mut function, 0x04, Width::Word, 0xFFFF);
    assert_eq!(kinds, [PciEffectKind::BusMaster { enabled: true }]);
    assert_eq!(nic.writes, [(0x04, Width::Word, 0x0507)]);
    assert_eq!(function.read(&nic, 0x04, Width::Word), 0x0407);
    let kinds = write(&mut nic, &mut function, 0x04, Width::Byte, 0);
    assert_eq!(kinds, [PciEffectKind::BusMaster { enabled: false }]);
    assert_eq!(nic.command(), 0x0502, "memory decoding or INTx is the guest's");
    assert_eq!(function.read(&nic, 0x04, Width::Word), 0x0400, "the other byte changed");
}

#[test]
fn only_status_errors_written_as_one_are_cleared() {
    let (mut nic, mut function) = assigned();
    nic.set(0x04, 0xF910_0502);
    write(&mut nic, &mut function, 0x04, Width::Dword, 0xFFFF_0000);
    assert_eq!(nic.writes, [(0x06, Width::Word, 0xF900)]);
    nic.writes.clear();
    write(&mut nic, &mut function, 0x07, Width::Byte, 0x80);
    assert_eq!(nic.writes, [(0x06, Width::Word, 0x8000)]);
    nic.writes.clear();
    write(&mut nic, &mut function, 0x06, Width::Word, 0x0010);
    write(&mut nic, &mut function, 0x04, Width::Byte, 0);
    assert!(nic.writes.is_empty());
}

#[test]
fn a_range_is_sized_and_moved_without_the_real_register() {
    let (mut nic, mut function) = assigned();
    for (value, read) in [(u32::MAX, 0xFFFF_C000), (0xC000_1234, 0xC000_0000), (0, 0)] {
        write(&mut nic, &mut function, 0x1C, Width::Dword, value);
        assert_eq!(function.read(&nic, 0x1C, Width::Dword), read);
    }
    write(&mut nic, &mut function, 0x1E, Width::Word, 0xC0DE);
    assert_eq!(function.read(&nic, 0x1C, Width::Dword), 0xC0DE_0000);
    assert!(nic.writes.is_empty());
}

#[test]
fn message_control_is_written_by_any_width_that_reaches_it() {
    let (mut nic, mut function) = assigned();
    for (offset, width, value) in
        [(0xA2, Width::Word, 0xFFFF), (0xA0, Width::Dword, 0xFFFF_FFFF), (0xA3, Width::Byte, 0xC0)]
    {
        write(&mut nic, &mut function, offset, width, value);
        assert_eq!(function.read(&nic, 0xA0, Width::Dword), 0xC004_0011, "{offset:#x}");
        assert_eq!(nic.writes, [(0xA2, Width::Word, 0xC004)]);
        write(&mut nic, &mut function, 0xA2, Width::Word, 0);
        nic.writes.clear();
    }
    write(&mut nic, &mut function, 0xA0, Width::Word, 0xFFFF);
    write(&mut nic, &mut function, 0xA2, Width::Byte, 0xFF);
    write(&mut nic, &mut function, 0xA4, Width::Dword, 0xFFFF_FFFF);
    assert!(nic.writes.is_empty());
}

#[test]
fn entries_have_routes_before_the_real_function_is_let_go_and_keep_them_until_it_is_stopped() {
    let (mut nic, mut function) = assigned();
    write_table(&mut function, 0x10, 0xFEE0_0000);
    write_table(&mut function, 0x18, 0x41);
    write(&mut nic, &mut function, 0xA2, Width::Word, 0xC000);
    nic.writes.clear();
    let message = GuestMessage::decode(0xFEE0_0000, 0x41).unwrap();
    for (value, wanted, hardware_first) in [
        (0x8000, MsixEffect::Route { entry: 1, message }, false),
        (0xC000, MsixEffect::Mask { entry: 1 }, true),
        (0x8000, MsixEffect::Route { entry: 1, message }, false),
        (0x0000, MsixEffect::Mask { entry: 1 }, true),
    ] {
        let log = std::cell::RefCell::new(Vec::new());
        let mut recorder = Recorder { nic: &mut nic, log: &log };
        function.write(&mut recorder, 0xA2, Width::Word, value, &mut |effect| {
            log.borrow_mut().push(Some(effect.kind));
            true
        });
        let effect = Some(PciEffectKind::Msix(wanted));
        assert_eq!(log.into_inner(), if hardware_first { [None, effect] } else { [effect, None] });
    }
}

/// Puts a `None` into the log at each write, to see the order of writes and effects.
struct Recorder<'a> {
    nic: &'a mut Device,
    log: &'a std::cell::RefCell<Vec<Option<PciEffectKind>>>,
}

impl ConfigSpace for Recorder<'_> {
    fn read(&self, function: PciAddress, offset: u16, width: Width) -> u32 {
        self.nic.read(function, offset, width)
    }
    fn write(&mut self, function: PciAddress, offset: u16, width: Width, value: u32) {
        self.log.borrow_mut().push(None);
        self.nic.write(function, offset, width, value);
    }
}

#[test]
fn the_table_is_reached_at_its_address_and_its_page_forwards_the_rest() {
    let (mut nic, mut function) = assigned();
    assert_eq!(function.trapped_pages(), Some((HostPhys::new(REAL_TABLE), 0x1000)));
    write_table(&mut function, 0x48, 0x41);
    let refusals = std::cell::RefCell::new(Vec::new());
    let read = |offset: i64, bytes| {
        let address = GuestPhys::new(TABLE.wrapping_add_signed(offset));
        function.read_trapped(address, bytes, &mut |effect| {
            refusals.borrow_mut().push(effect.kind);
            true
        })
    };
    assert_eq!(read(0x48, 8), Some(TrappedRead::Value(0x41)));
    assert_eq!(read(0x50, 4), Some(TrappedRead::Forward(HostPhys::new(REAL_TABLE + 0x50))));
    assert!(refusals.borrow().is_empty());
    assert_eq!(read(0x4C, 8), Some(TrappedRead::Value(u64::MAX)));
    assert_eq!(read(0x49, 1), Some(TrappedRead::Value(u64::MAX)));
    assert_eq!(refusals.borrow().len(), 2);
    assert_eq!((read(-4, 4), read(-4, 8), read(0x1000, 4)), (None, None, None));
    write(&mut nic, &mut function, 0xA2, Width::Word, 0x8000);
    assert_eq!(
        write_table(&mut function, 0x48, 0),
        [PciEffectKind::Msix(MsixEffect::Unroutable {
            entry: 4,
            address: 0,
            data: 0,
            reason: MessageError::NotAnInterruptAddress
        })]
    );
}

#[test]
fn a_table_in_the_middle_of_a_page_has_neighbours_on_both_sides() {
    let mut nic = Device::e1000e();
    nic.set(0xA4, 0x0000_0803);
    let (_, function) = of(nic);
    assert_eq!(function.trapped_pages(), Some((HostPhys::new(REAL_TABLE), 0x1000)));
    let mut kinds = Vec::new();
    let mut read = |offset, bytes| {
        let address = GuestPhys::new(TABLE + offset);
        function.read_trapped(address, bytes, &mut |effect| {
            kinds.push(effect.kind);
            true
        })
    };
    assert_eq!(read(0x7FC, 4), Some(TrappedRead::Forward(HostPhys::new(REAL_TABLE + 0x7FC))));
    assert_eq!(read(0x80C, 4), Some(TrappedRead::Value(1)));
    assert_eq!(read(0x850, 4), Some(TrappedRead::Forward(HostPhys::new(REAL_TABLE + 0x850))));
    assert_eq!(read(0x7FC, 8), Some(TrappedRead::Value(u64::MAX)));
    assert_eq!(kinds, [PciEffectKind::Refused(Refusal::MsixTableAccess { offset: -4, bytes: 8 })]);
}

#[test]
fn a_hidden_capability_within_the_length_of_a_shown_one_stays_hidden() {
    let mut nic = Device::e1000e();
    nic.set(0xA0, 0x0004_F011);
    nic.set(0xE0, 0x0002_A010);
    nic.set(0xF0, 0x1234_0009);
    let description = nic.describe();
    let function = AssignedFunction::new(&nic, &description, GUEST, Some(MESSAGE)).unwrap();
    assert_eq!(function.read(&nic, 0xE0, Width::Dword), 0x0002_A010);
    assert_eq!((function.read(&nic, 0xF0, Width::Dword), function.read(&nic, 0xF4, Width::Dword)), (0, 0));
}

#[test]
fn quarantine_is_for_good() {
    let (mut nic, mut function) = assigned();
    write(&mut nic, &mut function, 0x04, Width::Word, 0x0006);
    write_table(&mut function, 0x00, 0xFEE0_0000);
    write_table(&mut function, 0x08, 0x41);
    write(&mut nic, &mut function, 0xA2, Width::Word, 0x8000);
    let mut kinds = Vec::new();
    function.quarantine(&mut nic, &mut |effect| {
        kinds.push(effect.kind);
        true
    });
    assert_eq!(kinds, [PciEffectKind::Msix(MsixEffect::Mask { entry: 0 })]);
    assert_eq!((nic.command() & 4, nic.bytes[0xA3] & 0xC0), (0, 0xC0), "on, and masked whole");
    assert_eq!(function.read(&nic, 0xA2, Width::Word) & 0xC000, 0, "off, as the guest sees it");
    write(&mut nic, &mut function, 0x04, Width::Word, 0x0002);
    let kinds = write(&mut nic, &mut function, 0x04, Width::Word, 0x0006);
    assert!(matches!(kinds[..], [PciEffectKind::Refused(Refusal::Quarantined { .. })]));
    let kinds = write(&mut nic, &mut function, 0xA2, Width::Word, 0x8000);
    assert!(matches!(kinds[..], [PciEffectKind::Refused(Refusal::Quarantined { .. })]));
    assert_eq!((nic.command() & 4, nic.bytes[0xA3] & 0xC0), (0, 0xC0));
}

#[test]
fn functions_that_cannot_be_shown_are_refused() {
    let refuse = |offset, value| {
        let mut nic = Device::e1000e();
        nic.set(offset, value);
        let description = nic.describe();
        AssignedFunction::new(&nic, &description, GUEST, Some(MESSAGE)).map(|_| ()).unwrap_err()
    };
    assert_eq!(refuse(0x0C, 0x0001_0000), AssignError::NotAnEndpoint);
    assert_eq!(refuse(0x20, 0xFFFF_FFFF), AssignError::InvalidBar(4));
    assert_eq!(refuse(0x10, 0), AssignError::Unplaced(0));
    assert!(matches!(refuse(0xA4, 0x0000_4003), AssignError::Msix(_)), "table behind its range");
    assert!(matches!(refuse(0xA8, 0x0000_2007), AssignError::Msix(_)), "pending bits in BAR 7");
}

#[test]
fn a_range_that_shares_its_page_is_reached_through_the_hypervisor_alone() {
    for (address, size) in [(0xFEB8_0000, 256), (0xFEB8_0F00, 256), (0xFEB8_0800, 0x1000)] {
        let mut nic = Device::edu();
        let mut description = nic.describe();
        let small = Bar::Memory { address: HostPhys::new(address), size, prefetchable: false, is_64_bit: false };
        let mut slots = [::pci::BarSlot::Unimplemented; 6];
        slots[0] = ::pci::BarSlot::Range(small);
        description.bars = ::pci::Bars::new(slots);
        let mut function = AssignedFunction::new(&nic, &description, GUEST, None).unwrap();
        function.give(0, 0xC000_0100, Ok(()), &mut |effect| panic!("{effect:?}"));
        let read =
            |address, bytes| function.read_trapped(GuestPhys::new(address), bytes, &mut |effect| panic!("{effect:?}"));
        assert_eq!(read(0xC000_0100, 4), Some(TrappedRead::Forward(HostPhys::new(address))));
        assert_eq!(read(0xC000_00FC + size, 4), Some(TrappedRead::Forward(HostPhys::new(address + size - 4))));
        assert_eq!(
            (read(0xC000_0100 + size, 4), read(0xC000_00FE + size, 4), read(0xC000_00FC, 4)),
            (None, None, None)
        );
        let write = function.write_trapped(GuestPhys::new(0xC000_0104), 4, 7, &mut |effect| panic!("{effect:?}"));
        assert_eq!(write, Some(TrappedWrite::Forward(HostPhys::new(address + 4))));
    }
}

#[test]
fn a_table_in_a_small_range_has_no_neighbours_beyond_it() {
    let mut nic = Device::e1000e();
    nic.allow(0x1C, 0xFFFF_FF00);
    nic.set(0x1C, 0xFEBD_0200);
    nic.set(0xA8, 0x0000_0083);
    let (_, function) = of(nic);
    assert_eq!(function.trapped_offsets(3), Some(0..0x100));
    let read = |offset| function.read_trapped(GuestPhys::new(TABLE + offset), 4, &mut |_| true);
    assert_eq!(read(0x0C), Some(TrappedRead::Value(1)));
    assert_eq!(read(0x80), Some(TrappedRead::Forward(HostPhys::new(0xFEBD_0280))));
    assert_eq!(read(0x100), None);
}

#[test]
fn of_the_extended_space_the_serial_number_alone_is_shown() {
    let (mut nic, mut function) = assigned();
    let read = |function: &AssignedFunction, nic: &Device| {
        [0x100, 0x104, 0x108, 0x10C, 0x140, 0x144, 0xFFC].map(|offset| function.read(nic, offset, Width::Dword))
    };
    let shown = [0x0001_0003, 0xFF12_3456, 0x5254_00FF, 0, 0, 0, 0];
    assert_eq!(read(&function, &nic), shown);
    assert_eq!(function.read(&nic, 0x10A, Width::Byte), 0x54);
    for offset in (0x100..0x1000).step_by(4) {
        write(&mut nic, &mut function, offset, Width::Dword, u32::MAX);
    }
    assert!(nic.writes.is_empty());
    assert_eq!(read(&function, &nic), shown);
    let (igb, function) = of(Device::igb());
    assert_eq!(read(&function, &igb), [0; 7], "error reporting, or virtual functions");
}

#[test]
fn power_states_are_in_name_only() {
    let (mut nic, mut function) = assigned();
    for (value, read) in [(0x0003, 0x0B), (0x8101, 0x0B), (0x8100, 0x08), (0x0002, 0x08)] {
        write(&mut nic, &mut function, 0xCC, Width::Word, value);
        assert_eq!(function.read(&nic, 0xCC, Width::Word), read, "{value:#x}");
    }
    assert!(nic.writes.is_empty(), "the real function left D0");
}

#[test]
fn express_controls_read_back_and_reach_the_device_as_far_as_they_may() {
    let (mut nic, mut function) = assigned();
    // Errors reported, relaxed ordering, payload 4096, no snooping, read requests of 4096.
    write(&mut nic, &mut function, 0xE8, Width::Word, 0x58BF);
    assert_eq!(function.read(&nic, 0xE8, Width::Dword), 0x0010_58BF);
    assert_eq!(nic.writes, [(0xE8, Width::Word, 0x5810)], "0x2810 with read requests of 4096");
    nic.writes.clear();
    write(&mut nic, &mut function, 0xEA, Width::Word, 0xFFFF);
    assert_eq!(nic.writes, [(0xEA, Width::Word, 0x000F)]);
    nic.writes.clear();
    write(&mut nic, &mut function, 0xE4, Width::Dword, 0);
    write(&mut nic, &mut function, 0xF0, Width::Word, 0x0043);
    assert_eq!(function.read(&nic, 0xF0, Width::Word), 0x0043, "link control");
    assert!(nic.writes.is_empty());
}

#[test]
fn a_reset_brings_everything_back_and_asks_for_the_real_one() {
    let (mut nic, mut function) = assigned();
    write(&mut nic, &mut function, 0x04, Width::Word, 0x0006);
    write_table(&mut function, 0x00, 0xFEE0_0000);
    write_table(&mut function, 0x08, 0x41);
    write(&mut nic, &mut function, 0xA2, Width::Word, 0x8000);
    write(&mut nic, &mut function, 0xD4, Width::Dword, 0xFEE0_0000);
    write(&mut nic, &mut function, 0xCC, Width::Word, 3);
    write(&mut nic, &mut function, 0xE8, Width::Word, 0x5810);
    write(&mut nic, &mut function, 0x3C, Width::Byte, 5);
    let kinds = write(&mut nic, &mut function, 0xE9, Width::Byte, 0x80);
    assert_eq!(kinds, [PciEffectKind::Msix(MsixEffect::Mask { entry: 0 }), PciEffectKind::Reset]);
    assert_eq!((nic.command(), nic.bytes[0xA3] & 0x80), (0x0502, 0));
    let read = |offset| function.read(&nic, offset, Width::Dword);
    assert_eq!((read(0x04) as u16, read(0x1C), read(0x3C) as u8), (0, 0, 0xFF));
    assert_eq!((read(0xA0), read(0xD4), read(0xCC), read(0xE8)), (0x0004_0011, 0, 8, 0x0010_2810));
    assert_eq!(function.msix_table().unwrap().read(8, 4), Some(0));
    assert!(function.wanted(function.range(3).unwrap()).is_none());
    // A function without it ignores the bit.
    let mut plain = Device::e1000e();
    plain.set(0xE4, 0x0000_8001);
    let (mut plain, mut function) = of(plain);
    assert_eq!(write(&mut plain, &mut function, 0xE8, Width::Word, 0xA810), []);
    assert!(plain.writes.is_empty());
}

#[test]
fn a_table_in_the_middle_of_a_range_is_left_out_of_what_is_mapped() {
    let (_, mut nvme) = of(Device::nvme());
    let mut kinds = Vec::new();
    nvme.give(0, 0xC000_0000, Ok(()), &mut |effect| {
        kinds.push(effect.kind);
        true
    });
    let map = |guest, host, bytes| {
        let (guest, host) = (GuestPhys::new(guest), HostPhys::new(host));
        PciEffectKind::Mapping(MappingEffect::Map { guest, host, bytes })
    };
    let wanted = [map(0xC000_0000, 0x48_8000_0000, 0x2000), map(0xC000_3000, 0x48_8000_3000, 0x1000)];
    assert_eq!(kinds, wanted);
    assert_eq!(nvme.trapped_pages(), Some((HostPhys::new(0x48_8000_2000), 0x1000)));
    let (_, mut xhci) = of(Device::xhci());
    kinds.clear();
    xhci.give(0, 0xC000_0000, Ok(()), &mut |effect| {
        kinds.push(effect.kind);
        true
    });
    assert_eq!(kinds, [map(0xC000_0000, 0xFEBF_0000, 0x3000)]);
    let read = xhci.read_trapped(GuestPhys::new(0xC000_3800), 4, &mut |_| true);
    assert_eq!(read, Some(TrappedRead::Forward(HostPhys::new(0xFEBF_3800))), "pending bits beside the table");
    assert_eq!(xhci.read_trapped(GuestPhys::new(0xC000_300C), 4, &mut |_| true), Some(TrappedRead::Value(1)));
}

#[test]
fn msi_of_a_quarantined_function_stays_off() {
    let (mut edu, mut function) = of(Device::edu());
    write(&mut edu, &mut function, 0x44, Width::Dword, 0xFEE0_0000);
    write(&mut edu, &mut function, 0x4C, Width::Word, 0x51);
    let kinds = write(&mut edu, &mut function, 0x42, Width::Word, 0x0081);
    assert!(matches!(kinds[..], [PciEffectKind::Msi(MsiEffect::Route { vectors: 1, .. })]));
    assert_eq!(edu.bytes[0x42] & 1, 1);
    function.quarantine(&mut edu, &mut |_| true);
    assert_eq!(edu.bytes[0x42] & 1, 0);
    let kinds = write(&mut edu, &mut function, 0x42, Width::Word, 0x0081);
    assert!(matches!(kinds[..], [PciEffectKind::Refused(Refusal::Quarantined { .. })]));
    assert_eq!(edu.bytes[0x42] & 1, 0);
}
