//! Bits and numbers, written out from the specification's sections and not taken from the code that is tested.

use super::std::format;
use super::std::string::ToString;
use super::std::vec::Vec;
use crate::spec::fault::FaultReason;
use crate::spec::registers::*;
use crate::{Capabilities, Levels};
use addr::PageSize;

#[test]
fn registers_are_where_section_11_4_has_them() {
    let registers = [
        (VER.offset(), VER.name(), 0x00, "VER_REG"),
        (CAP.offset(), CAP.name(), 0x08, "CAP_REG"),
        (ECAP.offset(), ECAP.name(), 0x10, "ECAP_REG"),
        (GCMD.offset(), GCMD.name(), 0x18, "GCMD_REG"),
        (GSTS.offset(), GSTS.name(), 0x1c, "GSTS_REG"),
        (RTADDR.offset(), RTADDR.name(), 0x20, "RTADDR_REG"),
        (CCMD.offset(), CCMD.name(), 0x28, "CCMD_REG"),
        (FSTS.offset(), FSTS.name(), 0x34, "FSTS_REG"),
        (FECTL.offset(), FECTL.name(), 0x38, "FECTL_REG"),
        (FEDATA.offset(), FEDATA.name(), 0x3c, "FEDATA_REG"),
        (FEADDR.offset(), FEADDR.name(), 0x40, "FEADDR_REG"),
        (FEUADDR.offset(), FEUADDR.name(), 0x44, "FEUADDR_REG"),
        (PMEN.offset(), PMEN.name(), 0x64, "PMEN_REG"),
        (PLMBASE.offset(), PLMBASE.name(), 0x68, "PLMBASE_REG"),
        (PLMLIMIT.offset(), PLMLIMIT.name(), 0x6c, "PLMLIMIT_REG"),
        (PHMBASE.offset(), PHMBASE.name(), 0x70, "PHMBASE_REG"),
        (PHMLIMIT.offset(), PHMLIMIT.name(), 0x78, "PHMLIMIT_REG"),
        (IQH.offset(), IQH.name(), 0x80, "IQH_REG"),
        (IQT.offset(), IQT.name(), 0x88, "IQT_REG"),
        (IQA.offset(), IQA.name(), 0x90, "IQA_REG"),
        (ICS.offset(), ICS.name(), 0x9c, "ICS_REG"),
        (IECTL.offset(), IECTL.name(), 0xa0, "IECTL_REG"),
        (IEDATA.offset(), IEDATA.name(), 0xa4, "IEDATA_REG"),
        (IEADDR.offset(), IEADDR.name(), 0xa8, "IEADDR_REG"),
        (IEUADDR.offset(), IEUADDR.name(), 0xac, "IEUADDR_REG"),
        (IQERCD.offset(), IQERCD.name(), 0xb0, "IQERCD_REG"),
        (IRTA.offset(), IRTA.name(), 0xb8, "IRTA_REG"),
        (PQH.offset(), PQH.name(), 0xc0, "PQH_REG"),
        (PQT.offset(), PQT.name(), 0xc8, "PQT_REG"),
        (PQA.offset(), PQA.name(), 0xd0, "PQA_REG"),
        (PRS.offset(), PRS.name(), 0xdc, "PRS_REG"),
        (PECTL.offset(), PECTL.name(), 0xe0, "PECTL_REG"),
        (PEDATA.offset(), PEDATA.name(), 0xe4, "PEDATA_REG"),
        (PEADDR.offset(), PEADDR.name(), 0xe8, "PEADDR_REG"),
        (PEUADDR.offset(), PEUADDR.name(), 0xec, "PEUADDR_REG"),
    ];
    for (offset, name, expected_offset, expected_name) in registers {
        assert_eq!((offset, name), (expected_offset, expected_name));
    }
}

#[test]
fn registers_that_capabilities_name_are_there_and_nowhere_beyond_what_an_offset_can_say() {
    assert_eq!((iva(0x3ff0).offset(), iva(0x3ff0).name()), (0x3ff0, "IVA_REG"));
    let iotlb_at = |base| iotlb(base).map(|register| (register.offset(), register.name()));
    assert_eq!(iotlb_at(0x3ff0), Some((0x3ff8, "IOTLB_REG")));
    assert_eq!((iotlb_at(0xfff0), iotlb_at(0xfff8)), (Some((0xfff8, "IOTLB_REG")), None));
    let low = |base, index| fault_record_low(base, index).map(|register| register.offset());
    let high = |base, index| fault_record_high(base, index).map(|register| register.offset());
    assert_eq!((low(0x220, 0), high(0x220, 0)), (Some(0x220), Some(0x228)));
    assert_eq!((low(0x220, 3), high(0x220, 3)), (Some(0x250), Some(0x258)));
    assert_eq!((low(0x3ff0, 255), high(0x3ff0, 255)), (Some(0x4fe0), Some(0x4fe8)));
    assert_eq!((low(0xfff0, 0), high(0xfff0, 0)), (Some(0xfff0), Some(0xfff8)));
    assert_eq!((low(0xfff8, 0), high(0xfff8, 0)), (Some(0xfff8), None));
    assert_eq!((low(0xfff0, 1), high(0, 4096)), (None, None));
    assert_eq!(fault_record_low(0, 0).map(|register| register.name()), Some("FRCD_REG low"));
    assert_eq!(fault_record_high(0, 0).map(|register| register.name()), Some("FRCD_REG high"));
}

