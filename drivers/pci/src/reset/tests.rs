use super::*;
use crate::fake::{Fake, FakeFunction, at};
use std::boxed::Box;
use std::cell::Cell;

/// A NIC with FLR; a reset clears what a reset clears.
fn nic(device_capabilities: u32) -> Fake {
    let mut config = Fake::new();
    let function = config.add(at(0, 3, 0)).header(0x8086, 0x10D3, 0x02_0000, 0).word(4, 0x0107);
    function.bar(0, 0xFEB8_0000, 0xFFFE_0000).bar(2, 0xC001, 0xFFE0).byte(0x3C, 11);
    function.capability(0xE0, 0x10).word(0xE2, 1).dword(0xE4, device_capabilities).allow(0xE8, 0x7FFF, 2);
    function.on_write = Some(Box::new(|function, offset, value| {
        if offset == 0xE8 && value & 0x8000 != 0 {
            forget(function);
        }
    }));
    config
}

fn forget(function: &mut FakeFunction) {
    function.word(4, 0).dword(0x10, 0).dword(0x18, 1).byte(0x3C, 0);
}

fn clock() -> impl FnMut() -> u64 {
    let now = Cell::new(0);
    move || {
        now.set(now.get() + 1000);
        now.get()
    }
}

fn reset(config: &mut Fake) -> Result<ResetMethod, ResetError> {
    let function = FunctionDescription::read(config, at(0, 3, 0)).unwrap();
    config.writes.clear();
    reset_function(config, &function, &mut clock())
}

#[test]
fn flr_puts_ranges_back_before_the_function_answers_again() {
    let mut config = nic(1 << 28);
    assert_eq!(reset(&mut config), Ok(ResetMethod::FunctionLevel));
    assert_eq!((config.writes[0].offset, config.writes[0].value), (4, 0x0103), "bus mastering off first");
    assert_eq!((config.writes[1].offset, config.writes[1].value), (0xE8, 0x8000));
    let last = config.writes.last().unwrap();
    assert_eq!((last.offset, last.value), (4, 0x0503), "command last, without bus mastering");
    let function = config.add(at(0, 3, 0));
    assert_eq!((&function.bytes[0x10..0x14], function.bytes[0x3C]), (&[0, 0, 0xB8, 0xFE][..], 11));
}

#[test]
fn the_next_best_way_is_taken() {
    let mut config = nic(0);
    assert_eq!(reset(&mut config), Err(ResetError::NoMethod));
    let function = config.add(at(0, 3, 0));
    function.capability(0xC8, 0x01).word(0xCC, 0x8008).allow(0xCC, 3, 2);
    assert_eq!(reset(&mut config), Err(ResetError::NoMethod), "D3hot that resets nothing");
    config.add(at(0, 3, 0)).word(0xCC, 0x8000);
    assert_eq!(reset(&mut config), Ok(ResetMethod::PowerManagement));
    let states: std::vec::Vec<_> = config.writes.iter().filter(|w| w.offset == 0xCC).map(|w| w.value).collect();
    assert_eq!(states, [3, 0], "PME status written");
    config.add(at(0, 3, 0)).capability(0x50, 0x13).byte(0x53, 2);
    assert_eq!(reset(&mut config), Ok(ResetMethod::AdvancedFeatures));
    assert!(config.writes.iter().any(|write| write.offset == 0x54 && write.value == 1));
}

#[test]
fn without_a_way_bus_mastering_is_off_all_the_same() {
    let mut config = nic(0);
    assert_eq!(reset(&mut config), Err(ResetError::NoMethod));
    assert_eq!(crate::read_command(&config, at(0, 3, 0)) & command::BUS_MASTER, 0);
}

#[test]
fn a_function_that_does_not_come_back_ends_the_wait() {
    let mut config = nic(1 << 28);
    config.add(at(0, 3, 0)).on_write = Some(Box::new(|function, offset, value| {
        if offset == 0xE8 && value & 0x8000 != 0 {
            function.dword(0, u32::MAX);
        }
    }));
    assert_eq!(reset(&mut config), Err(ResetError::NotReady { vendor_and_device_id: u32::MAX }));
    assert!(config.writes.iter().all(|write| write.offset < 0x10 || write.offset == 0xE8), "writes to nobody");
}

#[test]
fn pending_requests_are_waited_for_but_not_for_ever() {
    let mut config = nic(1 << 28);
    config.add(at(0, 3, 0)).word(0xEA, 0x20);
    assert_eq!(reset(&mut config), Ok(ResetMethod::FunctionLevel));
}

#[test]
fn a_stuck_bus_master_and_a_bridge_are_refused() {
    let mut config = nic(1 << 28);
    config.add(at(0, 3, 0)).allow(4, 0, 2);
    assert_eq!(reset(&mut config), Err(ResetError::BusMasterStuck));
    let mut config = nic(1 << 28);
    config.add(at(0, 3, 0)).byte(0xE, 1);
    assert_eq!(reset(&mut config), Err(ResetError::NotAnEndpoint));
    assert!(config.writes.is_empty());
}

#[test]
fn a_virtual_function_is_back_when_its_command_register_answers() {
    let mut config = nic(1 << 28);
    let physical = FunctionDescription::read(&mut config, at(0, 3, 0)).unwrap();
    config.add(at(0, 3, 0)).word(0, 0xFFFF).word(2, 0xFFFF).allow(0x10, 0, 4);
    let info = crate::FunctionInfo { address: at(0, 3, 0), ..physical.info };
    let function = FunctionDescription { info, ..physical };
    assert_eq!(reset_function(&mut config, &function, &mut clock()), Ok(ResetMethod::FunctionLevel));
    config.add(at(0, 3, 0)).on_write = Some(Box::new(|function, offset, value| {
        if offset == 0xE8 && value & 0x8000 != 0 {
            function.word(4, 0xFFFF).word(6, 0xFFFF);
        }
    }));
    let gone = ResetError::NotReady { vendor_and_device_id: u32::MAX };
    assert_eq!(reset_function(&mut config, &function, &mut clock()), Err(gone));
}
