//! Scalable mode judged by hand-made tables.

use super::*;
use crate::{QueueError, Request, Violation};

const DIRECTORY: u64 = 0x1_5000;
const PASIDS: u64 = 0x1_6000;
/// Tables of the first stage: levels 5 to 1, guest-physical in a nested translation.
const FIRST: u64 = 0x3_0000;
const PASID: u32 = 0x45;
/// The context entry of [`SOURCE`], the directory entry and the table entry of [`PASID`], and those of PASID 0.
const CONTEXT: u64 = CONTEXTS + 0x18 * 32;
const LIST: u64 = DIRECTORY + 8;
const ENTRY: u64 = PASIDS + 5 * 64;
const RID_LIST: u64 = DIRECTORY;
const RID_ENTRY: u64 = 0x1_7000;

const GLOBAL_CONTEXT: (u64, u64) = (0x11, 0);
const GLOBAL_PASIDS: (u64, u64) = (0x37, 0);
const GLOBAL_PAGES: (u64, u64) = (0x12, 0);

/// Second stage, four levels from TABLES, in domain 5.
const SECOND: [u64; 3] = [TABLES | 2 << 6 | 2 << 2 | 1, DOMAIN as u64, 0];
/// First stage, four levels from FIRST + 0x1000, walks snoop.
const FOUR: [u64; 3] = [1 << 6 | 1, 1 << 23 | DOMAIN as u64, FIRST + 0x1000];
/// First stage, five levels.
const FIVE: [u64; 3] = [1 << 6 | 1, 1 << 23 | DOMAIN as u64, FIRST | 1 << 2];
const NESTED: [u64; 3] = [TABLES | 3 << 6 | 2 << 2 | 1, 1 << 23 | DOMAIN as u64, FIRST + 0x1000];
const THROUGH: [u64; 3] = [4 << 6 | 1, DOMAIN as u64, 0];

fn entry(machine: &Machine, at: u64, words: [u64; 3]) {
    put(machine, at, 0);
    for (index, word) in words.into_iter().enumerate().rev() {
        put(machine, at + 8 * index as u64, word);
    }
}

/// A unit in scalable mode; requests of [`SOURCE`] without PASID and with [`PASID`] are translated as `words` say. In
/// the second stage 0x1000 maps to 0x7_7000 and the first stage's tables to themselves; in the first stage 0x1000
/// maps to 0x8_8000 or, in a nested translation, to 0x1000 of the second stage.
fn scalable(configuration: Configuration, words: [u64; 3]) -> Machine {
    let rid_pasid = if configuration.rid_pasid { u64::from(PASID) } else { 0 };
    let machine = Machine::with_unit(0x100_0000, configuration);
    for page in [ROOT, CONTEXTS, QUEUE, IRT, STATUS, DIRECTORY, PASIDS, RID_ENTRY] {
        clear(&machine, page);
    }
    put(&machine, ROOT, CONTEXTS | 1);
    let enable = machine.unit(0, |unit, _| u64::from(unit.configuration().pasid)) << 3;
    put(&machine, CONTEXT + 16, 0);
    put(&machine, CONTEXT + 24, 0);
    put(&machine, CONTEXT + 8, rid_pasid);
    put(&machine, CONTEXT, DIRECTORY | enable | 1);
    put(&machine, LIST, PASIDS | 1);
    put(&machine, RID_LIST, RID_ENTRY | 1);
    entry(&machine, ENTRY, words);
    entry(&machine, RID_ENTRY, words);

    make_tables(&machine, TABLES, 0x7_7000);
    for page in FIRST / 4096..FIRST / 4096 + 5 {
        put(&machine, TABLES + 3 * 4096 + 8 * page, page << 12 | 3);
        clear(&machine, page << 12);
    }
    for level in 0..4 {
        put(&machine, FIRST + level * 4096, (FIRST + (level + 1) * 4096) | 7);
    }
    let target = if words[0] >> 6 & 7 == 3 { 0x1000 } else { 0x8_8000 };
    put(&machine, FIRST + 4 * 4096 + 8, target | 7);

    machine.write64(0, RTADDR, ROOT | 1 << 10);
    machine.write32(0, GCMD, SRTP);
    machine.write64(0, IQA, QUEUE | 0x800);
    machine.write32(0, GCMD, QIE);
    submit(&machine, &[GLOBAL_CONTEXT, GLOBAL_PASIDS, GLOBAL_PAGES]);
    machine.write32(0, GCMD, QIE | TE);
    assert_eq!(machine.violations(0), []);
    machine
}

