use super::*;
use crate::{Delivered, Interrupt, Notification};

const DESCRIPTOR: u64 = 0x3_0040;

/// Remapping on, with 256 entries.
fn remapping(configuration: Configuration, extended: bool) -> Machine {
    let machine = translating(configuration);
    machine.write64(0, IRTA, IRT | u64::from(extended) << 11 | 7);
    machine.write32(0, GCMD, TE | QIE | SIRTP);
    submit(&machine, &[(0x04, 0)]);
    machine.write32(0, GCMD, TE | QIE | IRE);
    machine
}

fn entry(machine: &Machine, index: u64, low: u64, high: u64) {
    put(machine, IRT + 16 * index, 0);
    put(machine, IRT + 16 * index + 8, high);
    put(machine, IRT + 16 * index, low);
}

/// Fixed, physical, edge, vector 0x51, to extended id 0x01020304, from SOURCE only.
const LOW: u64 = 0x0102_0304 << 32 | 0x51 << 16 | 1;
const HIGH: u64 = 1 << 18 | SOURCE as u64;

fn message(index: u64) -> u64 {
    0xfee0_0000 | (index & 0x7fff) << 5 | 1 << 4 | (index >> 15) << 2
}

fn ask(machine: &Machine, index: u64) -> Interrupt {
    machine.interrupt(0, SOURCE, message(index), 0)
}

fn blocked(interrupt: Interrupt) -> Option<Reason> {
    match interrupt {
        Interrupt::Blocked(fault) => Some(fault.reason),
        _ => None,
    }
}

