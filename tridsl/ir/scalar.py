"""The meaning of every scalar operation on NumPy arrays: the one place where `ir.expr`'s "total semantics" is code.

Values are arrays of the *compute* type: bool, an integer type, f32 or f64. `exact` mode carries every float in f64.
Callers hold `np.errstate(all="ignore")`. Functions (`exp`, …) are computed in f64 and rounded once, so for f32 they are
right to the last bit but for double rounding; `fma` of f64 rounds its product (no wider type is portable).
Floats: `floordiv` is floor(a / b), `mod` is a - floor(a / b) * b; division by zero is IEEE's. Shift counts below 0 act as
counts >= bits. A value cast or stored to `trit` keeps its low two bits (as `i4` keeps four), so -2 is possible: it is the
caller's to exclude.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tridsl.dtypes import BF16, BOOL, F16, F32, F64, I4, I8, I16, I32, I64, NUMPY_TYPES, TRIT, U4, U8, U16, U32, DType
from tridsl.ir.expr import Const

Array = np.ndarray[Any, Any]

HELD: dict[DType, np.dtype[Any]] = {
    BOOL: np.dtype(np.bool_),
    I8: np.dtype(np.int8),
    I16: np.dtype(np.int16),
    I32: np.dtype(np.int32),
    I64: np.dtype(np.int64),
    U8: np.dtype(np.uint8),
    U16: np.dtype(np.uint16),
    U32: np.dtype(np.uint32),
    TRIT: np.dtype(np.int8),
    I4: np.dtype(np.int8),
    U4: np.dtype(np.uint8),
    F16: np.dtype(np.float32),
    BF16: np.dtype(np.float32),
    F32: np.dtype(np.float32),
    F64: np.dtype(np.float64),
}
"""The NumPy type that holds values of each element type while computing."""


def held_type(dtype: DType, exact: bool = False) -> np.dtype[Any]:
    return HELD[F64] if exact and dtype.is_float else HELD[dtype]


def constant(node: Const, exact: bool = False) -> Array:
    """The value of a literal in its type (`exact`: that value in f64)."""
    if not node.dtype.is_float:
        return np.asarray(node.value, dtype=HELD[node.dtype])
    return round_to(np.asarray(node.value, dtype=np.float64), node.dtype).astype(held_type(node.dtype, exact))


# Casts and stores.


def cast(value: Array, source: DType, target: DType, exact: bool = False) -> Array:
    """`value` of type `source` as a value of type `target`, held as `held_type(target)`."""
    if target == BOOL:
        return np.asarray(value != 0)
    if target.is_float:
        return _to_float(value, target, exact)
    if source.is_float:
        return _float_to_integer(value, target)
    return narrow(np.asarray(value).astype(HELD[target]), target)


def narrow(value: Array, dtype: DType) -> Array:
    """Wraps a value held in a wider type (i4, u4, trit) to the bits of its own."""
    if dtype in (I4, TRIT):
        sign = 1 << (dtype.bits - 1)
        return ((value & (2 * sign - 1)) ^ sign) - sign
    return value & 15 if dtype == U4 else value


def round_to(value: Array, dtype: DType) -> Array:
    """A float held in f32 (or f64) rounded to `dtype`'s values, still held as f32 (f64)."""
    if dtype in (F16, BF16):
        return np.asarray(value).astype(np.float32).astype(NUMPY_TYPES[dtype]).astype(np.float32)
    return np.asarray(value).astype(HELD[dtype])


def _to_float(value: Array, target: DType, exact: bool) -> Array:
    return np.asarray(value).astype(np.float64) if exact else round_to(value, target)


def _float_to_integer(value: Array, target: DType) -> Array:
    assert target.low is not None and target.high is not None
    whole = np.trunc(np.asarray(value).astype(np.float64))
    inside = (whole >= float(target.low)) & (whole < float(target.high) + 1.0)
    safe = np.where(inside, whole, 0.0).astype(np.int64)
    saturated = np.where(whole > 0, target.high, np.where(whole < 0, target.low, 0))  # NaN compares false: 0
    return np.where(inside, safe, saturated).astype(HELD[target])


# Unary and binary operations: (a[, b], bits of the type) -> value.


