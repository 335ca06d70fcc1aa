"""A checked value: typed, or a literal, index or size that adapts to what it meets."""

from __future__ import annotations

from collections.abc import Callable

from tridsl.dtypes import BOOL, COMPUTE, INDEX, TRIT, DType, compute_type
from tridsl.ir.expr import Binary, Cast, Const, Expr
from tridsl.structs import dataclass
from tridsl.syntax.nodes import Syntax

Make = Callable[[DType], Expr]


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """`type` is the language's type; `expr` computes it in `compute_type(type)`.

    `type` None: it adapts. An adapting integer (literal, index, size, `2*i + 1`, an argmax) has its i64 `expr`; an adapting
    float (`0.5`, `inf`, `1 / N`) has `make`, which builds it in the compute type of the dtype it is given.
    """

    syntax: Syntax
    type: DType | None = None
    expr: Expr | None = None
    make: Make | None = None

    @property
    def adapts(self) -> bool:
        return self.type is None

    @property
    def floating(self) -> bool:
        return self.make is not None

    @property
    def ir(self) -> Expr:
        """The expression of a value that has one."""
        assert self.expr is not None
        return self.expr


def typed(expr: Expr, dtype: DType, syntax: Syntax) -> Value:
    return Value(syntax=syntax, type=dtype, expr=expr)


def integer(expr: Expr, syntax: Syntax) -> Value:
    """An adapting integer."""
    return Value(syntax=syntax, expr=expr)


def floating(make: Make, syntax: Syntax) -> Value:
    """An adapting float."""
    return Value(syntax=syntax, make=make)


def operand_type(dtype: DType) -> DType:
    """The type a stored value takes part in arithmetic with: i8 for trit and i4, u8 for u4, else its own."""
    return COMPUTE.get(dtype, dtype) if dtype.is_integer else dtype


def converted(expr: Expr, dtype: DType) -> Expr:
    """`dtype(expr)` as the language's explicit cast: in the compute type of `dtype`, rounded to `dtype` on the way."""
    compute = compute_type(dtype)
    if dtype == BOOL:
        return expr if expr.dtype == BOOL else Binary(op="ne", a=expr, b=Const(value=0, dtype=expr.dtype), dtype=BOOL)
    if dtype == TRIT and not expr.dtype.is_float:
        return _clamped(expr if expr.dtype != BOOL else Cast(a=expr, dtype=compute))
    if dtype in COMPUTE:
        return Cast(a=Cast(a=expr, dtype=dtype), dtype=compute)
    return expr if expr.dtype == dtype else Cast(a=expr, dtype=dtype)


def _clamped(expr: Expr) -> Expr:
    """An integer brought into -1..1, as a trit."""
    low = (
        expr
        if expr.dtype.kind == "uint"
        else Binary(op="max", a=expr, b=Const(value=-1, dtype=expr.dtype), dtype=expr.dtype)
    )
    high = Binary(op="min", a=low, b=Const(value=1, dtype=expr.dtype), dtype=expr.dtype)
    return high if high.dtype == COMPUTE[TRIT] else Cast(a=high, dtype=COMPUTE[TRIT])


def stored(expr: Expr, dtype: DType) -> Expr:
    """`expr` as the value of a store to `dtype`: rounding to `dtype` there makes the same rounding before it superfluous."""
    match expr:
        case Cast(a=Cast(a=inner, dtype=middle)) if middle == dtype and inner.dtype == expr.dtype:
            return inner
    return expr


def constant(value: bool | float, dtype: DType) -> Const:
    """A literal of the compute type of `dtype`."""
    compute = compute_type(dtype)
    return Const(value=float(value) if compute.is_float else value, dtype=compute)


def index_of(value: Value) -> Expr | None:
    """The value as i64 index arithmetic, None when it is no integer."""
    if value.floating or value.expr is None:
        return None
    if value.type is None or value.type == INDEX:
        return value.expr
    return Cast(a=value.expr, dtype=INDEX) if value.type.is_integer else None
