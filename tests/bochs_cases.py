"""The cases of tests/bochs_machine.py: what runs on which processor, and what must come of it."""
import dataclasses
import pathlib
import typing

from exit_cases import EXIT_CASES, answered_all
from multiboot_cases import MULTIBOOT_CASES
from tools.judge import Run, require

#: Processor models of Bochs by what they offer to a hypervisor, the most capable first (`tests/rigs/bochs.sh models`).
#: Virtual-interrupt delivery and posted interrupts.
POSTING = ("corei7_skylake_x", "corei7_icelake_u", "tigerlake", "sapphire_rapids", "arrow_lake")
#: Virtual-interrupt delivery without posted interrupts.
DELIVERY = ("broadwell_ult", "corei7_haswell_4770")
#: VMX with EPT and unrestricted guests, and the virtual APIC in software.
SOFTWARE = ("corei3_cnl", "corei7_ivy_bridge_3770k")
#: One of each.
EACH_KIND = (POSTING[0], DELIVERY[0], SOFTWARE[0])
#: One with IA32_SPEC_CTRL and what belongs to it, which those have not.
SPECULATION = POSTING[1:2]
#: A processor with neither VMX nor, as Bochs is built here, SVM.
NO_EXTENSION = ("ryzen",)


@dataclasses.dataclass
class Case:
    name: str
    about: str
    judge: typing.Callable[[Run], typing.Optional[dict]]
    #: Bochs's processors; the case is run once on each.
    models: typing.Sequence[str] = EACH_KIND
    #: `bochs`: the image on Bochs itself. `nested`: the image on QEMU with VT-d, on KVM in a Linux in Bochs.
    rig: str = "bochs"
    #: Options of run-qemu.sh: which guests there are (--config, --file, --no-archive), and for `nested` all others too.
    #: `{folder}` is a scratch folder that `prepare` may fill.
    options: typing.Sequence[str] = ()
    prepare: typing.Callable[[pathlib.Path], None] = lambda folder: None
    #: Memory of Bochs in MiB (`bochs` only).
    memory: int = 512
    #: Seconds of this machine's time.
    timeout: int = 120

    def arguments(self, folder):
        self.prepare(folder)
        return [option.replace("{folder}", str(folder)) for option in self.options]


# Judges ---------------------------------------------------------------------------------------------------------------


def refused(run):
    """The image comes up, sees that it cannot run a guest on this processor, says why, and ends."""
    require(run.status == 1, f"exit status {run.status}")
    run.require_line(r"INFO +start: Postern \d")
    run.require_line(r"INFO +start: own mapping in place")
    run.require_line(r"ERROR fatal: this processor has no virtualization extension that there is an engine for")
    run.require_report(result="fail")
    require(sum("ERROR" in line for line in run.lines) == 1, "more than one error for one cause")
    return {}


def probed(run):
    """Every exit that the guest platform uses, and hostile values, have the answer of hardware."""
    answered_all(run)
    run.require_report(engine="vmx", apic="x2apic")
    require("VMFAIL" not in run.trace, "the processor refused an entry")
    return {key: run.report[key] for key in ("exits", "boot_ms")}


def assigned(run):
    """The run of the README, with VT-d and VMX in one machine."""
    require(run.status == 0, f"exit status {run.status}")
    run.require_report(result="pass", units=1, engine="vmx", dhcp="10.0.2.15", pings="10/10", attacks=5, blocked=4,
                       harmless=1, after_attack_ping="1/1", unexpected_vectors=0, guest="done")
    run.forbid_line(r"FATAL|BREACH|^\[.*ERROR")
    return {key: run.report[key] for key in ("exits", "device_interrupts")}


CASES = [
    Case("no-extension", "a processor without virtualization is refused in words", refused, models=NO_EXTENSION),
    Case("exits", "a guest that probes every exit, on each kind of processor", probed, models=EACH_KIND + SPECULATION,
         prepare=EXIT_CASES[0].prepare, options=EXIT_CASES[0].options),
    Case("nested", "a passed-through NIC on QEMU with VT-d, on KVM in a Linux in Bochs", assigned, models=POSTING[:1],
         rig="nested", timeout=600),
    Case("nested-no-posting", "the same, and KVM offers no APIC virtualization", assigned, models=POSTING[:1], rig="nested",
         options=("--kvm-options", "enable_apicv=0"), timeout=600),
] + [
    # Guests that end by the hypervisor's hand, judged as under SVM.
    Case(case.name, case.about, case.judge, models=POSTING[:1], prepare=case.prepare, options=case.options)
    for case in EXIT_CASES[1:] + MULTIBOOT_CASES
]
