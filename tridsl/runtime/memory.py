"""Host memory for results: checked for overflow and against what is available before anything is allocated."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tridsl.diagnostics import error
from tridsl.dtypes import NUMPY_TYPES, DType

if TYPE_CHECKING:
    from numpy.typing import NDArray  # 5 ms of start-up time

ALIGNMENT = 64
"""Bytes: a cache line and a 512-bit vector. Non-temporal stores need it."""

PAGE = os.sysconf("SC_PAGE_SIZE")

LARGEST_BYTES = (1 << 63) - 1
CHECK_FROM_BYTES = 64 << 20
"""Smaller requests are not compared with the available memory: reading it costs more than they do."""


def allocate(name: str, shape: tuple[int, ...], dtype: DType, *, whole_pages: bool = False) -> NDArray[Any]:
    """Uninitialised row-major memory for `shape` elements of `dtype`, starting on a 64-byte line. `whole_pages`: it shares its pages with
    nobody, so that any device can take them over.

    Raises E0601 when the size is negative or overflows 63 bits, E0602 when it exceeds the available memory.
    """
    bytes_needed = require(((name, shape, dtype),))
    alignment = PAGE if whole_pages else ALIGNMENT
    block = np.empty(bytes_needed + (2 * alignment if whole_pages else alignment), np.uint8)
    address: int = block.__array_interface__["data"][0]
    start = -address % alignment
    return block[start : start + bytes_needed].view(NUMPY_TYPES[dtype]).reshape(shape)


def require(tensors: tuple[tuple[str, tuple[int, ...], DType], ...]) -> int:
    """Bytes that all of `tensors` (name, shape, element type) take together, refused as `allocate` does."""
    total = 0
    for name, shape, dtype in tensors:
        for extent in shape:
            if extent < 0:
                raise error(
                    "E0601",
                    f"`{name}` would have the shape {shape}: an extent is negative",
                    help="check the sizes it is made from",
                )
        size = math.prod(shape) * dtype.storage_bytes
        total += size
        if size > LARGEST_BYTES or total > LARGEST_BYTES:
            raise error(
                "E0601",
                f"`{name}` of shape {shape} and type {dtype} would take {size} bytes, more than the {LARGEST_BYTES} an address can reach",
            )
    if total >= CHECK_FROM_BYTES:
        available = available_bytes()
        if available is not None and total > available:
            names = ", ".join(f"`{name}` {shape} {dtype}" for name, shape, dtype in tensors)
            raise error(
                "E0602",
                f"{names} would take {total} bytes, but {available} bytes of memory are available",
                help="use smaller sizes, a narrower element type, or split the work into several calls",
            )
    return total


def available_bytes() -> int | None:
    """Memory that can be had without swapping: the smaller of the machine's and this control group's, None if unknown."""
    limits = [limit for limit in (_machine(), _control_group()) if limit is not None]
    return min(limits) if limits else None


def _machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _control_group() -> int | None:
    folder = Path("/sys/fs/cgroup")
    try:
        return int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text())
    except (OSError, ValueError):  # no such limit: the file is absent or says `max`
        return None
