//! The registers in the xAPIC page.

use super::{requests, vector, xapic};

#[test]
fn the_page_reads_what_was_written_without_reserved_bits() {
    for (offset, bits) in [
        (0x80, 0xff),
        (0xd0, 0xff00_0000),
        (0x310, 0xff00_0000u32),
        (0x320, 0x3_00ff),
        (0x330, 0x1_07ff),
        (0x340, 0x1_07ff),
        (0x350, 0x1_a7ff),
        (0x360, 0x1_a7ff),
        (0x370, 0x1_00ff),
        (0x3e0, 0xb),
    ] {
        let mut apic = xapic();
        assert_eq!(apic.write_page(offset, u32::MAX, 0), None);
        assert_eq!(apic.read_page(offset, 0), bits, "{offset:#x}");
    }
    let mut apic = xapic();
    apic.write_page(0xe0, 0, 0);
    assert_eq!(apic.read_page(0xe0, 0), 0x0fff_ffff);
}

#[test]
fn identity_is_in_the_top_byte() {
    let mut apic = xapic();
    apic.write_page(0x20, 0x5500_0000, 0);
    apic.write_page(0x30, 0, 0);
    assert_eq!((apic.read_page(0x20, 0), apic.read_page(0x30, 0)), (0x0300_0000, 0x5_0014));
}

#[test]
fn any_value_is_an_eoi() {
    let mut apic = xapic();
    for value in [0, 1, u32::MAX] {
        apic.accept(requests(&[0x30]));
        assert_eq!(apic.acknowledge(), vector(0x30));
        assert_eq!(apic.read_page(0x110, 0), 1 << 16);
        assert_eq!(apic.write_page(0xb0, value, 0), None);
        assert_eq!(apic.read_page(0x110, 0), 0);
    }
    assert_eq!(apic.read_page(0xb0, 0), 0);
}

#[test]
fn every_offset_answers_and_those_without_a_register_are_errors() {
    let registers =
        [0x20, 0x30, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0, 0x280, 0x300, 0x310, 0x380, 0x390, 0x3e0];
    for offset in 0..0x1000u16 {
        let exists = registers.contains(&offset)
            || offset % 16 == 0 && ((0x100..0x280).contains(&offset) || (0x320..=0x370).contains(&offset));
        let mut apic = xapic();
        let value = apic.read_page(offset, 0);
        apic.write_page(0x280, 0, 0);
        assert_eq!(apic.read_page(0x280, 0), if exists { 0 } else { 1 << 7 }, "read of {offset:#x}");
        assert!(exists || value == 0);
        let mut apic = xapic();
        // As INIT, level de-assert, the command does nothing.
        let _ = apic.write_page(offset, 0x8500, 0);
        apic.write_page(0x280, 0, 0);
        assert_eq!(apic.read_page(0x280, 0), if exists { 0 } else { 1 << 7 }, "write of {offset:#x}");
    }
}

#[test]
fn an_access_after_the_timers_deadline_finds_the_interrupt_requested() {
    let started = || {
        let mut apic = xapic();
        apic.write_page(0x320, 0x50, 0);
        apic.write_page(0x380, 50, 0);
        apic
    };
    // Vector 0x50 is bit 16 of the third register.
    assert_eq!((started().read_page(0x220, 99), started().read_page(0x220, 100)), (0, 1 << 16));
    let mut apic = started();
    // Masking after the deadline comes too late.
    apic.write_page(0x320, 0x1_0050, 100);
    assert_eq!(apic.pending(), vector(0x50));
}

#[test]
fn reset_values() {
    let mut apic = super::LocalApic::new(addr::ApicId(0), true, 40);
    for (offset, value) in [(0x80, 0), (0xa0, 0), (0xd0, 0), (0xe0, u32::MAX), (0xf0, 0xff), (0x280, 0), (0x300, 0)] {
        assert_eq!(apic.read_page(offset, 0), value, "{offset:#x}");
    }
    for offset in (0x320..=0x370).step_by(16) {
        assert_eq!(apic.read_page(offset, 0), 0x1_0000, "{offset:#x}");
    }
    for offset in (0x100..0x280).step_by(16).chain([0x380, 0x390, 0x3e0]) {
        assert_eq!(apic.read_page(offset, 0), 0, "{offset:#x}");
    }
}
