//! Hostile values, many of them: each access ends in success or in #GP, and the guest lives.

use super::control::{read_cr0, read_cr4, write_cr0, write_cr4, write_cr8};
use super::msr::{self, read, write};
use super::waiting::pass;
use crate::list::{List, Verdict, ensure, note};
use crate::trap::{self, Exception, GENERAL_PROTECTION, SPURIOUS, TIMER};
use exitprobe::hostile::Hostile;
use guest_support::apic::{self, ENABLE, IA32_APIC_BASE, XAPIC_BASE};
use guest_support::cpu::cpuid;

const ROUNDS: u32 = 3000;
/// IA32_APIC_BASE: the bootstrap processor.
const BSP: u64 = 1 << 8;

/// Registers that may hold anything while nothing uses them, and registers that there are not.
const ANYTHING: [u32; 24] = [
    msr::IA32_STAR,
    msr::IA32_LSTAR,
    msr::IA32_FMASK,
    0xc000_0083,
    msr::IA32_FS_BASE,
    msr::IA32_GS_BASE,
    msr::IA32_KERNEL_GS_BASE,
    msr::IA32_SYSENTER_CS,
    msr::IA32_SYSENTER_ESP,
    msr::IA32_SYSENTER_EIP,
    msr::IA32_MISC_ENABLE,
    msr::IA32_BIOS_SIGN_ID,
    0x3a,
    0x48,
    0x1d9,
    0x38f,
    0x480,
    0x570,
    0x6e0,
    0xd90,
    0xda0,
    0xc000_0103,
    0xc001_0114,
    0xc001_0117,
];

pub fn probe(list: &mut List) {
    list.probe("storm-msr", registers);
    list.probe("storm-msr-numbers", numbers);
    list.probe("storm-efer-pat", efer_and_pat);
    list.probe("storm-apic", local_apic);
    list.probe("storm-cr", control);
    list.probe("storm-cpuid", leaves);
}

fn is_answer(caught: Option<Exception>) -> bool {
    caught.is_none_or(|caught| caught.is_fault(GENERAL_PROTECTION, 0))
}

fn registers() -> Verdict {
    let mut hostile = Hostile::new(0x5eed_0001);
    for _ in 0..ROUNDS {
        let (msr, value) = (hostile.choose(&ANYTHING), hostile.value());
        let before = read(msr);
        // SAFETY: nothing uses what these registers hold, and it is put back.
        let written = unsafe { write(msr, value) };
        let now = read(msr);
        ensure!(is_answer(written) && is_answer(before.err()), "{msr:#x} = {value:#x}: {written:x?}, {before:x?}");
        ensure!(before.is_ok() == now.is_ok(), "{msr:#x} = {value:#x}: first {before:x?}, then {now:x?}");
        if let Ok(before) = before {
            // SAFETY: as it was.
            unsafe { write(msr, before) };
        }
    }
    Ok(())
}

/// Any number at all. Writes only where no register is: what cannot be read.
fn numbers() -> Verdict {
    let mut hostile = Hostile::new(0x5eed_0002);
    let mut known = 0;
    for _ in 0..ROUNDS {
        let msr = match hostile.random() % 4 {
            0 => hostile.value() as u32,
            1 => hostile.random() as u32 & 0x1fff,
            2 => 0xc000_0000 | hostile.random() as u32 & 0x1fff,
            _ => 0xc001_0000 | hostile.random() as u32 & 0x1fff,
        };
        match read(msr) {
            Ok(_) => known += 1,
            Err(caught) => {
                ensure!(caught.is_fault(GENERAL_PROTECTION, 0), "reading {msr:#x}: {caught:x?}");
                // End of interrupt and SELF IPI can be written and not read.
                if !(0x800..0x900).contains(&msr) {
                    let value = hostile.value();
                    // SAFETY: there is no such register.
                    let caught = unsafe { write(msr, value) };
                    ensure!(trap::is_fault(caught, GENERAL_PROTECTION), "{msr:#x} = {value:#x}: {caught:x?}");
                }
            }
        }
    }
    note(format_args!("{known} of {ROUNDS} register numbers could be read"));
    Ok(())
}

