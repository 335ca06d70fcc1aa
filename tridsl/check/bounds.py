"""Every read of a finished stage is proved inside, or has a boundary, or is data-dependent and checked at run time."""

from __future__ import annotations

from typing import TypeVar

from tridsl.check.names import text_of
from tridsl.check.prove import Prover
from tridsl.check.scope import Scope, length_of
from tridsl.diagnostics import error
from tridsl.dtypes import BOOL
from tridsl.ir.affine import simplify_index
from tridsl.ir.expr import Binary, Boundary, Const, Expr, Load, add, index, sub
from tridsl.ir.op import Axis, Compact, Map, Reduce, Scan, Stage, TopK
from tridsl.ir.print_expressions import print_expr
from tridsl.ir.walk import rewrite, variables, walk
from tridsl.structs import replace

S = TypeVar("S", bound=Stage)


def settle(scope: Scope, stage: S) -> S:
    """The stage with a boundary exactly on the reads that need one. Raises E0303 for a read that may be outside without one."""
    match stage:
        case Map():
            return replace(stage, value=_settled(scope, stage.value, stage.axes))
        case Reduce() | Scan():
            inner = stage.over if isinstance(stage, Reduce) else (stage.along,)
            values = []
            for target, value in zip(stage.targets, stage.values):
                axes = tuple(a for a in stage.axes if a.name in target.axes)
                values.append(_settled(scope, value, axes + inner))
            return replace(stage, values=tuple(values))
        case TopK():
            return replace(stage, value=_settled(scope, stage.value, (*stage.axes, stage.along)))
        case Compact():
            axes = (stage.along,)
            return replace(stage, value=_settled(scope, stage.value, axes), keep=_settled(scope, stage.keep, axes))
    raise TypeError(stage)


def _settled(scope: Scope, value: Expr, axes: tuple[Axis, ...]) -> Expr:
    prover = Prover(scope.facts.inside((a.name, a.lo, a.hi) for a in axes))

    def visit(load: Load) -> Load:
        known = scope.tensors.get(load.tensor)
        if known is None or not load.index:
            return load
        for dimension, (position, (lo, hi)) in enumerate(zip(load.index, known.ranges)):
            last = sub(sub(hi, lo), index(1))
            if prover.at_least(position, index(0)) and prover.at_least(last, position):
                continue
            boundary = load.boundary
            if boundary is None and _decided_at_run_time(scope, position):
                boundary = Boundary(mode="raise", span=load.span)
            if boundary is not None:
                if boundary.mode not in ("value", "raise"):
                    _require_element(scope, load, prover, axes)
                first, last = known.ranges[0]
                extent = sub(last, first)
                late = any(isinstance(n, Load) for n in walk(extent))
                return replace(load, boundary=replace(boundary, extent=extent) if late else boundary)
            raise _outside(scope, load, dimension, prover)
        return load if load.boundary is None else replace(load, boundary=None)

    return rewrite(value, {Load: visit})


def _require_element(scope: Scope, load: Load, prover: Prover, axes: tuple[Axis, ...]) -> None:
    """An edge, a reflection and a repetition are of something: a tensor that is read so has elements, or nothing reads it."""
    unread: Expr | None = None
    for axis in axes:
        empty = Binary(op="le", a=sub(axis.hi, axis.lo), b=index(0), dtype=BOOL)
        if not isinstance(axis.hi, Const) and not any(isinstance(n, Load) for n in walk(empty)):
            unread = empty if unread is None else Binary(op="or", a=unread, b=empty, dtype=BOOL)
    for lo, hi in scope.tensors[load.tensor].ranges:
        extent = sub(hi, lo)
        if not prover.at_least(extent, index(1)):
            some = Binary(op="ge", a=extent, b=index(1), dtype=BOOL)
            condition = some if unread is None else Binary(op="or", a=some, b=unread, dtype=BOOL)
            scope.require(condition, f"'{text_of(load.span) or load.tensor}' needs an element of '{load.tensor}'", load.span,
                          late=length_of(hi) is not None)  # fmt: skip


def _decided_at_run_time(scope: Scope, position: Expr) -> bool:
    """Depends on data: on a tensor's element or on a scalar that is not specialised."""
    if any(isinstance(n, Load) and not n.tensor.endswith(".len") for n in walk(position)):
        return True
    return any(name in scope.scalars and not scope.scalars[name].const for name in variables(position))


def _outside(scope: Scope, load: Load, dimension: int, prover: Prover) -> Exception:
    lo, hi = scope.tensors[load.tensor].ranges[dimension]
    names = frozenset(scope.sizes) | frozenset(scope.scalars)
    position = add(load.index[dimension], lo)
    low = prover.extreme(position, upper=False, keep=names)
    high = prover.extreme(position, upper=True, keep=names)
    what = text_of(load.span) or load.tensor
    if length_of(hi):
        return error(
            "E0305", f"'{what}' may be past the end of '{load.tensor}', whose length is known at run time only", load.span, label="not provably inside",
            help="let the index run over its elements: declare what is computed from it ..N, or give it no range of its own; or pad the access",
            example=_padded(what),
        )  # fmt: skip
    shown = (
        f"{shown_index(low)} to {shown_index(high)}"
        if low is not None and high is not None and low != high
        else f"{shown_index(low)}"
        if low is not None and low == high
        else f"'{shown_index(position)}'"
    )
    axis = "" if len(load.index) == 1 else f" of axis {dimension}"
    return error(
        "E0303", f"'{what}' may be outside '{load.tensor}': the index{axis} is {shown}, legal is {shown_index(lo)} to {shown_index(sub(hi, index(1)))}",
        load.span, label="not provably inside",
        help="say what lies outside: pad=<value>, edge, reflect, symmetric or wrap; or narrow the index with 'in a..b', or state a 'where'",
        example=_padded(what),
    )  # fmt: skip


def _padded(what: str) -> str:
    return f"y[i] = {what[:-1]}; pad=edge]" if what.endswith("]") and ";" not in what else "y[i] = x[i - 1; pad=edge]"


def shown_index(e: Expr) -> str:
    """Index arithmetic as a user would write it."""
    return print_expr(simplify_index(e)).replace(".len[]", ".len")