fn ask(machine: &Machine, pasid: Option<u32>, address: u64, access: Access) -> Result<u64, Reason> {
    let request = Request { pasid, ..Request::new(SOURCE, access) };
    let cold = only(machine.request_cold(0, &request, address, 4));
    let answer = only(machine.request(0, &request, address, 4));
    assert_eq!(cold, answer, "nothing stale was expected");
    answer
}

#[test]
fn each_translation_type_translates_with_and_without_pasid() {
    for (words, target) in
        [(SECOND, 0x7_7000), (FOUR, 0x8_8000), (FIVE, 0x8_8000), (NESTED, 0x7_7000), (THROUGH, 0x1000)]
    {
        for pasid in [None, Some(PASID)] {
            let machine = scalable(Configuration::scalable(), words);
            for access in [Access::Read, Access::Write] {
                assert_eq!(ask(&machine, pasid, 0x1234, access), Ok(target + 0x234), "{words:x?}");
            }
            // RID_PASID is the same PASID here: with or without, one cache serves.
            assert_eq!(ask(&machine, None, 0x1234, Access::Write), Ok(target + 0x234));
            assert_eq!(machine.violations(0), []);
        }
    }
}

#[test]
fn the_other_half_of_a_bus_has_its_own_table() {
    let machine = scalable(Configuration::scalable(), THROUGH);
    let ask = |source| only(machine.request(0, &Request::new(source, Access::Read), 0x1000, 4));
    assert_eq!(ask(0x98), Err(Reason::SCALABLE_ROOT_NOT_PRESENT));
    put(&machine, ROOT + 8, CONTEXTS | 1);
    assert_eq!(ask(0x98), Ok(0x1000), "0x98 is entry 0x18 of the upper table");
    put(&machine, ROOT, 0);
    assert_eq!(ask(0x19), Err(Reason::SCALABLE_ROOT_NOT_PRESENT));
}

#[test]
fn each_step_has_its_fault() {
    // Where, what, and the reason; with FPD of the context set, recorded (false) or not (true).
    let cases: [(u64, u64, Reason, bool); 25] = [
        (ROOT, 0, Reason::SCALABLE_ROOT_NOT_PRESENT, false),
        (ROOT, CONTEXTS | 3, Reason::SCALABLE_ROOT_RESERVED, false),
        (ROOT, 1 << 46 | 1, Reason::SCALABLE_ROOT_RESERVED, false),
        (ROOT, 1 << 40 | 1, Reason::SCALABLE_CONTEXT_ACCESS, false),
        (CONTEXT, DIRECTORY, Reason::SCALABLE_CONTEXT_NOT_PRESENT, true),
        (CONTEXT, DIRECTORY | 1 << 4 | 9, Reason::SCALABLE_CONTEXT_RESERVED, true),
        (CONTEXT, DIRECTORY | 1 << 8 | 9, Reason::SCALABLE_CONTEXT_RESERVED, true),
        (CONTEXT, DIRECTORY | 1 << 2 | 9, Reason::SCALABLE_CONTEXT_RESERVED, true),
        (CONTEXT + 8, 1 << 20, Reason::SCALABLE_CONTEXT_RESERVED, true),
        (CONTEXT + 16, 1, Reason::SCALABLE_CONTEXT_RESERVED, true),
        (CONTEXT + 24, 1 << 63, Reason::SCALABLE_CONTEXT_RESERVED, true),
        (CONTEXT + 8, 0x2000, Reason::RID_PASID_BEYOND_DIRECTORY, true),
        (CONTEXT, 1 << 40 | 9, Reason::PASID_DIRECTORY_ACCESS, false),
        (LIST, 0, Reason::PASID_DIRECTORY_NOT_PRESENT, true),
        (LIST, PASIDS | 5, Reason::PASID_DIRECTORY_RESERVED, true),
        (LIST, 1 << 40 | 1, Reason::PASID_TABLE_ACCESS, false),
        (ENTRY, SECOND[0] & !1, Reason::PASID_NOT_PRESENT, true),
        (ENTRY, SECOND[0] | 1 << 5, Reason::PASID_RESERVED, true),
        (ENTRY + 8, 1 << 16 | 5, Reason::PASID_RESERVED, true),
        (ENTRY + 16, 1 << 1, Reason::PASID_RESERVED, true),
        (ENTRY + 56, 1 << 63, Reason::PASID_RESERVED, true),
        (ENTRY, SECOND[0] & !0x1c | 3 << 2, Reason::PASID_INVALID, true),
        (ENTRY, SECOND[0] & !0x1c0, Reason::PASID_INVALID, true),
        (ENTRY, 7 << 6 | 1, Reason::PASID_INVALID, true),
        (ENTRY, 1 << 40 | SECOND[0] & 0xfff, Reason::SECOND_STAGE_ROOT_ACCESS, true),
    ];
    for (at, value, reason, silenced) in cases {
        for fpd in [0, 2] {
            let machine = scalable(Configuration::scalable(), SECOND);
            let context = machine.load(CONTEXT);
            put(&machine, CONTEXT, context | fpd);
            put(&machine, at, value | if at == CONTEXT { fpd } else { 0 });
            let fault = machine.request(0, &Request::new(SOURCE, Access::Read), 0x1000, 4).unwrap_err();
            assert_eq!((fault.reason, fault.silenced), (reason, silenced && fpd != 0), "{at:#x} {value:#x}");
            assert_eq!(machine.read64(0, 0x408) != 0, !fault.silenced);
        }
    }
}

