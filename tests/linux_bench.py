#!/usr/bin/env python3
"""See bench.sh, which is how this is called."""
import argparse
import dataclasses
import functools
import hashlib
import http.server
import os
import pathlib
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
#: What is fetched: random bytes, the same in every call.
FILE_BYTES = 16 << 20
PINGS = 20
#: The longest run, in seconds of this machine's time.
LIMIT = {"tcg": 300, "nested": 1500}
MACHINES = ("postern", "peer", "direct")
MISSING = 3
#: The HTTP server's port inside the nested rig.
NESTED_PORT = 8080

#: The figures: name, what it is, its unit, and whether more is better; None where neither is.
FIGURES = {
    "shell": ("power-on to the guest's first process", "s", False),
    "dhcp": ("power-on to a DHCP lease", "s", False),
    "ping": ("ping, mean", "ms", False),
    "http": ("16 MiB by HTTP", "MiB/s", True),
    "exits": ("VM exits in the guest's whole life", "", False),
    "injections": ("interrupts delivered to the guest", "", None),
}


class Failed(Exception):
    pass


@dataclasses.dataclass
class Run:
    """A run's console, each line with the seconds from power-on."""

    machine: str
    lines: list
    report: dict

    @functools.cached_property
    def figures(self):
        """The figures of FIGURES that this run has."""
        found = {}
        for figure, key in (("shell", "shell"), ("dhcp", "dhcp_at")):
            found[figure] = self.when(key)
        found["ping"] = float(self.report["ping_ms"])
        seconds = float(self.report["fetch_to"]) - float(self.report["fetch_from"])
        found["http"] = FILE_BYTES / (1 << 20) / seconds if seconds > 0 else None
        for key in ("exits",):
            if key in self.report:
                found[key] = int(self.report[key])
        for key in ("interrupts", "irq_injections"):
            if key in self.report:
                found["injections"] = int(self.report[key])
        return found

    def when(self, key):
        for seconds, line in self.lines:
            if re.search(rf"report: .*\b{key}=", line):
                return seconds
        raise Failed(f"{self.machine}: no {key}= on its console")


def data():
    """What is fetched."""
    return random.Random(0).randbytes(FILE_BYTES)


class File:
    """What is fetched, as a file, for the HTTP server that the nested rig has inside: it reaches nothing outside."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name) / "file"
        self.path.write_bytes(data())
        return self

    def __exit__(self, *_):
        self.folder.cleanup()

    url = f"http://10.0.2.2:{NESTED_PORT}/file"


class Server:
    """An HTTP server on loopback with one file."""

    path = None

    def __enter__(self):
        content = data()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()

    @property
    def url(self):
        # QEMU's user network has this machine at 10.0.2.2.
        return f"http://10.0.2.2:{self.server.server_address[1]}/file"


def checked(command, what):
    """Runs a preparation, with its words on standard error; what it printed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, cwd=ROOT)
    if done.returncode == MISSING:
        print(f"bench: {what} is missing (see above)", file=sys.stderr)
        sys.exit(MISSING)
    if done.returncode:
        raise Failed(f"{what}: exit status {done.returncode}")
    return done.stdout


