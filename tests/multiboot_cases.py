"""Cases of tests/machine.py and tests/bochs_machine.py for what Multiboot kernels are told: a guest of a few dozen bytes."""
import struct

from cases import Case
from tools.judge import require

MAGIC, LOADED = 0x1BADB002, 0x2BADB002
#: Modules at pages of their own; the header says where the image is loaded.
FLAGS = 1 | 1 << 16
LOAD = 0x10_0000
DEBUG_EXIT, SERIAL = 0x501, 0x3F8

CONFIGURATION = f"""
[hypervisor]
debug_exit_port = 0xf4
[[guest]]
name = "multiboot"
kernel = "kernel"
memory_mib = 4
command_line = "one two"
modules = ["first", "second"]
debug_exit_port = {DEBUG_EXIT:#x}
"""


def word(value):
    return struct.pack("<I", value)


def kernel():
    """An image that prints its command line, the first module and the second one's name, and ends with status 0; where it
    is not told what Multiboot says, it ends with another."""
    print_esi = (
        # mov dx, SERIAL; next: lodsb; test al, al; jz done; out dx, al; jmp next; done: mov al, 10; out dx, al
        b"\x66\xba" + struct.pack("<H", SERIAL) + bytes.fromhex("ac 84c0 7403 ee ebf8 b00a ee"))
    exit_with_eax = b"\x66\xba" + struct.pack("<H", DEBUG_EXIT) + bytes.fromhex("ef")
    code = (
        b"\x3d" + word(LOADED) + b"\x74" + bytes([len(exit_with_eax)]) + exit_with_eax +  # cmp eax, LOADED; je on
        bytes.fromhex("8b7310") + print_esi +        # mov esi, [ebx + 16]: the command line
        bytes.fromhex("8b4b18 8b31") + print_esi +   # mov ecx, [ebx + 24]; mov esi, [ecx]: the first module
        bytes.fromhex("8b7118") + print_esi +        # mov esi, [ecx + 16 + 8]: the second one's name
        bytes.fromhex("8b4314 83e802") +             # mov eax, [ebx + 20]; sub eax, 2: the number of modules
        exit_with_eax)
    size = 32 + len(code)
    # Of the image's end and a bss the header says nothing.
    header = [MAGIC, FLAGS, -(MAGIC + FLAGS) & 0xFFFF_FFFF, LOAD, LOAD, 0, 0, LOAD + 32]
    return b"".join(map(word, header)) + code + bytes(-size % 4)


def prepare(folder):
    (folder / "config.toml").write_text(CONFIGURATION)
    (folder / "kernel").write_bytes(kernel())
    (folder / "first").write_bytes(b"the first module\0")
    (folder / "second").write_bytes(b"")


def told(run):
    require(run.status == 0, f"exit status {run.status}")
    for text in ("one two", "the first module", "second"):
        run.require_line(rf"^\[multiboot\] {text}$")
    run.require_line(r'guest "multiboot" has switched itself off')
    run.require_report(result="pass")


def refused(run):
    """An image that asks for a video mode."""
    require(run.status == 1, f"exit status {run.status}")
    run.require_line(r"the kernel's Multiboot header asks for what is not offered: flags 0x4")
    run.require_report(result="fail")
    run.forbid_line(r"FATAL|^\[multiboot\]")


def prepare_video(folder):
    prepare(folder)
    image = bytearray((folder / "kernel").read_bytes())
    flags = FLAGS | 1 << 2
    image[4:12] = word(flags) + word(-(MAGIC + flags) & 0xFFFF_FFFF)
    (folder / "kernel").write_bytes(image)


OPTIONS = ["--config", "{folder}/config.toml"]
for name in ("kernel", "first", "second"):
    OPTIONS += ["--file", "{folder}/" + name]

MULTIBOOT_CASES = [
    Case("multiboot", "a Multiboot kernel with modules, and a debug-exit port", told, prepare=prepare, options=OPTIONS),
    Case("multiboot-video", "a Multiboot kernel that wants a video mode", refused, prepare=prepare_video, options=OPTIONS),
]
