//! CPUID: what is shown, and where the instruction ends.

use crate::list::{List, Verdict, ensure};
use crate::trap::attempt;
use guest_support::cpu::cpuid;

const HYPERVISOR: u32 = 1 << 31;
const X2APIC: u32 = 1 << 21;
const TSC_DEADLINE: u32 = 1 << 24;

pub fn probe(list: &mut List) {
    list.probe("cpuid-policy", policy);
    list.probe("cpuid-unknown-leaves", unknown_leaves);
    list.probe("cpuid-prefixes", prefixes);
}

/// What a guest is not given it is not shown.
fn policy() -> Verdict {
    let [_, _, ecx, edx] = cpuid(1);
    for (name, bit) in [("MONITOR", 3), ("VMX", 5), ("SMX", 6), ("OSXSAVE", 27)] {
        ensure!(ecx >> bit & 1 == 0, "leaf 1 shows {name}");
    }
    ensure!(edx >> 21 & 1 == 0, "leaf 1 shows DS");
    for (name, bit) in [("FPU", 0), ("TSC", 4), ("MSR", 5), ("PAE", 6), ("APIC", 9), ("PGE", 13), ("PAT", 16)] {
        ensure!(edx >> bit & 1 == 1, "leaf 1 hides {name}");
    }
    let virtual_ones = HYPERVISOR | X2APIC | TSC_DEADLINE;
    ensure!(ecx & virtual_ones == virtual_ones, "leaf 1 hides x2APIC, TSC deadline or the hypervisor: {ecx:#x}");
    ensure!(cpuid(0x8000_0001)[2] >> 2 & 1 == 0, "SVM is shown");
    let [highest, name @ ..] = cpuid(0x4000_0000);
    ensure!(highest >= 0x4000_0010, "the hypervisor's last leaf is {highest:#x}");
    let name = name.map(u32::to_le_bytes);
    ensure!(name.as_flattened().starts_with(b"Postern"), "the hypervisor is called {name:x?}");
    let [tsc_khz, timer_khz, ..] = cpuid(0x4000_0010);
    ensure!(tsc_khz != 0 && timer_khz != 0, "no frequencies");
    Ok(())
}

fn unknown_leaves() -> Verdict {
    for leaf in [0x12, 0x14, 0x4000_0001, 0x4000_1000, 0x8000_000a, 0x8000_001f, 0x7fff_ffff, u32::MAX] {
        let answer = cpuid(leaf);
        ensure!(answer == [0; 4], "leaf {leaf:#x} is {answer:x?}");
    }
    Ok(())
}

/// Prefixes that mean nothing belong to the instruction all the same. Were it taken for shorter, its last bytes would
/// be executed; for longer, the following instruction would not.
fn prefixes() -> Verdict {
    let expected = cpuid(0x4000_0000);
    macro_rules! with {
        ($bytes:literal) => {{
            let (eax, ebx, ecx, edx): (u32, u32, u32, u32);
            let mut after = 1u32;
            // SAFETY: CPUID changes the four registers only; RBX, which LLVM keeps for itself, is put back.
            let caught = unsafe {
                attempt!(
                    concat!("mov r10, rbx\n .byte ", $bytes, ", 0x0f, 0xa2\n inc r9d\n xchg r10, rbx"),
                    inout("eax") 0x4000_0000u32 => eax, inout("ecx") 0 => ecx, out("edx") edx,
                    out("r10d") ebx, inout("r9d") after
                )
            };
            ensure!(caught.is_none(), "prefix {}: {caught:x?}", $bytes);
            let answer = [eax, ebx, ecx, edx];
            ensure!(answer == expected && after == 2, "prefix {}: {answer:x?}, then {after} and not 2", $bytes);
        }};
    }
    with!("0xf3");
    with!("0xf2");
    with!("0x66");
    with!("0x67");
    with!("0x2e");
    with!("0x48");
    with!("0x66, 0xf3, 0x4f");
    with!("0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e");
    Ok(())
}
