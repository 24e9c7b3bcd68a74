//! Speculation control, where it is shown.

use super::msr::{read, write};
use crate::list::{List, Verdict, ensure, note};
use crate::trap::{self, GENERAL_PROTECTION};
use guest_support::cpu::cpuid;

const IA32_SPEC_CTRL: u32 = 0x48;
const IA32_PRED_CMD: u32 = 0x49;
const IA32_ARCH_CAPABILITIES: u32 = 0x10a;
/// CPUID leaf 7, EDX, and the bits of IA32_SPEC_CTRL that go with them.
const IBRS_IBPB: u32 = 1 << 26;
const ARCH_CAPABILITIES: u32 = 1 << 29;
const CONTROLS: [(u32, u64); 3] = [(IBRS_IBPB, 1), (1 << 27, 2), (1 << 31, 4)];

pub fn probe(list: &mut List) {
    list.probe("speculation-control", control);
    list.probe("speculation-barrier", barrier);
    list.probe("speculation-capabilities", capabilities);
}

/// Whether both accesses are faults, as without the register.
fn is_absent(msr: u32) -> bool {
    // SAFETY: there is no such register.
    let written = [0, 1].map(|value| unsafe { write(msr, value) });
    trap::is_fault(read(msr).err(), GENERAL_PROTECTION)
        && written.into_iter().all(|caught| trap::is_fault(caught, GENERAL_PROTECTION))
}

/// What is set stays over exits, and what is not there is refused, before the guest has used it and after.
fn control() -> Verdict {
    let shown = cpuid(7)[3];
    let bits = CONTROLS.iter().filter(|(feature, _)| shown & feature != 0).fold(0, |bits, (_, bit)| bits | bit);
    if bits == 0 {
        ensure!(is_absent(IA32_SPEC_CTRL), "not shown, it is there: {:x?}", read(IA32_SPEC_CTRL));
        return Ok(());
    }
    note(format_args!("IA32_SPEC_CTRL has {bits:#x}"));
    ensure!(read(IA32_SPEC_CTRL) == Ok(0), "it begins with {:x?}", read(IA32_SPEC_CTRL));
    for round in 0..2 {
        // Beyond what any processor has: once the guest has the register, a processor takes what it knows.
        for illegal in [1 << 11, 1 << 32, 1 << 63, u64::MAX] {
            // SAFETY: it is refused.
            let caught = unsafe { write(IA32_SPEC_CTRL, illegal) };
            ensure!(trap::is_fault(caught, GENERAL_PROTECTION), "round {round}: {illegal:#x}: {caught:x?}");
        }
        for value in (0..=7).filter(|value| value & !bits == 0).chain([0]) {
            // SAFETY: it makes the processor slower, and nothing else.
            let caught = unsafe { write(IA32_SPEC_CTRL, value) };
            let _ = cpuid(0);
            let now = read(IA32_SPEC_CTRL);
            ensure!(caught.is_none() && now == Ok(value), "round {round}: {value:#x}: {caught:x?}, reads {now:x?}");
        }
    }
    Ok(())
}

fn barrier() -> Verdict {
    if cpuid(7)[3] & IBRS_IBPB == 0 {
        ensure!(is_absent(IA32_PRED_CMD), "not shown, it is there");
        return Ok(());
    }
    for (value, legal) in [(2, false), (1 << 63, false), (1, true), (0, true), (2, false), (1, true)] {
        // SAFETY: it makes the processor forget predictions, or is refused.
        let caught = unsafe { write(IA32_PRED_CMD, value) };
        ensure!(caught.is_none() == legal, "{value:#x}: {caught:x?}");
    }
    ensure!(trap::is_fault(read(IA32_PRED_CMD).err(), GENERAL_PROTECTION), "it reads {:x?}", read(IA32_PRED_CMD));
    Ok(())
}

fn capabilities() -> Verdict {
    if cpuid(7)[3] & ARCH_CAPABILITIES == 0 {
        ensure!(is_absent(IA32_ARCH_CAPABILITIES), "not shown, it is there");
        return Ok(());
    }
    let Ok(shown) = read(IA32_ARCH_CAPABILITIES) else {
        return Err(crate::list::Complaint::new(format_args!("shown, it cannot be read")));
    };
    note(format_args!("IA32_ARCH_CAPABILITIES is {shown:#x}"));
    // SKIP_L1DFL_VMENTRY is a hypervisor's, and the others come with registers that there are not.
    for bit in [3, 7, 10, 11, 18, 21] {
        ensure!(shown >> bit & 1 == 0, "bit {bit} is shown: {shown:#x}");
    }
    // SAFETY: it is refused.
    let caught = unsafe { write(IA32_ARCH_CAPABILITIES, shown) };
    ensure!(trap::is_fault(caught, GENERAL_PROTECTION), "it can be written: {caught:x?}");
    Ok(())
}
