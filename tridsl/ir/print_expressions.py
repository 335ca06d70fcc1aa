"""Text of an expression: as the user would write it. Index products are written tight (`i.o*12`), others with spaces."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from tridsl.dtypes import BF16, BOOL, F16, F32, F64, INDEX, NUMPY_TYPES
from tridsl.ir.expr import Binary, Call, Cast, Const, Expr, Lead, Load, Select, Unary, Var

Names = Mapping[str, str]

# How tightly an operator binds. `|`, `^` and `&` share a level: they are parenthesised against each other.
_LEVEL = {
    "or": 1, "and": 2, "eq": 4, "ne": 4, "lt": 4, "le": 4, "gt": 4, "ge": 4, "bits": 5, "shl": 6, "shr": 6,
    "add": 7, "sub": 7, "mul": 8, "div": 8, "floordiv": 8, "mod": 8,
}  # fmt: skip
_SELECT, _NOT, _PREFIX, _ATOM = 0, 3, 9, 10
_SYMBOL = {
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "shl": "<<", "shr": ">>",
    "add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "mod": "%",
}  # fmt: skip
_LOGIC = {"and": ("and", "&"), "or": ("or", "|"), "xor": ("!=", "^")}  # on bool, on integers
# Left operands that need no parentheses: `a - b + c` and `a*b // c`, but `(a // b)*c`.
_FLAT = {
    "add": ("add", "sub"), "sub": ("add", "sub"), "mul": ("mul",), "div": ("mul",), "floordiv": ("mul",), "mod": ("mul",),
    "and": ("and",), "or": ("or",), "xor": (),
}  # fmt: skip
_FLOAT_LIMITS = {
    dtype: float(limit)
    for dtype, limit in (
        (F16, 65504.0),
        (BF16, 3.3895313892515355e38),
        (F32, np.finfo(np.float32).max),
        (F64, np.finfo(np.float64).max),
    )
}


def print_expr(expr: Expr, names: Names | None = None) -> str:
    """`expr` as the user would write it; `names` renames variables."""
    return _text(expr, names or {})[0]


def _text(expr: Expr, names: Names) -> tuple[str, int]:
    """The text and how tightly it binds."""
    match expr:
        case Const():
            text = print_constant(expr)
            return text, _PREFIX if text.startswith("-") else _ATOM
        case Var():
            return names.get(expr.name, expr.name), _ATOM
        case Load():
            return _load(expr, names)
        case Cast():
            return f"{expr.dtype}({print_expr(expr.a, names)})", _ATOM
        case Call():
            return f"{expr.function}({print_list(expr.args, names)})", _ATOM
        case Lead():
            return f"lead({expr.tensor}, {expr.count})", _ATOM
        case Select():
            condition, a = (print_inner(e, 1, names) for e in (expr.condition, expr.a))
            return f"if {condition} then {a} else {print_expr(expr.b, names)}", _SELECT
        case Unary():
            return _unary(expr, names)
        case Binary():
            return _binary(expr, names)
    raise TypeError(f"not an expression: {expr!r}")


def print_inner(expr: Expr, level: int, names: Names) -> str:
    """`expr` as an operand of something that binds at `level`: in parentheses when it binds less tightly."""
    text, own = _text(expr, names)
    return text if own >= level else f"({text})"


def print_list(items: Iterable[Expr], names: Names) -> str:
    return ", ".join(print_expr(e, names) for e in items)


def _unary(expr: Unary, names: Names) -> tuple[str, int]:
    if expr.op == "abs":
        return f"abs({print_expr(expr.a, names)})", _ATOM
    if expr.op == "not":
        return f"not {print_inner(expr.a, _NOT, names)}", _NOT
    return {"neg": "-", "invert": "~"}[expr.op] + print_inner(expr.a, _ATOM, names), _PREFIX


def _binary(expr: Binary, names: Names) -> tuple[str, int]:
    if expr.op in ("min", "max"):
        return f"{expr.op}({print_list((expr.a, expr.b), names)})", _ATOM
    rounded_up = _as_ceildiv(expr)
    if rounded_up:
        return f"ceil({print_inner(rounded_up[0], _LEVEL['div'], names)} / {rounded_up[1]})", _ATOM
    if expr.op in _LOGIC:
        on_bool, on_bits = _LOGIC[expr.op]
        symbol = on_bool if expr.dtype == BOOL else on_bits
        level = _LEVEL["ne"] if symbol == "!=" else _LEVEL[expr.op] if expr.dtype == BOOL else _LEVEL["bits"]
    else:
        symbol, level = _SYMBOL[expr.op], _LEVEL[expr.op]
    left = print_inner(
        expr.a, level if isinstance(expr.a, Binary) and expr.a.op in _FLAT.get(expr.op, ()) else level + 1, names
    )
    right = print_inner(expr.b, level + 1, names)
    tight = expr.op == "mul" and expr.dtype == INDEX
    return (f"{left}*{right}" if tight else f"{left} {symbol} {right}"), level


def _as_ceildiv(expr: Binary) -> tuple[Expr, int] | None:
    """(a, c) when `expr` is `(a + (c - 1)) // c`: the number of tiles of a split."""
    match expr:
        case Binary(op="floordiv", a=Binary(op="add", a=a, b=Const(value=up)), b=Const(value=c)) if (
            c > 1 and up == c - 1 and expr.dtype == INDEX
        ):
            return a, int(c)
    return None


def _load(expr: Load, names: Names) -> tuple[str, int]:
    text = print_place(expr.tensor, expr.index, names)
    if expr.boundary:
        boundary = expr.boundary
        if boundary.mode == "raise":
            text = text[:-1] + "; raise]"
        else:
            pad = print_expr(boundary.value, names) if boundary.value is not None else boundary.mode
            text = text[:-1] + f"; pad={pad}]"
    if expr.mask is None:
        return text, _ATOM
    other = print_expr(expr.other, names) if expr.other is not None else "0"
    return f"if {print_inner(expr.mask, 1, names)} then {text} else {other}", _SELECT


def print_place(tensor: str, index: tuple[Expr, ...], names: Names) -> str:
    return f"{tensor}[{print_list(index, names)}]" if index else f"{tensor}[]"


def print_constant(constant: Const) -> str:
    """The shortest literal of `constant`'s type that reads back as the same value."""
    value, dtype = constant.value, constant.dtype
    if dtype == BOOL:
        return "true" if value else "false"
    if dtype.is_integer:
        limits = {dtype.low: "lowest", dtype.high: "highest"} if dtype.bits >= 32 else {}
        return limits.get(int(value), str(int(value)))
    number = float(value)
    if math.isnan(number):
        return "nan"
    if number in (float("inf"), float("-inf")):
        return "inf" if number > 0 else "-inf"
    limit = _FLOAT_LIMITS[dtype]
    if abs(number) == limit:
        return "highest" if number > 0 else "lowest"
    if number == int(number) and abs(number) < 1e7:
        return "-0.0" if number == 0 and np.signbit(number) else str(int(number))
    numpy_type = NUMPY_TYPES[F32 if dtype == BF16 else dtype].type
    return str(numpy_type(number)) if float(numpy_type(number)) == number else repr(number)