#[test]
fn bits_of_registers_are_where_section_11_4_has_them() {
    assert_eq!(
        [
            Global::TRANSLATION,
            Global::ROOT_TABLE_POINTER,
            Global::FAULT_LOG,
            Global::ADVANCED_FAULT_LOGGING,
            Global::WRITE_BUFFER_FLUSH,
            Global::QUEUED_INVALIDATION,
            Global::INTERRUPT_REMAPPING,
            Global::INTERRUPT_TABLE_POINTER,
            Global::COMPATIBILITY_FORMAT,
        ]
        .map(|bit| bit.bits()),
        [
            0x8000_0000,
            0x4000_0000,
            0x2000_0000,
            0x1000_0000,
            0x0800_0000,
            0x0400_0000,
            0x0200_0000,
            0x0100_0000,
            0x0080_0000
        ]
    );
    // Not SRTP (30), SFL (29), WBF (27) and SIRTP (24).
    assert_eq!(GCMD_PERSISTENT, !0x6900_0000);
    let status = [
        FaultStatus::PFO,
        FaultStatus::PPF,
        FaultStatus::AFO,
        FaultStatus::APF,
        FaultStatus::IQE,
        FaultStatus::ICE,
        FaultStatus::ITE,
        FaultStatus::PRO,
    ];
    assert_eq!(status.map(|status| status.bits()), [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80]);
    assert_eq!(FaultStatus::CLEARABLE.map(|status| status.bits()), [0x01, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80]);
    assert_eq!(FaultStatus::from_bits_retain(0xffff_5aff).first_record(), 0x5a);
    assert_eq!(FaultStatus::from_bits_retain(0x0000_a500).first_record(), 0xa5);
    assert_eq!((PageRequestStatus::PPR.bits(), PageRequestStatus::PRO.bits()), (1, 2));
    assert_eq!((EVENT_CONTROL_MASKED, EVENT_CONTROL_PENDING), (0x8000_0000, 0x4000_0000));
    assert_eq!((PMEN_ENABLE, PMEN_STATUS), (0x8000_0000, 1));
    assert_eq!((RTADDR_TTM, RTADDR_TTM_SCALABLE, IRTA_EIME), (0xc00, 0x400, 0x800));
    assert_eq!((CCMD_BUSY, CCMD_DONE), (0x8000_0000_0000_0000, 0x1800_0000_0000_0000));
    assert_eq!((IOTLB_BUSY, IOTLB_DONE), (0x8000_0000_0000_0000, 0x0600_0000_0000_0000));
    assert_eq!((IQERCD_ITESID_SHIFT, IQERCD_ICESID_SHIFT, IQ_OFFSET_MASK), (32, 48, 0x7_fff0));
}

/// Capabilities of CAP_REG and ECAP_REG that are one bit.
type Flag = fn(Capabilities) -> bool;

#[test]
fn each_flag_is_its_own_bit_of_its_own_register() {
    let cap: [(u32, Flag); 19] = [
        (3, Capabilities::advanced_fault_logging),
        (4, Capabilities::required_write_buffer_flushing),
        (5, Capabilities::protected_low_memory),
        (6, Capabilities::protected_high_memory),
        (7, Capabilities::caching_mode),
        (9, |c| c.supports_levels(Levels::Three)),
        (10, |c| c.supports_levels(Levels::Four)),
        (11, |c| c.supports_levels(Levels::Five)),
        (22, Capabilities::zero_length_read),
        (34, Capabilities::pages_2m),
        (35, Capabilities::pages_1g),
        (39, Capabilities::page_selective_invalidation),
        (54, Capabilities::write_draining),
        (55, Capabilities::read_draining),
        (56, Capabilities::first_stage_pages_1g),
        (59, Capabilities::posted_interrupts),
        (60, Capabilities::first_stage_five_levels),
        (62, Capabilities::enhanced_set_interrupt_table_pointer),
        (63, Capabilities::enhanced_set_root_table_pointer),
    ];
    let ecap: [(u32, Flag); 17] = [
        (0, Capabilities::coherent),
        (1, Capabilities::queued_invalidation),
        (2, Capabilities::device_tlb),
        (3, Capabilities::interrupt_remapping),
        (4, Capabilities::extended_interrupt_mode),
        (6, Capabilities::pass_through),
        (7, Capabilities::snoop_control),
        (26, Capabilities::nested_translation),
        (29, Capabilities::page_requests),
        (40, Capabilities::pasid),
        (41, Capabilities::device_tlb_invalidation_throttle),
        (43, Capabilities::scalable_mode),
        (46, Capabilities::scalable_second_stage),
        (47, Capabilities::first_stage),
        (48, Capabilities::scalable_page_walk_coherency),
        (49, Capabilities::rid_pasid),
        (52, Capabilities::abort_dma_mode),
    ];
    for (bit, flag) in cap {
        assert!(flag(Capabilities { cap: 1 << bit, ecap: 0 }), "CAP {bit}");
        assert!(!flag(Capabilities { cap: !(1 << bit), ecap: u64::MAX }), "CAP {bit}");
    }
    for (bit, flag) in ecap {
        assert!(flag(Capabilities { cap: 0, ecap: 1 << bit }), "ECAP {bit}");
        assert!(!flag(Capabilities { cap: u64::MAX, ecap: !(1 << bit) }), "ECAP {bit}");
    }
}

