"""Scalar expressions, shared by `Op` (what) and `Kernel` (how).

Every node carries its `dtype`. Arithmetic nodes never have a storage-only type (f16, bf16, trit, i4, u4): a `Load` of
such a tensor stands inside a `Cast` to its compute type, and a store casts back (`dtypes.COMPUTE`). Operands of a
`Binary` have one type. Index arithmetic is ordinary i64 arithmetic. Spans are outside equality and hash.

Total semantics, which the oracle (`ir.evaluate`) and every backend share: integers wrap; `floordiv` and `mod` floor, and
are 0 for divisor 0; shifts by >= bits give 0 (arithmetic right shift of a negative value: -1); float -> int casts truncate
and saturate with NaN -> 0; int -> narrower int wraps; `max`/`min` on floats propagate NaN; `Select` may evaluate both arms, and
`and` and `or` both operands: only a `Load`'s mask keeps it from reading.
"""

from __future__ import annotations

from dataclasses import field
from typing import Literal, TypeAlias

from tridsl.diagnostics import Span
from tridsl.dtypes import BOOL, INDEX, DType
from tridsl.structs import dataclass, replace

UnaryOp = Literal["neg", "not", "invert", "abs"]
ArithmeticOp = Literal["add", "sub", "mul", "div", "floordiv", "mod", "min", "max", "and", "or", "xor", "shl", "shr"]
CompareOp = Literal["eq", "ne", "lt", "le", "gt", "ge"]
BinaryOp = ArithmeticOp | CompareOp

BoundaryMode = Literal["value", "edge", "reflect", "symmetric", "wrap", "raise"]

FUNCTIONS: dict[str, int] = {
    # name: number of arguments. All map floats of one type to that type, except isnan and isinf, which give bool.
    "exp": 1, "exp2": 1, "expm1": 1, "log": 1, "log2": 1, "log10": 1, "log1p": 1, "sqrt": 1, "rsqrt": 1, "sin": 1, "cos": 1,
    "tan": 1, "sinh": 1, "cosh": 1, "tanh": 1, "asin": 1, "acos": 1, "atan": 1, "atan2": 2, "erf": 1, "pow": 2, "fma": 3,
    "floor": 1, "ceil": 1, "trunc": 1, "round_even": 1, "round_away": 1, "isnan": 1, "isinf": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Base of every IR node: where in the user's text it came from."""

    span: Span | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Const(Node):
    """`value` is a Python bool, int or float within `dtype`'s range (floats may be inf or nan)."""

    value: bool | int | float
    dtype: DType


@dataclass(frozen=True, slots=True, kw_only=True)
class Var(Node):
    """A loop variable or size (i64), a scalar parameter, or a bound name of a reducer (`a.m`)."""

    name: str
    dtype: DType = INDEX


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary(Node):
    """What an access outside its tensor gives; at op level, and in a kernel for the source of a `Copy` (`passes.boundaries` turns it into index
    maps and masks).

    NumPy's words. `value` needs `value`, an expression of the tensor's *compute* type. `raise` is for data-dependent
    indices without a pad: the element reads as 0 and the call raises IndexError afterwards. `extent` is the length of axis 0
    where that is known at run time only; None: the tensor's shape decides.
    """

    mode: BoundaryMode
    value: Expr | None = None
    extent: Expr | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load(Node):
    """`tensor[index]`; `index` has one i64 expression per axis, in elements; `dtype` is the tensor's element type.

    `mask` (loop level): where false, memory is not touched and the value is `other` (of `dtype`).
    """

    tensor: str
    index: tuple[Expr, ...]
    dtype: DType
    boundary: Boundary | None = None
    mask: Expr | None = None
    other: Expr | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unary(Node):
    op: UnaryOp
    a: Expr
    dtype: DType


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary(Node):
    """`dtype` is the operands' type for arithmetic, bool for comparisons. `and`/`or`/`xor` serve bool and integers."""

    op: BinaryOp
    a: Expr
    b: Expr
    dtype: DType


@dataclass(frozen=True, slots=True, kw_only=True)
class Select(Node):
    condition: Expr
    a: Expr
    b: Expr
    dtype: DType


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast(Node):
    a: Expr
    dtype: DType


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Node):
    """A function of the table `FUNCTIONS`."""

    function: str
    args: tuple[Expr, ...]
    dtype: DType


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead(Node):
    """Loop level: how many elements of the parameter `tensor` come before the first whose address is a multiple of `count` elements;
    0 to count - 1. Where arrays lie is known when the kernel runs; a result must not depend on it, and the oracle takes any number."""

    tensor: str
    count: int
    dtype: DType = INDEX