#[test]
fn fault_processing_disable_adds_up_on_the_way() {
    for at in [CONTEXT, LIST, ENTRY] {
        let machine = scalable(Configuration::scalable(), SECOND);
        put(&machine, at, machine.load(at) | 2);
        let fault = machine.request(0, &Request::new(SOURCE, Access::Read), 0x5000, 4).unwrap_err();
        assert_eq!((fault.reason, fault.silenced), (Reason::SECOND_STAGE_ABSENT, true));
    }
}

#[test]
fn a_request_with_pasid_needs_to_be_allowed_and_in_range() {
    let machine = scalable(Configuration::scalable(), SECOND);
    let fault = machine.request(0, &Request::with_pasid(SOURCE, 0x2000, Access::Write), 0x1000, 4).unwrap_err();
    assert_eq!(fault.reason, Reason::PASID_BEYOND_DIRECTORY);
    // F, PASID 59:40, FR, PP, SID.
    assert_eq!(machine.read64(0, 0x408), 1 << 63 | 0x2000 << 40 | 0x46 << 32 | 1 << 31 | u64::from(SOURCE));
    assert_eq!(ask(&machine, Some(PASID + 1), 0x1000, Access::Read), Err(Reason::PASID_NOT_PRESENT));
    let narrow = scalable(Configuration { pasid_bits: 6, rid_pasid: false, ..Configuration::scalable() }, SECOND);
    assert_eq!(ask(&narrow, Some(PASID), 0x1000, Access::Read), Err(Reason::PASID_BEYOND_DIRECTORY));

    put(&machine, CONTEXT, DIRECTORY | 1);
    submit(&machine, &[GLOBAL_CONTEXT]);
    assert_eq!(ask(&machine, Some(PASID), 0x1000, Access::Read), Err(Reason::PASID_DISABLED));
    assert_eq!(ask(&machine, None, 0x1000, Access::Read), Ok(0x7_7000));
    let legacy = translating(Configuration::default());
    let request = Request::with_pasid(SOURCE, 1, Access::Read);
    assert_eq!(only(legacy.request(0, &request, 0x1000, 4)), Err(Reason::PASID_IN_LEGACY_MODE));
}