#[test]
fn fields_of_capabilities_are_all_of_their_bits_and_no_others() {
    let cap = |cap| Capabilities { cap, ecap: 0 };
    let domains: Vec<_> = (0..8).map(|nd| cap(nd).domains()).collect();
    assert_eq!(domains, [16, 64, 256, 1024, 4096, 16384, 65536, 65536], "ND");
    assert_eq!((cap(!7).domains(), cap(!7 | 2).domains()), (16, 256));
    // None of the field's bits and all others, all of them and no others, and some.
    let width = |cap| Capabilities { cap, ecap: 0 }.maximum_guest_address_width();
    assert_eq!([!(0x3f << 16), 0x3f << 16, 0x2a << 16].map(width), [1, 64, 43], "MGAW");
    let offset = |cap| Capabilities { cap, ecap: 0 }.fault_record_offset();
    assert_eq!([!(0x3ff << 24), 0x3ff << 24, 0x22 << 24].map(offset), [0, 0x3ff0, 0x220], "FRO");
    let records = |cap| Capabilities { cap, ecap: 0 }.fault_records();
    assert_eq!([!(0xff << 40), 0xff << 40, 7 << 40].map(records), [1, 256, 8], "NFR");
    let mask = |cap| Capabilities { cap, ecap: 0 }.maximum_address_mask();
    assert_eq!([!(0x3f << 48), 0x3f << 48, 18 << 48].map(mask), [0, 63, 18], "MAMV");
    let offset = |ecap| Capabilities { cap: 0, ecap }.iotlb_register_offset();
    assert_eq!([!(0x3ff << 8), 0x3ff << 8, 0xf << 8].map(offset), [0, 0x3ff0, 0xf0], "IRO");
    let mask = |ecap| Capabilities { cap: 0, ecap }.maximum_handle_mask();
    assert_eq!([!(0xf << 20), 0xf << 20, 5 << 20].map(mask), [0, 15, 5], "MHMV");
    let both = Capabilities { cap: 1, ecap: 0x23 };
    assert_eq!(format!("{both:?}"), "Capabilities { cap: 0x0000000000000001, ecap: 0x23 }");
}

#[test]
fn page_sizes_are_those_that_the_second_stage_has() {
    let sizes = |cap| Capabilities { cap, ecap: 0 }.page_sizes().collect::<Vec<_>>();
    let largest = |cap| Capabilities { cap, ecap: 0 }.largest_page();
    let (m, g) = (1 << 34, 1 << 35);
    assert_eq!((sizes(0), largest(0)), ([PageSize::Size4K].into(), PageSize::Size4K));
    assert_eq!((sizes(m), largest(m)), ([PageSize::Size2M, PageSize::Size4K].into(), PageSize::Size2M));
    assert_eq!((sizes(g), largest(g)), ([PageSize::Size1G, PageSize::Size4K].into(), PageSize::Size1G));
    let all = [PageSize::Size1G, PageSize::Size2M, PageSize::Size4K];
    assert_eq!((sizes(m | g), largest(m | g)), (all.into(), PageSize::Size1G));
}

