//! The registers as x2APIC MSRs.

use super::super::GeneralProtection;
use super::{LocalApic, errors, vector, write, x2apic};

/// MSR, whether it can be read, and the bits that can be written and read back (`None`: it cannot be written).
fn table() -> Vec<(u32, bool, Option<u32>)> {
    let mut table = vec![
        (0x802, true, None),
        (0x803, true, None),
        (0x808, true, Some(0xff)),
        (0x80a, true, None),
        (0x80b, false, Some(0)),
        (0x80d, true, None),
        (0x80f, true, Some(0x3ff)),
        (0x828, true, Some(0)),
        (0x832, true, Some(0x7_00ff)),
        (0x833, true, Some(0x1_07ff)),
        (0x834, true, Some(0x1_07ff)),
        (0x835, true, Some(0x1_a7ff)),
        (0x836, true, Some(0x1_a7ff)),
        (0x837, true, Some(0x1_00ff)),
        (0x838, true, Some(u32::MAX)),
        (0x839, true, None),
        (0x83e, true, Some(0xb)),
        (0x83f, false, Some(0xff)),
    ];
    table.extend((0x810..0x828).map(|msr| (msr, true, None)));
    table
}

#[test]
fn registers_can_be_read_where_they_exist() {
    for msr in 0x800..=0x8ff {
        let readable = table().iter().any(|(known, readable, _)| *known == msr && *readable) || msr == 0x830;
        assert_eq!(x2apic().read_msr(msr, 0).is_ok(), readable, "{msr:#x}");
    }
}

#[test]
fn registers_can_be_written_where_they_exist_and_are_no_more_than_their_bits() {
    for msr in (0x800..=0x8ff).filter(|msr| *msr != 0x830) {
        let bits = table().iter().find(|(known, ..)| *known == msr).and_then(|(.., bits)| *bits);
        assert_eq!(x2apic().write_msr(msr, 0, 0).is_ok(), bits.is_some(), "{msr:#x}");
        // Delivery status and Remote IRR are read-only: ignored.
        let ignored = if let 0x832..=0x837 = msr { 1 << 12 } else { 0 };
        let ignored = if let 0x835 | 0x836 = msr { ignored | 1 << 14 } else { ignored };
        for bit in 0..64 {
            let legal = bits.is_some_and(|bits| (u64::from(bits) | ignored) & 1 << bit != 0);
            let value = 1 << bit | if msr == 0x80f { 0x100 } else { 0 };
            let mut apic = x2apic();
            assert_eq!(apic.write_msr(msr, value, 0).is_ok(), legal, "{msr:#x} bit {bit}");
            if legal && !matches!(msr, 0x83f | 0x838) {
                assert_eq!(apic.read_msr(msr, 0), Ok(value & !ignored), "{msr:#x} bit {bit}");
            }
        }
    }
}

#[test]
fn the_icr_has_its_own_bits() {
    let legal = 0xffu64 | 7 << 8 | 1 << 11 | 1 << 12 | 1 << 14 | 1 << 15 | 3 << 18 | 0xffff_ffff_0000_0000;
    for bit in 0..64 {
        assert_eq!(x2apic().write_msr(0x830, 1 << bit, 0).is_ok(), legal & 1 << bit != 0, "bit {bit}");
    }
}

#[test]
fn the_msrs_that_belong_to_the_local_apic() {
    for (msr, owned) in
        [(0x1a, false), (0x1b, true), (0x6e0, true), (0x7ff, false), (0x800, true), (0x8ff, true), (0x900, false)]
    {
        assert_eq!(LocalApic::owns_msr(msr), owned, "{msr:#x}");
    }
}

#[test]
fn the_timers_reserved_mode_is_refused() {
    let mut apic = x2apic();
    write(&mut apic, 0x832, 0x4_0030);
    assert_eq!(apic.write_msr(0x832, 0x6_0030, 0), Err(GeneralProtection));
    assert_eq!(apic.read_msr(0x832, 0), Ok(0x4_0030));
}

#[test]
fn identity_and_version() {
    let mut apic = x2apic();
    assert_eq!(apic.read_msr(0x802, 0), Ok(3));
    assert_eq!(apic.read_msr(0x803, 0), Ok(0x5_0014));
    assert_eq!(apic.read_msr(0x80d, 0), Ok(0x8));
    let mut apic = LocalApic::new(addr::ApicId(0x125), false, 40);
    apic.write_msr(0x1b, 0xfee0_0c00, 0).unwrap();
    assert_eq!((apic.read_msr(0x802, 0), apic.read_msr(0x80d, 0)), (Ok(0x125), Ok(0x12_0020)));
}

#[test]
fn software_disable_masks_the_local_vector_table_and_keeps_it_masked() {
    let mut apic = x2apic();
    for msr in 0x832..=0x837 {
        write(&mut apic, msr, 0x40);
    }
    write(&mut apic, 0x80f, 0xff);
    for msr in 0x832..=0x837 {
        assert_eq!(apic.read_msr(msr, 0), Ok(0x1_0040), "{msr:#x}");
        write(&mut apic, msr, 0x50);
        assert_eq!(apic.read_msr(msr, 0), Ok(0x1_0050), "{msr:#x}");
    }
    write(&mut apic, 0x80f, 0x1ff);
    write(&mut apic, 0x832, 0x50);
    assert_eq!(apic.read_msr(0x832, 0), Ok(0x50));
}

#[test]
fn errors_are_readable_after_a_write_of_the_error_status() {
    let mut apic = x2apic();
    write(&mut apic, 0x83f, 5);
    assert_eq!(apic.read_msr(0x828, 0), Ok(0));
    assert_eq!(errors(&mut apic), 1 << 5);
    assert_eq!(apic.read_msr(0x828, 0), Ok(1 << 5));
    assert_eq!(errors(&mut apic), 0);
}

#[test]
fn a_self_ipi_arrives() {
    let mut apic = x2apic();
    write(&mut apic, 0x83f, 0x77);
    assert_eq!(apic.acknowledge(), vector(0x77));
}