#[test]
fn what_a_unit_has_not_is_reserved_or_invalid() {
    let all = Configuration::scalable;
    let cases: [(Configuration, [u64; 3], Reason); 13] = [
        (Configuration { second_stage: false, ..all() }, SECOND, Reason::PASID_RESERVED),
        (Configuration { second_stage: false, ..all() }, [2 << 6 | 1, 5, 0], Reason::PASID_INVALID),
        (Configuration { first_stage: false, ..all() }, FOUR, Reason::PASID_RESERVED),
        (Configuration { first_stage: false, ..all() }, [1 << 6 | 1, 5, 0], Reason::PASID_INVALID),
        (Configuration { first_stage_five_levels: false, ..all() }, FIVE, Reason::PASID_INVALID),
        (Configuration { nested: false, ..all() }, NESTED, Reason::PASID_INVALID),
        (Configuration { pass_through: false, ..all() }, THROUGH, Reason::PASID_INVALID),
        (Configuration { page_walk_coherency: false, ..all() }, FOUR, Reason::PASID_RESERVED),
        (Configuration { snoop_control: false, ..all() }, [SECOND[0], 1 << 24 | 5, 0], Reason::PASID_RESERVED),
        (Configuration { supervisor_requests: false, ..all() }, [FOUR[0], 5, FOUR[2] | 1], Reason::PASID_RESERVED),
        (Configuration { extended_accessed: false, ..all() }, [FOUR[0], 5, FOUR[2] | 1 << 7], Reason::PASID_RESERVED),
        (
            Configuration { second_stage_accessed_dirty: false, ..all() },
            [SECOND[0] | 1 << 9, 5, 0],
            Reason::PASID_RESERVED,
        ),
        (Configuration { domains: 0, ..all() }, [SECOND[0], 16, 0], Reason::PASID_RESERVED),
    ];
    for (configuration, words, reason) in cases {
        let machine = scalable(configuration, words);
        assert_eq!(ask(&machine, None, 0x1000, Access::Read), Err(reason), "{words:x?}");
    }
    for configuration in [Configuration { pasid: false, ..all() }, Configuration { rid_pasid: false, ..all() }] {
        let machine = scalable(configuration, SECOND);
        assert_eq!(ask(&machine, None, 0x1000, Access::Read), Ok(0x7_7000));
        put(&machine, CONTEXT, DIRECTORY | 9);
        put(&machine, CONTEXT + 8, PASID.into());
        submit(&machine, &[GLOBAL_CONTEXT]);
        assert_eq!(ask(&machine, None, 0x1000, Access::Read), Err(Reason::SCALABLE_CONTEXT_RESERVED));
    }
    let machine = scalable(Configuration { scalable_mode: false, ..all() }, SECOND);
    assert_eq!(ask(&machine, None, 0x1000, Access::Read), Err(Reason::TABLE_MODE));
}

#[test]
fn the_second_stage_has_other_reasons_than_in_legacy_mode() {
    let machine = scalable(Configuration::scalable(), SECOND);
    let leaf = TABLES + 3 * 4096 + 8;
    for (at, value, read, write) in [
        (leaf, 0x7_7000 | 1, Ok(0x7_7000), Err(Reason::SCALABLE_WRITE)),
        (leaf, 0x7_7000 | 2, Err(Reason::SCALABLE_READ), Ok(0x7_7000)),
        (leaf, 0x7_7000, Err(Reason::SECOND_STAGE_ABSENT), Err(Reason::SECOND_STAGE_ABSENT)),
        (leaf, 1 << 46 | 3, Err(Reason::SECOND_STAGE_RESERVED), Err(Reason::SECOND_STAGE_RESERVED)),
        (leaf, 0xfee0_0003, Err(Reason::SCALABLE_INTERRUPT_RANGE), Err(Reason::SCALABLE_INTERRUPT_RANGE)),
        (TABLES, 1 << 40 | 3, Err(Reason::SECOND_STAGE_ACCESS), Err(Reason::SECOND_STAGE_ACCESS)),
    ] {
        put(&machine, at, value);
        for (access, expected) in [(Access::Read, read), (Access::Write, write)] {
            submit(&machine, &[GLOBAL_PAGES]);
            assert_eq!(ask(&machine, None, 0x1000, access), expected, "{value:#x}");
        }
    }
    assert_eq!(ask(&machine, None, 1 << 48, Access::Read), Err(Reason::SECOND_STAGE_BEYOND_WIDTH));
    let machine = scalable(Configuration::scalable(), THROUGH);
    assert_eq!(ask(&machine, None, 1 << 46, Access::Read), Err(Reason::BEYOND_HOST_WIDTH));
    // With a PASID the interrupt range is memory, and nothing may be translated into it.
    assert_eq!(ask(&machine, Some(PASID), 0xfee0_0000, Access::Write), Err(Reason::SCALABLE_INTERRUPT_RANGE));
}

