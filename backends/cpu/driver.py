"""The CPU's driver: this process's own processor, and machine code loaded into this process."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from tridsl.backend import Binary, Device, Signature
from tridsl.backends.cpu import openmp, scratch
from tridsl.backends.cpu.amx import usable
from tridsl.backends.cpu.code_memory import load_object
from tridsl.backends.cpu.host import host_spec
from tridsl.diagnostics import CheckFailed, error
from tridsl.dtypes import BF16, F16, F32, F64, NUMPY_TYPES, DType
from tridsl.ir.op import Param, Tensor

LIBC_SYMBOLS = ("memcpy", "memset", "memmove", "aligned_alloc", "free")
"""What a kernel may call besides `openmp.SYMBOLS`; and it reads `scratch.SYMBOL`."""

_ENTRY = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64)  # releases the GIL while it runs

_PACK_SCALAR: dict[DType, Callable[[Any], bytes]] = {
    F64: struct.Struct("<d").pack,
    F32: lambda value: np.float32(value).tobytes(),
    F16: lambda value: np.float16(value).tobytes(),
    BF16: lambda value: np.asarray(value, NUMPY_TYPES[BF16]).tobytes(),
}


def resolve(name: str) -> int | None:
    """Address of what kernels may call or read, or None."""
    if name in LIBC_SYMBOLS:
        return ctypes.cast(getattr(_libc(), name), ctypes.c_void_p).value
    return scratch.resolve(name) or openmp.resolve(name)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def scalar_slot(value: float, dtype: DType) -> int:
    """The 8-byte slot of a scalar as an unsigned number: floats in the low bytes, integers sign-extended."""
    if dtype.is_float:
        return int.from_bytes(_PACK_SCALAR[dtype](value), "little")
    return int(value) & 0xFFFF_FFFF_FFFF_FFFF


class CpuExecutable:
    """A kernel in memory (`backend.Executable`). Its code is unmapped when the last reference to this object goes.

    `entry` is the address of `i32 entry(ptr slots, i64 threads)`; whoever keeps it keeps this object too.
    """

    __slots__ = ("_block", "_call", "_code", "_packers", "entry", "signature")

    def __init__(self, binary: Binary, *, perf_map: bool = False) -> None:
        """Raises TriError E0741-E0743 when the object cannot be loaded."""
        self._code = load_object(binary.blob, resolve, perf_map=perf_map)
        self.entry = self._code.address(binary.entry)
        self.signature: Signature = binary.signature
        self._call = _ENTRY(self.entry)
        sizes: list[Callable[[Any], int]] = [int] * len(self.signature.sizes)
        self._packers = (*map(_packer, self.signature.params), *sizes)
        self._block = ctypes.c_uint64 * max(1, len(self._packers))

    def __call__(self, slots: Sequence[Any], threads: int) -> None:
        """Run to completion without the GIL. `slots`: an array per tensor, Python numbers for scalars and sizes.

        An array is anything with NumPy's array interface, and is taken as it is: dtype, shape and strides were checked by
        whoever chose this specialisation. `threads` is the team size of parallel kernels, 1 inside another parallel
        region. Raises MemoryError, or CheckFailed with the text of a failed check.
        """
        if len(slots) != len(self._packers):
            params, sizes = len(self.signature.params), len(self.signature.sizes)
            raise TypeError(f"{params} params and {sizes} sizes expected, {len(slots)} slots given")
        block = self._block(*[pack(value) for pack, value in zip(self._packers, slots)])
        status = self._call(ctypes.addressof(block), openmp.threads_here(threads))
        if status:
            raise failure(status, self.signature.messages)

    def timed(self, slots: Sequence[Any], threads: int, seconds: float, most: int) -> tuple[float, ...]:
        """`backend.Timed`."""
        from tridsl.backends.cpu.clock import timed_runs  # needs LLVM, which who runs a cached kernel does not load

        block = self._block(*[pack(value) for pack, value in zip(self._packers, slots, strict=True)])
        status, found = timed_runs(self.entry, ctypes.addressof(block), openmp.threads_here(threads), seconds, most)
        if status:
            raise failure(status, self.signature.messages)
        return found


def failure(status: int, messages: tuple[str, ...]) -> Exception:
    """The exception that a kernel's status other than 0 stands for: 1 no memory, 2 + n check number n."""
    if status == 1:
        return MemoryError("a kernel found no memory for its scratch buffers")
    if 2 <= status < 2 + len(messages):
        return CheckFailed(messages[status - 2])
    return SystemError(f"a kernel returned the unknown status {status}; this is a bug of tridsl")


def _packer(param: Param) -> Callable[[Any], int]:
    """What turns the value of `param` into its slot."""
    if not isinstance(param, Tensor):
        return partial(scalar_slot, dtype=param.dtype)
    item = NUMPY_TYPES[param.dtype].itemsize if param.layout == "row" else None

    def address(value: Any) -> int:
        interface = value.__array_interface__  # a tenth of the time that `value.ctypes` takes
        if item is not None and int(interface["typestr"][2:]) != item:
            raise TypeError(f"tensor {param.name} holds {param.dtype}, the array {interface['typestr']}")
        start: int = interface["data"][0]
        return start

    return address


class CpuDriver:
    """`backend.Driver` of backend `cpu`. `cache` is where host facts are kept (default: the user's cache directory)."""

    def __init__(self, *, cache: Path | None = None, perf_map: bool = False) -> None:
        self._cache = cache
        self._perf_map = perf_map

    def devices(self) -> tuple[Device, ...]:
        """One device, `cpu`: the cores that this process may run on."""
        spec = host_spec(self._cache)
        return (Device(name="cpu", backend="cpu", spec=spec, description=f"{spec.target_cpu}, {spec.cores} cores"),)

    def load(self, binary: Binary, device: Device) -> CpuExecutable:
        """Raises TriError E0741-E0743 (object code), E0744 (a binary of another backend)."""
        if binary.backend != "cpu" or device.backend != "cpu":
            raise error("E0744", f"a binary for `{binary.backend}` cannot run on device `{device}`")
        usable(device.spec.features)  # asks for what its code may need: the device may have been found by another process
        return CpuExecutable(binary, perf_map=self._perf_map)


@cache
def driver() -> CpuDriver:
    """The driver of this process."""
    return CpuDriver()
