#!/usr/bin/env python3
"""Whole-machine tests: the real image on QEMU, judged by its serial line, its exit status and QEMU's own trace.

usage: tests/machine.py [--qemu PATH] [--label TEXT] [--list] [NAME...]

Runs the named cases (all without a name), one after the other, through ./run-qemu.sh. Prints a line a case, what was
measured, and `N passed, N failed`. Exit status 0 if all passed.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from cases import CASES as MACHINE_CASES  # noqa: E402
from exit_cases import EXIT_CASES, REFUSED_ENTRY_CASES  # noqa: E402
from multiboot_cases import MULTIBOOT_CASES  # noqa: E402
from tools.judge import Failure, Run  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent


CASES = MACHINE_CASES + EXIT_CASES + REFUSED_ENTRY_CASES + MULTIBOOT_CASES


def run_case(case, qemu, folder):
    """Boots one machine and returns what it did."""
    serial, trace = folder / "serial", folder / "trace"
    # A case that does not look at the trace is not slowed down by it.
    command = [str(ROOT / "run-qemu.sh"), "--engine", "tcg", "--timeout", str(case.timeout), "--serial", str(serial)]
    if case.trace:
        command += ["--trace", str(trace)]
    command += case.arguments(folder)
    environment = dict(os.environ)
    if qemu:
        environment["QEMU"] = qemu
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, errors="replace")
    lines, times, errors = [], {}, []
    start = {}

    def read_errors():
        for line in process.stderr:
            errors.append(line.rstrip())
            if line.startswith("run-qemu: QEMU "):
                start["time"] = time.monotonic()

    def read_lines():
        for line in process.stdout:
            line = line.rstrip()
            lines.append(line)
            times.setdefault(line, time.monotonic())
            for pattern, keys in case.typed:
                if re.search(pattern, line):
                    process.stdin.write(keys)
                    process.stdin.flush()

    readers = [threading.Thread(target=read_errors), threading.Thread(target=read_lines)]
    if case.alongside:
        def run_alongside():
            try:
                case.alongside(folder)
            except Exception as error:
                errors.append(f"alongside: {error}")
                process.terminate()

        readers.append(threading.Thread(target=run_alongside))
    for reader in readers:
        reader.start()
    status = process.wait()
    for reader in readers:
        reader.join()
    process.stdin.close()
    seconds = {line: moment - start["time"] for line, moment in times.items() if "time" in start}
    return Run(status, lines, errors, seconds, trace.read_text(errors="replace") if trace.exists() else "")


def qemu_version(qemu):
    """The major version of the QEMU that run-qemu.sh will take; 0 if it cannot be told."""
    try:
        text = subprocess.run([qemu or os.environ.get("QEMU", "qemu-system-x86_64"), "--version"], capture_output=True,
                              text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return 0
    found = re.search(r"version (\d+)\.", text)
    return int(found.group(1)) if found else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qemu", help="the QEMU to use (default: as run-qemu.sh)")
    parser.add_argument("--label", default="", help="what to call this QEMU in the output")
    parser.add_argument("--list", action="store_true", help="list the cases and stop")
    parser.add_argument("names", nargs="*", help="cases to run (default: all)")
    options = parser.parse_args()
    if options.list:
        for case in CASES:
            print(f"{case.name:28} {case.about}")
        return 0
    unknown = set(options.names) - {case.name for case in CASES}
    if unknown:
        print(f"no such case: {', '.join(sorted(unknown))} (see --list)", file=sys.stderr)
        return 2
    version = qemu_version(options.qemu)
    chosen = [case for case in CASES if not options.names or case.name in options.names]
    passed, failed, skipped = 0, 0, 0
    for case in chosen:
        label = f"{case.name}{f' ({options.label})' if options.label else ''}"
        if version < case.needs:
            skipped += 1
            print(f"SKIPPED: machine {label}: needs QEMU {case.needs}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            begin = time.monotonic()
            run = run_case(case, options.qemu, pathlib.Path(folder))
            try:
                figures = case.judge(run) or {}
                verdict = "ok"
                passed += 1
            except Failure as failure:
                figures, verdict = {}, f"FAILED: {failure}"
                failed += 1
            text = "".join(f" {key}={value}" for key, value in figures.items())
            print(f"machine {label}: {verdict} ({time.monotonic() - begin:.1f} s){text}", flush=True)
            if verdict != "ok":
                print("\n".join(f"    | {line}" for line in (run.lines + run.errors)[-60:]), flush=True)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
