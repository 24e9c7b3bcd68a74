#!/usr/bin/env python3
"""Linux as a guest with its own network card, on the real image.

usage: tests/linux_machine.py [--qemu LABEL=PATH]... [--no-nested] [--only WORD]

For each QEMU (default: the system's), Debian's kernels boot as guests and use the card; with one that has virtual functions
which work (10.0.6 or newer, with igb), they use those too; and once in the nested rig, on VMX.
Prints a line a case and ends with `N passed, N failed`. What cannot be had here is `SKIPPED: ...`, by name.
"""
import argparse
import hashlib
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MISSING = 3
DISK_BYTES = 4 << 20
#: What a kernel says when something is wrong with its machine. (RETBleed: the processor of the nested rig has no speculation control.)
COMPLAINTS = re.compile(r"BUG|(?<!RETBleed: )WARNING|Oops|Call Trace|unchecked MSR|unexpected IRQ|soft lockup|hung task|spurious|Firmware Bug|panic -")


def start(*command):
    """Runs a command of the project. Raises LookupError for what cannot be had."""
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, text=True, errors="replace", cwd=ROOT)
    if done.returncode == MISSING:
        raise LookupError((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    return done


def judge(name, done):
    """What is wrong with a guest's run, by its report, and the words for it; the report."""
    report = dict(word.split("=", 1) for line in re.findall(r"^report: (.*)", done.stdout, re.M) for word in line.split() if "=" in word)
    complaint = COMPLAINTS.search(done.stdout)
    wanted = {"result": "pass", "guest": "done", "pings": "10/10", "faults": "0", "quarantined": "0"}
    wrong = {key: report.get(key) for key, value in wanted.items() if report.get(key) != value}
    if "engine" in name and report.get("engine") != "vmx":
        wrong["engine"] = report.get("engine")
    if not re.search(r"^\[linux\] linux: .* 20[2-9]\d-\d\d-\d\dT", done.stdout, re.M):
        wrong["date"] = "not of this century's"
    if int(report.get("device_interrupts", 0)) < 20:
        wrong["device_interrupts"] = report.get("device_interrupts")
    if complaint:
        wrong["the kernel says"] = complaint[0]
    return wrong, report


def words(done, wrong):
    """Why a run failed, with its end; None if nothing is wrong."""
    if not done.returncode and not wrong:
        return None
    tail = "\n".join(f"    | {line}" for line in (done.stdout + done.stderr).splitlines()[-25:])
    return f"exit status {done.returncode}, {wrong}\n{tail}"


def run(name, *options):
    """One guest; None if it did what it should, else why not."""
    done = start("./run-qemu.sh", "linux", *options, "--append", "postern.dmesg")
    wrong, report = judge(name, done)
    print(f"linux {name}: exits={report.get('exits')} shell={report.get('shell')} dhcp_at={report.get('dhcp_at')} ", end="")
    return words(done, wrong)


def boot(qemu, *options, suite="bookworm", memory="512M", guest_mib=256, words="", devices='"8086:10d3"', more=""):
    """A Linux guest with these devices and words on its kernel's command line, on a machine with these options of QEMU's."""
    folder = pathlib.Path(start("guests/linux/build.sh", "--suite", suite).stdout.strip())
    with tempfile.TemporaryDirectory() as scratch:
        config = pathlib.Path(scratch, "guest.toml")
        config.write_text(f"""\
[hypervisor]
debug_exit_port = 0xf4

[[guest]]
name = "linux"
kernel = "vmlinuz"
initrd = "initrd"
memory_mib = {guest_mib}
command_line = "console=ttyS0 quiet panic=-1 postern.dmesg {words}"
devices = [{devices}]
{more}
""")
        return start("./run-qemu.sh", "--engine", "tcg", "--qemu", qemu, "--memory", memory, "--config", str(config), "--file",
                     str(folder / "vmlinuz"), "--file", str(folder / "initrd"), "--timeout", "240", *options)


def has_virtual_functions(qemu):
    """Whether a QEMU has a card with virtual functions that work."""
    version = subprocess.run([qemu, "--version"], capture_output=True, text=True).stdout
    numbers = tuple(map(int, re.findall(r"\d+", version)[:3]))
    options = subprocess.run([qemu, "-device", "igb,help"], capture_output=True, text=True).stdout
    return numbers >= (10, 0, 6) and "igb options" in options


def virtual_functions(name, qemu, suite, *devices):
    """A guest enables virtual functions of its card, uses each, resets one, goes back to none and to one, and resets the card; None
    if all of that did what it should, else why not. What the guest and the hypervisor say is compared with QEMU's trace."""
    with tempfile.TemporaryDirectory() as scratch:
        trace = pathlib.Path(scratch, "trace")
        done = boot(qemu, "--trace", str(trace), "--", "-netdev", "user,id=n1", *devices, suite=suite,
                    words="postern.vfs=2 postern.reset", devices='"8086:10c9"', more="virtual_functions = 2")
        traced = trace.read_text(errors="replace") if trace.exists() else ""
    wrong, report = judge(name, done)
    used = re.findall(r"^\[linux\] report: vf=(\S+) vf_dhcp=([0-9.]+) vf_pings=(\S+)", done.stdout, re.M)
    # Where the hypervisor puts them, in this order: both, and the first once more.
    if [(place, pings) for place, _, pings in used] != [(place, "10/10") for place in ("0000:00:10.0", "0000:00:10.1", "0000:00:10.0")]:
        wrong["virtual functions"] = used
    if report.get("vfs_left") != "0":
        wrong["vfs_left"] = report.get("vfs_left")
    counts = re.findall(r"device (\S+): (\d+) virtual functions are switched on", done.stdout)
    if [count for _, count in counts] != ["2", "1", "1"]:
        wrong["switched on"] = counts
    card = counts[0][0] if counts else None
    # The first two vectors of each are for what it receives and sends: the unit let them through, under the device's own id.
    ways = set(re.findall(r" (\S+): MSI-X [01] by remapping entry (\d+) ", done.stdout))
    ways = sorted((device, entry) for device, entry in ways if device != card)
    if len(ways) != 4:
        wrong["ways"] = ways
    for device, entry in ways:
        remapped = len(re.findall(rf"vtd_ir_remap index {entry} ", traced))
        if remapped < 10:
            wrong[f"{device} by entry {entry}"] = f"{remapped} interrupts"
    faults = re.findall(r"vtd_dmar_fault.*|vtd_frr_new.*", traced)
    if faults:
        wrong["QEMU's faults"] = faults[:4]
    interrupts = sum(map(int, re.findall(r"linux: +\d+: +(\d+) .* eth[1-9]", done.stdout)))
    print(f"linux {name}: exits={report.get('exits')} vf_interrupts={interrupts} ", end="")
    return words(done, wrong)


def narrow_device(name, qemu):
    """A device with a 28-bit limit copies memory of a guest that is above 4 GiB on the machine, and QEMU's trace says so; None if it
    did, else why not."""
    with tempfile.TemporaryDirectory() as scratch:
        trace = pathlib.Path(scratch, "trace")
        # So much memory that it lies above 4 GiB.
        done = boot(qemu, "--", "-device", "edu,addr=5", "-d", "trace:vtd_dmar_translate", "-D", str(trace), memory="6G", guest_mib=2048,
                    words="memmap=64K$0x8000000 postern.edu=0x8000000", devices='"8086:10d3", "1234:11e8"')
        traced = trace.read_text(errors="replace") if trace.exists() else ""
    wrong, report = judge(name, done)
    copied = report.get("edu_first"), report.get("edu_last")
    if copied != ("0x0123456789ABCDEF", "0xFEDCBA9876543210"):
        wrong["copied"] = copied
    # One page of 1 GiB has all that the device can name.
    places = re.findall(r"vtd_dmar_translate dev 00:05.00 iova 0x0 -> gpa 0x([0-9a-f]+)", traced)
    if not places or not all(int(place, 16) >= 1 << 32 for place in places):
        wrong["translated"] = places or re.findall(r"vtd_dmar_translate.*", traced)[:3]
    print(f"linux {name}: exits={report.get('exits')} ", end="")
    return words(done, wrong)


def disks(name, qemu):
    """A guest reads two disks by its own drivers, one NVMe's and one on USB, by interrupts of theirs; None if it read what is on them,
    else why not."""
    with tempfile.TemporaryDirectory() as scratch:
        wanted, drives = {}, []
        for seed, disk in enumerate(("nvme0n1", "sda")):
            content = random.Random(seed).randbytes(DISK_BYTES)
            pathlib.Path(scratch, disk).write_bytes(content)
            wanted[disk] = hashlib.md5(content).hexdigest()
            drives += ["-drive", f"file={scratch}/{disk},if=none,id={disk},format=raw"]
        done = boot(qemu, "--", *drives, "-device", "nvme,drive=nvme0n1,serial=1,addr=5", "-device", "qemu-xhci,id=usb,addr=6",
                    "-device", "usb-storage,drive=sda,bus=usb.0", words="postern.disks=nvme0n1,sda",
                    devices='"8086:10d3", "1b36:0010", "1b36:000d"')
    wrong, report = judge(name, done)
    wrong.update({disk: report.get(disk) for disk, content in wanted.items() if report.get(disk) != content})
    for driver, least in (("nvme0q1", 20), ("xhci_hcd", 20)):
        interrupts = sum(map(int, re.findall(rf"linux: +\d+: +(\d+) .*{driver}", done.stdout)))
        if interrupts < least:
            wrong[driver] = f"{interrupts} interrupts"
    print(f"linux {name}: exits={report.get('exits')} ", end="")
    return words(done, wrong)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qemu", action="append", metavar="LABEL=PATH", help="a QEMU to use; may be repeated")
    parser.add_argument("--no-nested", action="store_true", help="leave the nested rig out")
    parser.add_argument("--only", default="", metavar="WORD", help="only the cases with this in their name")
    arguments = parser.parse_args()
    qemus = [qemu.split("=", 1) for qemu in arguments.qemu or ["system=qemu-system-x86_64"]]
    cases = [(run, f"{suite} on {label}", "--engine", "tcg", "--qemu", path, "--suite", suite)
             for label, path in qemus for suite in ("bookworm", "trixie")]
    cases += [(disks, f"with disks on {label}", path) for label, path in qemus]
    cases += [(narrow_device, f"with a device of 28 bits on {label}", path) for label, path in qemus]
    port = "-device", "pcie-root-port,id=below,addr=6", "-device", "igb,netdev=n1,bus=below"
    able = [(label, path) for label, path in qemus if has_virtual_functions(path)]
    for label, path in able:
        cases.append((virtual_functions, f"bookworm, virtual functions on {label}", path, "bookworm", "-device", "igb,netdev=n1,addr=5"))
        cases.append((virtual_functions, f"trixie, virtual functions behind a port on {label}", path, "trixie", *port))
    if not able:
        print("SKIPPED: virtual functions in a Linux guest: no QEMU here has an igb whose virtual functions work (10.0.6 and newer have)")
    if not arguments.no_nested:
        cases.append((run, "bookworm nested (engine vmx)", "--engine", "nested"))
    cases = [case for case in cases if arguments.only in case[1]]
    passed = failed = 0
    for case, name, *options in cases:
        begin = time.monotonic()
        try:
            why = case(name, *options)
        except LookupError as missing:
            print(f"SKIPPED: linux {name}: {missing}")
            continue
        if why is None:
            passed += 1
            print(f"ok ({time.monotonic() - begin:.0f} s)", flush=True)
        else:
            failed += 1
            print(f"FAILED: {why}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
