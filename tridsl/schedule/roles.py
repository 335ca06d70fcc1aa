"""Who is who in a sum of products: the two factors, and the axes along which a register tile of its results lies."""

from __future__ import annotations

from tridsl.ir.expr import Binary, Cast, Expr, Load
from tridsl.ir.op import Reduce
from tridsl.ir.walk import variables
from tridsl.schedule.analyse import unit_stride_axis
from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """Axes of a contraction: `vector` (j), `tile` (i, may be absent), and the two loads.

    `strided`: no factor is contiguous along an output axis (A times B transposed): `b` must be packed to be read in vectors.
    """

    vector: str
    tile: str | None
    a: Load
    b: Load
    strided: bool = False


def is_contraction(stage: Reduce) -> bool:
    """A commutative sum of products of two elements, over at least one output axis."""
    return (
        not stage.ordered
        and stage.reducer.op == "add"
        and len(stage.targets) == 1
        and bool(stage.axes)
        and factors_of(stage.values[0]) is not None
        and roles_of(stage) is not None
    )


def factors_of(value: Expr) -> tuple[Load, Load] | None:
    while isinstance(value, Cast):
        value = value.a
    if not isinstance(value, Binary) or value.op != "mul":
        return None
    a, b = _element(value.a), _element(value.b)
    return None if a is None or b is None else (a, b)


def _element(factor: Expr) -> Load | None:
    while isinstance(factor, Cast):
        factor = factor.a
    return factor if isinstance(factor, Load) else None


def roles_of(stage: Reduce) -> Factors | None:
    factors = factors_of(stage.values[0])
    if factors is None:
        return None
    axes = [axis.name for axis in stage.axes]
    for b, a in (factors[::-1], factors):
        vector = unit_stride_axis(b)
        if vector not in axes or vector is None:
            continue
        others = _mentioned(a)
        tile = [x for x in axes if x in others and x not in _mentioned(b) and x != vector]
        if vector in others:
            continue
        return Factors(vector=vector, tile=tile[-1] if tile else None, a=a, b=b)
    last = axes[-1]
    for b, a in (factors[::-1], factors):
        tile = [x for x in axes if x in _mentioned(a) and x not in _mentioned(b)]
        if last in _mentioned(b) and last not in _mentioned(a) and tile:
            return Factors(vector=last, tile=tile[-1], a=a, b=b, strided=True)
    return None


def _mentioned(load: Load) -> frozenset[str]:
    return frozenset(v for i in load.index for v in variables(i))
