use super::*;
use crate::vm::pci::MessageError;
use addr::{ApicId, Vector};

fn write(table: &mut MsixTable, offset: u64, bytes: usize, value: u64) -> Vec<MsixEffect> {
    let mut effects = Vec::new();
    table.write(offset, bytes, value, &mut |effect| effects.push(effect));
    effects
}

fn control(table: &mut MsixTable, enabled: bool, function_masked: bool) -> Vec<MsixEffect> {
    let mut effects = Vec::new();
    table.set_control(enabled, function_masked, &mut |effect| effects.push(effect));
    effects
}

fn route(entry: u16, vector: u8, destination: u32) -> MsixEffect {
    let message = GuestMessage::decode(0xFEE0_0000 | u64::from(destination) << 12, vector.into()).unwrap();
    assert_eq!((message.vector, message.destination), (Vector(vector), ApicId(destination)));
    MsixEffect::Route { entry, message }
}

/// Entry 1 written for vector 0x41 and unmasked, MSI-X enabled.
fn live() -> MsixTable {
    let mut table = MsixTable::new(5);
    write(&mut table, 16, 8, 0xFEE0_2000);
    write(&mut table, 24, 8, 0x41);
    control(&mut table, true, false);
    table
}

#[test]
fn an_entry_is_routed_when_it_becomes_live_and_not_before() {
    let mut table = MsixTable::new(5);
    assert_eq!(control(&mut table, true, false), []);
    assert_eq!(write(&mut table, 16, 4, 0xFEE0_2000), []);
    assert_eq!(write(&mut table, 20, 4, 0), []);
    assert_eq!(write(&mut table, 24, 4, 0x41), []);
    assert_eq!(write(&mut table, 28, 4, 0), [route(1, 0x41, 2)]);
    assert_eq!(write(&mut table, 28, 4, 1), [MsixEffect::Mask { entry: 1 }]);
    assert_eq!(write(&mut table, 28, 4, 1), []);
    assert_eq!(write(&mut table, 28, 4, 0), [route(1, 0x41, 2)]);
}

#[test]
fn function_mask_and_enable_move_all_entries() {
    let mut table = live();
    write(&mut table, 0, 8, 0xFEE0_0000);
    assert_eq!(write(&mut table, 8, 8, 0x42), [route(0, 0x42, 0)]);
    let masked = [MsixEffect::Mask { entry: 0 }, MsixEffect::Mask { entry: 1 }];
    assert_eq!(control(&mut table, true, true), masked);
    assert_eq!(control(&mut table, false, true), []);
    assert_eq!(control(&mut table, true, false), [route(0, 0x42, 0), route(1, 0x41, 2)]);
    assert_eq!(control(&mut table, false, false), masked);
}

#[test]
fn a_live_entry_that_changes_is_routed_anew_only_if_it_changed() {
    let mut table = live();
    assert_eq!(write(&mut table, 24, 4, 0x43), [route(1, 0x43, 2)]);
    assert_eq!(write(&mut table, 24, 4, 0x43), []);
    assert_eq!(table.route(1).unwrap().vector, Vector(0x43));
    assert_eq!(table.route(0), None);
}

#[test]
fn a_message_that_is_no_interrupt_masks_the_entry_and_says_why_once() {
    let mut table = live();
    assert_eq!(
        write(&mut table, 16, 4, 0x1000),
        [
            MsixEffect::Mask { entry: 1 },
            MsixEffect::Unroutable {
                entry: 1,
                address: 0x1000,
                data: 0x41,
                reason: MessageError::NotAnInterruptAddress
            }
        ]
    );
    assert_eq!(write(&mut table, 16, 4, 0x1000), []);
    assert_eq!(table.route(1), None);
    assert_eq!(write(&mut table, 16, 4, 0xFEE0_2000), [route(1, 0x41, 2)]);
}

#[test]
fn what_was_written_is_read_back_without_the_reserved_bits() {
    let mut table = live();
    assert_eq!((table.read(16, 8), table.read(24, 8)), (Some(0xFEE0_2000), Some(0x41)));
    write(&mut table, 0, 8, u64::MAX);
    write(&mut table, 8, 8, u64::MAX);
    assert_eq!((table.read(0, 8), table.read(8, 8)), (Some(!3), Some(0x1_FFFF_FFFF)));
    assert_eq!(table.read(76, 4), Some(1), "masked at the start");
}

#[test]
fn other_accesses_change_nothing() {
    let mut table = live();
    for (offset, bytes) in
        [(28, 1), (28, 2), (26, 4), (20, 8), (28, 8), (28, 3), (80, 4), (80, 8), (u64::MAX, 4), (!7, 8)]
    {
        assert_eq!(table.read(offset, bytes), None, "{offset} {bytes}");
        assert_eq!(write(&mut table, offset, bytes, 1), [], "{offset} {bytes}");
        assert!(!table.write(offset, bytes, 1, &mut |_| {}));
    }
    assert_eq!((table.read(16, 8), table.read(24, 8)), (Some(0xFEE0_2000), Some(0x41)));
}