#[test]
fn levels_have_a_width_and_a_number() {
    let levels = [(Levels::Three, 3, 39, 1), (Levels::Four, 4, 48, 2), (Levels::Five, 5, 57, 3)];
    for (level, count, width, field) in levels {
        assert_eq!((level.count(), level.width(), level.address_width_field()), (count, width, field));
        assert_eq!(Levels::from_count(count), Some(level));
    }
    assert_eq!([0, 1, 2, 6, 9].map(Levels::from_count), [None; 5]);
    // The narrowest that is enough is not asked for: four, where they do, are what a guest has itself.
    let unit = |sagaw: u64, mgaw: u64| Capabilities { cap: sagaw << 8 | (mgaw - 1) << 16, ecap: 0 };
    assert_eq!(unit(0b1110, 57).second_stage_levels_for(30), Some(Levels::Four));
    assert_eq!(unit(0b1110, 57).second_stage_levels_for(48), Some(Levels::Four));
    assert_eq!(unit(0b1110, 57).second_stage_levels_for(49), Some(Levels::Five));
    assert_eq!(unit(0b0010, 48).second_stage_levels_for(40), None, "the table is too narrow");
    assert_eq!(unit(0b0110, 48).second_stage_levels_for(57), None, "no device may use it");
}

#[test]
fn the_reasons_of_faults_that_are_defined_have_words_and_no_others() {
    // The fault conditions of chapter 7: legacy mode, interrupts, root and mode, scalable-mode root, context, PASID
    // directory, PASID table, first and second stage walks, requests, accessed and dirty bits.
    let defined = [
        0x01..=0x0e,
        0x20..=0x28,
        0x30..=0x32,
        0x38..=0x3a,
        0x40..=0x48,
        0x50..=0x52,
        0x58..=0x5d,
        0x70..=0x7d,
        0x80..=0x87,
        0x90..=0x91,
    ];
    let mut seen = Vec::new();
    for code in 0..=255u8 {
        let words = FaultReason(code).words();
        assert_eq!(words.is_some(), defined.iter().any(|range| range.contains(&code)), "{code:#04x}");
        if let Some(words) = words {
            assert!(words.len() > 10 && !seen.contains(&words), "{words}");
            assert_eq!(format!("{}", FaultReason(code)), format!("{words} ({code:#04x})"));
            seen.push(words);
        }
        assert_eq!(FaultReason(code).is_interrupt(), (0x20..=0x2f).contains(&code));
    }
    let named = [
        (FaultReason::ROOT_ENTRY_NOT_PRESENT, 0x01, "root"),
        (FaultReason::CONTEXT_ENTRY_NOT_PRESENT, 0x02, "context"),
        (FaultReason::NO_WRITE_PERMISSION, 0x05, "write"),
        (FaultReason::NO_READ_PERMISSION, 0x06, "read"),
        (FaultReason::COMPATIBILITY_FORMAT_BLOCKED, 0x25, "compatibility"),
        (FaultReason::SOURCE_ID_VERIFICATION, 0x26, "source-id"),
    ];
    for (reason, code, word) in named {
        assert!(reason == FaultReason(code) && reason.words().is_some_and(|words| words.contains(word)), "{word}");
    }
}

#[test]
fn a_fault_says_who_did_what_where_with_which_pasid() {
    use crate::spec::fault::{FAULT, FaultRecord};
    let text = |low, high: u64| FaultRecord::decode(low, FAULT | high).unwrap().to_string();
    let pasid = 1 << 31 | 0xabcde << 40;
    let reason = "no write permission in the second stage (0x05)";
    assert_eq!(text(0x5000, 5 << 32 | 0x1234), format!("12:06.4: DMA write at 0x5000: {reason}"));
    let read = 1 << 62;
    assert_eq!(
        text(0x5000, read | 5 << 32 | 0x1234 | pasid),
        format!("12:06.4: DMA read at 0x5000 with PASID 0xabcde: {reason}")
    );
    let atomic = 1 << 62 | 1 << 28;
    assert_eq!(text(0x5000, atomic | 5 << 32 | 0x1234), format!("12:06.4: DMA atomic operation at 0x5000: {reason}"));
    assert_eq!(text(0x5000, 1 << 28 | 5 << 32 | 0x1234), format!("12:06.4: page request at 0x5000: {reason}"));
    let interrupt = text(0x0123_0000_0000_0000, 0x22 << 32 | 0x1234);
    assert_eq!(interrupt, "12:06.4: interrupt through entry 291: interrupt entry not present (0x22)");
}

#[test]
fn an_entry_is_present_by_its_lowest_bit_alone() {
    use crate::spec::{context::ContextEntry, interrupt, pasid::PasidEntry, scalable_context::ScalableContextEntry};
    for (low, present) in [(0, false), (1, true), (!1, false), (!0, true), (1 << 63, false)] {
        for high in [0, 1, !0] {
            assert_eq!(interrupt::Entry { low, high }.is_present(), present, "{low:#x}");
            assert_eq!(ContextEntry { low, high }.is_present(), present, "{low:#x}");
            assert_eq!(ScalableContextEntry { low, high }.is_present(), present, "{low:#x}");
            assert_eq!(PasidEntry { words: [low, high, 0, 0, 0, 0, 0, !0] }.is_present(), present, "{low:#x}");
        }
    }
}
