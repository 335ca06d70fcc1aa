"""Bringing values to one type: literals and indices adapt, everything else must agree already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite

import numpy as np

from tridsl.check.names import cast, written
from tridsl.check.prove import Prover, bounds_of
from tridsl.check.scope import Place, Scope
from tridsl.check.values import Value, constant, floating, index_of, integer, operand_type, typed
from tridsl.diagnostics import Label, TriError, error
from tridsl.dtypes import BF16, BOOL, F32, F64, INDEX, NUMPY_TYPES, DType, compute_type
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Select, Unary, binary, index
from tridsl.ir.walk import walk
from tridsl.syntax.nodes import Conditional, Infix, Number, Syntax

MOST_TERMS = 1000
"""Index arithmetic that multiplies out to more is refused: proofs about it would take too long."""

Build = Callable[[list[Expr]], Expr]


def combine(scope: Scope, values: Sequence[Value], place: Place, build: Build, node: Syntax, *,
            what: str, result: DType | None = None) -> Value:  # fmt: skip
    """`build` applied to the operands in their common type. `node` is the operation, `what` its name for messages; `result` is its type if it is fixed."""
    dtype = common_type(values, what)
    if dtype is not None:
        if dtype.is_integer:
            _refuse_fractions(values, dtype)
        value = build([adapt(scope, v, dtype, place) for v in values])
        return typed(value, result or dtype, node)
    if not any(v.floating for v in values):
        value = build([v.ir for v in values])
        if _terms(value) > MOST_TERMS:
            raise error(
                "E0306",
                f"this index arithmetic multiplies out to more than {MOST_TERMS} terms",
                node.span,
                help="compute it in steps, in stages of its own",
            )
        return typed(value, result, node) if result else integer(value, node)
    if result:
        return typed(build([adapt(scope, v, F64, place) for v in values]), result, node)
    return floating(lambda d: build([adapt(scope, v, d, place) for v in values]), node)


def _refuse_fractions(values: Sequence[Value], dtype: DType) -> None:
    """A float literal beside an integer: the integer is to be cast, not the literal."""
    whole = next((v for v in values if v.type is not None), None)
    for value in values:
        if value.floating and whole is not None and isinstance(value.syntax, Number):
            raise error("E0212", f"'{written(value.syntax)}' is a float, but '{written(whole.syntax)}' is {dtype}", value.syntax.span,
                        help=f"write {cast(F32, whole.syntax)} to compute with floats, or an integer", others=_label(whole))  # fmt: skip


def _label(value: Value) -> tuple[Label, ...]:
    return (Label(span=value.syntax.span, text=str(value.type)),) if value.syntax.span else ()


def _terms(e: Expr) -> int:
    """How many terms the normal form of index arithmetic may have."""
    match e:
        case Binary(op="add" | "sub"):
            return _terms(e.a) + _terms(e.b)
        case Binary(op="mul"):
            return _terms(e.a) * _terms(e.b)
        case Unary(op="neg"):
            return _terms(e.a)
    return 1


def common_type(values: Sequence[Value], what: str) -> DType | None:
    """The one type of all typed operands; None when every one adapts."""
    first: Value | None = None
    for value in values:
        if value.type is None:
            continue
        if first is None or first.type is None:
            first = value
        elif operand_type(value.type) != operand_type(first.type):
            raise mismatch(first, value, what)
    return operand_type(first.type) if first and first.type else None


def mismatch(a: Value, b: Value, what: str) -> TriError:
    """Two operands of different types: which cast to write."""
    assert a.type is not None and b.type is not None
    wider, other = (a, b) if _rank(a.type) >= _rank(b.type) else (b, a)
    assert wider.type is not None
    return error(
        "E0211", f"operands of {what} have different types: '{written(a.syntax)}' is {a.type}, '{written(b.syntax)}' is {b.type}",
        b.syntax.span, label=str(b.type),
        others=(Label(span=a.syntax.span, text=str(a.type)),) if a.syntax.span else (),
        help=f"nothing is promoted silently; write {cast(operand_type(wider.type), other.syntax)}",
    )  # fmt: skip


def _rank(dtype: DType) -> tuple[bool, int]:
    return dtype.is_float, dtype.bits


def adapt(scope: Scope, value: Value, dtype: DType, place: Place) -> Expr:
    """The value as an expression of `compute_type(dtype)`; a typed value must have the type already."""
    if value.type is not None:
        if operand_type(value.type) != operand_type(dtype):
            raise error("E0211", f"'{written(value.syntax)}' is {value.type}, {dtype} is needed here", value.syntax.span,
                        label=str(value.type), help=f"write {cast(dtype, value.syntax)}")  # fmt: skip
        return value.ir
    if dtype == BOOL:
        raise error("E0213", f"'{written(value.syntax)}' is a number, a bool is needed here", value.syntax.span,
                    help="compare it, as in x != 0")  # fmt: skip
    if value.make is not None:
        return value.make(dtype)
    assert value.expr is not None
    if isinstance(value.expr, Const):
        number = int(value.expr.value)
        if dtype.low is not None and dtype.high is not None and not dtype.low <= number <= dtype.high:
            raise error("E0212", f"{number} does not fit {dtype}, which holds {dtype.low} to {dtype.high}", value.syntax.span,
                        help="write a value of that range, or compute in a wider type")  # fmt: skip
        return constant(number, dtype)
    if dtype == INDEX:
        return value.expr
    if isinstance(value.expr, Select):  # each arm adapts by itself
        arms = (
            (value.syntax.then, value.syntax.otherwise)
            if isinstance(value.syntax, Conditional)
            else (value.syntax,) * 2
        )
        a, b = (adapt(scope, Value(syntax=s, expr=e), dtype, place) for s, e in zip(arms, (value.expr.a, value.expr.b)))
        return Select(condition=value.expr.condition, a=a, b=b, dtype=a.dtype)
    if dtype.is_integer:
        _require_fit(scope, value, dtype, place)
    return Cast(a=value.expr, dtype=compute_type(dtype))


def _require_fit(scope: Scope, value: Value, dtype: DType, place: Place) -> None:
    """An index used as an integer value must fit: proved now, or a contract of the call."""
    assert value.expr is not None and dtype.low is not None and dtype.high is not None
    facts = scope.facts.inside((a.name, a.lo, a.hi) for a in place.axes)
    prover = Prover(facts)
    names = frozenset(scope.sizes) | frozenset(scope.scalars)
    low, high = bounds_of(value.expr, facts, names)
    inside = (
        prover.at_least(value.expr, index(dtype.low)),
        prover.at_least(index(dtype.high), value.expr),
    )
    what = written(value.syntax)
    for proved, bound, limit, op in ((inside[0], low, dtype.low, "ge"), (inside[1], high, dtype.high, "le")):
        if proved:
            continue
        if bound is None or isinstance(bound, Const) or any(isinstance(n, Load) for n in walk(bound)):
            raise error("E0212", f"'{what}' may not fit {dtype}, which holds {dtype.low} to {dtype.high}", value.syntax.span,
                        help=f"write {cast(dtype, value.syntax)} to wrap, or use a wider type")  # fmt: skip
        scope.require(binary(op, bound, index(limit)), f"'{what}' must fit {dtype}", value.syntax.span)  # type: ignore[arg-type]


def literal(value: float, dtype: DType, node: Syntax) -> Expr:
    """A float literal in the compute type of `dtype`."""
    if not dtype.is_float:
        raise error("E0212", f"'{written(node)}' is a float, {dtype} is needed here", node.span,
                    help=f"write an integer, or {cast(dtype, node)}")  # fmt: skip
    if isfinite(value) and abs(value) > _finite(dtype)[1]:
        raise error(
            "E0212",
            f"'{written(node)}' does not fit {dtype}",
            node.span,
            help="write inf, or use a wider type",
        )
    return constant(value, dtype)


def _finite(dtype: DType) -> tuple[float, float]:
    """The least and the greatest finite value of a float type."""
    if dtype != BF16:
        limits = np.finfo(NUMPY_TYPES[dtype])
        return float(limits.min), float(limits.max)
    import ml_dtypes  # start-up time, as in `dtypes`

    info = ml_dtypes.finfo(NUMPY_TYPES[dtype])  # type: ignore[no-untyped-call]
    return float(info.min), float(info.max)


def limit(dtype: DType, *, highest: bool) -> Expr:
    """`lowest` or `highest`: the least or greatest finite value of the type."""
    if dtype.is_float:
        return constant(_finite(dtype)[highest], dtype)
    bound = dtype.high if highest else dtype.low
    assert bound is not None
    return constant(bound, dtype)


def widened(value: Value, acc: DType) -> Value:
    """The operand of a reducer with `acc=`, brought to the accumulator's type before anything is multiplied."""
    if value.type is None or value.type == acc:
        return value
    source = operand_type(value.type)
    if source.is_float and acc.is_float:
        legal = source.bits <= acc.bits and acc == compute_type(acc)
    else:
        legal = source.is_integer and acc.is_integer and _contains(acc, source)
    if not legal:
        raise error("E0226", f"acc={acc} cannot hold every {value.type} of '{written(value.syntax)}'", value.syntax.span,
                    label=str(value.type), help=f"choose a wider acc=, or cast the operand: {cast(acc, value.syntax)}")  # fmt: skip
    expr = value.ir if value.ir.dtype == acc else Cast(a=value.ir, dtype=acc)
    return typed(expr, acc, value.syntax)


def _contains(wide: DType, narrow: DType) -> bool:
    assert wide.low is not None and wide.high is not None and narrow.low is not None and narrow.high is not None
    return wide.low <= narrow.low and narrow.high <= wide.high


def truth(value: Value) -> Expr:
    """A condition's expression."""
    if value.type != BOOL:
        kind = f"is {value.type}" if value.type else "is a number"
        raise error("E0213", f"'{written(value.syntax)}' {kind}, a condition is bool", value.syntax.span,
                    help="compare it, as in x != 0")  # fmt: skip
    return value.ir


def as_index(value: Value) -> Expr:
    """The value as i64 index arithmetic."""
    found = index_of(value)
    if found is None:
        kind = str(value.type) if value.type else "a float"
        divided = isinstance(value.syntax, Infix) and value.syntax.operator == "/"
        raise error("E0213", f"'{written(value.syntax)}' is {kind}; an index is an integer", value.syntax.span,
                    help="write '//', the floor of an integer division" if divided else f"write {cast(INDEX, value.syntax)}")  # fmt: skip
    return found