Expr: TypeAlias = Const | Var | Load | Unary | Binary | Select | Cast | Call | Lead

COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")


# Builders. They fold constants and identities of index arithmetic so that rewritten indices stay readable;
# they are the only code that does (deeper rules: `passes.simplify`).


def index(value: int) -> Const:
    """An i64, wrapped as what is computed of constants at run time would be."""
    return Const(value=value if -(1 << 63) <= value < 1 << 63 else (value + (1 << 63)) % (1 << 64) - (1 << 63), dtype=INDEX)


def binary(op: BinaryOp, a: Expr, b: Expr) -> Expr:
    """`a op b`, folded when it is plain i64 index arithmetic with a known answer."""
    if a.dtype == INDEX and b.dtype == INDEX:
        folded = _fold_index(op, a, b)
        if folded is not None:
            return folded
    return Binary(op=op, a=a, b=b, dtype=BOOL if op in COMPARE else a.dtype)


def add(a: Expr, b: Expr) -> Expr:
    return binary("add", a, b)


def sub(a: Expr, b: Expr) -> Expr:
    return binary("sub", a, b)


def mul(a: Expr, b: Expr) -> Expr:
    return binary("mul", a, b)


def minimum(a: Expr, b: Expr) -> Expr:
    return binary("min", a, b)


def ceildiv(a: Expr, b: Expr) -> Expr:
    """ceil(a / b) for a >= 0 and b > 0."""
    return binary("floordiv", add(a, sub(b, index(1))), b)


def both(a: Expr | None, b: Expr | None) -> Expr | None:
    """Conjunction where None means true."""
    if a is None or b is None:
        return a if b is None else b
    return Binary(op="and", a=a, b=b, dtype=BOOL)


def masked(load: Load, condition: Expr | None) -> Load:
    """`load` where the condition holds, too; elsewhere memory is not touched and the value is 0, or what the load says already."""
    other = load.other or Const(value=0.0 if load.dtype.is_float else 0, dtype=load.dtype)
    return replace(load, mask=both(load.mask, condition), other=other)


def _fold_index(op: BinaryOp, a: Expr, b: Expr) -> Expr | None:
    x = a.value if isinstance(a, Const) else None
    y = b.value if isinstance(b, Const) else None
    if x is not None and y is not None:
        return _constant(op, int(x), int(y))
    identity = {"add": (0, 0), "sub": (None, 0), "mul": (1, 1), "floordiv": (None, 1)}.get(op)
    if identity:
        if x is not None and x == identity[0]:
            return b
        if y is not None and y == identity[1]:
            return a
    if op == "mul" and (x == 0 or y == 0):
        return index(0)
    if op == "mod" and y == 1:
        return index(0)
    if op in ("min", "max") and a == b:
        return a
    if op == "sub" and a == b:
        return index(0)
    if op == "add" and y is not None and isinstance(a, Binary) and a.op == "add" and isinstance(a.b, Const):
        return add(a.a, index(int(a.b.value) + int(y)))  # (e + c1) + c2
    return None


def _constant(op: BinaryOp, x: int, y: int) -> Expr | None:
    match op:
        case "add":
            return index(x + y)
        case "sub":
            return index(x - y)
        case "mul":
            return index(x * y)
        case "floordiv":
            return index(x // y if y else 0)
        case "mod":
            return index(x % y if y else 0)
        case "min":
            return index(min(x, y))
        case "max":
            return index(max(x, y))
        case "eq" | "ne" | "lt" | "le" | "gt" | "ge":
            answer = {"eq": x == y, "ne": x != y, "lt": x < y, "le": x <= y, "gt": x > y, "ge": x >= y}[op]
            return Const(value=answer, dtype=BOOL)
    return None
