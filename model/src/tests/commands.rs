use super::*;
use crate::{Event, Latency, Violation};
use std::cell::RefCell;
use std::rc::Rc;

#[test]
fn a_command_shows_in_gsts_when_it_is_done() {
    let machine = Machine::with_unit(0x10000, Configuration::default());
    machine.unit(0, |unit, _| unit.set_latency(Latency::Looks(4)));
    machine.write64(0, RTADDR, 0x1000);
    machine.write32(0, GCMD, SRTP);
    let reads: Vec<_> = (0..4).map(|_| machine.read32(0, GSTS) & SRTP != 0).collect();
    assert_eq!(reads, [false, false, false, true]);
    assert_eq!(machine.read32(0, GCMD), 0, "GCMD is write-only");
}

#[test]
fn one_shot_bits_are_not_state() {
    let machine = translating(Configuration::default());
    machine.write32(0, GCMD, TE | QIE | WBF);
    assert_eq!(machine.read32(0, GSTS), TE | QIE | SRTP);
    // GCMD is not read-modify-write: what is not written is turned off.
    machine.write32(0, GCMD, QIE);
    assert_eq!(machine.read32(0, GSTS), QIE | SRTP);
}

#[test]
fn a_root_table_is_used_only_after_its_command() {
    let machine = translating(Configuration::default());
    machine.write64(0, RTADDR, 0x5000);
    assert_eq!(read(&machine, 0x1000), Ok(0x7_7000));
}

#[test]
fn srtp_invalidates_where_promised_and_owes_it_elsewhere() {
    for srtp_invalidates in [true, false] {
        let machine = translating(Configuration { srtp_invalidates, ..Configuration::default() });
        assert_eq!(machine.violations(0), []);
        assert_eq!(read(&machine, 0x1000), Ok(0x7_7000));
        clear(&machine, 0x5_0000);
        machine.write64(0, RTADDR, 0x5_0000);
        machine.write32(0, GCMD, TE | QIE | SRTP);
        assert_eq!(read(&machine, 0x1000).is_ok(), !srtp_invalidates, "stale");
        machine.write32(0, GCMD, QIE);
        machine.write32(0, GCMD, QIE | TE);
        let expected: &[_] = if srtp_invalidates { &[] } else { &[Violation::InvalidationDue(RTADDR)] };
        assert_eq!(machine.violations(0), expected);
    }
}

#[test]
fn the_register_interface_invalidates_without_the_queue_only() {
    let machine = translating(Configuration::default());
    assert_eq!(read(&machine, 0x1000), Ok(0x7_7000));
    put(&machine, TABLES + 0x3008, 0);
    machine.write64(0, 0x508, 1 << 63 | 1 << 60);
    assert_eq!(read(&machine, 0x1000), Ok(0x7_7000));
    assert_eq!(machine.violations(0), [Violation::RegisterInvalidationWithQueue(0x508)]);
    machine.write32(0, GCMD, TE);
    machine.write64(0, 0x500, 0x1000);
    machine.write64(0, 0x508, 1 << 63 | 3 << 60 | u64::from(DOMAIN) << 32);
    assert_eq!(machine.read64(0, 0x508) >> 57 & 3, 3, "IAIG");
    assert_eq!(read(&machine, 0x1000), Err(Reason::READ));
    put(&machine, CONTEXTS + 16 * u64::from(SOURCE), 0);
    assert_eq!(read(&machine, 0x1000), Err(Reason::READ), "the context is cached");
    machine.write32(0, CCMD, 0);
    machine.write32(0, CCMD + 4, 1 << 31 | 1 << 29);
    assert_eq!(machine.read64(0, CCMD) >> 59, 1 << 2 | 1);
    assert_eq!(read(&machine, 0x1000), Err(Reason::CONTEXT_NOT_PRESENT));
}

#[test]
fn what_software_must_not_do_is_kept() {
    let machine = Machine::with_unit(0x10000, Configuration::default());
    machine.write32(0, GCMD, TE | IRE);
    machine.read64(0, GCMD);
    machine.write64(0, IQT, 16);
    machine.write32(0, GCMD, TE | IRE | QIE);
    machine.write64(0, IQA, 0x1000);
    let expected = [
        Violation::SeveralCommands(TE | IRE),
        Violation::RemappingWithoutTable,
        Violation::RemappingWithoutQueue,
        Violation::TranslationWithoutRootTable,
        Violation::RegisterAccess { offset: GCMD, width: 8 },
        Violation::QueueNotEmpty,
        Violation::RegisterLocked(IQA),
    ];
    assert_eq!(machine.violations(0), expected);
}

#[test]
fn a_command_while_another_is_in_progress_is_refused() {
    let machine = Machine::with_unit(0x10000, Configuration::default());
    machine.unit(0, |unit, _| unit.set_latency(Latency::Steps));
    machine.write32(0, GCMD, SRTP);
    machine.write32(0, GCMD, TE);
    while machine.step() {}
    assert_eq!(machine.read32(0, GSTS), SRTP);
    assert_eq!(machine.violations(0), [Violation::CommandInProgress(GCMD)]);
}

#[test]
fn the_hook_sees_hardware_between_two_stores() {
    let machine = translating(Configuration::default());
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = seen.clone();
    machine.on_event(move |machine, event| {
        if matches!(event, Event::Store { .. }) {
            log.borrow_mut().push(only(machine.dma_cold(0, SOURCE, 0x1000, 4, Access::Read)));
        }
    });
    machine.store_u64(TABLES + 0x3008, 0);
    machine.store_u64(TABLES + 0x3008, 0x9_9000 | 3);
    machine.clear_hook();
    machine.store_u64(TABLES + 0x3008, 0);
    assert_eq!(*seen.borrow(), [Err(Reason::READ), Ok(0x9_9000)]);
}

#[test]
fn a_device_writes_through_the_tables() {
    let machine = translating(Configuration::default());
    assert_eq!(machine.device_write(0, SOURCE, 0x1ff8, &[1; 8]), Ok(None));
    assert_eq!(machine.load(0x7_7ff8), 0x0101_0101_0101_0101);
    assert!(machine.device_write(0, SOURCE, 0x1ffc, &[2; 8]).is_err());
    assert_eq!(machine.load(0x7_7ff8), 0x0101_0101_0101_0101, "blocked as a whole");
}