fn vector(interrupt: Interrupt) -> u8 {
    match interrupt {
        Interrupt::Delivered(delivered) => delivered.vector,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_entry_says_vector_and_destination() {
    let machine = remapping(Configuration::default(), true);
    entry(&machine, 3, LOW, HIGH);
    let expected = Delivered {
        vector: 0x51,
        destination: 0x0102_0304,
        logical: false,
        redirection_hint: false,
        level: false,
        delivery_mode: 0,
    };
    assert_eq!(ask(&machine, 3), Interrupt::Delivered(expected));
    assert_eq!(machine.violations(0), []);
    let machine = remapping(Configuration::default(), false);
    entry(&machine, 3, 0x7700 << 32 | 0x51 << 16 | 1, HIGH);
    assert_eq!(ask(&machine, 3), Interrupt::Delivered(Delivered { destination: 0x77, ..expected }));
    entry(&machine, 4, 0x77 << 32 | 0x51 << 16 | 1, HIGH);
    assert_eq!(blocked(ask(&machine, 4)), Some(Reason::IRTE_RESERVED), "an xAPIC id stands in bits 47:40");
}

#[test]
fn the_subhandle_counts_only_with_shv() {
    let machine = remapping(Configuration::default(), true);
    entry(&machine, 3, LOW, HIGH);
    entry(&machine, 5, LOW | 0xff << 16, HIGH);
    assert_eq!(vector(machine.interrupt(0, SOURCE, message(3), 2)), 0x51);
    assert_eq!(vector(machine.interrupt(0, SOURCE, message(3) | 8, 2)), 0xff);
    let reserved = machine.interrupt(0, SOURCE, message(3) | 8, 1 << 16);
    assert_eq!(blocked(reserved), Some(Reason::INTERRUPT_RESERVED));
}

#[test]
fn compatibility_format_is_blocked_unless_let_pass() {
    for (extended, cfi, passes) in
        [(false, false, false), (false, true, true), (true, false, false), (true, true, false)]
    {
        let machine = remapping(Configuration::default(), extended);
        if cfi {
            machine.write32(0, GCMD, TE | QIE | IRE | CFI);
        }
        let interrupt = machine.interrupt(0, SOURCE, 0xfee0_0000, 0x31);
        let expected = if passes { None } else { Some(Reason::COMPATIBILITY_BLOCKED) };
        assert_eq!(blocked(interrupt), expected, "EIME {extended}, CFI {cfi}");
    }
    let machine = translating(Configuration::default());
    let unremapped = Interrupt::Unremapped { address: 0xfee0_0000, data: 0x31 };
    assert_eq!(machine.device_write(0, SOURCE, 0xfee0_0000, &[0x31, 0, 0, 0]), Ok(Some(unremapped)));
}

#[test]
fn the_source_id_is_checked_as_the_entry_says() {
    let machine = remapping(Configuration::default(), true);
    let cases = [
        (0, SOURCE + 0x100, true),
        (1 << 18, SOURCE, true),
        (1 << 18, SOURCE + 1, false),
        (1 << 18 | 1 << 16, SOURCE + 4, true),
        (1 << 18 | 1 << 16, SOURCE + 2, false),
        (1 << 18 | 2 << 16, SOURCE + 6, true),
        (1 << 18 | 2 << 16, SOURCE + 1, false),
        (1 << 18 | 3 << 16, SOURCE + 7, true),
        (1 << 18 | 3 << 16, SOURCE + 8, false),
    ];
    for (index, (bits, source, admitted)) in cases.into_iter().enumerate() {
        entry(&machine, index as u64, LOW, u64::from(SOURCE) | bits);
        let interrupt = machine.interrupt(0, source, message(index as u64), 0);
        let expected = if admitted { None } else { Some(Reason::SOURCE_ID) };
        assert_eq!(blocked(interrupt), expected, "{bits:#x} {source:#x}");
    }
    entry(&machine, 20, LOW, 2 << 18 | 0x0307);
    for (bus, admitted) in [(2, false), (3, true), (7, true), (8, false)] {
        assert_eq!(blocked(machine.interrupt(0, bus << 8 | 9, message(20), 0)).is_none(), admitted);
    }
    entry(&machine, 21, LOW, 3 << 18);
    assert_eq!(blocked(ask(&machine, 21)), Some(Reason::IRTE_RESERVED));
}

#[test]
fn an_entry_is_stale_until_its_index_is_invalidated() {
    let machine = remapping(Configuration::default(), true);
    entry(&machine, 3, LOW, HIGH);
    assert_eq!(vector(ask(&machine, 3)), 0x51);
    entry(&machine, 3, LOW | 0xff << 16, HIGH);
    for useless in [(0x11, 0), (0x12, 0), (0x14 | 2 << 32, 0)] {
        submit(&machine, &[useless]);
        assert_eq!(vector(ask(&machine, 3)), 0x51, "{useless:x?}");
    }
    assert_eq!(vector(machine.interrupt_cold(0, SOURCE, message(3), 0)), 0xff);
    submit(&machine, &[(0x14 | 1 << 27 | 2 << 32, 0)]);
    assert_eq!(vector(ask(&machine, 3)), 0xff);
}

#[test]
fn an_entry_that_is_not_present_is_remembered_in_caching_mode_only() {
    for caching_mode in [false, true] {
        let machine = remapping(Configuration { caching_mode, ..Configuration::default() }, true);
        assert_eq!(blocked(ask(&machine, 3)), Some(Reason::IRTE_NOT_PRESENT));
        entry(&machine, 3, LOW, HIGH);
        assert_eq!(blocked(ask(&machine, 3)).is_some(), caching_mode);
        submit(&machine, &[(0x14 | 3 << 32, 0)]);
        assert_eq!(vector(ask(&machine, 3)), 0x51);
    }
}

#[test]
fn faults_name_the_index_and_the_source() {
    let machine = remapping(Configuration::default(), true);
    assert_eq!(blocked(ask(&machine, 256)), Some(Reason::INDEX));
    assert_eq!(blocked(ask(&machine, 17)), Some(Reason::IRTE_NOT_PRESENT));
    assert_eq!(machine.read64(0, 0x410), 17 << 48);
    assert_eq!(machine.read64(0, 0x418), 1 << 63 | 0x22 << 32 | u64::from(SOURCE));
}

fn posted(machine: &Machine, index: u64, urgent: bool) {
    let low = (DESCRIPTOR & 0xffff_ffff) << 32 | 0x51 << 16 | 1 << 15 | u64::from(urgent) << 14 | 1;
    entry(machine, index, low, HIGH);
}

#[test]
fn posting_sets_pir_and_notifies_once() {
    let machine = remapping(Configuration::default(), true);
    clear(&machine, DESCRIPTOR & !0xfff);
    machine.store_u64(DESCRIPTOR + 32, 0x0102_0304 << 32 | 0xf2 << 16);
    posted(&machine, 3, false);
    let notification = Some(Notification { vector: 0xf2, destination: 0x0102_0304 });
    let expected = Interrupt::Posted { descriptor: DESCRIPTOR, vector: 0x51, notification };
    assert_eq!(ask(&machine, 3), expected);
    assert_eq!(machine.load(DESCRIPTOR + 8), 1 << (0x51 - 64));
    assert_eq!(machine.load(DESCRIPTOR + 32) & 1, 1);
    assert_eq!(ask(&machine, 3), Interrupt::Posted { descriptor: DESCRIPTOR, vector: 0x51, notification: None });
    // SN suppresses, an urgent entry does not mind.
    machine.store_u64(DESCRIPTOR + 32, 0x0102_0304 << 32 | 0xf2 << 16 | 2);
    assert_eq!(ask(&machine, 3), Interrupt::Posted { descriptor: DESCRIPTOR, vector: 0x51, notification: None });
    posted(&machine, 4, true);
    assert_eq!(ask(&machine, 4), expected);
}

#[test]
fn posting_needs_the_capability_and_a_good_descriptor() {
    let machine = remapping(Configuration { posted_interrupts: false, ..Configuration::default() }, true);
    posted(&machine, 3, false);
    assert_eq!(blocked(ask(&machine, 3)), Some(Reason::IRTE_RESERVED));
    let machine = remapping(Configuration::default(), true);
    posted(&machine, 3, false);
    assert_eq!(blocked(ask(&machine, 3)), Some(Reason::POSTED_RESERVED), "memory that was not cleared");
    entry(&machine, 4, 1 << 15 | 1, 1 << 32 | HIGH);
    assert_eq!(blocked(ask(&machine, 4)), Some(Reason::POSTED_ACCESS));
}
