"""Arrays flush against pages that may not be touched: an access past either end of a buffer kills the process."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np

PAGE = mmap.PAGESIZE
FILL = 0xA5

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Guarded:
    """`array` has the shape and strides (in elements) asked for, between two pages without access.

    `high`: its last element ends where the upper page starts; otherwise its first element starts where the lower page ends. All
    bytes that are not elements hold `FILL`.
    """

    def __init__(self, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any], *, high: bool) -> None:
        steps = [0 if n == 0 else (n - 1) * s for n, s in zip(shape, strides)]
        below, above = sum(s for s in steps if s < 0), sum(s for s in steps if s > 0)
        elements = 0 if 0 in shape else above - below + 1
        self.used = elements * dtype.itemsize
        self.size = -(-max(self.used, 1) // PAGE) * PAGE
        self.base = _libc.mmap(None, self.size + 2 * PAGE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        assert self.base not in (None, ctypes.c_void_p(-1).value), "mmap failed"
        for page in (self.base, self.base + PAGE + self.size):
            assert _libc.mprotect(page, PAGE, 0) == 0, "mprotect failed"
        self._bytes = np.frombuffer((ctypes.c_uint8 * self.size).from_address(self.base + PAGE), np.uint8)
        self._bytes[:] = FILL
        self.first = (self.size - self.used if high else 0) - below * dtype.itemsize
        self.array = np.ndarray(
            shape, dtype, self._bytes.data, self.first if elements else self.size * high, tuple(s * dtype.itemsize for s in strides)
        )

    def untouched(self) -> bool:
        """Whether every byte that is no element still holds `FILL`."""
        others = np.ones(self.size, bool)
        if self.array.size:
            offsets = np.full(self.array.shape, self.first)
            for axis, (count, step) in enumerate(zip(self.array.shape, self.array.strides)):
                offsets += (np.arange(count) * step).reshape([-1 if n == axis else 1 for n in range(self.array.ndim)])
            for byte in range(self.array.itemsize):
                others[offsets + byte] = False
        return bool((self._bytes[others] == FILL).all())

    def close(self) -> None:
        del self.array, self._bytes
        _libc.munmap(self.base, self.size + 2 * PAGE)
