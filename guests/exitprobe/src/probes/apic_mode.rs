//! The modes of the local APIC: which change into which.

use super::msr::{read, write};
use crate::list::{List, Verdict, ensure};
use crate::trap::{self, Exception, GENERAL_PROTECTION, SPURIOUS, TIMER};
use guest_support::apic::{self, ENABLE, EXTD, IA32_APIC_BASE, X2APIC_MSR, XAPIC_BASE};

/// IA32_APIC_BASE: the bootstrap processor.
const BSP: u64 = 1 << 8;

const ID: u32 = X2APIC_MSR + 2;
const VERSION: u32 = X2APIC_MSR + 3;
const END_OF_INTERRUPT: u32 = X2APIC_MSR + 0xb;
const LOGICAL_DESTINATION: u32 = X2APIC_MSR + 0xd;
const SPURIOUS_VECTOR: u32 = X2APIC_MSR + 0xf;
const ERROR_STATUS: u32 = X2APIC_MSR + 0x28;
const COMMAND: u32 = X2APIC_MSR + 0x30;
const COMMAND_HIGH: u32 = X2APIC_MSR + 0x31;
const LVT_TIMER: u32 = X2APIC_MSR + 0x32;
const CURRENT_COUNT: u32 = X2APIC_MSR + 0x39;
const DIVIDE: u32 = X2APIC_MSR + 0x3e;
const SELF_IPI: u32 = X2APIC_MSR + 0x3f;

pub fn probe(list: &mut List) {
    list.probe("apic-modes", modes);
    list.probe("apic-off", off);
    apic::initialize(TIMER, SPURIOUS);
    list.probe("x2apic-registers", registers);
    list.probe("x2apic-illegal", illegal);
}

fn set_base(bits: u64) -> Option<Exception> {
    // SAFETY: the APIC's state decides about interrupts, which are off. The page stays where it is.
    unsafe { write(IA32_APIC_BASE, XAPIC_BASE.as_u64() | bits) }
}

/// Begins in xAPIC mode and ends there.
fn modes() -> Verdict {
    let refused = |what: &str, caught: Option<Exception>, mode: u64| {
        ensure!(trap::is_fault(caught, GENERAL_PROTECTION), "{what}: {caught:x?}");
        let base = read(IA32_APIC_BASE);
        ensure!(base == Ok(XAPIC_BASE.as_u64() | BSP | mode), "{what}: then IA32_APIC_BASE is {base:x?}");
        Ok(())
    };
    let taken = |what: &str, caught: Option<Exception>, mode: u64| {
        ensure!(caught.is_none(), "{what}: {caught:x?}");
        let base = read(IA32_APIC_BASE);
        ensure!(base == Ok(XAPIC_BASE.as_u64() | BSP | mode), "{what}: IA32_APIC_BASE reads {base:x?}");
        Ok(())
    };
    refused("xAPIC to x2APIC without enable", set_base(BSP | EXTD), ENABLE)?;
    refused("a reserved bit", set_base(BSP | ENABLE | 1), ENABLE)?;
    refused("a reserved bit", set_base(BSP | ENABLE | 1 << 9), ENABLE)?;
    refused("an address beyond the processor's", set_base(BSP | ENABLE | 1 << 60), ENABLE)?;
    let by_msr = read(ID).err();
    ensure!(trap::is_fault(by_msr, GENERAL_PROTECTION), "a register by MSR in xAPIC mode: {by_msr:x?}");

    taken("xAPIC to x2APIC", set_base(BSP | ENABLE | EXTD), ENABLE | EXTD)?;
    ensure!(read(ID) == Ok(0), "the id in x2APIC mode: {:x?}", read(ID));
    refused("x2APIC to xAPIC", set_base(BSP | ENABLE), ENABLE | EXTD)?;
    refused("x2APIC without enable", set_base(BSP | EXTD), ENABLE | EXTD)?;
    taken("x2APIC to disabled", set_base(BSP), 0)?;
    refused("disabled to x2APIC", set_base(BSP | ENABLE | EXTD), 0)?;
    let by_msr = read(ID).err();
    ensure!(trap::is_fault(by_msr, GENERAL_PROTECTION), "a register by MSR while disabled: {by_msr:x?}");
    taken("disabled to xAPIC", set_base(BSP | ENABLE), ENABLE)
}

