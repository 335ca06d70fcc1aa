"""Odd functions that end at 1, in f32: |x| lies in one of 32 pieces, each with a polynomial of its own, whose coefficients two registers hold.

Where a processor looks up a register's lanes by the lanes of another, a coefficient costs one instruction, and neither a quotient nor an
exponential is needed. tests/bench/derive_pieces.py makes the tables and says why the steps are these.
"""

from __future__ import annotations

from tridsl.backends.cpu.functions.arithmetic import Value, fma
from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """A function by pieces. `coefficients` of c0, c1, …, each by piece. The piece is in the bits of |x| + `offset` from `shift` on; from
    `limit` on the function is 1. With one `centre` inner steps are in |x| - `centre`, the last in |x|; where each piece has its own, inner steps
    are in |x| + `offset`, the last in |x| - `centre`."""

    limit: float
    offset: float
    shift: int
    centre: float | tuple[float, ...]
    coefficients: tuple[tuple[float, ...], ...]


def odd(x: Value, pieces: Pieces) -> Value | None:
    """The function of `pieces` at f32 `x`; NaN stays. None where the processor looks up no registers."""
    a = x.abs().clamp(high=pieces.limit)
    shifted = a + pieces.offset
    piece = shifted.bitcast().logical_shift_right(pieces.shift)
    tables = pieces.coefficients if isinstance(pieces.centre, float) else (*pieces.coefficients, pieces.centre)
    raw = [x.target.lookup(table, piece.raw) for table in tables]
    if raw[0] is None:
        return None
    first, *inner, out = (x.of(r) for r in raw[: len(pieces.coefficients)])
    v, u = (a - pieces.centre, a) if isinstance(pieces.centre, float) else (shifted, a - x.of(raw[-1]))
    for c in reversed(inner):
        out = fma(out, v, c)
    return fma(out, u, first).copysign(x)
