"""What a run of the machine did, and questions about it."""
import re


class Failure(Exception):
    """A run was not as it must be."""


def require(condition, what):
    if not condition:
        raise Failure(what)


class Run:
    """One boot: exit status, serial lines, what run-qemu.sh and QEMU said, seconds from QEMU's start, QEMU's trace."""

    def __init__(self, status, lines, errors, seconds, trace):
        self.status, self.lines, self.errors, self.seconds, self.trace = status, lines, errors, seconds, trace
        self.report = {}
        for line in lines:
            if line.startswith("report:"):
                self.report.update(word.split("=", 1) for word in line.split()[1:] if "=" in word)

    def text(self):
        return "\n".join(self.lines)

    def find(self, pattern):
        return re.search(pattern, self.text(), re.M)

    def require_line(self, pattern):
        require(self.find(pattern), f"no line matches {pattern!r}")

    def forbid_line(self, pattern):
        found = self.find(pattern)
        require(not found, f"a line matches {pattern!r}: {found and found.group(0)!r}")

    def number(self, key):
        require(self.report.get(key, "").isdigit(), f"the report has no number {key}: {self.report.get(key)!r}")
        return int(self.report[key])

    def require_report(self, **expected):
        for key, value in expected.items():
            require(self.report.get(key) == str(value), f"report: {key}={self.report.get(key)}, expected {value}")

    def seconds_to(self, pattern):
        """Seconds from QEMU's start to the first line that matches."""
        for line, seconds in self.seconds.items():
            if re.search(pattern, line):
                return seconds
        raise Failure(f"no line matches {pattern!r}")

    def events(self, name):
        """The arguments of each trace event of this name, as text."""
        return re.findall(rf"(?:^|:){name} (.*)$", self.trace, re.M)
