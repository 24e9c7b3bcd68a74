use super::*;
use crate::Violation;

#[test]
fn without_translation_an_address_is_itself() {
    let machine = Machine::with_unit(0x10000, Configuration::default());
    assert_eq!(read(&machine, 0x1234), Ok(0x1234));
}

#[test]
fn a_request_over_two_pages_has_two_targets_and_faults_on_either() {
    let machine = translating(Configuration::default());
    put(&machine, TABLES + 0x3010, 0x9_9000 | 3);
    let parts = machine.dma(0, SOURCE, 0x1ff0, 0x20, Access::Write);
    assert_eq!(parts, Ok(vec![(0x7_7ff0, 0x10), (0x9_9000, 0x10)]));
    let fault = machine.dma(0, SOURCE, 0x2ff0, 0x20, Access::Write).unwrap_err();
    assert_eq!((fault.reason, fault.info), (Reason::WRITE, 0x3000));
}

#[test]
fn each_step_of_the_walk_has_its_fault() {
    let unit = || translating(Configuration { sagaw: 0b0100, ..Configuration::default() });
    let entry = CONTEXTS + 16 * u64::from(SOURCE);
    let cases: [(u64, u64, Reason); 15] = [
        (ROOT, 0, Reason::ROOT_NOT_PRESENT),
        (ROOT, CONTEXTS | 3, Reason::ROOT_RESERVED),
        (ROOT, 1 << 46 | 1, Reason::ROOT_RESERVED),
        (ROOT, 1 << 40 | 1, Reason::CONTEXT_ACCESS),
        (entry, TABLES, Reason::CONTEXT_NOT_PRESENT),
        (entry, TABLES | 1 << 11 | 1, Reason::CONTEXT_RESERVED),
        (entry, TABLES | 3 << 2 | 1, Reason::CONTEXT_INVALID),
        (entry, TABLES | 1 << 2 | 1, Reason::CONTEXT_INVALID),
        (entry + 8, 5 << 8 | 1, Reason::CONTEXT_INVALID),
        (entry + 8, 5 << 8 | 3, Reason::CONTEXT_INVALID),
        (entry + 8, 1 << 24 | 5 << 8 | 2, Reason::CONTEXT_RESERVED),
        (TABLES, 1 << 40 | 3, Reason::PAGING_ACCESS),
        (TABLES, (TABLES + 0x1000) | 0x83, Reason::PAGING_RESERVED),
        (TABLES + 0x3008, 1 << 46 | 3, Reason::PAGING_RESERVED),
        (TABLES + 0x3008, 0xfee0_0000 | 3, Reason::INTERRUPT_RANGE),
    ];
    for (at, value, reason) in cases {
        let machine = unit();
        put(&machine, at, value);
        assert_eq!(read(&machine, 0x1000), Err(reason), "{at:#x} = {value:#x}");
        assert_eq!(machine.read32(0, FSTS) & PPF, PPF);
        assert_eq!(machine.read64(0, 0x408) >> 32 & 0xff, u64::from(reason.0));
    }
}

#[test]
fn permissions_of_all_levels_are_combined() {
    let machine = translating(Configuration::default());
    put(&machine, TABLES + 0x1000, (TABLES + 0x2000) | 1);
    assert_eq!(read(&machine, 0x1000), Ok(0x7_7000));
    assert_eq!(write(&machine, 0x1000), Err(Reason::WRITE));
}

#[test]
fn large_pages_translate_where_the_unit_has_them() {
    for (has, expected) in [(true, Ok(0x61_2345)), (false, Err(Reason::PAGING_RESERVED))] {
        let machine = translating(Configuration { pages_2m: has, ..Configuration::default() });
        put(&machine, TABLES + 0x2008, 0x60_0000 | 0x83);
        assert_eq!(read(&machine, 0x21_2345), expected);
        put(&machine, TABLES + 0x2010, 0x60_1000 | 0x83);
        assert_eq!(read(&machine, 0x40_0000), Err(Reason::PAGING_RESERVED), "not aligned to its size");
    }
    let machine = translating(Configuration::default());
    put(&machine, TABLES + 0x1008, 0x83);
    assert_eq!(read(&machine, 0x4012_3456), Ok(0x12_3456));
}

#[test]
fn three_and_five_levels_walk_from_their_own_top() {
    let machine = translating(Configuration { sagaw: 0b1110, guest_address_width: 57, ..Configuration::default() });
    context(&machine, 0x20, TABLES + 0x1000, 6, 1);
    assert_eq!(only(machine.dma(0, 0x20, 0x1000, 4, Access::Read)), Ok(0x7_7000));
    assert_eq!(only(machine.dma(0, 0x20, 1 << 39, 4, Access::Read)), Err(Reason::BEYOND_WIDTH));
    clear(&machine, TABLES + 0x4000);
    put(&machine, TABLES + 0x4000 + 8, TABLES | 3);
    context(&machine, 0x28, TABLES + 0x4000, 7, 3);
    assert_eq!(only(machine.dma(0, 0x28, 1 << 48 | 0x1000, 4, Access::Read)), Ok(0x7_7000));
}

