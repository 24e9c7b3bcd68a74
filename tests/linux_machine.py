#!/usr/bin/env python3
"""Linux as a guest with its own network card, on the real image.

usage: tests/linux_machine.py [--qemu LABEL=PATH]... [--no-nested]

For each QEMU (default: the system's), Debian's kernels boot as guests and use the card; and once in the nested rig, on VMX.
Prints a line a case and ends with `N passed, N failed`. What cannot be had here is `SKIPPED: ...`, by name.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MISSING = 3
#: What a kernel says when something is wrong with its machine. (RETBleed: no speculation control is shown to guests.)
COMPLAINTS = re.compile(r"BUG|(?<!RETBleed: )WARNING|Oops|Call Trace|unchecked MSR|unexpected IRQ|soft lockup|hung task|spurious|Firmware Bug|panic -")


def run(name, *options):
    """One guest; None if it did what it should, else why not. Raises LookupError for what cannot be had."""
    command = ["./run-qemu.sh", "linux", *options, "--append", "postern.dmesg"]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, text=True, errors="replace", cwd=ROOT)
    if done.returncode == MISSING:
        raise LookupError((done.stderr.strip().splitlines() or ["no reason given"])[-1])
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
    if done.returncode or wrong or complaint:
        words = f"exit status {done.returncode}, {wrong}" + (f", the kernel says {complaint[0]!r}" if complaint else "")
        tail = "\n".join(f"    | {line}" for line in (done.stdout + done.stderr).splitlines()[-25:])
        return f"{words}\n{tail}"
    print(f"linux {name}: ok exits={report.get('exits')} shell={report.get('shell')} dhcp_at={report.get('dhcp_at')} ", end="")
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qemu", action="append", metavar="LABEL=PATH", help="a QEMU to use; may be repeated")
    parser.add_argument("--no-nested", action="store_true", help="leave the nested rig out")
    arguments = parser.parse_args()
    qemus = [qemu.split("=", 1) for qemu in arguments.qemu or ["system=qemu-system-x86_64"]]
    cases = [(f"{suite} on {label}", "--engine", "tcg", "--qemu", path, "--suite", suite)
             for label, path in qemus for suite in ("bookworm", "trixie")]
    if not arguments.no_nested:
        cases.append(("bookworm nested (engine vmx)", "--engine", "nested"))
    passed = failed = 0
    for name, *options in cases:
        begin = time.monotonic()
        try:
            why = run(name, *options)
        except LookupError as missing:
            print(f"SKIPPED: linux {name}: {missing}")
            continue
        if why is None:
            passed += 1
            print(f"({time.monotonic() - begin:.0f} s)", flush=True)
        else:
            failed += 1
            print(f"linux {name}: FAILED: {why}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
