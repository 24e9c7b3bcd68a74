//! What is refused.

use super::*;

#[test]
fn a_pasid_is_one_that_the_unit_has_and_not_that_of_requests_without() {
    let fake = Fake::with(CAP, SCALABLE & !(0x1f << 35) | 7 << 35);
    let (mut unit, mut memory) = up_with(&fake, 3);
    for number in [3, 256, 0xf_ffff] {
        let number = Pasid::new(number).unwrap();
        let result = unit.attach(&mut memory, SOURCE, Some(number), DomainId(7), second(TABLE));
        assert_eq!(result, Err(Error::PasidOutOfRange(number)));
        assert_eq!(unit.detach(&mut memory, SOURCE, Some(number)), Err(Error::PasidOutOfRange(number)));
        assert_eq!(unit.attachment(&memory, SOURCE, Some(number)), None);
    }
    for number in [0, 255] {
        unit.attach(&mut memory, SOURCE, pasid(number), DomainId(7), second(TABLE)).unwrap();
    }
    let fake = Fake::with(CAP, SCALABLE & !(1 << 40));
    let (mut unit, mut memory) = up(&fake);
    let result = unit.attach(&mut memory, SOURCE, pasid(1), DomainId(7), second(TABLE));
    assert!(matches!(result, Err(Error::Unsupported { .. })));
    attach(&mut unit, &mut memory, 7, second(TABLE)).unwrap();
    assert_eq!(words::<1>(&fake, context(&fake))[0] & 8, 0, "PASIDE is reserved");
}

#[test]
fn bad_tables_are_refused_and_change_nothing() {
    let fake = Fake::with(CAP & !7, SCALABLE);
    let (mut unit, mut memory) = up(&fake);
    for domain in [0, 16, 0xffff] {
        let result = attach(&mut unit, &mut memory, domain, Translation::PassThrough);
        assert_eq!(result, Err(Error::DomainOutOfRange(DomainId(domain))));
    }
    for table in [0, 0x1800, 1 << 52].map(HostPhys::new) {
        for translation in [second(table), first(table), nested(0x1000, table)] {
            assert_eq!(attach(&mut unit, &mut memory, 7, translation), Err(Error::BadTable(table)));
        }
    }
    for table in [0x1800, 1 << 48] {
        let result = attach(&mut unit, &mut memory, 7, nested(table, TABLE));
        assert_eq!(result, Err(Error::BadFirstStageTable(GuestPhys::new(table))));
    }
    for (translation, levels) in [
        (Translation::SecondStage { table: TABLE, levels: Levels::Five }, 5),
        (Translation::FirstStage { table: TABLE, levels: Levels::Five }, 5),
        (Translation::FirstStage { table: TABLE, levels: Levels::Three }, 3),
    ] {
        assert_eq!(attach(&mut unit, &mut memory, 7, translation), Err(Error::LevelsUnsupported(levels)));
    }
    for (levels, count) in [(Levels::Three, 3), (Levels::Five, 5)] {
        let (first, second_levels) = (GuestPhys::new(0x1000), Levels::Four);
        let wrong_first = Translation::Nested { first, first_levels: levels, second: TABLE, second_levels };
        assert_eq!(attach(&mut unit, &mut memory, 7, wrong_first), Err(Error::LevelsUnsupported(count)));
    }
    let second_levels = Levels::Five;
    let wrong_second =
        Translation::Nested { first: GuestPhys::new(0), first_levels: Levels::Four, second: TABLE, second_levels };
    assert_eq!(attach(&mut unit, &mut memory, 7, wrong_second), Err(Error::LevelsUnsupported(5)));
    assert_eq!(fake.take_log(), []);
    let fake = Fake::with(CAP, SCALABLE & !(1 << 6));
    let (mut unit, mut memory) = up(&fake);
    let result = attach(&mut unit, &mut memory, 7, Translation::PassThrough);
    assert!(matches!(result, Err(Error::Unsupported { .. })));
    for (missing, translation) in [
        (26, nested(0, TABLE)),
        (46, nested(0, TABLE)),
        (47, nested(0, TABLE)),
        (46, second(TABLE)),
        (47, first(TABLE)),
    ] {
        let (mut unit, mut memory) = up(&Fake::with(CAP, SCALABLE & !(1 << missing)));
        let result = attach(&mut unit, &mut memory, 7, translation);
        assert!(matches!(result, Err(Error::Unsupported { .. })), "{missing}");
    }
}