/// Without its APIC the processor shows none: not in CPUID, and not at the page, which is none of it in x2APIC mode
/// either. Begins in xAPIC mode and ends there.
fn off() -> Verdict {
    let shown = || guest_support::cpu::cpuid(1)[3] >> 9 & 1 != 0;
    let page = apic::page();
    let nothing = |when: &str| {
        let before = super::control::read_cr8();
        for register in (0..0x1000).step_by(16) {
            page.write(register, 0x20);
        }
        for register in (0..0x1000).step_by(4) {
            let value = page.read(register);
            ensure!(value == u32::MAX, "{when}, register {register:#x} reads {value:#x}");
        }
        let after = super::control::read_cr8();
        ensure!(after == before, "{when}, CR8 is {after} and was {before}");
        Ok(())
    };
    ensure!(shown() && page.read(apic::ID) == 0, "CPUID shows no APIC, or its id is {:#x}", page.read(apic::ID));
    set_base(BSP);
    let hidden = !shown();
    let checked = nothing("when it is disabled");
    set_base(BSP | ENABLE);
    set_base(BSP | ENABLE | EXTD);
    let again = shown();
    let checked_again = nothing("in x2APIC mode");
    set_base(BSP);
    set_base(BSP | ENABLE);
    checked?;
    checked_again?;
    ensure!(hidden && again, "CPUID hides it when it is disabled: {hidden}; shows it when it is not: {again}");
    ensure!(page.read(apic::ID) == 0, "then its id is {:#x}", page.read(apic::ID));
    Ok(())
}

fn registers() -> Verdict {
    ensure!(read(VERSION).is_ok_and(|version| version & 0xff >= 0x10), "the version: {:x?}", read(VERSION));
    // Made from the id: cluster 0, bit 0.
    ensure!(read(LOGICAL_DESTINATION) == Ok(1), "the logical destination: {:x?}", read(LOGICAL_DESTINATION));
    for (msr, value) in [(SPURIOUS_VECTOR, 0x1ef), (DIVIDE, 3), (LVT_TIMER, 0x1_0050), (ERROR_STATUS, 0)] {
        // SAFETY: these decide about interrupts, which are off.
        let caught = unsafe { write(msr, value) };
        ensure!(caught.is_none() && read(msr) == Ok(value), "{msr:#x} = {value:#x}: {caught:x?}, {:x?}", read(msr));
    }
    // The command register is one of 64 bits.
    // SAFETY: as above; it goes to a processor that there is not.
    let caught = unsafe { write(COMMAND, 0x1234_5678_0000_0061) };
    ensure!(caught.is_none() && read(COMMAND) == Ok(0x1234_5678_0000_0061), "ICR: {caught:x?}, {:x?}", read(COMMAND));
    Ok(())
}

/// Registers that there are not, that cannot be written or read, and reserved bits: each is #GP.
fn illegal() -> Verdict {
    for msr in
        [X2APIC_MSR, X2APIC_MSR + 0xe, COMMAND_HIGH, END_OF_INTERRUPT, SELF_IPI, X2APIC_MSR + 0x40, X2APIC_MSR + 0xff]
    {
        let caught = read(msr).err();
        ensure!(trap::is_fault(caught, GENERAL_PROTECTION), "reading {msr:#x}: {caught:x?}");
    }
    for (msr, value) in [
        (ID, 0),
        (VERSION, 0),
        (LOGICAL_DESTINATION, 1),
        (COMMAND_HIGH, 0),
        (CURRENT_COUNT, 0),
        (END_OF_INTERRUPT, 1),
        (ERROR_STATUS, 1),
        (X2APIC_MSR + 8, 0x100),
        (X2APIC_MSR + 8, 1 << 32),
        (SPURIOUS_VECTOR, 1 << 17),
        (LVT_TIMER, 1 << 19),
        (DIVIDE, 1 << 4),
        (COMMAND, 1 << 21),
        (SELF_IPI, 0x100),
    ] {
        // SAFETY: such values are refused.
        let caught = unsafe { write(msr, value) };
        ensure!(trap::is_fault(caught, GENERAL_PROTECTION), "{msr:#x} = {value:#x}: {caught:x?}");
    }
    Ok(())
}
