"""Shapes and contracts of a call: expressions over sizes and scalars, worked out with Python numbers."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from tridsl.dtypes import DType
from tridsl.ir.expr import Binary, Call, Cast, Const, Expr, Select, Unary, Var

Number = bool | int | float

BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul,
    "div": lambda a, b: a / b if b else math.copysign(math.inf, a) if a else math.nan,
    "floordiv": lambda a, b: a // b if b else 0,
    "mod": lambda a, b: a % b if b else 0,
    "min": min, "max": max, "and": operator.and_, "or": operator.or_, "xor": operator.xor,
    "shl": lambda a, b: a << b if 0 <= b < 64 else 0,
    "shr": lambda a, b: a >> b if 0 <= b < 64 else (-1 if a < 0 else 0),
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
}  # fmt: skip

UNARY: dict[str, Callable[[Any], Any]] = {"neg": operator.neg, "not": operator.not_, "invert": operator.invert, "abs": abs}

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "floor": math.floor, "ceil": math.ceil, "trunc": math.trunc, "sqrt": math.sqrt, "exp": math.exp, "log": math.log,
    "isnan": math.isnan, "isinf": math.isinf, "pow": math.pow, "round_even": round,
}  # fmt: skip


def evaluate(expression: Expr, values: Mapping[str, Number]) -> Any:
    """The value of `expression`. Raises KeyError for a name that `values` lacks.

    Sizes are far from the limits of i64, so integers do not wrap here.
    """
    match expression:
        case Const():
            return expression.value
        case Var():
            return values[expression.name]
        case Binary():
            return BINARY[expression.op](evaluate(expression.a, values), evaluate(expression.b, values))
        case Unary():
            return UNARY[expression.op](evaluate(expression.a, values))
        case Select():
            return evaluate(expression.a if evaluate(expression.condition, values) else expression.b, values)
        case Cast():
            return _cast(evaluate(expression.a, values), expression.dtype)
        case Call():
            return FUNCTIONS[expression.function](*(evaluate(a, values) for a in expression.args))
    raise TypeError(f"an expression over sizes and scalars cannot contain {type(expression).__name__}")


def _cast(value: Any, dtype: DType) -> Any:
    if dtype.is_float:
        return float(value)
    return bool(value) if dtype.kind == "bool" else int(value)


def shape_of(dimensions: tuple[Expr, ...], values: Mapping[str, Number]) -> tuple[int, ...]:
    """Extents in elements."""
    return tuple(int(evaluate(d, values)) for d in dimensions)