#[test]
fn the_first_stage_checks_canonical_addresses_user_and_write() {
    for (words, top) in [(FOUR, 47), (FIVE, 56)] {
        let machine = scalable(Configuration::scalable(), words);
        for address in [1 << top, !0 << 57, !(!0 << top) + 1] {
            if address as i64 >> top != -1 {
                assert_eq!(ask(&machine, None, address, Access::Read), Err(Reason::NOT_CANONICAL), "{address:#x}");
            }
        }
        assert_eq!(ask(&machine, None, !0xfff, Access::Read), Err(Reason::FIRST_STAGE_ABSENT));
    }
    let leaf = FIRST + 4 * 4096 + 8;
    let below = FIRST + 3 * 4096;
    for (at, value, read, write) in [
        (leaf, 0x8_8000 | 5, Ok(0x8_8000), Err(Reason::SCALABLE_WRITE)),
        (leaf, 0x8_8000 | 3, Err(Reason::FIRST_STAGE_USER), Err(Reason::FIRST_STAGE_USER)),
        (leaf, 0x8_8000 | 6, Err(Reason::FIRST_STAGE_ABSENT), Err(Reason::FIRST_STAGE_ABSENT)),
        (leaf, 1 << 46 | 7, Err(Reason::FIRST_STAGE_RESERVED), Err(Reason::FIRST_STAGE_RESERVED)),
        (leaf, 0xfee0_0007, Err(Reason::SCALABLE_INTERRUPT_RANGE), Err(Reason::SCALABLE_INTERRUPT_RANGE)),
        (below, (FIRST + 0x4000) | 5, Ok(0x8_8000), Err(Reason::SCALABLE_WRITE)),
        (below, 0x4000_0000 | 0x87, Ok(0x4000_1000), Ok(0x4000_1000)),
        (below, 0x4000_2000 | 0x87, Err(Reason::FIRST_STAGE_RESERVED), Err(Reason::FIRST_STAGE_RESERVED)),
        (below, 0x4000_1000 | 0x87, Ok(0x4000_1000), Ok(0x4000_1000)),
        (below, 1 << 40 | 7, Err(Reason::FIRST_STAGE_ACCESS), Err(Reason::FIRST_STAGE_ACCESS)),
        (FIRST + 0x2000, 0x4000_0000 | 0x87, Ok(0x4000_1000), Ok(0x4000_1000)),
        (FIRST + 0x1000, 0x4000_0000 | 0x87, Err(Reason::FIRST_STAGE_RESERVED), Err(Reason::FIRST_STAGE_RESERVED)),
    ] {
        let machine = scalable(Configuration::scalable(), FOUR);
        put(&machine, at, value);
        for (access, expected) in [(Access::Read, read), (Access::Write, write)] {
            assert_eq!(ask(&machine, None, 0x1000, access), expected, "{at:#x} {value:#x}");
        }
    }
    let small = scalable(Configuration { first_stage_1g: false, ..Configuration::scalable() }, FOUR);
    put(&small, FIRST + 0x2000, 0x4000_0000 | 0x87);
    assert_eq!(ask(&small, None, 0x1000, Access::Read), Err(Reason::FIRST_STAGE_RESERVED));
    let machine = scalable(Configuration::scalable(), [FOUR[0], FOUR[1], 1 << 40]);
    assert_eq!(ask(&machine, None, 0x1000, Access::Read), Err(Reason::FIRST_STAGE_ROOT_ACCESS));
}

#[test]
fn supervisor_requests_need_permission_and_may_then_use_their_pages() {
    let ask = |words: [u64; 3], leaf: u64, access| {
        let machine = scalable(Configuration::scalable(), words);
        put(&machine, FIRST + 4 * 4096 + 8, leaf);
        let request = Request { supervisor: true, ..Request::with_pasid(SOURCE, PASID, access) };
        only(machine.request(0, &request, 0x1000, 4))
    };
    let allowed = [FOUR[0], FOUR[1], FOUR[2] | 1];
    let protected = [FOUR[0], FOUR[1], FOUR[2] | 1 << 4 | 1];
    assert_eq!(ask(FOUR, 0x8_8007, Access::Read), Err(Reason::SUPERVISOR));
    assert_eq!(ask(allowed, 0x8_8003, Access::Write), Ok(0x8_8000));
    assert_eq!(ask(allowed, 0x8_8001, Access::Write), Ok(0x8_8000));
    assert_eq!(ask(protected, 0x8_8001, Access::Write), Err(Reason::SCALABLE_WRITE));
}

