"""Packed layouts of trits in NumPy: elements to bytes and back, bit for bit what `ir.packings` says of each layout."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tridsl.structs import dataclass

if TYPE_CHECKING:
    from numpy.typing import NDArray  # 5 ms of start-up time

    Bytes = NDArray[np.uint8]

ROWS, BYTES = 16, 4
LINE = 64
"""A stretch of 16 rows x 4 bytes is one cache line and one register, so the bytes begin on a line."""


def on_lines(shape: tuple[int, ...]) -> Bytes:
    """Uninitialised bytes that begin on a cache line."""
    size = math.prod(shape)
    block = np.empty(size + LINE, np.uint8)
    address: int = block.__array_interface__["data"][0]
    return block[-address % LINE :][:size].reshape(shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """Blocks of 16 rows x `columns` columns. `join`: codes (…, groups, 16, 4) to bytes (…, planes, 16, 4); `split`: back."""

    name: str
    columns: int
    planes: int
    join: Callable[[Any], Any]
    split: Callable[[Any], Any]

    def shape(self, m: int, k: int) -> tuple[int, ...]:
        """Of the bytes of a matrix (m, k)."""
        stretches = (self.planes,) if self.planes > 1 else ()
        return (-(-m // ROWS), -(-k // self.columns), *stretches, ROWS, BYTES)

    def encode(self, elements: NDArray[Any]) -> Bytes:
        """Trits (M, K) in int8 to bytes; rows and columns past the end are the trit 0."""
        m, k = elements.shape
        rows, columns = -(-m // ROWS), -(-k // self.columns)
        codes = np.ones((rows * ROWS, columns * self.columns), np.uint8)
        np.add(elements, 1, out=codes[:m, :k], casting="unsafe")
        groups = codes.reshape(rows, ROWS, columns, self.columns // BYTES, BYTES).transpose(0, 2, 3, 1, 4)
        packed = on_lines(self.shape(m, k))
        np.copyto(packed, self.join(groups).reshape(packed.shape))
        return packed

    def decode(self, packed: Bytes, shape: tuple[int, ...]) -> NDArray[Any]:
        m, k = shape
        rows, columns = packed.shape[:2]
        groups = self.split(packed.reshape(rows, columns, self.planes, ROWS, BYTES))
        codes = groups.transpose(0, 3, 1, 2, 4).reshape(rows * ROWS, columns * self.columns)
        return codes[:m, :k].astype(np.int8) - np.int8(1)  # type: ignore[no-any-return]


def _planes(groups: Any) -> Any:
    """The groups as the first axis."""
    return np.moveaxis(groups, -3, 0)


def _t16_join(groups: Any) -> Any:
    a, b, c, d = _planes(groups)
    return (a | b << 2 | c << 4 | d << 6)[..., None, :, :]


def _t16_split(stretches: Any) -> Any:
    return stretches >> np.array([0, 2, 4, 6], np.uint8)[:, None, None] & 3


def digits_join(groups: Any) -> Any:
    """Five base-3 digits (0, 1, 2; the first is the most significant) in a byte, as ceil(q 256 / 243)."""
    number = np.zeros(groups.shape[:-3] + groups.shape[-2:], np.uint16)
    for digit in _planes(groups):
        number = number * np.uint16(3) + digit
    return ((number * np.uint16(256) + np.uint16(242)) // np.uint16(243)).astype(np.uint8)[..., None, :, :]


def digits_split(stretches: Any) -> Any:
    powers = np.array([1, 3, 9, 27, 81], np.uint8)[:, None, None]
    return ((stretches * powers).astype(np.uint16) * np.uint16(3) >> np.uint16(8)).astype(np.uint8)


def _t96_join(groups: Any) -> Any:
    g = groups.reshape(*groups.shape[:-3], 8, 3, *groups.shape[-2:])
    codes = g[..., 0, :, :] + 3 * g[..., 1, :, :] + 9 * g[..., 2, :, :]
    nibbles = codes & 15
    low = nibbles[..., 0::2, :, :] | nibbles[..., 1::2, :, :] << 4
    high = np.zeros_like(low[..., 0, :, :])
    for n, code in enumerate(_planes(codes)):
        high |= (code >> 4) << np.uint8(n)
    return np.concatenate([low, high[..., None, :, :]], axis=-3)


def _t96_split(stretches: Any) -> Any:
    low, high = stretches[..., :4, :, :], stretches[..., 4:, :, :]
    nibbles = np.stack([low & 15, low >> 4], axis=-3).reshape(*low.shape[:-3], 8, *low.shape[-2:])
    codes = nibbles | (high >> np.arange(8, dtype=np.uint8)[:, None, None] & 1) << 4
    digits = np.stack([codes % 3, codes // 3 % 3, codes // 9 % 3], axis=-3)
    return digits.reshape(*codes.shape[:-3], 24, *codes.shape[-2:])


CODECS: dict[str, Codec] = {
    row.name: row
    for row in (
        Codec(name="t16", columns=16, planes=1, join=_t16_join, split=_t16_split),
        Codec(name="t20", columns=20, planes=1, join=digits_join, split=digits_split),
        Codec(name="t96", columns=96, planes=5, join=_t96_join, split=_t96_split),
    )
}
