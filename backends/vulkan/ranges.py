"""Intervals of index expressions: what decides whether 32 bits hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tridsl.dtypes import I32, I64, DType
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Select, Unary, Var


@dataclass(frozen=True, slots=True)
class Range:
    """The closed interval `low..high`."""

    low: int
    high: int

    def inside(self, other: Range) -> bool:
        return other.low <= self.low and self.high <= other.high

    def union(self, other: Range) -> Range:
        return Range(min(self.low, other.low), max(self.high, other.high))


INT32 = Range(I32.low or 0, I32.high or 0)
INT64 = Range(I64.low or 0, I64.high or 0)


def dtype_range(dtype: DType) -> Range:
    """All values of an integer type or bool; of i64 for anything else."""
    return INT64 if dtype.low is None or dtype.high is None else Range(dtype.low, dtype.high)


def range_of(expression: Expr, variables: Mapping[str, Range]) -> Range:
    """An interval that contains every value of an integer expression; that of its type where it could wrap."""
    whole = dtype_range(expression.dtype)
    found: Range | None
    match expression:
        case Const(value=value) if not isinstance(value, float):
            found = Range(int(value), int(value))
        case Var(name=name):
            found = variables.get(name)
        case Binary(op=op, a=a, b=b) if op in _RULES and a.dtype.is_integer:
            found = _RULES[op](range_of(a, variables), range_of(b, variables))
        case Unary(op="neg", a=a):
            inner = range_of(a, variables)
            found = Range(-inner.high, -inner.low)
        case Select(a=a, b=b):
            found = range_of(a, variables).union(range_of(b, variables))
        case Cast(a=a) if a.dtype.is_integer or a.dtype.kind == "bool":
            found = range_of(a, variables)
        case Load():
            found = None
        case _:
            found = None
    return found if found is not None and found.inside(whole) else whole


def _products(a: Range, b: Range) -> Range:
    corners = (a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high)
    return Range(min(corners), max(corners))


def _quotients(a: Range, b: Range) -> Range | None:
    if b.low <= 0:
        return Range(min(0, a.low), max(0, a.high)) if b.low == 0 else None
    corners = (a.low // b.low, a.low // b.high, a.high // b.low, a.high // b.high)
    return Range(min(corners), max(corners))


def _remainders(a: Range, b: Range) -> Range | None:
    if b.low < 0:
        return None
    if a.low >= 0 and a.high < b.low:
        return a
    return Range(0, max(0, b.high - 1))


_RULES: dict[str, Callable[[Range, Range], Range | None]] = {
    "add": lambda a, b: Range(a.low + b.low, a.high + b.high),
    "sub": lambda a, b: Range(a.low - b.high, a.high - b.low),
    "mul": _products,
    "floordiv": _quotients,
    "mod": _remainders,
    "min": lambda a, b: Range(min(a.low, b.low), min(a.high, b.high)),
    "max": lambda a, b: Range(max(a.low, b.low), max(a.high, b.high)),
}
