"""The cases of tests/machine.py: how each machine is made, and what must come of it."""
import dataclasses
import os
import pathlib
import re
import struct
import subprocess
import typing

from tools import gdb_remote
from tools.judge import Failure, Run, require

ROOT = pathlib.Path(__file__).resolve().parent.parent
#: Where run-qemu.sh leaves what it builds.
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
#: The hypervisor's budgets: from entry to the guest's start, its own memory, its image, and power-on to lease.
BOOT_MS, OWN_KIB, IMAGE_KIB, LEASE_SECONDS = 300, 16 << 10, 512, 5.0
#: The interrupt range, in which a write is a message.
FIRST_MESSAGE, LAST_MESSAGE = 0xFEE00000, 0xFEEFFFFF


@dataclasses.dataclass
class Case:
    name: str
    about: str
    judge: typing.Callable[[Run], typing.Optional[dict]]
    #: Arguments of run-qemu.sh; `{folder}` is a scratch folder that `prepare` may fill.
    options: typing.Sequence[str] = ()
    prepare: typing.Callable[[pathlib.Path], None] = lambda folder: None
    typed: typing.Sequence[tuple] = ()
    #: Called with the folder, in a thread of its own, while the machine runs.
    alongside: typing.Optional[typing.Callable[[pathlib.Path], None]] = None
    trace: bool = False
    timeout: int = 90
    #: The oldest major version of QEMU that has what the case is about.
    needs: int = 7

    def arguments(self, folder):
        self.prepare(folder)
        return [option.replace("{folder}", str(folder)) for option in self.options]


# Judges ---------------------------------------------------------------------------------------------------------------


def passed(run):
    """The run that a user sees: a lease, ten pings, five attacks repelled, nothing written where it must not be."""
    require(run.status == 0, f"exit status {run.status}")
    run.require_report(result="pass", units=1, mode="legacy", engine="svm", dhcp="10.0.2.15", ranges_moved="2/2",
                       pings="10/10", attacks=5, after_attack_ping="1/1", unexpected_vectors=0, guest="done", quarantined=0)
    require(run.number("blocked") + run.number("harmless") == 5, "an attack was neither blocked nor harmless")
    require(run.number("blocked") >= 4, "an attack on memory was not blocked")
    require(run.number("interrupts") > 0 and run.number("exits") > 0, "nothing was counted")
    run.forbid_line(r"FATAL|BREACH|^\[.*ERROR")
    return {}


def within_budgets(run):
    """The figures that the README promises."""
    passed(run)
    lease = run.seconds_to(r"^\[netprobe\] report: dhcp=")
    require(run.number("boot_ms") <= BOOT_MS, f"boot_ms={run.report['boot_ms']}, the budget is {BOOT_MS}")
    require(run.number("hv_kib") <= OWN_KIB, f"hv_kib={run.report['hv_kib']}, the budget is {OWN_KIB}")
    require(run.number("image_kib") <= IMAGE_KIB, f"image_kib={run.report['image_kib']}, the budget is {IMAGE_KIB}")
    require(lease <= LEASE_SECONDS, f"{lease:.1f} s from power-on to the lease, the budget is {LEASE_SECONDS}")
    image = next((re.search(r"postern: (\d+) bytes", line) for line in run.errors if "bytes" in line), None)
    require(image and int(image.group(1)) <= IMAGE_KIB << 10, "the stripped image is larger than its budget")
    return {"lease_s": f"{lease:.2f}", "image_bytes": image.group(1),
            **{key: run.report[key] for key in ("boot_ms", "hv_kib", "image_kib", "exits", "interrupts")}}


