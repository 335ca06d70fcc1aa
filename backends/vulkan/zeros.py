"""Loops that fill memory with zeros: what they fill may hold words as well as elements."""

from __future__ import annotations

from math import copysign

from tridsl.ir.expr import Cast, Const
from tridsl.ir.loop import For, Ref, Stmt, Store


def zero_fill(statement: Stmt) -> tuple[Ref, str, int] | None:
    """What a loop fills with zeros, all of whose bits are 0; its variable and how many."""
    match statement:
        case For(var=variable, extent=Const(value=count), body=(Store(target=target, value=value, mask=None),)):
            inner = value.a if isinstance(value, Cast) else value
            zero = isinstance(inner, Const) and inner.value == 0 and copysign(1, inner.value) > 0
            return (target, variable, int(count)) if zero else None
    return None
