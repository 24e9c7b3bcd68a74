//! Instructions that exit and have no answer but an exception, or none at all.

use crate::list::{List, Verdict, ensure, note};
use crate::trap::{self, GENERAL_PROTECTION, INVALID_OPCODE, attempt};
use guest_support::memory;

/// A page in which an instruction of virtualization could keep something, were it executed.
#[repr(C, align(4096))]
struct Page([u8; 4096]);

impl Page {
    /// Where it is physically, and also mapped: of the two kinds of operands, each takes this. On a bad one a processor
    /// with SVM raises #GP before it looks whether the instruction is the guest's to execute.
    fn address(&self) -> u64 {
        memory::physical_address(self.0.as_ptr()).map_or(0, |address| address.as_u64())
    }
}

pub fn probe(list: &mut List) {
    list.probe("ud-vmx", vmx);
    list.probe("ud-svm", svm);
    list.probe("ud-hypercall", hypercalls);
    list.probe("ud-monitor", monitor);
    list.probe("ud-xsetbv", xsetbv);
    list.probe("gp-rdpmc", read_performance_counter);
    list.probe("caches", caches);
    list.probe("faults", faults);
}

/// Each of the instructions must be an invalid opcode, at the instruction.
macro_rules! undefined {
    ($page:expr; $($name:literal: $instruction:literal),* $(,)?) => {{
        $(
            // SAFETY: the processor does not have the instruction; the page is what it would use.
            let caught = unsafe {
                attempt!($instruction, inout("rax") $page.address() => _, inout("rcx") 0u64 => _,
                    inout("rdx") 0u64 => _, inout("rsi") 0u64 => _)
            };
            ensure!(trap::is_fault(caught, INVALID_OPCODE), "{}: {caught:x?}", $name);
        )*
        Ok(())
    }};
}

fn vmx() -> Verdict {
    let page = Page([0; 4096]);
    undefined!(page;
        "vmxon": "vmxon [rax]",
        "vmclear": "vmclear [rax]",
        "vmptrld": "vmptrld [rax]",
        "vmptrst": "vmptrst [rax]",
        "vmread": "vmread rdx, rcx",
        "vmwrite": "vmwrite rcx, rdx",
        "vmlaunch": "vmlaunch",
        "vmresume": "vmresume",
        "vmxoff": "vmxoff",
        "invept": "invept rcx, [rax]",
        "invvpid": "invvpid rcx, [rax]",
        "vmfunc": "vmfunc",
        "getsec": "getsec",
    )
}

fn svm() -> Verdict {
    let page = Page([0; 4096]);
    undefined!(page;
        "vmrun": ".byte 0x0f, 0x01, 0xd8",
        "vmload": ".byte 0x0f, 0x01, 0xda",
        "vmsave": ".byte 0x0f, 0x01, 0xdb",
        "stgi": ".byte 0x0f, 0x01, 0xdc",
        "clgi": ".byte 0x0f, 0x01, 0xdd",
        "skinit": ".byte 0x0f, 0x01, 0xde",
        "invlpga": ".byte 0x0f, 0x01, 0xdf",
    )
}

fn hypercalls() -> Verdict {
    let page = Page([0; 4096]);
    undefined!(page; "vmcall": "vmcall", "vmmcall": "vmmcall")
}

fn monitor() -> Verdict {
    let page = Page([0; 4096]);
    undefined!(page; "monitor": "monitor", "mwait": "mwait")
}

fn xsetbv() -> Verdict {
    let page = Page([0; 4096]);
    undefined!(page; "xsetbv": "xsetbv", "xgetbv": "xgetbv")
}

fn read_performance_counter() -> Verdict {
    for counter in [0u32, 1, 0x4000_0000, 0xffff_ffff] {
        // SAFETY: it reads a counter, or faults.
        let caught = unsafe { attempt!("rdpmc", in("ecx") counter, out("eax") _, out("edx") _) };
        ensure!(trap::is_fault(caught, GENERAL_PROTECTION), "counter {counter:#x}: {caught:x?}");
    }
    // SAFETY: it reads a counter and a processor number, or faults.
    let caught = unsafe { attempt!("rdtscp", out("ecx") _, out("eax") _, out("edx") _) };
    note(format_args!("RDTSCP, which CPUID hides: {caught:x?}"));
    Ok(())
}

/// INVD and WBINVD must not lose anything, and must not take forever.
fn caches() -> Verdict {
    let mut page = Page([0; 4096]);
    for round in 1..=3u8 {
        page.0.fill(round);
        // SAFETY: the hypervisor does not throw a guest's memory away; where there is none, exitprobe is not run.
        let caught = unsafe { attempt!("wbinvd") };
        ensure!(caught.is_none(), "wbinvd: {caught:x?}");
        // SAFETY: as above.
        let caught = unsafe { attempt!("invd") };
        ensure!(caught.is_none(), "invd: {caught:x?}");
        ensure!(page.0.iter().all(|byte| *byte == round), "memory is not what it was");
    }
    Ok(())
}

/// Faults and traps that are the guest's alone.
fn faults() -> Verdict {
    // SAFETY: each raises an exception, which is caught.
    let (divide, undefined, breakpoint, protection) = unsafe {
        (
            attempt!("div ecx", inout("eax") 1u32 => _, inout("edx") 0u32 => _, in("ecx") 0u32),
            attempt!("ud2"),
            attempt!("int3"),
            attempt!("mov rax, [rcx]", out("rax") _, in("rcx") 0x8000_0000_0000_0000u64),
        )
    };
    ensure!(trap::is_fault(divide, trap::DIVIDE), "div: {divide:x?}");
    ensure!(trap::is_fault(undefined, INVALID_OPCODE), "ud2: {undefined:x?}");
    ensure!(
        breakpoint.is_some_and(|caught| (caught.vector, caught.offset) == (trap::BREAKPOINT, 1)),
        "int3: {breakpoint:x?}"
    );
    ensure!(trap::is_fault(protection, GENERAL_PROTECTION), "non-canonical address: {protection:x?}");
    // SAFETY: the vector has no gate of its own privilege problem: it leads to the handler like any other.
    let software = unsafe { attempt!("int 0x85") };
    ensure!(software.is_none() && trap::count(addr::Vector(0x85)) >= 1, "int 0x85: {software:x?}");
    // SAFETY: a selector that is not in the table is refused.
    let selector = unsafe { attempt!("mov fs, ax", in("ax") 0x1230u16) };
    ensure!(
        selector.is_some_and(|caught| caught.is_fault(GENERAL_PROTECTION, 0x1230)),
        "a selector outside of the table: {selector:x?}"
    );
    Ok(())
}
