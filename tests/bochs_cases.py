"""The cases of tests/bochs_machine.py: what runs on which processor, and what must come of it."""
import dataclasses
import typing

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
    options: typing.Sequence[str] = ()
    #: Memory of Bochs in MiB (`bochs` only).
    memory: int = 512
    #: Seconds of this machine's time.
    timeout: int = 120


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


CASES = [
    Case("no-extension", "a processor without virtualization is refused in words", refused, models=NO_EXTENSION),
    Case("no-engine", "a processor whose extension has no engine yet is refused in words", refused),
    Case("nested-no-engine", "the same on QEMU with VT-d, on KVM in a Linux in Bochs", refused, models=POSTING[:1], rig="nested",
         timeout=400),
    Case("nested-no-posting", "the same, and KVM offers no APIC virtualization", refused, models=POSTING[:1], rig="nested",
         options=("--kvm-options", "enable_apicv=0"), timeout=400),
]
