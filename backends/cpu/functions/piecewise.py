"""Odd functions that end at 1, in f32: |x| lies in one of 32 pieces, each with a polynomial of its own, whose coefficients two registers hold.

Where a processor looks up a register's lanes by the lanes of another, a coefficient costs one instruction, and neither a quotient nor an
exponential is needed. tests/bench/derive_pieces.py makes the tables and says why the steps are these.
"""

from __future__ import annotations

from tridsl.backends.cpu.functions.arithmetic import Value, fma
from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """A function by pieces. `coefficients` of c0, c1, …, each by piece. The piece is in the bits of |x| + `offset` from `shift` on;
    inner steps are in |x| - `centre`; from `limit` on the function is 1."""

    limit: float
    offset: float
    centre: float
    shift: int
    coefficients: tuple[tuple[float, ...], ...]


def odd(x: Value, pieces: Pieces) -> Value | None:
    """The function of `pieces` at f32 `x`; NaN stays. None where the processor looks up no registers."""
    a = x.abs().clamp(high=pieces.limit)
    piece = (a + pieces.offset).bitcast().logical_shift_right(pieces.shift)
    found: list[Value] = []
    for table in pieces.coefficients:
        raw = x.target.lookup(table, piece.raw)
        if raw is None:
            return None
        found.append(x.of(raw))
    first, *inner, last = found
    v, out = a - pieces.centre, last
    for c in reversed(inner):
        out = fma(out, v, c)
    return fma(out, a, first).copysign(x)
