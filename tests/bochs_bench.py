#!/usr/bin/env python3
"""What exits, interrupts and sleep cost a guest, counted on Bochs, where one tick of the TSC is one instruction.

usage: tests/bochs_bench.py [--model MODEL]...

Boots the image with the guest `exitprobe bench` on a processor of each kind, or on the models given, and prints a Markdown table
of the medians. The first model is run twice, and both runs must give the same figures; and a CPUID of the guest's must cost at
most LIMIT instructions beyond its own. Exit status 0 if so, 1 if not, 3 if Bochs cannot be had.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from bochs_cases import DELIVERY, EACH_KIND, POSTING, SOFTWARE, Case  # noqa: E402
from bochs_machine import RIGS, UNAVAILABLE, Unavailable, make_iso  # noqa: E402
from exit_cases import exit_case  # noqa: E402
from tools.judge import Failure, Run, require  # noqa: E402

#: The figures of the guest, by name.
FIGURES = {
    "cpuid": "CPUID, round trip",
    "rdmsr": "RDMSR of the x2APIC timer's current count, round trip",
    "wrmsr": "WRMSR of the x2APIC timer's divider, round trip",
    "arm-count": "WRMSR of the x2APIC timer's initial count",
    "arm-deadline": "WRMSR of IA32_TSC_DEADLINE",
    "out": "OUT to an unused port, round trip",
    "device": "interrupt of a device while running, until its handler",
    "self-ipi": "self-IPI, until its handler",
    "eoi": "end of interrupt",
    "timer": "timer interrupt while running, until its handler",
    "timer-late": "timer interrupt while running, after its time",
    "deadline-late": "TSC deadline while running, after its time",
    "deadline-wake": "TSC deadline while halted, after its time",
    "wake": "timer interrupt while halted, after its time",
    "hlt": "HLT with an interrupt pending, until its handler",
}
#: The most instructions of the hypervisor's in the round trip of a CPUID.
LIMIT = 600
#: What the emulated processor counts for the CPUID itself.
OWN = 1
WAYS = {"posting": POSTING, "delivery": DELIVERY, "software": SOFTWARE}


def judge(run):
    """The guest has measured everything: the medians and, in brackets in the table, the least."""
    require(run.status == 0, f"exit status {run.status}")
    run.require_report(result="pass", guest="done", engine="vmx")
    return {name: (run.number(f"bench-{name}"), run.number(f"bench-{name}-min")) for name in FIGURES}


def make_bench_iso(folder):
    """One CD for all runs: a change of the sources meanwhile must not look like a difference between processors or runs."""
    guest = exit_case("bench", judge.__doc__, judge, command_line="bench", doorbell="doorbell_port = 0x81")
    return make_iso(Case(guest.name, guest.about, judge, prepare=guest.prepare, options=guest.options).arguments(folder), folder)


def measure(model, iso):
    done = subprocess.run([str(RIGS / "bochs.sh"), "run", "--cpu", model, str(iso)], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, errors="replace")
    if done.returncode == UNAVAILABLE:
        raise Unavailable((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    run = Run(done.returncode, done.stdout.splitlines(), done.stderr.splitlines(), {}, "")
    try:
        return judge(run)
    except Failure:
        print("\n".join(f"    | {line}" for line in (run.lines + run.errors)[-40:]), file=sys.stderr)
        raise


def heading(model):
    way = next((way for way, models in WAYS.items() if model in models), None)
    return f"{model} ({way})" if way else model


def table(results):
    rows = [["ticks: median (least)", *map(heading, results)], ["---"] + ["---:"] * len(results)]
    for name, what in FIGURES.items():
        rows.append([what] + ["{} ({})".format(*figures[name]) for figures in results.values()])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", help="a processor model in place of one of each kind; may be repeated")
    models = parser.parse_args().model or EACH_KIND
    status = subprocess.run([str(RIGS / "bochs.sh"), "build"], stdin=subprocess.DEVNULL).returncode
    if status != 0:
        print("SKIPPED: Bochs cannot be had (see above)" if status == UNAVAILABLE else f"Bochs's build ended with {status}")
        return status if status == UNAVAILABLE else 1
    try:
        with tempfile.TemporaryDirectory() as folder:
            iso = make_bench_iso(pathlib.Path(folder))
            results = {model: measure(model, iso) for model in models}
            again = measure(models[0], iso)
    except Unavailable as reason:
        print(f"SKIPPED: {reason}")
        return UNAVAILABLE
    except Failure as failure:
        print(f"FAILED: {failure}")
        return 1
    print(table(results))
    print()
    good = again == results[models[0]]
    print(f"two runs on {models[0]}: " + ("the same figures" if good else f"DIFFERENT, the second: {again}"))
    for model, figures in results.items():
        cost = figures["cpuid"][0] - OWN
        good &= cost <= LIMIT
        print(f"CPUID on {model}: {cost} instructions of the hypervisor's, at most {LIMIT}: {'ok' if cost <= LIMIT else 'OVER'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