def watch(machine, command, limit, keep, number, environment=None):
    """Runs a machine to its end, and notes when each line came."""
    print(f"bench: {machine}, run {number}", file=sys.stderr)
    begin = time.monotonic()
    nested = "--stamp" in map(str, command)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd=ROOT,
                               text=True, errors="replace", env=environment)
    timer = threading.Timer(limit, process.kill)
    timer.start()
    said = []
    reader = threading.Thread(target=lambda: said.extend(process.stderr), daemon=True)
    reader.start()
    lines, report = [], {}
    for line in process.stdout:
        line = line.rstrip("\r\n")
        seconds = time.monotonic() - begin
        if nested:
            # The rig's own clock.
            stamp, _, line = line.partition(" ")
            seconds = float(stamp) if re.fullmatch(r"\d+\.\d+", stamp) else seconds
        lines.append((seconds, line))
        found = re.search(r"report: (.*)", line)
        if found:
            report.update(word.split("=", 1) for word in found[1].split() if "=" in word)
    status = process.wait()
    timer.cancel()
    reader.join(5)
    if nested:
        started = [float(found[1]) for found in (re.search(r"QEMU starts at ([\d.]+) s", line) for line in said) if found]
        lines = [(seconds - (started or [0])[0], line) for seconds, line in lines]
    if keep:
        text = "".join(f"[{seconds:8.3f}] {line}\n" for seconds, line in lines)
        (keep / f"{machine}-{number}.log").write_text(text + "".join(said))
    run = Run(machine, lines, report)
    complete = (report.get("guest") == "done" and report.get("pings") == f"{PINGS}/{PINGS}"
                and report.get("fetched") == hashlib.md5(data()).hexdigest())
    if not complete:
        tail = "\n".join([line for _, line in lines][-15:] + [line.rstrip() for line in said][-5:])
        raise Failed(f"{machine}: exit status {status}, and the guest did not do what it should:\n{tail}")
    return run


def inner(qemu):
    """The QEMU that the peer has inside: the same, or the system's where that is a script, which does not run there."""
    path = shutil.which(qemu)
    with open(path, "rb") if path else open(os.devnull, "rb") as file:
        return qemu if file.read(4) == b"\x7fELF" else "qemu-system-x86_64"


class Machines:
    """How each machine is started."""

    def __init__(self, arguments, source):
        self.arguments, self.file = arguments, source.path
        folder = checked(["guests/linux/build.sh", "--suite", arguments.suite, "--peer", "--qemu", inner(arguments.qemu)],
                         "a Linux guest").strip()
        self.folder = pathlib.Path(folder)
        self.words = f"postern.pings={PINGS} postern.url={source.url}"
        # Power-on is QEMU's start: what comes before must not count.
        built = checked(["./run-qemu.sh", "linux", "--suite", arguments.suite, "--append", self.words, "--build-only"],
                        "the build of Postern").split()
        self.image, self.archive = built[0], built[-1]

    def qemu(self, memory, kernel, initrd, append=None):
        """The machine of run-qemu.sh, started from other files."""
        version = subprocess.run([self.arguments.qemu, "--version"], capture_output=True, text=True).stdout
        major = int(re.search(r"version (\d+)", version)[1])
        iommu = "intel-iommu,intremap=on" + (",eim=on" if major >= 9 else "")
        return ["-m", memory, "-device", iommu, "-netdev", "user,id=n0", "-device", "e1000e,netdev=n0,addr=3,romfile=",
                "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel", kernel, "-initrd", initrd,
                *(["-append", append] if append else [])]

    def command(self, machine):
        engine, folder = self.arguments.engine, self.folder
        linux = f"console=ttyS0 quiet panic=-1 intel_iommu=on {self.words}"
        kernel, initrd, memory, append = {
            "postern": (pathlib.Path(self.image), pathlib.Path(self.archive), "512M", None),
            "peer": (folder / "vmlinuz", folder / "peer", "1024M", linux),
            "direct": (folder / "vmlinuz", folder / "initrd", "256M", linux),
        }[machine]
        if engine == "nested":
            options = self.qemu(memory, f"/files/{kernel.name}", f"/files/{initrd.name}", append)
            return ["tests/rigs/nested.sh", "run", "--timeout", str(LIMIT[engine]), "--memory", "2048", "--stamp",
                    "--http", str(NESTED_PORT), kernel, initrd, self.file, "--",
                    *options]
        return [self.arguments.qemu, "-accel", "tcg", "-M", "q35,kernel-irqchip=split", "-cpu", "max", "-smp", "1", "-nodefaults",
                "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
                *self.qemu(memory, str(kernel), str(initrd), append)]


def median(runs, name):
    values = [run.figures[name] for run in runs if run.figures.get(name) is not None]
    return statistics.median(values) if values else None


def written(value):
    return "none" if value is None else f"{value:.0f}" if value >= 1000 else f"{value:.2f}"


