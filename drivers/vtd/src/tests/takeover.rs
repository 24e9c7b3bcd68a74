use super::fake::{CAP, CONFIGURATION, ECAP, Event, Fake};
use super::std::vec::Vec;
use crate::spec::registers::Global;
use crate::{Configuration, DestinationMode, Error, Handover, Pasid, Platform, ProtectedMemory};
use addr::HostPhys;

/// CAP with PLMR and PHMR.
const PROTECTED: u64 = CAP | 3 << 5;
const ALL_ON: u32 = 1 << 31 | 1 << 30 | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 23;
const OPT_IN: Platform = Platform { dma_control_opt_in: true, x2apic_opt_out: false };

fn commands(log: &[Event]) -> Vec<u32> {
    log.iter().filter_map(|event| if let Event::Write32(0x18, value) = event { Some(*value) } else { None }).collect()
}

/// A unit that firmware has left so, with interrupt remapping in extended mode.
fn found(cap: u64, gsts: u32) -> Fake {
    let fake = Fake::with(cap, ECAP);
    fake.inner(|inner| {
        inner.gsts = gsts;
        inner.others.insert(0xb8, 0x77_0807);
        inner.others.insert(0x20, 0x66_0000);
    });
    fake
}

#[test]
fn what_is_taken_over_is_never_turned_off() {
    let fake = found(CAP, ALL_ON);
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    unit.bring_up(&mut memory, &Configuration { handover: Handover::TakeOver, ..CONFIGURATION }).unwrap();
    let commands = commands(&fake.take_log());
    let always = 1 << 31 | 1 << 25;
    assert!(commands.iter().all(|value| value & always == always), "{commands:x?}");
    let persistent = always | 1 << 26;
    let expected = [
        // Compatibility format off, the old queue off, the new one on; root table, interrupt table.
        persistent,
        always,
        persistent,
        persistent | 1 << 30,
        persistent | 1 << 24,
        persistent,
        persistent,
    ];
    assert_eq!(commands, expected);
    assert!(unit.translation_enabled() && unit.interrupt_remapping_enabled());
    assert_eq!(unit.read_status() & Global::COMPATIBILITY_FORMAT, Global::empty());
}

#[test]
fn what_was_cached_under_the_old_tables_is_forgotten_after_the_new_ones_are_set() {
    let fake = found(CAP, ALL_ON);
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    unit.bring_up(&mut memory, &Configuration { handover: Handover::TakeOver, ..CONFIGURATION }).unwrap();
    let log = fake.take_log();
    let set = |bit: u32| log.iter().position(|event| matches!(event, Event::Write32(0x18, v) if v & 1 << bit != 0));
    let executed = |low| log.iter().position(|event| *event == Event::Executed(low, 0));
    assert!(set(30) < executed(0x11) && executed(0x11) < executed(0xd2) && executed(0xd2) < set(24));
    assert!(set(24) < executed(0x04) && executed(0x04).is_some());
}

#[test]
fn another_mode_is_refused_while_the_old_one_is_in_force() {
    for (register, value) in [(0x20, 0x66_0400), (0xb8, 0x77_0007)] {
        let fake = found(CAP, ALL_ON);
        fake.inner(|inner| inner.others.insert(register, value));
        let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
        assert_eq!(unit.suggest_handover(false, DestinationMode::X2Apic), Handover::Stop);
        let taken = unit.bring_up(&mut memory, &Configuration { handover: Handover::TakeOver, ..CONFIGURATION });
        assert_eq!(taken, Err(Error::OtherTableMode { in_force: value }));
        assert_eq!(fake.inner(|inner| inner.others[&register]), value, "the register is as it was");
        // Off, it does not matter.
        let fake = found(CAP, 0);
        fake.inner(|inner| inner.others.insert(register, value));
        let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
        assert_eq!(unit.suggest_handover(false, DestinationMode::X2Apic), Handover::TakeOver);
        unit.bring_up(&mut memory, &Configuration { handover: Handover::TakeOver, ..CONFIGURATION }).unwrap();
        // And once the driver's own is in force, neither.
        assert!(unit.translation_enabled());
    }
}

#[test]
fn tables_of_scalable_mode_take_the_place_of_others_of_that_mode() {
    // SMTS and PASID, as far as the mode needs them.
    let fake = Fake::with(CAP, ECAP | 1 << 40 | 19 << 35 | 1 << 43 | 1 << 46);
    fake.inner(|inner| {
        inner.gsts = ALL_ON;
        inner.others.insert(0xb8, 0x77_0807);
        inner.others.insert(0x20, 0x66_0400);
    });
    let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
    unit.use_scalable_mode(Pasid::ZERO).unwrap();
    unit.bring_up(&mut memory, &Configuration { handover: Handover::TakeOver, ..CONFIGURATION }).unwrap();
    let root = fake.inner(|inner| inner.others[&0x20]);
    assert_eq!(root & 0xfff, 0x400);
    assert_ne!(root, 0x66_0400);
}

