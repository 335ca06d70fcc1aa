"""Where elements lie in tensors and in panels of a core's memory: row by row, in rows that begin where the widest access may."""

from __future__ import annotations

from tridsl.dtypes import DType
from tridsl.ir.expr import Expr, add, binary, index, mul

ROW_BYTES = 64
"""Rows begin at multiples of this: the widest access of any core."""
WORD_BYTES = 4
"""What transfers are counted in: a single element that is smaller comes in a row of its own."""


def linear(place: tuple[Expr, ...], shape: tuple[int, ...]) -> Expr:
    total: Expr = index(0)
    for i, n in zip(place, shape):
        total = add(mul(total, index(n)), i)
    return total


def delinear(place: Expr, shape: tuple[int, ...]) -> tuple[Expr, ...]:
    """The index of an element of a row-major tensor, in the form that linearising it takes back."""
    if not shape:
        return ()
    parts: list[Expr] = []
    for n in reversed(shape[1:]):
        parts.insert(0, binary("mod", place, index(n)))
        place = binary("floordiv", place, index(n))
    return (place, *parts)


def words(dtype: DType) -> int:
    """Elements of the smallest transfer."""
    return max(1, WORD_BYTES // dtype.storage_bytes)


def pitch_of(shape: tuple[int, ...], dtype: DType) -> int:
    """The last extent, rounded up so that every row begins where the widest access may."""
    if not shape or len(shape) == 1 and shape[0] == 1 and dtype.storage_bytes >= WORD_BYTES:
        return 0
    unit = max(1, ROW_BYTES // dtype.storage_bytes)
    return -(-shape[-1] // unit) * unit


def product(shape: tuple[int, ...]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total