fn efer_and_pat() -> Verdict {
    let mut hostile = Hostile::new(0x5eed_0003);
    let (Ok(efer), Ok(pat)) = (read(msr::IA32_EFER), read(msr::IA32_PAT)) else {
        return Err(crate::list::Complaint::new(format_args!("they cannot be read")));
    };
    for _ in 0..ROUNDS {
        let value = hostile.value();
        // What is set stays: the code runs in long mode, from tables with no-execute bits.
        // SAFETY: so nothing changes but what is reserved, and system calls, which are not used.
        let caught = unsafe { write(msr::IA32_EFER, efer | value) };
        ensure!(is_answer(caught), "EFER = {:#x}: {caught:x?}", efer | value);
        ensure!(read(msr::IA32_EFER).is_ok_and(|now| now & !1 == efer), "EFER became {:x?}", read(msr::IA32_EFER));
        // Entry 0 stays write-back, it is in use.
        let value = value & !0xff | 6;
        // SAFETY: no other entry is in use.
        let caught = unsafe { write(msr::IA32_PAT, value) };
        let legal = value.to_le_bytes().iter().all(|kind| matches!(kind, 0 | 1 | 4..=7));
        ensure!(is_answer(caught) && caught.is_none() == legal, "PAT = {value:#x}: {caught:x?}");
    }
    // SAFETY: as they were.
    unsafe {
        write(msr::IA32_EFER, efer);
        write(msr::IA32_PAT, pat);
    }
    Ok(())
}

/// IA32_APIC_BASE and the x2APIC's registers. Interrupts are off, and what comes of it is forgotten in the end.
fn local_apic() -> Verdict {
    let mut hostile = Hostile::new(0x5eed_0004);
    for _ in 0..ROUNDS {
        let value = if hostile.random() & 1 == 0 { hostile.value() } else { hostile.random() & 0x7_ffff };
        let number = hostile.random() as u32 & 0x3f;
        let msr = if number == 0x3f { IA32_APIC_BASE } else { apic::X2APIC_MSR + number };
        let (read, caught) = (read(msr), {
            // SAFETY: the APIC cannot change memory. Wherever its page is, it is not used.
            unsafe { write(msr, value) }
        });
        ensure!(is_answer(caught) && is_answer(read.err()), "{msr:#x} = {value:#x}: {read:x?}, {caught:x?}");
    }
    // Disabled, it forgets.
    for mode in [0, ENABLE] {
        // SAFETY: as above.
        let caught = unsafe { write(IA32_APIC_BASE, XAPIC_BASE.as_u64() | BSP | mode) };
        if mode == 0 {
            ensure!(caught.is_none(), "it cannot be disabled: {caught:x?}");
        }
    }
    apic::initialize(TIMER, SPURIOUS);
    write_cr8(0);
    trap::forget_interrupts();
    x86_64::instructions::interrupts::enable();
    pass(2000);
    x86_64::instructions::interrupts::disable();
    ensure!(trap::taken() == 0, "{} interrupts came after the APIC was disabled", trap::taken());
    Ok(())
}

/// CR0, CR4 and CR8, with an exit under each value that is taken.
fn control() -> Verdict {
    /// CR0: what can be set in any combination. NW is left to `cr0-illegal`.
    const CR0_FREE: u64 = 0x2e | 1 << 16 | 1 << 18 | 1 << 30;
    /// CR4: VME, PVI, TSD, DE, PSE, PGE, PCE, OSFXSR, OSXMMEXCPT; and VMXE and all that is reserved for ever.
    const CR4_FREE: u64 = 0x79f | 1 << 13 | 1 << 15 | !0xffff_ffff;
    let mut hostile = Hostile::new(0x5eed_0005);
    let (cr0, cr4) = (read_cr0(), read_cr4());
    for _ in 0..ROUNDS / 3 {
        let value = cr0 ^ hostile.value() & CR0_FREE;
        // SAFETY: paging and protection stay; floating point is not used.
        let caught = unsafe { write_cr0(value) };
        let _ = cpuid(0);
        // SAFETY: as it was.
        unsafe { write_cr0(cr0) };
        ensure!(caught.is_none(), "CR0 = {value:#x}: {caught:x?}");

        let value = cr4 ^ hostile.value() & CR4_FREE;
        // SAFETY: PAE stays, and nothing else matters to the code.
        let caught = unsafe { write_cr4(value) };
        let _ = cpuid(0);
        // SAFETY: as it was.
        unsafe { write_cr4(cr4) };
        ensure!(is_answer(caught), "CR4 = {value:#x}: {caught:x?}");
        ensure!(caught.is_some() || value & (1 << 13 | 1 << 15 | !0xffff_ffff) == 0, "CR4 = {value:#x} is taken");

        let value = hostile.value();
        let caught = write_cr8(value);
        let _ = cpuid(0);
        write_cr8(0);
        ensure!(is_answer(caught), "CR8 = {value:#x}: {caught:x?}");
    }
    ensure!((read_cr0(), read_cr4()) == (cr0, cr4), "they are {:#x} and {:#x} in the end", read_cr0(), read_cr4());
    Ok(())
}

fn leaves() -> Verdict {
    let mut hostile = Hostile::new(0x5eed_0006);
    for _ in 0..ROUNDS {
        let leaf = hostile.value() as u32;
        let _ = cpuid(leaf);
    }
    Ok(())
}