#[test]
fn snoop_bit_is_reserved_without_snoop_control() {
    for (snoop_control, expected) in [(true, Ok(0x7_7000)), (false, Err(Reason::PAGING_RESERVED))] {
        let machine = translating(Configuration { snoop_control, ..Configuration::default() });
        put(&machine, TABLES + 0x3008, 0x7_7000 | 1 << 11 | 3);
        assert_eq!(read(&machine, 0x1000), expected);
    }
}

#[test]
fn a_unit_that_does_not_snoop_sees_flushed_entries_only() {
    let machine = translating(Configuration { coherent: false, ..Configuration::default() });
    machine.store_u64(TABLES + 0x3010, 0x9_9000 | 3);
    assert_eq!(read(&machine, 0x2000), Err(Reason::READ));
    machine.flush(TABLES + 0x3010, 8);
    assert_eq!(read(&machine, 0x2000), Ok(0x9_9000));
}

#[test]
fn a_write_buffer_hides_entries_until_it_is_flushed() {
    let machine = translating(Configuration { write_buffer: true, ..Configuration::default() });
    machine.store_u64(TABLES + 0x3010, 0x9_9000 | 3);
    assert_eq!(read(&machine, 0x2000), Err(Reason::READ));
    machine.write32(0, GCMD, TE | QIE | WBF);
    assert_eq!(read(&machine, 0x2000), Ok(0x9_9000));
}

#[test]
fn the_interrupt_range_is_no_memory() {
    let machine = translating(Configuration::default());
    assert_eq!(write(&machine, 0xfee0_1000), Err(Reason::ABORTED));
    assert_eq!(machine.read32(0, FSTS), 0);
}

#[test]
fn fault_processing_disable_silences_what_it_qualifies() {
    let machine = translating(Configuration::default());
    let entry = CONTEXTS + 16 * u64::from(SOURCE);
    put(&machine, entry, TABLES | 3);
    assert_eq!(read(&machine, 0x5000), Err(Reason::READ));
    assert_eq!(machine.read32(0, FSTS), 0);
}

#[test]
fn pass_through_and_domain_rules_are_watched() {
    let machine = translating(Configuration { sagaw: 0b0110, caching_mode: true, ..Configuration::default() });
    let entry = CONTEXTS + 16 * 0x20;
    put(&machine, entry + 8, 6 << 8 | 1);
    put(&machine, entry, 2 << 2 | 1);
    assert_eq!(only(machine.dma(0, 0x20, 0x1234, 4, Access::Read)), Ok(0x1234));
    context(&machine, 0x28, TABLES, 0, 2);
    let _ = machine.dma(0, 0x28, 0x1000, 4, Access::Read);
    assert_eq!(read(&machine, 0x1000), Ok(0x7_7000));
    context(&machine, 0x30, TABLES + 0x1000, DOMAIN, 1);
    let _ = machine.dma(0, 0x30, 0x1000, 4, Access::Read);
    let expected =
        [Violation::PassThroughWidth(0x20), Violation::DomainZero(0x28), Violation::DomainWithTwoTables(DOMAIN)];
    assert_eq!(machine.violations(0), expected);
}

#[test]
fn abort_and_unknown_table_modes_block_everything() {
    for (abort_dma, mode, reason) in [
        (true, 3, Reason::ABORTED),
        (false, 3, Reason::TABLE_MODE),
        (true, 2, Reason::TABLE_MODE),
        (true, 1, Reason::TABLE_MODE),
    ] {
        let machine = translating(Configuration { abort_dma, ..Configuration::default() });
        machine.write64(0, RTADDR, ROOT | mode << 10);
        machine.write32(0, GCMD, TE | QIE | SRTP);
        assert_eq!(read(&machine, 0x1000), Err(reason));
    }
}

#[test]
fn protected_regions_block_dma_before_translation() {
    let machine = Machine::with_unit(0x100_0000, Configuration { protected_regions: true, ..Configuration::default() });
    machine.write32(0, PLMBASE, 0x20_0000);
    machine.write32(0, PLMLIMIT, 0x20_0000);
    machine.write64(0, PHMBASE, 1 << 40);
    machine.write64(0, PHMLIMIT, 1 << 40);
    machine.write32(0, PMEN, 1 << 31);
    assert_eq!(machine.read32(0, PMEN), 1 << 31 | 1);
    assert_eq!(read(&machine, 0x3f_fff0), Err(Reason::ABORTED));
    assert_eq!(read(&machine, 0x40_0000), Ok(0x40_0000));
}
