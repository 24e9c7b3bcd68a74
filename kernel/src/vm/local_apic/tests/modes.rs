//! IA32_APIC_BASE: which changes of mode are legal.

use addr::{ApicId, GuestPhys};

use super::super::{GeneralProtection, Mode};
use super::{LocalApic, requests, x2apic, xapic};

const DISABLED: u64 = 0xfee0_0000;
const INVALID: u64 = 0xfee0_0400;
const XAPIC: u64 = 0xfee0_0800;
const X2APIC: u64 = 0xfee0_0c00;

fn in_mode(mode: Mode) -> LocalApic {
    let mut apic = LocalApic::new(ApicId(3), false, 40);
    match mode {
        Mode::Disabled => apic.write_msr(0x1b, DISABLED, 0).unwrap(),
        Mode::XApic => None,
        Mode::X2Apic => apic.write_msr(0x1b, X2APIC, 0).unwrap(),
    };
    assert_eq!(apic.mode(), mode);
    apic
}

#[test]
fn the_mode_changes_along_legal_ways_only() {
    use Mode::{Disabled, X2Apic, XApic};
    for (from, value, to) in [
        (Disabled, DISABLED, Ok(Disabled)),
        (Disabled, XAPIC, Ok(XApic)),
        (Disabled, X2APIC, Err(GeneralProtection)),
        (Disabled, INVALID, Err(GeneralProtection)),
        (XApic, DISABLED, Ok(Disabled)),
        (XApic, XAPIC, Ok(XApic)),
        (XApic, X2APIC, Ok(X2Apic)),
        (XApic, INVALID, Err(GeneralProtection)),
        (X2Apic, DISABLED, Ok(Disabled)),
        (X2Apic, XAPIC, Err(GeneralProtection)),
        (X2Apic, X2APIC, Ok(X2Apic)),
        (X2Apic, INVALID, Err(GeneralProtection)),
    ] {
        let mut apic = in_mode(from);
        let before = apic.read_msr(0x1b, 0).unwrap();
        assert_eq!(apic.write_msr(0x1b, value, 0).map(|_| apic.mode()), to, "{from:?} to {value:#x}");
        let expected = match to {
            Ok(to) => (to, value),
            Err(_) => (from, before),
        };
        assert_eq!((apic.mode(), apic.read_msr(0x1b, 0).unwrap()), expected);
    }
}

#[test]
fn reserved_bits_of_the_base_are_refused() {
    for bit in (0..8).chain([9]).chain(40..64) {
        assert_eq!(xapic().write_msr(0x1b, XAPIC | 1 << bit, 0), Err(GeneralProtection), "bit {bit}");
    }
    assert_eq!(xapic().write_msr(0x1b, XAPIC | 1 << 39, 0), Ok(None));
}

#[test]
fn bsp_is_read_only() {
    let mut bootstrap = xapic();
    assert_eq!(bootstrap.read_msr(0x1b, 0), Ok(0xfee0_0900));
    bootstrap.write_msr(0x1b, XAPIC, 0).unwrap();
    assert_eq!(bootstrap.read_msr(0x1b, 0), Ok(0xfee0_0900));
    let mut other = in_mode(Mode::XApic);
    other.write_msr(0x1b, XAPIC | 1 << 8, 0).unwrap();
    assert_eq!(other.read_msr(0x1b, 0), Ok(XAPIC));
}

#[test]
fn the_page_is_there_in_xapic_mode_only_and_can_be_moved() {
    let mut apic = xapic();
    assert_eq!(apic.page(), Some(GuestPhys::new(0xfee0_0000)));
    apic.write_msr(0x1b, 0xd000_0800, 0).unwrap();
    assert_eq!(apic.page(), Some(GuestPhys::new(0xd000_0000)));
    for mode in [Mode::Disabled, Mode::X2Apic] {
        let mut apic = in_mode(mode);
        assert_eq!((apic.page(), apic.read_page(0x30, 0)), (None, u32::MAX));
        assert_eq!(apic.write_page(0x80, 0x20, 0), None);
        assert_eq!(apic.tpr(), 0);
    }
}

#[test]
fn a_disabled_apic_neither_accepts_nor_delivers_and_forgets() {
    let mut apic = xapic();
    apic.accept(requests(&[0x30]));
    apic.write_page(0x320, 0x40, 0);
    apic.write_page(0x380, 1000, 0);
    apic.write_msr(0x1b, DISABLED, 0).unwrap();
    apic.accept(requests(&[0x40]));
    assert_eq!((apic.pending(), apic.acknowledge(), apic.dropped()), (None, None, 1));
    apic.expire(1 << 40);
    assert_eq!((apic.pending(), apic.timer_deadline()), (None, None));
    apic.write_msr(0x1b, XAPIC, 0).unwrap();
    assert_eq!((apic.pending(), apic.read_page(0xf0, 0), apic.read_page(0x320, 0)), (None, 0xff, 0x1_0000));
}

#[test]
fn x2apic_mode_keeps_what_xapic_mode_had() {
    let mut apic = xapic();
    apic.accept(requests(&[0x30, 0x50]));
    apic.acknowledge();
    apic.write_page(0x80, 0x20, 0);
    apic.write_msr(0x1b, X2APIC, 0).unwrap();
    assert_eq!((apic.ppr(), apic.tpr(), apic.is_software_enabled()), (0x50, 0x20, true));
    apic.end_of_interrupt();
    assert_eq!(apic.pending(), Some(addr::Vector(0x30)));
}

#[test]
fn x2apic_msrs_exist_in_x2apic_mode_only() {
    for msr in 0x800..=0x8ff {
        for mode in [Mode::Disabled, Mode::XApic] {
            let mut apic = in_mode(mode);
            assert_eq!(apic.read_msr(msr, 0), Err(GeneralProtection), "{msr:#x}");
            assert_eq!(apic.write_msr(msr, 0, 0), Err(GeneralProtection), "{msr:#x}");
        }
    }
    assert!(x2apic().read_msr(0x802, 0).is_ok());
}
