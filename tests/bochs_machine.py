#!/usr/bin/env python3
"""Whole-machine tests on Bochs: the real image on processors with VMX that this machine need not have.

usage: tests/bochs_machine.py [--model MODEL]... [--list] [NAME...]

Runs the named cases (all without a name) on each of their processor models, or on the models given. Prints a line a run, what
was measured, and `N passed, N failed`; a rig that cannot be had makes its cases skipped, by name. Exit status 0 if nothing failed.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from bochs_cases import CASES  # noqa: E402
from tools.judge import Failure, Run  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
RIGS = ROOT / "tests" / "rigs"
#: What every script here ends with when something it needs cannot be had.
UNAVAILABLE = 3


class Unavailable(Exception):
    """A rig cannot be had on this machine."""


def make_iso(options, folder):
    """Builds the image and its archive, and the CD that starts them; returns the CD's path."""
    iso, archive = folder / "postern.iso", "none"
    command = [str(ROOT / "run-qemu.sh"), "--build-only", *options]
    paths = checked(command).split()
    # The image, the test guest, and the archive unless there is none.
    if len(paths) > 2:
        archive = paths[2]
    checked([str(RIGS / "iso.sh"), paths[0], archive, str(iso)])
    return iso


def checked(command):
    """Runs a command that must succeed, and returns its standard output."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
    if done.returncode == UNAVAILABLE:
        raise Unavailable((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def run_case(case, model, folder):
    """Boots one machine and returns what it did; the trace of the run is Bochs's log."""
    log = folder / "bochs.log"
    if case.rig == "bochs":
        command = [str(RIGS / "bochs.sh"), "run", "--cpu", model, "--memory", str(case.memory),
                   "--timeout", str(case.timeout), "--log", str(log), str(make_iso(case.arguments(folder), folder))]
    else:
        command = [str(ROOT / "run-qemu.sh"), "--engine", "nested", "--nested-cpu", model,
                   "--timeout", str(case.timeout), *case.arguments(folder)]
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, errors="replace")
    lines, times, errors = [], {}, []
    reader = threading.Thread(target=lambda: errors.extend(line.rstrip() for line in process.stderr))
    reader.start()
    for line in process.stdout:
        line = line.rstrip()
        lines.append(line)
        times.setdefault(line, time.monotonic() - start)
    status = process.wait()
    reader.join()
    if status == UNAVAILABLE:
        raise Unavailable((errors or ["no reason given"])[-1])
    return Run(status, lines, errors, times, log.read_text(errors="replace") if log.exists() else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", help="a processor model in place of the cases' own; may be repeated")
    parser.add_argument("--list", action="store_true", help="list the cases and stop")
    parser.add_argument("names", nargs="*", help="cases to run (default: all)")
    options = parser.parse_args()
    if options.list:
        for case in CASES:
            print(f"{case.name:20} {case.about} ({', '.join(case.models)})")
        return 0
    unknown = set(options.names) - {case.name for case in CASES}
    if unknown:
        print(f"no such case: {', '.join(sorted(unknown))} (see --list)", file=sys.stderr)
        return 2
    # Building says what it does, and takes a while only the first time.
    unavailable, failed = {}, 0
    chosen = [case for case in CASES if not options.names or case.name in options.names]
    for rig in sorted({case.rig for case in chosen}):
        status = subprocess.run([str(RIGS / f"{rig}.sh"), "build"], stdin=subprocess.DEVNULL).returncode
        if status == UNAVAILABLE:
            unavailable[rig] = "the rig cannot be had here (see above)"
        elif status != 0:
            print(f"{rig} rig: FAILED: its build ended with {status}", flush=True)
            failed += 1
    passed, skipped = 0, 0
    for case, model in ((case, model) for case in chosen for model in options.model or case.models):
        label = f"{case.rig} {case.name} ({model})"
        begin, run, figures = time.monotonic(), None, {}
        with tempfile.TemporaryDirectory() as folder:
            try:
                if case.rig in unavailable:
                    raise Unavailable(unavailable[case.rig])
                run = run_case(case, model, pathlib.Path(folder))
                figures = case.judge(run) or {}
                verdict = "ok"
                passed += 1
            except Unavailable as reason:
                skipped += 1
                print(f"SKIPPED: {label}: {reason}", flush=True)
                continue
            except Failure as failure:
                verdict = f"FAILED: {failure}"
                failed += 1
        text = "".join(f" {key}={value}" for key, value in figures.items())
        print(f"{label}: {verdict} ({time.monotonic() - begin:.1f} s){text}", flush=True)
        if verdict != "ok" and run:
            print("\n".join(f"    | {line}" for line in (run.lines + run.errors)[-60:]), flush=True)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
