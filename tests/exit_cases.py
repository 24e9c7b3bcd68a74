"""Cases of tests/machine.py for what exits and hostile values do: the guest `exitprobe`, which has no device."""
import functools
import os
import shutil
import subprocess

from cases import ROOT, TARGET, Case, guest
from tools.judge import Failure, require

#: What a processor takes in CR0, CR4 or CR8 against its manual is reported as `info:`; so is what a processor leaves open.
PROBES = """
cpuid-policy cpuid-unknown-leaves cpuid-prefixes mmio-setup mmio-forms mmio-exchanges mmio-bits mmio-strings mmio-flags mmio-step mmio-registers mmio-ipi
apic-modes apic-off x2apic-registers x2apic-illegal tsc tsc-write ud-vmx ud-svm ud-hypercall ud-monitor ud-xsetbv gp-rdpmc caches faults
msr-unknown-read msr-unknown-write msr-without-parts msr-prefixes msr-pat msr-efer msr-round-trip msr-swapgs msr-misc
ports-unused ports-forms ports-serial ports-strings cr0-bits cr0-task-switched cr0-msw cr0-illegal cr3-illegal cr4-bits cr4-illegal cr8
page-fault page-protection page-reserved page-sizes page-flush page-fault-string
timer-one-shot timer-halt timer-periodic timer-masked timer-count
deadline-other-modes deadline-once deadline-past deadline-disarmed deadline-masked deadline-count deadline-halt
deadline-tsc-write deadline-reserved-mode
ipi ipi-order ipi-errors tpr-x2apic tpr-cr8 tpr-cr8-pending tpr-cr8-halt nesting eoi-order apic-disabled
nmi nmi-destinations nmi-nested nmi-step init-others
window-sti window-popf window-mov-ss window-sti-cli window-exits
faults-and-timer stack-fault-interrupt stack-fault-exception double-fault
step-plain step-exits step-halt step-fault breakpoint dr-round-trip dr6-kept
fault-resume-flag rom-read rom-write rom-modify rom-step rom-border rom-execute
hole-loads hole-stores hole-strings
pci-address pci-host-bridge pci-nothing-else
xsave-cpuid xsave-xcr0 xsave-illegal xsave-storm xsave-area xsave-vectors xsave-supervisor
speculation-control speculation-barrier speculation-capabilities
storm-msr storm-msr-numbers storm-efer-pat storm-apic storm-cr storm-cpuid
""".split()


# Judges ---------------------------------------------------------------------------------------------------------------


def answered_all(run):
    """Every probe ran and had the answer of hardware, and the guest switched itself off."""
    for name in PROBES:
        run.require_line(rf"^\[exitprobe\] report: {name}=(ok|FAIL)$")
    run.forbid_line(r"^\[exitprobe\] report: \S+=FAIL$")
    run.require_line(rf"^\[exitprobe\] report: probes={len(PROBES)}/{len(PROBES)}$")
    run.require_line(r'guest "exitprobe" has switched itself off')
    run.forbid_line(r"FATAL|BREACH|was stopped")
    run.require_line(r'WARN .*guest "exitprobe": it accessed guest-physical 0x40000[0-9a-f]{3}, where nothing is')
    require(run.status == 0, f"exit status {run.status}")
    run.require_report(result="pass", guest="done", faults=0, stray_interrupts=0)
    return {"probes": len(PROBES), "exits": run.report["exits"]}


def stopped(reason):
    """The hypervisor stops the guest, says why, shows its state, and goes on to its own end."""

    def judge(run):
        require(run.status == 1, f"exit status {run.status}, expected 1")
        run.require_line(rf'guest "exitprobe" was stopped: .*{reason}')
        run.require_line(r"rip 0x[0-9a-f]+ \(Long\), registers ")
        run.require_line(r"ControlState \{ cr0: ")
        run.require_report(result="fail", guest="running")
        run.forbid_line(r"FATAL|still here")

    return judge


# Machines -------------------------------------------------------------------------------------------------------------


@functools.cache
def exitprobe():
    """Builds the guest, once; the path of its image."""
    script = ('root=$PWD; . tests/tools/packages.sh; . tests/tools/toolchain.sh; find_toolchain; '
              'cargo_image build --release --quiet -p exitprobe')
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True,
                          env=dict(os.environ, CARGO_TARGET_DIR=str(TARGET)))
    if done.returncode:
        raise Failure(f"exitprobe does not build: {done.stderr[-2000:]}")
    return TARGET / "x86_64-unknown-none/release/exitprobe"


def exit_case(name, about, judge, command_line="", doorbell="", **fields):
    def prepare(folder):
        (folder / "config.toml").write_text(
            guest(name="exitprobe", kernel="exitprobe", command_line=command_line, devices="", keys=doorbell))
        image = exitprobe()
        stripped = subprocess.run(["strip", "--strip-all", "-o", folder / "exitprobe", image], check=False)
        if stripped.returncode:
            shutil.copyfile(image, folder / "exitprobe")

    return Case(name, about, judge, prepare=prepare,
                options=["--config", "{folder}/config.toml", "--file", "{folder}/exitprobe"], **fields)


def ending(command_line, about, reason):
    return exit_case(f"exit-{command_line}", about, stopped(reason), command_line, timeout=30)


NOWHERE = r"at guest-physical 0x40000[0-9a-f]{3}"

IN_ROM = r"at guest-physical 0xf[0-9a-f]{4}"

EXIT_CASES = [
    exit_case("exits", "every exit of the platform, with hostile values", answered_all),
    ending("triple-fault", "a fault that cannot be delivered", r"shut down \(triple fault\)"),
    ending("jump-nowhere", "execution where no memory is", f"jumped to where no memory is, {NOWHERE}"),
    ending("page-table-nowhere", "page tables where no memory is", f"page tables are where no memory is, {NOWHERE}"),
    ending("stack-nowhere", "an interrupt whose frame goes where no memory is", f"no memory.*{NOWHERE}"),
    ending("descriptor-table-nowhere", "an exception whose gate is where no memory is", f"no memory.*{NOWHERE}"),
    ending("stack-read-only", "an interrupt whose frame goes to read-only memory", f"not permitted, {IN_ROM}"),
    ending("push-read-only", "PUSH to read-only memory", f"by an instruction that is not emulated .*{IN_ROM}"),
    ending("store-across", "one store to memory and to read-only memory", f"to two pages, {IN_ROM}"),
    ending("init-self", "an INIT of the guest to its only processor", r"reset its processor by an INIT"),
    ending("halt-forever", "HLT with interrupts disabled", r"halted with interrupts disabled"),
]

#: Where the processor takes what a processor with VMX refuses: an entry that fails on a machine.
REFUSED_ENTRY_CASES = [
    ending("entry-refused", "an entry that the processor refuses",
           r"the processor refused to run the guest \(code 0xf+\): CR0\.NW is set and CR0\.CD is clear"),
]