def as_traced(run):
    """The report against QEMU's own record of the same run."""
    passed(run)
    # Faults: every DMA that QEMU refused is one of an attack, and the report counts none that QEMU did not record.
    refused = [int(addr, 16) for addr in re.findall(r"vtd_dmar_fault.*? addr (?:0x)?([0-9a-f]+)", run.trace)]
    require(refused, "the trace has no refused DMA")
    attacked = [(int(start, 16), int(start, 16) + int(length, 16)) for start, length in
                re.findall(r"report: attack=\S+ iova=0x([0-9a-f]+) len=0x([0-9a-f]+)", run.text())]
    for address in refused:
        near = any(start & ~0xFFF <= address < (end + 0xFFF & ~0xFFF) for start, end in attacked)
        require(near, f"QEMU refused DMA at {address:#x}, which no attack was meant for")
    memory = [attack for attack in attacked if not FIRST_MESSAGE <= attack[0] <= LAST_MESSAGE]
    for start, end in memory:
        hit = any(start & ~0xFFF <= address < (end + 0xFFF & ~0xFFF) for address in refused)
        require(hit, f"the attack on {start:#x} is reported, and QEMU refused nothing there")
    recorded = len(run.events("vtd_frr_new"))
    require(run.number("faults") == recorded, f"faults={run.report['faults']}, QEMU recorded {recorded}")
    # Interrupts: what arrived from the device is what QEMU remapped for its entries, less those that merged in the APIC.
    entries = re.findall(r"MSI-X \d+ by remapping entry (\d+) and vector (0x[0-9a-f]+)", run.text())
    require(entries, "no message was routed")
    remapped = 0
    for event in run.events("vtd_ir_remap"):
        index, vector = re.search(r"index (\d+) .*?vector (\d+)", event).groups()
        remapped += (index, hex(int(vector))) in entries
    arrived = run.number("device_interrupts")
    require(0 < arrived <= remapped, f"device_interrupts={arrived}, QEMU remapped {remapped}")
    require(arrived * 2 >= remapped, f"device_interrupts={arrived}, of {remapped} that QEMU remapped: too many are lost")
    require(run.number("interrupts") >= arrived // 2, "most of the device's interrupts never reached the guest")
    return {"refused": len(refused), "recorded": recorded, "remapped": remapped, "arrived": arrived}


def refused(pattern, status=1):
    """A machine that must not run its guest, and must say why."""

    def judge(run):
        require(run.status == status, f"exit status {run.status}, expected {status}")
        run.require_line(pattern)
        run.require_report(result="fail")
        run.forbid_line(r"FATAL|^\[netprobe\]")

    return judge


def found_on_host(run):
    """A mistake that the check on the host finds: no machine is started, and the words are those of the hypervisor."""
    require(run.status == 1, f"exit status {run.status}, expected 1")
    words = r"config\.toml: line 8: there is no key \"memory_mb\" here; did you mean \"memory_mib\"\?"
    require(any(re.search(words, line) for line in run.errors), f"not on standard error: {words}")
    require(not run.lines, "a machine was started")


def bore_nmi(run):
    """NMIs arrive while the guest runs: the hypervisor counts them and goes on, and the guest sees nothing of them."""
    require(run.status == 0, f"exit status {run.status}")
    run.require_line(r"attack forged-nmi: (blocked|harmless)$")
    run.require_report(result="pass", dhcp="10.0.2.15", pings="10/10", attacks=1, after_attack_ping="1/1",
                       unexpected_vectors=0, guest="done", quarantined=0)
    # QEMU lets the messages pass. They are the only strays: no vector is among what is forged.
    require(run.number("stray_interrupts") >= 1, "no NMI arrived")
    run.forbid_line(r"FATAL|BREACH|^\[.*ERROR|which nobody was given")
    return {key: run.report[key] for key in ("engine", "stray_interrupts")}


def stormed(run):
    """A device that faults without end is taken out of service, and the machine goes on."""
    require(run.status == 0, f"exit status {run.status}")
    run.require_line(r"00:03\.0: too many faults: quarantined")
    run.require_report(quarantined=1, storm="stopped", result="pass")
    logged = len(re.findall(r"blocked: 00:03\.0", run.text()))
    require(logged <= 24, f"{logged} lines of faults: the storm was not throttled")
    # QEMU's own record ends with the quarantine: the context entry is gone and bus mastering is off.
    cleared = [match.start() for match in re.finditer(r"vtd_inv_desc_cc", run.trace)]
    require(cleared, "the trace has no invalidation of the context cache")
    after = run.trace[cleared[-1]:]
    require("vtd_frr_new" not in after, "the device went on after its quarantine")
    return {"faults": run.report["faults"]}


def passed_behind_bridge(run):
    passed(run)
    run.require_line(r"device 0000:01:00\.0: to guest 0")


def x2apic(run):
    passed(run)
    run.require_report(apic="x2apic")


def xapic(run):
    passed(run)
    run.require_report(apic="xapic")


def answered(run):
    passed(run)
    run.require_line(r"status: guest \"netprobe\" runs; \d+ exits")


# Machines -------------------------------------------------------------------------------------------------------------


def configuration(text):
    def prepare(folder):
        (folder / "config.toml").write_text(text)

    return prepare


def guest(name="netprobe", kernel="netprobe", memory="memory_mib = 16", command_line="", devices='"8086:10d3"', more="",
          keys=""):
    return f"""
[hypervisor]
debug_exit_port = 0xf4
{more}
[[guest]]
name = "{name}"
kernel = "{kernel}"
{memory}
command_line = "{command_line}"
devices = [{devices}]
{keys}
"""


def case_with(name, about, judge, text, more=(), unchecked=False, **fields):
    options = ["--config", "{folder}/config.toml"] + ["--unchecked"] * unchecked + (["--", *more] if more else [])
    return Case(name, about, judge, options=options, prepare=configuration(text), **fields)


def damaged(change):
    """The archive of an ordinary run, after `change` (bytes to bytes)."""

    def prepare(folder):
        image = TARGET / "images/netprobe"
        subprocess.run([ROOT / "guests/pack.sh", folder / "good.tar", ROOT / "guests/netprobe.toml", image], check=True)
        (folder / "bad.tar").write_bytes(change((folder / "good.tar").read_bytes()))

    return prepare


def flip_in_guest(archive):
    """One bit in the middle of the guest's code."""
    at = archive.index(b"\x7fELF") + 4096
    return archive[:at] + bytes([archive[at] ^ 1]) + archive[at + 1:]


def dmar(*structures):
    """A DMAR table for -acpitable: host address width 48 bits, interrupt remapping; QEMU adds header and checksum."""
    return struct.pack("<BB10x", 47, 1) + b"".join(structures)


def unit(base, length=16):
    """A remapping unit for all devices."""
    return struct.pack("<HHBBHQ", 0, length, 1, 0, 0, base)


def reserved_memory(base, limit, device):
    """Memory that firmware keeps for a device of the root bus."""
    return struct.pack("<HHHHQQ", 1, 32, 0, 0, base, limit) + bytes([1, 8, 0, 0, 0, 0, device, 0])


def with_dmar(name, about, pattern, table):
    def prepare(folder):
        (folder / "dmar").write_bytes(table)

    return Case(name, about, refused(pattern), prepare=prepare, options=[
        "--iommu", "none", "--", "-acpitable", "sig=DMAR,rev=1,oem_id=TEST,oem_table_id=TESTTBL,data={folder}/dmar"])


def with_edited_dmar(name, about, judge, edit):
    """The machine's own table, changed in memory before the hypervisor's first instruction: QEMU would mend a file."""

    def alongside(folder):
        image = TARGET / "images/postern"
        gdb_remote.at_entry(folder / "gdb", image, gdb_remote.change_table(b"DMAR", edit))

    return Case(name, about, judge, alongside=alongside,
                options=["--", "-S", "-gdb", "unix:{folder}/gdb,server=on,wait=off"])


def replace(at, value):
    """An edit that leaves the checksum right."""

    def edit(table):
        changed = bytearray(table)
        changed[at:at + len(value)] = value
        changed[9] = (changed[9] - sum(changed)) & 0xFF
        return bytes(changed)

    return edit


def with_broken_code(name, about, code, *patterns):
    """The hypervisor itself fails: the function that takes a guest's line of output is replaced by `code`."""

    def alongside(folder):
        built = TARGET / "x86_64-unknown-none/release/postern"
        names = subprocess.run(["nm", "-C", built], capture_output=True, text=True, check=True).stdout
        found = re.search(r"^([0-9a-f]+) t .*life::Machine as .*Host>::line$", names, re.M)
        physical = int(found.group(1), 16) - 0xFFFFFFFF80000000
        gdb_remote.at_entry(folder / "gdb", TARGET / "images/postern",
                            lambda remote: remote.write(physical, code + bytes([0xF4] * 8)))

    def judge(run):
        require(run.status == 1, f"exit status {run.status}")
        for pattern in patterns + (r"^  while serving guest 0$", r"^  rip 0xffff[0-9a-f]+ ", r"^  rax 0x",
                                   r"^  backtrace 0xffff[0-9a-f]+ 0xffffffff[0-9a-f]+ 0xffffffff"):
            run.require_line(pattern)

    return Case(name, about, judge, alongside=alongside,
                options=["--", "-S", "-gdb", "unix:{folder}/gdb,server=on,wait=off"])


CASES = [
    Case("netprobe", "the run of the README, within its budgets", within_budgets),
    Case("netprobe-trace", "the same, against QEMU's trace", as_traced, trace=True),
    Case("grub", "started by GRUB (Multiboot2)", passed, options=["--grub"]),
    Case("caching-mode", "a unit that caches what is absent", passed, options=["--iommu", "intremap=on,caching-mode=on"]),
    Case("39-bit", "a unit with three levels", passed, options=["--iommu", "intremap=on,aw-bits=39"]),
    Case("48-bit", "a unit with four levels", passed, options=["--iommu", "intremap=on,aw-bits=48"]),
    Case("extended-mode", "a unit with 32-bit APIC ids", x2apic, options=["--iommu", "intremap=on,eim=on"], needs=9),
    Case("no-extended-mode", "a unit without 32-bit APIC ids", xapic, options=["--iommu", "intremap=on,eim=off"]),
    Case("device-tlb", "a unit with device TLBs", passed, options=["--iommu", "intremap=on,device-iotlb=on"]),
    Case("no-drain", "a unit that cannot drain DMA", passed, options=["--iommu", "intremap=on,dma-drain=off"]),
    Case("large-machine", "memory above 4 GiB", passed, options=["--memory", "5G"]),
    Case("console", "a key is typed, its interrupt remapped through the I/O APIC", answered,
         typed=[(r"report: dhcp=", "s")]),
    case_with("storm", "a device that faults without end", stormed, guest(command_line="attack storm"), trace=True),
    case_with("forged-nmi", "a device sends NMIs to the processor while the guest runs", bore_nmi,
              guest(command_line="nmi")),
    case_with("by-address", "the device named by its address", passed,
              guest(command_line="attack image=0x1000000", devices='"0000:00:03.0"')),
    case_with("root-port", "the device behind a PCI Express root port", passed_behind_bridge,
              guest(command_line="attack image=0x1000000", devices='"0000:01:00.0"'), more=[
                  "-device", "pcie-root-port,id=rp0,slot=1,chassis=1", "-netdev", "user,id=n1",
                  "-device", "e1000e,bus=rp0,netdev=n1,romfile="]),
    case_with("pci-bridge", "the device behind a bridge to conventional PCI, whose requester id it has",
              passed_behind_bridge, guest(command_line="attack image=0x1000000", devices='"0000:01:00.0"'), more=[
                  "-device", "pcie-pci-bridge,id=bridge", "-netdev", "user,id=n1",
                  "-device", "e1000e,bus=bridge,addr=0,netdev=n1,romfile="]),
    case_with("shared-bridge", "a device that cannot be told apart from its neighbour behind a bridge",
              refused(r"0000:01:01\.0 cannot be assigned: it cannot be told apart from 0000:01:00\.0"),
              guest(devices='"0000:01:01.0"'), more=[
                  "-device", "pcie-pci-bridge,id=bridge", "-device", "edu,bus=bridge,addr=0",
                  "-netdev", "user,id=n1", "-device", "e1000e,bus=bridge,addr=1,netdev=n1,romfile="]),
    case_with("virtual-functions-of-none", "virtual functions for a guest whose device has none",
              refused(r"postern\.toml: virtual_functions: no device of guest \"netprobe\" has any"),
              guest(keys="virtual_functions = 2")),
    case_with("virtual-functions-too-many", "more virtual functions than the device has",
              refused(r"device 0000:00:05\.0 cannot be assigned: its virtual functions: it has 8"),
              guest(devices='"8086:10c9"', keys="virtual_functions = 9"),
              more=["-netdev", "user,id=n1", "-device", "igb,netdev=n1,addr=5"], needs=10),
    Case("two-processors", "a second processor, which stays parked", passed, options=["--", "-smp", "2"]),
    Case("no-nested-paging", "a processor whose SVM has no nested paging", refused(r"SVM has no nested paging"),
         options=["--", "-cpu", "qemu64"]),
    Case("no-interrupt-remapping", "no assignment without interrupt remapping",
         refused(r"device 0000:00:03\.0 cannot be assigned: .*cannot remap interrupts"),
         options=["--iommu", "intremap=off"]),
    Case("no-unit", "no VT-d at all", refused(r"cannot be assigned: the machine has no usable DMAR table"),
         options=["--iommu", "none"]),
    with_dmar("dmar-zero-length", "a structure of length 0 ends the table", r"DMAR structure at 0x30 of type 0: length below 4",
              dmar(unit(0xFED90000, length=0))),
    with_dmar("dmar-base-zero", "a unit at address 0", r"DMAR structure at 0x30 of type 0: register base 0", dmar(unit(0))),
    with_dmar("dmar-no-answer", "a unit that does not answer", r"unit at 0xfed90000: left out", dmar(unit(0xFED90000))),
    with_dmar("dmar-no-answer-device", "a device behind a unit that does not answer",
              r"postern\.toml: line 10: device 0000:00:03\.0 cannot be assigned: its remapping unit at 0xfed90000 does not answer",
              dmar(unit(0xFED90000))),
    with_dmar("dmar-reserved-memory", "a device that firmware uses",
              r"device 0000:00:03\.0 cannot be assigned: firmware uses it through reserved memory at 0x7000000 to 0x700ffff",
              dmar(unit(0xFED90000), reserved_memory(0x7000000, 0x700FFFF, 3))),
    with_dmar("dmar-past-end", "a structure that is longer than the table", r"DMAR structure at 0x30 of type 0: length 64, but 16 bytes are left",
              dmar(unit(0xFED90000, length=64))),
    with_dmar("dmar-empty", "a table without structures", r"DMAR: no usable remapping unit", dmar()),
    with_edited_dmar("dmar-checksum", "a table with a wrong checksum",
                     refused(r"cannot be assigned: the machine has no usable DMAR table"),
                     lambda table: table[:9] + bytes([table[9] ^ 1]) + table[10:]),
    # 48 bytes of header and table fields; in the DRHD after them, the base is at 8 and the first scope's length at 17.
    with_edited_dmar("dmar-real-base-zero", "the real unit's address is 0", refused(r"cannot be assigned: named by an unusable structure"),
                     replace(48 + 8, bytes(8))),
    with_edited_dmar("dmar-bad-scope", "a device scope of length 0", refused(r"cannot be assigned: perhaps named by an unreadable scope"),
                     replace(48 + 17, b"\0")),
    with_edited_dmar("dmar-unknown-type", "an unknown structure in place of the unit", refused(r"DMAR structure at 0x30 of unknown type 0x7fff: skipped"),
                     replace(48, b"\xff\x7f")),
    # push rbp; mov rbp, rsp, so that the backtrace has a frame; then what fails.
    with_broken_code("fatal-opcode", "the hypervisor executes an invalid opcode", bytes.fromhex("554889e5 0f0b"),
                     r"^FATAL: invalid opcode \(vector 6, error code 0x0\) in the hypervisor$"),
    with_broken_code("fatal-write", "the hypervisor writes to its own code: mov [rip], al",
                     bytes.fromhex("554889e5 880500000000"),
                     r"^FATAL: page fault \(vector 14, error code 0x3\)", r"^  address 0xffffffff8"),
    with_broken_code("fatal-stack", "the hypervisor's stack overflows into its guard page: push rax for ever",
                     bytes.fromhex("554889e5 50ebfd"), r"^FATAL: double fault \(vector 8", r"^  rsp 0xffffd0"),
    # The physical map is writable and must not be executable: jump to this very code through its other address.
    with_broken_code("fatal-execute", "the hypervisor jumps into the physical map",
                     bytes.fromhex("554889e5 48b8 0000000100 80ffff ffe0"),
                     r"^FATAL: page fault \(vector 14, error code 0x11\)", r"^  address 0xffff80000100"),
    Case("too-little-memory", "a machine too small for its guest", refused(r"too little memory for guest \"netprobe\""),
         options=["--memory", "24M"]),
    Case("no-archive", "no archive of guests", refused(r"no guest archive"), options=["--no-archive"]),
    Case("archive-flipped", "one bit of the guest flipped", refused(r"damaged: \"netprobe\" is not what SHA256SUMS says"),
         prepare=damaged(flip_in_guest), options=["--archive", "{folder}/bad.tar"]),
    Case("archive-cut", "an archive that ends early", refused(r"archive is damaged|archive has no member|damaged:"),
         prepare=damaged(lambda archive: archive[:len(archive) // 2 // 512 * 512]),
         options=["--archive", "{folder}/bad.tar"]),
    Case("archive-noise", "something else in its place", refused(r"archive"),
         prepare=damaged(lambda archive: bytes(range(256)) * 64), options=["--archive", "{folder}/bad.tar"]),
    Case("config-checked", "a misspelt key and a kernel that is not packed, found before anything starts", found_on_host,
         prepare=configuration(guest(memory="memory_mb = 16")), options=["--config", "{folder}/config.toml"]),
    case_with("config-misspelt", "a misspelt key", refused(r"postern\.toml: line 8: there is no key \"memory_mb\" here; did you mean \"memory_mib\"\?"),
              guest(memory="memory_mb = 16"), unchecked=True),
    case_with("config-no-device", "a device that is not there",
              refused(r"postern\.toml: line 10: this machine has no device 8086:10d4; did you mean \"8086:10d3\"\?; it has .*0000:00:03\.0 \(8086:10d3\)"),
              guest(devices='"8086:10d4"')),
    case_with("config-one-device-twice", "a device by its address and, though there is one, by its id",
              refused(r"postern\.toml: line 10: device 8086:10d3 is given out already; this machine has 1"),
              guest(devices='"8086:10d3", "00:03.0"')),
    case_with("config-bridge", "a bridge", refused(r"0000:00:00\.0 cannot be assigned|0000:00:1f\.0 cannot be assigned"),
              guest(devices='"0000:00:1f.0"')),
    case_with("config-no-kernel", "a kernel that is not in the archive",
              refused(r"postern\.toml: line 7: kernel: the archive has no member \"netprob\"; did you mean \"netprobe\"\?; it has: \"netprobe\""),
              guest(kernel="netprob"), unchecked=True),
    Case("config-not-elf", "a kernel that is no kernel", refused(r"neither a bzImage nor a sound ELF image"),
         prepare=configuration(guest(kernel="config.toml")),
         options=["--config", "{folder}/config.toml", "--file", "{folder}/config.toml"]),
]