def _floordiv(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.floor(a / b)
    if a.dtype.kind == "u":
        return np.where(b == 0, b, np.floor_divide(a, np.where(b == 0, b + b.dtype.type(1), b)))
    trapping = (b == 0) | (b == -1)
    quotient = np.floor_divide(a, np.where(trapping, b.dtype.type(1), b))
    return np.where(b == 0, b, np.where(b == -1, np.negative(a), quotient))


def _mod(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.asarray(a - np.floor(a / b) * b)
    trapping = (b == 0) | ((b == -1) if a.dtype.kind == "i" else False)
    return np.where(trapping, b.dtype.type(0), np.remainder(a, np.where(trapping, b.dtype.type(1), b)))


def _shift(left: bool) -> Callable[[Array, Array], Array]:
    def shift(a: Array, b: Array) -> Array:
        bits = a.dtype.itemsize * 8
        inside = (b >= 0) & (b < bits)
        count = np.where(inside, b, b.dtype.type(0))
        if left:
            return np.where(inside, np.left_shift(a, count), a.dtype.type(0))
        sign = np.where(a < 0, a.dtype.type(-1), a.dtype.type(0)) if a.dtype.kind == "i" else a.dtype.type(0)
        return np.where(inside, np.right_shift(a, count), sign)

    return shift


def _logic(boolean: Any, bitwise: Any) -> Callable[[Array, Array], Array]:
    return lambda a, b: boolean(a, b) if a.dtype.kind == "b" else bitwise(a, b)


def _arithmetic(function: Any) -> Callable[[Array, Array], Array]:
    return lambda a, b: function(a, b)


BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": _arithmetic(np.add),
    "sub": _arithmetic(np.subtract),
    "mul": _arithmetic(np.multiply),
    "div": _arithmetic(np.divide),
    "min": _arithmetic(np.minimum),
    "max": _arithmetic(np.maximum),
    "floordiv": _floordiv,
    "mod": _mod,
    "and": _logic(np.logical_and, np.bitwise_and),
    "or": _logic(np.logical_or, np.bitwise_or),
    "xor": _logic(np.logical_xor, np.bitwise_xor),
    "shl": _shift(left=True),
    "shr": _shift(left=False),
    "eq": _arithmetic(np.equal),
    "ne": _arithmetic(np.not_equal),
    "lt": _arithmetic(np.less),
    "le": _arithmetic(np.less_equal),
    "gt": _arithmetic(np.greater),
    "ge": _arithmetic(np.greater_equal),
}

UNARY: dict[str, Callable[[Array], Array]] = {
    "neg": lambda a: np.negative(a),
    "not": lambda a: np.logical_not(a),
    "invert": lambda a: np.invert(a),
    "abs": lambda a: np.abs(a),
}

REDUCE: dict[str, tuple[Any, Any]] = {
    "add": (np.add, np.add), "mul": (np.multiply, np.multiply), "max": (np.maximum, np.maximum), "min": (np.minimum, np.minimum),
    "and": (np.logical_and, np.bitwise_and), "or": (np.logical_or, np.bitwise_or),
}  # fmt: skip
"""The ufunc of each one-state reducer, on bool and on everything else."""


# Functions of the table `expr.FUNCTIONS`, on f64.

_ERF = np.frompyfunc(math.erf, 1, 1)


def _erf(x: Array) -> Array:
    return np.asarray(_ERF(x), dtype=np.float64)


def _rsqrt(x: Array) -> Array:
    return np.asarray(1.0 / np.sqrt(x))


def _round_away(x: Array) -> Array:
    whole = np.trunc(x)
    return np.where(np.abs(x - whole) >= 0.5, whole + np.copysign(1.0, x), whole)


FUNCTION: dict[str, Callable[..., Array]] = {
    **{
        n: getattr(np, n)
        for n in (
            "exp",
            "exp2",
            "expm1",
            "log",
            "log2",
            "log10",
            "log1p",
            "sqrt",
            "sin",
            "cos",
            "tan",
            "sinh",
            "cosh",
            "tanh",
        )
    },
    **{n: getattr(np, n) for n in ("floor", "ceil", "trunc", "isnan", "isinf")},
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "pow": np.power,
    "round_even": np.rint,
    "rsqrt": _rsqrt,
    "erf": _erf,
    "fma": lambda a, b, c: a * b + c,
    "round_away": _round_away,
}


def call(function: str, args: tuple[Array, ...], dtype: DType, exact: bool = False) -> Array:
    """`function(args)`; `dtype` is the result's type."""
    value = FUNCTION[function](*(np.asarray(a).astype(np.float64) for a in args))
    return np.asarray(value).astype(held_type(dtype, exact))