#[test]
fn accessed_and_dirty_bits_are_set_and_need_snooping_walks() {
    let leaf = FIRST + 4 * 4096 + 8;
    let machine = scalable(Configuration::scalable(), FOUR);
    let cold = only(machine.request_cold(0, &Request::new(SOURCE, Access::Write), 0x1000, 4));
    assert_eq!((cold, machine.load(leaf)), (Ok(0x8_8000), 0x8_8007), "a question leaves no trace");
    assert_eq!(ask(&machine, None, 0x1000, Access::Read), Ok(0x8_8000));
    assert_eq!((machine.load(leaf), machine.load(leaf - 0x1008)), (0x8_8027, FIRST + 0x4027));
    assert_eq!(ask(&machine, None, 0x1000, Access::Write), Ok(0x8_8000));
    assert_eq!(machine.load(leaf), 0x8_8067);
    let extended = scalable(Configuration::scalable(), [FOUR[0], FOUR[1], FOUR[2] | 1 << 7]);
    assert_eq!(ask(&extended, None, 0x1000, Access::Read), Ok(0x8_8000));
    assert_eq!(extended.load(leaf), 0x8_8427);

    // Without PWSNP the bits must be there already.
    let blind = scalable(Configuration::scalable(), [FOUR[0], 5, FOUR[2]]);
    assert_eq!(ask(&blind, None, 0x1000, Access::Read), Err(Reason::FIRST_STAGE_UPDATE));
    for level in 1..4 {
        put(&blind, FIRST + level * 4096, (FIRST + (level + 1) * 4096) | 0x27);
    }
    put(&blind, leaf, 0x8_8027);
    assert_eq!(ask(&blind, None, 0x1000, Access::Read), Ok(0x8_8000));
    assert_eq!(ask(&blind, None, 0x1000, Access::Write), Err(Reason::FIRST_STAGE_UPDATE));

    let second = TABLES + 3 * 4096 + 8;
    let machine = scalable(Configuration::scalable(), [SECOND[0] | 1 << 9, 1 << 23 | 5, 0]);
    assert_eq!(ask(&machine, None, 0x1000, Access::Read), Ok(0x7_7000));
    assert_eq!((machine.load(second), machine.load(TABLES)), (0x7_7103, TABLES + 0x1103));
    assert_eq!(ask(&machine, None, 0x1000, Access::Write), Ok(0x7_7000));
    assert_eq!(machine.load(second), 0x7_7303);
    let blind = scalable(Configuration::scalable(), [SECOND[0] | 1 << 9, 5, 0]);
    assert_eq!(ask(&blind, None, 0x1000, Access::Read), Err(Reason::SECOND_STAGE_UPDATE));
}

#[test]
fn a_nested_walk_reads_its_tables_through_the_second_stage() {
    let leaf = |page: u64| TABLES + 3 * 4096 + 8 * (page >> 12);
    let cases = [
        // Table, what the second stage says of it, answer to a write.
        (FIRST + 0x1000, 0, Err(Reason::FIRST_STAGE_ROOT_READ)),
        (FIRST + 0x2000, 0, Err(Reason::FIRST_STAGE_READ)),
        (FIRST + 0x3000, (FIRST + 0x3000) | 2, Err(Reason::FIRST_STAGE_READ)),
        (FIRST + 0x4000, (FIRST + 0x4000) | 1, Err(Reason::FIRST_STAGE_WRITE)),
        (FIRST + 0x4000, 1 << 46 | 3, Err(Reason::SECOND_STAGE_RESERVED)),
        (FIRST + 0x4000, 1 << 40 | 3, Err(Reason::FIRST_STAGE_ACCESS)),
        (0x1000, 0x7_7000 | 1, Err(Reason::SCALABLE_WRITE)),
        (0x1000, 0, Err(Reason::SECOND_STAGE_ABSENT)),
        (0x1000, 0x6_6000 | 3, Ok(0x6_6000)),
    ];
    for (page, value, expected) in cases {
        let machine = scalable(Configuration::scalable(), NESTED);
        put(&machine, leaf(page), value);
        assert_eq!(ask(&machine, None, 0x1000, Access::Write), expected, "{page:#x} {value:#x}");
    }
    let machine = scalable(Configuration::scalable(), NESTED);
    put(&machine, FIRST + 0x1000, 1 << 48 | 7);
    assert_eq!(ask(&machine, None, 0x1000, Access::Write), Err(Reason::FIRST_STAGE_BEYOND_WIDTH));
    let machine = scalable(Configuration::scalable(), NESTED);
    put(&machine, FIRST + 0x4008, 1 << 48 | 7);
    assert_eq!(ask(&machine, None, 0x1000, Access::Write), Err(Reason::SECOND_STAGE_BEYOND_WIDTH));
}

#[test]
fn a_large_page_of_one_stage_is_remembered_no_larger_than_that_of_the_other() {
    let machine = scalable(Configuration::scalable(), NESTED);
    // A 2 MiB leaf in the first stage, 4 KiB leaves in the second.
    put(&machine, FIRST + 0x3000, 0x87);
    put(&machine, TABLES + 3 * 4096 + 16, 0x5_5000 | 3);
    assert_eq!(ask(&machine, None, 0x1000, Access::Write), Ok(0x7_7000));
    assert_eq!(ask(&machine, None, 0x2000, Access::Write), Ok(0x5_5000));
    assert_eq!(ask(&machine, None, 0x4000, Access::Write), Err(Reason::SECOND_STAGE_ABSENT));
}

