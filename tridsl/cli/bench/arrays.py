"""Memory of the arrays that are measured: it begins at a cache line, and there is one set of them for every turn of a rotation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tridsl.devices.spec import DeviceSpec
from tridsl.structs import replace

Set = tuple[dict[str, Any], tuple[Any, ...]]
"""Arguments by name, and arrays for the results."""

LINE = 64
MOST_ROTATION = 1 << 30
"""Where a virtual machine reports the whole socket's last-level cache, four times that is more memory than a guest's share of the
cache calls for; the rotation is bounded by this, and by an eighth of the memory."""
MOST_SETS = 4096


def aligned(shape: tuple[int, ...], dtype: Any, skew: int = 0) -> Any:
    """Zeros that begin `skew` bytes behind a cache line."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 2 * LINE, np.uint8)
    start = -raw.ctypes.data % LINE + skew
    return raw[start : start + size].view(dtype).reshape(shape)


def rehomed(value: Any, skew: int = 0) -> Any:
    """An argument in memory of its own, row-major."""
    if hasattr(value, "layout"):
        return replace(value, array=rehomed(value.array))
    if not isinstance(value, np.ndarray) or not value.ndim:
        return value
    made = aligned(value.shape, value.dtype, skew)
    made[...] = value
    return made


def rotation(spec: DeviceSpec) -> int:
    """Bytes over which cold readings go round: four times the last-level cache, as far as the bounds allow."""
    wanted = 4 * (spec.l3_bytes or spec.l2_bytes or 1 << 24)
    return int(min(wanted, MOST_ROTATION, (spec.memory_bytes or 1 << 33) // 8))


def sets(arguments: Mapping[str, Any], outs: tuple[Any, ...], one: int, total: int) -> list[Set]:
    """Copies of arguments and results that take `total` bytes together; `one` is what a set takes."""
    count = min(MOST_SETS, max(2, -(-total // max(1, one))))
    return [({n: rehomed(v) for n, v in arguments.items()}, tuple(aligned(o.shape, o.dtype) for o in outs)) for _ in range(count)]
