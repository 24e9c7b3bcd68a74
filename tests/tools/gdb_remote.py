"""Stops a machine at its kernel's first instruction and changes its memory, through QEMU's GDB stub: for what firmware
could have left there and QEMU would not."""
import re
import socket
import struct
import time


class Remote:
    """A connection to QEMU's GDB stub on a Unix socket."""

    def __init__(self, path, seconds=20):
        self.socket = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + seconds
        while True:
            try:
                self.socket.connect(str(path))
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        self.socket.settimeout(seconds)
        self.buffer = b""

    def ask(self, command):
        """Sends one packet and returns the answer's text."""
        self.socket.sendall(b"$%s#%02x" % (command.encode(), sum(command.encode()) & 0xFF))
        return self.answer()

    def answer(self):
        while True:
            found = re.search(rb"\$([^#]*)#[0-9a-f]{2}", self.buffer)
            if found:
                self.buffer = self.buffer[found.end():]
                self.socket.sendall(b"+")
                return found.group(1).decode()
            data = self.socket.recv(65536)
            if not data:
                raise OSError("QEMU closed the connection")
            self.buffer += data

    def read(self, address, length):
        data = b""
        while len(data) < length:
            data += bytes.fromhex(self.ask(f"m{address + len(data):x},{min(1024, length - len(data)):x}"))
        return data

    def write(self, address, data):
        if self.ask(f"M{address:x},{len(data):x}:{data.hex()}") != "OK":
            raise OSError("QEMU did not write")


def pvh_entry(image):
    """The address in an ELF image's PVH note (type 18, name Xen)."""
    data = image.read_bytes()
    note = data.index(struct.pack("<II", 8, 18) + b"Xen\0")
    return struct.unpack_from("<Q", data, note + 12)[0]


def at_entry(path, image, change):
    """Lets the machine run to the image's PVH entry, calls `change(remote)`, and lets it run on."""
    remote = Remote(path)
    entry = pvh_entry(image)
    remote.ask("?")
    if remote.ask(f"Z1,{entry:x},1") != "OK":
        raise OSError("QEMU set no breakpoint")
    stopped = remote.ask("c")
    if not stopped.startswith(("T05", "S05")):
        raise OSError(f"the machine stopped in another way: {stopped}")
    change(remote)
    remote.ask(f"z1,{entry:x},1")
    remote.socket.sendall(b"$D#44")


def change_table(signature, edit, memory=256 << 20, window=256 << 10):
    """For `at_entry`: finds the ACPI table near the end of memory and replaces it by `edit(bytes)`."""

    def change(remote):
        start = memory - window
        data = remote.read(start, window)
        for found in re.finditer(re.escape(signature), data):
            at = found.start()
            length = struct.unpack_from("<I", data, at + 4)[0]
            table = data[at:at + length]
            if 36 <= length <= 4096 and len(table) == length and sum(table) & 0xFF == 0:
                remote.write(start + at, edit(table)[:length])
                return
        raise OSError("the table is not where it was expected")

    return change
