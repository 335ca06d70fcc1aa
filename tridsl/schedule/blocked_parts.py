"""Monoids that are merged in blocks on a GPU, where no tile fits: few rows, or a shape that no tile divides.

Workgroups share the elements of a row: a lane has an element for its score, then the lanes are columns next to each other of some
elements for the weighted sum, so that keys and values are read once, 16 bytes at a time. What the parts came to is merged in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Binary, Load
from tridsl.schedule.analyse import extent_of, unit_stride_axis
from tridsl.schedule.blocked_monoid import Group
from tridsl.schedule.decisions import Decider
from tridsl.schedule.fuse import all_fused
from tridsl.schedule.lanes import ACCESS_BYTES, access_width
from tridsl.schedule.rescaled_parts import BLOCK
from tridsl.schedule.steps import At, Bind, Inline, Order, Parts, Split, Step, Unroll, Vector
from tridsl.structs import dataclass

LANES = 256
"""Lanes of a workgroup, and elements of a part."""
COLUMNS = 32
"""Lanes along the columns of the result, at most."""
WRITTEN_OUT = 16
"""Accesses to a key that are written out, so that they are all under way together."""


def by_parts(group: Group, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> list[Step]:
    """Steps for any such group whose elements have a known number."""
    t, e = group.elements, group.own.name
    known = {a.name: extent_of(a, sizes) for a in (*group.merge.axes, *group.merge.over)}
    if any(extent is None for extent in known.values()) or len(group.scores) != 1 or len(group.scores[0].terms) != 1:
        return []
    merge, (scores,) = group.merge.name, group.scores
    part, score, (d,) = f"{merge}.part", scores.stage.name, scores.terms
    lanes = min(LANES, spec.max_group_lanes or 128)
    length = decide(f"{part}", lanes, [n for n in (64, 128, 256, 512, 1024) if n != lanes], "elements that a workgroup merges")
    width = along(group.values, e, known[e] or 1)
    shape = lanes_of(lanes, known[e] or 1, width)
    steps: list[Step] = [
        *(Inline(stage=name) for name in group.between),
        Parts(stage=merge, axis=t, factor=length, into=BLOCK),
        At(stage=score, consumer=part, axis=f"{t}.o"),
    ]
    terms = extent_of(scores.stage.over[0], sizes) or 1
    deep = along((scores.elements,), d, terms)
    axes = [d]
    if deep > 1:
        steps += [Split(stage=score, axis=d, factor=deep), Vector(stage=score, axis=f"{d}.i")]
        axes = [f"{d}.o", f"{d}.i"]
        steps += [Unroll(stage=score, axis=f"{d}.o")] if terms // deep <= WRITTEN_OUT else []
    steps += shape.elements(score, t, length, before=[a.name for a in scores.stage.axes if a.name != t], after=axes)
    steps += shape.block(part, group, f"{t}.i", length, known[e] or 1, width)
    steps += grouped(part, [*group.shared, f"{t}.o"])
    return [*steps, *put_together(group, shape, -(-(known[t] or 1) // length), known[e] or 1, width)]


def put_together(group: Group, shape: Lanes, parts: int, extent: int, width: int) -> list[Step]:
    """What the parts of each row came to is merged as one block, and the result is made of it."""
    merge, e = group.merge.name, group.own.name
    steps = [*shape.block(merge, group, f"{group.elements}.o", parts, extent, width), *grouped(merge, group.shared)]
    return [*steps, *shape.result(group.root.name, group.shared, e, extent, width)]


def lanes_of(lanes: int, extent: int, width: int) -> Lanes:
    """So many lanes along the columns as there are accesses of `width` to them, the others along the elements."""
    columns = 1
    while columns < COLUMNS and columns * width < extent:
        columns *= 2
    return Lanes(columns=columns, rows=lanes // columns)


def narrow_sums(group: Group) -> list[str]:
    """The sums that have no axis of their own, by the names of their stages in a block."""
    states = zip(group.merge.targets, group.merge.reducer.merge)
    return [target.name.rpartition(".")[2] for target, merge in states if len(target.axes) == len(group.shared) and not _is_key(merge)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """Lanes of a workgroup: `columns` along x, `rows` along y."""

    columns: int
    rows: int

    def block(self, stage: str, group: Group, axis: str, count: int, extent: int, width: int) -> list[Step]:
        """The stages of one block of `count` elements."""
        steps = [step for name in ("key", "weight", *narrow_sums(group)) for step in self.elements(f"{stage}.{name}", axis, count)]
        return [*steps, *self.sums(f"{stage}.{group.wide.rpartition('.')[2]}", group.own.name, axis, extent, width)]

    def elements(self, stage: str, axis: str, count: int, before: Sequence[str] = (), after: Sequence[str] = ()) -> list[Step]:
        """An element for each lane."""
        steps: list[Step] = []
        outer: list[str] = []
        if count > self.columns * self.rows:
            steps.append(Split(stage=stage, axis=axis, factor=self.columns * self.rows))
            outer, axis = [f"{axis}.o"], f"{axis}.i"
        steps.append(Split(stage=stage, axis=axis, factor=self.columns))
        steps.append(Order(stage=stage, axes=(*before, *outer, f"{axis}.o", f"{axis}.i", *after)))
        return [*steps, Bind(stage=stage, axes=((f"{axis}.o", "lane.y"), (f"{axis}.i", "lane.x")))]

    def sums(self, stage: str, column: str, element: str, count: int, width: int) -> list[Step]:
        """Columns along x, elements along y."""
        steps, outer, axis, inner = self._columns(stage, column, count, width)
        steps.append(Split(stage=stage, axis=element, factor=self.rows))
        steps.append(Order(stage=stage, axes=(*outer, axis, f"{element}.o", f"{element}.i", *inner)))
        return [*steps, Bind(stage=stage, axes=((axis, "lane.x"), (f"{element}.i", "lane.y")))]

    def result(self, stage: str, shared: Sequence[str], column: str, count: int, width: int) -> list[Step]:
        steps, outer, axis, inner = self._columns(stage, column, count, width)
        steps.append(Order(stage=stage, axes=(*shared, *outer, axis, *inner)))
        return [*steps, Bind(stage=stage, axes=((axis, "lane.x"),)), *grouped(stage, shared)]

    def _columns(self, stage: str, column: str, count: int, width: int) -> tuple[list[Step], list[str], str, list[str]]:
        """Steps, loops outside, the loop over lanes, loops inside."""
        steps: list[Step] = []
        inner: list[str] = []
        if width > 1:
            steps += [Split(stage=stage, axis=column, factor=width), Vector(stage=stage, axis=f"{column}.i")]
            column, inner = f"{column}.o", [f"{column}.i"]
        steps.append(Split(stage=stage, axis=column, factor=self.columns))
        return steps, [f"{column}.o"], f"{column}.i", inner


def grouped(stage: str, axes: Sequence[str]) -> list[Step]:
    fused, steps = all_fused(stage, axes)
    return [*steps, Bind(stage=stage, axes=((fused, "group.x"),))]


def _is_key(merge: object) -> bool:
    """Whether a state is the running extreme."""
    return isinstance(merge, Binary) and merge.op in ("max", "min")


def along(loads: Sequence[Load], axis: str, extent: int) -> int:
    """Elements of one access along the axis; 1 where one of the loads does not go along it."""
    if any(unit_stride_axis(load) != axis or load.boundary is not None or load.mask is not None for load in loads):
        return 1
    return access_width((load.dtype for load in loads), extent, without=ACCESS_BYTES)
