"""Executable memory: an object's image in pages of this process, never writable and executable at once.

The pages live exactly as long as the `Code` that owns them, so whoever can call into them holds it.
On AArch64 no cache needs flushing by hand: the kernel does it when a page becomes executable for the first time, and
none is written after that.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
from collections.abc import Callable
from functools import cache

from tridsl.backends.cpu.elf import Function, Resolve, link, place
from tridsl.backends.cpu.relocations import MACHINES, Machine
from tridsl.diagnostics import error

_READ, _WRITE, _EXECUTE = mmap.PROT_READ, mmap.PROT_WRITE, mmap.PROT_EXEC


class Code:
    """A loaded image. `address(name)` is where a function starts; valid as long as this object lives."""

    __slots__ = ("_pages", "base", "functions", "size")

    def __init__(self, pages: mmap.mmap, base: int, functions: tuple[Function, ...], size: int) -> None:
        self._pages = pages
        self.base = base
        self.functions = functions
        self.size = size

    def address(self, name: str) -> int:
        """Address of function `name`. Raises TriError E0741 when the object does not define it."""
        for function in self.functions:
            if function.name == name:
                return self.base + function.offset
        raise error(
            "E0741",
            f"this object code cannot be loaded: it has no function `{name}`",
            help="run `tridsl cache clear`; the code is then made anew",
        )


def load_object(blob: bytes, resolve: Resolve, *, perf_map: bool = False) -> Code:
    """Link an ELF object of this machine into memory.

    `perf_map`: also name its functions in `/tmp/perf-<pid>.map`, where `perf` looks for code that is in no file.
    Raises TriError E0741 (damaged or foreign object), E0742 (unknown symbol), E0743 (no memory for code).
    """
    layout = place(blob, this_machine(), mmap.PAGESIZE)
    read_only, writable = layout.read_only, layout.writable
    parts = ((0, read_only, _READ | _EXECUTE), (read_only, writable, _READ), (writable, layout.size, _READ | _WRITE))
    pages, base = _pages(layout.size, lambda base: bytes(link(layout, base, resolve)), parts)
    code = Code(pages, base, layout.functions(), layout.size)
    if perf_map:
        _write_perf_map(code)
    return code


def load_image(image: bytes, writable: int) -> tuple[Code, int]:
    """Raw machine code, executable up to offset `writable` (a whole number of pages) and data behind it; and its address."""
    parts = ((0, writable, _READ | _EXECUTE), (writable, len(image), _READ | _WRITE))
    pages, base = _pages(len(image), lambda _: image, parts)
    return Code(pages, base, (), len(image)), base


@cache
def this_machine() -> Machine:
    """The instruction set of this process. Raises TriError E0743 where there is no loader for it."""
    name = platform.machine()
    if name not in MACHINES:
        raise error("E0743", f"compiled code cannot be loaded on a {name} processor", help=f"supported: {', '.join(MACHINES)}")
    return MACHINES[name]


def _pages(
    size: int, fill: Callable[[int], bytes], parts: tuple[tuple[int, int, int], ...]
) -> tuple[mmap.mmap, int]:
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=_READ | _WRITE)
    except OSError as problem:
        raise error("E0743", f"the system gave no {size} bytes for compiled code: {problem}") from problem
    base = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    pages[:] = fill(base)
    for start, end, protection in parts:
        if end > start and _libc().mprotect(base + start, end - start, protection):
            raise error(
                "E0743",
                f"the system does not let this process make memory executable: {os.strerror(ctypes.get_errno())}",
                help="a security policy (SELinux execmem, systemd MemoryDenyWriteExecute) forbids it; allow it for this program",
            )
    return pages, base


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return libc


def _write_perf_map(code: Code) -> None:
    """Best effort: a missing or foreign file only costs `perf` its names."""
    lines = "".join(f"{code.base + f.offset:x} {f.size:x} {f.name}\n" for f in code.functions)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        file = os.open(f"/tmp/perf-{os.getpid()}.map", flags, 0o600)
    except OSError:
        return
    with os.fdopen(file, "w") as stream:
        stream.write(lines)