#[test]
fn what_was_remembered_goes_by_the_invalidations_that_reach_it_and_no_others() {
    let tags = |pasid: u32, domain: u16| u64::from(pasid) << 32 | u64::from(domain) << 16;
    let stale = |words, change: &dyn Fn(&Machine), useless: &[(u64, u64)], right: &[(u64, u64)], new| {
        let machine = scalable(Configuration::scalable(), words);
        let request = Request::with_pasid(SOURCE, PASID, Access::Read);
        let old = only(machine.request(0, &request, 0x1000, 4)).unwrap();
        change(&machine);
        for &useless in useless {
            submit(&machine, &[useless]);
            assert_eq!(only(machine.request(0, &request, 0x1000, 4)), Ok(old), "{useless:x?}");
        }
        submit(&machine, right);
        assert_eq!(only(machine.request(0, &request, 0x1000, 4)), new, "{right:x?}");
        assert_eq!(machine.read32(0, FSTS) & IQE, 0);
    };
    let (pasid_cache, all_pages) = ((tags(PASID, DOMAIN) | 0x17, 0), (tags(PASID, DOMAIN) | 0x26, 0));
    let page = |address| (tags(PASID, DOMAIN) | 0x36, address);
    let domain_pages = (u64::from(DOMAIN) << 16 | 0x22, 0);

    // The context entry: only by the context cache, whatever the domain id of the descriptor.
    let context = |machine: &Machine| put(machine, CONTEXT, 0);
    let device = (u64::from(SOURCE) << 32 | 0x31, 0);
    let useless = [GLOBAL_PASIDS, GLOBAL_PAGES, (device.0 + (1 << 32), 0)];
    stale(SECOND, &context, &useless, &[device], Err(Reason::SCALABLE_CONTEXT_NOT_PRESENT));
    // The PASID table entry: by its own domain and PASID.
    let gone = |machine: &Machine| put(machine, ENTRY, 0);
    let wrong = [(tags(PASID, 6) | 0x17, 0), (tags(PASID + 1, DOMAIN) | 0x17, 0), (tags(0, 6) | 0x07, 0), all_pages];
    stale(SECOND, &gone, &wrong, &[pasid_cache], Err(Reason::PASID_NOT_PRESENT));
    stale(SECOND, &gone, &wrong, &[(tags(0, DOMAIN) | 0x07, 0)], Err(Reason::PASID_NOT_PRESENT));
    stale(SECOND, &gone, &[device, GLOBAL_CONTEXT, GLOBAL_PAGES], &[GLOBAL_PASIDS], Err(Reason::PASID_NOT_PRESENT));
    // First stage: pages under domain and PASID; the PASID cache alone does not reach them.
    let moved = |machine: &Machine| put(machine, FIRST + 0x4008, 0x9_9007);
    let wrong = [pasid_cache, page(0x2000), (tags(PASID, 6) | 0x26, 0), (tags(PASID + 1, DOMAIN) | 0x26, 0)];
    for right in [all_pages, page(0x1000), page(0x1040), page(1), domain_pages, GLOBAL_PAGES] {
        stale(FOUR, &moved, &wrong, &[right], Ok(0x9_9000));
    }
    // A pointer to a table stays with the hint.
    let table = |machine: &Machine| {
        clear(machine, 0x4_0000);
        put(machine, 0x4_0008, 0x9_9007);
        put(machine, FIRST + 0x3000, 0x4_0007);
    };
    stale(FOUR, &table, &[page(0x1040)], &[page(0x1000)], Ok(0x9_9000));
    // Second stage: not by the PASID-based invalidation; of a nested translation all goes with any page.
    let below = |machine: &Machine| put(machine, TABLES + 0x3008, 0x9_9003);
    let domain_page = |address| (u64::from(DOMAIN) << 16 | 0x32, address);
    stale(SECOND, &below, &[all_pages, domain_page(0x2000)], &[domain_page(0x1000)], Ok(0x9_9000));
    let both = [all_pages, page(0x1000), (u64::from(DOMAIN + 1) << 16 | 0x32, 0x1000)];
    stale(NESTED, &below, &both, &[domain_page(0x1000)], Ok(0x9_9000));
}

#[test]
fn other_types_and_granularities_of_descriptors_are_errors() {
    for bad in [(0x27, 0), (0x06, 0), (0x16, 0), (0x36, 1 << 7), (0x37, 1), (0x37 | 1 << 6, 0), (0x37 | 1 << 52, 0)] {
        let machine = scalable(Configuration::scalable(), SECOND);
        submit(&machine, &[bad]);
        assert_eq!(machine.read32(0, FSTS), IQE, "{bad:x?}");
    }
    for scalables in [(0x37, 0), (0x26, 0)] {
        let machine = translating(Configuration::scalable());
        submit(&machine, &[scalables]);
        assert_eq!(machine.read32(0, FSTS), IQE, "legacy mode has no such type");
    }
}

