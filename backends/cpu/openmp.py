"""The OpenMP runtime that parallel kernels call: the one this process already has, else the system's, else none.

Two OpenMP runtimes in one process make twice as many threads as there are cores, so a runtime that NumPy, PyTorch or
scikit-learn brought is used. Kernels reach it through four jumps of ours, whose targets lie in a writable page: in a
forked child they are turned to serial functions, because the threads of libgomp's pool do not survive `fork` and a
parallel region would wait for them for ever. Without a runtime the jumps are serial from the start.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import struct
import threading
import warnings
from pathlib import Path

import msgspec

from tridsl.backends.cpu.code_memory import Code, load_image, this_machine
from tridsl.backends.cpu.relocations import STUB_BYTES

SYMBOLS = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads", "omp_in_parallel")
"""What kernels may call. `GOMP_parallel(function, data, threads, flags)` runs `function(data)` on each thread of a team."""

_SYSTEM_LIBRARIES = ("libgomp.so.1", "libomp.so.5", "libomp.so")
_LIBRARY_FILE = re.compile(r"/lib(?:gomp|omp|iomp5)[^/]*\.so[^/]*$")

_A64_RET, _A64_BR_X16 = 0xD65F03C0, 0xD61F0200
_SERIAL: dict[str, tuple[bytes, ...]] = {
    # One 16-byte function per symbol: `parallel` calls its first argument with its second, the others answer 0, 1 and 0.
    "x86_64": (
        bytes.fromhex("4889f8 4889f7 ffe0"),  # mov rax, rdi; mov rdi, rsi; jmp rax
        bytes.fromhex("31c0 c3"),  # xor eax, eax; ret
        bytes.fromhex("b801000000 c3"),  # mov eax, 1; ret
        bytes.fromhex("31c0 c3"),
    ),
    "aarch64": (
        struct.pack("<3I", 0xAA0003F0, 0xAA0103E0, _A64_BR_X16),  # mov x16, x0; mov x0, x1; br x16
        struct.pack("<2I", 0x52800000, _A64_RET),  # mov w0, #0; ret
        struct.pack("<2I", 0x52800020, _A64_RET),  # mov w0, #1; ret
        struct.pack("<2I", 0x52800000, _A64_RET),
    ),
}


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """`library` is the path or name of the shared library, empty when kernels run serially. `symbols`: address of each jump."""

    library: str
    symbols: dict[str, int]
    code: Code
    cells: int
    serial: tuple[int, ...]

    def make_serial(self) -> None:
        """From now on every parallel region of a kernel runs on the calling thread. Not while a kernel runs."""
        (ctypes.c_uint64 * len(SYMBOLS)).from_address(self.cells)[:] = list(self.serial)

    def in_parallel(self) -> bool:
        """Whether the calling thread is inside a parallel region of this runtime."""
        return bool(ctypes.CFUNCTYPE(ctypes.c_int)(self.symbols["omp_in_parallel"])())


class _State:
    """The process's one runtime; made by the first kernel that asks for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.runtime: Runtime | None = None
        self.forked = False

    def after_fork(self) -> None:
        self.lock = threading.Lock()
        self.forked = True
        if self.runtime is not None:
            self.runtime.make_serial()


_STATE = _State()
os.register_at_fork(after_in_child=_STATE.after_fork)


def runtime() -> Runtime:
    """The OpenMP runtime of this process, found on the first call. Warns once (RuntimeWarning) when there is none."""
    with _STATE.lock:
        if _STATE.runtime is None:
            _STATE.runtime = _open(loaded_library(), _STATE.forked)
        return _STATE.runtime


def resolve(name: str) -> int | None:
    """The address of one of `SYMBOLS`, else None. Looks for the runtime only when such a symbol is asked for."""
    return runtime().symbols[name] if name in SYMBOLS else None


def threads_here(wanted: int) -> int:
    """The team size for a call that asks for `wanted` threads: 1 inside somebody's parallel region."""
    return 1 if wanted <= 1 or runtime().in_parallel() else wanted


def loaded_library() -> str | None:
    """Path of an OpenMP runtime that this process has already mapped."""
    try:
        maps = Path("/proc/self/maps").read_text(errors="replace")
    except OSError:
        return None
    paths = (line.split(None, 5)[-1] for line in maps.splitlines() if "omp" in line)
    return next((path for path in paths if _LIBRARY_FILE.search(path)), None)


def _open(loaded: str | None, forked: bool) -> Runtime:
    """`loaded` in a forked child may have lost its threads with the parent's: serial then, a fresh one otherwise."""
    if not (loaded and forked):
        for name in (loaded, *_SYSTEM_LIBRARIES) if loaded else _SYSTEM_LIBRARIES:
            try:
                library = ctypes.CDLL(name)
                addresses = [ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value or 0 for symbol in SYMBOLS]
            except (OSError, AttributeError):
                continue
            return _make(str(name), addresses)
        warnings.warn(
            "no OpenMP runtime found (libgomp.so.1, libomp.so): kernels run on one thread; install libgomp1",
            RuntimeWarning,
            stacklevel=4,
        )
    return _make("", None)


def _make(library: str, addresses: list[int] | None) -> Runtime:
    """Jumps in the first page, followed by the serial functions; the jumps' targets in the second page."""
    machine, page = this_machine(), mmap.PAGESIZE
    image = bytearray(2 * page)
    count = len(SYMBOLS)
    for index, function in enumerate(_SERIAL[machine.name]):
        image[index * STUB_BYTES : (index + 1) * STUB_BYTES] = machine.stub(page + index * 8 - index * STUB_BYTES)
        start = (count + index) * STUB_BYTES
        image[start : start + len(function)] = function
    code, base = load_image(bytes(image), page)
    serial = tuple(base + (count + index) * STUB_BYTES for index in range(count))
    made = Runtime(
        library=library,
        symbols={symbol: base + index * STUB_BYTES for index, symbol in enumerate(SYMBOLS)},
        code=code, cells=base + page, serial=serial,
    )  # fmt: skip
    (ctypes.c_uint64 * count).from_address(made.cells)[:] = [*(addresses or serial)]
    return made
