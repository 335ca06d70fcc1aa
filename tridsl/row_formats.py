"""Formats in which model files keep rows of trits: their bytes to trits and scales, a block at a time (reference/kernels.md 1.1-1.3).

| format | block | bytes | inside |
|---|---|---|---|
| `tq2_0` | 256 | 66 | 64 bytes, then the scale as f16; element 128 j + 32 n + i is bit pair n of byte 32 j + i, as value + 1 |
| `tq1_0` | 256 | 54 | 48 bytes of 5 base-3 digits, 4 bytes of 4, the scale as f16; elements 0-159 are digit n of bytes 0-31 (32 n + i), 160-239 of bytes 32-47 (160 + 16 n + i), 240-255 of the last four (240 + 4 n + i) |
| `i2_s` | 128 | 32 | element 32 g + i is bits 7-2g, 6-2g of byte i, as value + 1; one f32 scale in front of 32 bytes at the end of the tensor (bitnet.cpp's x86 interleave) |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tridsl.structs import dataclass

if TYPE_CHECKING:
    from numpy.typing import NDArray  # 5 ms of start-up time

POWERS = np.array([1, 3, 9, 27, 81], np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFormat:
    """`elements` in `size` bytes. `codes`: blocks (n, size) to value + 1 (n, elements), 3 where there is no value. `scales`: blocks to
    f32 (n), None where the whole tensor has one, in front of the last `trailer` bytes."""

    name: str
    elements: int
    size: int
    codes: Callable[[Any], Any]
    scales: Callable[[Any], Any] | None
    trailer: int = 0


def _digits(stretch: Any, count: int) -> Any:
    """(n, bytes) to (n, count, bytes): digit d of a byte is how often a third of 256 fits into it times 3^d."""
    front = stretch[:, None, :] * POWERS[:count, None]
    return (front.astype(np.uint16) * np.uint16(3) >> np.uint16(8)).astype(np.uint8)


def _tq1_0(blocks: Any) -> Any:
    parts = (_digits(blocks[:, :32], 5), _digits(blocks[:, 32:48], 5), _digits(blocks[:, 48:52], 4))
    return np.concatenate([part.reshape(len(blocks), part.shape[1] * part.shape[2]) for part in parts], axis=1)


def _tq2_0(blocks: Any) -> Any:
    pairs = blocks[:, :64].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    return pairs.reshape(len(blocks), 256)


def _i2_s(blocks: Any) -> Any:
    return (blocks[:, None, :] >> np.array([6, 4, 2, 0], np.uint8)[:, None] & 3).reshape(len(blocks), 128)


def _last_half(blocks: Any) -> NDArray[np.float32]:
    """The f16 in the last two bytes of each block."""
    return np.ascontiguousarray(blocks[:, -2:]).view("<f2")[:, 0].astype(np.float32)


ROW_FORMATS: dict[str, RowFormat] = {
    row.name: row
    for row in (
        RowFormat(name="tq1_0", elements=256, size=54, codes=_tq1_0, scales=_last_half),
        RowFormat(name="tq2_0", elements=256, size=66, codes=_tq2_0, scales=_last_half),
        RowFormat(name="i2_s", elements=128, size=32, codes=_i2_s, scales=None, trailer=32),
    )
}