#[test]
fn a_handover_is_suggested_by_what_is_in_force() {
    let of = |cap, gsts, rtaddr, irta, scalable, mode| {
        let fake = found(cap, gsts);
        fake.inner(|inner| {
            inner.others.insert(0x20, rtaddr);
            inner.others.insert(0xb8, irta);
        });
        fake.probe().unwrap().suggest_handover(scalable, mode)
    };
    let (on, x2, x) = (ALL_ON, DestinationMode::X2Apic, DestinationMode::XApic);
    assert_eq!(of(CAP, on, 0x1000, 0x2800, false, x2), Handover::TakeOver);
    assert_eq!(of(CAP, on, 0x1400, 0x2800, true, x2), Handover::TakeOver);
    assert_eq!(of(CAP, on, 0x1400, 0x2800, false, x2), Handover::Stop);
    assert_eq!(of(PROTECTED, on, 0x1400, 0x2800, false, x2), Handover::StopProtected);
    assert_eq!(of(CAP | 1 << 5, on, 0x1400, 0x2800, false, x2), Handover::Stop, "one region is not all memory");
    assert_eq!(of(CAP | 1 << 6, on, 0x1400, 0x2800, false, x2), Handover::Stop);
    assert_eq!(of(PROTECTED, on, 0x1000, 0x2800, true, x2), Handover::StopProtected);
    assert_eq!(of(CAP, on, 0x1000, 0x2800, false, x), Handover::Stop);
    assert_eq!(of(CAP, on, 0x1000, 0x2000, false, x), Handover::TakeOver);
    assert_eq!(of(CAP, 1 << 31, 0x1000, 0x2800, false, x), Handover::TakeOver, "interrupts are not remapped");
    assert_eq!(of(CAP, 1 << 25, 0x1400, 0x2800, false, x2), Handover::TakeOver, "nothing translates");
}

#[test]
fn a_unit_is_stopped_behind_regions_that_cover_all_memory() {
    for left_on in [false, true] {
        let fake = found(PROTECTED, ALL_ON);
        fake.inner(|inner| {
            inner.pmen = if left_on { 1 << 31 | 1 } else { 0 };
            inner.others.extend([(0x68, 0x20_0000), (0x6c, 0x20_0000), (0x70, 1 << 33), (0x78, 1 << 33)]);
        });
        let mut unit = fake.probe().unwrap();
        unit.take_over(Handover::StopProtected, Platform::default()).unwrap();
        let regions = unit.read_protected_memory();
        assert_eq!(
            regions,
            ProtectedMemory {
                enabled: true,
                low: Some((HostPhys::new(0), HostPhys::new(0xffff_ffff))),
                high: Some((HostPhys::new(1 << 32), HostPhys::new(0x7f_ffff_ffff))),
            }
        );
        let log = fake.take_log();
        let closed = log.iter().rposition(|event| matches!(event, Event::Write32(0x64, v) if v >> 31 == 1)).unwrap();
        let stopped = log.iter().position(|event| matches!(event, Event::Write32(0x18, v) if v >> 31 == 0)).unwrap();
        assert!(closed < stopped);
        assert_eq!(fake.inner(|inner| inner.gsts) & (1 << 31 | 1 << 25 | 1 << 26), 0);
        let mut memory = fake.clone();
        unit.mask_and_clear_faults().unwrap();
        unit.enable_queue(&mut memory).unwrap();
        unit.set_root_table(&mut memory).unwrap();
        unit.enable_translation().unwrap();
        assert!(unit.read_protected_memory().enabled);
        unit.disable_protected_memory().unwrap();
        assert!(!unit.read_protected_memory().enabled);
    }
}

#[test]
fn regions_that_are_not_there_protect_nothing() {
    for cap in [CAP, CAP | 1 << 5, CAP | 1 << 6] {
        let fake = found(cap, ALL_ON);
        let mut unit = fake.probe().unwrap();
        let refused = unit.take_over(Handover::StopProtected, Platform::default());
        assert!(matches!(refused, Err(Error::Unsupported { .. })));
        assert!(fake.take_log().is_empty(), "nothing has changed");
        let regions = unit.read_protected_memory();
        assert_eq!((regions.low.is_some(), regions.high.is_some()), (cap & 1 << 5 != 0, cap & 1 << 6 != 0));
        assert!(!regions.enabled);
    }
    // A register that is not there is not written; nor is one that says already what it is to say.
    for (cap, pmen) in [(CAP, 1 << 31 | 1), (PROTECTED, 0)] {
        let fake = found(cap, 0);
        fake.inner(|inner| inner.pmen = pmen);
        let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
        unit.bring_up(&mut memory, &CONFIGURATION).unwrap();
        assert!(!fake.take_log().iter().any(|event| matches!(event, Event::Write32(0x64, _))), "{cap:#x}");
    }
    // The low bits of a limit count as 1, and in some units read so.
    let fake = found(PROTECTED, 0);
    fake.inner(|inner| inner.others.extend([(0x68, 0x40_0000), (0x6c, 0x7f_ffff), (0x70, 1 << 33), (0x78, 1 << 34)]));
    let regions = fake.probe().unwrap().read_protected_memory();
    assert_eq!(regions.low, Some((HostPhys::new(0x40_0000), HostPhys::new(0x7f_ffff))));
    assert_eq!(regions.high, Some((HostPhys::new(1 << 33), HostPhys::new((1 << 34) + 0x1f_ffff))));
    let fake = found(CAP, 0);
    fake.inner(|inner| inner.pmen = 1);
    assert!(!fake.probe().unwrap().read_protected_memory().enabled, "a bit of a register that is not there");
}

