"""Sums that count: what is added is whether a condition holds."""

from __future__ import annotations

from tridsl.ir.expr import Cast, Expr
from tridsl.ir.loop import Accumulate
from tridsl.ir.op import Reduce


def counted_condition(statement: Accumulate | Reduce) -> Expr | None:
    """The condition, where the statement adds one to an integer for each point at which it holds."""
    reducer = statement.reducer
    if reducer.op != "add" or len(statement.values) != 1 or not reducer.dtypes[0].is_integer:
        return None
    value = statement.values[0]
    return value.a if isinstance(value, Cast) and value.a.dtype.kind == "bool" and value.dtype == reducer.dtypes[0] else None
