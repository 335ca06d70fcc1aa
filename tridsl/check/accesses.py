"""`T[i, j; pad=…]`: the element that is read. Whether the index stays inside is settled when its stage is complete."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from tridsl.check.names import counted, suggestion, written
from tridsl.check.operands import adapt, as_index
from tridsl.check.scope import Known, Place, Scope
from tridsl.check.values import Value, typed
from tridsl.diagnostics import error
from tridsl.dtypes import compute_type
from tridsl.ir.expr import Boundary, BoundaryMode, Cast, Load, sub
from tridsl.structs import replace
from tridsl.syntax.nodes import Access, Expression, Keyword, Name

Evaluate = Callable[[Scope, Expression, Place], Value]

MODES = frozenset(get_args(BoundaryMode)) - {"value", "raise"}


def access(scope: Scope, node: Access, place: Place, evaluate: Evaluate) -> Value:
    """The element of a known tensor at a checked index."""
    known = scope.tensors[node.tensor]
    scope.used.add(node.tensor)
    if len(node.index) != known.rank:
        axes = counted(known.rank, "axis", "axes")
        raise error("E0210", f"'{node.tensor}' has {axes}, but is read with {counted(len(node.index), 'index', 'indices')}",
                    node.span, help=f"write one index for each axis of {node.tensor}")  # fmt: skip
    inner = replace(place, indexing=True, widen=None)
    position = tuple(as_index(evaluate(scope, i, inner)) for i in node.index)
    if place.writes and place.writes[0] == node.tensor and position != place.writes[1]:
        raise error("E0233", f"'{written(node)}' reads an element of '{node.tensor}' that this same stage overwrites elsewhere", node.span,
                    help=f"read {node.tensor} only at the index that is written, or copy what you need to a stage before")  # fmt: skip
    load = Load(
        tensor=node.tensor,
        index=tuple(sub(p, lo) for p, (lo, _) in zip(position, known.ranges)),
        dtype=known.dtype,
        boundary=_boundary(scope, node, known, place, evaluate),
        span=node.span,
    )
    compute = compute_type(known.dtype)
    return typed(load if compute == known.dtype else Cast(a=load, dtype=compute), known.dtype, node)


def _boundary(scope: Scope, node: Access, known: Known, place: Place, evaluate: Evaluate) -> Boundary | None:
    pad: Keyword | None = None
    for option in node.options:
        if option.name != "pad" or option.value is None:
            raise error("E0307", f"'{option.name}' is no option of an access", option.span,
                        help="the option is pad=<value>, or pad= one of edge, reflect, symmetric, wrap", example="y[i] = x[i; pad=0]")  # fmt: skip
        pad = option
    if pad is None or pad.value is None:
        return None
    if isinstance(pad.value, Name) and pad.value.name in MODES:
        return Boundary(mode=pad.value.name, span=pad.span)  # type: ignore[arg-type]
    if isinstance(pad.value, Name) and not (pad.value.name in scope.scalars or pad.value.name in place.locals):
        raise error("E0307", f"'{pad.value.name}' is no boundary", pad.value.span,
                    help=suggestion(pad.value.name, MODES) or "boundaries are a value, edge, reflect, symmetric and wrap",
                    example="y[i] = x[i; pad=edge]")  # fmt: skip
    value = evaluate(scope, pad.value, Place(target=place.target, locals=place.locals))
    return Boundary(mode="value", value=adapt(scope, value, known.dtype, place), span=pad.span)