#[test]
fn a_platform_that_opts_in_has_no_moment_without_protection() {
    let fake = found(PROTECTED, ALL_ON);
    let mut unit = fake.probe().unwrap();
    assert_eq!(unit.take_over(Handover::Stop, OPT_IN), Err(Error::WindowRefused));
    assert!(fake.take_log().is_empty(), "nothing has changed");
    unit.take_over(Handover::TakeOver, OPT_IN).unwrap();
    assert!(unit.read_status().contains(Global::TRANSLATION));
    fake.probe().unwrap().take_over(Handover::StopProtected, OPT_IN).unwrap();
    // Nothing translates: the regions are closed where there are some, and those that are closed are not opened.
    let fake = found(PROTECTED, 0);
    let mut unit = fake.probe().unwrap();
    unit.take_over(Handover::Stop, OPT_IN).unwrap();
    assert!(unit.read_protected_memory().enabled);
    let fake = found(PROTECTED, 0);
    fake.inner(|inner| inner.pmen = 1 << 31 | 1);
    let mut unit = fake.probe().unwrap();
    unit.take_over(Handover::Stop, OPT_IN).unwrap();
    assert!(!fake.take_log().iter().any(|event| matches!(event, Event::Write32(0x64, _))));
    let fake = found(CAP, 0);
    fake.probe().unwrap().take_over(Handover::Stop, OPT_IN).unwrap();
    // Without the demand, nothing is closed.
    let fake = found(PROTECTED, 0);
    fake.probe().unwrap().take_over(Handover::Stop, Platform::default()).unwrap();
    assert_eq!(fake.inner(|inner| inner.pmen), 0);
}

#[test]
fn a_platform_that_opts_out_of_x2apic_gets_no_table_for_it() {
    let platform = Platform { x2apic_opt_out: true, ..Platform::default() };
    let fake = Fake::new();
    let mut memory = fake.clone();
    let result = fake.probe().unwrap().bring_up(&mut memory, &Configuration { platform, ..CONFIGURATION });
    assert_eq!(result, Err(Error::X2ApicOptOut));
    let fake = Fake::new();
    let mut memory = fake.clone();
    let xapic = Configuration { platform, destination_mode: DestinationMode::XApic, ..CONFIGURATION };
    fake.probe().unwrap().bring_up(&mut memory, &xapic).unwrap();
}

#[test]
fn a_queue_that_waits_for_a_silent_device_is_idle_too() {
    for bit in [4, 6] {
        let fake = found(CAP, 1 << 26);
        fake.inner(|inner| {
            inner.iqt = 0x20;
            inner.stalled = true;
            inner.fsts = 1 << bit;
        });
        fake.probe().unwrap().take_over(Handover::TakeOver, Platform::default()).unwrap();
    }
}

#[test]
fn faults_interrupt_nobody_from_the_first_step_on() {
    for handover in [Handover::TakeOver, Handover::StopProtected, Handover::Stop] {
        let fake = found(PROTECTED, ALL_ON);
        fake.inner(|inner| inner.fectl = 0x55);
        fake.probe().unwrap().take_over(handover, Platform::default()).unwrap();
        assert_eq!(fake.take_log()[0], Event::Write32(0x38, 1 << 31 | 0x55), "{handover:?}");
    }
}

#[test]
fn what_was_taken_over_and_then_stopped_is_not_in_force_any_more() {
    for (register, value) in [(0x20, 0x66_0400), (0xb8, 0x77_0007)] {
        let fake = found(CAP, ALL_ON);
        fake.inner(|inner| inner.others.insert(register, value));
        let (mut unit, mut memory) = (fake.probe().unwrap(), fake.clone());
        unit.take_over(Handover::TakeOver, Platform::default()).unwrap();
        assert!(unit.read_status().contains(Global::TRANSLATION | Global::INTERRUPT_REMAPPING));
        // Tables of another mode, now that nothing is.
        unit.bring_up(&mut memory, &CONFIGURATION).unwrap();
        assert!(unit.translation_enabled() && unit.interrupt_remapping_enabled());
    }
}
