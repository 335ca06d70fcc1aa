"""The builtin reducers as `Reducer` values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from tridsl.dtypes import BOOL, INDEX, DType
from tridsl.ir.expr import Binary, Call, Const, Expr, Select, Unary, Var
from tridsl.ir.op import Reducer
from tridsl.structs import dataclass

Combining = Literal["add", "mul", "max", "min", "and", "or"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Builtin:
    """`operand`: what the argument must be. `narrow`: small integers may overflow, so `acc=` is required. `nonempty`: has no
    value over nothing, so that the call fails there. `position`: the value is where, not what."""

    make: Callable[[DType], Reducer]
    operand: Literal["number", "bool"] = "number"
    narrow: bool = False
    nonempty: bool = False
    position: bool = False
    counts: bool = False


def _single(name: str, op: Combining, identity: Callable[[DType], bool | int | float]) -> Callable[[DType], Reducer]:
    def make(dtype: DType) -> Reducer:
        value = identity(dtype)
        neutral = Const(value=float(value) if dtype.is_float else value, dtype=dtype)
        merged = Binary(op=op, a=Var(name=f"a.{name}", dtype=dtype), b=Var(name=f"b.{name}", dtype=dtype), dtype=dtype)
        return Reducer(name=name, states=(name,), dtypes=(dtype,), identity=(neutral,), merge=(merged,), op=op)

    return make


def least(dtype: DType) -> int | float:
    """What every value of the type is at least; -inf for floats."""
    return -float("inf") if dtype.low is None else dtype.low


def greatest(dtype: DType) -> int | float:
    return float("inf") if dtype.high is None else dtype.high


def _extreme_position(name: str, *, maximum: bool) -> Callable[[DType], Reducer]:
    """State (value, index): NaN beats every number, equal values (and two NaNs) go to the lower index, as in NumPy."""

    def make(dtype: DType) -> Reducer:
        a, b = Var(name="a.value", dtype=dtype), Var(name="b.value", dtype=dtype)
        i, j = Var(name="a.index", dtype=INDEX), Var(name="b.index", dtype=INDEX)
        better: Expr = Binary(op="gt" if maximum else "lt", a=b, b=a, dtype=BOOL)
        tie: Expr = Binary(op="eq", a=a, b=b, dtype=BOOL)
        if dtype.is_float:
            nan_a = Call(function="isnan", args=(a,), dtype=BOOL)
            nan_b = Call(function="isnan", args=(b,), dtype=BOOL)
            better = _or(better, _and(nan_b, Unary(op="not", a=nan_a, dtype=BOOL)))
            tie = _or(tie, _and(nan_a, nan_b))
        take_b = _or(better, _and(tie, Binary(op="lt", a=j, b=i, dtype=BOOL)))
        worst = least(dtype) if maximum else greatest(dtype)
        assert INDEX.high is not None
        return Reducer(
            name=name,
            states=("value", "index"),
            dtypes=(dtype, INDEX),
            identity=(Const(value=worst, dtype=dtype), Const(value=INDEX.high, dtype=INDEX)),
            merge=(Select(condition=take_b, a=b, b=a, dtype=dtype), Select(condition=take_b, a=j, b=i, dtype=INDEX)),
        )

    return make


def _and(a: Expr, b: Expr) -> Expr:
    return Binary(op="and", a=a, b=b, dtype=BOOL)


def _or(a: Expr, b: Expr) -> Expr:
    return Binary(op="or", a=a, b=b, dtype=BOOL)


BUILTINS: dict[str, Builtin] = {
    "sum": Builtin(make=_single("sum", "add", lambda d: 0), narrow=True),
    "prod": Builtin(make=_single("prod", "mul", lambda d: 1), narrow=True),
    "max": Builtin(make=_single("max", "max", least), nonempty=True),
    "min": Builtin(make=_single("min", "min", greatest), nonempty=True),
    "any": Builtin(make=_single("any", "or", lambda d: False), operand="bool"),
    "all": Builtin(make=_single("all", "and", lambda d: True), operand="bool"),
    "count": Builtin(make=_single("count", "add", lambda d: 0), operand="bool", counts=True),
    "argmax": Builtin(make=_extreme_position("argmax", maximum=True), nonempty=True, position=True),
    "argmin": Builtin(make=_extreme_position("argmin", maximum=False), nonempty=True, position=True),
}

WHOLE = frozenset({"compact", "topk"})
"""Reducers whose result is a tensor: they stand only as a whole right-hand side (`check.packing`)."""