def lines_of(results):
    """The lines to print."""
    for name in FIGURES:
        values = {machine: median(runs, name) for machine, runs in results.items()}
        words = [f"{machine}={written(values[machine])}" for machine in results]
        for other in ("peer", "direct"):
            if values.get(other) and values.get("postern") is not None:
                words.append(f"vs_{other}={values['postern'] / values[other]:.2f}")
        yield f"bench: {name} {' '.join(words)}"


def breakdown(results):
    """Where the exits went."""
    postern = results["postern"][-1].report
    yield "bench: exits of postern " + postern.get("exits_by_reason", "").replace(":", "=").replace(",", " ")
    if "peer" in results:
        peer = results["peer"][-1].report
        keys = ("io_exits", "mmio_exits", "irq_exits", "halt_exits", "irq_window_exits")
        yield "bench: exits of peer " + " ".join(f"{key.removesuffix('_exits')}={peer[key]}" for key in keys if key in peer)


def svg(results):
    """Bars: a group a figure, each bar relative to the longest of its group."""
    colours = {"postern": "#2f6f9f", "peer": "#b9812b", "direct": "#7a8a7a"}
    names = {"postern": "Postern", "peer": "Linux + KVM + VFIO", "direct": "no hypervisor"}
    rows, y = [], 58
    for name, (what, unit, more) in FIGURES.items():
        values = {machine: median(runs, name) for machine, runs in results.items()}
        values = {machine: value for machine, value in values.items() if value is not None}
        if not values:
            continue
        direction = {True: "(more is better)", False: "(less is better)", None: ""}[more]
        rows.append(f'<text x="20" y="{y}" class="what">{what} <tspan class="note">{direction}</tspan></text>')
        longest = max(values.values()) or 1
        for machine, value in values.items():
            y += 20
            width = max(2, round(430 * value / longest))
            rows.append(f'<text x="160" y="{y + 11}" class="name">{names[machine]}</text>'
                        f'<rect x="170" y="{y}" width="{width}" height="14" rx="2" fill="{colours[machine]}"/>'
                        f'<text x="{176 + width}" y="{y + 11}" class="value">{written(value)} {unit}</text>')
        y += 42
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="740" height="{y - 10}" viewBox="0 0 740 {y - 10}">'
            '<style>text{font-family:sans-serif;font-size:12px;fill:#222}.title{font-size:16px;font-weight:600}'
            '.what{font-weight:600}.note{font-weight:400;fill:#777}.name{text-anchor:end;fill:#555}.value{fill:#222}</style>'
            f'<rect width="740" height="{y - 10}" fill="#fff"/>'
            '<text x="20" y="28" class="title">A Linux guest with its own network card</text>'
            + "".join(rows) + "</svg>\n")


def main():
    parser = argparse.ArgumentParser(prog="bench.sh", description="See the beginning of bench.sh.")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--qemu", default=os.environ.get("QEMU", "qemu-system-x86_64"))
    parser.add_argument("--engine", choices=("tcg", "nested"), default="tcg")
    parser.add_argument("--suite", default="bookworm")
    parser.add_argument("--svg", type=pathlib.Path)
    parser.add_argument("--keep", type=pathlib.Path)
    arguments = parser.parse_args()
    nested = arguments.engine == "nested"
    rounds = arguments.rounds or (1 if nested else 3)
    if rounds < 1 or rounds > 100:
        parser.error("--rounds takes 1 to 100")
    machines = [machine for machine in MACHINES if not (nested and machine == "direct")]
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
    try:
        with File() if nested else Server() as source:
            ways = Machines(arguments, source)
            results = {machine: [] for machine in machines}
            for number in range(1, rounds + 1):
                for machine in machines:
                    run = watch(machine, ways.command(machine), LIMIT[arguments.engine] + 60, arguments.keep, number)
                    results[machine].append(run)
    except Failed as failure:
        print(f"bench: FAILED: {failure}", file=sys.stderr)
        return 1
    for line in (*lines_of(results), *breakdown(results)):
        print(line)
    if arguments.svg:
        arguments.svg.write_text(svg(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