#[test]
fn descriptors_are_as_wide_as_the_mode_asks() {
    let machine = scalable(Configuration::scalable(), SECOND);
    let head = machine.read64(0, IQH);
    submit(&machine, &[GLOBAL_PASIDS, GLOBAL_PAGES]);
    assert_eq!((machine.read64(0, IQH), machine.read32(0, FSTS)), (head + 64, 0));
    put(&machine, QUEUE + head + 64 + 16, 1);
    submit(&machine, &[GLOBAL_PASIDS]);
    assert_eq!((machine.read32(0, FSTS), machine.read64(0, IQERCD) & 0xf), (IQE, QueueError::Reserved as u64));
    let error = |tail: u64, queue: u64, mode: u64| {
        let machine = Machine::with_unit(0x100_0000, Configuration::scalable());
        machine.write64(0, RTADDR, ROOT | mode);
        machine.write32(0, GCMD, SRTP);
        machine.write64(0, IQA, QUEUE | queue);
        machine.write32(0, GCMD, QIE);
        machine.write64(0, IQT, tail);
        machine.read64(0, IQERCD) & 0xf
    };
    assert_eq!(error(16, 0, 1 << 10), QueueError::Width as u64);
    assert_eq!(error(16, 0x800, 1 << 10), QueueError::Alignment as u64);
    assert_eq!(error(4096, 0x800, 1 << 10), QueueError::Tail as u64);
}

#[test]
fn what_is_not_present_is_remembered_in_caching_mode_only() {
    for (caching_mode, keeps, domain) in [(false, false, 0), (true, false, 0), (true, true, 5)] {
        let configuration = Configuration { caching_mode, absent_keeps_domain: keeps, ..Configuration::scalable() };
        let machine = scalable(configuration, SECOND);
        let request = Request::with_pasid(SOURCE, PASID, Access::Read);
        let ask = || only(machine.request(0, &request, 0x1000, 4));
        put(&machine, ENTRY, SECOND[0] & !1);
        assert_eq!(ask(), Err(Reason::PASID_NOT_PRESENT));
        put(&machine, ENTRY, SECOND[0]);
        assert_eq!(ask().is_ok(), !caching_mode);
        submit(&machine, &[(u64::from(PASID) << 32 | (5 - domain) << 16 | 0x17, 0)]);
        assert_eq!(ask().is_ok(), !caching_mode);
        submit(&machine, &[(u64::from(PASID) << 32 | domain << 16 | 0x17, 0)]);
        assert_eq!(ask(), Ok(0x7_7000));
    }
}

#[test]
fn software_that_breaks_a_rule_is_noticed() {
    let machine = scalable(Configuration::scalable(), SECOND);
    assert!(ask(&machine, None, 0x1000, Access::Read).is_ok());
    entry(&machine, ENTRY + 64, [SECOND[0] + 0x1000, SECOND[1], 0]);
    let other = Request::with_pasid(SOURCE, PASID + 1, Access::Read);
    let _ = machine.request(0, &other, 0x1000, 4);
    assert_eq!(machine.violations(0), [Violation::DomainWithTwoTables(DOMAIN)]);
    machine.write64(0, RTADDR, ROOT);
    machine.write32(0, GCMD, QIE | TE | SRTP);
    assert_eq!(machine.violations(0)[1..], [Violation::TableModeChanged]);

    let owing = Configuration { srtp_invalidates: false, ..Configuration::scalable() };
    for order in [[GLOBAL_CONTEXT, GLOBAL_PAGES, GLOBAL_PASIDS], [GLOBAL_PASIDS, GLOBAL_CONTEXT, GLOBAL_PAGES]] {
        let machine = scalable(owing.clone(), SECOND);
        machine.write32(0, GCMD, QIE);
        machine.write32(0, GCMD, QIE | SRTP);
        submit(&machine, &order);
        machine.write32(0, GCMD, QIE | TE);
        assert_eq!(machine.violations(0), [Violation::InvalidationDue(RTADDR)]);
    }
    let zero = scalable(Configuration { caching_mode: true, ..Configuration::scalable() }, [SECOND[0], 0, 0]);
    assert!(ask(&zero, None, 0x1000, Access::Read).is_ok());
    assert_eq!(zero.violations(0), [Violation::DomainZero(SOURCE)]);
}
