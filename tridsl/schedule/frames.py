"""The part of a tensor, and of what lies around it, that the iterations of a loop read: its corner moves with the loops, its size is fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd, prod

from tridsl.diagnostics import TriError, error
from tridsl.dtypes import BOOL, DType
from tridsl.ir.affine import (
    Interval,
    constant,
    equal,
    fold_ranges,
    interval,
    normal_form,
    simplify_index,
    to_expression,
)
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, add, binary, both, index, sub
from tridsl.ir.loop import For
from tridsl.ir.walk import variables
from tridsl.schedule.nest import trip_bound
from tridsl.schedule.regions import Read
from tridsl.schedule.steps import Lines
from tridsl.structs import dataclass

ROW_BYTES = 64
"""Rows begin at multiples of this: the widest access of any core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The rows that one iteration reads, from the frame's base and the loop's variable: `low` to `high`."""

    low: int
    high: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """`moving`: the axis that moves with the loop. By axis: `bases` (what the loops outside add), `lows` and `counts` of the part around it, and
    how many of those are `used` when no vector goes on over its loop's end.
    Outside the tensor the `edge` is repeated, or everything is `other` (None: nothing outside is used)."""

    shape: tuple[int, ...]
    moving: int
    bases: tuple[Expr, ...]
    lows: tuple[int, ...]
    counts: tuple[int, ...]
    used: tuple[int, ...]
    edge: bool
    other: Const | None

    def inner(self, step: Lines, axis: int, place: Expr) -> Expr:
        return unclamped(step, place, self.shape[axis])[0]

    def made(self, axis: int, ranges: Mapping[str, Interval]) -> int:
        """Points of an axis that are worth computing: whole vectors, where some lie outside anyway."""
        first = add(self.bases[axis], index(self.lows[axis]))
        low, high = interval(first, ranges)
        inside = low is not None and low >= 0 and high is not None and high + self.used[axis] <= self.shape[axis]
        return self.used[axis] if inside else self.counts[axis]

    def clamped(self, axis: int, place: Expr) -> Expr:
        return binary("max", binary("min", place, index(self.shape[axis] - 1)), index(0))

    def inside(self, places: Sequence[Expr], ranges: Mapping[str, Interval]) -> Expr | None:
        """Whether a point is an element; None where that is certain."""
        found: Expr | None = None
        for place, extent in zip(places, self.shape):
            for condition in (binary("ge", place, index(0)), binary("lt", place, index(extent))):
                folded = fold_ranges(condition, ranges)
                if not (isinstance(folded, Const) and folded.value):
                    found = both(found, folded)
        return found


def refused(step: Lines, why: str) -> TriError:
    return error(
        "E0458", f"the rows of `{step.stage}` cannot be kept along `{step.axis}` of `{step.consumer}`: {why}", step.span,
        help=f"write `{step.stage}.slide({step.consumer}, {step.axis})`, which keeps what there is, or compute the stages one after the other",
    )  # fmt: skip


def unclamped(step: Lines, place: Expr, extent: int) -> tuple[Expr, bool]:
    """An index without the clamps to its own axis, and whether there were any."""
    found = False
    while isinstance(place, Binary) and place.op in ("min", "max"):
        end = extent - 1 if place.op == "min" else 0
        inner = next((a for a, b in ((place.a, place.b), (place.b, place.a)) if constant(b) == end), None)
        if inner is None:
            raise refused(step, "a place is clamped to something else than the tensor's edge")
        place, found = inner, True
    return place, found


def frame_of(
    step: Lines, shape: tuple[int, ...], dtype: DType, reads: Sequence[Read], path: Sequence[For], moving: tuple[str, str]
) -> Frame:
    """What all `reads` together need; `moving` are the names of the loop and of the one in front of it."""
    edge, other = _border(step, shape, reads)
    fixed = {loop.var for loop in path}
    bases: list[Expr] = []
    ends: list[Interval] = []
    exact: list[int] = []
    along: set[int] = set()
    for d, extent in enumerate(shape):
        places = [unclamped(step, r.load.index[d], extent)[0] for r in reads]
        own: list[Expr] = []
        low: list[int] = []
        high: list[int] = []
        last: list[int] = []
        for read, place in zip(reads, places):
            poly = normal_form(place)
            base = to_expression(type(poly)(terms=tuple((m, c) for m, c in poly.terms if all(variables(a) <= fixed for a in m))))
            rest = simplify_index(sub(place, base))
            if set(moving) & variables(rest):
                along.add(d)
                if not any(normal_form(rest).coefficient(name) == 1 for name in moving):
                    raise refused(step, "a read does not move by one row with the loop")
            least, most = interval(rest, dict.fromkeys(moving, (0, 0)) | _whole(read, dtype))
            if least is None or most is None:
                raise refused(step, "the part that is read has no constant size")
            own.append(base)
            low.append(least)
            high.append(most)
            last.append(interval(rest, dict.fromkeys(moving, (0, 0)) | trips_of(read))[1] or 0)
        if not all(equal(own[0], base) for base in own[1:]):
            raise refused(step, "it is read at places that move differently")
        bases.append(own[0])
        ends.append((min(low), max(high)))
        exact.append(max(last) - min(low) + 1)
    if len(along) != 1:
        raise refused(step, f"not exactly one of its axes moves with `{step.axis}`")
    row = along.pop()
    counts = [int(high or 0) - int(low or 0) + 1 for low, high in ends]
    others = [d for d in range(len(shape)) if d != row]
    if others:
        widest = max(others, key=lambda d: (counts[d], d))
        for d in others:
            if d > widest and bases[d] == index(0) and int(ends[d][0] or 0) >= 0 and int(ends[d][1] or 0) < shape[d]:
                ends[d], counts[d], exact[d] = (0, shape[d] - 1), shape[d], shape[d]  # rows that lie together
        together = prod(counts[d] for d in others if d > widest)
        unit = ROW_BYTES // gcd(ROW_BYTES, together * dtype.storage_bytes)
        counts[widest] = -(-counts[widest] // unit) * unit
    return Frame(
        shape=shape, moving=row, bases=tuple(bases), lows=tuple(int(low or 0) for low, _ in ends), counts=tuple(counts), used=tuple(exact),
        edge=edge, other=other,
    )  # fmt: skip


def window_of(step: Lines, frame: Frame, reads: Sequence[Read], variable: str) -> Window:
    """The rows that one iteration of the loop `variable` reads."""
    ends = []
    for read in reads:
        place = frame.inner(step, frame.moving, read.load.index[frame.moving])
        rest = simplify_index(sub(place, frame.bases[frame.moving]))
        low, high = interval(rest, {variable: (0, 0)} | trips_of(read))
        assert low is not None and high is not None
        ends.append((low, high))
    return Window(low=min(low for low, _ in ends), high=max(high for _, high in ends))


def trips_of(read: Read) -> dict[str, Interval]:
    return {loop.var: (0, (trip_bound(loop) or 1) - 1) for loop in read.around}


def _whole(read: Read, dtype: DType) -> dict[str, Interval]:
    """The loops around the read; vectors are whole, whatever their last lanes are used for."""
    unit = ROW_BYTES // dtype.storage_bytes
    trips = {loop.var: trip_bound(loop) or 1 for loop in read.around}
    vectors = {loop.var for loop in read.around if loop.kind == "vector"}
    return {name: (0, (-(-n // unit) * unit if name in vectors else n) - 1) for name, n in trips.items()}


def _border(step: Lines, shape: tuple[int, ...], reads: Sequence[Read]) -> tuple[bool, Const | None]:
    """Whether reads outside give the edge, or which constant."""
    edge = False
    others: list[Const] = []
    for read in reads:
        load = read.load
        edge = edge or any(unclamped(step, i, n)[1] for i, n in zip(load.index, shape))
        if load.mask is None:
            continue
        if not all(is_inside(c, load, shape) for c in conjuncts(load.mask)):
            raise refused(step, "it is read on a condition")
        value = load.other
        while isinstance(value, Cast):
            value = value.a
        if not isinstance(value, Const):
            raise refused(step, "what lies outside is no constant")
        others.append(Const(value=value.value, dtype=load.dtype))
    if len({repr(o) for o in others}) > 1 or (edge and others):
        raise refused(step, "its reads have different boundaries")
    return edge, others[0] if others else None


def conjuncts(condition: Expr) -> list[Expr]:
    if isinstance(condition, Binary) and condition.op == "and" and condition.dtype == BOOL:
        return [*conjuncts(condition.a), *conjuncts(condition.b)]
    return [condition]


def is_inside(condition: Expr, load: Load, shape: tuple[int, ...]) -> bool:
    """One side of `0 <= place < extent`. (Where a side is missing it is certain: an access that is made is inside.)"""
    if not isinstance(condition, Binary) or condition.op not in ("ge", "lt"):
        return False
    end = constant(condition.b)
    return any(equal(condition.a, i) and end == (0 if condition.op == "ge" else n) for i, n in zip(load.index, shape))
