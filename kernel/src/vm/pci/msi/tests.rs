use super::*;
use crate::vm::pci::MessageError;
use crate::vm::pci::fake::{Device, HOST};
use ::pci::Width;
use addr::Vector;

const REAL: DeviceMessage = DeviceMessage { address: 0xFEE0_0118, data: 0 };

struct Bench {
    device: Device,
    msi: GuestMsi,
    /// Whether routes can be had.
    routes: bool,
}

impl Bench {
    /// A function whose MSI capability at 0x50 has this message control.
    fn new(control: u16) -> Self {
        let mut device = Device::edu();
        device.set(0x34, 0x50);
        device.set(0x50, 5 | u32::from(control) << 16);
        for (offset, bits) in [(0x50, 0x71_0000), (0x54, !3), (0x58, !0), (0x5C, !0), (0x60, !0)] {
            device.allow(offset, bits);
        }
        let capability = device.describe().msi.unwrap();
        let msi = GuestMsi::new(capability, REAL);
        msi.prepare(&mut device, HOST);
        device.writes.clear();
        Self { device, msi, routes: true }
    }

    fn write(&mut self, offset: u16, width: Width, value: u32) -> Vec<MsiEffect> {
        let mut effects = Vec::new();
        let lanes = Lanes::new(offset, width).unwrap();
        let routes = self.routes;
        self.msi.write(&mut self.device, HOST, lanes.dword - 0x50, lanes, value, &mut |effect| {
            let PciEffectKind::Msi(kind) = effect.kind else { panic!("{effect:?}") };
            effects.push(kind);
            routes
        });
        effects
    }

    fn real(&self, offset: u16) -> u32 {
        self.device.read32(HOST, offset)
    }

    fn control(&self) -> u16 {
        self.device.read16(HOST, 0x52)
    }
}

fn route(vector: u8, vectors: u8) -> MsiEffect {
    let message = GuestMessage::decode(0xFEE0_0000, vector.into()).unwrap();
    assert_eq!(message.vector, Vector(vector));
    MsiEffect::Route { message, vectors }
}

#[test]
fn the_guest_reads_what_it_wrote_and_the_device_has_its_own_message() {
    for (control, data, data_in_device) in [(0x0080, 0x5C, 0x5C), (0x0000, 0x58, 0x58)] {
        let mut bench = Bench::new(control);
        assert_eq!(bench.write(0x54, Width::Dword, 0xFEE0_0003), []);
        assert_eq!(bench.write(data, Width::Word, 0x4041), []);
        assert!(bench.device.writes.is_empty(), "written before it is enabled");
        assert_eq!(bench.write(0x52, Width::Word, 0x0001), [route(0x41, 1)]);
        let read = |register| bench.msi.read(&bench.device, HOST, register);
        assert_eq!((read(0), read(4), read(data - 0x50)), (u32::from(control | 1) << 16, 0xFEE0_0000, 0x4041));
        assert_eq!(
            (bench.real(0x54), bench.real(data_in_device) as u16, bench.control()),
            (0xFEE0_0118, 0, control | 1)
        );
    }
}

#[test]
fn a_new_message_changes_the_route_and_not_the_device() {
    let mut bench = Bench::new(0x0080);
    bench.write(0x54, Width::Dword, 0xFEE0_0000);
    bench.write(0x5C, Width::Word, 0x41);
    bench.write(0x52, Width::Word, 1);
    bench.device.writes.clear();
    assert_eq!(bench.write(0x5C, Width::Byte, 0x42), [route(0x42, 1)]);
    assert_eq!(bench.write(0x5C, Width::Byte, 0x42), []);
    assert!(bench.device.writes.is_empty());
    assert_eq!(bench.write(0x52, Width::Word, 0), []);
    assert_eq!(bench.control(), 0x0080);
    assert_eq!(bench.write(0x53, Width::Byte, 0xFF), [], "the upper byte enables nothing");
    assert_eq!(bench.write(0x50, Width::Dword, 0xFFFF_FFFF), [route(0x42, 1)]);
    assert_eq!(bench.control(), 0x0081);
}

#[test]
fn as_many_vectors_as_the_guest_takes_and_the_device_has() {
    let mut bench = Bench::new(0x0086);
    bench.write(0x54, Width::Dword, 0xFEE0_0000);
    bench.write(0x5C, Width::Word, 0x40);
    assert_eq!(bench.write(0x52, Width::Word, 0x0021), [route(0x40, 4)]);
    assert_eq!(bench.control(), 0x00A7);
    assert_eq!(bench.write(0x52, Width::Word, 0x0071), [route(0x40, 8)]);
    assert_eq!(bench.control(), 0x00B7);
    assert_eq!(bench.msi.read(&bench.device, HOST, 0), 0x00B7_0000);
}

#[test]
fn masks_are_the_devices_own() {
    let mut bench = Bench::new(0x0184);
    bench.device.set(0x64, 0x0000_0002);
    assert_eq!(bench.write(0x60, Width::Dword, 0xFFFF_FFFF), []);
    assert_eq!((bench.real(0x60), bench.msi.read(&bench.device, HOST, 0x10)), (0xF, 0xF));
    assert_eq!(bench.msi.read(&bench.device, HOST, 0x14), 2, "pending bits");
    bench.device.writes.clear();
    bench.write(0x60, Width::Byte, 0x0F);
    assert!(bench.device.writes.is_empty());
    bench.write(0x60, Width::Byte, 0x01);
    assert_eq!(bench.real(0x60), 1);
    bench.write(0x64, Width::Dword, 0);
    assert_eq!(bench.real(0x64), 2);
}

#[test]
fn a_message_that_is_no_interrupt_leaves_the_device_off() {
    let mut bench = Bench::new(0x0080);
    bench.write(0x54, Width::Dword, 0xFEE0_0000);
    bench.write(0x5C, Width::Word, 0x41);
    bench.write(0x52, Width::Word, 1);
    let reason = MessageError::NotAnInterruptAddress;
    assert_eq!(
        bench.write(0x58, Width::Dword, 1),
        [MsiEffect::Unroutable { address: 0x1_FEE0_0000, data: 0x41, reason }]
    );
    assert_eq!(bench.control() & 1, 0);
    assert_eq!(bench.write(0x58, Width::Dword, 0), [route(0x41, 1)]);
    assert_eq!(bench.control() & 1, 1);
    // A message that is cleared first, as Linux does, is no complaint.
    assert_eq!(bench.write(0x54, Width::Dword, 0), []);
    assert_eq!(bench.control() & 1, 0);
    assert_eq!(bench.write(0x5C, Width::Word, 0), []);
    assert_eq!(bench.write(0x52, Width::Word, 0), []);
}

#[test]
fn without_a_route_the_device_stays_off_and_the_next_change_asks_again() {
    let mut bench = Bench::new(0x0080);
    bench.routes = false;
    bench.write(0x54, Width::Dword, 0xFEE0_0000);
    bench.write(0x5C, Width::Word, 0x41);
    assert_eq!(bench.write(0x52, Width::Word, 1), [route(0x41, 1)]);
    assert_eq!(bench.control() & 1, 0);
    bench.routes = true;
    assert_eq!(bench.write(0x5C, Width::Word, 0x42), [route(0x42, 1)]);
    assert_eq!(bench.control() & 1, 1);
    // One that is lost while it is on.
    bench.routes = false;
    assert_eq!(bench.write(0x5C, Width::Word, 0x43), [route(0x43, 1)]);
    assert_eq!(bench.control() & 1, 0);
}
